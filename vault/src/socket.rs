//! The unix socket U: for root and the daemon's own user, in every phase.

use crate::grpc::local;
use crate::run::Daemon;
use holdfast_transport::failure::Failure;
use holdfast_transport::rpc::local_server::LocalServer;
use std::path::Path;
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

/// Largest message: the head of a backup, with room.
const MAX_MESSAGE: usize = (16 << 20) + (1 << 10);

/// Listens on `path`; a socket that a process left behind is replaced, one that is answered is not.
pub fn bind(path: &Path) -> Result<UnixListener, Failure> {
    let failed = |e: std::io::Error| Failure::disk("listen on", path, &e);
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(Failure::failed("address", format!("{} is in use by another process", path.display()))
            .help("stop the vault that runs, or configure another socket and another state_dir"));
    }
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(e)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Answers root and the daemon's own user until `stop`.
pub async fn serve(
    socket: UnixListener,
    daemon: Arc<Daemon>,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let incoming = tokio_stream::wrappers::UnixListenerStream::new(socket);
    let mine = rustix::process::geteuid().as_raw();
    // Permissions of the socket keep others out; the peer's credentials are checked all the same.
    let incoming = tokio_stream::StreamExt::filter(incoming, move |c| match c {
        Ok(c) => c.peer_cred().is_ok_and(|p| p.uid() == 0 || p.uid() == mine),
        Err(_) => true,
    });
    tonic::transport::Server::builder()
        .add_service(LocalServer::new(local::LocalService(daemon)).max_decoding_message_size(MAX_MESSAGE))
        .serve_with_incoming_shutdown(incoming, stop.cancelled())
        .await
}
