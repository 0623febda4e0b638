//! Tests of the room that need more than one of its parts.
