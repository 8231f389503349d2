//! Resources: what all kinds have in common, and the one way in which a resource is made, changed and
//! deleted.
//!
//! A write is never sent twice blindly: after an answer that was lost, what it would have made is
//! looked for first. What belongs to another owner is never changed.

use std::time::Instant;

use bytes::Bytes;
use reqwest::Method;
use sandbox_core::{Error, ErrorKind, Labels, Operation, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest as _, Sha256};

use super::arm::{Answered, Call, parse};
use super::id::ResourceId;
use super::operation::{Progress, ProvisioningState};
use super::plane::ControlPlane;
use super::role::Role;
use super::step::Step;

/// The tag that says whose a resource is.
pub const OWNER_TAG: &str = "sandbox-owner";

/// The tag that says what was asked for last: a digest of the request without its secrets.
pub const SPEC_TAG: &str = "sandbox-spec";

/// The tag that says which write came last, so that one whose answer was lost is found.
const WRITE_TAG: &str = "sandbox-write";

/// A kind of resource.
#[derive(Debug)]
pub(super) struct Kind {
    /// Name in paths, behind `Microsoft.App`.
    pub(super) path: &'static str,
    pub(super) version: &'static str,
    /// The role that may make, change and delete it.
    pub(super) role: Role,
    /// Name as a person says it.
    pub(super) noun: &'static str,
    /// The command group of `az`.
    pub(super) az: &'static str,
    /// Check of a name: given the noun and the name.
    pub(super) checked: for<'a> fn(&str, &'a str) -> Result<&'a str>,
}

/// A resource and its kind.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) kind: &'static Kind,
    pub(super) id: ResourceId,
}

impl Target {
    /// A call for it: "create", `create`, ` --image X`.
    pub(super) fn step(&self, verb: &str, command: &str, options: &str) -> Step {
        let Kind { noun, az, role, .. } = self.kind;
        let name = self.id.name();
        let group = self.id.resource_group().unwrap_or_default();
        Step {
            what: format!("{verb} the {noun} {name}"),
            az: format!("{az} {command} --name {name} --resource-group {group}{options}"),
            role: role.clone(),
            scope: self.id.clone(),
        }
    }

    pub(super) fn get(&self) -> Call<'_> {
        Call::get(&self.id, self.kind.version)
    }
}

/// A resource as the service shows it.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Resource<P> {
    /// The identifier.
    pub id: ResourceId,
    /// The own name.
    pub name: String,
    /// The region that it is in.
    #[serde(default)]
    pub location: Option<String>,
    /// The tags.
    #[serde(default, deserialize_with = "nullable")]
    pub tags: Labels,
    /// Properties that only its kind has.
    pub properties: P,
}

impl<P> Resource<P> {
    /// Returns who made it, if a control plane of this crate did.
    pub fn owner(&self) -> Option<&str> {
        self.tags.get(OWNER_TAG).map(String::as_str)
    }
}

/// A value that the service may show as `null`, or not at all.
pub(super) fn nullable<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Desired state of a resource, as it is sent.
#[derive(Debug)]
pub(super) struct Desired {
    pub(super) body: Bytes,
    /// The digest of all but its secrets.
    pub(super) mark: String,
    /// Identifier that tells this write from others of the same.
    write: String,
}

#[derive(Serialize)]
struct Envelope<'a, P> {
    location: &'a str,
    tags: &'a Labels,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<&'a Identity>,
    properties: &'a P,
}

/// The managed identities of a resource.
///
/// Source: <https://learn.microsoft.com/azure/container-apps/managed-identity>
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Identity {
    #[serde(rename = "type")]
    kind: &'static str,
    user_assigned_identities: std::collections::BTreeMap<String, Empty>,
}

#[derive(Clone, Debug, Serialize)]
struct Empty {}

