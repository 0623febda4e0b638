//! Who judges the judges: histories that are linearizable and histories that are not, made by hand
//! and made by chance, and the bugs of the production store that the checkers must see.

#![allow(clippy::print_stdout, reason = "for whoever reads the test's output")]

#[path = "../common/linearizability/mod.rs"]
mod linearizability;
#[path = "../common/rooms/mod.rs"]
mod rooms;

mod generated;
mod stories;
