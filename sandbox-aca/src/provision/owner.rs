//! Ownership: what of a resource group is the owner's, and the collection of what is no longer
//! wanted.
//!
//! Only what bears the owner's tag is ever deleted.

use std::collections::HashSet;

use sandbox_core::{Error, Labels, Result};
use serde_json::Value;

use super::id::ResourceId;
use super::plane::ControlPlane;
use super::resource::{Kind, OWNER_TAG, Resource};
use super::{app, environment, group, job, pool};

/// Everything that can be owned, in the order in which it is deleted: environments go last, as the
/// service may keep one that has something in it.
const KINDS: &[&Kind] = &[
    &app::KIND,
    &job::KIND,
    &pool::KIND,
    &group::KIND,
    &environment::KIND,
];

/// A resource that a control plane made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Owned {
    /// The identifier.
    pub id: ResourceId,
    /// Name of its kind as a person says it, such as "container app".
    pub kind: &'static str,
    /// The tags.
    pub tags: Labels,
}

/// Result of a collection.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Collected {
    /// Resources that were deleted.
    pub deleted: Vec<ResourceId>,
    /// Resources that could not be deleted, and why.
    pub failed: Vec<(ResourceId, Error)>,
}

impl ControlPlane {
    /// The owner's resources that have all of these tags. Each kind is listed by itself: the list
    /// of a resource group by tag comes late.
    ///
    /// # Errors
    /// What the service answers.
    pub async fn owned(&self, tags: &Labels) -> Result<Vec<Owned>> {
        let mut owned = Vec::new();
        for kind in KINDS {
            let all: Vec<Resource<Value>> = self.all(kind).await?;
            let ours = all.into_iter().filter(|found| {
                let has = |(key, value): (&String, &String)| found.tags.get(key) == Some(value);
                found.tags.get(OWNER_TAG).map(String::as_str) == Some(self.owner())
                    && tags.iter().all(has)
            });
            owned.extend(ours.map(|found| Owned {
                id: found.id,
                kind: kind.noun,
                tags: found.tags,
            }));
        }
        Ok(owned)
    }

    /// Deletes the owner's resources that have all of these tags and are not among `living`: what a
    /// run that died has left, or tenants that are gone. Goes on after a failure.
    ///
    /// # Errors
    /// What the service answers to the lists; what can't be deleted is in the result. Dropping the
    /// future leaves the rest.
    pub async fn collect(&self, tags: &Labels, living: &[ResourceId]) -> Result<Collected> {
        let living: HashSet<&ResourceId> = living.iter().collect();
        let mut collected = Collected::default();
        for owned in self.owned(tags).await? {
            if living.contains(&owned.id) {
                continue;
            }
            let kind = KINDS.iter().find(|kind| kind.noun == owned.kind);
            let Some(kind) = kind else { continue };
            let target = self.target(kind, owned.id.name())?;
            match self.delete(&target).await {
                Ok(()) => collected.deleted.push(owned.id),
                Err(error) => collected.failed.push((owned.id, error)),
            }
        }
        Ok(collected)
    }
}
