//! Tests of the room: what is written is read, what is damaged is found, what a crash leaves is
//! mended.

mod model;
mod real;
