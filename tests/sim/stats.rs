//! What happened in one run, or in many: counted, so that idle hours do not pass for a proof.

/// Declares the counts once: their names, their sum, their report.
macro_rules! counts {
    ($($(#[$meta:meta])* $name:ident,)*) => {
        /// Counts of what happened.
        #[derive(Clone, Debug, Default)]
        pub struct Stats {
            $($(#[$meta])* pub $name: u64,)*
        }

        impl Stats {
            /// Adds those of another run.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// Every count with its name.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counts! {
    /// Worlds.
    seeds,
    /// Simulated time of the cluster, in milliseconds.
    simulated_ms,
    /// Things that happened.
    events,
    /// Elections won.
    elections,
    /// Entries committed.
    commits,
    /// Writes answered.
    writes,
    /// Reads answered.
    reads,
    /// Operations in the histories that were judged.
    operations_checked,
    /// Histories for which the search came to no end.
    searches_undecided,
    /// States of two members at one index that were compared.
    states_compared,
    /// Requests that found nobody.
    refused_requests,
    /// Requests that failed.
    failed_requests,
    /// Requests whose answer nobody waited for.
    given_up,
    /// Messages sent.
    messages,
    /// Messages lost at random.
    lost,
    /// Messages that a cut or broken link swallowed.
    cut,
    /// Messages that came twice.
    duplicated,
    /// Messages that were overtaken.
    reordered,
    /// Frames damaged.
    corrupted,
    /// Damaged frames that the gate itself refused.
    refused,
    /// Frames encoded and decoded.
    encoded,
    /// Members started.
    starts,
    /// Starts that failed.
    starts_failed,
    /// Processes killed.
    kills,
    /// Processes that lost their power.
    power_cuts,
    /// Processes stopped.
    stops,
    /// Processes that stood still.
    pauses,
    /// Clocks that jumped or went wrong.
    clock_faults,
    /// Symmetric partitions.
    partitions,
    /// One-way partitions.
    one_way,
    /// Bridges.
    bridges,
    /// Slow links.
    slow_links,
    /// Broken connections.
    disconnects,
    /// Members that nobody could dial.
    refusals,
    /// Messages sent on a connection that their receiver dialled.
    sent_back,
    /// Slow disks.
    slow_disks,
    /// Hung disks.
    hung_disks,
    /// Errors of writes, syncs and names.
    write_errors,
    /// Errors of reads.
    read_errors,
    /// Full disks.
    disks_full,
    /// Times that a log writer began to wait for room.
    writes_held,
    /// Bits turned over.
    bits_rotten,
    /// Writes lost.
    writes_lost,
    /// Writes misdirected.
    writes_misdirected,
    /// Directories emptied.
    wipes,
    /// Processes that ended because their disk failed.
    ended_by_disk,
    /// Damage that a member found at its start.
    damage_found,
    /// Last groups that never arrived, which no log can notice.
    tails_lost,
    /// Snapshots written.
    snapshots_saved,
    /// Snapshots that could not be written.
    snapshots_failed,
    /// Snapshots sent.
    snapshots_sent,
    /// Transfers of snapshots that broke off.
    transfers_broken,
    /// Snapshots installed.
    snapshots_installed,
    /// Transfers of leadership asked for.
    transfers_asked,
    /// Worlds whose members come and go.
    changing_seeds,
    /// Changes of the membership asked for.
    changes_asked,
    /// Changes done, as somebody was told.
    changes_done,
    /// Changes refused for certain.
    changes_refused,
    /// Changes whose outcome nobody was told.
    changes_open,
    /// Configurations committed.
    configurations,
    /// Of those, joint ones.
    configurations_joint,
    /// Members that were told of their removal, and stopped.
    members_removed,
    /// Removed members that were started again.
    members_revived,
    /// Messages between those who do not speak with each other.
    strangers,
    members_named,
}

impl Stats {
    /// Simulated hours.
    pub fn hours(&self) -> f64 {
        self.simulated_ms as f64 / 3_600_000.0
    }
}