impl Identity {
    /// These user-assigned identities; nothing for none.
    pub(super) fn assigned<'a>(ids: impl IntoIterator<Item = &'a ResourceId>) -> Option<Self> {
        let ids = ids.into_iter().map(|id| (id.to_string(), Empty {}));
        let ids: std::collections::BTreeMap<_, _> = ids.collect();
        (!ids.is_empty()).then_some(Self {
            kind: "UserAssigned",
            user_assigned_identities: ids,
        })
    }
}

impl ControlPlane {
    pub(super) fn target(&self, kind: &'static Kind, text: &str) -> Result<Target> {
        let name = (kind.checked)(kind.noun, text)?;
        let id = self
            .resource_group()
            .child(&["providers/Microsoft.App", kind.path, name]);
        Ok(Target { kind, id })
    }

    /// All resources of a kind in the resource group, of every owner.
    pub(super) async fn all<P: DeserializeOwned>(
        &self,
        kind: &'static Kind,
    ) -> Result<Vec<Resource<P>>> {
        let id = self
            .resource_group()
            .child(&["providers/Microsoft.App", kind.path]);
        let step = Step {
            what: format!("list the {}s", kind.noun),
            az: format!(
                "{} list --resource-group {}",
                kind.az,
                self.config().resource_group
            ),
            role: Role::READER,
            scope: self.resource_group().clone(),
        };
        self.pages(&step, Call::get(&id, kind.version)).await
    }

    /// A resource; `None` if it is not there.
    pub(super) async fn show<P: DeserializeOwned>(
        &self,
        target: &Target,
    ) -> Result<Option<Resource<P>>> {
        let step = target.step("show", "show", "");
        match self.found(&step, target.get()).await? {
            Some(answer) => answer.json(&step).map(Some),
            None => Ok(None),
        }
    }

    /// Returns what is sent for a resource. `masked` is `properties` without secrets.
    pub(super) fn desired<P: Serialize>(
        &self,
        properties: &P,
        masked: &P,
        identity: Option<&Identity>,
    ) -> Result<Desired> {
        self.desired_with(properties, masked, identity, None)
    }

