//! What a simulated file holds: as the running system sees it, and as the platters do.

use std::collections::BTreeMap;

use super::rng::Rng;

/// Written whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;

/// What becomes of a sector's next sync.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lie {
    /// It is reported done, and was not.
    Lost,
    /// It goes to another sector of the file.
    Misdirected { to_sector: u64 },
}

/// A file without its names.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    /// What reads see.
    pub content: Vec<u8>,
    /// What a power cut leaves for sure.
    pub durable: Vec<u8>,
    /// The sectors that differ, or may, with every content they had since the last sync: any of
    /// them may have reached the platters.
    dirty: BTreeMap<u64, Vec<Vec<u8>>>,
    lies: BTreeMap<u64, Lie>,
    /// Open handles.
    pub handles: usize,
}

/// How much of what was not synced a power cut leaves.
#[derive(Clone, Copy, Debug)]
pub(super) enum Keep {
    Nothing,
    Everything,
    /// Sector by sector, one in two.
    Some,
}

impl Inode {
    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.content.len() < end {
            self.content.resize(end, 0);
        }
        for sector in sectors(offset, bytes.len()) {
            let old = sector_of(&self.content, sector).to_vec();
            let versions = self.dirty.entry(sector).or_default();
            if !versions.contains(&old) {
                versions.push(old);
            }
        }
        self.content[offset..end].copy_from_slice(bytes);
    }

    /// The sectors of a write will lie.
    pub(super) fn lie(&mut self, offset: usize, length: usize, lie: impl Fn(u64) -> Lie) {
        for sector in sectors(offset, length) {
            self.lies.insert(sector, lie(sector));
        }
    }

    pub(super) fn sync(&mut self) {
        self.durable.resize(self.content.len().max(self.durable.len()), 0);
        for sector in std::mem::take(&mut self.dirty).into_keys() {
            let bytes = sector_of(&self.content, sector).to_vec();
            match self.lies.remove(&sector) {
                None => put_sector(&mut self.durable, sector, &bytes),
                Some(Lie::Lost) => {}
                Some(Lie::Misdirected { to_sector }) => {
                    put_sector(&mut self.durable, to_sector, &bytes);
                }
            }
        }
    }

    /// A sync fails as Linux has it fail: some sectors arrive, the others do not, and all count as
    /// clean from now on, so that the next sync has nothing to do and succeeds.
    pub(super) fn fail_sync(&mut self, rng: &mut Rng) {
        for sector in std::mem::take(&mut self.dirty).into_keys() {
            if rng.one_in(2) {
                put_sector(&mut self.durable, sector, sector_of(&self.content, sector));
            }
        }
    }

    /// The power goes: what is not durable is there or not, as it happens.
    pub(super) fn power_cut(&mut self, keep: Keep, rng: &mut Rng) {
        for (sector, mut versions) in std::mem::take(&mut self.dirty) {
            versions.push(sector_of(&self.content, sector).to_vec());
            let kept = match keep {
                Keep::Nothing => false,
                Keep::Everything => true,
                Keep::Some => rng.one_in(2),
            };
            if kept {
                // Mostly the last one, at times one that was overwritten before any sync.
                let older = matches!(keep, Keep::Some) && rng.one_in(4);
                let at = if older {
                    rng.below(versions.len() as u64) as usize
                } else {
                    versions.len() - 1
                };
                put_sector(&mut self.durable, sector, &versions[at]);
            }
        }
        // A length may arrive without the data that made it.
        if self.durable.len() < self.content.len() && rng.one_in(3) {
            self.durable.resize(self.content.len(), 0);
        }
        self.durable.truncate(self.content.len());
        self.lies.clear();
        self.content = self.durable.clone();
    }

    /// Changes both what is seen and what lasts.
    pub(super) fn rot(&mut self, change: impl Fn(&mut Vec<u8>)) {
        change(&mut self.content);
        change(&mut self.durable);
    }
}

fn sectors(offset: usize, length: usize) -> std::ops::Range<u64> {
    (offset / SECTOR_BYTES) as u64..(offset + length).div_ceil(SECTOR_BYTES) as u64
}

fn sector_of(content: &[u8], sector: u64) -> &[u8] {
    let from = (sector as usize * SECTOR_BYTES).min(content.len());
    &content[from..(from + SECTOR_BYTES).min(content.len())]
}

fn put_sector(durable: &mut Vec<u8>, sector: u64, bytes: &[u8]) {
    let from = sector as usize * SECTOR_BYTES;
    if durable.len() < from + bytes.len() {
        durable.resize(from + bytes.len(), 0);
    }
    durable[from..from + bytes.len()].copy_from_slice(bytes);
}
