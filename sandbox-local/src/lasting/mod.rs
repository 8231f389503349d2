//! Lasting sandboxes: the record of one on disk, and how its directory is taken up again.
//!
//! The record names the layers, so it is replaced before anything is written into a layer that it does
//! not name, and before a layer that it names goes. It comes and goes by one rename and one unlink:
//! whenever the process is killed, the sandbox is there whole or is collected. Must never hold a
//! secret, and never name a layer of a fork.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use sandbox_core::backend::Settings;
use sandbox_core::{
    EgressPolicy, Env, Error, ErrorKind, GuestPath, Labels, Network, Operation, Result, SandboxId,
    SandboxInfo, SandboxSpec, SandboxStatus, SnapshotId, Source,
};
use serde::{Deserialize, Serialize};

use crate::config::LocalConfig;
use crate::guest_user::GuestUser;
use crate::layers::stack::Stack;
use crate::layers::{KEPT, LASTING, Layer, State, base, open_lease};
use crate::start::blueprint::Blueprint;
use crate::start::host::Host;

/// Form of the record; another one is not read.
const VERSION: u32 = 1;

/// The largest record that is read.
const LARGEST: u64 = 16 << 20;

/// Time that a lease is waited for which another process holds: as long as a list looks at it.
const GLANCE: Duration = Duration::from_millis(300);

/// Time that this process gets to let go of what it had open.
const LETTING_GO: Duration = Duration::from_secs(5);

/// Time that the processes of the run before get to end.
const DYING: Duration = Duration::from_secs(5);

const POLL: Duration = Duration::from_millis(5);

/// Everything about a lasting sandbox that is not in its layers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    id: SandboxId,
    created: SystemTime,
    /// Without its environment.
    spec: SandboxSpec,
    workdir: GuestPath,
    /// Variables that are not secret.
    env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Layers of the image below, the topmost first.
    image: Vec<String>,
    /// Layers of its own, the topmost first; the guest writes into the first.
    layers: Vec<String>,
    /// The init of its last run.
    init: Option<Process>,
    /// The process that had it open last.
    host: u32,
}

/// A process that can be told from a later one with its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    pid: u32,
    started: u64,
    boot: String,
}

impl Process {
    fn of(pid: u32) -> Option<Self> {
        Some(Self {
            pid,
            started: started(pid)?,
            boot: boot()?,
        })
    }

    fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }
}

/// The start of a process in ticks since the boot, unless it is dead: proc_pid_stat(5), field 22.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may have anything in it.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn boot() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(boot.trim().to_owned())
}

/// The record of a sandbox that is open here, and the layers that it names.
#[derive(Debug)]
pub(crate) struct Kept {
    state: Arc<State>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    record: Record,
    layers: Vec<Arc<Layer>>,
    /// Whether it was closed: the record must not come back.
    forgotten: bool,
}

/// A record that is removed unless the sandbox is handed out.
pub(crate) struct Unclaimed(Option<Arc<Kept>>);

impl Unclaimed {
    /// Keeps it from now on.
    pub(crate) fn claim(mut self) -> Option<Arc<Kept>> {
        self.0.take()
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(kept) = &self.0
            && let Err(error) = kept.forget()
        {
            tracing::warn!(%error, "a sandbox that was not handed out stays on the disk");
        }
    }
}

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
    let base_layer = base::build(&state, &config.system_dirs, &config.settings, guest_user)?;
    let config = config.clone().prepared(0);
    Host::new(config, state, guest_user, base_layer)
}

fn unusable(error: io::Error, path: &Path, operation: Operation) -> Error {
    let message = format!("the directory of the lasting sandbox can't be used: {error}");
    Error::from_io(error, operation)
        .with_message(message)
        .with_host_path(path)
}

