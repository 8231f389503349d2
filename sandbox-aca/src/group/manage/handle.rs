//! Operations of the service on one sandbox beyond the trait.
//!
//! A handle talks of a sandbox by its identifier: it neither keeps it nor ends it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Method;
use sandbox_core::{Error, ErrorKind, Labels, Operation, Result, SandboxId};
use serde_json::{Value, json};

use super::group::ended;
use super::{EgressDecisions, EgressPolicy, Lifecycle, NewPort, Port, VolumeMount, labels, text};
use crate::group::delete_on_drop::{DeleteOnDrop, Made};
use crate::group::protocol::{number, usage};
use crate::group::shared::Shared;
use crate::http::{Failure, Request, parse, runtime};

const OP: Operation = Operation::Connect;
/// Interval at which a state is asked for while it changes.
const POLL: Duration = Duration::from_millis(250);
/// Limit of the time for suspending and resuming.
const TURN: Duration = Duration::from_secs(300);

/// State of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AcaState {
    /// Being made.
    Creating,
    /// Running.
    Running,
    /// Being suspended.
    Stopping,
    /// Suspended; can be resumed.
    Stopped,
    /// The service suspended it.
    Suspended,
    /// The service suspended it because it was idle.
    Idle,
    /// Being resumed.
    Resuming,
    /// Being deleted.
    Deleting,
    /// The service failed to suspend it. What can be done with it then is not documented.
    StopFailed,
    /// A failure after which it can't be used.
    Failed,
    /// Something that this version does not know.
    Other(String),
}

/// A sandbox as the service shows it. Its environment is never shown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AcaSandboxState {
    /// State.
    pub state: AcaState,
    /// Why it does not run, as the service says: `Idle`, `UserStopped`, `Disabled` (which can't be
    /// resumed); empty if it does.
    pub stopped_reason: String,
    /// Labels.
    pub labels: Labels,
    /// Processors, such as `1000m`.
    pub cpu: String,
    /// Memory, such as `2048Mi`.
    pub memory: String,
    /// Open ports.
    pub ports: Vec<Port>,
    /// Egress policy; `None` if the service shows no policy, or one that is not understood.
    pub egress: Option<EgressPolicy>,
    /// Addresses from which its connections come.
    pub outbound_addresses: Vec<String>,
    /// Time of its creation, as the service writes it.
    pub created_at: String,
}

/// Use of a resource, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Used.
    pub used: u64,
    /// Bytes that there are.
    pub total: u64,
}

/// Resources that a sandbox uses. The service documents none of the fields: what is missing is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AcaStats {
    /// Billionths of a processor, now; the newer version does not say.
    pub cpu_nanocores: u64,
    /// Memory.
    pub memory: Usage,
    /// Disk.
    pub disk: Usage,
    /// Bytes that came in.
    pub received: u64,
    /// Bytes that went out.
    pub sent: u64,
    /// The service's whole answer (JSON).
    pub raw: String,
}

/// Handle for the service's operations on one sandbox beyond the trait; from
/// [`AcaSandboxProvider::handle`](crate::AcaSandboxProvider::handle).
///
/// It needs no open [`Sandbox`](sandbox_core::Sandbox) and dropping it does nothing. Each method is
/// one request unless it says that it waits. Errors: [`ErrorKind::NotFound`] if there is no such
/// sandbox; [`ErrorKind::Busy`] if its state does not allow the operation; those of a service that
/// can't be reached, that refuses the token or the role. Dropping a future leaves open whether the
/// service did it, unless it says otherwise.
#[derive(Clone, Debug)]
pub struct AcaHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) id: SandboxId,
}

impl AcaHandle {
    pub(crate) fn new(shared: Arc<Shared>, id: SandboxId) -> Self {
        Self { shared, id }
    }

    /// The sandbox that the handle belongs to.
    pub fn id(&self) -> &SandboxId {
        &self.id
    }

    fn failed(&self, failure: Failure) -> Error {
        let error = match (failure.status, failure.title.as_str()) {
            (Some(404), "SandboxNotFound") => Error::new(ErrorKind::NotFound, OP)
                .with_message("the group has no such sandbox")
                .with_source(failure.error),
            (Some(409), title) if title.contains("NotRunning") => failure
                .error
                .with_hint("it must run; resume it with AcaHandle::resume"),
            _ => failure.error,
        };
        error.with_sandbox(self.id.clone())
    }

    async fn call(&self, method: Method, tail: &[&str], body: Option<Value>) -> Result<Value> {
        let mut path = vec!["sandboxes", self.id.as_str()];
        path.extend(tail);
        let mut request = Request::new(method, &path);
        request.timeout = self.shared.config.snapshot_timeout;
        if let Some(body) = &body {
            request = request.json(body);
        }
        let sent = self.shared.http.send(OP, request).await;
        let answer = sent.map_err(|failure| self.failed(failure))?;
        match answer.is_empty() {
            true => Ok(Value::Null),
            false => parse(OP, &answer).map_err(|failure| self.failed(failure)),
        }
    }

