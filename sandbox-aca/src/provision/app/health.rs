//! Whether an app is well: what its latest revision and the replica say, not only that it was
//! taken.
//!
//! Source: <https://learn.microsoft.com/azure/container-apps/troubleshoot-container-start-failures>

use std::time::Instant;

use sandbox_core::{Error, ErrorKind, Result};

use super::super::logs::{LogOptions, quoted};
use super::super::step::Step;
use super::App;
use super::revision::{ContainerState, Replica, Revision, RevisionHealth, RevisionState};

/// Number of restarts of a container before it is taken for one that never stays.
const RESTARTS: u32 = 3;

/// Number of a container's last lines that an error has.
const LINES: u32 = 20;

/// State of an app.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Health {
    /// Stopped: no replica is meant to run.
    Stopped,
    /// Being started: what the service said last.
    Starting(String),
    /// The container of the latest revision runs and gets requests; how often it was started again.
    Healthy(u32),
    /// A failure, now or later: the reason.
    Failed(String),
}

/// Judges how an app is, from what its latest revision and that one's replicas say.
pub(super) fn judge(revision: &Revision, replicas: &[Replica]) -> Health {
    let of = &revision.properties;
    if let Some(why) = of
        .provisioning_error
        .as_deref()
        .filter(|why| !why.is_empty())
    {
        return Health::Failed(why.to_owned());
    }
    if of.provisioning_state.as_deref() == Some("Failed") {
        return Health::Failed("the revision could not be made".to_owned());
    }
    if of.running_state == Some(RevisionState::Stopped) {
        return Health::Stopped;
    }
    let containers = replicas
        .iter()
        .flat_map(|replica| &replica.properties.containers);
    let mut all_ready = false;
    let mut restarts = 0;
    for (at, container) in containers.enumerate() {
        let details = container
            .running_state_details
            .as_deref()
            .unwrap_or_default();
        let state = container.running_state.as_ref();
        let pull = [
            "ErrImagePull",
            "ImagePullBackOff",
            "InvalidImageName",
            "ImagePullFailure",
        ];
        if let Some(word) = pull.iter().find(|word| details.contains(**word)) {
            return Health::Failed(format!("the image can't be pulled ({word}): {details}"));
        }
        let again = container.restart_count >= RESTARTS && state != Some(&ContainerState::Running);
        if again || details.contains("CrashLoopBackOff") {
            return Health::Failed(format!(
                "the container ends again and again ({} restarts): {details}",
                container.restart_count
            ));
        }
        restarts += container.restart_count;
        let ready = container.ready && state == Some(&ContainerState::Running);
        all_ready = ready && (at == 0 || all_ready);
    }
    if of.running_state == Some(RevisionState::Failed) {
        return Health::Failed("the revision can't be started".to_owned());
    }
    let well = of.health_state != Some(RevisionHealth::Unhealthy);
    match all_ready && well {
        true => Health::Healthy(restarts),
        false => Health::Starting(format!(
            "revision {}: {}, health {}, {} replicas",
            revision.name,
            of.running_state
                .as_ref()
                .map_or("no state", RevisionState::as_str),
            of.health_state
                .as_ref()
                .map_or("unknown", RevisionHealth::as_str),
            replicas.len()
        )),
    }
}

impl App {
    /// Returns how the app is now.
    ///
    /// # Errors
    /// What the service answers; [`NotFound`](ErrorKind::NotFound) if there is no such app.
    pub async fn health(&self) -> Result<Health> {
        let step = self.step("look at", "show");
        let name = self.latest(&step).await?;
        let Some(name) = name else {
            return Ok(Health::Starting("there is no revision yet".into()));
        };
        let Some(revision) = self.revision(&name).await? else {
            return Ok(Health::Starting(format!(
                "revision {name} is not there yet"
            )));
        };
        let replicas = self.replicas(&name).await?;
        Ok(judge(&revision, &replicas))
    }

