//! Snapshots: the files as an image, in an archive on the host or in a registry.
//!
//! Invariant: an archive has its name only when it is whole; no environment of the sandbox goes
//! into a snapshot, so that no secret does.

use std::path::PathBuf;

use sandbox_core::backend::blocking;
use sandbox_core::{Error, ErrorKind, Operation, Result, Snapshot, SnapshotId, SnapshotOptions};

use crate::config::options::Snapshots;
use crate::guest::stage::OwnDir;
use crate::sandbox::DaggerSandbox;
use crate::sandbox::shared::Shared;
use crate::session::client::SMALL_ANSWER;
use crate::session::failure::Failed;
use crate::session::login::signed_in;
use crate::session::nonce::nonce;
use crate::session::query;

const OP: Operation = Operation::Snapshot;
/// Each label makes the query one level deeper.
const MAX_LABELS: usize = 64;

/// Keeps the files of a sandbox as of now.
pub(crate) async fn take(sandbox: &DaggerSandbox, options: &SnapshotOptions) -> Result<Snapshot> {
    if options.labels.len() > MAX_LABELS {
        return Err(Error::new(ErrorKind::LimitExceeded, OP)
            .with_message(format!("more than {MAX_LABELS} labels")));
    }
    let labelled = |mut below: String| {
        for (key, value) in &options.labels {
            let (key, value) = (query::string(key), query::string(value));
            below = format!("withLabel(name: {key}, value: {value}) {{ {below} }}");
        }
        below
    };
    let head = sandbox.chain.head();
    let name = nonce();
    if let Snapshots::Registry(repository) = &sandbox.shared.config.snapshots {
        let address = format!("{repository}:{name}");
        let below = labelled(format!("publish(address: {})", query::string(&address)));
        let (session, config) = (&sandbox.session, &sandbox.shared.config);
        let below = signed_in(session, config, &address, OP, below).await;
        let below = below.map_err(|not_made| not_made.error(OP))?;
        let query = query::on_container(&head.id, &below);
        let answer = sandbox.ask(&query, OP, SMALL_ANSWER, sandbox.patience());
        let answer = answer.await?;
        let reference = query::find(&answer, "publish")
            .ok_or_else(|| Failed::Garbage("no reference".into()).error(OP))?;
        return Ok(Snapshot::new(SnapshotId::new(reference)));
    }
    let shared = sandbox.shared.clone();
    let (id, half) = (format!("{name}.tar"), format!(".{name}.partial"));
    let dir = blocking(OP, move || directory(&shared)).await?;
    let (half, whole) = (Half(dir.join(half)), dir.join(&id));
    let path = query::string(&half.0.to_string_lossy());
    let below = labelled(format!("asTarball {{ export(path: {path}) }}"));
    let query = query::on_container(&head.id, &below);
    let asked = sandbox.ask(&query, OP, SMALL_ANSWER, sandbox.patience());
    asked.await?;
    blocking(OP, move || {
        let failed = |error| Error::from_io(error, OP).with_host_path(&half.0);
        let size = std::fs::metadata(&half.0).map_err(failed)?.len();
        std::fs::rename(&half.0, whole).map_err(failed)?;
        let mut snapshot = Snapshot::new(SnapshotId::new(id));
        snapshot.size = Some(size);
        Ok(snapshot)
    })
    .await
}

/// An archive that may not be whole. It is removed unless it has got its final name.
struct Half(PathBuf);

impl Drop for Half {
    fn drop(&mut self) {
        // It has another name if all went well.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The directory of the archives.
fn directory(shared: &Shared) -> Result<PathBuf> {
    if let Snapshots::Tarballs(dir) = &shared.config.snapshots {
        let failed = |error| Error::from_io(error, OP).with_host_path(dir);
        std::fs::create_dir_all(dir).map_err(failed)?;
        return std::path::absolute(dir).map_err(failed);
    }
    if shared.temporary.get().is_none() {
        let dir = OwnDir::new().map_err(|error| Error::from_io(error, OP))?;
        // Another one may have been quicker; this one then goes at once.
        let _ = shared.temporary.set(dir);
    }
    let dir = shared.temporary.get().map(|dir| dir.path().to_owned());
    dir.ok_or_else(|| Error::new(ErrorKind::Other, OP))
}
