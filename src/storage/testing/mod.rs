//! A disk for tests and for the simulator.
