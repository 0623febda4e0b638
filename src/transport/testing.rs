//! The wire without a wire, for simulated networks: a message out through the production encoding,
//! past a function that may change its bytes, and in through the production decoder.

use super::decode::{self, Decoder};
use super::encode::{self, Call, Frame};
use crate::proto::{checked, raft as wire};
use crate::raft::message::Message;

/// What the receiver of `message` reads after `meddle` had its bytes, or why it refuses them.
///
/// # Errors
///
/// What the decoder says.
pub fn carry(
    cluster: u64,
    message: Message,
    meddle: impl FnOnce(&mut Vec<u8>),
) -> Result<Message, String> {
    let (me, peer) = (message.to, message.from);
    let decoder = Decoder { cluster, me, peer };
    let refused = |error: decode::Error| error.to_string();
    match encode::encode(cluster, message) {
        Frame::Call(Call::Vote(frame)) => decoder.vote_request(&through(&frame, meddle)?),
        Frame::Call(Call::TimeoutNow(frame)) => decoder.timeout_now(&through(&frame, meddle)?),
        Frame::VoteReply(frame) => decoder.vote_reply(&through(&frame, meddle)?),
        Frame::Append(frame) | Frame::Heartbeat(frame) => {
            decoder.append_request(through(&frame, meddle)?)
        }
        Frame::AppendReply(frame) | Frame::HeartbeatReply(frame) => {
            decoder.append_reply(&through(&frame, meddle)?)
        }
        Frame::Forward(frame) => decoder.forward_request(through(&frame, meddle)?),
        Frame::ForwardReply(frame) => decoder.forward_reply(through(&frame, meddle)?),
        Frame::Snapshot(frame) => {
            let frame = through(&frame, meddle)?;
            decoder.admit(frame.route.as_ref()).map_err(refused)?;
            let Some(wire::snapshot_frame::Body::Header(header)) = frame.body else {
                return Err("no header".to_owned());
            };
            decode::snapshot(&header).map(|(term, meta)| decoder.installed(term, meta))
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
