//! Operations that take their time: how a client follows them until they are done.
//!
//! The service says in one of three ways how far one is: by a status at `Azure-AsyncOperation`, by
//! a result at `Location`, by the resource's own `provisioningState`. A wait has an end, and says
//! what the service last said.
//!
//! Source: <https://learn.microsoft.com/azure/azure-resource-manager/management/async-operations>

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode, Url};
use sandbox_core::Result;
use serde::Deserialize;

use super::arm::{Answered, Call, parse};
use super::id::ResourceId;
use super::plane::ControlPlane;
use super::step::Step;
use super::word::words;

/// The shortest and the longest time between two questions.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);

words! {
    /// Progress of the service with a resource.
    pub enum ProvisioningState {
        /// Success: it is as it was asked for.
        Succeeded = "Succeeded",
        /// Failure: it could not be made as it was asked for.
        Failed = "Failed",
        /// The operation was ended.
        Canceled = "Canceled",
        /// Being made or changed.
        InProgress = "InProgress",
        /// Being deleted.
        Deleting = "Deleting",
    }
}

impl ProvisioningState {
    /// Whether the service is at an end with it. Every word that is none of the three ends means
    /// that it is still at work.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }
}

/// Facts that every resource shows about itself.
#[derive(Debug, Deserialize)]
pub(super) struct Progress {
    #[serde(default)]
    pub(super) tags: Option<std::collections::BTreeMap<String, String>>,
    #[serde(default)]
    properties: Option<ProgressProperties>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProgressProperties {
    provisioning_state: Option<ProvisioningState>,
    deployment_errors: Option<String>,
}

impl Progress {
    pub(super) fn state(&self) -> Option<&ProvisioningState> {
        self.properties.as_ref()?.provisioning_state.as_ref()
    }

    fn errors(&self) -> &str {
        let properties = self.properties.as_ref();
        let errors = properties.and_then(|properties| properties.deployment_errors.as_deref());
        errors.unwrap_or_default()
    }
}

/// The status of an operation.
#[derive(Deserialize)]
struct Status {
    status: ProvisioningState,
    error: Option<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// A bounded wait.
struct Wait {
    started: Instant,
    limit: Duration,
    poll: Duration,
}

impl Wait {
    /// Waits before the next question; the error if the time is up.
    async fn next(&self, step: &Step, asked: Option<Duration>, last: &str) -> Result<()> {
        let left = self.limit.saturating_sub(self.started.elapsed());
        if left.is_zero() {
            return Err(step.overdue(self.limit, last));
        }
        let wait = asked.unwrap_or(self.poll).clamp(SHORTEST, LONGEST);
        tokio::time::sleep(wait.min(left)).await;
        Ok(())
    }
}

impl ControlPlane {
    fn waiting(&self) -> Wait {
        Wait {
            started: Instant::now(),
            limit: self.config().timeout,
            poll: self.config().poll,
        }
    }

