//! Environments: made, found, given an agent, destroyed.
//!
//! An environment must never be reached by another tenant, nor by a name that is not one.

use std::sync::Arc;
use std::time::Duration;

use sandbox_core::{
    Capability, Command, EgressPolicy, ErrorKind as CoreKind, Network, Sandbox, SandboxSpec,
    Secret, Source,
};
use sandbox_sessions::{
    Filter, Key, Session, SessionId, SessionInfo, SessionOptions, Sessions, Tenant,
};

use crate::repository::{self, Repository, SavedBranch, WORKSPACE};
use crate::setup::{self, Installed};
use crate::{AgentRun, Error, ErrorKind, Preset, Presets, Result};

const AGENT: &str = "agent";
const BRANCH: &str = "branch";
const BASE: &str = "base";
/// Value of the variable in which an agent expects its key.
const PLACEHOLDER: &str = "added-outside-of-the-sandbox";

/// Way of an agent to its model.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum ModelAccess {
    /// Not at all (the default): an environment without a network.
    #[default]
    None,
    /// By its preset's host, with this key. An egress policy allows that host alone, and the key is
    /// added outside of the sandbox, which never has it. Needs
    /// [`Capability::EgressByName`].
    Key(Secret),
    /// At this address, which the specification's network must reach: a server in the sandbox, a
    /// gateway.
    Url(String),
}

/// Request for an environment.
///
/// ```
/// use sandbox_coding::{EnvironmentRequest, ModelAccess, Repository};
/// # let key = "";
/// let request = EnvironmentRequest::new("claude")
///     .repository(Repository::new("/home/me/project"))
///     .model(ModelAccess::Key(key.into()));
/// assert!(request.branch.is_none());
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EnvironmentRequest {
    /// Name of the preset.
    pub agent: String,
    /// The repository. Default: none, an empty `/workspace`.
    pub repository: Option<Repository>,
    /// The branch that the agent works on. Default: `agent/` and the identifier.
    pub branch: Option<String>,
    /// Way of the agent to its model.
    pub model: ModelAccess,
    /// Specification of the sandbox beyond that: limits, mounts, source.
    pub spec: SandboxSpec,
    /// Times of the session, and whether the call waits for a place.
    pub options: SessionOptions,
}

impl EnvironmentRequest {
    /// An environment for the agent of this preset.
    pub fn new(agent: impl Into<String>) -> Self {
        Self {
            agent: agent.into(),
            repository: None,
            branch: None,
            model: ModelAccess::None,
            spec: SandboxSpec::new(),
            options: SessionOptions::new(),
        }
    }

    /// Puts a repository into it.
    #[must_use]
    pub fn repository(mut self, repository: Repository) -> Self {
        self.repository = Some(repository);
        self
    }

    /// Names the branch that the agent works on.
    #[must_use]
    pub fn branch(mut self, branch: impl Into<String>) -> Self {
        self.branch = Some(branch.into());
        self
    }

    /// Sets how the agent reaches its model.
    #[must_use]
    pub fn model(mut self, model: ModelAccess) -> Self {
        self.model = model;
        self
    }

    /// Sets everything else of the sandbox.
    #[must_use]
    pub fn spec(mut self, spec: SandboxSpec) -> Self {
        self.spec = spec;
        self
    }

    /// Sets the options of the session.
    #[must_use]
    pub fn options(mut self, options: SessionOptions) -> Self {
        self.options = options;
        self
    }
}

/// Environments of coding agents, each a session.
///
/// A clone is the same environments.
#[derive(Clone, Debug)]
pub struct Environments {
    sessions: Sessions,
    presets: Arc<Presets>,
    installed: Arc<Installed>,
}

impl Environments {
    /// Environments over these sessions, with these presets.
    pub fn new(sessions: Sessions, presets: Presets) -> Self {
        Self {
            sessions,
            presets: Arc::new(presets),
            installed: Arc::default(),
        }
    }

