//! Requests for grants that were carried out: an id counts once, for one request.

use super::State;
use crate::refusal::Refusal;
use holdfast_types::{Digest, Millis};
use serde::{Deserialize, Serialize};

/// A request that was carried out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RequestRow {
    /// Who asked for what, as a hash.
    pub body: Digest,
    /// Remembered until then.
    pub until: Millis,
}

impl State {
    /// Refuses a request whose id was used. LAW: nothing is granted twice for one request
    /// (`a_request_or_command_counts_once`). Who repeats it since the answer was lost is answered by the leader that has it.
    pub(crate) fn new_request(&self, id: &[u8; 16], body: &Digest) -> Result<(), Refusal> {
        match self.requests.get(id) {
            None => Ok(()),
            Some(before) if before.body == *body => {
                Err(Refusal::changed("this request was carried out before; what it was granted is in the directory"))
            }
            Some(_) => Err(Refusal::invalid("this request id was used for another request")),
        }
    }
}
