//! Taking a snapshot of a sandbox.
//!
//! Must never pack a layer into which something can still write, or the value of a secret.

use std::time::{SystemTime, UNIX_EPOCH};

use sandbox_core::backend::Settings;
use sandbox_core::{Error, ErrorKind, Labels, Operation, Result, Snapshot, SnapshotId, Source};
use sandbox_oci::{ImageConfig, NewImage};

use super::{NOTE, Snapshots, pack, this_host};
use crate::layers::stack::Stack;
use crate::random;
use crate::start::blueprint::Blueprint;
use crate::start::host::Host;
use crate::walk::{Cancel, Limits, Stop};

impl Snapshots {
    /// Packs the layers of a sandbox that nothing writes any more, and names them. Blocks.
    pub(crate) fn take(
        &self,
        host: &Host,
        blueprint: &Blueprint,
        stack: &Stack,
        settings: &Settings,
        labels: Labels,
        cancel: &Cancel,
    ) -> Result<Snapshot> {
        const OP: Operation = Operation::Snapshot;
        let failed = |error| self.failed(error, OP);
        let origin = match &blueprint.spec.source {
            Source::RootDir(_) => {
                let why = "the root directory is the host's and would not be in it";
                return Err(
                    Error::unsupported(OP, "a snapshot of this sandbox", why).with_hint(
                        "start the sandbox from an image, or export the directories you need",
                    ),
                );
            }
            _ if blueprint.is_of_host() => "host",
            _ => "image",
        };
        let layout = self.layout(OP)?;
        let in_use = layout.use_blobs().map_err(failed)?;
        let limits = Limits::of(&host.config);
        let mut blobs = Vec::new();
        let image = blueprint.image.iter().flat_map(|image| image.cached());
        let image = image.map(|layer| {
            let blob = layer.blob.as_ref();
            let there = blob.and_then(|blob| layout.find(blob, &layer.diff));
            (layer.root.clone(), there)
        });
        let frozen = stack
            .layers()
            .iter()
            .map(|layer| (layer.path().to_owned(), None));
        for (path, there) in frozen.chain(image) {
            let known = self.known(&path).filter(|blob| layout.has(blob));
            let known = there.or(known);
            let blob = match known {
                Some(blob) => blob,
                None => {
                    let out = layout.write_blob(&in_use).map_err(failed)?;
                    let packed = pack::layer(&path, out, host.guest_user, limits, cancel);
                    let blob = packed.map_err(|stop| self.not_packed(stop))?;
                    self.note(path, blob.clone());
                    blob
                }
            };
            blobs.push(blob);
        }
        blobs.reverse();
        let mut secret = Vec::new();
        let mut config = ImageConfig::default();
        for (name, value) in &settings.env {
            let text = std::str::from_utf8(name).ok();
            let pair = text.zip(std::str::from_utf8(value.value.expose()).ok());
            match pair {
                Some((name, _)) if value.is_secret => secret.push(name),
                Some((name, value)) => config.env.push(format!("{name}={value}")),
                None => tracing::warn!("a variable that is not UTF-8 is not in the snapshot"),
            }
        }
        config.working_dir = settings.workdir.to_string_lossy().into_owned();
        config.labels.clone_from(&labels);
        let created = SystemTime::now();
        let since = created.duration_since(UNIX_EPOCH).unwrap_or_default();
        let id = random::hex().map_err(failed)?;
        let id = id.get(..16).unwrap_or_default();
        let encoded = serde_json::to_string(&labels).unwrap_or_default();
        let image = NewImage::new(config, blobs)
            .annotation(format!("{NOTE}created"), since.as_millis().to_string())
            .annotation(format!("{NOTE}origin"), origin)
            .annotation(format!("{NOTE}host"), this_host(&host.system_dirs))
            .annotation(format!("{NOTE}secrets"), secret.join(","))
            .annotation(format!("{NOTE}labels"), encoded);
        let saved = layout.save(id, image, &in_use).map_err(failed)?;
        let size = layout.size(&saved)?;
        Ok(Snapshot::new(SnapshotId::new(id))
            .size(size)
            .labels(labels)
            .created(created))
    }

    fn not_packed(&self, stop: Stop) -> Error {
        let error = stop.into_error(Operation::Snapshot, "the sandbox's files can't be packed");
        match error.kind() {
            ErrorKind::StorageFull => error
                .with_host_path(&self.dir)
                .with_hint("delete snapshots that are not needed, or choose another LocalConfig::snapshots_dir"),
            _ => error,
        }
    }
}
