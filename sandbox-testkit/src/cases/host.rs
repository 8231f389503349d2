//! Cases about the host: its files are not seen inside, and processes and files of a sandbox are
//! not left outside.
//!
//! Everything that must be out of reach is first shown to be there on the host.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sandbox_core::{Command, ErrorKind, GuestPath, SandboxExt as _};
use tempfile::NamedTempFile;
use tokio::io::AsyncReadExt as _;

use super::tools::text;
use crate::kit::{Context, Failed, Verdict, cases, ensure, eventually};

cases! { "host":
    canaries_of_the_host_are_not_read [Exec, Isolation],
}

cases! { "host" of_this_host:
    directories_of_the_host_are_not_inside [Exec, Isolation],
    private_files_of_the_host_are_not_read [Exec, Isolation],
    shared_memory_of_the_host_is_not_inside [Exec, Isolation],
    the_ipc_namespace_is_not_the_hosts [Exec, Isolation],
    what_a_command_started_is_gone_after_close [Exec],
    what_a_dropped_exec_started_is_gone [Exec],
    a_lease_of_the_guest_holds_no_call_up [Exec, Spawn],
}

/// Directories of the host's users and services, as far as they are here.
fn private_dirs() -> Vec<PathBuf> {
    let mut dirs: BTreeSet<PathBuf> = ["/tmp", "/var/tmp", "/run", "/var/lib", "/root", "/srv"]
        .iter()
        .map(PathBuf::from)
        .collect();
    let given = ["HOME", "XDG_RUNTIME_DIR"]
        .iter()
        .filter_map(std::env::var_os);
    dirs.extend(given.map(PathBuf::from));
    dirs.into_iter().filter(|dir| dir.is_dir()).collect()
}

/// Files of the host in every private directory that this process may write to.
fn canaries() -> Verdict<Vec<NamedTempFile>> {
    let mut canaries = Vec::new();
    for dir in private_dirs() {
        let made = tempfile::Builder::new()
            .prefix("sandbox-canary-")
            .tempfile_in(&dir);
        // Where this process may not write it has nothing to lose.
        if let Ok(canary) = made {
            fs::write(canary.path(), "of the host")?;
            canaries.push(canary);
        }
    }
    ensure!(
        canaries.len() > 1,
        "there is no directory of the host to put a canary into"
    );
    Ok(canaries)
}

fn guest_path(path: &Path) -> GuestPath {
    GuestPath::new(path.as_os_str().as_bytes())
}

async fn canaries_of_the_host_are_not_read(cx: Context) -> Verdict {
    for canary in canaries()? {
        let path = canary.path();
        if let Ok(read) = cx.sandbox.read(guest_path(path)).await {
            ensure!(
                read != "of the host",
                "the file API reads {} of the host",
                path.display()
            );
        }
        let cat = Command::new("cat").arg(path.as_os_str().as_bytes());
        let output = cx.sandbox.exec(cat).await?;
        ensure!(
            text(&output) != "of the host",
            "a command reads {} of the host",
            path.display()
        );
        let kept = fs::read(path)?;
        ensure!(
            kept == b"of the host",
            "{} of the host was changed",
            path.display()
        );
    }
    Ok(())
}

async fn directories_of_the_host_are_not_inside(cx: Context) -> Verdict {
    let mut dirs = private_dirs();
    dirs.extend(["/etc", "/var", "/home", "/dev", "/boot", "/var/log"].map(PathBuf::from));
    // The control: the guest can tell an inode.
    let control = cx.sh("stat -L -c %d:%i /").await?;
    ensure!(
        text(&control).trim().contains(':'),
        "stat says {:?}",
        text(&control)
    );
    for dir in dirs {
        let Ok(host) = fs::metadata(&dir) else {
            continue;
        };
        let stat = Command::new("stat")
            .args(["-L", "-c", "%d:%i"])
            .arg(dir.as_os_str().as_bytes());
        let guest = text(&cx.sandbox.exec(stat).await?);
        let identity = format!("{}:{}", host.dev(), host.ino());
        ensure!(
            guest.trim() != identity,
            "{} inside is the host's directory",
            dir.display()
        );
    }
    let host = names(Path::new("/etc"))?;
    let output = cx.sh("ls -A /etc").await?;
    let guest: BTreeSet<String> = text(&output).lines().map(str::to_owned).collect();
    let missing = host.difference(&guest).count();
    ensure!(
        missing > 0 || host.len() < 20,
        "every one of the {} names in the host's /etc is inside",
        host.len()
    );
    Ok(())
}

