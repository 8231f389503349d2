//! `local-landlock:` against hostile programs, each beside the same program without isolation, where
//! it succeeds; and what it refuses.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // A test fails by panicking, in its helpers too.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox_core::{
    Capability, Command, Control, Enforcement, ErrorKind, Mode, Mount, Network, Provider,
    RequiredIsolation, Resources, Sandbox, SandboxExt as _, SandboxSpec, Source,
};
use sandbox_local::{LandlockConfig, LandlockProvider, PlainConfig, PlainProvider};

async fn confined(network: Network) -> Arc<dyn Sandbox> {
    let provider = LandlockProvider::new(LandlockConfig::default()).unwrap();
    let spec = SandboxSpec::new().network(network);
    provider.create(spec).await.unwrap()
}

async fn unconfined() -> Arc<dyn Sandbox> {
    let provider = PlainProvider::new(PlainConfig::default()).unwrap();
    let spec = SandboxSpec::new().network(Network::Open);
    provider.create(spec).await.unwrap()
}

/// Output of a script in a confined sandbox and in a plain one.
async fn both(script: &str) -> (String, String) {
    let (confined, plain) = (confined(Network::Off).await, unconfined().await);
    let said = (ran(&*confined, script).await, ran(&*plain, script).await);
    confined.close().await.unwrap();
    plain.close().await.unwrap();
    said
}

async fn ran(sandbox: &dyn Sandbox, script: &str) -> String {
    let output = sandbox.sh(script).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    format!(
        "{}{}",
        text(&output.stdout.bytes),
        text(&output.stderr.bytes)
    )
}

/// A directory of the host, of this user.
fn host() -> tempfile::TempDir {
    let dir = tempfile::Builder::new()
        .prefix("sandbox-host-")
        .tempdir()
        .unwrap();
    // Open to every user: what holds is not the permission bits.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    std::fs::write(dir.path().join("f"), "of the host").unwrap();
    std::fs::set_permissions(dir.path().join("f"), std::fs::Permissions::from_mode(0o666)).unwrap();
    dir
}

fn at(dir: &tempfile::TempDir, name: &str) -> String {
    dir.path().join(name).display().to_string()
}