    /// The sessions below: to list and watch them, for limits and shutdown.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Makes an environment: installs the agent (once, where the backend has snapshots), creates the
    /// sandbox, puts the repository at `/workspace` on a branch, and checks that the tools are there.
    ///
    /// Dropping the future leaves the queue; what was made is closed by the session's times.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an agent, branch or revision that can't be right, before
    /// anything is created; [`ErrorKind::Setup`]; [`ErrorKind::MissingTool`]; [`ErrorKind::Git`];
    /// [`ErrorKind::Session`] and [`ErrorKind::Sandbox`] with their source. Nothing is left then.
    pub async fn create_environment(
        &self,
        tenant: &Tenant,
        request: EnvironmentRequest,
    ) -> Result<Environment> {
        let preset = self.presets.get(&request.agent)?;
        let id = SessionId::fresh();
        let branch = request.branch.unwrap_or_else(|| format!("agent/{id}"));
        repository::check_branch(&branch)?;
        let mut options = request.options;
        options
            .labels
            .insert(AGENT.to_owned(), request.agent.clone());
        options.labels.insert(BRANCH.to_owned(), branch.clone());
        let prepared = match &request.repository {
            Some(repository) => Some(repository::prepare(repository).await?),
            None => None,
        };
        if let Some(prepared) = &prepared {
            options
                .labels
                .insert(BASE.to_owned(), prepared.commit.clone());
        }
        let provider = self.sessions.provider().clone();
        let mut spec = request.spec.workdir(WORKSPACE);
        if let (Source::Default, Some(image)) = (&spec.source, &preset.image)
            && provider.capabilities().has(Capability::Image)
        {
            spec = spec.source(Source::Image(image.clone()));
        }
        let installed = self.installed.snapshot(&*provider, preset, &spec).await?;
        let installs_here = installed.is_none() && !preset.setup.is_empty();
        if let Some(snapshot) = installed {
            spec = spec.source(Source::Snapshot(snapshot));
        }
        let (spec, model) = with_model(spec, preset, &request.model)?;
        let spec = match installs_here {
            true => with_setup_hosts(spec, preset),
            false => spec,
        };
        let session = self
            .sessions
            .get_or_create_with(tenant, id.as_str(), spec, options)
            .await?;
        let made = async {
            let sandbox = &**session.sandbox();
            if installs_here {
                setup::install(sandbox, preset).await?;
                if !preset.setup_hosts.is_empty() {
                    sandbox.restrict_egress(model.unwrap_or_default()).await?;
                }
            }
            for tool in &preset.tools {
                check_tool(sandbox, preset, tool).await?;
            }
            setup::configure(sandbox, preset).await?;
            match &prepared {
                Some(prepared) => repository::bring(sandbox, prepared, &branch).await,
                None => Ok(()),
            }
        };
        if let Err(error) = made.await {
            // What went wrong first is what is told; the sweep destroys what is not destroyed now.
            let _ = session.close().await;
            return Err(error);
        }
        Ok(Environment { session })
    }

    /// The environment of this identifier. This is use of its session.
    ///
    /// Dropping the future has no effect.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], also for another tenant's; [`ErrorKind::Session`].
    pub async fn get_environment(&self, tenant: &Tenant, id: &str) -> Result<Environment> {
        let id: SessionId = id.parse()?;
        let session = self.sessions.get(tenant, id.as_str()).await?;
        if session.info().labels.contains_key(AGENT) {
            return Ok(Environment { session });
        }
        Err(Error::new(
            ErrorKind::NotFound,
            format!("the session {id} is not an environment of a coding agent"),
        ))
    }

    /// Returns what is known of a tenant's environments, oldest first. This does not count as use.
    pub fn list(&self, tenant: &Tenant) -> Vec<SessionInfo> {
        let all = self.sessions.list(&Filter::new().tenant(tenant.clone()));
        let is_one = |info: &SessionInfo| info.labels.contains_key(AGENT);
        all.into_iter().filter(is_one).collect()
    }

    /// Ends an environment: kills what runs and destroys its sandbox. `Ok` if there is none.
    ///
    /// Dropping the future does not stop it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for what is no identifier; [`ErrorKind::Session`].
    pub async fn destroy_environment(&self, tenant: &Tenant, id: &str) -> Result<()> {
        let id: SessionId = id.parse()?;
        let key = Key::new(id.as_str())?;
        let info = self.sessions.info(tenant, &key);
        if info.is_some_and(|info| info.labels.contains_key(AGENT)) {
            self.sessions.close(tenant, key).await?;
        }
        Ok(())
    }

    /// Starts the environment's agent on a prompt.
    ///
    /// Dropping the future, or the run, kills the agent and all that it started.
    ///
    /// # Errors
    /// Those of [`get_environment`](Environments::get_environment); [`ErrorKind::Sandbox`] if the
    /// agent was not started.
    pub async fn spawn_agent(&self, tenant: &Tenant, id: &str, prompt: &str) -> Result<AgentRun> {
        let environment = self.get_environment(tenant, id).await?;
        let preset = self
            .presets
            .get(environment.agent().as_deref().unwrap_or_default())?;
        let command = preset.command(prompt).cwd(WORKSPACE);
        let process = environment.session.sandbox().spawn(command).await?;
        Ok(AgentRun::new(
            environment.session,
            preset.stream.clone(),
            process,
        ))
    }
}