    async fn shown(&self) -> Result<Value> {
        self.call(Method::GET, &[], None).await
    }

    /// State of the sandbox as the service shows it.
    ///
    /// # Errors
    /// Those of the type.
    pub async fn state(&self) -> Result<AcaSandboxState> {
        let shown = self.shown().await?;
        let addresses = shown["outboundIpAddresses"].as_array();
        let addresses = addresses.into_iter().flatten();
        Ok(AcaSandboxState {
            state: AcaState::of(&shown),
            stopped_reason: text(&shown["stateDetails"], "stoppedReason"),
            labels: labels(&shown),
            cpu: text(&shown["resources"], "cpu"),
            memory: text(&shown["resources"], "memory"),
            ports: Port::all(&shown),
            egress: EgressPolicy::of(&shown["egressPolicy"]),
            outbound_addresses: addresses
                .filter_map(|address| Some(address.as_str()?.to_owned()))
                .collect(),
            created_at: text(&shown, "createdAt"),
        })
    }

    /// Suspends it with its memory, and waits until it is. One that is suspended stays so.
    ///
    /// # Errors
    /// Those of the type; [`ErrorKind::Unavailable`] after five minutes.
    pub async fn suspend(&self) -> Result<()> {
        // A bodyless one hung.
        let stopped = self.call(Method::POST, &["stop"], Some(json!({}))).await;
        if let Err(error) = stopped {
            // Refused by one that does not run, or the answer was lost: its state tells.
            let state = AcaState::of(&self.shown().await?);
            if !matches!(state, AcaState::Stopping) && !state.is_suspended() {
                return Err(error);
            }
        }
        self.until(AcaState::is_suspended).await
    }

    /// Resumes it, and waits until it runs. One that runs goes on.
    ///
    /// # Errors
    /// Those of the type; [`ErrorKind::Unavailable`] after five minutes.
    pub async fn resume(&self) -> Result<()> {
        let resumed = self.call(Method::POST, &["resume"], Some(json!({}))).await;
        if let Err(error) = resumed {
            let state = AcaState::of(&self.shown().await?);
            if !matches!(state, AcaState::Resuming | AcaState::Running) {
                return Err(error);
            }
        }
        self.until(|state| *state == AcaState::Running).await
    }

