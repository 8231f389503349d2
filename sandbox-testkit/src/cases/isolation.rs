//! Isolation from the host, limits, users and sources.
//!
//! Invariant: "out of reach" is shown for something that is shown to be reachable otherwise; a
//! missing program never counts as blocked.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use sandbox_core::{
    Capability, Command, Control, ErrorKind, Execution, ExitCause, Mount, Network, Operation,
    RequiredIsolation, Resources, SandboxExt as _, Source,
};

use super::tools::text;
use crate::kit::{Context, Failed, Verdict, cases, ensure, ensure_eq, refused};

cases! { "isolation":
    the_report_names_every_control,
    the_report_claims_the_basics [Isolation],
    required_controls_are_in_force [Isolation],
    an_undeclared_limit_is_not_claimed [Isolation],
    a_limit_that_is_set_is_in_the_report [Isolation, PidsLimit],
    a_listener_of_the_host_is_out_of_reach [Exec, NetworkOff],
    a_listener_of_the_host_is_in_reach_of_an_open_network [Exec, NetworkOpen],
    processes_of_the_host_are_not_seen [Exec, Isolation],
    tmp_is_the_sandboxs_own [Exec],
    a_read_only_mount_is_read_only [Exec, Mounts],
    a_read_write_mount_is_shared [Exec, Mounts],
    a_missing_mount_is_refused [Mounts],
    a_memory_limit_holds [Exec, MemoryLimit],
    a_pids_limit_holds [Exec, PidsLimit],
    a_disk_limit_holds [DiskLimit],
    a_cpu_limit_holds [Exec, CpuLimit],
    another_user_runs_commands [Exec, User],
    an_unknown_user_is_named [Exec, User],
    an_image_is_started_from [Exec, Image],
    a_root_directory_is_started_from [Exec, RootDir],
}

cases! { "isolation" of_this_host:
    claims_are_held_against_evidence [Exec, Isolation],
}

async fn the_report_names_every_control(cx: Context) -> Verdict {
    let report = cx.sandbox.isolation().await?;
    for control in Control::ALL {
        let Some(enforcement) = report.get(*control) else {
            return Err(Failed::new(format_args!(
                "the report says nothing of {control}"
            )));
        };
        let text = enforcement.to_string();
        let said = text.split_once([':', ' ']).map_or("", |(_, rest)| rest);
        ensure!(!said.trim().is_empty(), "{control} has no text");
    }
    Ok(())
}

async fn the_report_claims_the_basics(cx: Context) -> Verdict {
    let report = cx.sandbox.isolation().await?;
    for control in [Control::Filesystem, Control::Processes, Control::Privileges] {
        ensure!(
            report.is_enforced(control),
            "{control}: {:?}",
            report.get(control)
        );
    }
    Ok(())
}

async fn an_undeclared_limit_is_not_claimed(cx: Context) -> Verdict {
    let report = cx.sandbox.isolation().await?;
    let declared = cx.fixture.capabilities();
    let limits = [
        (Control::Memory, Capability::MemoryLimit),
        (Control::Cpu, Capability::CpuLimit),
        (Control::Pids, Capability::PidsLimit),
        (Control::Disk, Capability::DiskLimit),
    ];
    for (control, capability) in limits {
        ensure!(
            declared.has(capability) || !report.is_enforced(control),
            "{control} is {:?}, and the backend does not declare {capability}",
            report.get(control)
        );
    }
    Ok(())
}

async fn a_limit_that_is_set_is_in_the_report(cx: Context) -> Verdict {
    let spec = cx.fixture.spec().resources(Resources::new().pids(64));
    let sandbox = cx.create(spec).await?;
    let report = sandbox.isolation().await?;
    ensure!(
        report.is_enforced(Control::Pids),
        "a limit was set, and {} is {:?}",
        Control::Pids,
        report.get(Control::Pids)
    );
    Ok(())
}

/// The value of a line of `/proc/self/status`, as a process of the guest reads it.
fn of_status<'a>(status: &'a str, name: &str) -> Verdict<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
        .ok_or_else(|| Failed::new(format_args!("/proc/self/status has no {name}:\n{status}")))
}

