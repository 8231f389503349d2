//! Backends that each break one promise, to show that the kit notices.
//!
//! A mutant is another backend with one planted fault: most are the in-memory model; those that
//! need real programs are put around a backend that runs some. Without its fault a mutant passes
//! every case that its backend passes; a mutant must never have two faults.

mod command;
mod fault;
mod job;
mod process;
mod provider;
mod sandbox;
mod stream;
mod transfer;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sandbox_core::{Capabilities, Capability, Provider, Result, Sandbox, SandboxSpec};

use crate::egress::Upstreams;
use crate::kit::{Deviation, Fixture};
use crate::model::ModelFixture;

pub use provider::MutantProvider;

macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident => $case:literal,)+) => {
        /// One broken promise.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Mutant { $($(#[$doc])* $name,)+ }

        impl Mutant {
            /// Every mutant.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// A case that catches it.
            pub fn caught_by(self) -> &'static str {
                match self { $(Self::$name => $case,)+ }
            }
        }
    };
}

mutants! {
    // Paths.
    /// `..` is taken away instead of followed.
    DotDotDropped => "paths::dot_dot_is_lexical",
    /// A NUL byte in a path is taken away.
    NulBytesDropped => "paths::a_nul_byte_is_refused_everywhere",
    /// An empty path is the workdir.
    EmptyPathAccepted => "paths::an_empty_path_is_refused_everywhere",
    /// Names that are not UTF-8 are replaced by something like them.
    NamesMadeUtf8 => "paths::names_that_are_not_utf8_make_the_round",
    /// Relative paths start at the root.
    RelativeFromRoot => "paths::relative_paths_start_at_the_workdir",

    // Nothing of the host.
    /// Files of the host are read where the sandbox has none.
    HostFilesRead => "paths::nothing_of_the_host_is_at_its_host_path",
    /// Files of the host's home, `/run` and `/var/tmp` are read where the sandbox has none.
    HostCanariesRead => "host::canaries_of_the_host_are_not_read",
    /// The host's variables are given to commands.
    HostEnvironmentLeaks => "env::nothing_of_the_hosts_environment_is_there",
    /// The host's `/etc` is mounted.
    HostEtcInside => "host::directories_of_the_host_are_not_inside",
    /// The host's `/root` is mounted.
    HostRootInside => "host::directories_of_the_host_are_not_inside",
    /// The host's `/var/lib` is mounted.
    HostVarInside => "host::directories_of_the_host_are_not_inside",
    /// The host's `/run` is mounted.
    HostRunInside => "host::directories_of_the_host_are_not_inside",
    /// The host's `/dev` is mounted.
    HostDevInside => "host::directories_of_the_host_are_not_inside",
    /// Commands have the host's shared memory.
    HostShmInside => "host::shared_memory_of_the_host_is_not_inside",
    /// Commands run in the IPC namespace of the host.
    HostIpcInside => "host::the_ipc_namespace_is_not_the_hosts",

    /// A read waits until the guest gives its lease back.
    LeaseHoldsReads => "host::a_lease_of_the_guest_holds_no_call_up",

    // Commands end.
    /// A timeout returns and leaves the process.
    TimeoutKeepsTheProcess => "kill::a_timeout_kills_the_command",
    /// The output that a command wrote before its timeout is lost.
    PartialOutputDropped => "kill::a_timeout_is_an_error_with_the_partial_output",
    /// A command that was cut is said not to have started.
    CutSaysNotStarted => "kill::a_timeout_is_an_error_with_the_partial_output",
    /// A command that was cut within its first moments is said not to have started.
    ShortTimeoutSaysNotStarted => "kill::a_hundred_short_timeouts_tell_what_ran",
    /// Output of a command's first moments is lost.
    ShortTimeoutLosesOutput => "kill::a_hundred_short_timeouts_tell_what_ran",
    /// A timeout of zero is taken for none.
    ZeroTimeoutAccepted => "kill::a_timeout_of_zero_is_refused",
    /// A timeout without an end is over at once.
    EndlessTimeIsOver => "kill::a_time_without_an_end_is_none",
    /// The timeout of the spec comes before the command's own.
    SpecTimeoutFirst => "kill::the_commands_own_timeout_comes_first",
    /// A dropped future leaves the process.
    DropKeepsTheProcess => "kill::a_dropped_exec_kills_the_command",
    /// `kill` returns while the process goes on for a while.
    KillReturnsEarly => "spawn::kill_returns_when_everything_is_dead",
    /// `kill` does nothing.
    KillDoesNothing => "spawn::kill_kills_the_tree",
    /// A dropped process lives on.
    DroppedProcessLives => "spawn::a_dropped_process_is_killed",
    /// A background program ends when it prints.
    BackgroundEndsWhenItPrints => "exec::a_background_process_that_prints_lives_on",
    /// Daemons live on although background processes are not declared.
    BackgroundUndeclared => "unsupported::background",
    /// A command whose future is dropped before it began is started all the same.
    DroppedStartForgotten => "host::what_a_dropped_exec_started_is_gone",
    /// Processes that commands started run on after `close`.
    CloseLeavesProcesses => "host::what_a_command_started_is_gone_after_close",
    /// A process of the host outlives the sandbox.
    ProcessLeftOnHost => "host::no_process_is_left",

    // Output is data.
    /// Truncated output looks whole.
    TruncationNotTold => "streams::output_beyond_the_limit_is_truncated_and_counted",
    /// The limit of output is not applied.
    OutputLimitIgnored => "streams::a_limit_of_zero_keeps_nothing_and_counts",
    /// stderr goes into stdout.
    StderrMerged => "streams::stdout_and_stderr_are_apart",
    /// Output ends in one newline.
    NewlineAdded => "streams::output_has_exactly_what_was_written",
    /// Output that is not UTF-8 is replaced.
    OutputMadeUtf8 => "streams::broken_utf8_is_kept_as_bytes",
    /// Input is not given.
    StdinIgnored => "streams::stdin_text_arrives",
    /// A code other than zero is an error.
    ExitCodeIsAnError => "exec::a_code_is_not_an_error",
    /// Codes from 128 on are taken for signals.
    CodesAsSignals => "exec::exit_codes_are_exact",
    /// Death by a signal looks like a code.
    SignalAsCode => "exec::death_by_signal_is_told_apart",
    /// Every end by a signal is said to come of the memory limit.
    CauseMadeUp => "exec::the_cause_of_an_end_is_not_made_up",
    /// A caller's kill is said to come of the memory limit.
    KillSaysOutOfMemory => "spawn::the_cause_of_a_kill_is_told",
    /// The duration is zero.
    DurationMissing => "exec::duration_is_of_the_command",

    /// Outside of a runtime an operation panics.
    PanicsOutsideOfRuntime => "lifecycle::outside_of_a_runtime_nothing_panics",
    /// In another runtime than its first a sandbox is lost.
    BoundToItsRuntime => "lifecycle::another_runtime_may_use_a_sandbox",
    /// When the runtime that made it has ended, a command panics.
    PanicsAfterItsRuntime => "lifecycle::after_its_runtime_a_sandbox_works_or_is_lost",

    // Commands start as they were given.
    /// Arguments pass through a shell.
    ArgumentsThroughShell => "exec::arguments_arrive_verbatim",
    /// A missing program is a result with code 127.
    MissingProgramIsAResult => "exec::a_missing_program_is_named",
    /// Nothing says that arguments are given apart.
    HintsLeftOut => "exec::a_name_with_arguments_in_it_gets_a_hint",
    /// A missing program is said to have run.
    MissingProgramSaysCut => "exec::a_missing_program_is_named",
    /// A program that this machine can't run is a result with code 126.
    ForeignProgramIsAResult => "exec::a_program_for_another_machine_is_not_executable",
    /// A program that crashes leaves its memory in the workdir.
    CrashLeavesCore => "exec::a_crash_leaves_no_core",
    /// The standard streams can't be opened by their names.
    StreamsHaveNoNames => "streams::the_standard_streams_can_be_opened_by_name",
    /// The directory of a command is ignored.
    CwdIgnored => "exec::cwd_may_be_relative_or_absolute",
    /// A variable of one command stays for the next.
    CommandEnvStays => "env::a_variable_of_one_command_is_gone_in_the_next",
    /// A change of the environment is forgotten.
    SetEnvForgotten => "env::set_env_lasts",
    /// A change of the workdir is forgotten.
    SetWorkdirForgotten => "env::set_workdir_lasts",
    /// A workdir that is missing is created.
    SetWorkdirCreates => "env::set_workdir_to_a_missing_directory_is_refused",
    /// No signal is delivered, nor looked at.
    SignalSwallowed => "spawn::an_invalid_signal_is_refused",

    // Jobs.
    /// A second start under a key runs the command again.
    JobStartsAgain => "jobs::a_key_starts_once",
    /// Another command under a key is answered with the job that there is.
    JobConflictHidden => "jobs::another_command_under_a_key_is_a_conflict",
    /// A log that lost its first bytes starts later in silence.
    LogGapHidden => "jobs::a_gap_in_the_log_is_told",
    /// Bytes of standard input that are written again reach the program again.
    StdinRepeated => "jobs::stdin_that_is_written_again_arrives_once",
    /// A job ends with the handle of the caller that started it.
    JobEndsWithHandle => "jobs::a_job_outlives_its_handles",
    /// A job that runs can be forgotten.
    RunningJobForgotten => "jobs::a_job_that_runs_is_not_forgotten",

    // Terminals, ports, streams of files.
    /// A terminal has another size than was asked for.
    TerminalSizeIgnored => "terminal::its_size_is_as_asked",
    /// A command without a terminal is said to have been resized.
    ResizeOfNoTerminal => "terminal::what_no_terminal_is_has_no_size",
    /// A port without a listener looks like a service that is away.
    RefusedPortUnavailable => "ports::a_port_without_a_listener_is_named",
    /// A port without a listener looks like a command at its deadline.
    RefusedPortTimesOut => "ports::waiting_has_an_end",
    /// A reader gives the whole file, whatever part was asked for.
    ReadRangeIgnored => "file_streams::a_file_is_read_in_parts",
    /// A writer that is dropped puts its part in place.
    DroppedWriterCommits => "file_streams::a_dropped_writer_leaves_nothing",

    // Files.
    /// Modes are dropped.
    ModeLost => "files::a_mode_is_kept",
    /// A FIFO at the name gives way to the file.
    FifoReplaced => "files::what_is_no_file_is_not_written_to",
    /// The limit of reading is not applied.
    ReadLimitIgnored => "files::reading_beyond_the_limit_states_it",
    /// Reading beyond the limit gives a part.
    ReadCut => "files::reading_beyond_the_limit_states_it",
    /// Removing what is missing succeeds.
    RemoveOfMissingIsFine => "files::removing_a_missing_path_is_not_found",
    /// Removing what is missing fails although that was accepted.
    IgnoreMissingIgnored => "files::removing_a_missing_path_may_be_accepted",
    /// A link is described itself although it was to be followed.
    MetadataNeverFollows => "files::metadata_follows_links_when_asked",
    /// The owner is another than the guest sees.
    OwnerOfAnother => "files::metadata_tells_the_owner_as_the_guest_sees_it",
    /// A full directory is removed without being asked to.
    RemoveAlwaysRecursive => "files::removing_a_full_directory_needs_to_be_asked_for",
    /// A rename always replaces.
    RenameAlwaysReplaces => "files::rename_does_not_replace_unasked",
    /// A directory that must not exist may exist.
    CreateDirNeverExclusive => "files::create_dir_exclusive_is_exclusive",
    /// Entries come in another order.
    ListUnsorted => "listing::entries_are_sorted_by_bytes",
    /// Links are listed as their targets.
    ListFollowsLinks => "listing::kinds_are_told_apart",
    /// A listing beyond its limit is cut.
    ListCut => "listing::a_limit_is_an_error_not_a_cut",
    /// Hidden files are not listed.
    ListHidesDotFiles => "listing::hidden_files_are_listed",

    // All or nothing.
    /// A batch that fails leaves the files before the bad one.
    BatchNotAtomic => "batch::an_existing_file_fails_the_whole_batch",
    /// A file that must be new replaces one that is there.
    CreateNewReplaces => "batch::an_existing_file_fails_the_whole_batch",
    /// Of a path that is given twice the last one counts.
    DuplicatesAccepted => "batch::the_same_path_twice_is_refused",
    /// A failed export leaves a part under the final name.
    ExportLeavesAPart => "transfer::export_beyond_a_limit_leaves_nothing",
    /// An export brings chains of links that lead out.
    ExportLetsLinksOut => "transfer::export_lets_no_chain_of_links_out",
    /// An unreadable entry is missing, and nothing says so.
    UnreadableNotTold => "transfer::export_leaves_out_what_cannot_be_read",
    /// An export gives every entry a new time.
    TimesLost => "transfer::export_keeps_times",
    /// An export fills the holes of files.
    HolesFilled => "transfer::export_keeps_holes",
    /// An export makes the directories above its final name.
    ParentsMade => "transfer::export_needs_the_directory_above",
    /// An export replaces a file or link at its final name.
    FileReplaced => "transfer::export_refuses_what_is_not_a_directory_in_every_mode",
    /// An import writes into the files that are there.
    ImportWritesInto => "transfer::import_replaces_what_may_not_be_written",
    /// Ignore files are not heeded.
    IgnoreFilesUnheeded => "transfer::import_takes_ignore_before_gitignore",
    /// A merging export writes through links of the destination.
    MergeFollowsLinks => "transfer::export_merging_writes_through_no_link",
    /// An export replaces what is there.
    ExportAlwaysReplaces => "transfer::export_into_an_existing_directory_fails",
    /// An export to a name that must be new takes an empty directory.
    MustBeAbsentTakesEmpty => "transfer::export_to_a_name_that_must_be_new",
    /// Links that lead out are exported.
    ExportKeepsLinks => "transfer::export_skips_links_that_lead_out",
    /// Files are exported with set-user-ID bits.
    ExportSetsUid => "transfer::export_drops_setuid",
    /// An export takes what is excluded.
    ExportExcludesIgnored => "transfer::export_takes_excludes",
    /// A mirroring import removes nothing.
    MirrorIgnored => "transfer::import_mirrors_deletions_when_asked",
    /// The progress of an import is told to nothing.
    ProgressUntold => "transfer::progress_is_told_file_by_file",
    /// An import takes what is excluded.
    ImportExcludesIgnored => "transfer::import_takes_excludes",

    // Refused, never ignored.
    /// A limit that can't be had is ignored.
    LimitIgnored => "unsupported::pids_limit",
    /// A mount that can't be had is ignored.
    MountIgnored => "unsupported::mounts",
    /// An image that can't be had is ignored.
    ImageIgnored => "unsupported::image",
    /// An egress policy that can't be had is ignored.
    EgressPolicyIgnored => "unsupported::egress_by_name",
    /// Narrowing an egress policy that can't be had is claimed to have worked.
    RestrictEgressClaimed => "unsupported::egress_by_name",
    /// The user of a command is ignored.
    UserIgnored => "unsupported::user",
    /// The report claims that everything is enforced.
    ReportClaimsEverything => "isolation::an_undeclared_limit_is_not_claimed",
    /// The report claims privileges that the guest's processes do not have.
    PrivilegesClaimed => "isolation::claims_are_held_against_evidence",
    /// The report does not name a limit that the spec sets.
    SetLimitNotReported => "isolation::a_limit_that_is_set_is_in_the_report",
    /// The report says nothing of a control.
    ReportForgets => "isolation::the_report_names_every_control",
    /// The network is left open although it could be off.
    OffWherePossibleIsOpen => "lifecycle::a_network_that_is_off_where_possible_is_accepted",
    /// A spec that can't be right is put right.
    InvalidSpecAccepted => "lifecycle::an_invalid_spec_is_refused",

    // Order.
    /// A write returns before it takes effect.
    WriteReturnsEarly => "order::a_call_sees_what_returned_before_it",

    // Wrappers, forks and snapshots.
    /// A fork is the same sandbox.
    ForkSharesWrites => "fork::writes_after_the_fork_stay_on_their_side",
    /// A fork has `/tmp` in common with its parent.
    ForkSharesTmp => "fork::every_directory_is_forked",
    /// A fork has its home in common with its parent.
    ForkSharesHome => "fork::every_directory_is_forked",
    /// A fork has `/var` in common with its parent.
    ForkSharesVar => "fork::every_directory_is_forked",
    /// A fork starts in the root.
    ForkLosesWorkdir => "fork::a_fork_has_the_workdir",
    /// A fork has its own environment.
    ForkLosesEnv => "fork::a_fork_has_the_environment",
    /// A fork's files are as new as the fork.
    ForkLosesTimes => "fork::a_fork_keeps_times",
    /// A fork does not name its parent.
    ForkForgetsParent => "fork::a_fork_names_its_parent",
    /// A fork whose parent is closed meanwhile lacks files.
    ForkCutIsAPart => "fork::a_fork_that_a_close_meets_is_whole_or_refused",
    /// A fork is copied file by file, while what runs goes on.
    ForkOfTwoMoments => "fork::a_fork_beside_a_program_that_writes_is_of_one_moment",
    /// A fork stops what runs, and takes it to stand still for as long as it copies.
    ForkTrustsStops => "fork::a_fork_beside_timers_that_continue_what_was_stopped_is_of_one_moment",
    /// A fork has what was written so far to a file that is not committed.
    ForkHasOpenFiles => "file_streams::a_fork_beside_a_writer_has_the_file_whole_or_not_at_all",
    /// A sandbox from a snapshot is empty.
    SnapshotLosesFiles => "fork::a_snapshot_keeps_the_files",
    /// Snapshots are not listed.
    SnapshotsForgotten => "fork::a_snapshot_is_listed_by_its_labels",
    /// Snapshots are listed whatever their labels are.
    SnapshotLabelsIgnored => "fork::a_snapshot_is_listed_by_its_labels",
    /// Deleting a snapshot does nothing.
    SnapshotDeleteDoesNothing => "fork::a_deleted_snapshot_is_gone",
    /// Deleting a snapshot that is not there succeeds.
    MissingSnapshotDeleted => "fork::a_deleted_snapshot_is_gone",
    /// A sandbox from a snapshot that is missing is empty.
    MissingSnapshotAccepted => "fork::a_missing_snapshot_is_not_found",

    // Changes.
    /// Deletions are not told.
    DeletionsNotTold => "changes::deletions_are_told_with_what_was_there",
    /// A change of permission bits alone is not told.
    ModeChangesNotTold => "changes::changed_modes_are_told",
    /// Changes beyond the limit are cut in silence.
    ChangesCut => "changes::more_entries_than_the_limit_is_an_error",
    /// Excluded entries are told all the same.
    ChangesExcludesIgnored => "changes::excluded_entries_are_left_out",
    /// The whole root is looked at, whatever directory was asked about.
    ChangesOfAnotherDirectory => "changes::only_the_directory_is_looked_at",

    // Watch.
    /// Removals are not told.
    RemovalsNotWatched => "watch::a_removal_is_told",
    /// Only what is in the directory itself is told.
    OnlyTheTopWatched => "watch::a_directory_that_appears_full_is_told_whole",
    /// That events were lost is not told.
    LostEventsNotTold => "watch::more_events_than_the_bound_are_a_rescan",
    /// The directory above is watched.
    AnotherDirectoryWatched => "watch::only_the_directory_is_watched",
    /// A watch whose sandbox was closed says that the sandbox is lost.
    WatchEndsLost => "watch::a_watch_ends_with_its_sandbox",

    // Pause and usage.
    /// A pause does nothing.
    PauseDoesNothing => "pause::nothing_runs_in_a_paused_sandbox",
    /// A resume does nothing.
    ResumeDoesNothing => "pause::everything_goes_on_after_resume",
    /// A figure says that there is nothing.
    UsageSaysZero => "pause::usage_counts_processes",

    // Root in the sandbox.
    /// Root that was asked for is the default user.
    RootIgnored => "guest_root::root_is_user_0",
    /// The report of root's sandbox claims what the default has.
    RootHidden => "guest_root::the_report_says_that_root_is_less_than_the_default",

    // Lasting sandboxes.
    /// A sandbox that was to last is gone with its handle.
    LastingIgnored => "lasting::files_environment_and_workdir_stay",
    /// A sandbox that was not to last stays.
    EverySandboxLasts => "lasting::what_was_not_to_last_ends_with_its_handle",
    /// A sandbox that was started again has lost its environment.
    RestartLosesEnvironment => "lasting::files_environment_and_workdir_stay",
    /// A closed sandbox that was to last can be attached to.
    ClosedOneLasts => "lasting::close_ends_it",

    // Close and drop.
    /// Closing twice is an error.
    CloseOnlyOnce => "lifecycle::close_may_be_called_twice",
    /// A closed sandbox works on.
    CloseDoesNothing => "lifecycle::every_call_after_close_says_closed",
    /// A dropped close closes nothing.
    DroppedCloseForgotten => "lifecycle::a_dropped_close_closes_all_the_same",
    /// Dropping the last handle blocks.
    DropBlocks => "lifecycle::a_dropped_sandbox_does_not_block",
    /// A process is lost when the last handle of its sandbox is dropped.
    ProcessEndsWithHandle => "spawn::a_process_keeps_its_sandbox_alive",
    /// Dropping the provider closes its sandboxes.
    ProviderDropCloses => "lifecycle::dropping_the_provider_leaves_the_sandbox",

    // Providers.
    /// Labels are not kept.
    LabelsLost => "provider::list_selects_by_labels",
    /// The list is empty.
    ListForgets => "provider::list_has_the_open_ones",
    /// Attaching makes another sandbox.
    AttachCreates => "provider::attach_gives_the_same_sandbox",
    /// Destroying does nothing.
    DestroyDoesNothing => "provider::destroy_closes_for_all_handles",
    /// A time to live is ignored.
    TtlIgnored => "provider::a_ttl_ends_an_unused_sandbox",
    /// A sandbox whose time has passed is said to be closed.
    ExpiredSaysClosed => "provider::a_ttl_ends_an_unused_sandbox",
    /// Two sandboxes share their files.
    SandboxesShareFiles => "lifecycle::two_sandboxes_never_see_each_other",

    // Cancellation.
    /// A sandbox whose exec was dropped works no more.
    DroppedExecBreaks => "kill::a_dropped_exec_leaves_the_sandbox_usable",

    // Errors.
    /// Errors do not name the path.
    ErrorsWithoutPath => "files::reading_a_missing_file_names_it",
    /// Errors do not name the sandbox.
    ErrorsWithoutSandbox => "files::reading_a_missing_file_names_it",
    /// Errors name another operation.
    ErrorsOfAnotherOperation => "files::reading_a_missing_file_names_it",
    /// A lost sandbox is said to be closed.
    LostSaysClosed => "lifecycle::a_sandbox_destroyed_behind_its_handle_is_lost",
    /// A closed sandbox is said to be lost.
    ClosedSaysLost => "lifecycle::every_call_after_close_says_closed",
    /// Info names another backend than the provider.
    InfoNamesAnother => "lifecycle::info_names_sandbox_and_backend",
    /// The capabilities of a sandbox are others than its provider's.
    CapabilitiesDiffer => "lifecycle::capabilities_are_the_providers_own",
}