    async fn until(&self, there: impl Fn(&AcaState) -> bool) -> Result<()> {
        let started = Instant::now();
        loop {
            let state = AcaState::of(&self.shown().await?);
            if there(&state) {
                return Ok(());
            }
            let failed = matches!(state, AcaState::Failed | AcaState::StopFailed);
            if failed || started.elapsed() > TURN {
                let error = match failed {
                    true => Error::new(ErrorKind::Other, OP)
                        .with_message(format!("the service says that it is {state:?}"))
                        .with_hint("try again; delete it if that does not help"),
                    false => Error::unanswered(OP, format!("it is still {state:?}")),
                };
                return Err(error.with_sandbox(self.id.clone()));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Opens a port. Its URL may come later: see [`port_url`](Self::port_url).
    ///
    /// # Errors
    /// Those of the type; [`ErrorKind::InvalidInput`] for access rules that can't be.
    pub async fn add_port(&self, port: NewPort) -> Result<Port> {
        let shown = self
            .call(Method::POST, &["ports", "add"], Some(port.body()))
            .await?;
        let known = Port::all(&shown)
            .into_iter()
            .find(|known| known.port == port.port);
        Ok(known.unwrap_or(Port {
            port: port.port,
            url: shown["url"].as_str().map(str::to_owned),
        }))
    }

    /// Closes a port.
    ///
    /// # Errors
    /// Those of the type; [`ErrorKind::NotFound`] if it is not open.
    pub async fn remove_port(&self, port: u16) -> Result<()> {
        let body = json!({"port": port});
        self.call(Method::POST, &["ports", "remove"], Some(body))
            .await
            .map(drop)
    }

    /// URL of a port; waits so long for it.
    ///
    /// # Errors
    /// Those of the type; [`ErrorKind::NotFound`] if it is not open; [`ErrorKind::Unavailable`].
    pub async fn port_url(&self, port: u16, wait: Duration) -> Result<String> {
        let started = Instant::now();
        loop {
            let ports = Port::all(&self.shown().await?);
            let known = ports.into_iter().find(|known| known.port == port);
            let error = match known {
                Some(Port { url: Some(url), .. }) => return Ok(url),
                Some(_) if started.elapsed() < wait => {
                    tokio::time::sleep(POLL).await;
                    continue;
                }
                Some(_) => Error::unanswered(OP, format!("port {port} has no URL yet")),
                None => Error::new(ErrorKind::NotFound, OP)
                    .with_message(format!("port {port} is not open")),
            };
            return Err(error.with_sandbox(self.id.clone()));
        }
    }

    /// Resources that the sandbox uses.
    ///
    /// # Errors
    /// Those of the type.
    pub async fn stats(&self) -> Result<AcaStats> {
        let shown = self.call(Method::GET, &["stats"], None).await?;
        let known = |of: &Value| number(of).unwrap_or(0);
        Ok(AcaStats {
            cpu_nanocores: known(&shown["cpu"]["usageNanoCores"]),
            memory: usage(&shown["memory"]),
            disk: usage((self.shared.http.protocol().disk)(&shown)),
            received: known(&shown["network"]["rxBytes"]),
            sent: known(&shown["network"]["txBytes"]),
            raw: shown.to_string(),
        })
    }

    /// Replaces what it may reach.
    ///
    /// # Errors
    /// Those of the type; [`ErrorKind::InvalidInput`] for a policy that the service does not take,
    /// [`ErrorKind::Unsupported`] for one that this version of it can't express.
    pub async fn set_egress(&self, policy: EgressPolicy) -> Result<()> {
        let body = self.shared.http.egress(Operation::RestrictEgress, &policy);
        let body = body.map_err(|error| error.with_sandbox(self.id.clone()))?;
        self.call(Method::POST, &["egresspolicy"], Some(body))
            .await
            .map(drop)
    }

    /// Decisions of the egress policy.
    ///
    /// # Errors
    /// Those of the type.
    pub async fn egress_decisions(&self) -> Result<EgressDecisions> {
        let protocol = self.shared.http.protocol();
        let shown = self.call(Method::GET, &[protocol.decisions], None).await?;
        Ok(EgressDecisions::of(&shown, protocol.decided))
    }

    /// Replaces when it is suspended and deleted.
    ///
    /// # Errors
    /// Those of the type.
    pub async fn set_lifecycle(&self, lifecycle: Lifecycle) -> Result<()> {
        self.call(Method::POST, &["lifecycle"], Some(lifecycle.body()))
            .await
            .map(drop)
    }

    /// Mounts a volume of the group.
    ///
    /// # Errors
    /// Those of the type.
    pub async fn add_volume(&self, volume: VolumeMount) -> Result<()> {
        let body = json!({"volumeMount": {
            "volumeName": volume.volume,
            "mountpoint": volume.mount_point,
        }});
        if volume.read_only {
            let why = "a volume that is added later can't be read-only; mount it at creation";
            let error = Error::unsupported(OP, "a read-only volume", why);
            return Err(error.with_sandbox(self.id.clone()));
        }
        self.call(Method::POST, &["volumes", "add"], Some(body))
            .await
            .map(drop)
    }

    /// Makes a disk image of its files, waits until it can be used, and gives its identifier for
    /// [`AcaSource::DiskImage`](super::AcaSource::DiskImage). The image stays until it is deleted.
    ///
    /// # Errors
    /// Those of the type; [`ErrorKind::Unavailable`]; what the service says if the image fails.
    pub async fn commit(&self, labels: &Labels) -> Result<String> {
        let (shared, sandbox) = (Arc::clone(&self.shared), self.id.clone());
        let body = json!({"labels": labels});
        runtime(OP)?;
        // On a task of its own: the service makes it whether the caller waits or not.
        let making = tokio::spawn(async move {
            let path = ["sandboxes", sandbox.as_str(), "commit"];
            let mut request = Request::new(Method::POST, &path);
            request.timeout = shared.config.snapshot_timeout;
            let made = shared.http.make(OP, request, body, "diskimages").await;
            let guard = |id: &str| DeleteOnDrop::new(&shared.http, Made::Image(id.to_owned()));
            made.map(|(id, _)| (guard(&id), id))
        });
        let (guard, id) = ended(making.await)?.map_err(|failure| self.failed(failure))?;
        self.shared.image_ready(OP, &id).await?;
        guard.keep();
        Ok(id)
    }
}

impl AcaState {
    fn of(shown: &Value) -> Self {
        match shown["state"].as_str().unwrap_or_default() {
            "Creating" => Self::Creating,
            "Running" => Self::Running,
            "Stopping" => Self::Stopping,
            "Stopped" => Self::Stopped,
            "Suspended" => Self::Suspended,
            "Idle" => Self::Idle,
            "Resuming" => Self::Resuming,
            "Deleting" => Self::Deleting,
            "StopFailed" => Self::StopFailed,
            "Failed" => Self::Failed,
            other => Self::Other(other.to_owned()),
        }
    }

    /// Whether it can be resumed.
    pub fn is_suspended(&self) -> bool {
        matches!(self, Self::Stopped | Self::Suspended | Self::Idle)
    }
}
