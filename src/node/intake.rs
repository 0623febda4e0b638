//! What members send, before the core sees it: a command that nobody could apply goes no further.
//!
//! What stands in the log is applied by every member, at every start again. So the leader looks at
//! what others pass on to it as closely as at what its own clients ask for.

use bytes::Bytes;

use crate::kv::Command;
use crate::raft::{Body, Message};
use crate::testpoints::{Mutant, mutant};

/// The message, without proposals that are no sound commands; nothing if nothing is left of it. Who
/// made those up waits for no answer.
pub fn admitted(mut message: Message) -> Option<Message> {
    if let Body::Propose { proposals } = &mut message.body
        && !mutant(Mutant::PoisonProposed)
    {
        proposals.retain(|proposal| is_sound(&proposal.data));
        if proposals.is_empty() {
            return None;
        }
    }
    Some(message)
}

/// Whether every member understands `data`, and a client could have asked for it.
fn is_sound(data: &Bytes) -> bool {
    match Command::decode(data) {
        Ok(Command::Put(request)) => request.validate().is_ok(),
        Ok(Command::DeleteRange(request)) => request.validate().is_ok(),
        Ok(Command::Txn(request)) => request.validate().is_ok(),
        Ok(Command::Compact(_)) => true,
        Err(_) => false,
    }
}
