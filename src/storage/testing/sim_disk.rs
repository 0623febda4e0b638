//! A directory in memory that loses, tears and reorders whatever was not synced, fails on demand,
//! fills up, rots and lies; all of it from a seed.
//!
//! Two ways to die: [`SimDisk::kill`] ends the process and keeps what the system had in memory;
//! [`SimDisk::power_cut`] leaves what was synced, and of the rest a random part: each
//! sector in any version it had, each name or none. Handles of before are dead after either.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::inode::{Inode, Keep, Lie, SECTOR_BYTES};
use super::rng::Rng;
use crate::storage::disk::{Access, Disk, DiskFile};

/// What happens at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails, perhaps half done.
    Fail(io::ErrorKind),
    /// The power goes while it is under way; nothing works until [`SimDisk::power_cut`].
    PowerCut,
    /// A write that is acknowledged and never reaches the platters.
    LoseWrite,
    /// A write that reaches the platters so many sectors further on.
    MisdirectWrite {
        /// How far.
        sectors: u64,
    },
}

/// A simulated directory. Clones are the same one.
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    /// The life of the process that holds this clone; `None` for the world outside.
    life: Option<u64>,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    inodes: BTreeMap<u64, Inode>,
    inodes_made: u64,
    /// As the running system sees it.
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// What leads from the one to the other.
    pending_names: Vec<NameChange>,
    /// Counts deaths: a handle of an earlier life is dead.
    life: u64,
    powered: bool,
    locked: bool,
    operations: u64,
    reads: u64,
    faults: BTreeMap<u64, Fault>,
    read_faults: BTreeMap<u64, io::ErrorKind>,
    capacity_bytes: Option<u64>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Set(String, u64),
    Rename(String, String),
    Remove(String),
}

