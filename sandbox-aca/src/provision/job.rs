//! Jobs: a command in an image, run to its end, with its exit code.
//!
//! An execution is never started twice for one call: it bears a mark in its environment, by which
//! it is found when the answer was lost.
//!
//! Source: <https://learn.microsoft.com/rest/api/containerapps/jobs>

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use sandbox_core::{ErrorKind, Result, Secret};
use serde::{Deserialize, Serialize};

use super::app::{IdentitySetting, Registry, ReplicaContainer, SecretWire};
use super::arm::Call;
use super::container::{Container, Variable, Wire as ContainerWire};
use super::id::{ResourceId, strict_name};
use super::logs::{LogOptions, LogStream, open};
use super::managed::managed;
use super::operation::ProvisioningState;
use super::plane::ControlPlane;
use super::resource::{Identity, Kind, Resource, Target, nullable};
use super::role::Role;
use super::step::Step;
use super::word::words;

pub(super) const KIND: Kind = Kind {
    path: "jobs",
    version: "2026-07-01",
    role: Role::JOB_CONTRIBUTOR,
    noun: "job",
    az: "az containerapp job",
    checked: strict_name,
};

/// The version that shows the replicas of an execution.
const REPLICAS: &str = "2023-11-02-preview";

/// The variable that tells an execution from all others.
pub const RUN_VARIABLE: &str = "SANDBOX_RUN_ID";

/// Specification of a job: what its executions have in common.
///
/// ```
/// use std::time::Duration;
/// use sandbox_aca::provision::{Container, JobSpec, ResourceId};
/// let environment = ResourceId::new(
///     "/subscriptions/S/resourceGroups/G/providers/Microsoft.App/managedEnvironments/E",
/// )?;
/// let spec = JobSpec::new(environment, Container::new("acme.azurecr.io/tool:1"))
///     .timeout(Duration::from_secs(300));
/// assert_eq!(spec.retries, 0);
/// # Ok::<(), sandbox_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobSpec {
    /// The environment that it is in.
    pub environment: ResourceId,
    /// The container, where a run does not have another.
    pub container: Container,
    /// Time that an execution may take before the service ends it. Default: 30 minutes.
    pub timeout: Duration,
    /// Number of times that a failed container is started again. Default: never, since a command
    /// must not run twice for one call.
    pub retries: u32,
    /// Secrets by name, which [`Container::secret_env`] refers to.
    pub secrets: Vec<(String, Secret)>,
    /// The registry's server and the identity that pulls from it, which the code never sees.
    pub registry: Option<(String, ResourceId)>,
}

impl JobSpec {
    /// A job of this container in this environment.
    pub fn new(environment: ResourceId, container: Container) -> Self {
        Self {
            environment,
            container,
            timeout: Duration::from_secs(1800),
            retries: 0,
            secrets: Vec::new(),
            registry: None,
        }
    }

    sandbox_core::setters! {
        /// Ends an execution after so long.
        timeout: Duration,
    }

    /// Keeps a secret under this name.
    #[must_use]
    pub fn secret(mut self, name: impl Into<String>, value: impl Into<Secret>) -> Self {
        self.secrets.push((name.into(), value.into()));
        self
    }

    /// Pulls from this registry as this identity, which the code never sees.
    #[must_use]
    pub fn registry(mut self, server: impl Into<String>, identity: ResourceId) -> Self {
        self.registry = Some((server.into(), identity));
        self
    }

    pub(super) fn identity(&self) -> Option<Identity> {
        Identity::assigned(self.registry.iter().map(|(_, identity)| identity))
    }

    pub(super) fn wire(&self, values: bool) -> Wire {
        let secrets = self.secrets.iter().map(|(name, value)| SecretWire {
            name: name.clone(),
            value: values.then(|| String::from_utf8_lossy(value.expose()).into_owned()),
            key_vault_url: None,
            identity: None,
        });
        let registries = self.registry.iter().map(|(server, identity)| Registry {
            server: server.clone(),
            identity: identity.clone(),
        });
        let settings = self.registry.iter().map(|(_, identity)| IdentitySetting {
            identity: identity.clone(),
            lifecycle: "None",
        });
        Wire {
            environment_id: self.environment.clone(),
            configuration: Configuration {
                trigger_type: "Manual",
                replica_timeout: self.timeout.as_secs(),
                replica_retry_limit: self.retries,
                manual_trigger_config: Manual {
                    parallelism: 1,
                    replica_completion_count: 1,
                },
                secrets: secrets.collect(),
                registries: registries.collect(),
                identity_settings: settings.collect(),
            },
            template: Template {
                containers: vec![self.container.wire()],
            },
        }
    }
}