impl Mutant {
    /// Whether it is planted in a backend that runs real programs; otherwise in the model.
    pub fn needs_programs(self) -> bool {
        matches!(
            self,
            Self::HostEtcInside
                | Self::HostRootInside
                | Self::HostVarInside
                | Self::HostRunInside
                | Self::HostDevInside
                | Self::HostShmInside
                | Self::HostIpcInside
                | Self::PrivilegesClaimed
                | Self::SetLimitNotReported
                | Self::CloseLeavesProcesses
                | Self::ForkTrustsStops
                | Self::LeaseHoldsReads
                | Self::BackgroundEndsWhenItPrints
                | Self::RootIgnored
                | Self::RootHidden
                | Self::PauseDoesNothing
                | Self::ResumeDoesNothing
                | Self::TerminalSizeIgnored
                | Self::RefusedPortUnavailable
                | Self::RefusedPortTimesOut
        )
    }

    /// The capabilities that the mutant declares, where they differ from the backend's.
    fn capabilities(self, of: Capabilities) -> Capabilities {
        match self {
            Self::BackgroundUndeclared => {
                of.without(Capability::Background, "commands end with all they started")
            }
            _ => of,
        }
    }
}

/// A backend with one fault.
pub struct MutantFixture {
    inner: Box<dyn Fixture>,
    mutant: Mutant,
}

