//! Resources of a sandbox group beside sandboxes: snapshots, disk images, volumes.
//!
//! Snapshots and images are never collected by the service: who makes them deletes them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Method;
use sandbox_core::{
    Error, ErrorKind, Labels, Operation, Result, Sandbox, SandboxId, SandboxSpec, Secret,
    SnapshotId,
};
use serde_json::{Value, json};

use super::{AcaHandle, AcaOptions, labels, text};
use crate::group::delete_on_drop::{DeleteOnDrop, Made};
use crate::group::protocol::number;
use crate::group::provider::AcaSandboxProvider;
use crate::group::shared::Shared;
use crate::http::{Request, parse, runtime};

const OP: Operation = Operation::Connect;
/// Limit of the time until an image is ready.
const IMAGE: Duration = Duration::from_secs(900);

/// A snapshot of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AcaSnapshot {
    /// Identifier of the snapshot.
    pub id: SnapshotId,
    /// Labels.
    pub labels: Labels,
    /// Sandbox that it was taken of.
    pub sandbox: SandboxId,
    /// Size in bytes; 0 if unknown.
    pub size: u64,
}

/// A disk image.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskImage {
    /// Identifier; of a public image, its name.
    pub id: String,
    /// `Ready`, `Building`, `Failed` or what else the service says.
    pub status: String,
    /// Labels.
    pub labels: Labels,
}

/// A disk image to make of a container image, which must be of linux/amd64.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewDiskImage {
    /// The container image.
    pub base: String,
    /// Labels.
    pub labels: Labels,
    /// User and password (or token) of the registry.
    pub credentials: Option<(String, Secret)>,
    /// The managed identity that may pull, by its resource identifier.
    pub identity: Option<String>,
}

impl NewDiskImage {
    /// A disk image made of this container image.
    pub fn new(base: impl Into<String>) -> Self {
        Self {
            base: base.into(),
            labels: Labels::new(),
            credentials: None,
            identity: None,
        }
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Pulled by this user of the registry.
    #[must_use]
    pub fn credentials(mut self, user: impl Into<String>, token: impl Into<Secret>) -> Self {
        self.credentials = Some((user.into(), token.into()));
        self
    }
}

/// Kind of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VolumeKind {
    /// Blobs that the service keeps.
    AzureBlob,
    /// A disk of this size, such as `10Gi`.
    DataDisk(String),
    /// Something that this version does not know, as the service calls it.
    Other(String),
}

/// A volume of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Volume {
    /// Name.
    pub name: String,
    /// Kind of the volume.
    pub kind: VolumeKind,
}

impl Shared {
    /// Waits until a disk image can be used.
    pub(super) async fn image_ready(&self, op: Operation, id: &str) -> Result<()> {
        let started = Instant::now();
        loop {
            let path = ["diskimages", id];
            let sent = self.http.send(op, Request::new(Method::GET, &path)).await;
            let shown = sent.and_then(|bytes| parse(op, &bytes));
            let shown = shown.map_err(|failure| failure.error)?;
            let error = match shown["status"]["state"].as_str() {
                Some("Ready") => return Ok(()),
                Some("Failed") => Error::new(ErrorKind::Other, op)
                    .with_message(format!("the disk image failed: {}", shown["status"])),
                _ if started.elapsed() > IMAGE => {
                    Error::unanswered(op, "the disk image is not ready after a quarter of an hour")
                }
                _ => {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    continue;
                }
            };
            return Err(error);
        }
    }
}

/// The group, beyond the [`Provider`](sandbox_core::Provider). Each method is one request (lists:
/// one for each page) unless it says that it waits; dropping its future leaves open whether the
/// service did it.
impl AcaSandboxProvider {
    /// Handle for what the service can do with a sandbox beyond the trait; sends nothing, so that
    /// the sandbox need not exist.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if that can't be an identifier.
    pub fn handle(&self, id: &SandboxId) -> Result<AcaHandle> {
        match uuid::Uuid::parse_str(id.as_str()) {
            Ok(_) => Ok(AcaHandle::new(Arc::clone(&self.shared), id.clone())),
            Err(_) => Err(Error::new(ErrorKind::InvalidInput, OP)
                .with_message("an identifier of a sandbox is a GUID")
                .with_sandbox(id.clone())),
        }
    }