async fn claims_are_held_against_evidence(cx: Context) -> Verdict {
    let report = cx.sandbox.isolation().await?;
    let output = cx.sh("cat /proc/self/status").await?;
    let status = text(&output);
    let is = |name: &str, expected: &str| {
        let found = of_status(&status, name)?;
        ensure!(
            found.trim_start_matches('0') == expected.trim_start_matches('0'),
            "the report claims what the kernel denies: {name} is {found} and not {expected}"
        );
        Ok(())
    };
    if report.is_enforced(Control::Privileges) {
        is("CapEff", "0")?;
        is("CapPrm", "0")?;
        // No way to gain one: by a set-user-ID program, or because none may ever be had.
        if !of_status(&status, "CapBnd")?.trim_matches('0').is_empty() {
            is("NoNewPrivs", "1")?;
        }
    }
    if report.is_enforced(Control::SystemCalls) {
        is("Seccomp", "2")?;
    }
    let namespaces = [
        (Control::Processes, "pid"),
        (Control::Ipc, "ipc"),
        (Control::Filesystem, "mnt"),
        (Control::Network, "net"),
    ];
    for (control, namespace) in namespaces {
        if !report.is_enforced(control) {
            continue;
        }
        let link = format!("/proc/self/ns/{namespace}");
        let host = std::fs::read_link(&link)?;
        let guest = cx.sh(format!("readlink {link}")).await?;
        ensure!(
            text(&guest).trim() != host.to_string_lossy(),
            "{control} is claimed to be enforced, and the {namespace} namespace is the host's"
        );
    }
    Ok(())
}

async fn required_controls_are_in_force(cx: Context) -> Verdict {
    // A limit is in force only where a spec sets one; these need no number.
    let controls = [
        Control::Filesystem,
        Control::Processes,
        Control::Network,
        Control::Ipc,
        Control::Privileges,
        Control::SystemCalls,
    ];
    for control in &controls {
        let required = RequiredIsolation::Only(vec![*control]);
        match cx.create(cx.fixture.spec().isolation(required)).await {
            Ok(sandbox) => {
                let report = sandbox.isolation().await?;
                ensure!(
                    report.is_enforced(*control),
                    "{control} was required and is {:?}",
                    report.get(*control)
                );
                sandbox.close().await?;
            }
            Err(error) => {
                ensure_eq!(error.kind(), ErrorKind::Isolation, "{error:?}");
                ensure!(error.hint().is_some(), "the error has no remedy: {error:?}");
            }
        }
    }
    Ok(())
}

/// A listener of the host that counts who comes, shown to be reachable.
struct Listener {
    port: u16,
    came: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl Listener {
    fn start() -> Verdict<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let came = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
        let count = came.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let mut stream = stream;
                // Who came and went has been counted.
                let _ = stream.write_all(b"reached");
            }
        });
        let mut text = String::new();
        std::net::TcpStream::connect(("127.0.0.1", port))?.read_to_string(&mut text)?;
        ensure_eq!(text, "reached", "what the listener says to the host");
        Ok(Self { port, came })
    }

    fn came(&self) -> usize {
        self.came.load(std::sync::atomic::Ordering::SeqCst)
    }
}

/// Tries to connect with the first program of the guest that can.
async fn connect(sandbox: &dyn sandbox_core::Sandbox, port: u16) -> Verdict<String> {
    let python = format!(
        "import socket\ntry:\n s=socket.create_connection(('127.0.0.1',{port}),20)\n \
         print(s.recv(9).decode())\nexcept OSError as e:\n print('blocked', e)"
    );
    let bash =
        format!("if exec 3<>/dev/tcp/127.0.0.1/{port}; then head -c 7 <&3; else echo blocked; fi");
    let nc = format!("nc -w 20 127.0.0.1 {port} < /dev/null || echo blocked");
    for command in [
        Command::new("python3").arg("-c").arg(python),
        Command::new("bash").arg("-c").arg(bash),
        Command::shell(format!("command -v nc > /dev/null || exit 127; {nc}")),
    ] {
        let ran = sandbox.exec(command.timeout(Duration::from_secs(60))).await;
        match ran {
            Ok(output) if output.status.code() == Some(127) => {}
            Ok(output) => return Ok(text(&output)),
            Err(error) if error.kind() == ErrorKind::CommandNotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failed::new(
        "the guest has none of python3, bash and nc: nothing could try to connect",
    ))
}

async fn a_listener_of_the_host_is_out_of_reach(cx: Context) -> Verdict {
    let listener = Listener::start()?;
    let sandbox = cx.create(cx.fixture.spec().network(Network::Off)).await?;
    let said = connect(&*sandbox, listener.port).await?;
    ensure!(said.contains("blocked"), "the guest says {said:?}");
    ensure_eq!(listener.came(), 1, "connections, one being the host's own");
    Ok(())
}

async fn a_listener_of_the_host_is_in_reach_of_an_open_network(cx: Context) -> Verdict {
    let listener = Listener::start()?;
    let spec = cx.fixture.spec().network(Network::Open);
    let sandbox = cx.create(spec).await?;
    let said = connect(&*sandbox, listener.port).await?;
    ensure!(said.contains("reached"), "the guest says {said:?}");
    ensure_eq!(listener.came(), 2, "connections");
    Ok(())
}

async fn processes_of_the_host_are_not_seen(cx: Context) -> Verdict {
    // The control: the sandbox sees its own.
    cx.sh("kill -0 $$").await?;
    let pid = std::process::id();
    let script = format!("tr '\\000' '\\n' < /proc/{pid}/environ; printf '|'; kill -0 {pid}");
    let output = cx.sandbox.sh(script).await?;
    for (name, value) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO")) {
        let line = format!("{name}={value}");
        ensure!(
            !text(&output).contains(&line),
            "the environment of this process is seen"
        );
    }
    Ok(())
}

