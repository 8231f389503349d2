//! One container app for each tenant: made, watched, stopped, started and deleted.
//!
//! What runs in it is not trusted: it must get no identity by default, and be called by its owner
//! alone from the first moment on.
//!
//! Source: <https://learn.microsoft.com/rest/api/containerapps/container-apps>

mod auth;
mod health;
mod revision;
mod spec;

use reqwest::Method;
use sandbox_core::{ErrorKind, Result, Secret};
use serde::{Deserialize, Serialize};

pub use health::Health;
pub use revision::{
    ContainerState, Replica, ReplicaContainer, ReplicaProperties, Revision, RevisionHealth,
    RevisionProperties, RevisionState,
};
pub use spec::{AppSpec, ClientCertificates, Ingress, OwnerAuth, SecretSource};
pub(super) use spec::{IdentitySetting, Registry, SecretWire};

use super::arm::{Call, parse};
use super::id::{ResourceId, strict_name};
use super::managed::managed;
use super::operation::{Progress, ProvisioningState};
use super::plane::ControlPlane;
use super::resource::{Kind, Resource, Target, marked, nullable};
use super::role::Role;
use super::step::Step;
use super::word::words;

pub(super) const KIND: Kind = Kind {
    path: "containerApps",
    version: "2026-07-01",
    role: Role::APP_CONTRIBUTOR,
    noun: "container app",
    az: "az containerapp",
    checked: strict_name,
};

words! {
    /// Running status of an app.
    pub enum RunningStatus {
        /// Being started or changed.
        Progressing = "Progressing",
        /// Running.
        Running = "Running",
        /// Stopped.
        Stopped = "Stopped",
        /// The service has suspended it.
        Suspended = "Suspended",
        /// Ready to run.
        Ready = "Ready",
    }
}

/// Properties that the service shows of an app.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct AppProperties {
    /// Progress of the service with it. That it succeeded does not mean that it runs: see
    /// [`App::health`].
    pub provisioning_state: Option<ProvisioningState>,
    /// Running status.
    pub running_status: Option<RunningStatus>,
    /// The newest revision.
    pub latest_revision_name: Option<String>,
    /// The newest that was ready.
    pub latest_ready_revision_name: Option<String>,
    /// The addresses that its requests come from.
    #[serde(default, deserialize_with = "nullable")]
    pub outbound_ip_addresses: Vec<String>,
    pub(super) event_stream_endpoint: Option<String>,
    configuration: Option<Configuration>,
}

#[derive(Clone, Debug, Deserialize)]
struct Configuration {
    ingress: Option<Shown>,
}

#[derive(Clone, Debug, Deserialize)]
struct Shown {
    fqdn: Option<String>,
}

impl AppProperties {
    /// The host name, which the service has made: it must never be put together by hand.
    pub fn fqdn(&self) -> Option<&str> {
        let ingress = self.configuration.as_ref()?.ingress.as_ref()?;
        ingress.fqdn.as_deref()
    }
}

/// A share of an app's requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Share {
    /// The revision.
    pub revision_name: String,
    /// The share in percent.
    pub weight: u32,
    /// A label, under which it has a name of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

impl Share {
    /// Gives so many percent to this revision.
    pub fn new(revision: impl Into<String>, weight: u32) -> Self {
        Self {
            revision_name: revision.into(),
            weight,
            label: None,
        }
    }

    sandbox_core::setters! {
        /// Gives it this label too.
        label: Some(into String),
    }
}

#[derive(Serialize)]
struct Patch<'a> {
    properties: PatchProperties<'a>,
}

#[derive(Serialize)]
struct PatchProperties<'a> {
    configuration: PatchConfiguration<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PatchConfiguration<'a> {
    active_revisions_mode: &'static str,
    ingress: PatchIngress<'a>,
}

#[derive(Serialize)]
struct PatchIngress<'a> {
    traffic: &'a [Share],
}

/// A container app, which may not be there yet.
#[derive(Clone, Debug)]
pub struct App {
    pub(super) plane: ControlPlane,
    pub(super) target: Target,
}