/// The specification with the way to the model, and the policy that is left of it after setup.
fn with_model(
    spec: SandboxSpec,
    preset: &Preset,
    access: &ModelAccess,
) -> Result<(SandboxSpec, Option<EgressPolicy>)> {
    let (key, url) = match access {
        ModelAccess::None => return Ok((spec, None)),
        ModelAccess::Key(key) => (Some(key), None),
        ModelAccess::Url(url) => (None, Some(url)),
    };
    let Some(model) = &preset.model else {
        return Err(
            Error::invalid(format!("{} has no model in its preset", preset.title))
                .with_hint("add a table `model` to the preset, or give no access"),
        );
    };
    let spec = spec.env(model.key.as_str(), PLACEHOLDER);
    let Some(key) = key else {
        let url = url.cloned().unwrap_or_default();
        return Ok((spec.env(model.url.as_str(), url), None));
    };
    if spec.network != Network::Off {
        return Err(Error::invalid("the specification has a network of its own")
            .with_hint("with a key, the model's host is the network; leave it off"));
    }
    let policy = model.policy(key);
    let spec = spec.env(model.url.as_str(), model.address());
    Ok((spec.network(Network::Allow(policy.clone())), Some(policy)))
}

/// The specification of a sandbox in which the agent is installed before it is used.
fn with_setup_hosts(spec: SandboxSpec, preset: &Preset) -> SandboxSpec {
    if preset.setup_hosts.is_empty() {
        return spec;
    }
    let mut policy = setup::hosts(preset);
    if let Network::Allow(model) = &spec.network {
        policy.rules.extend(model.rules.iter().cloned());
    }
    spec.network(Network::Allow(policy))
}

async fn check_tool(sandbox: &dyn Sandbox, preset: &Preset, tool: &str) -> Result<()> {
    let command = Command::new(tool)
        .arg("--version")
        .timeout(Duration::from_secs(60));
    match sandbox.exec(command).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == CoreKind::CommandNotFound => Err(Error::new(
            ErrorKind::MissingTool,
            format!("{} needs {tool}, which is not in the sandbox", preset.title),
        )
        .with_hint(
            "start from an image or a root that has it, or install it on the host for `local:`",
        )),
        Err(error) => Err(error.into()),
    }
}

/// An environment: a session with a repository, for one agent.
///
/// Dropping the handle changes nothing.
#[derive(Clone, Debug)]
pub struct Environment {
    session: Session,
}

impl Environment {
    /// Returns the identifier: a ULID in lower case.
    pub fn id(&self) -> &str {
        self.session.key().as_str()
    }

    /// The session: its sandbox, status and times.
    pub fn session(&self) -> &Session {
        &self.session
    }

    fn label(&self, name: &str) -> Option<String> {
        self.session.info().labels.get(name).cloned()
    }

    /// Returns the name of its preset.
    pub fn agent(&self) -> Option<String> {
        self.label(AGENT)
    }

    /// Returns the branch that the agent works on.
    pub fn branch(&self) -> Option<String> {
        self.label(BRANCH)
    }

    fn base(&self) -> Result<String> {
        self.label(BASE).ok_or_else(|| {
            Error::invalid("the environment has no repository").with_hint("ask for one with it")
        })
    }

    /// Returns all that the agent changed, committed or not, as a patch for `git apply`. Empty if it
    /// changed nothing. Ignored files are not in it.
    ///
    /// Dropping the future has no effect on the files.
    ///
    /// # Errors
    /// [`ErrorKind::Git`], also for more than 256 MiB; [`ErrorKind::Sandbox`];
    /// [`ErrorKind::InvalidInput`] without a repository.
    pub async fn patch(&self) -> Result<bytes::Bytes> {
        repository::patch(&**self.session.sandbox(), &self.base()?).await
    }

    /// Commits in the sandbox what is not committed; whether there was anything.
    ///
    /// # Errors
    /// Those of [`patch`](Environment::patch).
    pub async fn commit(&self, message: &str) -> Result<bool> {
        self.base()?;
        repository::commit(&**self.session.sandbox(), message).await
    }

    /// Brings the branch to a repository of the host under the same name; `None` if it has no new
    /// commit. A branch of that name that has gone on elsewhere is left as it is, with an error. No
    /// worktree of the host is touched, and none of the repository's hooks is run.
    ///
    /// Dropping the future leaves the branch as it was, or as it should be.
    ///
    /// # Errors
    /// Those of [`patch`](Environment::patch), and what git on the host says.
    pub async fn save_branch(
        &self,
        repository: impl AsRef<std::path::Path>,
    ) -> Result<Option<SavedBranch>> {
        let (base, branch) = (self.base()?, self.branch().unwrap_or_default());
        repository::check_branch(&branch)?;
        let sandbox = &**self.session.sandbox();
        repository::save(sandbox, repository.as_ref(), &base, &branch).await
    }
}