fn names(dir: &Path) -> Verdict<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        names.insert(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

async fn private_files_of_the_host_are_not_read(cx: Context) -> Verdict {
    let files = [
        "/etc/shadow",
        "/etc/gshadow",
        "/etc/machine-id",
        "/etc/sudoers",
        "/etc/fstab",
        "/var/lib/dbus/machine-id",
        "/proc/1/environ",
    ];
    let mut seen = 0;
    for file in files {
        let Ok(host) = fs::read(file) else {
            continue;
        };
        if host.is_empty() {
            continue;
        }
        seen += 1;
        let output = cx.sandbox.exec(Command::new("cat").arg(file)).await?;
        ensure!(
            output.stdout.bytes != host,
            "a command reads {file} of the host"
        );
        if let Ok(read) = cx.sandbox.read(file).await {
            ensure!(read != host, "the file API reads {file} of the host");
        }
    }
    // The control: the guest reads files.
    let output = cx.sh("printf x > readable; cat readable").await?;
    ensure!(
        text(&output) == "x",
        "a command can't read its own file, after {seen} of the host"
    );
    Ok(())
}

async fn shared_memory_of_the_host_is_not_inside(cx: Context) -> Verdict {
    let Ok(canary) = tempfile::Builder::new()
        .prefix("sandbox-canary-")
        .tempfile_in("/dev/shm")
    else {
        // A host without it has nothing to share.
        ensure!(!Path::new("/dev/shm").is_dir(), "/dev/shm can't be written");
        return Ok(());
    };
    fs::write(canary.path(), "of the host")?;
    let cat = Command::new("cat").arg(canary.path().as_os_str().as_bytes());
    let output = cx.sandbox.exec(cat).await?;
    ensure!(
        text(&output) != "of the host",
        "a command reads shared memory of the host"
    );
    Ok(())
}

async fn the_ipc_namespace_is_not_the_hosts(cx: Context) -> Verdict {
    let host = fs::read_link("/proc/self/ns/ipc")?;
    let output = cx.sh("readlink /proc/self/ns/ipc").await?;
    ensure!(
        text(&output).trim() != host.to_string_lossy(),
        "commands run in the IPC namespace of the host"
    );
    Ok(())
}

/// The processes of this host that have a word among their arguments.
fn with_argument(word: &str) -> Verdict<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let number = entry.file_name();
        if !number.as_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        // It may have ended since.
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if arguments
            .split(|b| *b == 0)
            .any(|arg| arg == word.as_bytes())
        {
            let line = String::from_utf8_lossy(&arguments).replace('\0', " ");
            found.push(format!("{} {line}", number.to_string_lossy()));
        }
    }
    Ok(found)
}

/// A word that no other process has among its arguments.
fn word(cx: &Context, what: &str) -> String {
    let id = cx.sandbox.info().id;
    format!("sandbox-kit-{what}-{}-{id}", std::process::id())
}

/// A command that leaves daemons behind, each with this word among its arguments.
fn daemons(word: &str) -> Command {
    let looping = "while :; do sleep 1; done";
    let script = format!(
        "sh -c '{looping}' \"$0\" > /dev/null 2> /dev/null < /dev/null & \
         ( ( sh -c '{looping}' \"$0\" > /dev/null 2> /dev/null < /dev/null & ) & ); \
         if command -v setsid > /dev/null; then \
         setsid sh -c '{looping}' \"$0\" > /dev/null 2> /dev/null < /dev/null & fi; \
         sleep 0.3"
    );
    Command::shell(script).arg(word)
}

