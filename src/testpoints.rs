//! Instruments of the proof, which no production build holds: coverage marks on rare paths, and
//! mutants, the deliberate bugs that the simulation and the model must find.
//!
//! The marks say whether a run met what it was made for; a mutant that survives says what the
//! proof does not see. Both are decided per thread, so that runs beside each other stay apart.
//! Live only with the feature `sim` *and* debug assertions: everywhere else [`mark`] is nothing
//! and [`mutant`] is the constant `false`.
//!
//! `docs/verification.md` says what each is for, and what met or killed it.

/// Whether the instruments are in this build.
pub const ENABLED: bool = cfg!(all(feature = "sim", debug_assertions));

/// Declares a closed set of instruments: each with its name and what it stands for.
macro_rules! instruments {
    ($(#[$meta:meta])* $type:ident { $($name:ident = $what:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $type {
            $(#[doc = $what] $name,)*
        }

        #[cfg(feature = "sim")]
        impl $type {
            /// All of them, in the order in which they are declared.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// What it stands for.
            pub fn what(self) -> &'static str {
                match self { $(Self::$name => $what,)* }
            }

            /// The one of that name.
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.name() == name)
            }
        }
    };
}

instruments! {
    /// A rare path that a run should meet.
    Mark {
        // The core.
        CandidateShielded = "a member that hears its leader turned a candidate away",
        CommittedSkipped = "an append overlapped what is committed",
        ConfirmedInPart = "a follower confirmed less than it was sent, for want of the disk",
        ConflictTruncate = "a follower replaced entries that conflict with its leader's",
        OldTermWithheld = "a quorum holds an entry of an earlier term, which is not enough",
        ProbeMovesBack = "a rejection moved a probe",
        ProposalInTransfer = "a leader that hands over turned proposals away",
        ProposalRepeated = "a forwarded proposal came again",
        ProposalUnanswered = "a restarted member kept silent about a proposal it may have taken",
        QuorumLost = "a leader that no quorum answers stepped down",
        ReadBeforeFirstCommit = "a read waited for the first commit of its leader's term",
        RivalOutranked = "two asked for pre-votes, and the one with more right refused",
        ShorterLogRefused = "a candidate was refused for what its log lacks",
        SnapshotFailed = "a snapshot did not arrive",
        SnapshotHeldAlready = "a snapshot brought only what the log holds",
        SnapshotPostponed = "a follower that is away was sent no snapshot",
        SnapshotReplacesLog = "a snapshot replaced the log",
        SnapshotRested = "a follower to which snapshots fail was not sent the next one yet",
        StaleAnswerIgnored = "an answer to a question of an earlier term came",
        StaleRejection = "a rejection came late, or twice",
        StaleSnapshotIgnored = "a snapshot brought what is committed here",
        TimeoutNowIgnored = "an order to campaign came from nobody who may give it",
        StrangerUnheard = "somebody who has no say claimed to lead, or to deserve a vote",
        StrangerVouchedFor = "a member named another that was unknown here",
        TransferTimedOut = "a leader gave up handing over",
        VoteRepeated = "a vote was given again to the candidate that has it",
        VoteSplit = "a campaign was lost by refusals",
        WindowFull = "a follower had all the appends on the way that it may",
        WriteOvertaken = "entries were cut while their write was under way",
        JointEntered = "a change of the voters began, by way of both majorities",
        JointInherited = "a new leader left a joint configuration that another had begun",
        LearnerChanged = "the membership changed without a change of the voters",
        RemovalToldLate = "a removed member that had not heard of it was told by another",
        RemovedLeaderHandsOver = "a leader that had removed itself handed over",
        SecondChangeRefused = "a change was refused while another was under way",

        // The store.
        CompactedRefused = "a read of compacted history was refused",
        FutureRefused = "a read of a revision to come was refused",
        TxnRefused = "a transaction was refused for what stood on the branch it took",
        CompactionHeld = "a reader kept physical compaction from its target",
        CompactionResumed = "physical compaction went on in the middle of a revision",
        TombstoneSwept = "physical compaction removed a deleted key altogether",
        ReadBegunAnew = "a snapshot replaced the store under a read, which began anew",
        ImageAbandoned = "a snapshot replaced the store of which one was being made",
        ChangesLost = "a snapshot came without changes that its oldest revision overwrote",

        // The disk.
        TornTailCut = "recovery cut remains of writes that were never acknowledged",
        UnbegunSegment = "recovery met a segment that was named and never begun",
        LogRestarted = "replay took back entries that a later snapshot made needless",
        SegmentRolled = "a full segment was sealed and the next one begun",
        UrgentSegment = "a segment was made on the spot, for no spare was ready",
        WriteHeld = "a batch waited for room on the disk",
        ReserveUsed = "the log went on in its reserve, for the disk is full",
        SpareRecycled = "a released segment was zeroed to be used again",
        GroupMasked = "a group was masked, or one of its sectors would have been blank",
        SnapshotReplaced = "a newer snapshot took the place of the one that the log named",
        LateSnapshotIgnored = "a snapshot was finished after a newer one had been adopted",
        SnapshotAbandoned = "a snapshot was given up before it was whole",

        // The engine room.
        DiskHungLeading = "a leader whose disk hangs wanted to hand over",
        GroupOfBatches = "several batches became durable with one sync",
        OutcomeSkipped = "a snapshot skipped the outcome of this member's own proposals",
        ProposalResubmitted = "a proposal that died with its leader was submitted again",
        ReadsAskedAgain = "a round of reads without an answer was asked for again",
        SnapshotAwaited = "a follower had to wait until a snapshot was written",
        LogKeptForLaggard = "log was kept beyond its room for a follower in touch",
        LaggardGivenUp = "a follower in touch lacked more than the log may keep",
        SnapshotOvertaken = "a received snapshot counted before the one before it was loaded",
        FormedAnew = "a first start had been cut short",
    }
}

