//! Configuration of a container besides its files: environment, user, mounts, labels, ports,
//! logins.
//!
//! Invariant: secrets and logins never become part of an image.

use std::sync::Arc;

use sandbox_core::Command;
use serde_json::json;

use super::cache::{Cache, Sharing};
use super::directory::Directory;
use super::engine::{Failure, SecretValue};
use super::quirks::Quirks;
use super::service::Service;

/// Variables that the engine sets for every command, for its own use.
const ENGINE_VARIABLES: [(&str, &str); 5] = [
    ("BAGGAGE", "dagger.io/session=double"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"),
    (
        "TRACEPARENT",
        "00-00000000000000000000000000000001-0000000000000001-01",
    ),
    ("TRACESTATE", "dagger=double"),
    ("_DAGGER_DOUBLE", "1"),
];

/// Settings for later commands.
#[derive(Clone, Debug, Default)]
pub(super) struct Config {
    pub(super) env: Vec<(String, String)>,
    pub(super) secrets: Vec<(String, Arc<SecretValue>)>,
    pub(super) workdir: Option<String>,
    pub(super) user: String,
    pub(super) mounts: Vec<(String, Mount)>,
    pub(super) labels: Vec<(String, String)>,
    pub(super) entrypoint: Vec<String>,
    pub(super) ports: Vec<u16>,
    pub(super) logins: Vec<Login>,
    /// Services under the names by which commands reach them.
    pub(super) bindings: Vec<(String, Arc<Service>)>,
}

/// A login at a registry.
#[derive(Clone, Debug)]
pub(super) struct Login {
    pub(super) registry: String,
    pub(super) user: String,
    pub(super) password: Arc<SecretValue>,
}

/// Mount: visible at a path without being part of the files.
#[derive(Clone, Debug)]
pub(super) enum Mount {
    Directory(Arc<Directory>),
    Temp,
    Cache(Arc<Cache>, Sharing),
}

/// Whether the double's containers have this user, whose group may be named too.
pub(super) fn is_known_user(user: &str) -> bool {
    let name = user.split(':').next().unwrap_or_default();
    ["", "0", "root", "1000", "sandbox"].contains(&name)
}

impl Config {
    /// The double's containers have one user, whatever it is called.
    pub(super) fn check_user(&self) -> Result<(), Failure> {
        match is_known_user(&self.user) {
            true => Ok(()),
            false => Err(Failure {
                exec: Some(json!({
                    "_type": "EXEC_ERROR", "cmd": [], "exitCode": -1, "stdout": "", "stderr": "",
                })),
                ..Failure::text(format_args!(
                    "unable to find user {}: no matching entries in passwd file",
                    self.user
                ))
            }),
        }
    }

    /// A command with everything that is set for it, and what the engine adds.
    pub(super) fn command(&self, program: &str, quirks: &Quirks) -> Command {
        let mut command = Command::new(program).cwd(self.workdir.as_deref().unwrap_or("/"));
        if quirks.engine_variables {
            for (name, value) in ENGINE_VARIABLES {
                command = command.env(name, value);
            }
        }
        for (name, value) in &self.env {
            command = command.env(name.as_str(), value.as_str());
        }
        for (name, secret) in &self.secrets {
            command = command.env(name.as_str(), secret.plaintext.as_str());
        }
        command
    }

    /// The part of the configuration that goes into an image.
    pub(super) fn of_image(&self) -> Self {
        Self {
            secrets: Vec::new(),
            mounts: Vec::new(),
            logins: Vec::new(),
            bindings: Vec::new(),
            ..self.clone()
        }
    }

    /// Sets a value of a list of pairs.
    pub(super) fn set(list: &mut Vec<(String, String)>, name: &str, value: &str) {
        list.retain(|(known, _)| known != name);
        list.push((name.to_owned(), value.to_owned()));
    }
}