impl Kept {
    /// Writes down a new sandbox whose first run is ready.
    pub(crate) fn create(
        host: &Host,
        id: &SandboxId,
        blueprint: &Blueprint,
        settings: &Settings,
        layers: Vec<Arc<Layer>>,
        init: u32,
    ) -> Result<(Arc<Self>, Unclaimed)> {
        let mut spec = blueprint.spec.clone();
        spec.env = Env::new();
        let mut record = Record {
            version: VERSION,
            id: id.clone(),
            created: SystemTime::now(),
            spec,
            workdir: settings.workdir.clone(),
            env: Vec::new(),
            image: chains(blueprint),
            layers: names(&layers),
            init: Process::of(init),
            host: std::process::id(),
        };
        record.set(settings);
        let kept = Arc::new(Self::new(host.state.clone(), record, layers));
        kept.rewrite(Operation::Create, |_| None)?;
        Ok((kept.clone(), Unclaimed(Some(kept))))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Replaced whole: a panic elsewhere leaves it valid.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new(state: Arc<State>, record: Record, layers: Vec<Arc<Layer>>) -> Self {
        let inner = Mutex::new(Inner {
            record,
            layers,
            forgotten: false,
        });
        Self { state, inner }
    }

    /// Replaces the record by one that differs so, and the layers by those that it gives.
    fn rewrite(
        &self,
        operation: Operation,
        change: impl FnOnce(&mut Record) -> Option<Vec<Arc<Layer>>>,
    ) -> Result<()> {
        let mut inner = self.inner();
        if inner.forgotten {
            return Err(Error::closed(operation, &inner.record.id));
        }
        let mut record = inner.record.clone();
        let layers = change(&mut record);
        {
            // Held: no layer goes between the two.
            let mut kept = self.state.kept();
            write(self.state.dir(), &record)
                .map_err(|error| unusable(error, self.state.dir(), operation))?;
            *kept = Some(record.layers.clone());
        }
        inner.record = record;
        if let Some(layers) = layers {
            inner.layers = layers;
        }
        Ok(())
    }

    /// Writes down the layers, the topmost first, and the init of a new run on them. Blocks.
    pub(crate) fn stacked(
        &self,
        layers: Vec<Arc<Layer>>,
        init: Option<u32>,
        operation: Operation,
    ) -> Result<()> {
        self.rewrite(operation, |record| {
            record.layers = names(&layers);
            if let Some(init) = init {
                record.init = Process::of(init);
            }
            Some(layers)
        })
    }

    /// Writes down the workdir and the environment. Blocks.
    pub(crate) fn set(&self, settings: &Settings, operation: Operation) -> Result<()> {
        self.rewrite(operation, |record| {
            record.set(settings);
            None
        })
    }

    /// Writes down a narrower egress policy. Blocks.
    pub(crate) fn restrict(&self, policy: EgressPolicy, operation: Operation) -> Result<()> {
        self.rewrite(operation, |record| {
            record.spec.network = Network::Allow(policy);
            None
        })
    }

    /// Removes the record, for good: the directory goes with the last use. One unlink.
    pub(crate) fn forget(&self) -> io::Result<()> {
        let mut inner = self.inner();
        forget(self.state.dir())?;
        inner.forgotten = true;
        *self.state.kept() = None;
        inner.layers.clear();
        Ok(())
    }

    /// Notes that it is in use, for the time to live after this process is gone.
    pub(crate) fn touch(&self) {
        let now = File::open(self.state.dir().join("lease"));
        if let Err(error) = now.and_then(|lease| lease.set_modified(SystemTime::now())) {
            tracing::debug!(%error, "the last use of a lasting sandbox was not noted");
        }
    }

    /// Spec, settings and layers to start it again with, as soon as nothing of the run before can
    /// write. Blocks.
    pub(crate) fn to_start(&self) -> Result<(SandboxSpec, Settings, Stack)> {
        const OP: Operation = Operation::Attach;
        let (record, layers) = {
            let inner = self.inner();
            (inner.record.clone(), inner.layers.clone())
        };
        let until = Instant::now() + DYING;
        while record.init.as_ref().is_some_and(Process::is_alive) {
            if Instant::now() > until {
                return Err(Error::new(ErrorKind::Busy, OP)
                    .with_message("processes of its last run have not ended yet")
                    .with_hint("try again: they were killed and wait in the kernel")
                    .with_retryable(true));
            }
            thread::sleep(POLL);
        }
        let stack = layers
            .into_iter()
            .rev()
            .fold(Stack::default(), |stack, layer| stack.with(layer));
        Ok((record.spec.clone(), record.settings(), stack))
    }

    /// Checks that what its layers lie on is what they did.
    pub(crate) fn check(&self, blueprint: &Blueprint) -> Result<()> {
        if self.inner().record.image == chains(blueprint) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Conflict, Operation::Attach)
            .with_message(
                "its image is another one by now, and its files are changes to the one before",
            )
            .with_hint("bring back the image that it was created from, or destroy the sandbox"))
    }

    pub(crate) fn created(&self) -> SystemTime {
        self.inner().record.created
    }
}

impl Record {
    fn set(&mut self, settings: &Settings) {
        self.workdir = settings.workdir.clone();
        let plain = settings.env.iter().filter(|(_, value)| !value.is_secret);
        self.env = plain
            .map(|(name, value)| (name.clone(), value.value.expose().to_vec()))
            .collect();
    }

    fn settings(&self) -> Settings {
        let env = self.env.iter().cloned();
        let env: Env = env.collect();
        Settings::new(self.workdir.clone(), &env)
    }

    fn info(&self, status: SandboxStatus) -> SandboxInfo {
        let mut info = SandboxInfo::new(self.id.clone(), "local", self.workdir.clone())
            .labels(self.spec.labels.clone())
            .command_timeout(self.spec.command_timeout)
            .lasting(true)
            .status(status);
        info.created = self.created;
        info
    }
}

fn names(layers: &[Arc<Layer>]) -> Vec<String> {
    layers.iter().map(|layer| layer.name().to_owned()).collect()
}