impl SimDisk {
    /// An empty directory whose fate is decided by `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            life: None,
            state: Arc::new(Mutex::new(State {
                rng: Rng::new(seed),
                inodes: BTreeMap::new(),
                inodes_made: 0,
                names: BTreeMap::new(),
                durable_names: BTreeMap::new(),
                pending_names: Vec::new(),
                life: 0,
                powered: true,
                locked: false,
                operations: 0,
                reads: 0,
                faults: BTreeMap::new(),
                read_faults: BTreeMap::new(),
                capacity_bytes: None,
            })),
        }
    }

    /// The directory for one process: dead, as its files are, when the process is.
    #[must_use]
    pub fn for_process(&self) -> Self {
        Self { state: Arc::clone(&self.state), life: Some(self.state().life) }
    }

    /// How many operations changed something, or tried: creations, writes, syncs, renamings,
    /// removals. The next one has this number.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// How many reads there were.
    pub fn reads(&self) -> u64 {
        self.state().reads
    }

    /// Lets `fault` happen at the operation of that number.
    pub fn fault_at(&self, operation: u64, fault: Fault) {
        self.state().faults.insert(operation, fault);
    }

    /// Lets the read of that number fail.
    pub fn fail_read_at(&self, read: u64, kind: io::ErrorKind) {
        self.state().read_faults.insert(read, kind);
    }

    /// Forgets all faults that have not happened.
    pub fn clear_faults(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.read_faults.clear();
    }

    /// No more than that fits; `None` is no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity_bytes = bytes;
    }

    /// The process dies, the system lives: everything written stays visible, nothing more of it is
    /// durable.
    pub fn kill(&self) {
        let mut state = self.state();
        state.life += 1;
        state.locked = false;
        state.powered = true;
        for inode in state.inodes.values_mut() {
            inode.handles = 0;
        }
    }

    /// The power goes and comes back.
    pub fn power_cut(&self) {
        self.kill();
        let state = &mut *self.state();
        let keep = match state.rng.below(6) {
            0 => Keep::Nothing,
            1 => Keep::Everything,
            _ => Keep::Some,
        };
        for inode in state.inodes.values_mut() {
            inode.power_cut(keep, &mut state.rng);
        }
        state.settle_names();
    }

    /// Whether the power is on: false from a [`Fault::PowerCut`] to the next
    /// [`power_cut`](Self::power_cut).
    pub fn is_powered(&self) -> bool {
        self.state().powered
    }

    /// Bytes that all files take.
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// The names of all files, in order.
    pub fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    /// All bytes of a file; `None` if there is no such file.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        let inode = state.names.get(name)?;
        Some(state.inodes[inode].content.clone())
    }

    /// Turns a bit over, for good.
    pub fn flip_bit(&self, name: &str, bit: usize) {
        self.rot(name, |content| {
            // What was never synced may not be on the platters at all.
            if let Some(byte) = content.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        });
    }

    /// Changes a file behind everyone's back, for good.
    pub fn rot(&self, name: &str, change: impl Fn(&mut Vec<u8>)) {
        let mut state = self.state();
        let inode = *state.names.get(name).expect("the test names a file that is there");
        state.inodes.get_mut(&inode).expect("names lead to inodes").rot(change);
    }

    /// Removes a file behind everyone's back, for good.
    pub fn lose_file(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name);
        state.durable_names.remove(name);
        state.pending_names.retain(|change| match change {
            NameChange::Set(to, _) | NameChange::Rename(_, to) | NameChange::Remove(to) => {
                to != name
            }
        });
    }

    /// An independent copy, to try something on.
    #[must_use]
    pub fn fork(&self) -> Self {
        let state = self.state();
        Self {
            life: None,
            state: Arc::new(Mutex::new(State {
                rng: state.rng.clone(),
                inodes: state.inodes.clone(),
                names: state.names.clone(),
                durable_names: state.durable_names.clone(),
                pending_names: state.pending_names.clone(),
                faults: state.faults.clone(),
                read_faults: state.read_faults.clone(),
                locked: false,
                life: state.life + 1,
                ..*state
            })),
        }
    }

    /// The state, if this handle's process lives.
    fn living(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        if self.life.is_none_or(|life| life == state.life) {
            Ok(state)
        } else {
            Err(io::Error::other("a dead process"))
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked while holding the lock has failed already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts an operation and says what is to go wrong with it.
    fn operate(&mut self) -> io::Result<Option<Fault>> {
        if !self.powered {
            return Err(io::Error::other("the power is off"));
        }
        let fault = self.faults.remove(&self.operations);
        self.operations += 1;
        if fault == Some(Fault::PowerCut) {
            self.powered = false;
        }
        Ok(fault)
    }

    /// For operations that are done or not: does them, unless they are to fail.
    fn operate_whole(&mut self) -> io::Result<()> {
        match self.operate()? {
            Some(Fault::Fail(kind)) => Err(kind.into()),
            None | Some(Fault::PowerCut | Fault::LoseWrite | Fault::MisdirectWrite { .. }) => {
                Ok(())
            }
        }
    }

    /// Fails if the power went during the operation that was just done.
    fn survive(&self) -> io::Result<()> {
        if self.powered { Ok(()) } else { Err(io::Error::other("the power went")) }
    }

    fn change_name(&mut self, change: NameChange) {
        apply(&mut self.names, &change);
        self.pending_names.push(change);
    }

    /// After a power cut: some of the pending changes are durable.
    fn settle_names(&mut self) {
        let pending = std::mem::take(&mut self.pending_names);
        let ordered = self.rng.one_in(2);
        let kept = self.rng.below(pending.len() as u64 + 1) as usize;
        // Changes that share no name may arrive in any order; a lost one holds back its like.
        let mut lost: Vec<String> = Vec::new();
        for (at, change) in pending.iter().enumerate() {
            let names = match change {
                NameChange::Set(name, _) | NameChange::Remove(name) => vec![name],
                NameChange::Rename(from, to) => vec![from, to],
            };
            let held_back = names.iter().any(|name| lost.contains(name));
            let keep = if ordered { at < kept } else { !held_back && self.rng.one_in(2) };
            if keep {
                apply(&mut self.durable_names, change);
            } else {
                lost.extend(names.into_iter().cloned());
            }
        }
        self.names = self.durable_names.clone();
        self.collect();
    }

    /// Forgets files that nobody can reach.
    fn collect(&mut self) {
        let (names, durable) = (&self.names, &self.durable_names);
        let reachable = |inode: &u64| {
            names.values().any(|named| named == inode)
                || durable.values().any(|named| named == inode)
        };
        self.inodes.retain(|number, inode| inode.handles > 0 || reachable(number));
    }

    fn used_bytes(&self) -> u64 {
        self.inodes.values().map(|inode| inode.content.len() as u64).sum()
    }

    fn not_found(name: &str) -> io::Error {
        io::Error::new(io::ErrorKind::NotFound, format!("no file {name}"))
    }
}

fn apply(names: &mut BTreeMap<String, u64>, change: &NameChange) {
    match change {
        NameChange::Set(name, inode) => {
            names.insert(name.clone(), *inode);
        }
        NameChange::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        NameChange::Remove(name) => {
            names.remove(name);
        }
    }
}

impl Disk for SimDisk {
    type File = SimFile;
    type Lock = SimLock;

    fn open(&self, name: &str, access: Access) -> io::Result<SimFile> {
        let mut state = self.living()?;
        let found = state.names.get(name).copied();
        let inode = match (access, found) {
            (Access::Read | Access::Write, Some(inode)) => inode,
            (Access::Read | Access::Write, None) => return Err(State::not_found(name)),
            (Access::Create, Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Access::Create, None) => {
                state.operate_whole()?;
                state.inodes_made += 1;
                let inode = state.inodes_made;
                state.inodes.insert(inode, Inode::default());
                state.change_name(NameChange::Set(name.to_owned(), inode));
                inode
            }
        };
        state.survive()?;
        state.inodes.get_mut(&inode).expect("names lead to inodes").handles += 1;
        let (disk, life) = (self.clone(), state.life);
        drop(state);
        Ok(SimFile { disk, inode, life, writable: access != Access::Read })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.living()?;
        state.operate_whole()?;
        if !state.names.contains_key(from) {
            return Err(State::not_found(from));
        }
        state.change_name(NameChange::Rename(from.to_owned(), to.to_owned()));
        state.survive()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.living()?;
        if !state.names.contains_key(name) {
            state.survive()?;
            return Err(State::not_found(name));
        }
        state.operate_whole()?;
        state.change_name(NameChange::Remove(name.to_owned()));
        state.survive()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.living()?;
        state.survive()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.living()?;
        state.operate_whole()?;
        state.survive()?;
        state.durable_names = state.names.clone();
        state.pending_names.clear();
        state.collect();
        Ok(())
    }

    fn lock(&self, name: &str) -> io::Result<Option<SimLock>> {
        let missing = !self.living()?.names.contains_key(name);
        if missing {
            drop(self.open(name, Access::Create)?);
        }
        let mut state = self.living()?;
        state.survive()?;
        if std::mem::replace(&mut state.locked, true) {
            return Ok(None);
        }
        Ok(Some(SimLock { disk: self.clone(), life: state.life }))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.living()?;
        state.survive()?;
        Ok(state.capacity_bytes.map_or(1 << 40, |all| all.saturating_sub(state.used_bytes())))
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/sim").join(name)
    }
}

/// An open file of a [`SimDisk`].
#[derive(Debug)]
pub struct SimFile {
    disk: SimDisk,
    inode: u64,
    life: u64,
    writable: bool,
}

impl SimFile {
    /// The state, if this handle is of this life.
    fn living(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.life == self.life { Ok(state) } else { Err(io::Error::other("a dead handle")) }
    }
}

impl State {
    fn inode(&mut self, number: u64) -> &mut Inode {
        self.inodes.get_mut(&number).expect("an open file is kept")
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset_bytes: u64) -> io::Result<usize> {
        let mut state = self.living()?;
        state.survive()?;
        let read = state.reads;
        state.reads += 1;
        if let Some(kind) = state.read_faults.remove(&read) {
            return Err(kind.into());
        }
        let content = &state.inode(self.inode).content;
        let from = (offset_bytes as usize).min(content.len());
        let count = buffer.len().min(content.len() - from);
        buffer[..count].copy_from_slice(&content[from..from + count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        assert!(self.writable, "a file opened for reading is not written to");
        let state = &mut *self.living()?;
        let offset = offset_bytes as usize;
        let fault = state.operate()?;
        let grows = (offset + bytes.len()).saturating_sub(state.inode(self.inode).content.len());
        let room = state.capacity_bytes.map(|all| all.saturating_sub(state.used_bytes()));
        if room.is_some_and(|room| room < grows as u64) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let sectors = bytes.len().div_ceil(SECTOR_BYTES) as u64;
        // A failing write got some way; where it stopped is a sector's boundary.
        let done = match fault {
            Some(Fault::Fail(_)) => {
                let some = state.rng.below(sectors + 1) as usize * SECTOR_BYTES;
                some.saturating_sub(offset % SECTOR_BYTES).min(bytes.len())
            }
            None | Some(Fault::PowerCut | Fault::LoseWrite | Fault::MisdirectWrite { .. }) => {
                bytes.len()
            }
        };
        let inode = state.inodes.get_mut(&self.inode).expect("an open file is kept");
        if done > 0 {
            inode.write(&bytes[..done], offset);
        }
        match fault {
            Some(Fault::Fail(kind)) => return Err(kind.into()),
            Some(Fault::LoseWrite) => inode.lie(offset, done, |_| Lie::Lost),
            Some(Fault::MisdirectWrite { sectors }) => {
                inode.lie(offset, done, |sector| Lie::Misdirected { to_sector: sector + sectors });
            }
            None | Some(Fault::PowerCut) => {}
        }
        state.survive()
    }

    fn sync_data(&self) -> io::Result<()> {
        let state = &mut *self.living()?;
        let fault = state.operate()?;
        state.survive()?;
        let inode = state.inodes.get_mut(&self.inode).expect("an open file is kept");
        if let Some(Fault::Fail(kind)) = fault {
            inode.fail_sync(&mut state.rng);
            return Err(kind.into());
        }
        inode.sync();
        Ok(())
    }

    fn len_bytes(&self) -> io::Result<u64> {
        let mut state = self.living()?;
        state.survive()?;
        Ok(state.inode(self.inode).content.len() as u64)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.life == self.life
            && let Some(inode) = state.inodes.get_mut(&self.inode)
        {
            inode.handles -= 1;
        }
    }
}

/// Holds a [`SimDisk`] for one simulated process.
#[derive(Debug)]
pub struct SimLock {
    disk: SimDisk,
    life: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.life == self.life {
            state.locked = false;
        }
    }
}