/// Waits until none of the processes is left, for as long as a busy host may need.
async fn gone(word: &str) -> Verdict {
    let start = Instant::now();
    loop {
        let left = with_argument(word)?;
        if left.is_empty() {
            return Ok(());
        }
        if start.elapsed() > Duration::from_secs(10) {
            return Err(Failed::new(format_args!(
                "processes of the sandbox run on on this host: {left:?}"
            )));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn what_a_command_started_is_gone_after_close(cx: Context) -> Verdict {
    let word = word(&cx, "closed");
    let sandbox = cx.sandbox.clone();
    let command = daemons(&word);
    let running = tokio::spawn(async move { sandbox.exec(command).await });
    // The control: they are processes of this host, and can be found.
    eventually("a process of the sandbox is seen on this host", || async {
        Ok(!with_argument(&word)?.is_empty())
    })
    .await?;
    running.await??;
    cx.sandbox.close().await?;
    gone(&word).await
}

async fn what_a_dropped_exec_started_is_gone(cx: Context) -> Verdict {
    let word = word(&cx, "dropped");
    // Dropped at one moment of the set-up or another.
    for micros in [
        0, 100, 300, 1000, 3000, 5000, 10_000, 20_000, 50_000, 100_000,
    ] {
        let limit = Duration::from_micros(micros);
        let mut command = daemons(&word);
        command.timeout = Some(Duration::from_secs(20));
        drop(tokio::time::timeout(limit, cx.sandbox.exec(command)).await);
    }
    cx.sandbox.close().await?;
    gone(&word).await
}

/// Programs that take a lease on a file (`fcntl(2)`, `F_SETLEASE`), ignore the kernel's request to
/// give it back, and say whether they hold it. The kernel takes it away after 45 seconds.
const LEASES: [[&str; 3]; 2] = [
    [
        "perl",
        "-e",
        "$| = 1; $SIG{IO} = 'IGNORE'; open(F, '+<', 'd/leased') or die; \
         print fcntl(F, 1024, 1) ? 'held' : 'free'; sleep 100",
    ],
    [
        "python3",
        "-c",
        "import fcntl, signal, time\nsignal.signal(signal.SIGIO, signal.SIG_IGN)\n\
         f = open('d/leased', 'r+')\ntry:\n fcntl.fcntl(f, 1024, 1); said = 'held'\n\
         except OSError:\n said = 'free'\nprint(said, end='', flush=True); time.sleep(100)",
    ],
];

/// A backend whose guests get no lease passes by that: the filter of the local backend answers
/// `EPERM` to `F_SETLEASE`, so that there the case watches the filter alone. What it catches where a
/// guest gets one is shown by the mutant `LeaseHoldsReads`, on plain processes.
async fn a_lease_of_the_guest_holds_no_call_up(cx: Context) -> Verdict {
    cx.sandbox.write("d/leased", "x").await?;
    let mut holder = None;
    for [program, option, script] in LEASES {
        match cx
            .sandbox
            .spawn(Command::new(program).args([option, script]))
            .await
        {
            Ok(process) => {
                holder = Some(process);
                break;
            }
            Err(error) if error.kind() == ErrorKind::CommandNotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    let Some(mut holder) = holder else {
        return Err(Failed::new(
            "the guest has neither perl nor python3: nothing could take a lease",
        ));
    };
    let mut said = [0; 4];
    let stdout = holder.stdout.as_mut();
    let stdout = stdout.ok_or_else(|| Failed::new("there is no stdout"))?;
    stdout.read_exact(&mut said).await?;
    if &said == b"free" {
        // The guest may take none, so that there is nothing to wait for.
        return Ok(holder.kill().await?);
    }
    // Either answer will do, if there is one while the lease is held.
    let patience = cx.fixture.case_timeout() / 3;
    let host = cx.host_dir()?;
    let read = tokio::time::timeout(patience, cx.sandbox.read("d/leased")).await;
    ensure!(read.is_ok(), "a lease held a read up for {patience:?}");
    let export = cx.sandbox.export("d", host.path().join("out"));
    let export = tokio::time::timeout(patience, export).await;
    ensure!(export.is_ok(), "a lease held an export up for {patience:?}");
    Ok(holder.kill().await?)
}
