//! Cases about capabilities that are not declared: refused, without effect; one for each.
//!
//! Invariant: every refusal comes with the proof that the sandbox is as it was.

use std::time::Duration;

use sandbox_core::{
    Access, Capability, Command, Control, CreateDirOptions, EgressPolicy, EgressRule, Enforcement,
    Error, ErrorKind, Execution, FileBatch, GuestUser, ImportOptions, Labels, Mode, Mount, Network,
    OpenReadOptions, OpenWriteOptions, Operation, RequiredIsolation, Resources, SandboxExt as _,
    SandboxSpec, Signal, SnapshotId, SnapshotOptions, Source, Support, TerminalSize,
};

use super::tools::{daemon, far_daemon, stopped};
use crate::kit::{Case, Context, Failed, Verdict, ensure, ensure_eq, refused};

macro_rules! unsupported {
    ($($lacks:ident: $name:ident $(, needs $need:ident)?;)+) => {
        pub(super) const CASES: &[Case] = &[$(Case {
            name: concat!("unsupported::", stringify!($name)),
            needs: &[$(Capability::$need)?],
            lacks: Some(Capability::$lacks),
            of_this_host: false,
            sabotages: false,
            run: |cx| Box::pin(async move {
                reason(&cx, Capability::$lacks)?;
                $name(cx).await
            }),
        },)+];
    };
}

unsupported! {
    Exec: exec;
    Spawn: spawn;
    StdinPipe: stdin_pipe;
    Signals: signals, needs Spawn;
    User: user;
    KillDaemons: kill_daemons;
    Background: background, needs Exec;
    Fork: fork;
    ForkMemory: fork_memory;
    Snapshot: snapshot;
    SnapshotList: snapshot_list;
    SnapshotDelete: snapshot_delete;
    List: list;
    Attach: attach;
    Ttl: ttl;
    Image: image;
    RootDir: root_dir;
    Mounts: mounts;
    Symlinks: symlinks;
    Modes: modes;
    NonUtf8Names: non_utf8_names;
    FilePermissions: file_permissions;
    NetworkOff: network_off;
    NetworkOpen: network_open;
    MemoryLimit: memory_limit;
    CpuLimit: cpu_limit;
    PidsLimit: pids_limit;
    DiskLimit: disk_limit;
    Isolation: isolation;
    EgressByName: egress_by_name;
    EgressPorts: egress_ports, needs EgressByName;
    EgressCredentials: egress_credentials, needs EgressByName;
    Terminal: terminal, needs Spawn;
    Jobs: jobs;
    Ports: ports;
    FileStreams: file_streams;
    Changes: changes;
    Usage: usage;
    Pause: pause;
    GuestRoot: guest_root;
    Lasting: lasting;
    Watch: watch;
}

/// Checks that the declaration gives a reason.
fn reason(cx: &Context, capability: Capability) -> Verdict {
    match cx.fixture.capabilities().support(capability) {
        Support::None(reason) if !reason.trim().is_empty() => Ok(()),
        other => Err(Failed::new(format_args!(
            "{capability} should be absent with a reason and is {other:?}"
        ))),
    }
}

/// Checks a refusal: kind, operation and a reason.
fn is_refusal(cx: &Context, error: &Error, lacks: Capability, operation: Operation) -> Verdict {
    ensure_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    ensure_eq!(error.operation(), operation, "{error:?}");
    ensure!(
        error.execution() != Some(Execution::Interrupted),
        "something ran: {error:?}"
    );
    ensure!(!error.is_retryable(), "a refusal is not worth retrying");
    let Support::None(reason) = cx.fixture.capabilities().support(lacks) else {
        return Err(Failed::new("the capability is declared"));
    };
    ensure!(
        error.message().contains(&*reason) || error.message().len() >= 10,
        "the error gives no reason: {error:?}"
    );
    Ok(())
}

/// Checks that an operation of the sandbox is refused and left it as it was.
async fn refuses<T: std::fmt::Debug>(
    cx: &Context,
    result: Result<T, Error>,
    lacks: Capability,
    operation: Operation,
) -> Verdict {
    let error = refused(result, &cx.sandbox, operation, ErrorKind::Unsupported)?;
    is_refusal(cx, &error, lacks, operation)?;
    still_works(cx).await
}

/// Checks that the sandbox is empty and usable.
async fn still_works(cx: &Context) -> Verdict {
    ensure_eq!(
        cx.sandbox.list(".").await?.len(),
        0,
        "entries after a refusal"
    );
    cx.sandbox.write("probe", "x").await?;
    ensure_eq!(cx.sandbox.read_to_string("probe").await?, "x", "the file");
    Ok(cx.sandbox.remove_all("probe").await?)
}

