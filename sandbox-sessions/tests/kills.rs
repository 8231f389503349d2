//! A process that is killed at any moment loses no session and leaves no sandbox behind.
//!
//! The test runs itself as a child that creates and closes sessions as fast as it can, kills it,
//! and looks at what the next process finds. `SANDBOX_KILLS` sets how often; 12 by default.
#![allow(clippy::panic, clippy::unwrap_used, clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use sandbox_core::{
    Capabilities, Capability, Command, CreateDirOptions, DirEntry, Error, ErrorKind, FileBatch,
    FileKind, GuestPath, Labels, ListOptions, Metadata, Mode, Operation, Output, Provider,
    ReadOptions, RemoveOptions, RenameOptions, Result, Sandbox, SandboxId, SandboxInfo,
    SandboxSpec, async_trait,
};
use sandbox_sessions::{Filter, Pool, Sessions, SessionsConfig, ShutdownOptions};

/// A service whose sandboxes are directories: they outlive every process.
#[derive(Clone, Debug)]
struct Service(PathBuf);

#[derive(Debug)]
struct Remote {
    place: PathBuf,
    info: SandboxInfo,
}

const CAPABILITIES: Capabilities = Capabilities::none("a test").with_each(&[
    Capability::List,
    Capability::Attach,
    Capability::NetworkOff,
]);

fn failed(error: std::io::Error, operation: Operation) -> Error {
    Error::from_io(error, operation)
}

impl Service {
    fn info(&self, name: &str) -> Option<SandboxInfo> {
        let labels = std::fs::read(self.0.join(name).join("labels")).ok()?;
        let labels: Labels = serde_json::from_slice(&labels).ok()?;
        let info = SandboxInfo::new(SandboxId::new(name), "service", GuestPath::root());
        Some(info.labels(labels))
    }

    fn names(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.starts_with('.')).collect()
    }

    fn remove(&self, name: &str) -> std::io::Result<()> {
        // At once, as a service would.
        let away = self.0.join(format!(".gone-{name}"));
        std::fs::rename(self.0.join(name), &away)?;
        std::fs::remove_dir_all(away)
    }
}

#[async_trait]
impl Provider for Service {
    fn backend(&self) -> &str {
        "service"
    }
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }
    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        let made = tempfile::Builder::new().prefix(".new-").tempdir_in(&self.0);
        let made = made.map_err(|e| failed(e, Operation::Create))?.keep();
        let labels = serde_json::to_vec(&spec.labels).unwrap();
        std::fs::write(made.join("labels"), labels).map_err(|e| failed(e, Operation::Create))?;
        let name = made
            .file_name()
            .unwrap()
            .to_string_lossy()
            .replace(".new-", "sb-");
        std::fs::rename(&made, self.0.join(&name)).map_err(|e| failed(e, Operation::Create))?;
        // The time that an answer takes: long enough to be killed in.
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.attach(&SandboxId::new(name)).await
    }
    async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
        let missing = || Error::new(ErrorKind::NotFound, Operation::Attach);
        let info = self.info(id.as_str()).ok_or_else(missing)?;
        let place = self.0.clone();
        Ok(Arc::new(Remote { place, info }))
    }
    async fn list(&self, labels: &Labels) -> Result<Vec<SandboxInfo>> {
        let all = self.names().into_iter().filter_map(|name| self.info(&name));
        let fits = |info: &SandboxInfo| labels.iter().all(|(k, v)| info.labels.get(k) == Some(v));
        Ok(all.filter(fits).collect())
    }
    async fn destroy(&self, id: &SandboxId) -> Result<()> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.remove(id.as_str())
            .map_err(|e| failed(e, Operation::Destroy))
    }
}

fn none<T>(operation: Operation) -> Result<T> {
    Err(Error::unsupported(operation, operation, "a test"))
}

#[async_trait]
impl Sandbox for Remote {
    fn info(&self) -> SandboxInfo {
        self.info.clone()
    }
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }
    async fn exec(&self, _: Command) -> Result<Output> {
        none(Operation::Exec)
    }
    async fn write_files(&self, _: FileBatch) -> Result<()> {
        none(Operation::WriteFiles)
    }
    async fn read_file(&self, _: &GuestPath, _: ReadOptions) -> Result<bytes::Bytes> {
        none(Operation::ReadFile)
    }
    async fn list_dir(&self, _: &GuestPath, _: ListOptions) -> Result<Vec<DirEntry>> {
        none(Operation::ListDir)
    }
    async fn metadata(&self, _: &GuestPath, _: sandbox_core::MetadataOptions) -> Result<Metadata> {
        match self.place.join(self.info.id.as_str()).exists() {
            true => Ok(Metadata::new(FileKind::Directory, 0, Mode::EXECUTABLE)),
            false => Err(Error::new(ErrorKind::Lost, Operation::Metadata)),
        }
    }
    async fn remove(&self, _: &GuestPath, _: RemoveOptions) -> Result<()> {
        none(Operation::Remove)
    }
    async fn create_dir(&self, _: &GuestPath, _: CreateDirOptions) -> Result<()> {
        none(Operation::CreateDir)
    }
    async fn rename(&self, _: &GuestPath, _: &GuestPath, _: RenameOptions) -> Result<()> {
        none(Operation::Rename)
    }
    async fn close(&self) -> Result<()> {
        Service(self.place.clone()).destroy(&self.info.id).await
    }
}

fn service(place: &Path) -> Service {
    Service(place.join("service"))
}

fn config(place: &Path) -> SessionsConfig {
    SessionsConfig::new().journal(place.join("journal"))
}