async fn tmp_is_the_sandboxs_own(cx: Context) -> Verdict {
    let host = cx.host_dir()?;
    let name = host
        .path()
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    let output = cx.sh("ls /tmp; touch /tmp/of-the-guest; ls /tmp").await?;
    ensure!(
        text(&output).contains("of-the-guest"),
        "the guest can't write to /tmp"
    );
    ensure!(
        !text(&output).contains(&name),
        "the guest sees the host's directory"
    );
    Ok(())
}

async fn a_read_only_mount_is_read_only(cx: Context) -> Verdict {
    let host = cx.shared_dir()?;
    std::fs::write(host.path().join("f"), "host")?;
    let mount = Mount::read_only(host.path(), "/mnt/kit");
    let sandbox = cx.create(cx.fixture.spec().mount(mount)).await?;
    let script = "cat /mnt/kit/f; printf x > /mnt/kit/f || printf -- '|denied'";
    let output = sandbox.sh(script).await?;
    ensure_eq!(text(&output), "host|denied", "what the guest can do");
    let kept = std::fs::read_to_string(host.path().join("f"))?;
    ensure_eq!(kept, "host", "the host's file");
    Ok(())
}

async fn a_read_write_mount_is_shared(cx: Context) -> Verdict {
    let host = cx.shared_dir()?;
    std::fs::write(host.path().join("f"), "host")?;
    let mount = Mount::read_write(host.path(), "/mnt/kit");
    let sandbox = cx.create(cx.fixture.spec().mount(mount)).await?;
    let output = sandbox
        .sh("cat /mnt/kit/f; printf guest > /mnt/kit/g")
        .await?;
    ensure_eq!(text(&output), "host", "what the guest reads");
    ensure!(
        output.success(),
        "the guest can't write: {}",
        output.stderr.to_string_lossy()
    );
    let written = std::fs::read_to_string(host.path().join("g"))?;
    ensure_eq!(written, "guest", "what the host reads");
    Ok(())
}

async fn a_missing_mount_is_refused(cx: Context) -> Verdict {
    let host = cx.host_dir()?;
    let mount = Mount::read_only(host.path().join("nope"), "/mnt/kit");
    match cx.create(cx.fixture.spec().mount(mount)).await {
        Ok(_) => Err(Failed::new("a directory that does not exist was mounted")),
        Err(error) => {
            let kinds = [ErrorKind::NotFound, ErrorKind::InvalidInput];
            ensure!(kinds.contains(&error.kind()), "{error:?}");
            Ok(())
        }
    }
}

async fn a_memory_limit_holds(cx: Context) -> Verdict {
    let resources = Resources::new().memory(128 << 20);
    let sandbox = cx.create(cx.fixture.spec().resources(resources)).await?;
    // `tail` of a stream without a newline keeps all of it.
    let eat = |mebibytes: u32| {
        format!("dd if=/dev/zero bs=1048576 count={mebibytes} | tail -n 1 | wc -c")
    };
    let output = sandbox.sh(eat(8)).await?;
    ensure_eq!(text(&output).trim(), "8388608", "a little, as the control");
    let command = Command::shell(eat(512)).timeout(Duration::from_secs(120));
    match sandbox.exec(command).await {
        Ok(output) => {
            ensure!(
                text(&output).trim() != "536870912",
                "512 MiB were kept within a limit of 128 MiB"
            );
            let caused = [
                ExitCause::Exited,
                ExitCause::OutOfMemory,
                ExitCause::Unknown,
            ];
            ensure!(caused.contains(&output.cause), "{}", output.cause);
        }
        Err(error) => ensure!(error.kind() != ErrorKind::Timeout, "{error:?}"),
    }
    let output = sandbox.sh("printf alive").await?;
    ensure_eq!(text(&output), "alive", "the sandbox afterwards");
    Ok(())
}