/// Checks that a spec is refused, and that the same without the option is not.
async fn refuses_spec(cx: &Context, spec: SandboxSpec, lacks: Capability) -> Verdict {
    match cx.create(spec).await {
        Ok(_) => Err(Failed::new(format_args!(
            "{lacks} was asked for and ignored"
        ))),
        Err(error) => {
            is_refusal(cx, &error, lacks, Operation::Create)?;
            cx.another().await?;
            Ok(())
        }
    }
}

async fn exec(cx: Context) -> Verdict {
    let ran = cx.sandbox.exec(Command::shell("printf x > f")).await;
    refuses(&cx, ran, Capability::Exec, Operation::Exec).await
}

async fn spawn(cx: Context) -> Verdict {
    let spawned = cx.sandbox.spawn(Command::shell("printf x > f")).await;
    refuses(&cx, spawned, Capability::Spawn, Operation::Spawn).await
}

async fn stdin_pipe(cx: Context) -> Verdict {
    let command = Command::shell("printf x > f").stdin_piped();
    let spawned = cx.sandbox.spawn(command).await;
    let lacks = match cx.fixture.capabilities().has(Capability::Spawn) {
        true => Capability::StdinPipe,
        false => Capability::Spawn,
    };
    refuses(&cx, spawned, lacks, Operation::Spawn).await
}

async fn signals(cx: Context) -> Verdict {
    let process = cx.sandbox.spawn(Command::shell("sleep 50")).await?;
    let sent = process.signal(Signal::TERMINATE).await;
    refuses(&cx, sent, Capability::Signals, Operation::Signal).await?;
    let early = tokio::time::timeout(Duration::from_millis(300), process.wait()).await;
    ensure!(early.is_err(), "a refused signal ended the process");
    Ok(process.kill().await?)
}

async fn user(cx: Context) -> Verdict {
    let command = Command::shell("printf x > f").user("nobody");
    let ran = cx.sandbox.exec(command).await;
    let lacks = match cx.fixture.capabilities().has(Capability::Exec) {
        true => Capability::User,
        false => Capability::Exec,
    };
    refuses(&cx, ran, lacks, Operation::Exec).await
}

/// Checks the stated reason of a capability that has no operation or option of its own.
async fn kill_daemons(_: Context) -> Verdict {
    Ok(())
}

async fn background(cx: Context) -> Verdict {
    // The control: it beats while its command runs.
    let beats = format!(
        "{}; while [ ! -s beat ]; do sleep 0.1; done",
        daemon("beat")
    );
    cx.sh(beats).await?;
    stopped(&*cx.sandbox, "beat").await?;
    let far = far_daemon(&cx, "far").await?;
    cx.sh(format!("{far}; while [ ! -s far ]; do sleep 0.1; done"))
        .await?;
    stopped(&*cx.sandbox, "far").await
}

async fn fork_memory(_: Context) -> Verdict {
    Ok(())
}

async fn file_permissions(_: Context) -> Verdict {
    Ok(())
}

async fn fork(cx: Context) -> Verdict {
    let forked = cx.sandbox.fork_one().await;
    refuses(&cx, forked, Capability::Fork, Operation::Fork).await
}

async fn snapshot(cx: Context) -> Verdict {
    let taken = cx.sandbox.snapshot(SnapshotOptions::new()).await;
    refuses(&cx, taken, Capability::Snapshot, Operation::Snapshot).await?;
    let source = Source::Snapshot(SnapshotId::new("any"));
    let spec = cx.fixture.spec().source(source);
    refuses_spec(&cx, spec, Capability::Snapshot).await
}

async fn snapshot_list(cx: Context) -> Verdict {
    let listed = cx.provider.list_snapshots(&Labels::new()).await;
    let (lacks, operation) = (Capability::SnapshotList, Operation::ListSnapshots);
    match listed {
        Ok(listed) => Err(Failed::new(format_args!(
            "it gave {} snapshots",
            listed.len()
        ))),
        Err(error) => is_refusal(&cx, &error, lacks, operation),
    }
}

async fn snapshot_delete(cx: Context) -> Verdict {
    let deleted = cx.provider.delete_snapshot(&SnapshotId::new("any")).await;
    let (lacks, operation) = (Capability::SnapshotDelete, Operation::DeleteSnapshot);
    match deleted {
        Ok(()) => Err(Failed::new("delete_snapshot says that it did something")),
        Err(error) => is_refusal(&cx, &error, lacks, operation),
    }
}