    /// Returns what is sent for a resource to which more belongs than that: `beside`.
    pub(super) fn desired_with<P: Serialize>(
        &self,
        properties: &P,
        masked: &P,
        identity: Option<&Identity>,
        beside: Option<&str>,
    ) -> Result<Desired> {
        let config = self.config();
        let mut tags = config.tags.clone();
        tags.insert(OWNER_TAG.into(), config.owner.clone());
        let written = |tags: &Labels, properties: &P| {
            let envelope = Envelope {
                location: &config.location,
                tags,
                identity,
                properties,
            };
            serde_json::to_vec(&envelope).map_err(|e| {
                Error::new(ErrorKind::InvalidInput, Operation::Provision)
                    .with_message("the resource can't be written as JSON")
                    .with_source(e)
            })
        };
        let mut digest = Sha256::new_with_prefix(written(&tags, masked)?);
        digest.update(beside.unwrap_or_default());
        let digest = digest.finalize();
        let mark: String = digest[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let write = uuid::Uuid::new_v4().simple().to_string();
        tags.insert(SPEC_TAG.into(), mark.clone());
        tags.insert(WRITE_TAG.into(), write.clone());
        Ok(Desired {
            body: written(&tags, properties)?.into(),
            mark,
            write,
        })
    }

    /// Makes a resource what it is to be, and waits until it is. The caller holds the lock.
    ///
    /// It is left alone if the tag says that it is so already, unless `anyway`.
    pub(super) async fn put(
        &self,
        step: &Step,
        target: &Target,
        desired: &Desired,
        anyway: bool,
    ) -> Result<Answered> {
        let version = target.kind.version;
        let mut lost = None;
        // A write is sent a second time only if nothing of the first was found.
        for _ in 0..2 {
            if let Some(found) = self.found(step, target.get()).await? {
                let progress: Progress = parse(step, found.body())?;
                self.own(step, &progress)?;
                let same = marked(&progress, &desired.mark) && !anyway;
                match progress.state() {
                    Some(ProvisioningState::Deleting) => {
                        self.gone(step, &target.id, version).await?;
                    }
                    None | Some(ProvisioningState::Succeeded) if same => return Ok(found),
                    Some(state) if same && !state.is_final() => {
                        return self.by_state(step, &target.id, version).await;
                    }
                    _ => {}
                }
            }
            let call = || Call::new(Method::PUT, &target.id, version).bytes(desired.body.clone());
            match self.write(step, call).await? {
                Ok(answer) => {
                    self.follow(step, &target.id, version, &answer).await?;
                    return self.by_state(step, &target.id, version).await;
                }
                Err(failure) if failure.unknown => {
                    if self.appeared(step, target, &desired.write).await? {
                        return self.by_state(step, &target.id, version).await;
                    }
                    lost = Some(failure);
                }
                Err(failure) => return Err(step.failed(failure)),
            }
        }
        Err(match lost {
            Some(failure) => step.failed(failure),
            None => step.error(ErrorKind::Other, "it was not sent"),
        })
    }

    /// Whether a write whose answer was lost has reached the service.
    async fn appeared(&self, step: &Step, target: &Target, write: &str) -> Result<bool> {
        let started = Instant::now();
        loop {
            if let Ok(Some(found)) = self.found(step, target.get()).await {
                let progress: Progress = parse(step, found.body())?;
                if tagged(&progress, WRITE_TAG, write) {
                    return Ok(true);
                }
            }
            let left = self.config().settle.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            tokio::time::sleep(self.config().poll.min(left)).await;
        }
    }

    /// Refuses what belongs to another owner.
    pub(super) fn own(&self, step: &Step, progress: &Progress) -> Result<()> {
        let tags = progress.tags.as_ref();
        let owner = tags
            .and_then(|tags| tags.get(OWNER_TAG))
            .map(String::as_str);
        if owner == Some(self.owner()) {
            return Ok(());
        }
        let whose = match owner {
            Some(owner) => format!(
                "it belongs to the owner {owner:?}, not to {:?}",
                self.owner()
            ),
            None => "it is there already, and was not made by this control plane".to_owned(),
        };
        let adopt = format!(
            "take another name, or give it to this owner: az tag update --operation Merge --resource-id {} --tags {OWNER_TAG}={}",
            step.scope,
            self.owner()
        );
        Err(step.error(ErrorKind::AlreadyExists, whose).with_hint(adopt))
    }

    /// Deletes a resource and waits until it is gone; nothing to do if it is not there.
    pub(super) async fn delete(&self, target: &Target) -> Result<()> {
        let step = target.step("delete", "delete", " --yes");
        let _lock = self.lock(&target.id).await;
        let Some(found) = self.found(&step, target.get()).await? else {
            return Ok(());
        };
        self.own(&step, &parse(&step, found.body())?)?;
        self.remove(&step, &target.id, target.kind.version).await
    }

    /// Deletes what is known to be the owner's.
    pub(super) async fn remove(
        &self,
        step: &Step,
        id: &ResourceId,
        version: &'static str,
    ) -> Result<()> {
        let call = || Call::new(Method::DELETE, id, version);
        match self.write(step, call).await? {
            Ok(answer) => self.follow(step, id, version, &answer).await?,
            Err(failure) if failure.status == Some(404) => return Ok(()),
            Err(failure) => return Err(step.failed(failure)),
        }
        self.gone(step, id, version).await
    }
}

/// Whether a resource was asked for with this digest.
pub(super) fn marked(progress: &Progress, mark: &str) -> bool {
    tagged(progress, SPEC_TAG, mark)
}

fn tagged(progress: &Progress, key: &str, value: &str) -> bool {
    let tags = progress.tags.as_ref();
    tags.and_then(|tags| tags.get(key))
        .is_some_and(|tag| tag == value)
}
