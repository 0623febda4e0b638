//! Tests of the room: what is written is read, what is damaged is found, what a crash leaves is
//! mended.

mod bytes;
mod crash;
mod damage;
mod disk_errors;
mod full_disk;
mod life;
mod log;
mod model;
mod real;
mod snapshots;
