//! The table of the contract: each clause of `sandbox-core/docs/contract.md`, the cases that check
//! it, and mutants that these cases catch. No clause may be without.
//!
//! `docs/clauses.md` is this table for readers. With `SANDBOX_WRITE_CLAUSES` set the test writes
//! it.
#![allow(clippy::expect_used)]

use std::fmt::Write as _;
use std::path::Path;

use sandbox_testkit::mutants::Mutant;

const CONTRACT: &str = include_str!("../../sandbox-core/docs/contract.md");

/// A clause, word for word but for line breaks; names of cases, or of groups with `*`; mutants.
struct Clause {
    text: &'static str,
    cases: &'static [&'static str],
    mutants: &'static [Mutant],
}

const CLAUSES: &[Clause] = &[
    Clause {
        text: "every method takes `&self` and may be called from any number of tasks at once.",
        cases: &[
            "exec::fifty_execs_at_once",
            "batch::concurrent_batches_do_not_mix",
            "lifecycle::fifty_sandboxes_at_once",
            "kill::a_dropped_exec_leaves_the_sandbox_usable",
            "order::another_task_sees_what_returned_before_it",
        ],
        mutants: &[Mutant::DroppedExecBreaks],
    },
    Clause {
        text: "A [`GuestPath`] is bytes.",
        cases: &[
            "paths::names_that_are_not_utf8_make_the_round",
            "paths::odd_names_make_the_round",
        ],
        mutants: &[Mutant::NamesMadeUtf8],
    },
    Clause {
        text: "A relative one is taken from the workdir;",
        cases: &[
            "paths::relative_paths_start_at_the_workdir",
            "env::set_workdir_lasts",
        ],
        mutants: &[Mutant::RelativeFromRoot, Mutant::SetWorkdirForgotten],
    },
    Clause {
        text: "`..` is lexical and never leaves the root ([`GuestPath::resolve`]).",
        cases: &[
            "paths::dot_dot_is_lexical",
            "paths::dot_dot_never_leaves_the_root",
        ],
        mutants: &[Mutant::DotDotDropped],
    },
    Clause {
        text: "Host paths are [`std::path::Path`]s, in separate arguments.",
        cases: &["paths::nothing_of_the_host_is_at_its_host_path"],
        mutants: &[Mutant::HostFilesRead],
    },
    Clause {
        text: "A command gets no variable, descriptor, file or process of the host that the spec \
               did not give it.",
        cases: &[
            "env::nothing_of_the_hosts_environment_is_there",
            "host::canaries_of_the_host_are_not_read",
            "host::directories_of_the_host_are_not_inside",
            "host::private_files_of_the_host_are_not_read",
            "host::shared_memory_of_the_host_is_not_inside",
            "host::the_ipc_namespace_is_not_the_hosts",
            "isolation::processes_of_the_host_are_not_seen",
            "isolation::a_listener_of_the_host_is_out_of_reach",
        ],
        mutants: &[
            Mutant::HostEnvironmentLeaks,
            Mutant::HostCanariesRead,
            Mutant::HostEtcInside,
            Mutant::HostRootInside,
            Mutant::HostVarInside,
            Mutant::HostRunInside,
            Mutant::HostDevInside,
            Mutant::HostShmInside,
            Mutant::HostIpcInside,
        ],
    },
    Clause {
        text: "A timeout, a dropped future, a dropped [`Process`] and \
               [`close`](Sandbox::close) kill everything that the command started, daemons \
               included ([`Capability::KillDaemons`](crate::Capability::KillDaemons)), within a \
               second.",
        cases: &[
            "kill::*",
            "spawn::kill_kills_the_tree",
            "spawn::kill_returns_when_everything_is_dead",
            "spawn::a_dropped_process_is_killed",
            "unsupported::background",
            "host::what_a_command_started_is_gone_after_close",
            "host::what_a_dropped_exec_started_is_gone",
            "host::no_process_is_left",
        ],
        mutants: &[
            Mutant::TimeoutKeepsTheProcess,
            Mutant::ZeroTimeoutAccepted,
            Mutant::SpecTimeoutFirst,
            Mutant::DropKeepsTheProcess,
            Mutant::KillReturnsEarly,
            Mutant::KillDoesNothing,
            Mutant::DroppedProcessLives,
            Mutant::BackgroundUndeclared,
            Mutant::DroppedStartForgotten,
            Mutant::CloseLeavesProcesses,
            Mutant::ProcessLeftOnHost,
        ],
    },
    Clause {
        text: "Where [`Capability::Background`](crate::Capability::Background) is declared, what a \
               command leaves behind lives on when the command has ended, also while it writes to \
               that command's output.",
        cases: &[
            "exec::a_background_process_lives_on",
            "exec::a_background_process_that_prints_lives_on",
        ],
        mutants: &[Mutant::BackgroundEndsWhenItPrints],
    },
    Clause {
        text: "[`Timeout`](crate::ErrorKind::Timeout) is the deadline of a command, and nothing else.",
        cases: &[
            "kill::a_timeout_is_an_error_with_the_partial_output",
            "ports::waiting_ends_when_it_listens",
            "ports::waiting_has_an_end",
        ],
        mutants: &[Mutant::RefusedPortTimesOut],
    },
    Clause {
        text: "A time beyond what a clock can say ([`Duration::MAX`](std::time::Duration::MAX)) is none.",
        cases: &["kill::a_time_without_an_end_is_none"],
        mutants: &[Mutant::EndlessTimeIsOver],
    },
    Clause {
        text: "Bytes, stdout and stderr apart, exact, bounded; a truncated stream says so.",
        cases: &[
            "streams::*",
            "exec::*",
            "kill::a_timeout_is_an_error_with_the_partial_output",
            "kill::a_hundred_short_timeouts_tell_what_ran",
        ],
        mutants: &[
            Mutant::StderrMerged,
            Mutant::NewlineAdded,
            Mutant::OutputMadeUtf8,
            Mutant::OutputLimitIgnored,
            Mutant::TruncationNotTold,
            Mutant::PartialOutputDropped,
            Mutant::ShortTimeoutLosesOutput,
            Mutant::StreamsHaveNoNames,
            Mutant::ExitCodeIsAnError,
            Mutant::CodesAsSignals,
            Mutant::SignalAsCode,
            Mutant::DurationMissing,
        ],
    },
    Clause {
        text: "Why a command ended ([`Output::cause`](crate::Output::cause)) is said where it is \
               known, and is unknown otherwise.",
        cases: &[
            "exec::the_cause_of_an_end_is_not_made_up",
            "exec::a_crash_leaves_no_core",
            "spawn::the_cause_of_a_kill_is_told",
            "isolation::a_memory_limit_holds",
        ],
        mutants: &[
            Mutant::CauseMadeUp,
            Mutant::CrashLeavesCore,
            Mutant::KillSaysOutOfMemory,
        ],
    },
    Clause {
        text: "[`write_files`](Sandbox::write_files) puts a whole batch in place or nothing of it;",
        cases: &["batch::*", "files::*"],
        mutants: &[
            Mutant::BatchNotAtomic,
            Mutant::CreateNewReplaces,
            Mutant::DuplicatesAccepted,
            Mutant::ModeLost,
            Mutant::FifoReplaced,
        ],
    },
    Clause {
        text: "[`export_dir`](Sandbox::export_dir) lands complete under its final name or not at \
               all.",
        cases: &["transfer::*"],
        mutants: &[
            Mutant::ExportLeavesAPart,
            Mutant::ExportLetsLinksOut,
            Mutant::UnreadableNotTold,
            Mutant::TimesLost,
            Mutant::HolesFilled,
            Mutant::ParentsMade,
            Mutant::FileReplaced,
            Mutant::ImportWritesInto,
            Mutant::IgnoreFilesUnheeded,
            Mutant::MergeFollowsLinks,
            Mutant::ExportAlwaysReplaces,
            Mutant::ExportKeepsLinks,
            Mutant::MustBeAbsentTakesEmpty,
            Mutant::ExportSetsUid,
            Mutant::ExportExcludesIgnored,
            Mutant::ImportExcludesIgnored,
            Mutant::MirrorIgnored,
        ],
    },
    Clause {
        text: "An import and an export tell each file that they have brought, where they are asked to \
               ([`TransferProgress`](crate::TransferProgress)); the last count is that of the report.",
        cases: &["transfer::progress_is_told_file_by_file"],
        mutants: &[Mutant::ProgressUntold],
    },
    Clause {
        text: "What a backend's [`capabilities`](Sandbox::capabilities) do not declare is an \
               [`Unsupported`](crate::ErrorKind::Unsupported) error that does nothing.",
        cases: &[
            "unsupported::*",
            "isolation::*",
            "lifecycle::capabilities_are_the_providers_own",
        ],
        mutants: &[
            Mutant::LimitIgnored,
            Mutant::MountIgnored,
            Mutant::ImageIgnored,
            Mutant::EgressPolicyIgnored,
            Mutant::RestrictEgressClaimed,
            Mutant::UserIgnored,
            Mutant::ReportClaimsEverything,
            Mutant::PrivilegesClaimed,
            Mutant::ReportForgets,
            Mutant::SetLimitNotReported,
            Mutant::CapabilitiesDiffer,
        ],
    },
    Clause {
        text: "So is an option that cannot be honoured.",
        cases: &[
            "unsupported::*",
            "exec::cwd_may_be_relative_or_absolute",
            "streams::stdin_text_arrives",
            "files::rename_does_not_replace_unasked",
            "files::create_dir_exclusive_is_exclusive",
            "files::removing_a_full_directory_needs_to_be_asked_for",
            "files::removing_a_missing_path_may_be_accepted",
            "files::metadata_follows_links_when_asked",
            "lifecycle::a_network_that_is_off_where_possible_is_accepted",
            "files::reading_beyond_the_limit_states_it",
            "listing::a_limit_is_an_error_not_a_cut",
            "provider::a_ttl_ends_an_unused_sandbox",
            "provider::list_selects_by_labels",
            "lifecycle::an_invalid_spec_is_refused",
        ],
        mutants: &[
            Mutant::CwdIgnored,
            Mutant::StdinIgnored,
            Mutant::RenameAlwaysReplaces,
            Mutant::CreateDirNeverExclusive,
            Mutant::RemoveAlwaysRecursive,
            Mutant::IgnoreMissingIgnored,
            Mutant::MetadataNeverFollows,
            Mutant::OffWherePossibleIsOpen,
            Mutant::ReadLimitIgnored,
            Mutant::ReadCut,
            Mutant::ListCut,
            Mutant::TtlIgnored,
            Mutant::LabelsLost,
            Mutant::InvalidSpecAccepted,
        ],
    },
    Clause {
        text: "A call sees the effects of every call that returned before it started.",
        cases: &[
            "order::*",
            "env::set_env_lasts",
            "env::a_variable_of_one_command_is_gone_in_the_next",
            "listing::*",
            "files::metadata_tells_the_owner_as_the_guest_sees_it",
            "fork::a_snapshot_is_listed_by_its_labels",
            "fork::a_deleted_snapshot_is_gone",
            "provider::list_has_the_open_ones",
            "provider::attach_gives_the_same_sandbox",
            "spawn::an_invalid_signal_is_refused",
        ],
        mutants: &[
            Mutant::WriteReturnsEarly,
            Mutant::SetEnvForgotten,
            Mutant::CommandEnvStays,
            Mutant::ListUnsorted,
            Mutant::ListFollowsLinks,
            Mutant::ListHidesDotFiles,
            Mutant::ListForgets,
            Mutant::OwnerOfAnother,
            Mutant::SnapshotsForgotten,
            Mutant::SnapshotLabelsIgnored,
            Mutant::SnapshotDeleteDoesNothing,
            Mutant::MissingSnapshotDeleted,
            Mutant::AttachCreates,
            Mutant::SignalSwallowed,
        ],
    },
    Clause {
        text: "`Arc<T>` and `Box<T>` forward; a layer wraps the forks of what it wraps.",
        // The kit runs against the model behind pointers (tests/conformance.rs) and against a local
        // sandbox in layers; tests/layers.rs has the rest.
        cases: &["fork::*", "lifecycle::two_sandboxes_never_see_each_other"],
        mutants: &[
            Mutant::ForkSharesWrites,
            Mutant::ForkSharesTmp,
            Mutant::ForkSharesHome,
            Mutant::ForkSharesVar,
            Mutant::ForkLosesWorkdir,
            Mutant::ForkLosesEnv,
            Mutant::ForkLosesTimes,
            Mutant::ForkForgetsParent,
            Mutant::ForkCutIsAPart,
            Mutant::ForkOfTwoMoments,
            Mutant::ForkTrustsStops,
            Mutant::SnapshotLosesFiles,
            Mutant::SandboxesShareFiles,
        ],
    },
    Clause {
        text: "[`close`](Sandbox::close) is explicit, idempotent and bounded in time.",
        cases: &[
            "lifecycle::close_may_be_called_twice",
            "lifecycle::close_is_bounded_in_time",
            "lifecycle::a_dropped_close_closes_all_the_same",
            "lifecycle::every_call_after_close_says_closed",
            "provider::destroy_closes_for_all_handles",
        ],
        mutants: &[
            Mutant::CloseOnlyOnce,
            Mutant::CloseDoesNothing,
            Mutant::DroppedCloseForgotten,
            Mutant::DestroyDoesNothing,
        ],
    },
    Clause {
        text: "Dropping the last handle does not block;",
        cases: &["lifecycle::a_dropped_sandbox_does_not_block"],
        mutants: &[Mutant::DropBlocks],
    },
    Clause {
        text: "it kills what runs and leaves the rest to the backend's collector.",
        cases: &[
            "lifecycle::dropping_the_provider_leaves_the_sandbox",
            "host::no_process_is_left",
        ],
        mutants: &[Mutant::ProviderDropCloses, Mutant::ProcessLeftOnHost],
    },
    Clause {
        text: "A [`Process`] is a handle too: it keeps its sandbox alive.",
        cases: &["spawn::a_process_keeps_its_sandbox_alive"],
        mutants: &[Mutant::ProcessEndsWithHandle],
    },
    Clause {
        // A kit that runs in the host process can't kill it; each backend's own tests do (for the
        // local one sandbox-local/tests/lifetime.rs). What is left after a run is seen here.
        text: "If the host process is killed, nothing in the sandbox runs on, and the next start \
               collects what was left.",
        cases: &[
            "host::no_process_is_left",
            "lifecycle::a_sandbox_destroyed_behind_its_handle_is_lost",
        ],
        mutants: &[Mutant::ProcessLeftOnHost, Mutant::LostSaysClosed],
    },
    Clause {
        text: "Every future may be dropped at any time; each method says what that does.",
        cases: &[
            "kill::a_dropped_exec_kills_the_command",
            "batch::a_dropped_batch_is_whole_or_absent",
            "fork::a_dropped_fork_leaves_the_parent_usable",
            "transfer::a_cancelled_export_leaves_nothing_under_its_name",
            "lifecycle::a_dropped_close_closes_all_the_same",
        ],
        mutants: &[Mutant::DropKeepsTheProcess, Mutant::DroppedCloseForgotten],
    },
    Clause {
        text: "None leaves the sandbox unusable.",
        cases: &[
            "kill::a_dropped_exec_leaves_the_sandbox_usable",
            "host::a_lease_of_the_guest_holds_no_call_up",
        ],
        mutants: &[Mutant::DroppedExecBreaks, Mutant::LeaseHoldsReads],
    },
    Clause {
        text: "Futures are polled in a tokio runtime with its drivers for time and I/O (`enable_all`); \
               elsewhere a call answers or is [`InvalidInput`](crate::ErrorKind::InvalidInput), and never \
               panics.",
        cases: &["lifecycle::outside_of_a_runtime_nothing_panics"],
        mutants: &[Mutant::PanicsOutsideOfRuntime],
    },
    Clause {
        text: "A handle works in any runtime while the one that made it runs;",
        cases: &["lifecycle::another_runtime_may_use_a_sandbox"],
        mutants: &[Mutant::BoundToItsRuntime],
    },
    Clause {
        text: "afterwards it works or is [`Lost`](crate::ErrorKind::Lost), at once.",
        cases: &["lifecycle::after_its_runtime_a_sandbox_works_or_is_lost"],
        mutants: &[Mutant::PanicsAfterItsRuntime],
    },
    Clause {
        text: "[`Closed`](crate::ErrorKind::Closed) after `close`,",
        cases: &["lifecycle::every_call_after_close_says_closed"],
        mutants: &[Mutant::ClosedSaysLost],
    },
    Clause {
        text: "[`Expired`](crate::ErrorKind::Expired) if its time to live has passed,",
        cases: &["provider::a_ttl_ends_an_unused_sandbox"],
        mutants: &[Mutant::ExpiredSaysClosed],
    },
    Clause {
        text: "[`Lost`](crate::ErrorKind::Lost) if the sandbox was destroyed behind its handle,",
        cases: &["lifecycle::a_sandbox_destroyed_behind_its_handle_is_lost"],
        mutants: &[Mutant::LostSaysClosed],
    },
    Clause {
        text: "[`InvalidInput`](crate::ErrorKind::InvalidInput) for an empty path or one with a \
               NUL byte,",
        cases: &[
            "paths::an_empty_path_is_refused_everywhere",
            "paths::a_nul_byte_is_refused_everywhere",
        ],
        mutants: &[Mutant::EmptyPathAccepted, Mutant::NulBytesDropped],
    },
    Clause {
        text: "[`Unsupported`](crate::ErrorKind::Unsupported) for what is not declared.",
        cases: &["unsupported::*"],
        mutants: &[Mutant::UserIgnored],
    },
    Clause {
        text: "Every error names the operation, the sandbox and the path.",
        cases: &[
            "files::reading_a_missing_file_names_it",
            "files::removing_a_missing_path_is_not_found",
            "exec::a_missing_program_is_named",
            "exec::a_name_with_arguments_in_it_gets_a_hint",
            "exec::a_program_for_another_machine_is_not_executable",
            "env::set_workdir_to_a_missing_directory_is_refused",
            "fork::a_missing_snapshot_is_not_found",
            "kill::a_timeout_is_an_error_with_the_partial_output",
            "kill::a_hundred_short_timeouts_tell_what_ran",
            "exec::arguments_arrive_verbatim",
            "lifecycle::info_names_sandbox_and_backend",
        ],
        mutants: &[
            Mutant::ErrorsWithoutPath,
            Mutant::ErrorsWithoutSandbox,
            Mutant::ErrorsOfAnotherOperation,
            Mutant::RemoveOfMissingIsFine,
            Mutant::MissingProgramIsAResult,
            Mutant::HintsLeftOut,
            Mutant::MissingProgramSaysCut,
            Mutant::ForeignProgramIsAResult,
            Mutant::SetWorkdirCreates,
            Mutant::MissingSnapshotAccepted,
            Mutant::CutSaysNotStarted,
            Mutant::ShortTimeoutSaysNotStarted,
            Mutant::ArgumentsThroughShell,
            Mutant::InfoNamesAnother,
        ],
    },
    Clause {
        text: "A key starts its command once;",
        cases: &[
            "jobs::a_key_starts_once",
            "jobs::many_starts_at_once_are_one",
            "jobs::a_dropped_start_goes_on",
            "jobs::a_start_that_fails_frees_the_key",
        ],
        mutants: &[Mutant::JobStartsAgain],
    },
    Clause {
        text: "the same key with another command is a [`Conflict`](crate::ErrorKind::Conflict).",
        cases: &["jobs::another_command_under_a_key_is_a_conflict"],
        mutants: &[Mutant::JobConflictHidden],
    },
    Clause {
        text: "A job does not depend on its caller, and its key is kept until it is forgotten.",
        cases: &[
            "jobs::a_job_outlives_its_handles",
            "jobs::a_key_is_kept_until_it_is_forgotten",
            "jobs::a_job_that_runs_is_not_forgotten",
        ],
        mutants: &[Mutant::JobEndsWithHandle, Mutant::RunningJobForgotten],
    },
    Clause {
        text: "A log tells what it did not keep;",
        cases: &[
            "jobs::a_gap_in_the_log_is_told",
            "jobs::a_log_is_read_from_any_offset",
            "jobs::a_log_without_a_reader_holds_nothing_up",
        ],
        mutants: &[Mutant::LogGapHidden],
    },
    Clause {
        text: "standard input takes each byte once.",
        cases: &[
            "jobs::stdin_that_is_written_again_arrives_once",
            "jobs::stdin_with_a_gap_is_refused",
        ],
        mutants: &[Mutant::StdinRepeated],
    },
    Clause {
        text: "A terminal is as asked for; a command without one has no size.",
        cases: &["terminal::*"],
        mutants: &[Mutant::TerminalSizeIgnored, Mutant::ResizeOfNoTerminal],
    },
    Clause {
        text: "A port on which nothing listens is \
               [`NotListening`](crate::ErrorKind::NotListening).",
        cases: &["ports::*"],
        mutants: &[Mutant::RefusedPortUnavailable],
    },
    Clause {
        text: "What differs from the files that a sandbox began with is told by bytes, whole or \
               not at all.",
        cases: &["changes::*"],
        mutants: &[
            Mutant::DeletionsNotTold,
            Mutant::ModeChangesNotTold,
            Mutant::ChangesCut,
            Mutant::ChangesExcludesIgnored,
            Mutant::ChangesOfAnotherDirectory,
        ],
    },
    Clause {
        text: "What changes below a watched directory is told, or that something was lost;",
        cases: &["watch::*"],
        mutants: &[
            Mutant::RemovalsNotWatched,
            Mutant::OnlyTheTopWatched,
            Mutant::LostEventsNotTold,
            Mutant::AnotherDirectoryWatched,
        ],
    },
    Clause {
        text: "a watch ends with its directory and with its sandbox.",
        cases: &[
            "watch::a_watch_ends_with_its_directory",
            "watch::a_watch_ends_with_its_sandbox",
        ],
        mutants: &[Mutant::WatchEndsLost],
    },
    Clause {
        text: "Nothing runs in a paused sandbox; a command that is asked for meanwhile is not \
               started, and all goes on with `resume`.",
        cases: &[
            "pause::nothing_runs_in_a_paused_sandbox",
            "pause::a_command_in_a_paused_sandbox_is_not_started",
            "pause::everything_goes_on_after_resume",
        ],
        mutants: &[Mutant::PauseDoesNothing, Mutant::ResumeDoesNothing],
    },
    Clause {
        text: "Where it is asked for, commands are user 0, no mode of the sandbox's own files stops \
               them, and changes of owners succeed.",
        cases: &["guest_root::*"],
        mutants: &[Mutant::RootIgnored],
    },
    Clause {
        text: "The report says that this is less than the default.",
        cases: &["guest_root::the_report_says_that_root_is_less_than_the_default"],
        mutants: &[Mutant::RootHidden],
    },
    Clause {
        text: "A sandbox that was created to last is found by `attach` when its handles are gone, with \
               its files, environment and workdir; its processes are gone.",
        cases: &["lasting::*"],
        mutants: &[
            Mutant::LastingIgnored,
            Mutant::EverySandboxLasts,
            Mutant::RestartLosesEnvironment,
        ],
    },
    Clause {
        // A host that is killed: sandbox-local/tests/lasting.rs.
        text: "Of a lasting sandbox the files stay in both cases.",
        cases: &[
            "lasting::files_environment_and_workdir_stay",
            "lasting::it_can_be_stopped_again_and_again",
        ],
        mutants: &[Mutant::LastingIgnored],
    },
    Clause {
        text: "`close` ends it.",
        cases: &["lasting::close_ends_it"],
        mutants: &[Mutant::ClosedOneLasts],
    },
    Clause {
        text: "A figure that is not known is none.",
        cases: &[
            "pause::usage_counts_processes",
            "pause::usage_counts_what_was_written",
        ],
        mutants: &[Mutant::UsageSaysZero],
    },
    Clause {
        text: "A reader gives the part that was asked for;",
        cases: &["file_streams::a_file_is_read_in_parts"],
        mutants: &[Mutant::ReadRangeIgnored],
    },
    Clause {
        text: "a writer leaves nothing unless it is committed.",
        cases: &[
            "file_streams::a_dropped_writer_leaves_nothing",
            "file_streams::what_is_written_appears_at_the_commit",
            "file_streams::close_ends_a_writer",
            "file_streams::a_fork_beside_a_writer_has_the_file_whole_or_not_at_all",
        ],
        mutants: &[Mutant::DroppedWriterCommits, Mutant::ForkHasOpenFiles],
    },
];