    /// [`create`](sandbox_core::Provider::create) with what only this service has. Dropping the
    /// future deletes what was made.
    ///
    /// # Errors
    /// Those of `create`; [`ErrorKind::InvalidInput`] for options that exclude each other.
    pub async fn create_with(
        &self,
        spec: SandboxSpec,
        options: AcaOptions,
    ) -> Result<Arc<dyn Sandbox>> {
        self.make(spec, options).await
    }

    /// The group's snapshots.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn snapshots(&self) -> Result<Vec<AcaSnapshot>> {
        let all = self.all(&["snapshots"]).await?;
        Ok(all
            .iter()
            .map(|shown| AcaSnapshot {
                id: SnapshotId::new(text(shown, "id")),
                labels: labels(shown),
                sandbox: SandboxId::new(text(shown, "sandboxId")),
                size: number(&shown["sizeInMB"]).unwrap_or(0) << 20,
            })
            .collect())
    }

    /// Deletes a snapshot; `Ok` if there is none. Sandboxes made from it stay.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
        self.delete(&["snapshots", id.as_str()]).await
    }

    /// Disk images that the service offers to all its users.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn public_disk_images(&self) -> Result<Vec<DiskImage>> {
        let all = self.all(&["diskimages", "public"]).await?;
        Ok(all.iter().map(DiskImage::of).collect())
    }

    /// The group's own disk images.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn disk_images(&self) -> Result<Vec<DiskImage>> {
        let all = self.all(&["diskimages"]).await?;
        Ok(all.iter().map(DiskImage::of).collect())
    }

    /// Makes a disk image of a container image and waits until it is ready. Gives its identifier.
    ///
    /// # Errors
    /// Those of the service; [`ErrorKind::Unavailable`] after a quarter of an hour; what it says if the image fails.
    pub async fn create_disk_image(&self, image: NewDiskImage) -> Result<String> {
        let protocol = self.shared.http.protocol();
        let body = (protocol.image)(&image);
        runtime(OP)?;
        // On a task of its own: the service makes it whether the caller waits or not.
        let http = Arc::clone(&self.shared.http);
        let making = tokio::spawn(async move {
            let request = Request::new(protocol.make_image.clone(), &["diskimages"]);
            let made = http.make(OP, request, body, "diskimages").await;
            made.map(|(id, _)| (DeleteOnDrop::new(&http, Made::Image(id.clone())), id))
        });
        let (guard, id) = ended(making.await)?.map_err(|failure| failure.error)?;
        self.shared.image_ready(OP, &id).await?;
        guard.keep();
        Ok(id)
    }

    /// Deletes a disk image of the group; `Ok` if there is none.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn delete_disk_image(&self, id: &str) -> Result<()> {
        self.delete(&["diskimages", id]).await
    }

    /// The group's volumes.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn volumes(&self) -> Result<Vec<Volume>> {
        let all = self.all(&["volumes"]).await?;
        Ok(all.iter().map(Volume::of).collect())
    }

    /// Makes a volume, or finds the one of this name.
    ///
    /// # Errors
    /// Those of the service; [`ErrorKind::InvalidInput`] for [`VolumeKind::Other`].
    pub async fn create_volume(&self, name: &str, kind: VolumeKind) -> Result<Volume> {
        let body = match &kind {
            VolumeKind::AzureBlob => json!({"type": "AzureBlob"}),
            VolumeKind::DataDisk(size) => json!({"type": "DataDisk", "size": size}),
            VolumeKind::Other(kind) => {
                return Err(Error::new(ErrorKind::InvalidInput, OP)
                    .with_message(format!("how to make a volume of {kind:?} is not known")));
            }
        };
        let path = ["volumes", name];
        let mut request = Request::new(Method::PUT, &path).json(&body);
        // The same under the same name.
        request.repeat = true;
        let sent = self.shared.http.send(OP, request).await;
        sent.map_err(|failure| failure.error)?;
        Ok(Volume {
            name: name.to_owned(),
            kind,
        })
    }

    /// Deletes a volume with all that is on it; `Ok` if there is none.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn delete_volume(&self, name: &str) -> Result<()> {
        self.delete(&["volumes", name]).await
    }

    async fn all(&self, path: &[&str]) -> Result<Vec<Value>> {
        let all = self.shared.http.pages(OP, path, Vec::new()).await;
        all.map_err(|failure| failure.error)
    }

    async fn delete(&self, path: &[&str]) -> Result<()> {
        let sent = self
            .shared
            .http
            .send(OP, Request::new(Method::DELETE, path))
            .await;
        match sent {
            Err(failure) if failure.status == Some(404) => Ok(()),
            other => other.map(drop).map_err(|failure| failure.error),
        }
    }
}

