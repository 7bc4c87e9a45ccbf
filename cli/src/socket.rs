//! The voter on this machine, by its unix socket: founding, unlocking, sealing. Root on the host is the only caller.

use crate::errors::{Code, Failure};
use holdfast_transport::failure::Failure as Answer;
use holdfast_transport::rpc::local_client::LocalClient;
use holdfast_wire::backup::MAX_PART;
use holdfast_wire::v1;
use hyper_util::rt::TokioIo;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// A connected socket.
pub struct Socket {
    path: PathBuf,
    rpc: LocalClient<Channel>,
}

impl Socket {
    /// Connects to `path`; each call may take `timeout`.
    pub async fn connect(path: &Path, timeout: Duration) -> Result<Self, Failure> {
        let target = path.to_owned();
        let dial = tower::service_fn(move |_: Uri| {
            let target = target.clone();
            async move { UnixStream::connect(target).await.map(TokioIo::new) }
        });
        // The address is never dialled: the connector above ignores it.
        let endpoint = Endpoint::from_static("http://vault.socket").timeout(timeout).connect_timeout(timeout);
        // Dial once by hand first: its error says what tonic's would hide.
        UnixStream::connect(path).await.map_err(|e| unreachable_socket(path, &e))?;
        let channel = endpoint.connect_with_connector(dial).await.map_err(|e| unreachable_socket(path, &e))?;
        Ok(Self { path: path.to_owned(), rpc: LocalClient::new(channel) })
    }
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
    fn answer<T>(&self, r: Result<tonic::Response<T>, tonic::Status>) -> Result<T, Failure> {
        let socket = self.path.display().to_string();
        r.map(tonic::Response::into_inner).map_err(|s| Failure::from(Answer::from(s)).with("socket", socket))
    }
    /// Founds a cluster on this voter.
    pub async fn init(&mut self, request: v1::InitRequest) -> Result<v1::InitReply, Failure> {
        let r = self.rpc.init(request).await;
        self.answer(r)
    }
    /// What state the voter is in.
    pub async fn seal_status(&mut self) -> Result<v1::SealStatusReply, Failure> {
        let r = self.rpc.seal_status(v1::Ack {}).await;
        self.answer(r)
    }
    /// The boxes that hold its disk key.
    pub async fn slot_boxes(&mut self) -> Result<v1::SlotBoxes, Failure> {
        let r = self.rpc.get_slot_boxes(v1::Ack {}).await;
        self.answer(r)
    }
    /// Hands it its disk key.
    pub async fn open_slot(&mut self, request: v1::OpenSlotRequest) -> Result<(), Failure> {
        let r = self.rpc.open_slot(request).await;
        self.answer(r).map(|_| ())
    }
    /// Seals it.
    pub async fn seal(&mut self) -> Result<(), Failure> {
        let r = self.rpc.seal(v1::Ack {}).await;
        self.answer(r).map(|_| ())
    }
    /// A backup, part by part.
    pub async fn backup(&mut self) -> Result<tonic::Streaming<v1::BackupPart>, Failure> {
        let r = self.rpc.clone().max_decoding_message_size(MAX_PART).backup(v1::Ack {}).await;
        self.answer(r)
    }
    /// Brings a cluster back on it.
    pub async fn recover(
        &mut self,
        parts: tokio_stream::wrappers::ReceiverStream<v1::RecoverPart>,
    ) -> Result<tonic::Streaming<v1::RecoverReply>, Failure> {
        let r = self.rpc.clone().max_decoding_message_size(MAX_PART).recover(parts).await;
        self.answer(r)
    }
}

fn unreachable_socket(path: &Path, e: &dyn std::fmt::Display) -> Failure {
    let help = "is the voter running, and may you open its socket? (its owner is root)";
    Failure::new(Code::Unreachable, format!("cannot reach the voter at {}: {e}", path.display()), help)
}
