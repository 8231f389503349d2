//! A backend of its own: bubblewrap once for each command, with the conformance kit run on it.
//!
//! `bubblewrap` says how a command is started and what is promised of it. The rest would do for any
//! launcher: `provider` creates sandboxes, `sandbox_of_processes` is one, `program` finds what a
//! command names, `process` watches over what runs. The files are a directory of the host, for
//! which `sandbox-transfer` has [`GuestTree`](sandbox_transfer::GuestTree). A backend of its own
//! crate has the kit in its tests instead of a `main`:
//! `sandbox_testkit::conformance_main!(BubblewrapFixture);`.
//!
//! `custom_backend [PART]` runs the cases with this part in their names; the groups that are most
//! telling by default, all of them with `""`.
#![allow(clippy::print_stdout, clippy::print_stderr)] // An example talks to its user.

#[cfg(target_os = "linux")]
mod bubblewrap;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod program;
#[cfg(target_os = "linux")]
mod provider;
#[cfg(target_os = "linux")]
mod sandbox_of_processes;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("bubblewrap needs Linux");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::BTreeMap;
    use std::process::ExitCode;
    use std::sync::Arc;

    use sandbox::{Capabilities, Provider, Result, async_trait};
    use sandbox_testkit::{Deviation, Fixture, Outcome, run_blocking};

    use crate::bubblewrap::{Bubblewrap, CAPABILITIES};
    use crate::provider::ProcessProvider;

    /// Groups of cases that show most in little time.
    const TELLING: [&str; 5] = ["batch::", "paths::", "host::", "isolation::", "spawn::"];

    /// Source of sandboxes for the kit.
    struct BubblewrapFixture;

    #[async_trait]
    impl Fixture for BubblewrapFixture {
        fn name(&self) -> String {
            "bubblewrap".into()
        }

        fn capabilities(&self) -> Capabilities {
            CAPABILITIES
        }

        async fn provider(&self) -> Result<Arc<dyn Provider>> {
            Ok(Arc::new(ProcessProvider::new(Bubblewrap)))
        }

        fn threads(&self) -> Option<usize> {
            sandbox_testkit::kit::mostly_waiting()
        }

        /// Lets the kit look from outside too, and makes it the reaper of what is left.
        fn is_of_this_host(&self) -> bool {
            true
        }

        fn deviations(&self) -> Vec<Deviation> {
            let signals = [
                "exec::death_by_signal_is_told_apart",
                "exec::the_cause_of_an_end_is_not_made_up",
                "exec::a_self_sent_term_is_not_a_timeout",
                "spawn::death_by_signal_is_told_apart",
                "spawn::the_cause_of_a_kill_is_told",
            ];
            let formats = [
                "exec::a_file_that_is_no_program_is_not_executable",
                "exec::a_missing_interpreter_is_not_a_result",
                "exec::a_program_for_another_machine_is_not_executable",
            ];
            let signals = signals.map(|case| {
                Deviation::new(
                    case,
                    "bubblewrap gives 128 and the signal's number as the code",
                )
            });
            let formats = formats.map(|case| {
                Deviation::new(
                    case,
                    "bubblewrap does not say that the kernel refused a program",
                )
            });
            let fifo = Deviation::new(
                "fork::a_fork_sees_modes_links_and_empty_directories",
                "a fork copies files, directories and links, and no FIFO",
            );
            let mut all: Vec<_> = signals.into_iter().chain(formats).collect();
            all.push(fifo);
            if rustix::process::geteuid().is_root() {
                all.push(Deviation::new(
                    "transfer::export_leaves_out_what_cannot_be_read",
                    "the tree is read with the rights of the host's root, which may read all",
                ));
            }
            all
        }
    }

    pub(crate) fn main() -> ExitCode {
        let part = std::env::args().nth(1);
        let wanted = move |case: &str| match &part {
            Some(part) => case.contains(part.as_str()),
            None => TELLING.iter().any(|group| case.starts_with(group)),
        };
        let report = match run_blocking(Arc::new(BubblewrapFixture), wanted) {
            Ok(report) => report,
            Err(error) => {
                eprintln!("custom_backend: {error}");
                return ExitCode::FAILURE;
            }
        };
        let mut ignored: BTreeMap<&str, usize> = BTreeMap::new();
        for case in &report.cases {
            if let Outcome::Ignored(reason) = &case.outcome {
                *ignored.entry(reason).or_default() += 1;
            }
        }
        println!("{:>5}  passed", report.passed());
        println!("{:>5}  failed", report.failed().count());
        for (case, why) in report.failed() {
            println!("{:>12}  {case}: {why}", "");
        }
        println!("{:>5}  ignored", ignored.values().sum::<usize>());
        for (reason, count) in ignored {
            println!("{count:>12}  {reason}");
        }
        ExitCode::from(u8::from(report.failed().next().is_some()))
    }
}
