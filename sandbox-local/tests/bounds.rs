//! Bounds: what a guest makes costs the host no more than the documented limits, and what a host
//! that died has left is collected: trees made to harm, a loop of kills, a run that counts what is
//! left.
//!
//! Short here; `SANDBOX_KILLS` and `SANDBOX_LEAK_RUN` say how many kills and sandboxes.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, helpers too; a child process answers on stdout"
)]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox_core::{
    Command, ErrorKind, FileBatch, ForkOptions, GuestPath, ImportOptions, ListOptions, Mount,
    Provider, Resources, Sandbox, SandboxExt, SandboxSpec, WatchOptions,
};
use sandbox_local::{LocalConfig, LocalProvider};
use support::{STATE, close, count, fork, inits, provider, providers, sh, state, until};
use tokio::sync::Mutex;

/// One test at a time: they measure this process.
static ALONE: Mutex<()> = Mutex::const_new(());

fn number(name: &str, otherwise: usize) -> usize {
    let given = std::env::var(name).ok();
    given
        .and_then(|number| number.parse().ok())
        .unwrap_or(otherwise)
}

/// The most memory that this process had resident since it last asked, in bytes.
fn peak() -> u64 {
    status("VmHWM:")
}

/// A number of this process's status that is in KiB, in bytes.
fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("its own status");
    let line = status.lines().find(|line| line.starts_with(name));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    let kib: u64 = kib.and_then(|kib| kib.parse().ok()).expect("a number");
    kib << 10
}

fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").expect("its own counters");
}

/// Keeps a sandbox busy, so that a fork copies.
async fn busy(sandbox: &Arc<dyn Sandbox>) -> sandbox_core::Process {
    let command = Command::new("sleep").arg("1000");
    sandbox.spawn(command).await.expect("it starts")
}

/// Makes a chain of directories, and some side by side in the innermost.
async fn nest(sandbox: &Arc<dyn Sandbox>, depth: usize, name: usize, wide: usize) {
    let script = format!(
        "python3 -c '\nimport os\nos.chdir(\"/workspace\")\nfor _ in range({depth}):\n \
         os.mkdir(\"d\" * {name})\n os.chdir(\"d\" * {name})\nfor n in range({wide}):\n \
         os.mkdir(\"w%d\" % n)\nopen(\"bottom\", \"w\").close()\n\
         os.link(\"bottom\", \"second\")\n'"
    );
    sh(sandbox, &script).await;
}

#[tokio::test]
async fn a_fork_of_a_deep_and_wide_tree_is_bounded() {
    let _alone = ALONE.lock().await;
    // A whole path for each directory was 2.4 GiB for the first and a minute for the second.
    for (depth, name, wide) in [(500, 200, 20_000), (2_000, 2, 0)] {
        let sandbox = support::default().await;
        nest(&sandbox, depth, name, wide).await;
        let process = busy(&sandbox).await;
        forget_peak();
        let (before, begun) = (peak(), Instant::now());
        let child = fork(&sandbox).await;
        let (memory, time) = (peak().saturating_sub(before), begun.elapsed());
        println!(
            "{depth} deep, {wide} wide: {} KiB more, {time:?}",
            memory >> 10
        );
        assert!(
            memory < 64 << 20,
            "{memory} bytes for {depth} deep, {wide} wide"
        );
        assert!(
            time < Duration::from_secs(120),
            "{time:?} for {depth} deep, {wide} wide"
        );
        let script = format!(
            "python3 -c '\nimport os\nfor _ in range({depth}):\n os.chdir(\"d\" * {name})\n\
             print(len(os.listdir(\".\")), os.stat(\"bottom\").st_nlink)\n'"
        );
        // A hard link deeper than any path.
        assert_eq!(sh(&child, &script).await, format!("{} 2\n", wide + 2));
        drop(process);
        close([sandbox, child]).await;
    }
}