instruments! {
    /// A deliberate bug.
    Mutant {
        // The core. The first half is about who leads, the second about what is final.
        VoteBlind = "a vote is granted to a log that lacks something (§5.4.1)",
        VoteTwice = "a second candidate of the term gets a vote",
        VoteUnsaved = "a vote is not written to disk",
        TermUnsaved = "a new term is not written to disk",
        RevealEarly = "messages leave before the term and the vote in them are durable",
        StaleVoteCounted = "a vote of an earlier term counts",
        PreVoteCounted = "a late pre-vote counts as a vote (etcd, openraft 511f33c7)",
        PreVoteRaisesTerm = "a pre-vote raises the term of the member that is asked (thesis §9.6)",
        ShieldIgnored = "a member that hears its leader helps a rival (thesis §4.2.3)",
        FutureIgnored = "a leader does not follow a higher term",
        TransferVoteBlind = "a campaign that the leader wants needs no complete log",
        TransferTooEarly = "the target of a transfer is told to campaign before it has everything",
        StaleTimeoutNow = "an order to campaign counts from any sender, at any time",
        StrangerFollowed = "any sender that claims to lead is followed, member or not",
        TermUnbounded = "one message raises the term to the highest that there is",
        SuccessorUnnamed = "any candidate that claims a transfer of leadership gets its vote",
        JointVoteHalf = "an election in a joint configuration asks the incoming half only",
        CommitOldTerm = "a leader commits an entry of an earlier term by counting its copies",
        NoopForgotten = "a new leader appends no entry of its own (Redis-Raft's first)",
        CountUndurable = "a leader counts its own entries before they are durable (etcd#14370)",
        AckUndurable = "a follower confirms entries before they are durable",
        ApplyUndurable = "entries are applied before they are durable here",
        OvertakenWriteCounted = "a finished write vouches for entries that took its own's place",
        StaleAckCounted = "a confirmation from an earlier term counts (openraft cecb5de8)",
        CutMatching = "an append cuts the log even where it matches",
        HeartbeatCommitsAll = "a heartbeat names a commit index that its receiver may not hold",
        QuorumUnsorted = "what a quorum holds is sought in an unsorted list (openraft#1802)",
        JointCommitHalf = "a joint configuration commits by its incoming half",
        LearnerCounted = "learners count in quorums",
        JointSkipped = "voters change without a joint configuration, several at a time",
        JointLeftEarly = "a joint configuration is left before it is committed",
        OutgoingUnreached = "a voter that goes loses its address when its removal is proposed",
        MovedCounted = "a member counts as in touch at an address where it was not reached",
        JointForgotten = "a new leader stays in the joint configuration of another (etcd#12136)",
        ChangesAtOnce = "a second change begins before the first is committed",
        ConfigByApply = "elections are counted by the configuration applied last (etcd#12133)",
        LearnerMute = "a learner gives no vote that it is asked for",
        LeftOutSilent = "a voter that an uncommitted change leaves out never campaigns",
        QuorumGivenUp = "a change leaves too few voters in touch for a quorum",
        RemovedCounted = "a leader that is no voter any more counts itself",
        RemovedReturns = "the id of a removed member is used again (etcd's zombie members)",
        ConfigOutlivesCut = "a configuration stays in force after its entry is cut",
        StaleSnapshot = "a snapshot of the past replaces the log",
        SnapshotCutsLog = "a snapshot that the log holds already cuts what follows it",
        SnapshotKeepsMembership = "a snapshot leaves the old membership in force (openraft#1808)",
        SnapshotUnsaved = "a snapshot is confirmed before it is durable",
        ReadBeforeCommit = "reads are answered before the first commit of the term (etcd#7331)",
        ReadUnconfirmed = "reads are answered without a round of heartbeats",
        ReadRoundReused = "a read round has the number of the one before (etcd#20418)",
        ReadJoinsRound = "a read joins the round under way, and gets its index (tikv#7971)",
        ProposalTwice = "a forwarded proposal that comes again is appended again",
        RefusesForgotten = "a restarted member refuses proposals that it may have taken",
        ProposeInTransfer = "proposals are taken while leadership is handed over",

        // The store.
        RevisionNotBumped = "a deletion leaves the revision of the store as it was",
        RevisionPerOperation = "each put of a transaction gets a revision of its own",
        TxnReadsItsEnd = "a read in a transaction sees what later operations of it do",
        TxnUnchecked = "a transaction is done without a check that all of it can be done",
        CompactNewest = "physical compaction removes what a read at the compacted revision sees",
        CompactedOffByOne = "the compacted revision itself is refused",
        FutureAnswered = "a read of a revision to come is answered as of now",
        TombstoneReadable = "a key deleted in the past is shown with an empty value",
        CreationForgotten = "a key that is put again after its deletion has no new creation",
        RangeEndIncluded = "a range includes the key at its end",
        ImportForgetsCompaction = "a store from a snapshot answers for compacted revisions",

        // The disk.
        WalSyncSkipped = "the log is said to be durable without a sync",
        SegmentNameUnsynced = "a segment is written to before its name is durable",
        SnapshotUnsynced = "a snapshot gets its name before its bytes are durable",
        SnapshotNameUnsynced = "a snapshot is relied on before its name is durable",
        DamageTakenForTear = "a group that rotted is cut like one that was torn",
        ChainUnchecked = "a group is believed whatever group it was written after",
        TailNotBlanked = "remains behind a torn group are left where new groups will be",
        FoundNotRewritten = "what recovery found in memory is not written again before its sync",
        SpareNotZeroed = "a released segment is used again with its old bytes",
        StaleSnapshotAdopted = "a snapshot finished late takes the place of a newer one",

        // The transport.
        RequestsByOwnDial = "a member reaches its leader only by connections that it dialled",

        // The engine room.
        LateAnswerUnheard = "a read that is asked for again takes no answer to the first question",
        ReadUnapplied = "a read is answered before its index is applied here",
        SendBeforeSync = "what a batch reveals is sent before the batch is durable",
        SubmitStale = "a proposal is taken for one of the term before, and submitted again",
        ResubmitEarly = "a new leader is reason enough to submit a proposal again",
        DoubtDenied = "a proposal whose outcome is unknown is said to have failed for certain",
        SkippedDenied = "a proposal whose outcome a snapshot skipped is said to have failed",
        GuestRemembered = "any caller is remembered durably under the id that it names",
        PoisonProposed = "what a member passes on is appended unread",
        SnapshotUnread = "a received snapshot counts before its content is understood",
        ChecksumUnchecked = "a frame is believed though its checksum says otherwise",
        VoteOfAnyTerm = "a vote of one term answers for another, through the door",
        SyncRetried = "a sync that failed is tried again, and believed (ATC'20)",
        HeldWriteCounted = "a batch that waits for room on the disk is reported as durable",
        AdoptEarly = "a received snapshot takes the old one's place before the log names it",
        ReleaseTooMuch = "a snapshot releases segments that hold entries after it",
        VouchIgnored = "a group that vouches for more than was found is not listened to",
        RecoverBeyondCommit = "a start applies all that the log holds",
        VoteForgotten = "a restart forgets the vote",
        OpeningUncounted = "two openings of a directory have one number",
        SnapshotMislabelled = "a snapshot says that it holds one entry less than it does",
        RestoreSkipped = "a received snapshot moves the index, and not the state",
    }
}

/// This path was taken.
#[inline]
pub fn mark(mark: Mark) {
    #[cfg(feature = "sim")]
    if ENABLED {
        live::HITS.with_borrow_mut(|hits| *hits.entry(mark).or_default() += 1);
    }
    let _ = mark;
}

/// Whether this bug is on, here and now. Constant in every build that ships.
#[inline]
pub fn mutant(mutant: Mutant) -> bool {
    #[cfg(feature = "sim")]
    if ENABLED {
        return live::MUTANT.get() == Some(mutant);
    }
    let _ = mutant;
    false
}

#[cfg(feature = "sim")]
mod live {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    use super::{Mark, Mutant};

    thread_local! {
        pub static HITS: RefCell<BTreeMap<Mark, u64>> = const { RefCell::new(BTreeMap::new()) };
        pub static MUTANT: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Turns one bug on for this thread, or all off.
    pub fn set_mutant(mutant: Option<Mutant>) {
        MUTANT.set(mutant);
    }

    /// How often this thread took each marked path since the last call.
    pub fn take_hits() -> BTreeMap<Mark, u64> {
        HITS.take()
    }
}

#[cfg(feature = "sim")]
pub use live::{set_mutant, take_hits};
