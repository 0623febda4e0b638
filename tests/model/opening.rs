//! The way to where a search starts: a scene that would take the search itself too long to reach.
//! Every step of it is one that could happen, and every promise is checked on the way.

use std::sync::Arc;

use crate::lab::Lab;
use crate::rules::{Opening, id};
use crate::server::{Checked, Input};
use crate::world::{Step, World};

/// A conversation that takes longer is none that ends.
const MESSAGES_MAX: usize = 200;

/// The world at the start of the search.
pub fn play(lab: &Lab) -> Checked<World> {
    let mut step = Step { world: World::new(lab), lab, events: Vec::new() };
    for opening in &lab.rules.opening {
        let done = step.open(*opening)?;
        assert!(done, "the opening goes as written: {opening:?}");
    }
    Ok(step.world)
}

impl Step<'_> {
    fn open(&mut self, opening: Opening) -> Checked<bool> {
        match opening {
            Opening::Elect(at, with) => self.elect(at as usize - 1, 1 << (with - 1), false),
            Opening::Propose(at) => self.feed_and_send(at as u8 - 1, &Input::Propose),
            Opening::Compact(at) => self.feed_and_send(at as u8 - 1, &Input::Compact),
            Opening::Tick(at) => self.feed_and_send(at as u8 - 1, &Input::Tick),
            Opening::LinkLost(at, peer) => {
                self.feed_and_send(at as u8 - 1, &Input::LinkLost(id(peer)))
            }
            Opening::Transfer(at, to) => self.feed_and_send(at as u8 - 1, &Input::Transfer(id(to))),
            Opening::Change(at, wish) => self.feed_and_send(at as u8 - 1, &Input::Change(wish)),
            Opening::Talk(one, other) => self.talk(one, other),
            Opening::Deliver(from, to) => self.deliver_one(from, to),
            Opening::Lose => {
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
        let is_it = |packet: &Arc<crate::lab::Packet>| {
            packet.message.from.get() == from && packet.message.to.get() == to
        };
        let Some(at) = self.world.net.iter().position(is_it) else { return Ok(false) };
        let packet = self.world.net.remove(at);
        self.deliver(&packet)?;
        Ok(true)
    }
}