    /// Waits until the app is healthy, and is so still when it is looked at again: one that ends
    /// soon after it has begun is not.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) if its image can't be pulled or its container ends again
    /// and again, with the container's last lines, or if it takes too long, with what the service
    /// last said. Dropping the future stops the waiting.
    pub async fn ready(&self) -> Result<()> {
        let step = self.step("wait for", "show");
        let started = Instant::now();
        let limit = self.plane.config().timeout;
        let mut before = None;
        loop {
            let last = match self.health().await? {
                Health::Healthy(restarts) if before == Some(restarts) => return Ok(()),
                Health::Healthy(restarts) => {
                    before = Some(restarts);
                    format!("that it runs, after {restarts} restarts")
                }
                Health::Failed(why) => return Err(self.why(&step, &why).await),
                Health::Stopped => "that it is stopped".to_owned(),
                Health::Starting(last) => last,
            };
            let left = limit.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Err(step.overdue(limit, &last));
            }
            tokio::time::sleep(self.plane.config().poll.min(left)).await;
        }
    }

    /// The error of an app that does not run, with its last lines.
    async fn why(&self, step: &Step, why: &str) -> Error {
        let mut lines = Vec::new();
        // What has never run has no log.
        if let Ok(mut log) = self.logs(LogOptions::new().tail(LINES)).await {
            while let Ok(Some(line)) = log.line().await {
                lines.push(quoted(&line));
            }
        }
        let said = match lines.is_empty() {
            true => "it has written nothing".to_owned(),
            false => format!("its last lines: {}", lines.join(" | ")),
        };
        step.error(ErrorKind::Unavailable, format!("{why}; {said}"))
            .with_hint(format!(
                "az containerapp logs show --name {} --resource-group {} --type system",
                self.target.id.name(),
                self.plane.config().resource_group
            ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(revision: &str, containers: &str) -> Health {
        let revision = format!(r#"{{"name":"a--1","properties":{revision}}}"#);
        let replica = format!(r#"{{"name":"r","properties":{{"containers":{containers}}}}}"#);
        let revision = serde_json::from_str(&revision).expect("a revision");
        let replica = serde_json::from_str(&replica).expect("a replica");
        judge(&revision, &[replica])
    }

    #[test]
    fn what_was_taken_is_healthy_only_if_it_runs() {
        const WELL: &str = r#"{"provisioningState":"Provisioned","healthState":"Healthy","runningState":"Running"}"#;
        let one = |text: &str| format!(r#"[{{"name":"main",{text}}}]"#);
        let runs = one(r#""ready":true,"restartCount":0,"runningState":"Running""#);
        assert!(matches!(judged(WELL, &runs), Health::Healthy(0)));
        assert!(matches!(judged(WELL, "[]"), Health::Starting(_)));
        let new = one(r#""ready":false,"runningState":"Running""#);
        assert!(matches!(judged(WELL, &new), Health::Starting(_)));
        for details in ["ImagePullBackOff", "CrashLoopBackOff"] {
            let text = format!(
                r#""ready":false,"runningState":"Waiting","runningStateDetails":"{details}""#
            );
            assert!(
                matches!(judged(WELL, &one(&text)), Health::Failed(_)),
                "{details}"
            );
        }
        let again = one(r#""ready":false,"restartCount":5,"runningState":"Terminated""#);
        assert!(matches!(judged(WELL, &again), Health::Failed(_)));
        let broken = r#"{"provisioningError":"no such image","runningState":"Running"}"#;
        assert!(matches!(judged(broken, &runs), Health::Failed(_)));
        let stopped = r#"{"runningState":"Stopped"}"#;
        assert!(matches!(judged(stopped, "[]"), Health::Stopped));
        // A word that is new is no error.
        let odd = r#"{"runningState":"Hibernating","healthState":"Odd"}"#;
        assert!(matches!(judged(odd, "[]"), Health::Starting(_)));
    }
}
