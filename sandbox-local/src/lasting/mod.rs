//! Lasting sandboxes: how the directory of one is made, found, taken up again and removed.
//!
//! Must never touch the directory of one whose lease another process holds.

pub(crate) mod kept;
pub(crate) mod record;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sandbox_core::backend::FileLock;
use sandbox_core::{
    Error, ErrorKind, Labels, Network, Operation, Result, SandboxId, SandboxInfo, SandboxSpec,
    SandboxStatus, SnapshotId, Source,
};

use crate::config::LocalConfig;
use crate::guest_user::GuestUser;
use crate::layers::{Layer, State, open_lease};
use crate::start::host::Host;
use kept::Kept;
use kept::unusable;
use record::{KEPT, LASTING, Record};

/// Time that a lease is waited for which another process holds: as long as a list looks at it.
const GLANCE: Duration = Duration::from_millis(300);

/// Time that this process gets to let go of what it had open.
const LETTING_GO: Duration = Duration::from_secs(5);

/// Pause between two tries to take a lease.
const POLL: Duration = Duration::from_millis(5);

/// Refuses what of a spec can't last.
pub(crate) fn check(spec: &SandboxSpec) -> Result<()> {
    const OP: Operation = Operation::Create;
    if spec.resources.disk.is_some() {
        let why = "what is written below a limit on disk is kept in memory";
        return Err(Error::unsupported(OP, "a lasting sandbox", why)
            .with_hint("leave out the limit on disk, or take snapshots"));
    }
    if matches!(&spec.network, Network::Allow(policy) if policy.has_credentials()) {
        let why = "credentials of its egress policy would have to be written to the disk";
        return Err(Error::unsupported(OP, "a lasting sandbox", why));
    }
    Ok(())
}

/// The host side of a new lasting sandbox, in a directory of its own. Blocks.
pub(crate) fn new_host(config: &LocalConfig, id: &SandboxId) -> Result<Host> {
    let failed = |error| unusable(error, &config.state_root(), Operation::Create);
    let guest_user = GuestUser::for_this_host().map_err(failed)?;
    let name = format!("{LASTING}{id}");
    let state = State::create_as(&config.state_root(), &name, guest_user).map_err(failed)?;
    host(config, state).map_err(failed)
}

fn host(config: &LocalConfig, state: Arc<State>) -> io::Result<Host> {
    let guest_user = state.owner();
    let config = config.clone().prepared(0);
    Host::new(config, state, guest_user)
}

/// The directory of a lasting sandbox with this identifier, if there is one.
pub(crate) fn find(root: &Path, id: &SandboxId) -> Option<PathBuf> {
    let id = id.as_str();
    let is_ours = id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let dir = root.join(format!("{LASTING}{id}"));
    (is_ours && dir.join(KEPT).symlink_metadata().is_ok()).then_some(dir)
}

/// The lasting sandboxes of a state directory that have all of these labels and that `is_open` does not
/// name. Blocks.
pub(crate) fn list(
    root: &Path,
    labels: &Labels,
    is_open: impl Fn(&SandboxId) -> bool,
) -> Vec<SandboxInfo> {
    let Ok(entries) = fs::read_dir(root) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.to_str().is_some_and(|name| name.starts_with(LASTING)) {
            continue;
        }
        let record = match record::read(&entry.path()) {
            Ok(Some(record)) => record,
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!(path = %entry.path().display(), %error, "not listed");
                continue;
            }
        };
        let has = |(key, value)| record.spec.labels.get(key) == Some(value);
        if is_open(&record.id) || !labels.iter().all(has) {
            continue;
        }
        // Shared, so that two lists don't see each other.
        let lease = open_lease(&entry.path()).and_then(FileLock::try_shared);
        let is_free = matches!(lease, Ok(Some(_)));
        found.push(record.info(match is_free {
            true => SandboxStatus::Stopped,
            false => SandboxStatus::OpenElsewhere,
        }));
    }
    found
}

/// A lasting sandbox that started from this snapshot, if there is one. Blocks.
pub(crate) fn based_on(root: &Path, snapshot: &SnapshotId) -> Option<SandboxId> {
    let entries = fs::read_dir(root).ok()?;
    let record = |entry: fs::DirEntry| {
        let name = entry.file_name();
        name.to_str()?.strip_prefix(LASTING)?;
        record::read(&entry.path()).ok()?
    };
    let mut records = entries.flatten().filter_map(record);
    let found = records
        .find(|record| matches!(&record.spec.source, Source::Snapshot(id) if id == snapshot));
    found.map(|record| record.id)
}

/// Takes the lease of a lasting sandbox, and reads its record. Blocks.
fn hold(dir: &Path, id: &SandboxId, operation: Operation) -> Result<(FileLock, Record)> {
    let failed = |error| unusable(error, dir, operation).with_sandbox(id.clone());
    let gone = || {
        Error::new(ErrorKind::NotFound, operation)
            .with_message("there is no such sandbox any more")
            .with_sandbox(id.clone())
    };
    let begun = Instant::now();
    loop {
        let Some(record) = record::read(dir).map_err(failed)? else {
            return Err(gone());
        };
        let lease = match open_lease(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(gone()),
            lease => lease.and_then(FileLock::try_exclusive).map_err(failed)?,
        };
        if let Some(lease) = lease {
            // What was read before may have been replaced, or removed, by the holder before.
            let record = record::read(dir).map_err(failed)?.ok_or_else(gone)?;
            return Ok((lease, record));
        }
        let is_own = record.host == std::process::id();
        let patience = if is_own { LETTING_GO } else { GLANCE };
        if begun.elapsed() > patience {
            let by = match is_own {
                true => {
                    "this process still has it open: through another provider, or by a fork of \
                         it or an operation on its files that is not done"
                        .to_owned()
                }
                false => format!("another process has it open: {}", record.host),
            };
            return Err(Error::new(ErrorKind::Busy, operation)
                .with_message(by)
                .with_hint("drop its handles there, or close it there, which removes it")
                .with_sandbox(id.clone()));
        }
        thread::sleep(POLL);
    }
}

/// Takes up a lasting sandbox that nothing has open. Blocks.
pub(crate) fn take_up(config: &LocalConfig, dir: &Path, id: &SandboxId) -> Result<Host> {
    const OP: Operation = Operation::Attach;
    let failed = |error| unusable(error, dir, OP).with_sandbox(id.clone());
    let (lease, record) = hold(dir, id, OP)?;
    let state = State::take_up(dir.to_owned(), lease, record.layers.clone()).map_err(failed)?;
    let layers = record.layers.iter();
    let layers = layers.map(|name| Layer::kept(&state, name)).collect();
    let host = host(config, state.clone()).map_err(failed)?;
    let kept = Kept::take_up(state, record, layers)?;
    host.keep(Arc::new(kept));
    Ok(host)
}

/// Removes a lasting sandbox that nothing has open. Blocks for the record; the rest goes in the
/// background.
pub(crate) fn remove(dir: &Path, id: &SandboxId) -> Result<()> {
    const OP: Operation = Operation::Destroy;
    let failed = |error| unusable(error, dir, OP).with_sandbox(id.clone());
    let (lease, _) = hold(dir, id, OP)?;
    record::forget(dir).map_err(failed)?;
    let state = State::take_up(dir.to_owned(), lease, Vec::new()).map_err(failed)?;
    *state.kept() = None;
    Ok(())
}
