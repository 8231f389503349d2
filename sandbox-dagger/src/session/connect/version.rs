//! The versions of the engine that this crate can use, and what differs between them.
//!
//! A new version needs a line here, after the conformance kit has passed on it (see `ENGINE.md`).

use sandbox_core::{Error, ErrorKind, Operation, Result};

use super::sdk::MADE_FOR;

/// A range of versions whose schema this crate uses: those with this major number, from this minor
/// number on, up to and without the next.
struct Known {
    major: u32,
    from: u32,
    below: u32,
}

/// Versions that are known to work. From 1.0 on, commands can reach the engine unless that is
/// switched off by name, which every query of this crate does.
const KNOWN: [Known; 2] = [
    Known {
        major: 0,
        from: 21,
        below: u32::MAX,
    },
    // Tried with 1.0.0-beta.10.
    Known {
        major: 1,
        from: 0,
        below: 1,
    },
];

/// Refuses an engine whose schema is not known.
pub(super) fn check(version: &str) -> Result<()> {
    let mut numbers = version.trim_start_matches('v').split(['.', '-', '+']);
    let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    if let (Some(major), Some(minor)) = (next(), next())
        && KNOWN
            .iter()
            .any(|known| known.major == major && (known.from..known.below).contains(&minor))
    {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unavailable, Operation::Connect)
        .with_message(format!("the Dagger engine is version {version}"))
        .with_retryable(false)
        .with_hint(format!(
            "this crate needs 0.21 or later, or 1.0; {MADE_FOR} is best"
        )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_engines_of_a_known_schema_are_used() {
        for good in [
            "v0.21.11",
            "0.21.0",
            "v0.22.0-dev",
            "v1.0.0-beta.10",
            "v1.0.0",
            "v1.0.3",
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["v0.20.8", "v1.1.0", "v2.0.0", "unknown", "", "v1"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
