//! Workdir and environment of a sandbox: what later commands and forks start with.

use std::collections::BTreeMap;

use crate::{Env, EnvValue, GuestPath, Operation, Result};

/// The `PATH` of commands that set none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The workdir and the environment of a sandbox. A fork starts with a clone.
///
/// ```
/// use sandbox_core::{Env, GuestPath, Operation, backend::Settings};
/// let mut settings = Settings::new("/workspace", &Env::new().set("LANG", "C.UTF-8"));
/// settings.set_env(&Env::new().unset("LANG"), Operation::SetEnv)?;
/// assert!(settings.env.is_empty());
/// let path = settings.resolve(&GuestPath::from("src"), Operation::ListDir)?;
/// assert_eq!(path, GuestPath::from("/workspace/src"));
/// # Ok::<(), sandbox_core::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// The directory where relative paths and commands start; absolute.
    pub workdir: GuestPath,
    /// The environment of every command.
    pub env: BTreeMap<Vec<u8>, EnvValue>,
}

impl Settings {
    /// A workdir, and an environment that has only these variables.
    pub fn new(workdir: impl Into<GuestPath>, env: &Env) -> Self {
        let mut all = BTreeMap::new();
        env.apply_to(&mut all);
        Self {
            workdir: workdir.into(),
            env: all,
        }
    }

    /// Changes the environment, or nothing of it.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) that names the variable.
    pub fn set_env(&mut self, changes: &Env, operation: Operation) -> Result<()> {
        changes.validate(operation)?;
        changes.apply_to(&mut self.env);
        Ok(())
    }

    /// The absolute path that a path names.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) with the path.
    pub fn resolve(&self, path: &GuestPath, operation: Operation) -> Result<GuestPath> {
        path.resolve(&self.workdir, operation)
    }
}