async fn a_pids_limit_holds(cx: Context) -> Verdict {
    let resources = Resources::new().pids(32);
    let sandbox = cx.create(cx.fixture.spec().resources(resources)).await?;
    let script = |count: u32| {
        format!(
            "i=0; while [ $i -lt {count} ]; do sleep 50 > /dev/null 2> /dev/null & \
             i=$((i+1)); printf x >> started; done; \
             sleep 0.1"
        )
    };
    let output = sandbox.sh(script(5)).await?;
    ensure!(
        output.success(),
        "five processes, as the control: {output:?}"
    );
    let other = cx.another().await?;
    let command = Command::shell(script(200)).timeout(Duration::from_secs(120));
    let ran = sandbox.exec(command).await;
    if let Ok(output) = &ran {
        ensure!(
            !output.success() || !output.stderr.bytes.is_empty(),
            "two hundred processes were started within a limit of 32"
        );
    }
    let output = other.sh("printf alive").await?;
    ensure_eq!(text(&output), "alive", "another sandbox");
    Ok(())
}

async fn a_disk_limit_holds(cx: Context) -> Verdict {
    let resources = Resources::new().disk(16 << 20);
    let sandbox = cx.create(cx.fixture.spec().resources(resources)).await?;
    sandbox.write("small", vec![b'x'; 1 << 20]).await?;
    let done = sandbox.write("big", vec![b'x'; 32 << 20]).await;
    refused(
        done,
        &sandbox,
        Operation::WriteFiles,
        ErrorKind::StorageFull,
    )?;
    ensure!(!sandbox.exists("big").await?, "a part of it is there");
    ensure_eq!(sandbox.read("small").await?.len(), 1 << 20, "the small one");
    sandbox.write("another", vec![b'x'; 1 << 20]).await?;
    Ok(())
}

async fn a_cpu_limit_holds(cx: Context) -> Verdict {
    let resources = Resources::new().cpus(0.2);
    let sandbox = cx.create(cx.fixture.spec().resources(resources)).await?;
    // A fifth of a core: a loop of two seconds gets about 0.4 seconds of processor time. Less is
    // no failure, since a busy host gives less.
    let script = "end=$(( $(date +%s) + 3 )); while [ $(date +%s) -lt $end ]; do :; done; times";
    let output = sandbox.sh(script).await?;
    let used = processor_seconds(&text(&output));
    ensure!(
        used.is_some_and(|used| used < 1.5),
        "with a fifth of a core, a loop of two to three seconds used {used:?} seconds of it: {}",
        text(&output)
    );
    let report = sandbox.isolation().await?;
    ensure!(
        report.is_enforced(Control::Cpu),
        "the limit was accepted and is {:?}",
        report.get(Control::Cpu)
    );
    Ok(())
}

/// The sum of what `times` prints: user and system time, of the shell and of its children.
fn processor_seconds(times: &str) -> Option<f64> {
    let mut sum = 0.0;
    for time in times.split_whitespace() {
        let (minutes, seconds) = time.trim_end_matches('s').split_once('m')?;
        sum += minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?;
    }
    Some(sum)
}

async fn another_user_runs_commands(cx: Context) -> Verdict {
    let Some(user) = cx.fixture.other_user() else {
        return Err(Failed::new("the fixture declares users and names none"));
    };
    let own = cx.sh("id -u").await?;
    let command = Command::new("id").arg("-u").user(user);
    let other = cx.sandbox.exec(command).await?;
    ensure!(other.success(), "id ended with {}", other.status);
    ensure!(text(&own) != text(&other), "both are user {}", text(&own));
    Ok(())
}

async fn an_unknown_user_is_named(cx: Context) -> Verdict {
    let command = Command::shell("touch ran").user("no-such-user");
    let ran = cx.sandbox.exec(command).await;
    let kind = match &ran {
        Err(error) if error.kind() == ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::InvalidInput,
    };
    let error = refused(ran, &cx.sandbox, Operation::Exec, kind)?;
    ensure!(error.to_string().contains("no-such-user"), "{error}");
    ensure_eq!(
        error.execution(),
        Some(Execution::NotStarted),
        "whether it ran"
    );
    ensure!(!cx.sandbox.exists("ran").await?, "it ran");
    Ok(())
}

async fn started_from(cx: &Context, source: Source) -> Verdict {
    let sandbox = cx.create(cx.fixture.spec().source(source)).await?;
    let output = sandbox.sh("printf up > f; cat f").await?;
    ensure_eq!(text(&output), "up", "what a command says");
    ensure_eq!(sandbox.read_to_string("f").await?, "up", "the file");
    Ok(())
}

async fn an_image_is_started_from(cx: Context) -> Verdict {
    match cx.fixture.image() {
        Some(image) => started_from(&cx, Source::Image(image)).await,
        None => Err(Failed::new("the fixture declares images and names none")),
    }
}

async fn a_root_directory_is_started_from(cx: Context) -> Verdict {
    match cx.fixture.root_dir() {
        Some(root) => started_from(&cx, Source::RootDir(root)).await,
        None => Err(Failed::new(
            "the fixture declares root directories and names none",
        )),
    }
}