managed! {
    /// The app of this name, which may not be there yet.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if it can't be a name: apps have 2 to 32 small
    /// letters, digits and hyphens, begin with a letter, and have no two hyphens in a row.
    app -> App, of KIND;

    /// The apps of the resource group, of every owner.
    ///
    /// # Errors
    /// What the service answers.
    apps;

    /// Makes it what `spec` says, or leaves it if it was asked for so already, and waits until it
    /// is [healthy](Self::ready).
    ///
    /// An app that only its owner may call has no ingress until the service has been told who that
    /// is.
    ///
    /// # Errors
    /// What the service answers; [`InvalidInput`](ErrorKind::InvalidInput) if the image is not named by
    /// its digest, or no caller is let in; [`AlreadyExists`](ErrorKind::AlreadyExists) if it is another
    /// owner's; those of [`ready`](Self::ready). Dropping the future leaves the service at work;
    /// asking again takes it up.
    ensure(AppSpec) -> AppProperties;

    /// Deletes it and waits until it is gone; nothing to do if it is not there.
    ///
    /// # Errors
    /// What the service answers; [`AlreadyExists`](ErrorKind::AlreadyExists) if it is another owner's.
    delete;
}

impl App {
    fn step(&self, verb: &str, command: &str) -> Step {
        self.target.step(verb, command, "")
    }

    async fn put(&self, spec: &AppSpec, anyway: bool) -> Result<Resource<AppProperties>> {
        let options = format!(
            " --environment {} --image {} --min-replicas 1 --max-replicas 1",
            spec.environment.name(),
            spec.container.image
        );
        let step = self.target.step("create", "create", &options);
        spec.check(&step)?;
        let open = spec.desired(&self.plane, true, true)?;
        {
            let _lock = self.plane.lock(&self.target.id).await;
            let found = self.plane.found(&step, self.target.get()).await?;
            let progress: Option<Progress> = match &found {
                Some(found) => Some(parse(&step, found.body())?),
                None => None,
            };
            let same = progress
                .as_ref()
                .is_some_and(|progress| marked(progress, &open.mark));
            let rotated = same && self.rotated(spec).await?;
            let anyway = anyway || rotated;
            if let Some(progress) = &progress {
                self.plane.own(&step, progress)?;
            }
            if !same || anyway {
                match (&spec.auth, &progress) {
                    (Some(auth), None) => {
                        // Until it is known who may call it, it is not reached.
                        let closed = spec.desired(&self.plane, true, false)?;
                        self.plane.put(&step, &self.target, &closed, false).await?;
                        auth::set(&self.plane, &self.target, auth).await?;
                    }
                    (Some(auth), Some(_)) => auth::set(&self.plane, &self.target, auth).await?,
                    (None, Some(_)) => auth::unset(&self.plane, &self.target).await?,
                    (None, None) => {}
                }
            }
            self.plane.put(&step, &self.target, &open, anyway).await?;
        }
        self.ready().await?;
        self.shown(&step).await
    }

    async fn shown(&self, step: &Step) -> Result<Resource<AppProperties>> {
        let found = self.show().await?;
        found.ok_or_else(|| step.error(ErrorKind::NotFound, "there is no such app"))
    }

    /// Whether the value of a secret is another one: the digest of a request has none of them.
    async fn rotated(&self, spec: &AppSpec) -> Result<bool> {
        let values = spec
            .secrets
            .iter()
            .filter_map(|(name, source)| match source {
                SecretSource::Value(value) => Some((name, value)),
                SecretSource::KeyVault(..) => None,
            });
        let values: Vec<_> = values.collect();
        if values.is_empty() {
            return Ok(false);
        }
        let known = self.secrets().await?;
        Ok(values.into_iter().any(|(name, value)| {
            let same = |(key, known): &(String, Secret)| key == name && known == value;
            !known.iter().any(same)
        }))
    }

    /// The values of its secrets by name.
    ///
    /// # Errors
    /// What the service answers.
    pub async fn secrets(&self) -> Result<Vec<(String, Secret)>> {
        #[derive(Deserialize)]
        struct All {
            value: Vec<One>,
        }
        #[derive(Deserialize)]
        struct One {
            name: String,
            value: Option<String>,
        }
        let step = self.step("read the secrets of", "secret list --show-values");
        let path = self.target.id.child(&["listSecrets"]);
        let call = Call::new(Method::POST, &path, KIND.version).repeat();
        let all: All = self.plane.sent(&step, call).await?.json(&step)?;
        let with_value = |one: One| Some((one.name, Secret::from(one.value?)));
        Ok(all.value.into_iter().filter_map(with_value).collect())
    }

    /// Starts it after a [`stop`](Self::stop), and waits until the service has done so: not until
    /// it is [healthy](Self::ready).
    ///
    /// # Errors
    /// What the service answers.
    pub async fn start(&self) -> Result<()> {
        self.turn("start", RunningStatus::Running).await
    }

    /// Stops it: nothing runs and nothing is billed. Whether what its container wrote to its own
    /// disk is kept is not documented; a new replica has a new disk.
    ///
    /// # Errors
    /// What the service answers.
    pub async fn stop(&self) -> Result<()> {
        self.turn("stop", RunningStatus::Stopped).await
    }

