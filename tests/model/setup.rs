//! The way to where a search starts: a scene that would take the search itself too long to reach.
//! Every step of it is one that could happen, and every promise is checked on the way.

use std::sync::Arc;

use crate::bounds::{SetupStep, id};
use crate::intern::Lab;
use crate::server::{Checked, Input};
use crate::system_state::{Step, SystemState};

/// A conversation that takes longer is none that ends.
const MESSAGES_MAX: usize = 200;

/// The world at the start of the search.
pub fn play(lab: &Lab) -> Checked<SystemState> {
    let mut step = Step { world: SystemState::new(lab), lab, events: Vec::new() };
    for opening in &lab.rules.opening {
        let done = step.open(*opening)?;
        assert!(done, "the opening goes as written: {opening:?}");
    }
    Ok(step.world)
}

impl Step<'_> {
    fn open(&mut self, opening: SetupStep) -> Checked<bool> {
        match opening {
            SetupStep::Elect(at, with) => self.elect(at as usize - 1, 1 << (with - 1), false),
            SetupStep::Propose(at) => self.feed_and_send(at as u8 - 1, &Input::Propose),
            SetupStep::Compact(at) => self.feed_and_send(at as u8 - 1, &Input::Compact),
            SetupStep::Tick(at) => self.feed_and_send(at as u8 - 1, &Input::Tick),
            SetupStep::LinkLost(at, peer) => {
                self.feed_and_send(at as u8 - 1, &Input::LinkLost(id(peer)))
            }
            SetupStep::Transfer(at, to) => {
                self.feed_and_send(at as u8 - 1, &Input::Transfer(id(to)))
            }
            SetupStep::Change(at, wish) => self.feed_and_send(at as u8 - 1, &Input::Change(wish)),
            SetupStep::Talk(one, other) => self.talk(one, other),
            SetupStep::Deliver(from, to) => self.deliver_one(from, to),
            SetupStep::Lose => {
                self.world.net.clear();
                Ok(true)
            }
        }
    }

    /// False: there was nothing to say.
    fn talk(&mut self, one: u64, other: u64) -> Checked<bool> {
        for count in 0..MESSAGES_MAX {
            for at in [one, other] {
                let said = self.flush(at as usize - 1)?;
                self.world.net.extend(said);
            }
            if !(self.deliver_one(one, other)? || self.deliver_one(other, one)?) {
                return Ok(count > 0);
            }
        }
        Ok(false)
    }

    /// The oldest message on that way.
    fn deliver_one(&mut self, from: u64, to: u64) -> Checked<bool> {
        let is_it = |packet: &Arc<crate::intern::Packet>| {
            packet.message.from.get() == from && packet.message.to.get() == to
        };
        let Some(at) = self.world.net.iter().position(is_it) else { return Ok(false) };
        let packet = self.world.net.remove(at);
        self.deliver(&packet)?;
        Ok(true)
    }
}