#[tokio::test]
async fn a_tree_beyond_the_limit_is_an_error_that_names_it() {
    let _alone = ALONE.lock().await;
    let sandbox = support::default().await;
    nest(&sandbox, 20_001, 1, 0).await;
    let process = busy(&sandbox).await;
    let error = sandbox.fork_one().await.map(drop);
    let error = error.expect_err("too deep");
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
    assert!(error.to_string().contains("20000 directories"), "{error}");
    drop(process);
    close([sandbox]).await;
}

/// The path of each watched directory is kept, and the guest makes them.
#[tokio::test]
async fn a_watch_ends_with_an_error_where_paths_are_longer_than_the_kernel_takes() {
    let _alone = ALONE.lock().await;
    let sandbox = support::default().await;
    let watch = sandbox.watch(&".".into(), WatchOptions::new()).await;
    let mut watch = watch.expect("it watches");
    nest(&sandbox, 15, 200, 0).await;
    assert!(watch.next().await.is_ok(), "the control: shorter ones");
    nest(&sandbox, 30, 201, 0).await;
    let error = loop {
        if let Err(error) = watch.next().await {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
    close([sandbox]).await;
}

#[tokio::test]
async fn a_dropped_fork_stops_copying() {
    let _alone = ALONE.lock().await;
    let state = state();
    let provider = provider(state.path());
    let sandbox = provider
        .create(SandboxSpec::new())
        .await
        .expect("a sandbox");
    let many = "python3 -c '\nfor n in range(60000):\n open(\"f%d\" % n, \"w\").close()\n'";
    sh(&sandbox, many).await;
    let process = busy(&sandbox).await;
    let [dir] = &*providers(state.path()) else {
        panic!("one provider");
    };
    let layers = dir.join("layers");
    let begun = Instant::now();
    let child = fork(&sandbox).await;
    let whole = begun.elapsed();
    child.close().await.expect("close");
    let before = until("directories settle", async || {
        let first = count(&layers);
        tokio::time::sleep(Duration::from_millis(100)).await;
        (first == count(&layers)).then_some(first)
    })
    .await;
    let dropped = tokio::time::timeout(whole / 10, sandbox.fork_one()).await;
    assert!(dropped.is_err(), "a tenth of the time is not enough");
    let begun = Instant::now();
    until("the copy is given up", async || {
        (count(&layers) <= before).then_some(())
    })
    .await;
    let after = begun.elapsed();
    println!("a whole copy took {whole:?}, one that was dropped was gone after {after:?}");
    assert!(after < whole, "{after:?} of {whole:?}");
    assert_eq!(sh(&sandbox, "echo alive").await, "alive\n");
    drop(process);
    close([sandbox]).await;
}

#[tokio::test]
async fn shared_memory_and_semaphores_outlive_a_fork_of_an_idle_parent() {
    let _alone = ALONE.lock().await;
    let sandbox = support::default().await;
    let make = "python3 -c '\nimport ctypes\nc = ctypes.CDLL(None)\n\
        print(c.shmget(77, 4096, 0o1600) >= 0, c.semget(78, 1, 0o1600) >= 0, c.msgget(79, 0o1600) >= 0)\n'";
    let there = "python3 -c '\nimport ctypes\nc = ctypes.CDLL(None)\n\
        print(c.shmget(77, 4096, 0) >= 0, c.semget(78, 1, 0) >= 0, c.msgget(79, 0) >= 0)\n'";
    assert_eq!(sh(&sandbox, make).await, "True True True\n");
    let child = fork(&sandbox).await;
    assert_eq!(sh(&sandbox, there).await, "True True True\n");
    assert_eq!(sh(&child, there).await, "False False False\n");
    close([sandbox, child]).await;
}

/// Control groups of a test of its own: everything that is made below is its own.
struct Groups(Vec<PathBuf>);

impl Groups {
    /// Only root is given any here; the test of an ordinary user sets no limits.
    fn make() -> Self {
        let mut made = Vec::new();
        if support::is_root() {
            let table = fs::read_to_string("/proc/self/cgroup").expect("its own groups");
            for controller in ["memory", "cpu"] {
                let own = table.lines().find_map(|line| {
                    let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                    controllers
                        .split(',')
                        .any(|c| c == controller)
                        .then_some(path)
                });
                let mount = Path::new("/sys/fs/cgroup").join(controller);
                let Some(own) = own.filter(|_| mount.exists()) else {
                    continue;
                };
                let parent = mount.join(own.trim_start_matches('/'));
                let parent = if parent.exists() { parent } else { mount };
                let dir = parent.join(format!("kills-{}", std::process::id()));
                fs::create_dir(&dir).expect("a group");
                made.push(dir);
            }
        }
        Self(made)
    }

    /// The groups that sandboxes have left.
    fn left(&self) -> Vec<PathBuf> {
        let below = |dir: &PathBuf| {
            fs::read_dir(dir)
                .expect("a group")
                .flatten()
                .collect::<Vec<_>>()
        };
        let entries = self.0.iter().flat_map(below).map(|entry| entry.path());
        entries.filter(|path| path.is_dir()).collect()
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for dir in &self.0 {
            for _ in 0..200 {
                if fs::remove_dir(dir).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

const WORK: &str = "SANDBOX_TEST_WORK";

#[tokio::test]
#[ignore = "started as a process of its own, to be killed"]
async fn child_that_is_killed() {
    let (Some(state), Some(work)) = (std::env::var_os(STATE), std::env::var_os(WORK)) else {
        return;
    };
    let (state, work) = (PathBuf::from(state), PathBuf::from(work));
    let provider = provider(&state);
    println!("\nready");
    let mut spec = SandboxSpec::new().mount(Mount::read_write(work.join("mount"), "/mnt/host"));
    if support::is_root() {
        spec = spec.resources(Resources::new().memory(256 << 20).cpus(1.0));
    }
    for round in 0_u32.. {
        let sandbox = provider.create(spec.clone()).await.expect("a sandbox");
        let sleeper = busy(&sandbox).await;
        sh(
            &sandbox,
            "mkdir -p d/e; for n in 1 2 3 4 5 6 7 8 9; do echo $n > d/e/$n; done",
        )
        .await;
        let content = vec![b'x'; 1 << 20];
        let batch = (0..8).fold(FileBatch::new(), |batch, n| {
            batch
                .file(format!("/mnt/host/deep-{round}/{n}"), content.clone())
                .file(format!("/mnt/host/{n}"), content.clone())
        });
        sandbox.write_files(batch).await.expect("it writes");
        let child = fork(&sandbox).await;
        let (inside, mount) = (GuestPath::from("in"), work.join("mount"));
        let import = sandbox.import(&mount, &inside);
        import.await.expect("it imports");
        // What is brought there already is staged, in each directory.
        let (from, back) = (work.join("imported"), GuestPath::from("/mnt/host/imported"));
        for _ in 0..2 {
            let import = sandbox.import_dir(&from, &back, ImportOptions::new());
            import.await.expect("it imports");
        }
        // A host that was killed before may have left one of its own.
        let to = work.join(format!("exports/{}-{round}", std::process::id()));
        let export = sandbox.export(&inside, &to);
        export.await.expect("it exports");
        fs::remove_dir_all(&to).expect("removed");
        drop(sleeper);
        close([child, sandbox]).await;
    }
}

/// Names of ours below a directory.
fn ours(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().contains(".sandbox-") {
            found.push(path);
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(ours(&path));
        }
    }
    found
}

#[tokio::test]
async fn what_a_killed_host_leaves_is_collected_by_the_next_start() {
    let _alone = ALONE.lock().await;
    // What the killed host started becomes a child of this process, where it is found.
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own)).expect("a subreaper");
    let dir = state();
    let (state, work) = (dir.path().join("state"), dir.path().join("work"));
    fs::create_dir_all(work.join("mount")).expect("a directory");
    fs::create_dir(work.join("exports")).expect("a directory");
    for part in ["imported/a/b", "imported/c"] {
        fs::create_dir_all(work.join(part)).expect("directories");
        fs::write(work.join(part).join("large"), vec![b'x'; 4 << 20]).expect("a file");
    }
    let groups = Groups::make();
    let kills = number("SANDBOX_KILLS", 12);
    let (mut slowest, mut had_groups, mut had_names) = (Duration::ZERO, 0, 0);
    for kill in 0..kills {
        let enter: String = groups
            .0
            .iter()
            .map(|dir| format!("echo $$ > {}/cgroup.procs && ", dir.display()))
            .collect();
        let mut command = std::process::Command::new("sh");
        command
            .args([
                "-c",
                &format!("{enter} exec \"$0\" --exact child_that_is_killed --ignored --nocapture"),
            ])
            .arg(std::env::current_exe().expect("this program"))
            .env(STATE, &state)
            .env(WORK, &work)
            .stdout(Stdio::piped())
            .process_group(0);
        let mut host = command.spawn().expect("it starts");
        let mut lines = BufReader::new(host.stdout.take().expect("a stdout")).lines();
        let ready = lines.any(|line| line.expect("a line") == "ready");
        assert!(ready, "the host was never ready");
        // Not to wait for anything: this is the moment at which it is killed.
        let moment = (kill as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
        tokio::time::sleep(Duration::from_millis(moment)).await;
        host.kill().expect("a kill");
        host.wait().expect("it is dead");
        let begun = Instant::now();
        until("all that it started is dead", async || {
            inits().is_empty().then_some(())
        })
        .await;
        slowest = slowest.max(begun.elapsed());
        had_groups += groups.left().len();
        had_names += ours(&work).len();
        // The next start.
        let next = provider(&state);
        until("all that it left is collected", async || {
            let left =
                providers(&state).len() > 1 || !groups.left().is_empty() || !ours(&work).is_empty();
            (!left).then_some(())
        })
        .await;
        drop(next);
        if (kill + 1) % 20 == 0 {
            println!(
                "{} kills, the last process died {slowest:?} after its host",
                kill + 1
            );
        }
    }
    println!(
        "{kills} kills: {had_groups} groups and {had_names} names were left and collected; \
         the last process died {slowest:?} after its host"
    );
    assert!(slowest < Duration::from_secs(60), "{slowest:?}");
    if support::is_root() && !groups.0.is_empty() {
        assert!(had_groups > 0, "no kill came at the right moment");
    }
}

#[tokio::test]
async fn the_embedder_limits_what_a_guests_tree_may_cost() {
    let _alone = ALONE.lock().await;
    let dir = state();
    let config = LocalConfig::new().state_dir(dir.path());
    let limits: [(LocalConfig, &str); 3] = [
        (config.clone().tree_entries(50), "50 entries"),
        (
            config.clone().tree_depth(20),
            "20 directories one below the other",
        ),
        (config.tree_names(200), "200 bytes of names"),
    ];
    for (config, said) in limits {
        let provider = LocalProvider::new(config).expect("a provider");
        let sandbox = provider.create(SandboxSpec::new()).await;
        let sandbox = sandbox.expect("a sandbox");
        // Within the limits: the control.
        let sleeper = busy(&sandbox).await;
        close([fork(&sandbox).await]).await;
        let make = "mkdir -p tree/$(seq -s / 40); cd tree; seq -f dir-%g 40 | xargs mkdir";
        sh(&sandbox, make).await;
        let error = sandbox.fork(ForkOptions::new()).await.map(drop);
        let error = error.expect_err("the copy has a limit");
        assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
        assert!(error.to_string().contains(said), "{error}");
        let all = ListOptions::new().recursive(true);
        let error = sandbox.list_dir(&"tree".into(), all).await.map(drop);
        let error = error.expect_err("a listing has a limit");
        assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
        assert!(error.to_string().contains(said), "{error}");
        // What is in the way can be removed all the same.
        sandbox.remove_all("tree").await.expect("removal has none");
        close([fork(&sandbox).await]).await;
        drop(sleeper);
        close([sandbox]).await;
    }
}

#[tokio::test]
async fn a_collection_that_is_cut_short_is_taken_up_again() {
    let _alone = ALONE.lock().await;
    let state = state();
    // As after a collection that was killed: some of it is gone, the lease is not locked.
    for (name, lease) in [("p-cut", true), ("p-without", false), ("new-begun", false)] {
        fs::create_dir_all(state.path().join(name).join("layers/7/a/b")).expect("directories");
        if lease {
            fs::write(state.path().join(name).join("lease"), "").expect("a lease");
        }
    }
    let provider = provider(state.path());
    until("it is collected, however young", async || {
        (providers(state.path()).len() == 1).then_some(())
    })
    .await;
    drop(provider);
}

/// The names of all control groups below a directory.
fn groups(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names.push(entry.file_name().to_string_lossy().into_owned());
            names.extend(groups(&entry.path()));
        }
    }
    names
}

/// The memory that this process has resident, in bytes.
fn resident() -> u64 {
    status("VmRSS:")
}

/// Counts of this process: descriptors, threads, mounts.
fn held() -> [usize; 3] {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("its mounts");
    [
        count(Path::new("/proc/self/fd")),
        count(Path::new("/proc/self/task")),
        mounts.lines().count(),
    ]
}

#[tokio::test(flavor = "current_thread")]
async fn sandboxes_leave_nothing_in_their_host() {
    let _alone = ALONE.lock().await;
    let dir = state();
    // With control groups, where this host grants them to everyone who is root.
    let spec = match support::is_root() && Path::new("/sys/fs/cgroup/memory/tasks").exists() {
        true => SandboxSpec::new().resources(Resources::new().memory(256 << 20)),
        false => SandboxSpec::new(),
    };
    // Every group of this process, spares too: here none of its other tests is under way.
    let own = format!("sandbox-{}-", std::process::id());
    let groups = || {
        let found = groups(Path::new("/sys/fs/cgroup")).into_iter();
        found.filter(|name| name.starts_with(&own)).count()
    };
    let limited = spec.resources.memory.is_some();
    let run = async |sandboxes: usize| {
        let provider = provider(dir.path());
        for _ in 0..sandboxes {
            let sandbox = provider.create(spec.clone()).await.expect("a sandbox");
            sh(&sandbox, "echo x > f; cat f").await;
            let process = busy(&sandbox).await;
            let child = fork(&sandbox).await;
            assert_eq!(child.read("f").await.expect("it reads"), "x\n");
            drop(process);
            assert_eq!(groups() >= 2, limited, "no control");
            close([sandbox, child]).await;
        }
    };
    // Threads for blocking work stay for a while; what is made once is made.
    run(5).await;
    let settled = async || {
        until("it settles", async || {
            let before = held();
            tokio::time::sleep(Duration::from_millis(50)).await;
            (before == held() && providers(dir.path()).is_empty() && inits().is_empty())
                .then_some(before)
        })
        .await
    };
    let before = settled().await;
    let memory = resident();
    // Each with a fork.
    let sandboxes = number("SANDBOX_LEAK_RUN", 500);
    run(sandboxes).await;
    until("all is back", async || {
        let [descriptors, threads, mounts] = held();
        let back = descriptors <= before[0] && threads <= before[1] + 4 && mounts <= before[2];
        (back && providers(dir.path()).is_empty() && inits().is_empty()).then_some(())
    })
    .await;
    until("the control groups are gone", async || {
        (groups() == 0).then_some(())
    })
    .await;
    let after = settled().await;
    let more = resident().saturating_sub(memory);
    println!(
        "before {before:?}, after {after:?}, {} KiB more",
        more >> 10
    );
    assert!(
        more < 5 << 20,
        "{more} bytes more after {sandboxes} sandboxes"
    );
}
