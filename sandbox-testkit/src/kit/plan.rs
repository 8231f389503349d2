//! Which cases run on a fixture, decided before anything is listed.
//!
//! Invariant: no I/O but what `Fixture::available` does, and every case that does not run says
//! why.

use sandbox_core::Support;

use crate::kit::{Case, Fixture};

/// Why a case does not run.
#[derive(Clone, Debug)]
pub struct Skip {
    /// Short: "needs fork", "deviation", "not here".
    pub kind: String,
    /// The reason in full.
    pub reason: String,
}

/// A case and whether it runs.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The case.
    pub case: Case,
    /// Why it does not run; it runs if `None`.
    pub skip: Option<Skip>,
}

/// The cases of a fixture. Those that check the absence of a capability are there only where it
/// is absent.
pub fn plan(fixture: &dyn Fixture) -> Vec<Planned> {
    let capabilities = fixture.capabilities();
    let deviations = fixture.deviations();
    let absent = match fixture.available() {
        Err(reason) if !required(&fixture.name()) => Some(reason),
        _ => None,
    };
    let skip = |kind: String, reason: &str| {
        Some(Skip {
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
                return skip(format!("needs {need}"), reason);
            }
        }
        if let Some(deviation) = deviations.iter().find(|known| known.case == case.name) {
            return skip("deviation".into(), &deviation.reason);
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

/// Whether `SANDBOX_REQUIRE` says that this fixture must be available.
fn required(name: &str) -> bool {
    std::env::var("SANDBOX_REQUIRE").is_ok_and(|list| {
        list.split(',')
            .map(str::trim)
            .any(|entry| entry == name || entry == "all")
    })
}
