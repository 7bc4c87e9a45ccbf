//! What travels between the vault, the keeper and a worker: one message a packet, postcard, of at most [`LONGEST`] bytes.
//!
//! A worker runs code of others, so what it sends is read as a stranger's. Secrets stand last in their message, so that a
//! buffer that grows has not held them yet.

use crate::port::{KeyError, KeyId, Purpose};
use crate::uri::Uri;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// No message is longer, in bytes.
pub const LONGEST: usize = 64 << 10;
/// The longest value that is wrapped, in bytes: it must fit into RSA-OAEP beside the digest of its `aad`.
pub const LONGEST_WRAPPED: usize = 256;

/// What the vault asks a worker.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Whether the token is there and the session is logged in.
    Check,
    /// Finds or makes a key.
    Generate {
        /// What it signs.
        purpose: Purpose,
        /// What the cluster calls it.
        name: Vec<u8>,
    },
    /// A public key.
    Public(KeyId),
    /// A signature over a SHA-256 digest.
    Sign {
        /// With this key.
        id: KeyId,
        /// Of this digest.
        digest: [u8; 32],
    },
    /// The end of a key.
    Destroy(KeyId),
    /// All keys.
    List,
    /// Encrypts a value under the wrapping key of `label`, which is made if it is missing.
    Wrap {
        /// Which wrapping key.
        label: String,
        /// What must be given again to unwrap.
        aad: Vec<u8>,
        /// The value.
        plain: Vec<u8>,
    },
    /// Decrypts what `Wrap` gave.
    Unwrap {
        /// Which wrapping key.
        label: String,
        /// As it was given to `Wrap`.
        aad: Vec<u8>,
        /// What `Wrap` gave.
        blob: Vec<u8>,
    },
}

/// What a worker answers if it could.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Done, or ready: the first message of every worker.
    Done,
    /// A key's id.
    Id(KeyId),
    /// A public key, a signature, a wrapped or unwrapped value.
    Bytes(Vec<u8>),
    /// Every key.
    Ids(Vec<KeyId>),
}

/// A worker's answer.
pub type Reply = Result<Answer, KeyError>;

/// The vault's first message to the keeper.
#[derive(Serialize, Deserialize)]
pub(crate) struct Setup {
    pub uri: Uri,
    pub pin: Vec<u8>,
}

/// What the vault orders from the keeper afterwards.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// A new worker in place of any that there is; answered by a [`Started`] of this number, with its channel.
    Start(u64),
    /// The end of the worker.
    Stop,
}

/// What the keeper answers to [`Order::Start`]. By its number an answer that came too late is known.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Started {
    pub number: u64,
    pub done: Result<(), KeyError>,
}

/// The keeper's first message to a worker, with the channel to the vault.
#[derive(Serialize, Deserialize)]
pub(crate) struct Hello {
    pub uri: Uri,
    pub trust: PinTrust,
    pub pin: Vec<u8>,
}

/// What is known of the PIN in this run of the vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PinTrust {
    /// Never tried.
    Untried,
    /// Tried once, and nobody knows how it ended: the worker was killed, or died.
    Unsettled,
    /// The token took it.
    Accepted,
    /// The token refused it: never tried again.
    Refused,
    /// Tried twice, and nobody knows how either ended. Tokens that do not show what they count would lock themselves: not tried
    /// again.
    Doubted,
}

/// What a worker tells the keeper, so that a PIN is not tried twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PinEvent {
    /// It is about to be tried.
    Trying,
    /// The token took it.
    Accepted,
    /// The token refused it.
    Refused,
    /// The token failed otherwise and has judged nothing.
    NotJudged,
}

/// The bytes of a message; `room` is as much as it can need.
pub fn encode<T: Serialize>(message: &T, room: usize) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let bytes = postcard::to_extend(message, Vec::with_capacity(room))
        .map_err(|_| KeyError::Refused("a message to the token's process cannot be written".to_owned()))?;
    let bytes = Zeroizing::new(bytes);
    if bytes.len() > LONGEST {
        return Err(KeyError::Refused(format!("a message to the token's process is over {LONGEST} bytes")));
    }
    Ok(bytes)
}

/// The message that `bytes` are, and nothing after it.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, KeyError> {
    let garbled = || KeyError::Corrupt("the token's process sent what is no message".to_owned());
    let (message, rest) = postcard::take_from_bytes(bytes).map_err(|_| garbled())?;
    if rest.is_empty() { Ok(message) } else { Err(garbled()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_and_an_altered_one_is_refused_or_another() {
        let request = Request::Sign { id: KeyId([7; 16]), digest: [9; 32] };
        let bytes = encode(&request, 64).unwrap();
        assert_eq!(decode::<Request>(&bytes).unwrap(), request);
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(matches!(decode::<Request>(&longer), Err(KeyError::Corrupt(_))));
        assert!(matches!(decode::<Request>(&bytes[..bytes.len() - 1]), Err(KeyError::Corrupt(_))));
        // A length that is not there is no allocation.
        assert!(matches!(decode::<Reply>(&[0, 2, 0xff, 0xff, 0xff, 0xff, 0x0f]), Err(KeyError::Corrupt(_))));
    }

    #[test]
    fn what_is_too_long_is_not_sent() {
        let request = Request::Generate { purpose: Purpose::Root, name: vec![0; LONGEST] };
        assert!(matches!(encode(&request, 64), Err(KeyError::Refused(_))));
    }
}
