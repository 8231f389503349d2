//! Environment variables: of a spec, of a sandbox, of one command.

use std::collections::BTreeMap;
use std::fmt;

use crate::{Error, ErrorKind, Operation, Result, Secret};

/// The value of an environment variable.
///
/// Every value is redacted in `Debug`; `is_secret` says that a backend must also keep it out of its
/// service's plain configuration (an engine's secret store, a cloud's secret), where it has one.
///
/// ```
/// use sandbox_core::Env;
/// let env = Env::new().secret("TOKEN", "t0p");
/// assert!(env.iter().all(|(_, value)| value.is_some_and(|value| value.is_secret)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EnvValue {
    /// The value.
    pub value: Secret,
    /// Whether it was set with [`Env::secret`].
    pub is_secret: bool,
}

/// Changes to an environment, applied in order of name: variables to set and to unset.
///
/// The same type describes a spec's initial environment, a change of a sandbox's environment
/// ([`set_env`](crate::Sandbox::set_env)) and what one command adds. Nothing of the host's
/// environment is ever inherited.
///
/// ```
/// use sandbox_core::Env;
/// let env = Env::new().set("LANG", "C.UTF-8").secret("TOKEN", "t0p").unset("DEBUG");
/// assert_eq!(format!("{env:?}"), "Env { LANG: set, TOKEN: secret, DEBUG: unset }");
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Env {
    changes: Vec<(Vec<u8>, Option<EnvValue>)>,
}

impl Env {
    /// No changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a variable.
    #[must_use]
    pub fn set(self, name: impl Into<Vec<u8>>, value: impl Into<Secret>) -> Self {
        self.with(
            name.into(),
            Some(EnvValue {
                value: value.into(),
                is_secret: false,
            }),
        )
    }

    /// Sets a variable whose value is confidential.
    #[must_use]
    pub fn secret(self, name: impl Into<Vec<u8>>, value: impl Into<Secret>) -> Self {
        self.with(
            name.into(),
            Some(EnvValue {
                value: value.into(),
                is_secret: true,
            }),
        )
    }

    /// Takes a variable away.
    #[must_use]
    pub fn unset(self, name: impl Into<Vec<u8>>) -> Self {
        self.with(name.into(), None)
    }

    fn with(mut self, name: Vec<u8>, value: Option<EnvValue>) -> Self {
        self.changes.retain(|(known, _)| *known != name);
        self.changes.push((name, value));
        self
    }

    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes, in the order in which they were made; `None` unsets.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&EnvValue>)> {
        self.changes
            .iter()
            .map(|(name, value)| (name.as_slice(), value.as_ref()))
    }

    /// Checks that every name and value can be given to a program.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an empty name, a name with `=`, or a NUL byte anywhere. The
    /// message names the variable, never its value.
    pub fn validate(&self, operation: Operation) -> Result<()> {
        for (name, value) in self.iter() {
            let why = if name.is_empty() {
                "an environment variable has an empty name"
            } else if name.contains(&b'=') || name.contains(&0) {
                "an environment variable's name has '=' or a NUL byte"
            } else if value.is_some_and(|v| v.value.expose().contains(&0)) {
                "an environment variable's value has a NUL byte"
            } else {
                continue;
            };
            return Err(Error::new(ErrorKind::InvalidInput, operation)
                .with_message(format!("{why}: \"{}\"", name.escape_ascii())));
        }
        Ok(())
    }

    /// Applies the changes to a whole environment.
    pub fn apply_to(&self, environment: &mut BTreeMap<Vec<u8>, EnvValue>) {
        for (name, value) in &self.changes {
            match value {
                Some(value) => environment.insert(name.clone(), value.clone()),
                None => environment.remove(name),
            };
        }
    }
}

impl<N: Into<Vec<u8>>, V: Into<Secret>> FromIterator<(N, V)> for Env {
    /// Sets a variable for each pair; of two with the same name the last counts.
    ///
    /// ```
    /// use sandbox_core::Env;
    /// let env: Env = [("LANG", "C.UTF-8"), ("TZ", "UTC")].into_iter().collect();
    /// assert_eq!(env.iter().count(), 2);
    /// ```
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let mut env = Self::new();
        env.extend(variables);
        env
    }
}

impl<N: Into<Vec<u8>>, V: Into<Secret>> Extend<(N, V)> for Env {
    fn extend<I: IntoIterator<Item = (N, V)>>(&mut self, variables: I) {
        for (name, value) in variables {
            *self = std::mem::take(self).set(name, value);
        }
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Env");
        for (name, value) in self.iter() {
            let what = match value {
                None => "unset",
                Some(EnvValue {
                    is_secret: true, ..
                }) => "secret",
                Some(_) => "set",
            };
            out.field(&String::from_utf8_lossy(name), &format_args!("{what}"));
        }
        out.finish()
    }
}
