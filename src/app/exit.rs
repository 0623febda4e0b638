//! How the process ends, for its supervisor: the codes of `sysexits.h` where one fits.

use tracing::error;

use crate::storage;

use super::log;

/// Stopped as asked.
pub const CLEAN: u8 = 0;
/// Not healthy: the answer of `raft-node health`, and no failure of its own.
pub const UNHEALTHY: u8 = 1;
/// A bug: an assertion failed, or the log holds what this version does not understand.
pub const BUG: u8 = 70;
/// The disk failed, or holds what it should not.
pub const DISK: u8 = 74;
/// The disk is full: once there is room, a start may go well.
pub const DISK_FULL: u8 = 75;
/// The environment is wrong: nothing was started.
pub const CONFIGURATION: u8 = 78;

/// The code for an end by `error`.
pub fn of_storage(error: &storage::Error) -> u8 {
    if error.is_full() { DISK_FULL } else { DISK }
}

/// Says why, and ends the process at once: nothing after this point may be promised to anybody.
/// Written even if the log is off.
pub fn fatal(code: u8, why: &str) -> ! {
    if tracing::enabled!(tracing::Level::ERROR) {
        error!(exit_code = code, "{why}");
    } else {
        log::last_words(why);
    }
    log::flush();
    std::process::exit(i32::from(code))
}

/// From now on a failed assertion, on whatever thread, is logged and ends the process: a member
/// that has lost one of its threads must not look alive.
pub fn assertions_end_the_process() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("assertion failed");
        let backtrace = std::backtrace::Backtrace::capture();
        fatal(BUG, &format!("bug at {place}: {message}\n{backtrace}"));
    }));
}