/// A job as it is sent.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Wire {
    environment_id: ResourceId,
    configuration: Configuration,
    template: Template,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Configuration {
    trigger_type: &'static str,
    replica_timeout: u64,
    replica_retry_limit: u32,
    manual_trigger_config: Manual,
    secrets: Vec<SecretWire>,
    registries: Vec<Registry>,
    identity_settings: Vec<IdentitySetting>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manual {
    parallelism: u32,
    replica_completion_count: u32,
}

#[derive(Serialize)]
struct Template {
    containers: Vec<ContainerWire>,
}

/// Properties that the service shows of a job.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct JobProperties {
    /// Progress of the service with it.
    pub provisioning_state: Option<ProvisioningState>,
}

words! {
    /// Status of an execution.
    pub enum ExecutionStatus {
        /// Running.
        Running = "Running",
        /// About to run.
        Processing = "Processing",
        /// Stopped.
        Stopped = "Stopped",
        /// A part of it runs.
        Degraded = "Degraded",
        /// Failed.
        Failed = "Failed",
        /// The service does not know.
        Unknown = "Unknown",
        /// Succeeded.
        Succeeded = "Succeeded",
    }
}

impl ExecutionStatus {
    /// Whether it is over.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Stopped | Self::Failed | Self::Succeeded)
    }
}

/// Properties that the service shows of an execution.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ExecutionProperties {
    /// Status of the execution.
    pub status: Option<ExecutionStatus>,
    /// Time of its beginning, as RFC 3339.
    pub start_time: Option<String>,
    /// Time of its end, as RFC 3339.
    pub end_time: Option<String>,
    /// Why it is as it is, in a word.
    pub reason: Option<String>,
    /// Reason for the status, in a sentence.
    pub message: Option<String>,
    detailed_status: Option<Detailed>,
    template: Option<Shown>,
}

#[derive(Clone, Debug, Deserialize)]
struct Detailed {
    #[serde(default, deserialize_with = "nullable")]
    replicas: Vec<DetailedReplica>,
}

#[derive(Clone, Debug, Deserialize)]
struct DetailedReplica {
    #[serde(default, deserialize_with = "nullable")]
    containers: Vec<DetailedContainer>,
}

#[derive(Clone, Debug, Deserialize)]
struct DetailedContainer {
    code: Option<i32>,
}

#[derive(Clone, Debug, Deserialize)]
struct Shown {
    #[serde(default, deserialize_with = "nullable")]
    containers: Vec<ShownContainer>,
}

#[derive(Clone, Deserialize)]
struct ShownContainer {
    #[serde(default, deserialize_with = "nullable")]
    env: Vec<Variable>,
}

impl std::fmt::Debug for ShownContainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShownContainer").finish_non_exhaustive()
    }
}

impl ExecutionProperties {
    /// The exit code of its container; `None` while it runs, and for executions of which the
    /// service keeps none.
    pub fn exit_code(&self) -> Option<i32> {
        let replicas = self
            .detailed_status
            .iter()
            .flat_map(|status| &status.replicas);
        // A container that was started again has its last replica at the end.
        let codes = replicas.flat_map(|replica| &replica.containers);
        codes.filter_map(|container| container.code).next_back()
    }

    fn bears(&self, mark: &str) -> bool {
        let containers = self.template.iter().flat_map(|shown| &shown.containers);
        let mut variables = containers.flat_map(|container| &container.env);
        variables.any(|one| one.name == RUN_VARIABLE && one.value.as_deref() == Some(mark))
    }
}

/// Outcome of an execution.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ended {
    /// `Succeeded`, `Failed` or `Stopped`.
    pub status: ExecutionStatus,
    /// The exit code of its container, where the service tells it.
    pub exit_code: Option<i32>,
    /// Why, where the service tells it.
    pub message: Option<String>,
}

#[derive(Serialize)]
struct Start {
    containers: Vec<ContainerWire>,
}

#[derive(Deserialize)]
struct Started {
    name: String,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    properties: ExecutionProperties,
}

/// A job, which may not be there yet.
#[derive(Clone, Debug)]
pub struct Job {
    plane: ControlPlane,
    target: Target,
}

