//! Which cases run on a fixture, decided before anything is listed.
//!
//! Invariant: no I/O but what `Fixture::available` does, and every case that does not run says
//! why.

use sandbox_core::Support;

use crate::kit::settings::Settings;
use crate::kit::{Case, Fixture};

/// Why a case does not run.
#[derive(Clone, Debug)]
pub(crate) struct Skip {
    /// Short: "needs fork", "deviation", "not here".
    pub(crate) kind: String,
    /// The reason in full.
    pub(crate) reason: String,
    /// Whether the fixture declares that it does not pass the case.
    pub(crate) is_deviation: bool,
}

/// A case and whether it runs.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    /// The case.
    pub(crate) case: Case,
    /// Why it does not run; it runs if `None`.
    pub(crate) skip: Option<Skip>,
}

/// The cases that take longest, on one backend or another.
const LONGEST: &[&str] = &[
    "fork::forks_a_hundred_deep",
    "terminal::many_come_and_go",
    "paths::odd_names_make_the_round",
    "kill::a_hundred_short_timeouts_tell_what_ran",
    "fork::thirty_two_siblings_at_once",
    "exec::a_hundred_execs_in_a_row",
    "provider::use_puts_the_ttl_off",
    "files::many_small_writes_all_arrive",
    "lifecycle::fifty_sandboxes_at_once",
    "fork::a_fork_while_files_are_written_is_of_one_moment",
    "fork::a_fork_beside_a_program_that_writes_is_of_one_moment",
    "fork::every_directory_is_forked",
    "provider::a_ttl_ends_an_unused_sandbox",
];

/// The turn in which a case begins: the longest first, so that none is left alone at the end.
pub(crate) fn begins(case: &str) -> usize {
    let longest = LONGEST.iter().position(|long| *long == case);
    longest.unwrap_or(LONGEST.len())
}

/// The cases of a fixture. Those that check the absence of a capability are there only where it
/// is absent.
pub(crate) fn plan(fixture: &dyn Fixture, settings: &Settings) -> Vec<Planned> {
    let capabilities = fixture.capabilities();
    let deviations = fixture.deviations();
    let absent = match fixture.available() {
        Err(reason) if !settings.requires(&fixture.name()) => Some(reason),
        _ => None,
    };
    let skip = |kind: String, reason: &str| {
        Some(Skip {
            is_deviation: kind == "deviation",
            kind,
            reason: reason.to_owned(),
        })
    };
    let why = |case: &Case| {
        if let Some(reason) = &absent {
            return skip("not here".into(), reason);
        }
        for need in case.needs {
            if let Support::None(reason) = capabilities.support(*need) {
                return skip(format!("needs {need}"), &reason);
            }
        }
        if let Some(deviation) = deviations.iter().find(|known| known.case == case.name) {
            return skip("deviation".into(), &deviation.reason);
        }
        if let Some(reason) = fixture.leaves_out(case.name) {
            return skip("left out".into(), &reason);
        }
        if case.of_this_host && !fixture.is_of_this_host() {
            return skip(
                "not here".into(),
                "the sandbox's processes are not of this host",
            );
        }
        if case.name.starts_with("egress::") && fixture.upstreams().is_none() {
            return skip("not here".into(), "the fixture has no upstreams");
        }
        if case.sabotages && !fixture.can_sabotage() {
            return skip(
                "not here".into(),
                "the fixture can't destroy a sandbox behind its handle",
            );
        }
        for need in case.needs {
            if let Err(reason) = fixture.grants(*need) {
                return skip(format!("host lacks {need}"), &reason);
            }
        }
        None
    };
    crate::cases::all()
        .filter(|case| !case.lacks.is_some_and(|lacks| capabilities.has(lacks)))
        .map(|case| Planned {
            skip: why(&case),
            case,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_longest_is_a_case_and_begins_first() {
        for name in LONGEST {
            assert!(crate::cases::all().any(|case| case.name == *name), "{name}");
            assert!(begins(name) < begins("files::an_empty_file_is_a_file"));
        }
    }
}
