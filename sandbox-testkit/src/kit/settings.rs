//! The settings of a run, from the environment.
//!
//! A setting that can't be used must never be ignored: the run fails before its first case.

use std::path::PathBuf;
use std::time::Duration;

use crate::kit::Fixture;

/// The settings of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `SANDBOX_REQUIRE`: fixtures that must be available.
    pub(crate) require: Vec<String>,
    /// `SANDBOX_CASE_TIMEOUT`: the time that a case may take.
    pub(crate) case_timeout: Option<Duration>,
    /// `SANDBOX_MATRIX_DIR`: the directory that gets the matrices.
    pub(crate) matrix_dir: Option<PathBuf>,
}

impl Settings {
    /// The settings of this process.
    pub(crate) fn from_env() -> Result<Self, String> {
        Self::parse(|name| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned()))
    }

    fn parse(get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let case_timeout = match get("SANDBOX_CASE_TIMEOUT") {
            None => None,
            Some(text) => match text.parse::<u64>() {
                Ok(seconds) if seconds > 0 => Some(Duration::from_secs(seconds)),
                _ => {
                    return Err(format!(
                        "SANDBOX_CASE_TIMEOUT must be a number of seconds above 0, not {text:?}"
                    ));
                }
            },
        };
        let matrix_dir = match get("SANDBOX_MATRIX_DIR") {
            Some(text) if text.is_empty() => {
                return Err("SANDBOX_MATRIX_DIR must name a directory and is empty".into());
            }
            given => given.map(PathBuf::from),
        };
        let require = get("SANDBOX_REQUIRE").unwrap_or_default();
        Ok(Self {
            require: require
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
            case_timeout,
            matrix_dir,
        })
    }

    /// Whether this fixture must be available.
    pub(crate) fn requires(&self, name: &str) -> bool {
        self.require
            .iter()
            .any(|entry| entry == name || entry == "all")
    }
}

/// Checks what a fixture declares against the cases that there are: a deviation from an unknown
/// case, one without a reason, and one that is declared twice are mistakes.
pub(crate) fn check_deviations(fixture: &dyn Fixture) -> Result<(), String> {
    let mut seen: Vec<String> = Vec::new();
    for deviation in fixture.deviations() {
        let case = deviation.case;
        if !crate::cases::all().any(|known| known.name == case) {
            let near = crate::cases::all()
                .map(|known| known.name)
                .filter(|name| name.split("::").next() == case.split("::").next())
                .collect::<Vec<_>>()
                .join(", ");
            return Err(format!(
                "{}: the deviation {case:?} names no case; cases of this group: {near}",
                fixture.name()
            ));
        }
        if deviation.reason.trim().is_empty() {
            return Err(format!(
                "{}: the deviation {case:?} needs a reason",
                fixture.name()
            ));
        }
        if seen.contains(&case) {
            return Err(format!(
                "{}: the deviation {case:?} is declared twice",
                fixture.name()
            ));
        }
        seen.push(case);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        let find = |name: &str| pairs.iter().find(|(known, _)| *known == name);
        Settings::parse(|name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn good_settings_are_taken() {
        let settings = parse(&[
            ("SANDBOX_REQUIRE", "a, b"),
            ("SANDBOX_CASE_TIMEOUT", "7"),
            ("SANDBOX_MATRIX_DIR", "out"),
        ]);
        let settings = settings.unwrap_or_default();
        assert!(settings.requires("a") && settings.requires("b") && !settings.requires("c"));
        assert_eq!(settings.case_timeout, Some(Duration::from_secs(7)));
        assert_eq!(settings.matrix_dir, Some("out".into()));
        assert_eq!(parse(&[]), Ok(Settings::default()));
    }

    #[test]
    fn bad_settings_are_refused_by_name() {
        for (name, value) in [
            ("SANDBOX_CASE_TIMEOUT", "soon"),
            ("SANDBOX_CASE_TIMEOUT", "0"),
            ("SANDBOX_CASE_TIMEOUT", ""),
            ("SANDBOX_MATRIX_DIR", ""),
        ] {
            let refused = parse(&[(name, value)]);
            assert!(
                refused.as_ref().is_err_and(|why| why.contains(name)),
                "{name}={value:?}: {refused:?}"
            );
        }
    }
}