/// Text of the contract that promises nothing: names of clauses and what leads to them.
const NO_PROMISES: &[&str] = &[
    "One isolated filesystem with the processes in it: for code that was not written by you.",
    "Used as `Arc<dyn Sandbox>`;",
    "Everyday calls without options (`sh`, `write`, `read`, …) are in \
     [`SandboxExt`](crate::SandboxExt).",
    // Of the traits, which the compiler checks.
    "A backend must write `info`, `capabilities`, `exec`, the calls on files and `close`. The other \
     methods have defaults that refuse with [`Unsupported`](crate::ErrorKind::Unsupported), and so \
     will every method that a later version adds.",
    "# Contract",
    "Everything here holds for every implementation; the conformance kit checks it.",
    "# Close and drop",
    "# Cancellation",
    "# Runtime",
    "# Errors",
    "Common to all methods:",
    "- **Paths.**",
    "- **Nothing of the host.**",
    "- **Commands end.**",
    "- **Background.**",
    "- **Deadlines.**",
    "- **Output is data.**",
    "- **Causes are not made up.**",
    "- **All or nothing.**",
    "- **Progress.**",
    "- **Refused, never ignored.**",
    "- **Order.**",
    "- **Jobs.**",
    "- **Terminals.**",
    "- **Ports.**",
    "- **Streams.**",
    "- **Changes.**",
    "- **Watch.**",
    "- **Pause.**",
    "- **Usage.**",
    "- **Root in the sandbox.**",
    "File operations of the API may be held to what those files' owner may do.",
    "- **Lasting sandboxes.**",
    "- **Wrappers.**",
];

