//! Tests of the log's cursors.