async fn eventually(what: &str, check: impl Fn() -> bool) {
    let started = Instant::now();
    while !check() {
        assert!(started.elapsed() < Duration::from_secs(120), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn alive(pid: &str) -> bool {
    // A zombie that is not waited for is dead too.
    std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn what_needs_a_namespace_is_refused() {
    let provider = LandlockProvider::new(LandlockConfig::default()).unwrap();
    for spec in [
        SandboxSpec::new().resources(Resources::new().memory(1 << 30)),
        SandboxSpec::new().resources(Resources::new().pids(8)),
        SandboxSpec::new().mount(Mount::read_only("/usr", "/usr")),
        SandboxSpec::new().source(Source::RootDir("/".into())),
        SandboxSpec::new().source(Source::Image("alpine".into())),
        SandboxSpec::new().ttl(Duration::from_secs(1)),
        SandboxSpec::new().workdir("/workspace"),
        SandboxSpec::new().lasting(true),
    ] {
        let error = provider.create(spec.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{spec:?}");
    }
    // Partly is not enough for one that is asked for by name; wholly is.
    let only = |control| {
        let spec = SandboxSpec::new().isolation(RequiredIsolation::Only(vec![control]));
        provider.create(spec)
    };
    for control in [Control::Filesystem, Control::Processes, Control::Memory] {
        let error = only(control).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Isolation, "{control}");
        assert!(error.to_string().contains(control.as_str()), "{error}");
    }
    for control in [Control::Network, Control::Ipc, Control::SystemCalls] {
        only(control).await.unwrap().close().await.unwrap();
    }
}

#[tokio::test]
async fn the_report_names_the_gaps() {
    let sandbox = confined(Network::Off).await;
    let report = sandbox.isolation().await.unwrap();
    for (control, word) in [
        (Control::Filesystem, "mount namespace"),
        (Control::Processes, "pid namespace"),
    ] {
        let Some(Enforcement::Partial { why, .. }) = report.get(control) else {
            panic!("{control}: {report}");
        };
        assert!(why.contains(word), "{why}");
    }
    for control in [Control::Network, Control::Ipc, Control::SystemCalls] {
        assert!(report.is_enforced(control), "{control}: {report}");
    }
    for control in [Control::Memory, Control::Cpu, Control::Pids, Control::Disk] {
        assert!(!report.is_enforced(control), "{control}: {report}");
    }
    assert!(!sandbox.capabilities().has(Capability::Isolation));
    sandbox.close().await.unwrap();
    let open = confined(Network::Open).await;
    let report = open.isolation().await.unwrap();
    assert!(!report.is_enforced(Control::Network), "{report}");
    open.close().await.unwrap();
}

#[tokio::test]
async fn files_of_the_host_are_neither_read_nor_written() {
    let dir = host();
    let file = at(&dir, "f");
    let (confined, plain) = both(&format!("cat {file}")).await;
    assert!(confined.contains("ermission denied"), "{confined}");
    assert_eq!(plain, "of the host");
    let attempts = [
        ("echo x > {}/new", "new"),
        ("mkdir {}/d", "d"),
        ("ln -s x {}/l", "l"),
        ("mv {}/f {}/g", "g"),
        ("ln {}/f h", "h"),
        (
            "truncate -s 0 {}/f; test -s {}/f || touch {}/empty",
            "empty",
        ),
        ("rm {}/f; test -e {}/f || touch {}/gone", "gone"),
    ];
    for (attempt, made) in attempts {
        let dir = host();
        let script = attempt.replace("{}", &dir.path().display().to_string());
        let sandbox = confined_off_script(&script).await;
        drop(sandbox);
        assert!(!dir.path().join(made).exists(), "{script}");
        assert!(dir.path().join("f").exists(), "{script}");
        let plain = unconfined().await;
        ran(
            &*plain,
            &format!("{script}; cp h {}/h 2>/dev/null", dir.path().display()),
        )
        .await;
        assert!(
            dir.path().join(made).symlink_metadata().is_ok(),
            "control: {script}"
        );
        plain.close().await.unwrap();
    }
}

async fn confined_off_script(script: &str) -> String {
    let sandbox = confined(Network::Off).await;
    let said = ran(&*sandbox, script).await;
    sandbox.close().await.unwrap();
    said
}

/// Landlock has no right for these: they are the host's to make, in the sandbox's directory alone.
#[tokio::test]
async fn modes_and_times_change_in_the_sandbox_and_nowhere_else() {
    let dir = host();
    let file = at(&dir, "f");
    let mode = || {
        let found = std::fs::metadata(&file).unwrap();
        (
            found.permissions().mode() & 0o7777,
            found.modified().unwrap(),
        )
    };
    let before = mode();
    // By an absolute path, by a relative one, through a link, through /proc, and by an open directory.
    let script = format!(
        "ln -s {file} link; chmod 0 {file}; chmod 0 link; touch -d 2001-01-01 {file} link; \
         cd {dir} && chmod 0 f; cd /; chmod 0 {relative}; python3 -c \"
import os
d = os.open('{dir}', os.O_PATH)
for change in (lambda: os.chmod('f', 0, dir_fd=d), lambda: os.utime('f', (1, 1), dir_fd=d),
               lambda: os.chmod('/proc/self/fd/%d/f' % d, 0)):
    try: change()
    except OSError: pass
\"",
        dir = dir.path().display(),
        relative = file.trim_start_matches('/'),
    );
    confined_off_script(&script).await;
    assert_eq!(mode(), before);
    let plain = unconfined().await;
    ran(&*plain, &script).await;
    assert_ne!(mode(), before, "control");
    plain.close().await.unwrap();
    let own = "echo x > f; chmod 751 f; touch -d 2001-02-03 f; ln -s f l; touch -h -d 2002-01-01 l; \
               chmod u+x l; stat -c '%a %y' f | cut -c 1-14; chmod 4755 f || echo refused";
    let said = confined_off_script(own).await;
    assert!(said.starts_with("751 2001-02-03\nrefused"), "{said}");
}

#[tokio::test]
async fn compiled_programs_run() {
    let said = confined_off_script(
        "printf 'int puts(const char *); int main(void) { return puts(\"ran\") < 0; }' > a.c; \
         cc a.c && ./a.out && stat -c %a a.out",
    )
    .await;
    assert_eq!(said, "ran\n755");
}

fn sleeper() -> Child {
    std::process::Command::new("sleep")
        .arg("1000")
        .env("SECRET", "of-the-host")
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn processes_of_the_host_are_not_signalled_or_looked_into() {
    let mut victim = sleeper();
    let pid = victim.id();
    let environ = format!("tr '\\0' '\\n' < /proc/{pid}/environ | grep SECRET");
    let (confined, plain) = both(&environ).await;
    assert!(!confined.contains("of-the-host"), "{confined}");
    assert_eq!(plain, "SECRET=of-the-host");
    let tries = format!(
        "kill -TERM {pid}; kill -TERM -1; python3 -c \"
import os, resource, signal
for change in (lambda: resource.prlimit({pid}, resource.RLIMIT_CPU, (0, 0)),
               lambda: os.sched_setscheduler({pid}, os.SCHED_IDLE, os.sched_param(0)),
               lambda: os.setpriority(os.PRIO_PROCESS, {pid}, 19),
               lambda: signal.pidfd_send_signal(os.pidfd_open({pid}), signal.SIGTERM)):
    try: change(); print('done')
    except OSError: pass
\"; echo end"
    );
    // The second of them ends the shell that makes it.
    let said = confined_off_script(&tries.replace("kill -TERM -1;", "")).await;
    assert!(!said.contains("done"), "{said}");
    confined_off_script("kill -TERM -1; sleep 1").await;
    assert!(victim.try_wait().unwrap().is_none(), "it was ended");
    let plain = unconfined().await;
    ran(&*plain, &format!("kill -TERM {pid}")).await;
    assert_eq!(victim.wait().unwrap().signal(), Some(15), "control");
    plain.close().await.unwrap();
}

#[tokio::test]
async fn no_socket_of_the_host_is_reached() {
    let dir = host();
    let path = at(&dir, "s");
    let stream = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let packets = std::os::unix::net::UnixDatagram::bind(at(&dir, "d")).unwrap();
    for name in ["s", "d"] {
        let mode = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(at(&dir, name), mode).unwrap();
    }
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    let program = |what: &str| format!("python3 -c \"import socket\n{what}\nprint('reached')\"");
    let attempts = [
        format!("socket.socket(socket.AF_UNIX).connect('{path}')"),
        format!(
            "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\na.sendto(b'x', '{}')",
            at(&dir, "d")
        ),
        format!("socket.create_connection(('127.0.0.1', {port}))"),
        format!("socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))"),
        "socket.socket(socket.AF_UNIX).bind('\\0sandbox-landlock-test')".to_owned(),
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)".to_owned(),
    ];
    for attempt in &attempts {
        let (confined, plain) = both(&program(attempt)).await;
        assert!(!confined.contains("reached"), "{attempt}: {confined}");
        assert!(plain.contains("reached"), "control: {attempt}: {plain}");
    }
    // With the host's network its listeners are reached, and the sockets with names still are not.
    let open = confined(Network::Open).await;
    let said = ran(&*open, &program(&attempts[2])).await;
    assert!(said.contains("reached"), "{said}");
    for attempt in [&attempts[0], &attempts[1], &attempts[4]] {
        let said = ran(&*open, &program(attempt)).await;
        assert!(!said.contains("reached"), "{attempt}: {said}");
    }
    open.close().await.unwrap();
    let pair = "a, b = socket.socketpair()\na.send(b'x'); assert b.recv(1) == b'x'";
    let said = confined_off_script(&program(pair)).await;
    assert_eq!(said, "reached");
    drop((stream, packets));
}

/// The filter makes no such socket. What stands behind it is seen where that is turned off
/// (`hostile/mutations`).
#[tokio::test]
async fn no_tcp_socket_is_connected_or_bound() {
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    for attempt in [
        format!("socket.create_connection(('127.0.0.1', {port}))"),
        "socket.socket().bind(('127.0.0.1', 0))".to_owned(),
    ] {
        let program = format!("python3 -c \"import socket\n{attempt}\nprint('reached')\"");
        let (confined, plain) = both(&program).await;
        assert!(!confined.contains("reached"), "{attempt}: {confined}");
        assert_eq!(plain, "reached", "control: {attempt}");
    }
}

/// As the one above.
#[tokio::test]
async fn no_abstract_socket_of_the_host_is_connected() {
    use std::os::linux::net::SocketAddrExt as _;
    let name = format!("sandbox-landlock-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    let program = format!(
        "python3 -c \"import socket\n\
         socket.socket(socket.AF_UNIX).connect('\\0{name}')\nprint('reached')\""
    );
    let (confined, plain) = both(&program).await;
    assert!(!confined.contains("reached"), "{confined}");
    assert_eq!(plain, "reached", "control");
    drop(listener);
}

/// A command that ends everything that it may end does not end what ends it.
#[tokio::test]
async fn a_command_does_not_end_what_keeps_it() {
    let sandbox = confined(Network::Off).await;
    let script = "kill -KILL -1; setsid sh -c 'echo $$; exec sleep 1000' & wait";
    let mut process = sandbox.spawn(Command::shell(script)).await.unwrap();
    let mut stdout = process.stdout.take().unwrap();
    let pid = first_line(&mut stdout).await;
    assert!(alive(&pid), "control");
    process.kill().await.unwrap();
    eventually("the daemon is dead", || !alive(&pid)).await;
    sandbox.close().await.unwrap();
}

#[tokio::test]
async fn memory_and_queues_of_the_host_are_out_of_reach() {
    let program = |call: &str| {
        format!(
            "python3 -c \"import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n\
             print('made' if {call} >= 0 else 'refused')\""
        )
    };
    for call in [
        "libc.shmget(0, 4096, 0o600)",
        "libc.msgget(0, 0o600)",
        "libc.semget(0, 1, 0o600)",
    ] {
        let (confined, plain) = both(&program(call)).await;
        assert_eq!((&*confined, &*plain), ("refused", "made"), "{call}");
    }
    let (confined, plain) = both(
        "echo x > /dev/shm/sandbox-landlock-$$ && rm /dev/shm/sandbox-landlock-$$ && echo made",
    )
    .await;
    assert!(!confined.contains("made"), "{confined}");
    assert_eq!(plain, "made");
}

/// One that left its group and session, one that ignores what can be ignored, and one that starts
/// ever more of itself.
#[tokio::test]
async fn nothing_outlives_a_kill_or_the_sandbox() {
    let sandbox = confined(Network::Off).await;
    let script = "setsid sh -c 'trap \"\" HUP INT TERM; echo $$; exec sleep 1000' & \
                  (f() { sleep 0.01; f & f & wait; }; f) & sleep 1000";
    let mut process = sandbox.spawn(Command::shell(script)).await.unwrap();
    let mut stdout = process.stdout.take().unwrap();
    let pid = first_line(&mut stdout).await;
    assert!(alive(&pid), "control");
    process.kill().await.unwrap();
    eventually("the daemon is dead", || !alive(&pid)).await;

    let process = sandbox
        .spawn(Command::shell(
            "setsid sh -c 'echo $$; exec sleep 1000' & sleep 0.1",
        ))
        .await
        .unwrap();
    let mut process = process;
    let mut stdout = process.stdout.take().unwrap();
    let pid = first_line(&mut stdout).await;
    process.wait().await.unwrap();
    assert!(alive(&pid), "control: it lives on behind its command");
    sandbox.close().await.unwrap();
    eventually("the daemon is dead", || !alive(&pid)).await;
}

async fn first_line(from: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    use tokio::io::AsyncReadExt as _;
    let mut line = String::new();
    while !line.ends_with('\n') {
        let byte = from.read_u8().await.unwrap();
        line.push(char::from(byte));
    }
    line
}

const AS_HOST: &str = "SANDBOX_LANDLOCK_TEST_HOST";

/// The other half of the next test: a host that is killed.
#[tokio::test]
async fn a_host_that_is_killed() {
    if std::env::var_os(AS_HOST).is_none() {
        return;
    }
    let sandbox = confined(Network::Off).await;
    let root = sandbox.info().workdir.parent().unwrap();
    let script = "setsid sh -c 'echo $$; exec sleep 1000' & sleep 1000";
    let mut process = sandbox.spawn(Command::shell(script)).await.unwrap();
    let mut stdout = process.stdout.take().unwrap();
    let pid = first_line(&mut stdout).await;
    // A line of its own, whatever the harness has printed.
    use std::io::Write as _;
    let mut out = std::io::stderr();
    writeln!(out, "\nPID {} {root}", pid.trim()).unwrap();
    let _ = process.wait().await;
}

#[tokio::test]
async fn a_host_that_is_killed_takes_everything_with_it() {
    let mut host = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_host_that_is_killed", "--nocapture"])
        .env(AS_HOST, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(host.stderr.take().unwrap()).lines();
    let line = loop {
        let line = lines.next().unwrap().unwrap();
        if let Some(rest) = line.strip_prefix("PID ") {
            break rest.to_owned();
        }
    };
    let (pid, root) = line.split_once(' ').unwrap();
    assert!(alive(pid), "control");
    host.kill().unwrap();
    host.wait().unwrap();
    eventually("the daemon is dead", || !alive(pid)).await;
    // The directory stays, as is documented.
    let dir = Path::new(root).parent().unwrap();
    assert!(
        dir.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("sandbox-landlock-")
    );
    sandbox_transfer::remove_tree(dir).unwrap();
}

#[tokio::test]
async fn a_program_has_no_descriptor_of_the_host() {
    let secret = host();
    let file = std::fs::File::open(at(&secret, "f")).unwrap();
    // One that the host forgot to mark.
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    let script = "python3 -c \"import os
n = [f for f in range(3, 4096) if os.path.exists('/proc/self/fd/%d' % f)]
print(any(os.readlink('/proc/self/fd/%d' % f).endswith('/f') for f in n))\"";
    let (confined, plain) = both(script).await;
    assert_eq!((&*confined, &*plain), ("False", "True"));
    let mut text = String::new();
    { file }.read_to_string(&mut text).unwrap();
    assert_eq!(text, "of the host");
}

/// Links that are exchanged while the host works: nothing of the host's is read or written.
#[tokio::test]
async fn links_lead_operations_on_files_nowhere() {
    let dir = host();
    let sandbox = confined(Network::Off).await;
    let script = format!(
        "ln -s {} out; ln -s {} file; mkdir d",
        dir.path().display(),
        at(&dir, "f")
    );
    ran(&*sandbox, &script).await;
    for path in ["file", "out/f", "../../outside", &at(&dir, "f")] {
        assert!(sandbox.read(path).await.is_err(), "{path}");
    }
    for path in ["out/new", "../../new", &at(&dir, "new")] {
        assert!(sandbox.write(path, "x").await.is_err(), "{path}");
    }
    assert!(!dir.path().join("new").exists());
    // A file that is written replaces a link.
    sandbox.write("file", "mine").await.unwrap();
    assert_eq!(
        std::fs::read_to_string(at(&dir, "f")).unwrap(),
        "of the host"
    );
    let batch = sandbox_core::FileBatch::new().file_with_mode("x", "y", Mode::new(0o640));
    sandbox.write_files(batch).await.unwrap();
    assert_eq!(
        ran(&*sandbox, "stat -c '%a %U' x; id -un")
            .await
            .lines()
            .next(),
        Some(&*format!("640 {}", ran(&*sandbox, "stat -c %U .").await))
    );
    sandbox.close().await.unwrap();
}

#[tokio::test]
async fn nothing_stays_behind() {
    let base = tempfile::tempdir().unwrap();
    std::fs::set_permissions(base.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let config = LandlockConfig::default().base_dir(base.path());
    let provider = LandlockProvider::new(config).unwrap();
    let sandbox = provider.create(SandboxSpec::new()).await.unwrap();
    ran(&*sandbox, "mkdir -p a/b; touch a/b/c; chmod 0 a/b a").await;
    sandbox.close().await.unwrap();
    sandbox.close().await.unwrap();
    assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
    let dropped = provider.create(SandboxSpec::new()).await.unwrap();
    drop(dropped);
    eventually("it is removed", || {
        std::fs::read_dir(base.path()).unwrap().count() == 0
    })
    .await;
    let tasks = || {
        std::fs::read_dir("/proc/self/task")
            .unwrap()
            .filter(|task| {
                let name = task.as_ref().unwrap().path().join("comm");
                std::fs::read_to_string(name).is_ok_and(|name| name.starts_with("sandbox-landloc"))
            })
            .count()
    };
    let sandbox = provider.create(SandboxSpec::new()).await.unwrap();
    for _ in 0..20 {
        ran(&*sandbox, "true").await;
    }
    eventually("the threads that watch are gone", || tasks() < 15).await;
    sandbox.close().await.unwrap();
}

/// As under nohup(1), and as a shell's background command.
#[tokio::test]
async fn what_the_host_ignores_a_command_does_not() {
    const AGAIN: &str = "SANDBOX_TEST_IGNORING_HOST";
    if std::env::var_os(AGAIN).is_none() {
        let again = std::process::Command::new("sh")
            .args(["-c", r#"trap "" HUP INT TERM USR1; exec "$0" "$@""#])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "what_the_host_ignores_a_command_does_not"])
            .env(AGAIN, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&again.stdout);
        assert!(
            again.status.success() && said.contains("1 passed"),
            "{said}"
        );
        return;
    }
    let sandbox = confined(Network::Off).await;
    for (name, number) in [("HUP", 1), ("INT", 2), ("TERM", 15), ("USR1", 10)] {
        let output = sandbox
            .sh(format!("kill -{name} $$; sleep 5"))
            .await
            .unwrap();
        let signal = output.status.signal();
        assert_eq!(signal, Some(number), "{name}: {}", output.status);
    }
    sandbox.close().await.unwrap();
}