managed! {
    /// The job of this name, which may not be there yet.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if it can't be a name: those of apps.
    job -> Job, of KIND;

    /// The jobs of the resource group, of every owner.
    ///
    /// # Errors
    /// What the service answers.
    jobs;

    /// Makes it what `spec` says, or leaves it if it was asked for so already. The value of a
    /// secret alone makes no difference: give a new one a new name, or [`update`](Self::update) it.
    ///
    /// # Errors
    /// What the service answers; [`AlreadyExists`](ErrorKind::AlreadyExists) if it is another owner's.
    /// Dropping the future leaves the service at work; asking again takes it up.
    ensure(JobSpec) -> JobProperties;

    /// Deletes it with its executions, and waits until it is gone; nothing to do if it is not
    /// there.
    ///
    /// # Errors
    /// What the service answers.
    delete;
}

impl Job {
    async fn put(&self, spec: &JobSpec, anyway: bool) -> Result<Resource<JobProperties>> {
        let options = format!(
            " --environment {} --trigger-type Manual --image {} --replica-timeout {} --replica-retry-limit {} --parallelism 1 --replica-completion-count 1",
            spec.environment.name(),
            spec.container.image,
            spec.timeout.as_secs(),
            spec.retries
        );
        let step = self.target.step("create", "create", &options);
        let identity = spec.identity();
        let desired = self
            .plane
            .desired(&spec.wire(true), &spec.wire(false), identity.as_ref())?;
        let _lock = self.plane.lock(&self.target.id).await;
        let put = self.plane.put(&step, &self.target, &desired, anyway);
        put.await?.json(&step)
    }

    /// Runs this container once, in place of the job's own: image, command, arguments, environment
    /// and size are all taken from it. The environment gets [`RUN_VARIABLE`] in addition.
    ///
    /// # Errors
    /// What the service answers. If no answer came and no execution with its mark was found, the error
    /// says that it is not known whether it runs; it is not started again. Dropping the future may
    /// leave an execution: [`executions`](Self::executions) has it.
    pub async fn start(&self, container: &Container) -> Result<Execution> {
        let mut step = self.step("start", "start");
        step.role = Role::JOB_OPERATOR;
        let mark = uuid::Uuid::new_v4().to_string();
        let mut wire = container.wire();
        wire.env.push(Variable {
            name: RUN_VARIABLE.into(),
            value: Some(mark.clone()),
            secret_ref: None,
        });
        let body = Start {
            containers: vec![wire],
        };
        let path = self.target.id.child(&["start"]);
        let _lock = self.plane.lock(&self.target.id).await;
        let call = || Call::new(Method::POST, &path, KIND.version).body(&body);
        let lost = match self.plane.write(&step, call).await? {
            Ok(answer) if answer.status() == StatusCode::ACCEPTED => {
                let id = &self.target.id;
                self.plane.follow(&step, id, KIND.version, &answer).await?;
                None
            }
            Ok(answer) => match answer.json::<Started>(&step) {
                Ok(started) => return Ok(self.execution(started.name)),
                Err(error) => Some(error),
            },
            Err(failure) if failure.unknown => Some(step.failed(failure)),
            Err(failure) => return Err(step.failed(failure)),
        };
        match self.bearing(&step, &mark).await {
            Some(name) => Ok(self.execution(name)),
            None => Err(lost.unwrap_or_else(|| {
                let why = "the service has taken it, and shows no execution";
                step.error(ErrorKind::Unavailable, why)
            })),
        }
    }

    /// The execution that bears this mark; looked for as long as one may still appear.
    async fn bearing(&self, step: &Step, mark: &str) -> Option<String> {
        let started = Instant::now();
        loop {
            if let Ok(all) = self.listed(step).await
                && let Some(found) = all.into_iter().find(|one| one.properties.bears(mark))
            {
                return Some(found.name);
            }
            let left = self.plane.config().settle.saturating_sub(started.elapsed());
            if left.is_zero() {
                return None;
            }
            tokio::time::sleep(self.plane.config().poll.min(left)).await;
        }
    }

    async fn listed(&self, step: &Step) -> Result<Vec<Listed>> {
        let path = self.target.id.child(&["executions"]);
        self.plane.pages(step, Call::get(&path, KIND.version)).await
    }

    /// The executions that the service still knows, with what it shows of them.
    ///
    /// # Errors
    /// What the service answers.
    pub async fn executions(&self) -> Result<Vec<(Execution, ExecutionProperties)>> {
        let step = self.step("list the executions of", "execution list");
        let all = self.listed(&step).await?;
        let with = |one: Listed| (self.execution(one.name), one.properties);
        Ok(all.into_iter().map(with).collect())
    }

