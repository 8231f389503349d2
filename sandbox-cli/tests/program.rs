//! The program through its command line: what it prints, how it exits, what it leaves.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

fn sandbox() -> Command {
    let program = std::env::var_os("SANDBOX_PROGRAM");
    let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_sandbox").into());
    let mut command = Command::new(program);
    command.env_remove("SANDBOX_PROVIDER").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    sandbox().args(arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", out(output), err(output)))
}

#[test]
fn the_commands_exit_status_and_streams_are_the_programs() {
    let output = run(&["run", "sh", "-c", "echo out; echo err >&2; exit 42"]);
    assert_eq!(output.status.code(), Some(42), "{}", err(&output));
    assert_eq!(
        (out(&output), err(&output)),
        ("out\n".into(), "err\n".into())
    );
    for (arguments, code) in [
        (&["run", "sh", "-c", "kill -TERM $$"][..], 143),
        (&["run", "no-such-program"], 127),
        (&["run", "/etc/passwd"], 126),
        (&["run", "--timeout", "200ms", "sleep", "50"], 124),
        (&["run", "--mount", "/no/such/place:/m", "true"], 125),
        (&["run"], 2),
        (&["run", "--memory", "lots", "true"], 2),
        (&["-p", "nonsense:", "run", "true"], 125),
    ] {
        let output = run(arguments);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}",
            err(&output)
        );
        assert_eq!(out(&output), "", "{arguments:?}");
        if code < 128 {
            assert!(!err(&output).is_empty(), "{arguments:?} says nothing");
        }
    }
    // Options behind the program are the program's.
    assert_eq!(out(&run(&["run", "echo", "--json", "-p"])), "--json -p\n");
    assert_eq!(out(&run(&["run", "--sh", "echo $0-$1", "a", "b"])), "a-b\n");
}

#[test]
fn input_goes_through_and_variables_are_those_that_were_given() {
    let mut child = sandbox()
        .args([
            "run",
            "-e",
            "A=1",
            "-e",
            "FROM_HERE",
            "--sh",
            "cat; echo $A $FROM_HERE $LEAK",
        ])
        .env("FROM_HERE", "2")
        .env("LEAK", "secret")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"in\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(out(&output), "in\n1 2\n");
}

/// A search that is given no files looks through a pipe, if there is one, and else through the workdir.
#[test]
fn without_input_a_command_has_no_pipe_to_read() {
    let script = "test -p /dev/stdin && echo a pipe; cat";
    for json in [&[][..], &["--json"]] {
        let output = run(&[json, &["run", "--sh", script]].concat());
        assert!(output.status.success(), "{}", err(&output));
        assert!(!out(&output).contains("a pipe"), "{}", out(&output));
    }
}