fn normal(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_word_of_the_contract_is_in_a_clause() {
    let mut rest = normal(CONTRACT);
    let texts = CLAUSES.iter().map(|clause| clause.text);
    for text in texts.chain(NO_PROMISES.iter().copied()) {
        let text = normal(text);
        assert!(
            rest.contains(&text),
            "the contract does not say, or the table has it twice: {text}"
        );
        rest = rest.replacen(&text, " ", 1);
    }
    assert_eq!(normal(&rest), "", "clauses of the contract without a case");
}

fn matches(pattern: &str, case: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(group) => case.starts_with(group),
        None => case == pattern,
    }
}

#[test]
fn every_clause_has_cases_that_catch_its_mutants() {
    let known: Vec<&str> = sandbox_testkit::cases::all()
        .map(|case| case.name)
        // The runner's own check, after the last case.
        .chain(["host::no_process_is_left"])
        .collect();
    for clause in CLAUSES {
        let text = clause.text;
        assert!(!clause.cases.is_empty(), "no case: {text}");
        assert!(!clause.mutants.is_empty(), "no mutant: {text}");
        for pattern in clause.cases {
            let found = known.iter().any(|case| matches(pattern, case));
            assert!(found, "{pattern} is no case: {text}");
        }
        for mutant in clause.mutants {
            let case = mutant.caught_by();
            let here = clause.cases.iter().any(|pattern| matches(pattern, case));
            assert!(here, "{mutant:?} is caught by {case}: {text}");
        }
    }
}

