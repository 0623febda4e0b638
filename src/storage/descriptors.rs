//! Descriptors for files, when the process has none left.
//!
//! To open a file is the one step that may be tried again: nothing is written yet. So a table of
//! descriptors that others have filled must not end the process. A few descriptors are held in
//! reserve and given up for a file that needs one; and when they are gone too, the thread waits for
//! one to come free.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

/// Descriptors held in reserve.
const SPARES: usize = 4;
/// How long a file may wait for a descriptor.
const WAIT_MAX: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// The reserve of one directory.
#[derive(Debug)]
pub(super) struct Spares {
    /// What the spares are copies of.
    of: Arc<File>,
    held: Mutex<Vec<File>>,
    wait_max: Duration,
}

impl Spares {
    pub(super) fn of(file: Arc<File>) -> Self {
        let spares = Self { of: file, held: Mutex::default(), wait_max: WAIT_MAX };
        spares.refill();
        spares
    }

    /// What `open` gives, tried again for as long as it fails for want of a descriptor.
    pub(super) fn open<T>(&self, mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let mut deadline = None;
        loop {
            match open() {
                Err(error) if is_for_want_of_descriptors(&error) => {
                    let spare = self.held.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    if spare.is_some() {
                        continue;
                    }
                    let now = Instant::now();
                    if *deadline.get_or_insert(now + self.wait_max) <= now {
                        return Err(error);
                    }
                    thread::sleep(PAUSE);
                }
                opened => {
                    self.refill();
                    return opened;
                }
            }
        }
    }

    /// Takes back what was given up, as far as there is any.
    fn refill(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        while held.len() < SPARES {
            let Ok(spare) = self.of.try_clone() else { return };
            held.push(spare);
        }
    }
}

fn is_for_want_of_descriptors(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spares(wait_max: Duration) -> Spares {
        let file = File::open("/").expect("open the root");
        Spares { wait_max, ..Spares::of(Arc::new(file)) }
    }

    fn held(spares: &Spares) -> usize {
        spares.held.lock().expect("no panic").len()
    }

    #[test]
    fn a_file_gets_a_descriptor_of_the_reserve() {
        let spares = spares(Duration::ZERO);
        let mut seen = Vec::new();
        let opened = spares.open(|| {
            seen.push(held(&spares));
            if seen.len() <= 2 { Err(Errno::MFILE.into()) } else { Ok("opened") }
        });
        assert_eq!(opened.ok(), Some("opened"));
        assert_eq!(seen, [SPARES, SPARES - 1, SPARES - 2]);
        assert_eq!(held(&spares), SPARES, "the reserve is filled again");
    }

    #[test]
    fn a_file_waits_for_a_descriptor_and_not_for_ever() {
        let mut tries = 0;
        let opened = spares(WAIT_MAX).open(|| {
            tries += 1;
            if tries < SPARES + 5 { Err(Errno::NFILE.into()) } else { Ok(()) }
        });
        assert!(opened.is_ok());
        let never = spares(Duration::ZERO).open(|| Err::<(), _>(Errno::MFILE.into()));
        assert_eq!(never.err().and_then(|error| error.raw_os_error()), Some(24));
    }

    #[test]
    fn other_failures_are_final() {
        let mut tries = 0;
        let opened = spares(WAIT_MAX).open(|| {
            tries += 1;
            Err::<(), _>(Errno::NOSPC.into())
        });
        assert!(opened.is_err() && tries == 1);
    }
}