    /// Follows an operation, which this answer began, until it is done.
    pub(super) async fn follow(
        &self,
        step: &Step,
        id: &ResourceId,
        version: &'static str,
        answer: &Answered,
    ) -> Result<()> {
        let link = |name| match answer.header(name) {
            Some(link) => self.link(step, link).map(Some),
            None => Ok(None),
        };
        let asked = answer.wait();
        if let Some(status) = link("azure-asyncoperation")? {
            if self.by_status(step, status, version, asked).await? {
                return Ok(());
            }
            return self.by_state(step, id, version).await.map(drop);
        }
        match (answer.status(), link("location")?) {
            (StatusCode::ACCEPTED, Some(result)) => {
                self.by_result(step, result, version, asked).await
            }
            (StatusCode::ACCEPTED | StatusCode::CREATED | StatusCode::OK, _) if !done(answer) => {
                self.by_state(step, id, version).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// By the operation's status; `false` if the service has forgotten it.
    async fn by_status(
        &self,
        step: &Step,
        link: Url,
        version: &'static str,
        mut asked: Option<Duration>,
    ) -> Result<bool> {
        let wait = self.waiting();
        let mut last = "nothing".to_owned();
        loop {
            wait.next(step, asked, &last).await?;
            match self.send(step, Call::follow(link.clone(), version)).await {
                Ok(answer) => {
                    let Status { status, error } = answer.json(step)?;
                    match status {
                        ProvisioningState::Succeeded => return Ok(true),
                        ProvisioningState::Failed | ProvisioningState::Canceled => {
                            let reason = error.unwrap_or_else(|| Reason {
                                code: status.to_string(),
                                message: String::new(),
                            });
                            return Err(step.gone_wrong(&reason.code, &reason.message));
                        }
                        status => last = status.to_string(),
                    }
                    asked = answer.wait();
                }
                Err(failure) if failure.status == Some(404) => return Ok(false),
                Err(failure) if failure.error.is_retryable() => {
                    last = failure.error.message().to_owned();
                }
                Err(failure) => return Err(step.failed(failure)),
            }
        }
    }

    /// By the operation's result: 202 until it is there.
    async fn by_result(
        &self,
        step: &Step,
        mut link: Url,
        version: &'static str,
        mut asked: Option<Duration>,
    ) -> Result<()> {
        let wait = self.waiting();
        let mut last = "202 Accepted".to_owned();
        loop {
            wait.next(step, asked, &last).await?;
            match self.send(step, Call::follow(link.clone(), version)).await {
                Ok(answer) if answer.status() == StatusCode::ACCEPTED => {
                    asked = answer.wait();
                    // It may have moved.
                    if let Some(moved) = answer.header("location") {
                        link = self.link(step, moved)?;
                    }
                }
                Ok(answer) => {
                    let progress = serde_json::from_slice::<Progress>(answer.body()).ok();
                    return match progress.as_ref().and_then(Progress::state) {
                        Some(ProvisioningState::Failed | ProvisioningState::Canceled) => {
                            let errors = progress.as_ref().map_or("", Progress::errors);
                            Err(step.gone_wrong("Failed", errors))
                        }
                        _ => Ok(()),
                    };
                }
                // What was deleted has no result.
                Err(failure) if failure.status == Some(404) => return Ok(()),
                Err(failure) if failure.error.is_retryable() => {
                    last = failure.error.message().to_owned();
                }
                Err(failure) => return Err(step.failed(failure)),
            }
        }
    }

    /// By the resource's own state.
    pub(super) async fn by_state(
        &self,
        step: &Step,
        id: &ResourceId,
        version: &'static str,
    ) -> Result<Answered> {
        let wait = self.waiting();
        let mut last;
        loop {
            let mut asked = None;
            match self.send(step, Call::get(id, version)).await {
                Ok(answer) => {
                    let progress: Progress = parse(step, answer.body())?;
                    match progress.state() {
                        None | Some(ProvisioningState::Succeeded) => return Ok(answer),
                        Some(state) if state.is_final() => {
                            return Err(step.gone_wrong(state.as_str(), progress.errors()));
                        }
                        Some(state) => last = format!("provisioningState {state}"),
                    }
                    asked = answer.wait();
                }
                // What was made may not be found everywhere yet.
                Err(failure) if failure.status == Some(404) => last = "404".to_owned(),
                Err(failure) if failure.error.is_retryable() => {
                    last = failure.error.message().to_owned();
                }
                Err(failure) => return Err(step.failed(failure)),
            }
            wait.next(step, asked, &last).await?;
        }
    }

    /// Waits until a resource is gone.
    pub(super) async fn gone(
        &self,
        step: &Step,
        id: &ResourceId,
        version: &'static str,
    ) -> Result<()> {
        let wait = self.waiting();
        let mut last;
        loop {
            match self.send(step, Call::get(id, version)).await {
                Ok(answer) => {
                    let progress: Progress = parse(step, answer.body())?;
                    last = match progress.state() {
                        Some(state) => format!("provisioningState {state}"),
                        None => "that it is there".to_owned(),
                    };
                }
                Err(failure) if failure.status == Some(404) => return Ok(()),
                Err(failure) if failure.error.is_retryable() => {
                    last = failure.error.message().to_owned();
                }
                Err(failure) => return Err(step.failed(failure)),
            }
            wait.next(step, None, &last).await?;
        }
    }

    /// Sends a write, again while the service is at another one of the same resource: it refuses
    /// those before it does anything.
    pub(super) async fn write<'c>(
        &self,
        step: &Step,
        call: impl Fn() -> Call<'c>,
    ) -> Result<Result<Answered, crate::http::Failure>> {
        let wait = self.waiting();
        loop {
            match self.send(step, call()).await {
                Err(failure) if is_in_progress(&failure) => {
                    let last = format!("{} {}", failure.title, failure.detail);
                    wait.next(step, None, &last).await?;
                }
                done => return Ok(done),
            }
        }
    }

    /// Posts an action that has no result of its own, and waits until it is done.
    pub(super) async fn act(
        &self,
        step: &Step,
        id: &ResourceId,
        action: &str,
        version: &'static str,
    ) -> Result<()> {
        let path = id.child(&[action]);
        let wait = self.waiting();
        loop {
            match self
                .send(step, Call::new(Method::POST, &path, version))
                .await
            {
                Ok(answer) => return self.follow(step, id, version, &answer).await,
                Err(failure) if is_in_progress(&failure) => {
                    let last = format!("{} {}", failure.title, failure.detail);
                    wait.next(step, None, &last).await?;
                }
                Err(failure) => return Err(step.failed(failure)),
            }
        }
    }
}

/// Whether an answer shows a resource that needs no waiting for.
fn done(answer: &Answered) -> bool {
    let progress = serde_json::from_slice::<Progress>(answer.body()).ok();
    match progress.as_ref().and_then(Progress::state) {
        Some(state) => *state == ProvisioningState::Succeeded,
        None => answer.status() != StatusCode::ACCEPTED,
    }
}

/// Whether the service refuses a write because it is at another one.
///
/// Source: <https://github.com/microsoft/azure-container-apps/issues/175>
pub(super) fn is_in_progress(failure: &crate::http::Failure) -> bool {
    failure.status == Some(409)
        && [
            "ContainerAppOperationInProgress",
            "ContainerAppLockConflict",
            "OperationInProgress",
            "AnotherOperationInProgress",
            "ResourceOperationInProgress",
        ]
        .contains(&failure.title.as_str())
}