fn chains(blueprint: &Blueprint) -> Vec<String> {
    let image = blueprint.image.iter().flat_map(|image| image.cached());
    image.map(|layer| layer.chain.hex().to_string()).collect()
}

fn write(dir: &Path, record: &Record) -> io::Result<()> {
    let text = serde_json::to_vec(record).map_err(io::Error::other)?;
    let new = dir.join("kept.new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&text)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    fs::rename(&new, dir.join(KEPT))
}

fn forget(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(KEPT)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Reads the record in a directory; `None` if there is none. As root a guest's user owns the
/// directory, so that only a file of this process's user is believed.
fn read(dir: &Path) -> io::Result<Option<Record>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::open(dir.join(KEPT), flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        file => File::from(file?),
    };
    let damaged = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let found = file.metadata()?;
    let own = rustix::process::geteuid().as_raw();
    if !found.is_file() || found.uid() != own || found.mode() & 0o077 != 0 {
        return Err(damaged(
            "its record is not a file of this user alone".into(),
        ));
    }
    let mut text = Vec::new();
    file.take(LARGEST).read_to_end(&mut text)?;
    let record: Record = serde_json::from_slice(&text)
        .map_err(|error| damaged(format!("its record can't be read: {error}")))?;
    let is_number = |name: &String| name.parse::<u32>().is_ok_and(|n| n.to_string() == *name);
    if record.version != VERSION || record.layers.is_empty() {
        return Err(damaged("its record is of another version".into()));
    }
    if !record.layers.iter().all(is_number) {
        return Err(damaged("its record names what is not a layer".into()));
    }
    Ok(Some(record))
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
        let record = match read(&entry.path()) {
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
        let shared = FlockOperation::NonBlockingLockShared;
        let is_free = open_lease(&entry.path()).is_ok_and(|lease| flock(&lease, shared).is_ok());
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
        read(&entry.path()).ok()?
    };
    let mut records = entries.flatten().filter_map(record);
    let found = records
        .find(|record| matches!(&record.spec.source, Source::Snapshot(id) if id == snapshot));
    found.map(|record| record.id)
}

/// Takes the lease of a lasting sandbox, and reads its record. Blocks.
fn hold(dir: &Path, id: &SandboxId, operation: Operation) -> Result<(File, Record)> {
    let failed = |error| unusable(error, dir, operation).with_sandbox(id.clone());
    let gone = || {
        Error::new(ErrorKind::NotFound, operation)
            .with_message("there is no such sandbox any more")
            .with_sandbox(id.clone())
    };
    let begun = Instant::now();
    loop {
        let Some(record) = read(dir).map_err(failed)? else {
            return Err(gone());
        };
        let lease = match open_lease(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(gone()),
            lease => lease.map_err(failed)?,
        };
        match flock(lease.as_fd(), FlockOperation::NonBlockingLockExclusive) {
            // What was read before may have been replaced, or removed, by the holder before.
            Ok(()) => match read(dir).map_err(failed)? {
                Some(record) => return Ok((lease, record)),
                None => return Err(gone()),
            },
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(errno) => return Err(failed(errno.into())),
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
    let kept = Kept::new(state, record, layers);
    kept.rewrite(OP, |record| {
        record.host = std::process::id();
        None
    })?;
    kept.touch();
    host.keep(Arc::new(kept));
    Ok(host)
}

/// Removes a lasting sandbox that nothing has open. Blocks for the record; the rest goes in the
/// background.
pub(crate) fn remove(dir: &Path, id: &SandboxId) -> Result<()> {
    const OP: Operation = Operation::Destroy;
    let failed = |error| unusable(error, dir, OP).with_sandbox(id.clone());
    let (lease, _) = hold(dir, id, OP)?;
    forget(dir).map_err(failed)?;
    let state = State::take_up(dir.to_owned(), lease, Vec::new()).map_err(failed)?;
    *state.kept() = None;
    Ok(())
}

/// Whether the time to live of a lasting sandbox has passed since it was last in use. Its processes
/// noted that at least once in each such time.
pub(crate) fn has_expired(dir: &Path) -> bool {
    let ttl = read(dir).ok().flatten().and_then(|record| record.spec.ttl);
    let Some(ttl) = ttl else {
        return false;
    };
    let used = fs::symlink_metadata(dir.join("lease")).and_then(|lease| lease.modified());
    let since = used.ok().and_then(|used| used.elapsed().ok());
    since.is_some_and(|since| since > ttl.saturating_mul(2))
}

/// Removes the record of a lasting sandbox whose lease the caller holds, if its time has passed;
/// says whether there is none.
pub(crate) fn forget_if_expired(dir: &Path) -> bool {
    match dir.join(KEPT).symlink_metadata() {
        Err(error) => error.kind() == io::ErrorKind::NotFound,
        Ok(_) => has_expired(dir) && forget(dir).is_ok(),
    }
}
