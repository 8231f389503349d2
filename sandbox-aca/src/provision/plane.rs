//! The control plane: one client of Azure Resource Manager for one resource group and one owner.
//!
//! It must never have two writes of one resource under way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sandbox_core::{Error, ErrorKind, Operation, Result};

use super::config::ControlPlaneConfig;
use super::id::{ResourceId, name};
use crate::auth::Tokens;
use crate::http::{Http, Plane};

type Locks = Mutex<HashMap<ResourceId, Arc<tokio::sync::Mutex<()>>>>;

#[derive(Debug)]
struct Connected {
    config: ControlPlaneConfig,
    http: Http,
    group: ResourceId,
    /// Writes of one resource go one after the other: the service refuses those that overlap.
    writes: Locks,
}

/// A client of Azure Resource Manager for one resource group and one owner. Clones share it.
#[derive(Clone, Debug)]
pub struct ControlPlane(Arc<Connected>);

impl ControlPlane {
    /// A client with this configuration. Sends nothing yet.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the configuration can't be right.
    pub fn new(config: ControlPlaneConfig) -> Result<Self> {
        let subscription = name("subscription", &config.subscription)?;
        let resources = name("resource group", &config.resource_group)?;
        name("location", &config.location)?;
        if config.owner.is_empty() || config.owner.len() > 256 {
            return Err(Error::new(ErrorKind::InvalidInput, Operation::Provision)
                .with_message("the owner is a tag: it has 1 to 256 characters"));
        }
        let group = ResourceId::of(&["subscriptions", subscription, "resourceGroups", resources]);
        let plane = Plane {
            endpoint: config.endpoint.clone(),
            prefix: Vec::new(),
            api_version: String::new(),
            ca_file: config.ca_file.clone(),
            role: "Contributor",
            resource: group.to_string(),
            role_wait: Duration::ZERO,
        };
        let tokens = Tokens::new(Arc::clone(&config.credential), config.scope.clone());
        Ok(Self(Arc::new(Connected {
            http: Http::new(plane, tokens)?,
            config,
            group,
            writes: Locks::default(),
        })))
    }

    pub(super) fn http(&self) -> &Http {
        &self.0.http
    }

    pub(super) fn config(&self) -> &ControlPlaneConfig {
        &self.0.config
    }

    pub(super) fn subscription(&self) -> &str {
        &self.0.config.subscription
    }

    /// The resource group that it works in.
    pub fn resource_group(&self) -> &ResourceId {
        &self.0.group
    }

    /// Returns the owner of its resources.
    pub fn owner(&self) -> &str {
        &self.0.config.owner
    }

    /// The right to write a resource; others of this client wait.
    pub(super) async fn lock(&self, id: &ResourceId) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.writes.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that no one holds or waits for are forgotten.
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(locks.entry(id.clone()).or_default())
        };
        lock.lock_owned().await
    }
}