async fn list(cx: Context) -> Verdict {
    match cx.provider.list(&Labels::new()).await {
        Ok(listed) => {
            return Err(Failed::new(format_args!(
                "list gave {} sandboxes",
                listed.len()
            )));
        }
        Err(error) => is_refusal(&cx, &error, Capability::List, Operation::List)?,
    }
    let spec = cx.fixture.spec().label("kit", "x");
    refuses_spec(&cx, spec, Capability::List).await
}

async fn attach(cx: Context) -> Verdict {
    let id = cx.sandbox.info().id;
    match cx.provider.attach(&id).await {
        Ok(_) => return Err(Failed::new("attach gave a sandbox")),
        Err(error) => is_refusal(&cx, &error, Capability::Attach, Operation::Attach)?,
    }
    match cx.provider.destroy(&id).await {
        Ok(()) => return Err(Failed::new("destroy says that it did something")),
        Err(error) => is_refusal(&cx, &error, Capability::Attach, Operation::Destroy)?,
    }
    still_works(&cx).await
}

async fn ttl(cx: Context) -> Verdict {
    let spec = cx.fixture.spec().ttl(Duration::from_secs(3600));
    refuses_spec(&cx, spec, Capability::Ttl).await
}

async fn image(cx: Context) -> Verdict {
    let source = Source::Image("docker.io/library/alpine:3".into());
    refuses_spec(&cx, cx.fixture.spec().source(source), Capability::Image).await
}

async fn guest_root(cx: Context) -> Verdict {
    let spec = cx.fixture.spec().user(GuestUser::Root);
    refuses_spec(&cx, spec, Capability::GuestRoot).await
}

async fn lasting(cx: Context) -> Verdict {
    let spec = cx.fixture.spec().lasting(true);
    refuses_spec(&cx, spec, Capability::Lasting).await
}

async fn root_dir(cx: Context) -> Verdict {
    let source = Source::RootDir("/".into());
    let spec = cx.fixture.spec().source(source);
    refuses_spec(&cx, spec, Capability::RootDir).await
}

async fn mounts(cx: Context) -> Verdict {
    let host = cx.host_dir()?;
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let mount = match access {
            Access::ReadOnly => Mount::read_only(host.path(), "/mnt/kit"),
            Access::ReadWrite => Mount::read_write(host.path(), "/mnt/kit"),
        };
        refuses_spec(&cx, cx.fixture.spec().mount(mount), Capability::Mounts).await?;
    }
    Ok(())
}

async fn symlinks(cx: Context) -> Verdict {
    let host = cx.host_dir()?;
    std::os::unix::fs::symlink("target", host.path().join("link"))?;
    let options = ImportOptions::new();
    let to = "in".into();
    match cx.sandbox.import_dir(host.path(), &to, options).await {
        // A link that can't be brought is left behind and told, or all is refused.
        Ok(report) => ensure_eq!(report.skipped_total, 1, "links left behind"),
        refusal => {
            let operation = Operation::ImportDir;
            return refuses(&cx, refusal, Capability::Symlinks, operation).await;
        }
    }
    ensure!(
        !cx.sandbox.exists("in/link").await?,
        "something is at the link's name"
    );
    Ok(())
}

async fn modes(cx: Context) -> Verdict {
    let batch = FileBatch::new().file_with_mode("f", "x", Mode::new(0o600));
    let done = cx.sandbox.write_files(batch).await;
    refuses(&cx, done, Capability::Modes, Operation::WriteFiles).await?;
    let options = CreateDirOptions::new().mode(Mode::new(0o700));
    let done = cx.sandbox.create_dir(&"d".into(), options).await;
    refuses(&cx, done, Capability::Modes, Operation::CreateDir).await
}

async fn non_utf8_names(cx: Context) -> Verdict {
    let done = cx.sandbox.write(&b"caf\xe9"[..], "x").await;
    refuses(&cx, done, Capability::NonUtf8Names, Operation::WriteFiles).await
}

async fn network_off(cx: Context) -> Verdict {
    let spec = cx.fixture.spec().network(Network::Off);
    refuses_spec(&cx, spec, Capability::NetworkOff).await
}

async fn network_open(cx: Context) -> Verdict {
    let spec = cx.fixture.spec().network(Network::Open);
    refuses_spec(&cx, spec, Capability::NetworkOpen).await
}

async fn egress_by_name(cx: Context) -> Verdict {
    const LACKS: Capability = Capability::EgressByName;
    let policy = EgressPolicy::new().rule(EgressRule::exact("allowed.test"));
    let spec = cx.fixture.spec().network(Network::Allow(policy.clone()));
    refuses_spec(&cx, spec, LACKS).await?;
    let done = cx.sandbox.egress_decisions(0).await.map(drop);
    refuses(&cx, done, LACKS, Operation::EgressDecisions).await?;
    let done = cx.sandbox.restrict_egress(policy).await;
    refuses(&cx, done, LACKS, Operation::RestrictEgress).await
}

