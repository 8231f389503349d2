//! Building an agent's image in the engine, and handing it on: to a registry or as an archive.
//!
//! Invariant: each step is a query of its own that starts at an id, so that a recipe may have any
//! number of them.

use std::path::{Path, PathBuf};

use sandbox_core::{Error, ErrorKind, Operation, Result};

use crate::DaggerProvider;
use crate::config::options::Base;
use crate::provider::base::Start;
use crate::session::client::SMALL_ANSWER;
use crate::session::connect::Session;
use crate::session::failure::Failed;
use crate::session::login::signed_in;
use crate::session::query::{self, find};

const OP: Operation = Operation::Snapshot;

/// A recipe for an image: what it starts from, and what is done then, in this order.
///
/// ```no_run
/// # async fn run() -> sandbox_core::Result<()> {
/// use sandbox_dagger::{Base, DaggerConfig, DaggerProvider, ImageBuild, RegistryLogin};
/// let login = RegistryLogin::new("ghcr.io", "acme", std::env::var("TOKEN").unwrap_or_default());
/// let provider = DaggerProvider::new(DaggerConfig::default().login(login))?;
/// let image = ImageBuild::new(Base::Image("node:20-alpine3.22".into()))
///     .run("npm install --global some-agent@1.2.3")
///     .copy("./agent", "/opt/agent")
///     .env("AGENT_HOME", "/opt/agent")
///     .entrypoint(["node", "/opt/agent/main.js"]);
/// let reference = provider.publish_image(&image, "ghcr.io/acme/agent:1.2.3").await?;
/// // "ghcr.io/acme/agent:1.2.3@sha256:…": what is deployed is what was built.
/// # let _ = reference; Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct ImageBuild {
    base: Base,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    /// A field of the container with its arguments, as the query has it.
    Field(String),
    Copy(PathBuf, String),
}

impl ImageBuild {
    /// A recipe that starts from this.
    pub fn new(base: Base) -> Self {
        Self {
            base,
            steps: Vec::new(),
        }
    }

    fn field(mut self, field: String) -> Self {
        self.steps.push(Step::Field(field));
        self
    }

    /// Runs a shell command; one that fails ends the build. The engine keeps results of the same
    /// command on the same files.
    #[must_use]
    pub fn run(self, command: &str) -> Self {
        let command = query::string(command);
        self.field(format!(
            "withExec(args: [\"/bin/sh\", \"-c\", {command}], experimentalPrivilegedNesting: false)"
        ))
    }

    /// Copies a directory of the host into the image.
    #[must_use]
    pub fn copy(mut self, from: impl Into<PathBuf>, to: &str) -> Self {
        self.steps.push(Step::Copy(from.into(), to.to_owned()));
        self
    }

    /// Sets a variable of the image. Nothing confidential: images are read by many.
    #[must_use]
    pub fn env(self, name: &str, value: &str) -> Self {
        let (name, value) = (query::string(name), query::string(value));
        self.field(format!("withEnvVariable(name: {name}, value: {value})"))
    }

    /// Commands of the image start here.
    #[must_use]
    pub fn workdir(self, path: &str) -> Self {
        let path = query::string(path);
        self.field(format!("withWorkdir(path: {path})"))
    }

    /// Commands of the image run as this user.
    #[must_use]
    pub fn user(self, user: &str) -> Self {
        let user = query::string(user);
        self.field(format!("withUser(name: {user})"))
    }

    /// Adds a label.
    #[must_use]
    pub fn label(self, name: &str, value: &str) -> Self {
        let (name, value) = (query::string(name), query::string(value));
        self.field(format!("withLabel(name: {name}, value: {value})"))
    }

    /// Sets the program that the image runs.
    #[must_use]
    pub fn entrypoint<A: AsRef<str>>(self, arguments: impl IntoIterator<Item = A>) -> Self {
        let arguments: Vec<_> = arguments
            .into_iter()
            .map(|argument| query::string(argument.as_ref()))
            .collect();
        self.field(format!("withEntrypoint(args: [{}])", arguments.join(", ")))
    }
}