/// Numbers that differ from round to round and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn spec(shape: u64) -> SandboxSpec {
    SandboxSpec::new().env("SHAPE", shape.to_string())
}

/// Creates and closes sessions until it is killed, and says what it was told.
async fn child(place: &Path, seed: u64) {
    let config = config(place).pool(Pool::new(spec(0), 2));
    let sessions = Sessions::open(Arc::new(service(place)), config)
        .await
        .unwrap();
    let tasks: Vec<_> = (0..3)
        .map(|tenant| {
            let sessions = sessions.clone();
            let mut numbers = Numbers(seed * 3 + tenant + 1);
            tokio::spawn(async move {
                let tenant = format!("t{tenant}");
                loop {
                    let key = format!("k{}", numbers.below(4));
                    if numbers.below(3) == 0 {
                        say(&format!("closing {tenant} {key}"));
                        sessions.close(tenant.as_str(), key.as_str()).await.unwrap();
                        say(&format!("closed {tenant} {key}"));
                        continue;
                    }
                    // The key decides the shape, so that there are no conflicts.
                    let shape = key.as_bytes()[1] as u64 % 2;
                    let made = sessions.get_or_create(tenant.as_str(), key.as_str(), spec(shape));
                    let id = made.await.unwrap().sandbox().info().id;
                    say(&format!("live {tenant} {key} {id}"));
                }
            })
        })
        .collect();
    if let Some(first) = tasks.into_iter().next() {
        first.await.unwrap();
    }
}

/// One line at once.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Kills a child after a while; gives what it had said.
fn kill_one(place: &Path, seed: u64, after: Duration) -> Vec<String> {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .env("SANDBOX_KILLS_CHILD", seed.to_string())
        .env("SANDBOX_KILLS_PLACE", place)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let lines = BufReader::new(stdout).lines();
        lines.map_while(std::result::Result::ok).collect::<Vec<_>>()
    });
    // The moment of the kill is what is varied here; nothing is waited for.
    std::thread::sleep(after);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(
        status.code().is_none(),
        "the child ended by itself: {status}"
    );
    reader.join().unwrap()
}

/// Sandboxes that were created and whose creation was not written down any more: only their mark says
/// whose they are.
fn unwritten(place: &Path) -> BTreeSet<String> {
    let journal = std::fs::read(place.join("journal/journal")).unwrap_or_default();
    let journal = String::from_utf8_lossy(&journal);
    let mut names = service(place).names();
    names.retain(|name| !journal.contains(&format!("\"{name}\"")));
    names
}

async fn look(place: &Path, live: &mut BTreeMap<String, Option<String>>) -> (usize, usize) {
    let unwritten = unwritten(place);
    let sessions = Sessions::open(Arc::new(service(place)), config(place))
        .await
        .unwrap();
    sessions.sweep().await;
    let found: BTreeMap<String, String> = sessions
        .list(&Filter::new())
        .into_iter()
        .map(|info| {
            let sandbox = info.sandbox.unwrap().to_string();
            (format!("{} {}", info.tenant, info.key), sandbox)
        })
        .collect();
    for (name, sandbox) in live.iter() {
        // One that was just being closed may be there or not.
        if let Some(sandbox) = sandbox {
            assert_eq!(found.get(name), Some(sandbox), "{name} is lost; {found:?}");
        }
    }
    let there = service(place).names();
    for name in &unwritten {
        assert!(
            !there.contains(name),
            "{name} has only its mark, and is left"
        );
    }
    let had: BTreeSet<String> = found.values().cloned().collect();
    assert_eq!(there, had, "sandboxes and sessions differ");
    *live = found
        .iter()
        .map(|(name, sandbox)| (name.clone(), Some(sandbox.clone())))
        .collect();
    let options = ShutdownOptions::new().keep(true);
    sessions.shutdown(options).await.unwrap();
    (found.len(), unwritten.len())
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    if let Ok(seed) = std::env::var("SANDBOX_KILLS_CHILD") {
        let place = PathBuf::from(std::env::var_os("SANDBOX_KILLS_PLACE").unwrap());
        runtime.block_on(child(&place, seed.parse().unwrap()));
        return ExitCode::SUCCESS;
    }
    let kills: u64 = std::env::var("SANDBOX_KILLS").map_or(12, |kills| kills.parse().unwrap());
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("service")).unwrap();
    let mut live = BTreeMap::new();
    let mut numbers = Numbers(88_172_645_463_325_252);
    let (mut said, mut kept, mut marked) = (0, 0, 0);
    for round in 0..kills {
        let after = Duration::from_millis(5 + numbers.below(120));
        let lines = kill_one(place.path(), round, after);
        said += lines.len();
        for line in lines {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["live", tenant, key, id] => {
                    live.insert(format!("{tenant} {key}"), Some(id.to_owned()));
                }
                ["closing", tenant, key] => {
                    live.insert(format!("{tenant} {key}"), None);
                }
                ["closed", tenant, key] => {
                    live.remove(&format!("{tenant} {key}"));
                }
                _ => panic!("{line:?}"),
            }
        }
        let (found, by_mark) = runtime.block_on(look(place.path(), &mut live));
        (kept, marked) = (kept + found, marked + by_mark);
    }
    println!(
        "{kills} kills, {said} answers before them, {kept} sessions found again, {marked} sandboxes \
         found by their mark alone"
    );
    // In a few rounds no kill may come between a creation and its record.
    assert!(kills < 100 || marked > 0, "no kill came within a creation");
    assert!(said > 0 && kept > 0, "the child was never given time");
    ExitCode::SUCCESS
}