async fn egress_ports(cx: Context) -> Verdict {
    let rule = EgressRule::exact("allowed.test").port(8443);
    let policy = EgressPolicy::new().rule(rule);
    let spec = cx.fixture.spec().network(Network::Allow(policy));
    refuses_spec(&cx, spec, Capability::EgressPorts).await
}

async fn egress_credentials(cx: Context) -> Verdict {
    let rule = EgressRule::exact("allowed.test").header("authorization", "secret");
    let policy = EgressPolicy::new().rule(rule);
    let spec = cx.fixture.spec().network(Network::Allow(policy));
    refuses_spec(&cx, spec, Capability::EgressCredentials).await
}

async fn limit(cx: Context, resources: Resources, lacks: Capability) -> Verdict {
    refuses_spec(&cx, cx.fixture.spec().resources(resources), lacks).await
}

async fn memory_limit(cx: Context) -> Verdict {
    let resources = Resources::new().memory(512 << 20);
    limit(cx, resources, Capability::MemoryLimit).await
}

async fn cpu_limit(cx: Context) -> Verdict {
    limit(cx, Resources::new().cpus(1.0), Capability::CpuLimit).await
}

async fn pids_limit(cx: Context) -> Verdict {
    limit(cx, Resources::new().pids(64), Capability::PidsLimit).await
}

async fn disk_limit(cx: Context) -> Verdict {
    let resources = Resources::new().disk(64 << 20);
    limit(cx, resources, Capability::DiskLimit).await
}

async fn terminal(cx: Context) -> Verdict {
    let command = Command::shell("printf x > f").terminal(TerminalSize::default());
    let spawned = cx.sandbox.spawn(command).await;
    refuses(&cx, spawned, Capability::Terminal, Operation::Spawn).await
}

async fn jobs(cx: Context) -> Verdict {
    let lacks = Capability::Jobs;
    let started = cx
        .sandbox
        .start("key", Command::shell("printf x > f"))
        .await;
    refuses(&cx, started, lacks, Operation::StartJob).await?;
    let found = cx.sandbox.find_job(&"key".into()).await;
    refuses(&cx, found, lacks, Operation::FindJob).await?;
    refuses(
        &cx,
        cx.sandbox.list_jobs().await,
        lacks,
        Operation::ListJobs,
    )
    .await
}

async fn ports(cx: Context) -> Verdict {
    let connected = cx.sandbox.connect_port(80).await;
    refuses(&cx, connected, Capability::Ports, Operation::ConnectPort).await
}

async fn file_streams(cx: Context) -> Verdict {
    let lacks = Capability::FileStreams;
    let options = OpenWriteOptions::new();
    let opened = cx.sandbox.open_write(&"f".into(), options).await;
    refuses(&cx, opened, lacks, Operation::OpenWrite).await?;
    cx.sandbox.write("f", "x").await?;
    let opened = cx
        .sandbox
        .open_read(&"f".into(), OpenReadOptions::new())
        .await;
    cx.sandbox.remove_all("f").await?;
    refuses(&cx, opened, lacks, Operation::OpenRead).await
}

async fn changes(cx: Context) -> Verdict {
    let found = cx.sandbox.changes_in(".").await;
    refuses(&cx, found, Capability::Changes, Operation::Changes).await
}

async fn usage(cx: Context) -> Verdict {
    let used = cx.sandbox.usage().await;
    refuses(&cx, used, Capability::Usage, Operation::Usage).await
}

async fn watch(cx: Context) -> Verdict {
    let watched = cx.sandbox.watch_dir(".").await;
    refuses(&cx, watched, Capability::Watch, Operation::Watch).await
}

async fn pause(cx: Context) -> Verdict {
    let lacks = Capability::Pause;
    refuses(&cx, cx.sandbox.pause().await, lacks, Operation::Pause).await?;
    refuses(&cx, cx.sandbox.resume().await, lacks, Operation::Resume).await
}

async fn isolation(cx: Context) -> Verdict {
    let report = cx.sandbox.isolation().await?;
    for control in [Control::Filesystem, Control::Processes] {
        ensure!(
            !report.get(control).is_some_and(Enforcement::is_enforced),
            "{control} is reported as enforced by a backend without isolation"
        );
    }
    let required = RequiredIsolation::Only(vec![Control::Filesystem]);
    match cx.create(cx.fixture.spec().isolation(required)).await {
        Ok(_) => Err(Failed::new("isolation was required and ignored")),
        Err(error) => {
            let kinds = [ErrorKind::Isolation, ErrorKind::Unsupported];
            ensure!(kinds.contains(&error.kind()), "{error:?}");
            Ok(())
        }
    }
}