impl DaggerProvider {
    /// Builds an image and publishes it, with the login of the address's registry if the
    /// configuration has one. Gives the reference with its digest.
    ///
    /// Dropping the future cancels the build; what was published before stays.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) for a base or a directory that is missing;
    /// [`Other`](ErrorKind::Other) with the last lines of a command that failed, or with what the
    /// registry says; [`Unavailable`](ErrorKind::Unavailable) if the engine needs more than the operation
    /// timeout.
    pub async fn publish_image(&self, image: &ImageBuild, address: &str) -> Result<String> {
        let session = self.shared.session().await?;
        let id = self.build(&session, image).await?;
        let below = format!("publish(address: {})", query::string(address));
        let below = signed_in(&session, &self.shared.config, address, OP, below).await;
        let below = below.map_err(|not_made| not_made.error(OP))?;
        let answer = self.ask(&session, query::on_container(&id, &below)).await?;
        let reference = find(&answer, "publish");
        let reference =
            reference.ok_or_else(|| Failed::Garbage("no reference".into()).error(OP))?;
        Ok(reference.to_owned())
    }

    /// Builds an image and writes it to an archive on the host (OCI layout).
    ///
    /// Dropping the future cancels the build, and may leave a part of the archive.
    ///
    /// # Errors
    /// As [`publish_image`](Self::publish_image);
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) if something is at `to`.
    pub async fn export_image(&self, image: &ImageBuild, to: &Path) -> Result<()> {
        let failed = |error| Error::from_io(error, OP).with_host_path(to);
        let path = std::path::absolute(to).map_err(failed)?;
        if path.symlink_metadata().is_ok() {
            return Err(Error::new(ErrorKind::AlreadyExists, OP)
                .with_message("something is there already")
                .with_host_path(to));
        }
        let session = self.shared.session().await?;
        let id = self.build(&session, image).await?;
        let path = query::string(&path.to_string_lossy());
        let below = format!("asTarball {{ export(path: {path}) }}");
        self.ask(&session, query::on_container(&id, &below))
            .await
            .map(drop)
    }

    /// Builds an image and puts it under this name into the image store of the host of the Dagger
    /// CLI (Docker, Podman, nerdctl or Finch, whichever the CLI finds).
    ///
    /// Dropping the future cancels the build; what was stored before stays.
    ///
    /// # Errors
    /// As [`publish_image`](Self::publish_image);
    /// [`Other`](ErrorKind::Other) with what the CLI says if it finds no such store.
    pub async fn load_image(&self, image: &ImageBuild, name: &str) -> Result<()> {
        let session = self.shared.session().await?;
        let id = self.build(&session, image).await?;
        let below = format!("exportImage(name: {})", query::string(name));
        self.ask(&session, query::on_container(&id, &below))
            .await
            .map(drop)
    }

    async fn ask(&self, session: &Session, query: String) -> Result<serde_json::Value> {
        let within = self.shared.config.operation_timeout;
        let answer = session.query(&query, SMALL_ANSWER, within).await;
        answer.map_err(|failed| failed.error(OP))
    }

    async fn build(&self, session: &Session, image: &ImageBuild) -> Result<String> {
        let start = Start::from(&image.base);
        let based = start.container(session, &self.shared.config, OP).await;
        let mut id = based.map_err(|not_made| not_made.error(OP))?.id;
        let garbage = || Failed::Garbage("no id".into()).error(OP);
        for step in &image.steps {
            let field = match step {
                Step::Field(field) => field.clone(),
                Step::Copy(from, to) => {
                    let failed = |error| Error::from_io(error, OP).with_host_path(from);
                    let from = std::fs::canonicalize(from).map_err(failed)?;
                    let host = query::host_directory(&from.to_string_lossy());
                    let answer = self.ask(session, host).await?;
                    let source = query::string(find(&answer, "id").ok_or_else(garbage)?);
                    let to = query::string(to);
                    format!("withDirectory(path: {to}, source: {source})")
                }
            };
            let query = query::on_container(&id, &format!("{field} {{ id }}"));
            let answer = self.ask(session, query).await?;
            id = find(&answer, "id").ok_or_else(garbage)?.to_owned();
        }
        Ok(id)
    }
}
