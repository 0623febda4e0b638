//! How often this directory has been opened: a small text file, counted up durably at each start.
//!
//! What a member must never use twice, such as the ids of its requests, it numbers within the
//! opening. A clock could go back, and a random number could repeat; this does neither.

use crate::testpoints::{Mutant, mutant};

use super::disk::{Access, Disk, DiskFile};
use super::error::{Context, Error};
use super::identity;

const FILE: &str = "restarts";
const FILE_NEW: &str = "restarts.tmp";
const FILE_BYTES_MAX: usize = 256;

/// Counts this opening, and says which it is: 1 for the first.
pub(super) fn count<D: Disk>(disk: &D) -> Result<u64, Error> {
    let this = read(disk)? + 1;
    if mutant(Mutant::OpeningUncounted) {
        return Ok(this);
    }
    identity::replace(disk, FILE, FILE_NEW, &render(this))?;
    Ok(this)
}

fn render(restarts: u64) -> String {
    let body = format!("restarts {restarts}\n");
    format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes()))
}

fn read<D: Disk>(disk: &D) -> Result<u64, Error> {
    let path = || disk.path(FILE);
    let file = match disk.open(FILE, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(source) => {
            return Err(Error::Io { path: path(), op: "open", source });
        }
    };
    let mut bytes = vec![0; FILE_BYTES_MAX];
    let length = file.read_at(&mut bytes, 0).context("read", path)?;
    let text = String::from_utf8_lossy(&bytes[..length]);
    let number = text.lines().next().and_then(|line| line.strip_prefix("restarts "));
    let restarts = number.and_then(|number| number.parse().ok());
    restarts
        .filter(|restarts| text == render(*restarts))
        .ok_or_else(|| Error::corrupt(path(), 0, "the count of restarts is not what was written"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::RealDisk;

    #[test]
    fn each_opening_has_a_number_of_its_own() {
        let directory = tempfile::tempdir().expect("a directory");
        let disk = RealDisk::open(directory.path()).expect("a disk");
        for expected in 1..=3 {
            assert_eq!(count(&disk).expect("counts"), expected);
        }
    }

    #[test]
    fn a_damaged_count_is_told_and_not_guessed() {
        let directory = tempfile::tempdir().expect("a directory");
        let disk = RealDisk::open(directory.path()).expect("a disk");
        count(&disk).expect("counts");
        std::fs::write(directory.path().join(FILE), "restarts 7\ncrc32c 00000000\n")
            .expect("writes");
        let error = count(&disk).expect_err("damaged");
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
}
