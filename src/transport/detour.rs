//! Frames on streams that are not their own: how they are put on, and how they are read.
//!
//! The frame within says everything itself, its address included; the one around it says nothing.

use super::decode::{Decoder, Error};
use super::encode::{Call, Frame};
use crate::proto::raft as wire;
use crate::proto::raft::detour::Frame as Detoured;
use crate::raft::message::Message;

/// `frame` as a stream of requests to append carries it; nothing if no stream can.
pub fn on_append_requests(frame: Frame) -> Option<wire::AppendRequest> {
    match frame {
        Frame::Append(frame) | Frame::Heartbeat(frame) => Some(frame),
        other => {
            let body = wire::append_request::Body::Detour(Box::new(detour(other)?));
            Some(wire::AppendRequest { body: Some(body), ..Default::default() })
        }
    }
}

/// `frame` as the way back of such a stream carries it.
pub fn on_append_replies(frame: Frame) -> Option<wire::AppendReply> {
    match frame {
        Frame::AppendReply(frame) | Frame::HeartbeatReply(frame) => Some(frame),
        other => {
            let body = wire::append_reply::Body::Detour(Box::new(detour(other)?));
            Some(wire::AppendReply { body: Some(body), ..Default::default() })
        }
    }
}

/// `frame` as a stream of forwarded requests carries it.
pub fn on_forward_requests(frame: Frame) -> Option<wire::ForwardRequest> {
    match frame {
        Frame::Forward(frame) => Some(frame),
        other => {
            let body = wire::forward_request::Body::Detour(Box::new(detour(other)?));
            Some(wire::ForwardRequest { body: Some(body), ..Default::default() })
        }
    }
}

/// `frame` as the way back of such a stream carries it.
pub fn on_forward_replies(frame: Frame) -> Option<wire::ForwardReply> {
    match frame {
        Frame::ForwardReply(frame) => Some(frame),
        other => {
            let body = wire::forward_reply::Body::Detour(Box::new(detour(other)?));
            Some(wire::ForwardReply { body: Some(body), ..Default::default() })
        }
    }
}

fn detour(frame: Frame) -> Option<wire::Detour> {
    let frame = match frame {
        Frame::Call(Call::Vote(frame)) => Detoured::VoteRequest(frame),
        Frame::Call(Call::TimeoutNow(frame)) => Detoured::TimeoutNow(frame),
        Frame::VoteReply(frame) => Detoured::VoteReply(frame),
        Frame::Append(frame) | Frame::Heartbeat(frame) => Detoured::Append(frame.into()),
        Frame::AppendReply(frame) | Frame::HeartbeatReply(frame) => {
            Detoured::AppendReply(frame.into())
        }
        Frame::Forward(frame) => Detoured::Forward(frame.into()),
        Frame::ForwardReply(frame) => Detoured::ForwardReply(frame.into()),
        Frame::Snapshot(_) => return None,
    };
    Some(wire::Detour { frame: Some(frame) })
}

/// A frame of a stream.
pub trait Streamed: Send + 'static {
    /// What it says.
    fn read(self, decoder: &Decoder) -> Result<Message, Error>;

    /// The number of a ping, which is answered at once.
    fn ping(&self) -> Option<u64> {
        None
    }

    /// The number of the answer to a ping.
    fn pong(&self) -> Option<u64> {
        None
    }
}

impl Streamed for wire::AppendRequest {
    fn read(self, decoder: &Decoder) -> Result<Message, Error> {
        match self.body {
            Some(wire::append_request::Body::Detour(detour)) => detoured(decoder, *detour),
            _ => decoder.append_request(self),
        }
    }

    fn ping(&self) -> Option<u64> {
        match self.body {
            Some(wire::append_request::Body::Ping(number)) => Some(number),
            _ => None,
        }
    }
}

impl Streamed for wire::AppendReply {
    fn read(self, decoder: &Decoder) -> Result<Message, Error> {
        match self.body {
            Some(wire::append_reply::Body::Detour(detour)) => detoured(decoder, *detour),
            _ => decoder.append_reply(&self),
        }
    }

    fn pong(&self) -> Option<u64> {
        match self.body {
            Some(wire::append_reply::Body::Pong(number)) => Some(number),
            _ => None,
        }
    }
}

impl Streamed for wire::ForwardRequest {
    fn read(self, decoder: &Decoder) -> Result<Message, Error> {
        match self.body {
            Some(wire::forward_request::Body::Detour(detour)) => detoured(decoder, *detour),
            _ => decoder.forward_request(self),
        }
    }
}

impl Streamed for wire::ForwardReply {
    fn read(self, decoder: &Decoder) -> Result<Message, Error> {
        match self.body {
            Some(wire::forward_reply::Body::Detour(detour)) => detoured(decoder, *detour),
            _ => decoder.forward_reply(self),
        }
    }
}

fn detoured(decoder: &Decoder, detour: wire::Detour) -> Result<Message, Error> {
    match detour.frame.ok_or(Error::Missing("frame"))? {
        Detoured::VoteRequest(frame) => decoder.vote_request(&frame),
        Detoured::VoteReply(frame) => decoder.vote_reply(&frame),
        Detoured::TimeoutNow(frame) => decoder.timeout_now(&frame),
        // These refuse a detour within.
        Detoured::Append(frame) => decoder.append_request(*frame),
        Detoured::AppendReply(frame) => decoder.append_reply(&frame),
        Detoured::Forward(frame) => decoder.forward_request(*frame),
        Detoured::ForwardReply(frame) => decoder.forward_reply(*frame),
    }
}