    /// Starts or stops. To do so twice is the same as once, so that a lost answer is asked again.
    async fn turn(&self, verb: &str, to: RunningStatus) -> Result<()> {
        let step = self.step(verb, verb);
        let _lock = self.plane.lock(&self.target.id).await;
        let found = self.shown(&step).await?;
        let is = found.properties.running_status.as_ref();
        if is == Some(&to) {
            return Ok(());
        }
        match self
            .plane
            .act(&step, &self.target.id, verb, KIND.version)
            .await
        {
            Ok(()) => Ok(()),
            Err(error) => {
                // The answer may have been lost, and the request not.
                let now = self.shown(&step).await?.properties.running_status;
                match now == Some(to) {
                    true => Ok(()),
                    false => Err(error),
                }
            }
        }
    }

    /// Restarts the latest revision. It is not repeated when its answer is lost.
    ///
    /// # Errors
    /// What the service answers; [`NotFound`](ErrorKind::NotFound) if it has no revision.
    pub async fn restart(&self) -> Result<()> {
        let mut step = self.step("restart", "revision restart");
        let _lock = self.plane.lock(&self.target.id).await;
        let name = self.latest(&step).await?;
        let name = name.ok_or_else(|| step.error(ErrorKind::NotFound, "it has no revision"))?;
        step.az = format!("{} --revision {name}", step.az);
        let revision = self.target.id.child(&["revisions", &name]);
        self.plane
            .act(&step, &revision, "restart", KIND.version)
            .await
    }

    /// The revisions.
    ///
    /// # Errors
    /// What the service answers.
    pub async fn revisions(&self) -> Result<Vec<Revision>> {
        let step = self.step("list the revisions of", "revision list");
        let path = self.target.id.child(&["revisions"]);
        self.plane
            .pages(&step, Call::get(&path, KIND.version))
            .await
    }

    /// One revision; `None` if it is not there.
    ///
    /// # Errors
    /// What the service answers.
    pub async fn revision(&self, name: &str) -> Result<Option<Revision>> {
        let step = self.step("show a revision of", "revision show");
        let name = super::id::name("revision", name)?;
        let path = self.target.id.child(&["revisions", name]);
        match self
            .plane
            .found(&step, Call::get(&path, KIND.version))
            .await?
        {
            Some(answer) => answer.json(&step).map(Some),
            None => Ok(None),
        }
    }

    /// The replicas of a revision.
    ///
    /// # Errors
    /// What the service answers.
    pub async fn replicas(&self, revision: &str) -> Result<Vec<Replica>> {
        let step = self.step("list the replicas of", "replica list");
        let name = super::id::name("revision", revision)?;
        let path = self.target.id.child(&["revisions", name, "replicas"]);
        self.plane
            .pages(&step, Call::get(&path, KIND.version))
            .await
    }

    /// Shares its requests among revisions, and gives them labels: each label has a name of its
    /// own, `APP---LABEL`. The app keeps several revisions from then on, each billed.
    ///
    /// # Errors
    /// What the service answers; [`InvalidInput`](ErrorKind::InvalidInput) if the shares are not 100
    /// percent together.
    pub async fn share(&self, shares: &[Share]) -> Result<()> {
        let step = self.step("share the requests of", "ingress traffic set");
        if shares.iter().map(|share| share.weight).sum::<u32>() != 100 {
            let why = "the shares are not 100 percent together";
            return Err(step.error(ErrorKind::InvalidInput, why));
        }
        let body = Patch {
            properties: PatchProperties {
                configuration: PatchConfiguration {
                    active_revisions_mode: "Multiple",
                    ingress: PatchIngress { traffic: shares },
                },
            },
        };
        let _lock = self.plane.lock(&self.target.id).await;
        // Twice is the same as once.
        let call = || {
            let call = Call::new(Method::PATCH, &self.target.id, KIND.version);
            call.body(&body).repeat()
        };
        match self.plane.write(&step, call).await? {
            Ok(answer) => {
                let id = &self.target.id;
                self.plane.follow(&step, id, KIND.version, &answer).await?;
                self.plane.by_state(&step, id, KIND.version).await.map(drop)
            }
            Err(failure) => Err(step.failed(failure)),
        }
    }

    /// The name of the latest revision.
    pub(super) async fn latest(&self, step: &Step) -> Result<Option<String>> {
        let found = self.shown(step).await?;
        Ok(found.properties.latest_revision_name)
    }
}
