//! The record of a lasting sandbox on disk.
//!
//! It comes and goes by one rename and one unlink: whenever the process is killed, the sandbox is
//! there whole or is collected. Must never hold a secret, and never be believed if another user could
//! have written it.

use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sandbox_core::backend::Settings;
use sandbox_core::{Env, GuestPath, SandboxId, SandboxInfo, SandboxSpec, SandboxStatus};
use serde::{Deserialize, Serialize};

/// The name of the record in the directory of its sandbox.
pub(crate) const KEPT: &str = "kept";

/// Beginning of the names of the directories of lasting sandboxes.
pub(crate) const LASTING: &str = "k-";

/// Form of the record; another one is not read.
const VERSION: u32 = 1;

/// The largest record, in bytes: a larger one is neither written nor read.
pub(super) const LARGEST: u64 = 16 << 20;

/// Everything about a lasting sandbox that is not in its layers.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(super) version: u32,
    pub(super) id: SandboxId,
    pub(super) created: SystemTime,
    /// Without its environment.
    pub(super) spec: SandboxSpec,
    pub(super) workdir: GuestPath,
    /// Variables that are not secret.
    pub(super) env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Layers of the image below, the topmost first.
    pub(super) image: Vec<String>,
    /// Layers of its own, the topmost first; the guest writes into the first.
    pub(super) layers: Vec<String>,
    /// The init of its last run.
    pub(super) init: Option<Process>,
    /// The process that had it open last.
    pub(super) host: u32,
}

/// Without the values of its environment, as everywhere.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("id", &self.id)
            .field("layers", &self.layers)
            .field("init", &self.init)
            .finish_non_exhaustive()
    }
}

/// A process that can be told from a later one with its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pid: u32,
    started: u64,
    boot: String,
}

impl Process {
    pub(super) fn of(pid: u32) -> Option<Self> {
        Some(Self {
            pid,
            started: started(pid)?,
            boot: boot()?,
        })
    }

    pub(super) fn is_alive(&self) -> bool {
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

impl Record {
    /// The record of a new sandbox, without its layers.
    pub(crate) fn new(id: &SandboxId, spec: &SandboxSpec, settings: &Settings) -> Self {
        let mut spec = spec.clone();
        spec.env = Env::new();
        let mut record = Self {
            version: VERSION,
            id: id.clone(),
            created: SystemTime::now(),
            spec,
            workdir: settings.workdir.clone(),
            env: Vec::new(),
            image: Vec::new(),
            layers: Vec::new(),
            init: None,
            host: std::process::id(),
        };
        record.set(settings);
        record
    }

    pub(super) fn set(&mut self, settings: &Settings) {
        self.workdir = settings.workdir.clone();
        let plain = settings.env.iter().filter(|(_, value)| !value.is_secret);
        self.env = plain
            .map(|(name, value)| (name.clone(), value.value.expose().to_vec()))
            .collect();
    }

    pub(super) fn settings(&self) -> Settings {
        let env = self.env.iter().cloned();
        let env: Env = env.collect();
        Settings::new(self.workdir.clone(), &env)
    }

    pub(super) fn info(&self, status: SandboxStatus) -> SandboxInfo {
        let mut info = SandboxInfo::new(self.id.clone(), "local", self.workdir.clone())
            .labels(self.spec.labels.clone())
            .command_timeout(self.spec.command_timeout)
            .lasting(true)
            .status(status);
        info.created = self.created;
        info
    }
}

/// Replaces the record in a directory. After a power cut it is the old one or the new one.
///
/// # Errors
/// [`io::ErrorKind::FileTooLarge`] for one that could not be read again.
pub(super) fn write(dir: &Path, record: &Record) -> io::Result<()> {
    let text = serde_json::to_vec(record).map_err(io::Error::other)?;
    if text.len() as u64 > LARGEST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
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
    // Before it has the name: all files of the sandbox are lost without it.
    file.sync_data()?;
    fs::rename(&new, dir.join(KEPT))
}

/// Removes the record in a directory, if there is one.
pub(super) fn forget(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(KEPT)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Reads the record in a directory; `None` if there is none. As root a guest's user owns the
/// directory, so that only a file of this process's user is believed.
pub(super) fn read(dir: &Path) -> io::Result<Option<Record>> {
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