    fn execution(&self, name: String) -> Execution {
        Execution {
            job: self.clone(),
            name,
        }
    }

    fn step(&self, verb: &str, command: &str) -> Step {
        self.target.step(verb, command, "")
    }
}

/// One execution of a job.
#[derive(Clone, Debug)]
pub struct Execution {
    job: Job,
    name: String,
}

#[derive(Deserialize)]
struct Replicas {
    value: Vec<ReplicaShown>,
}

#[derive(Deserialize)]
struct ReplicaShown {
    name: String,
    properties: ReplicaContainers,
}

#[derive(Deserialize)]
struct ReplicaContainers {
    #[serde(default, deserialize_with = "nullable")]
    containers: Vec<ReplicaContainer>,
}

impl Execution {
    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> ResourceId {
        self.job.target.id.child(&["executions", &self.name])
    }

    fn step(&self, verb: &str, command: &str) -> Step {
        let options = format!(" --job-execution-name {}", self.name);
        let mut step = self.job.target.step(verb, command, &options);
        step.role = Role::JOB_OPERATOR;
        step
    }

    /// Returns what the service shows of it.
    ///
    /// # Errors
    /// What the service answers; [`NotFound`](ErrorKind::NotFound) if it has forgotten it.
    pub async fn show(&self) -> Result<ExecutionProperties> {
        let step = self.step("show an execution of", "execution show");
        let id = self.id();
        let answer = self.job.plane.sent(&step, Call::get(&id, KIND.version));
        Ok(answer.await?.json::<Listed>(&step)?.properties)
    }

    /// Waits until it is over.
    ///
    /// # Errors
    /// What the service answers; [`Unavailable`](ErrorKind::Unavailable) after `within`, with what the
    /// service last said: it runs on. Dropping the future leaves it running.
    pub async fn wait(&self, within: Duration) -> Result<Ended> {
        let step = self.step("wait for", "execution show");
        let started = Instant::now();
        loop {
            let shown = self.show().await?;
            let last = match &shown.status {
                Some(status) if status.is_final() => {
                    return Ok(Ended {
                        status: status.clone(),
                        exit_code: shown.exit_code(),
                        message: shown.message.or(shown.reason),
                    });
                }
                Some(status) => status.to_string(),
                None => "nothing".to_owned(),
            };
            let left = within.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Err(step.overdue(within, &last));
            }
            let poll = self.job.plane.config().poll;
            tokio::time::sleep(poll.min(left)).await;
        }
    }

    /// Stops it; nothing to do if it is over. To stop it twice is the same as once.
    ///
    /// # Errors
    /// What the service answers.
    pub async fn stop(&self) -> Result<()> {
        let step = self.step("stop an execution of", "stop");
        let id = self.id();
        let plane = &self.job.plane;
        let stopped = plane.act(&step, &id, "stop", KIND.version).await;
        let Err(error) = stopped else { return Ok(()) };
        // The answer may have been lost, and the request not.
        match self.show().await?.status {
            Some(status) if status.is_final() => Ok(()),
            _ => Err(error),
        }
    }

    /// The log of its container. There is none before it has a replica.
    ///
    /// # Errors
    /// What the service answers; [`NotFound`](ErrorKind::NotFound) if it has no replica.
    pub async fn logs(&self, options: LogOptions) -> Result<LogStream> {
        let step = self.step("read the log of", "logs show");
        let plane = &self.job.plane;
        let path = self.id().child(&["replicas"]);
        let call = Call::get(&path, REPLICAS);
        let replicas: Replicas = plane.sent(&step, call).await?.json(&step)?;
        let none = |what: &str| step.error(ErrorKind::NotFound, format!("there is no {what}"));
        let replica = replicas.value.first().ok_or_else(|| none("replica"))?;
        let container = replica.properties.containers.first();
        let container = container.ok_or_else(|| none("container"))?;
        let endpoint = container.log_stream_endpoint.as_deref();
        let endpoint = endpoint.ok_or_else(|| none("server for logs"))?;
        let config = plane.config();
        let path = [
            "subscriptions",
            &config.subscription,
            "resourceGroups",
            &config.resource_group,
            "jobs",
            self.job.target.id.name(),
            "executions",
            &self.name,
            "replicas",
            &replica.name,
            "containers",
            &container.name,
            "logstream",
        ];
        let of = (&self.job.target.id, REPLICAS);
        open(plane, &step, of, endpoint, &path, options).await
    }
}
