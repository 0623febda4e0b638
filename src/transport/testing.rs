//! The wire without a wire, for simulated networks: a message out through the production encoding,
//! past whoever meddles with its bytes, and in through the production gate.

use super::codec::{self, Gate};
use super::frame::{self, Call, Frame};
use crate::proto::{checked, raft as wire};
use crate::raft::message::Message;

/// What the receiver of `message` reads after `meddle` had its bytes, or why it refuses them.
///
/// # Errors
///
/// What the decoder or the gate says.
pub fn carry(
    cluster: u64,
    message: Message,
    meddle: impl FnOnce(&mut Vec<u8>),
) -> Result<Message, String> {
    let (me, peer) = (message.to, message.from);
    let gate = Gate { cluster, me, peer };
    let refused = |error: codec::Error| error.to_string();
    match frame::encode(cluster, message) {
        Frame::Call(Call::Vote(frame)) => gate.vote_request(&through(&frame, meddle)?),
        Frame::Call(Call::TimeoutNow(frame)) => gate.timeout_now(&through(&frame, meddle)?),
        Frame::VoteReply(frame) => gate.vote_reply(&through(&frame, meddle)?),
        Frame::Append(frame) | Frame::Heartbeat(frame) => {
            gate.append_request(through(&frame, meddle)?)
        }
        Frame::AppendReply(frame) | Frame::HeartbeatReply(frame) => {
            gate.append_reply(&through(&frame, meddle)?)
        }
        Frame::Forward(frame) => gate.forward_request(through(&frame, meddle)?),
        Frame::ForwardReply(frame) => gate.forward_reply(through(&frame, meddle)?),
        Frame::Snapshot(frame) => {
            let frame = through(&frame, meddle)?;
            gate.admit(frame.route.as_ref()).map_err(refused)?;
            let Some(wire::snapshot_frame::Body::Header(header)) = frame.body else {
                return Err("no header".to_owned());
            };
            codec::snapshot(&header).map(|(term, meta)| gate.installed(term, meta))
        }
    }
    .map_err(refused)
}

fn through<F: prost::Message + Default>(
    frame: &F,
    meddle: impl FnOnce(&mut Vec<u8>),
) -> Result<F, String> {
    let mut bytes = Vec::new();
    checked::seal(frame, &mut bytes);
    meddle(&mut bytes);
    checked::open(bytes.into())
}