impl std::fmt::Debug for MutantFixture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MutantFixture")
            .field("mutant", &self.mutant)
            .finish_non_exhaustive()
    }
}

impl MutantFixture {
    /// The model with this fault.
    pub fn new(mutant: Mutant) -> Self {
        Self::of(mutant, Box::new(ModelFixture::new()))
    }

    /// Another backend with this fault.
    pub fn of(mutant: Mutant, inner: Box<dyn Fixture>) -> Self {
        Self { inner, mutant }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Fixture for MutantFixture {
    fn name(&self) -> String {
        format!("{:?}", self.mutant)
    }

    fn capabilities(&self) -> Capabilities {
        self.mutant.capabilities(self.inner.capabilities())
    }

    async fn provider(&self) -> Result<Arc<dyn Provider>> {
        let inner = self.inner.provider().await?;
        Ok(Arc::new(MutantProvider::of(self.mutant, inner)))
    }

    fn spec(&self) -> SandboxSpec {
        self.inner.spec()
    }

    fn available(&self) -> std::result::Result<(), String> {
        self.inner.available()
    }

    fn deviations(&self) -> Vec<Deviation> {
        self.inner.deviations()
    }

    fn leaves_out(&self, case: &str) -> Option<String> {
        self.inner.leaves_out(case)
    }
    fn grants(&self, capability: Capability) -> std::result::Result<(), String> {
        self.inner.grants(capability)
    }

    /// Less than a backend gets that is to pass: a mutant is what makes a case wait. The model does at
    /// once what it does.
    fn patience(&self) -> Duration {
        match self.mutant.needs_programs() {
            false => Duration::from_secs(5),
            true => Duration::from_secs(8),
        }
    }

    fn case_timeout(&self) -> Duration {
        match self.mutant {
            // Its case waits for a third of this.
            Mutant::LeaseHoldsReads => Duration::from_secs(9),
            _ => self.inner.case_timeout(),
        }
    }

    fn threads(&self) -> Option<usize> {
        self.inner.threads()
    }

    fn is_of_this_host(&self) -> bool {
        let leaves_some = [Mutant::ProcessLeftOnHost, Mutant::DroppedStartForgotten];
        self.inner.is_of_this_host() || leaves_some.contains(&self.mutant)
    }

    fn can_sabotage(&self) -> bool {
        self.inner.can_sabotage()
    }

    async fn sabotage(&self, sandbox: &dyn Sandbox) -> bool {
        self.inner.sabotage(sandbox).await
    }

    fn other_user(&self) -> Option<String> {
        self.inner.other_user()
    }

    fn upstreams(&self) -> Option<Arc<Upstreams>> {
        self.inner.upstreams()
    }

    fn image(&self) -> Option<String> {
        self.inner.image()
    }

    fn root_dir(&self) -> Option<PathBuf> {
        self.inner.root_dir()
    }
}
