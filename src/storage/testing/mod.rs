//! A disk that does its worst, for the tests of this room and for whole simulated nodes.

mod inode;
pub(in crate::storage) mod rng;
mod sim_disk;

pub use sim_disk::{Fault, SimDisk, SimFile, SimLock};