#[test]
fn every_mutant_breaks_a_clause_and_is_caught_by_a_case() {
    for mutant in Mutant::ALL {
        let of_clause = CLAUSES.iter().any(|clause| clause.mutants.contains(mutant));
        assert!(of_clause, "{mutant:?} breaks no clause of the table");
    }
}

#[test]
fn the_table_for_readers_is_this_one() {
    let mut table = String::from(
        "# Clauses of the contract\n\nEach clause of the contract, the cases of the kit that check \
         it, and the mutants (backends with one\nplanted fault) that these cases are shown to \
         catch. Written by `tests/clauses.rs`; a clause without a\ncase or without a mutant fails \
         that test.\n\n| Clause | Cases | Mutants |\n|---|---|---|\n",
    );
    for clause in CLAUSES {
        let cases: Vec<_> = clause
            .cases
            .iter()
            .map(|case| format!("`{case}`"))
            .collect();
        let mutants: Vec<_> = clause.mutants.iter().map(|m| format!("`{m:?}`")).collect();
        writeln!(
            table,
            "| {} | {} | {} |",
            links_as_text(&normal(clause.text)),
            cases.join(", "),
            mutants.join(", ")
        )
        .expect("a string takes it");
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clauses.md");
    if std::env::var_os("SANDBOX_WRITE_CLAUSES").is_some() {
        std::fs::write(&file, &table).expect("written");
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        found == table,
        "{} is not this table; run this test with SANDBOX_WRITE_CLAUSES=1",
        file.display()
    );
}

/// Rustdoc's links lead nowhere in a page of its own.
fn links_as_text(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("[`") {
        out += &rest[..at];
        let inside = &rest[at + 1..];
        let end = inside.find(']').unwrap_or(inside.len());
        out += &inside[..end];
        rest = inside.get(end + 1..).unwrap_or_default();
        if let Some(target) = rest.strip_prefix('(') {
            rest = target.split_once(')').map_or("", |(_, rest)| rest);
        }
    }
    out + rest
}
