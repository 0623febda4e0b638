//! The store's clock (etcd's MVCC): `main` counts the commands that changed something, `sub` the
//! changes within one of them.

/// Where one change stands in the history of the store. Requests and responses speak of `main`
/// alone, as etcd's do: what one command changed becomes visible at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The command; the first has 2, since an empty store is at revision 1.
    pub main: i64,
    /// The change within the command, counted from 0.
    pub sub: u32,
}

impl Revision {
    /// The last that a change of `main` can have: what a read as of `main` sees up to.
    pub fn end_of(main: i64) -> Self {
        Self { main, sub: u32::MAX }
    }

    /// The revision of an empty store, at which nothing has happened yet.
    pub const EMPTY_MAIN: i64 = 1;

    /// What `compacted` is before the first compaction: below every revision one can ask for, so
    /// that compacting an empty store at revision 0 still counts as the first compaction.
    pub const NEVER_COMPACTED: i64 = -1;
}
