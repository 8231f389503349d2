//! Settings of a sandbox: what later commands and forks start with.
//!
//! It must never hold the value of a secret: the engine has it.

use sandbox_core::Env;
use sandbox_core::backend::Settings;

use crate::session::secrets::SecretIds;

/// Workdir and environment, with the engine's identifiers of the secret values.
#[derive(Clone, Debug)]
pub(crate) struct DaggerSettings {
    pub(crate) common: Settings,
    pub(crate) secrets: SecretIds,
}

impl DaggerSettings {
    /// Changes the environment; `secrets` are those of the changes.
    pub(crate) fn change_env(&mut self, changes: &Env, secrets: SecretIds) {
        changes.apply_to(&mut self.common.env);
        for (name, _) in changes.iter() {
            self.secrets.remove(name);
        }
        self.secrets.extend(secrets);
    }
}