/// Result of a task that has not panicked.
pub(super) fn ended<T>(task: std::result::Result<T, tokio::task::JoinError>) -> Result<T> {
    task.map_err(|error| {
        Error::new(ErrorKind::Other, OP)
            .with_message("the task that creates it ended early")
            .with_source(error)
    })
}

/// Report of [`AcaSandboxProvider::reap`]: what it deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reaped {
    /// Sandboxes.
    pub sandboxes: usize,
    /// Snapshots.
    pub snapshots: usize,
    /// Disk images.
    pub images: usize,
}

impl AcaSandboxProvider {
    /// Deletes every sandbox, snapshot and disk image of the group that has all of these labels,
    /// whichever program made it: what is left of a run that bore a label of its own
    /// ([`AcaConfig::labels`](crate::AcaConfig#structfield.labels)).
    ///
    /// Goes on after a failure. Sandboxes that are open in this process are deleted too.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] without any label, which would be the whole group; the first that
    /// the service answers.
    ///
    /// # Cancellation
    /// Dropping the future leaves what it has not come to.
    pub async fn reap(&self, labels: &Labels) -> Result<Reaped> {
        if labels.is_empty() {
            return Err(Error::new(ErrorKind::InvalidInput, OP)
                .with_message("no label is given, which would delete the whole group")
                .with_hint("give the labels of the run that is to be cleared away"));
        }
        let http = &self.shared.http;
        let bears = |one: &Value| {
            let mut wanted = labels.iter();
            wanted.all(|(key, value)| one["labels"][key] == json!(value))
        };
        let (mut reaped, mut first) = (Reaped::default(), None);
        for collection in ["sandboxes", "snapshots", "diskimages"] {
            let all = match collection {
                "sandboxes" => http.list(OP, labels).await,
                _ => http.pages(OP, &[collection], Vec::new()).await,
            };
            let all = match all {
                Ok(all) => all,
                Err(failure) => {
                    first.get_or_insert(failure.error);
                    continue;
                }
            };
            for one in all.iter().filter(|one| bears(one)) {
                let id = text(one, "id");
                let deleted = match collection {
                    "sandboxes" => http.delete(OP, &id).await,
                    _ => http.delete_entry(OP, collection, &id).await,
                };
                match (deleted, collection) {
                    (Err(failure), _) => drop(first.get_or_insert(failure.error)),
                    (Ok(()), "sandboxes") => reaped.sandboxes += 1,
                    (Ok(()), "snapshots") => reaped.snapshots += 1,
                    (Ok(()), _) => reaped.images += 1,
                }
            }
        }
        match first {
            Some(error) => Err(error),
            None => Ok(reaped),
        }
    }
}

impl DiskImage {
    fn of(shown: &Value) -> Self {
        Self {
            id: text(shown, "id"),
            status: text(&shown["status"], "state"),
            labels: labels(shown),
        }
    }
}

impl Volume {
    fn of(shown: &Value) -> Self {
        let name = shown["volumeName"].as_str().or(shown["name"].as_str());
        Self {
            name: name.unwrap_or_default().to_owned(),
            kind: match shown["type"].as_str().unwrap_or_default() {
                "AzureBlob" => VolumeKind::AzureBlob,
                "DataDisk" => VolumeKind::DataDisk(text(shown, "size")),
                other => VolumeKind::Other(other.to_owned()),
            },
        }
    }
}