#[test]
fn directories_come_and_go_and_mounts_are_read_only_unless_said() {
    let host = tempfile::tempdir().unwrap();
    let at = |name: &str| host.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir(at("in")).unwrap();
    std::fs::write(at("in/a.txt"), "a\n").unwrap();
    std::fs::write(at("in/b.log"), "b\n").unwrap();
    let (import, export) = (at("in"), format!("result:{}", at("out")));
    let script = "ls; mkdir result; cat a.txt > result/c; exit 3";
    let output = run(&[
        "run",
        "--import",
        &import,
        "--exclude",
        "*.log",
        "--export",
        &export,
        "--sh",
        script,
    ]);
    assert_eq!(output.status.code(), Some(3), "{}", err(&output));
    assert_eq!(out(&output), "a.txt\n");
    assert_eq!(std::fs::read(at("out/c")).unwrap(), b"a\n");
    // A second export does not replace what is there, unless that is asked for.
    let again = [
        "run",
        "--export",
        &export,
        "--sh",
        "mkdir result; echo 2 > result/c",
    ];
    let output = run(&again);
    assert_eq!(output.status.code(), Some(125), "{}", err(&output));
    assert_eq!(std::fs::read(at("out/c")).unwrap(), b"a\n");
    let output = run(&[&["run", "--replace"], &again[1..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(std::fs::read(at("out/c")).unwrap(), b"2\n");
    let mount = format!("{}:/m", at("in"));
    let output = run(&[
        "run",
        "--mount",
        &mount,
        "--sh",
        "cat /m/a.txt && touch /m/new",
    ]);
    assert_ne!(output.status.code(), Some(0));
    assert_eq!(out(&output), "a\n");
    assert!(!Path::new(&at("in/new")).exists());
}

#[test]
fn json_has_the_result_and_the_error() {
    let output = run(&[
        "--json",
        "run",
        "--sh",
        "printf '\\377'; echo é >&2; exit 7",
    ]);
    assert_eq!(output.status.code(), Some(7));
    let value = json(&output);
    assert_eq!(value["exit-code"], 7);
    assert_eq!(value["stdout"]["base64"], "/w==");
    assert_eq!(value["stderr"]["text"], "é\n");
    let output = run(&["--json", "run", "no-such-program"]);
    assert_eq!(output.status.code(), Some(127));
    assert_eq!(json(&output)["error"]["kind"], "command-not-found");
    let output = run(&["--json", "doctor"]);
    let value = json(&output);
    assert_eq!(value["provider"], "local");
    assert_eq!(value["findings"][0]["works"], true, "{value}");
    assert!(value["isolation"]["filesystem"].is_object(), "{value}");
    let output = run(&["--json", "ls"]);
    assert_eq!(json(&output), Value::Array(Vec::new()));
}

#[test]
fn doctor_says_what_holds_and_never_names_a_weaker_mode() {
    let output = run(&["doctor"]);
    let said = out(&output);
    assert!(
        matches!(output.status.code(), Some(0 | 1)),
        "{}",
        err(&output)
    );
    for word in [
        "ok       a sandbox with everything",
        "filesystem",
        "network",
    ] {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
    for line in said.lines().filter(|line| line.contains("missing")) {
        assert!(
            said.contains("to raise it:") || said.contains("why:"),
            "{line}"
        );
    }
    for weaker in ["plain", "Only(", "disable", "privileged"] {
        assert!(!said.contains(weaker), "it recommends {weaker}: {said}");
    }
    let missing = said.contains("missing");
    assert_eq!(output.status.code(), Some(i32::from(missing)));
}

#[test]
fn what_a_provider_lacks_is_said() {
    let output = run(&["--provider", "local-plain:", "snapshots"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(
        err(&output).contains("snapshot-list is not supported"),
        "{}",
        err(&output)
    );
    // The rest is told all the same.
    let output = run(&["--provider", "local-plain:", "doctor"]);
    assert_eq!(output.status.code(), Some(1));
    let said = out(&output);
    assert!(said.contains("ok       running a command\n"), "{said}");
    assert!(said.contains("  network       absent"), "{said}");
    let output = run(&["reap"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn help_documents_exit_codes_and_completions_complete() {
    let help = out(&run(&["--help"]));
    for word in ["124", "125", "126", "127", "SANDBOX_PROVIDER"] {
        assert!(help.contains(word), "no {word} in {help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = out(&run(&["completions", shell]));
        assert!(script.contains("doctor"), "{shell}");
    }
    // A reader that has enough is no error.
    let mut child = sandbox()
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(err(&output), "");
}

/// Ends the server when it is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

fn ends(child: &mut Child) -> i32 {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or(-1);
        }
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "it does not end"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_server_is_used_from_other_programs() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let (mut server, uri) = served("local:", &socket);
    let uri = uri.as_str();
    assert_eq!(uri, format!("remote:unix:{}", socket.display()));
    let output = run(&["-p", uri, "run", "--sh", "echo through; exit 5"]);
    assert_eq!(output.status.code(), Some(5), "{}", err(&output));
    assert_eq!(out(&output), "through\n");
    let output = run(&["-p", uri, "run", "--mount", "/etc:/m", "true"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(
        err(&output).contains("none of its host's directories"),
        "{}",
        err(&output)
    );
    // One that runs is seen, and reaped.
    let mut long = sandbox()
        .args(["-p", uri, "run", "--sh", "echo up; sleep 60"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut up = String::new();
    BufReader::new(long.stdout.take().unwrap())
        .read_line(&mut up)
        .unwrap();
    let listed = json(&run(&["-p", uri, "--json", "ls"]));
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    let dry = out(&run(&["-p", uri, "reap", "--all", "--dry-run"]));
    assert_eq!(dry.trim(), listed[0]["id"].as_str().unwrap());
    assert_eq!(out(&run(&["-p", uri, "reap", "--all"])), dry);
    assert_eq!(ends(&mut long), 125);
    assert_eq!(
        json(&run(&["-p", uri, "--json", "ls"])),
        Value::Array(Vec::new())
    );
    signal(&server.0, "-TERM");
    assert_eq!(ends(&mut server.0), 0);
    assert!(!socket.exists());
    let output = run(&["-p", uri, "run", "true"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(
        err(&output).contains("can't be reached"),
        "{}",
        err(&output)
    );
}

/// A server of the sandboxes behind a URI, and where it is reached.
fn served(from: &str, socket: &Path) -> (Server, String) {
    let listen = format!("unix:{}", socket.display());
    let mut child = sandbox()
        .args(["-p", from, "serve", "--listen", &listen])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut uri = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut uri).unwrap();
    (Server(child), uri.trim().to_owned())
}

/// Exit status of a program that is told to end again and again, as by a person without patience.
fn ends_when_told_again(child: &mut Child) -> i32 {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or(-1);
        }
        assert!(start.elapsed() < Duration::from_secs(120), "it stays");
        // It may have ended since it was looked at.
        let told = Command::new("kill").arg(child.id().to_string()).status();
        assert!(told.is_ok());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_backend_that_does_not_answer_keeps_no_program_from_ending() {
    let dir = tempfile::tempdir().unwrap();
    let (backend, far) = served("local:", &dir.path().join("far"));
    let (mut near, uri) = served(&far, &dir.path().join("near"));
    let start = |uri: &str| {
        let mut child = sandbox()
            .args([&["-p", uri], &UP[..]].concat())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut up = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut up).unwrap();
        assert_eq!(up, "up\n");
        child
    };
    let (mut direct, mut through) = (start(&far), start(&uri));
    signal(&backend.0, "-STOP");
    assert_eq!(ends_when_told_again(&mut direct), 143);
    assert_eq!(ends_when_told_again(&mut near.0), 143);
    let _ = ends_when_told_again(&mut through);
}

#[test]
fn a_server_does_not_listen_where_others_could_reach_it() {
    let output = run(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(err(&output).contains("TLS"), "{}", err(&output));
    let output = run(&["serve", "--listen", "127.0.0.1:0"]);
    assert!(err(&output).contains("--token-file"), "{}", err(&output));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "short").unwrap();
    let file = file.to_str().unwrap();
    let output = run(&["serve", "--listen", "127.0.0.1:0", "--token-file", file]);
    assert!(err(&output).contains("too short"), "{}", err(&output));
    assert!(!err(&output).contains("\"short\""));
}

/// A program that says that it runs, and that signals end at any moment: a shell that is just about to
/// execute another program may lose one.
const UP: [&str; 4] = ["run", "perl", "-e", "$| = 1; print \"up\\n\"; sleep 60"];

#[test]
fn a_signal_ends_the_command_too() {
    // The command's own end by the signal that was passed on.
    for (name, code) in [("-TERM", 143), ("-INT", 130)] {
        let mut child = sandbox().args(UP).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut up = String::new();
        stdout.read_line(&mut up).unwrap();
        signal(&child, name);
        assert_eq!(ends(&mut child), code, "{name}");
    }
}

#[test]
fn an_interrupt_that_no_command_gets_closes_the_sandbox() {
    let dir = tempfile::tempdir().unwrap();
    let mount = format!("{}:/seen:rw", dir.path().display());
    let script = "touch /seen/up; exec sleep 60";
    let mut child = sandbox()
        .args(["--json", "run", "--mount", &mount, "--sh", script])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while !dir.path().join("up").exists() {
        assert!(start.elapsed() < Duration::from_secs(120), "it never ran");
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(&child, "-INT");
    // Ended by the signal itself, it would have closed nothing, and have no exit status.
    assert_eq!(ends(&mut child), 130);
}

#[test]
fn what_a_command_changed_comes_as_a_patch_and_is_applied() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), "one\n").unwrap();
    let import = format!("{}:work", dir.path().display());
    let patch = dir.path().join("p.diff");
    let script =
        "cd work; echo two > a; mkdir -p .git/hooks; echo x > .git/hooks/pre-commit; exit 3";
    let file = patch.to_str().unwrap();
    let output = run(&["run", "--import", &import, "--patch", file, "--sh", script]);
    assert_eq!(output.status.code(), Some(3), "{}", err(&output));
    let text = std::fs::read_to_string(&patch).unwrap();
    assert!(text.contains("-one\n+two\n"), "{text}");
    assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"one\n");
    std::fs::remove_file(&patch).unwrap();

    let output = run(&["run", "--import", &import, "--apply", "--sh", script]);
    assert_eq!(output.status.code(), Some(3), "{}", err(&output));
    assert!(
        err(&output).contains(".git/hooks/pre-commit"),
        "{}",
        err(&output)
    );
    assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"two\n");
    assert!(!dir.path().join(".git").exists());

    let output = run(&["run", "--apply", "true"]);
    assert_eq!(output.status.code(), Some(125), "{}", err(&output));
}

/// A layout with one image: Debian's static busybox, and what another layer has above it.
fn image(dir: &Path) -> String {
    use std::os::unix::fs::symlink;
    let tool = |command: &mut Command| {
        let output = command
            .output()
            .expect("the tools of .ci/run are installed");
        assert!(output.status.success(), "{command:?}: {}", err(&output));
    };
    let layout = dir.join("image");
    let named = format!("{}:it", layout.display());
    tool(
        Command::new("umoci")
            .args(["init", "--layout"])
            .arg(&layout),
    );
    tool(Command::new("umoci").args(["new", "--image", &named]));
    let root = dir.join("root");
    for sub in ["bin", "etc", "tmp"] {
        std::fs::create_dir_all(root.join(sub)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    symlink("busybox", root.join("bin/sh")).unwrap();
    symlink("busybox", root.join("bin/cat")).unwrap();
    std::fs::write(root.join("etc/mark"), "from the image\n").unwrap();
    let layer = dir.join("layer.tar");
    tool(
        Command::new("tar")
            .arg("-cf")
            .arg(&layer)
            .arg("-C")
            .arg(&root)
            .arg("."),
    );
    tool(
        Command::new("umoci")
            .args(["raw", "add-layer", "--image", &named])
            .arg(&layer),
    );
    format!("oci:{named}")
}

/// Debian's registry on a port of its own; ends with this.
struct Registry {
    child: std::process::Child,
    port: u16,
}

impl Registry {
    fn start(dir: &Path) -> Self {
        let config = dir.join("registry.yml");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '127.0.0.1:0'}}\n",
            dir.join("registry").display()
        );
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Debian's docker-registry is installed");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.unwrap();
            let after = line.split("listening on 127.0.0.1:").nth(1)?;
            let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        });
        // What it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            child,
            port: port.expect("it listens"),
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn images_are_listed_run_and_removed_and_snapshots_outlive_the_program() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::Builder::new()
        .prefix("sandbox-cli")
        .tempdir_in("/var/tmp")
        .unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let reference = image(dir.path());
    let state = dir.path().join("state");
    let here = |arguments: &[&str]| {
        let mut command = sandbox();
        command.env("SANDBOX_STATE_DIR", &state).args(arguments);
        command.output().unwrap()
    };
    let pulled = here(&["images", "pull", &reference]);
    assert!(out(&pulled).starts_with("sha256:"), "{}", err(&pulled));
    let listed = json(&here(&["--json", "images"]));
    assert_eq!(listed[0]["reference"], Value::from(reference.as_str()));
    assert!(listed[0]["bytes"].as_u64().unwrap() > 100_000, "{listed}");
    let script = "cat /etc/mark; echo kept > /etc/kept";
    let ran = here(&["run", "--image", &reference, "--save", "--sh", script]);
    assert_eq!(out(&ran), "from the image\n", "{}", err(&ran));
    let said = err(&ran);
    let id = said
        .trim()
        .strip_prefix("sandbox: snapshot ")
        .expect("it is named");
    let listed = json(&here(&["--json", "snapshots"]));
    assert_eq!(listed[0]["id"], Value::from(id));
    let again = here(&["run", "--snapshot", id, "cat", "/etc/kept", "/etc/mark"]);
    assert_eq!(out(&again), "kept\nfrom the image\n", "{}", err(&again));
    // What was exported is loaded by others.
    let file = dir.path().join("base.tar");
    let exported = here(&["snapshots", "export", id, file.to_str().unwrap()]);
    assert!(exported.status.success(), "{}", err(&exported));
    let archive = format!("oci-archive:{}", file.display());
    let skopeo = Command::new("skopeo").args(["inspect", &archive]).output();
    let skopeo = skopeo.expect("Debian's skopeo is installed");
    assert!(skopeo.status.success(), "{}", err(&skopeo));
    let user = Command::new("id").arg("-u").output().unwrap();
    // As an ordinary user podman needs a range of users of its own.
    if out(&user).trim() == "0" {
        let podman = Command::new("podman")
            .arg("--root")
            .arg(dir.path().join("podman"))
            .arg("--runroot")
            .arg(dir.path().join("podman-run"))
            .args(["--storage-driver", "vfs", "load", "-i"])
            .arg(&file)
            .output()
            .expect("Debian's podman is installed");
        assert!(podman.status.success(), "{}", err(&podman));
    }
    // What was pushed is an image like any other.
    let registry = Registry::start(dir.path());
    let name = format!("127.0.0.1:{}/team/base:1", registry.port);
    let pushed = json(&here(&["--json", "snapshots", "push", id, &name]));
    assert_eq!(pushed["reference"], Value::from(name.as_str()), "{pushed}");
    let started = here(&["run", "--image", &name, "cat", "/etc/kept", "/etc/mark"]);
    assert_eq!(out(&started), "kept\nfrom the image\n", "{}", err(&started));
    drop(registry);
    let refused = here(&["snapshots", "push", id, &name]);
    assert_eq!(refused.status.code(), Some(125), "{}", err(&refused));
    let removed = here(&["images", "rm", &name]);
    assert!(removed.status.success(), "{}", err(&removed));
    // One that is not there keeps no other, and is told.
    let removed = here(&["--json", "snapshots", "rm", "no-such", id]);
    assert_eq!(removed.status.code(), Some(125), "{}", err(&removed));
    let removed = json(&removed);
    assert_eq!(removed["deleted"], serde_json::json!([id]), "{removed}");
    assert_eq!(removed["failed"][0]["id"], "no-such", "{removed}");
    assert_eq!(json(&here(&["--json", "snapshots"])), Value::Array(vec![]));
    let removed = here(&["images", "rm", "no-such", &reference]);
    assert_eq!(removed.status.code(), Some(125), "{}", err(&removed));
    assert!(
        err(&removed).contains("sandbox: no-such: "),
        "{}",
        err(&removed)
    );
    assert_eq!(json(&here(&["--json", "images"])), Value::Array(vec![]));
    // What was unpacked of the snapshot went with it, and what of the image both had with the image.
    let unpacked = std::fs::read_dir(state.join("images/layers")).unwrap();
    assert_eq!(unpacked.count(), 0);
    let missing = here(&["images", "rm", &reference]);
    assert_eq!(missing.status.code(), Some(125), "{}", err(&missing));
    let collected = json(&here(&["--json", "images", "gc"]));
    assert!(collected["bytes"].as_u64().is_some(), "{collected}");
}

/// A program on a terminal of its own, and what it has shown so far.
struct Terminal {
    child: Child,
    master: std::fs::File,
    shown: std::sync::Arc<std::sync::Mutex<String>>,
}

impl Terminal {
    fn start(arguments: &[&str], state: &Path) -> Self {
        use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let end = ioctl_tiocgptpeer(&master, flags).unwrap();
        let master = std::fs::File::from(master);
        resize(&master, 30, 100);
        let end = || Stdio::from(end.try_clone().unwrap());
        let program = sandbox();
        // With a terminal that sends it signals.
        let child = Command::new("setsid")
            .args(["--ctty", "--wait"])
            .arg(program.get_program())
            .args(arguments)
            .env_remove("SANDBOX_PROVIDER")
            .env("SANDBOX_STATE_DIR", state)
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let shown = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
        let (mut from, to) = (master.try_clone().unwrap(), shown.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // An error is the end of a terminal.
            while let Ok(len @ 1..) = std::io::Read::read(&mut from, &mut bytes) {
                *to.lock().unwrap() += &String::from_utf8_lossy(&bytes[..len]);
            }
        });
        Self {
            child,
            master,
            shown,
        }
    }

    fn type_in(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until it has shown this, and types again meanwhile if it should.
    fn until(&mut self, text: &str, again: Option<&str>) -> String {
        let begun = Instant::now();
        let mut typed = Instant::now();
        loop {
            let shown = self.shown.lock().unwrap().clone();
            if shown.contains(text) {
                return shown;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(120),
                "no {text:?} in {shown:?}"
            );
            if let Some(again) = again
                && typed.elapsed() > Duration::from_secs(1)
            {
                self.type_in(again);
                typed = Instant::now();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn ends(mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap()
    }
}

fn resize(master: &std::fs::File, rows: u16, columns: u16) {
    let size = rustix::termios::Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(master, size).unwrap();
}

fn state_dir() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    dir
}

#[test]
fn a_shell_has_a_terminal_with_keys_sizes_and_its_own_exit_status() {
    let state = state_dir();
    let mut shell = Terminal::start(&["shell"], state.path());
    shell.type_in("tty; stty size; printf 'ready-%s\\n' now\n");
    let shown = shell.until("ready-now", None);
    assert!(
        shown.contains("/dev/pts/") && shown.contains("30 100"),
        "{shown}"
    );
    resize(&shell.master, 41, 123);
    shell.until("41 123", Some("stty size\n"));
    // ^C is the guest's, and ends what runs in the foreground there, not the shell.
    shell.type_in("echo sleeps-$((1+1)); sleep 1000\n");
    shell.until("sleeps-2", None);
    shell.until("after-3", Some("\x03echo after-$((1+2))\n"));
    shell.type_in("exit 7\n");
    let master = shell.master.try_clone().unwrap();
    assert_eq!(shell.ends(), 7);
    let modes = rustix::termios::tcgetattr(&master).unwrap().local_modes;
    assert!(
        modes.contains(rustix::termios::LocalModes::ICANON | rustix::termios::LocalModes::ECHO)
    );
}

#[test]
fn a_shell_needs_a_terminal() {
    let output = run(&["shell"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(err(&output).contains("not a terminal") && err(&output).contains("sandbox run sh"));
    let output = run(&["run", "--tty", "true"]);
    assert_eq!(output.status.code(), Some(125), "{}", err(&output));
}

#[test]
fn a_sandbox_that_is_kept_is_listed_attached_to_and_reaped() {
    let state = state_dir();
    let run = |arguments: &[&str]| {
        let mut command = sandbox();
        command.env("SANDBOX_STATE_DIR", state.path());
        command.args(arguments).output().unwrap()
    };
    let output = run(&[
        "run",
        "--keep",
        "--label",
        "user=ada",
        "-e",
        "A=b",
        "--sh",
        "echo one > f",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let said = err(&output);
    let id = said.split_whitespace().nth(1).unwrap();
    let listed = json(&run(&["--json", "ls", "-l", "user=ada"]));
    assert_eq!(listed[0]["id"], id, "{listed}");
    assert_eq!(
        (&listed[0]["status"], &listed[0]["lasting"]),
        (&"stopped".into(), &true.into())
    );
    assert!(out(&run(&["ls"])).contains("stopped"));
    let output = run(&[
        "run",
        "--attach",
        id,
        "--sh",
        "cat f; echo $A; echo two >> f; exit 3",
    ]);
    assert_eq!(output.status.code(), Some(3), "{}", err(&output));
    assert_eq!(out(&output), "one\nb\n");
    // While a terminal has it open nothing else has.
    let mut shell = Terminal::start(&["shell", "--attach", id], state.path());
    shell.type_in("cat f; echo open-$((1+1))\n");
    let shown = shell.until("open-2", None);
    assert!(shown.contains("two"), "{shown}");
    let listed = json(&run(&["--json", "ls"]));
    assert_eq!(listed[0]["status"], "open-elsewhere", "{listed}");
    let output = run(&["run", "--attach", id, "true"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(
        err(&output).contains("another process has it open"),
        "{}",
        err(&output)
    );
    shell.type_in("exit\n");
    assert_eq!(shell.ends(), 0);
    assert_eq!(out(&run(&["reap", "--all", "-n"])), format!("{id}\n"));
    assert_eq!(
        out(&run(&["reap", "--label", "user=ada"])),
        format!("{id}\n")
    );
    assert_eq!(json(&run(&["--json", "ls"])), Value::Array(Vec::new()));
    let output = run(&["run", "--attach", id, "true"]);
    assert_eq!(output.status.code(), Some(125));
    // A fresh sandbox is described, not one that is there.
    assert_eq!(
        run(&["run", "--attach", id, "--memory", "1G", "true"])
            .status
            .code(),
        Some(2)
    );
}
