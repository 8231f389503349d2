//! Plans, and what a start leaves behind when it fails.

use rustix::io::Errno;

use super::*;

#[tokio::test]
async fn a_failing_op_is_named() {
    let mut plan = unconfined();
    plan.mkdir("make a directory", Dir::Cwd, "/proc/impossible", 0o755);
    confine(&mut plan);
    let Err(StartError::Op { label, errno, .. }) = start(config(plan)).await.map(drop) else {
        panic!("it must not start");
    };
    assert_eq!((&*label, errno), ("make a directory", Errno::NOENT));
}

#[tokio::test]
async fn slots_data_and_exports_work() {
    let mut plan = unconfined();
    let inherited = plan.inherit(memory_with(b"handed over"));
    let opened = plan
        .open("open", Dir::Cwd, "/proc", libc::O_PATH, 0)
        .result();
    plan.open("open below", Dir::Slot(opened), "self", libc::O_PATH, 0);
    plan.loopback_up("bring the loopback up");
    plan.export(inherited);
    plan.export(opened);
    // Inherited after results were numbered: both must keep their meaning.
    let late = plan.inherit(memory_with(b"late"));
    plan.export(late);
    confine(&mut plan);
    let started = start(config(plan)).await.unwrap();
    let [first, proc, late] = &started.exported[..] else {
        panic!("three exports")
    };
    let mut text = [0; 32];
    let len = rustix::io::pread(first, &mut text, 0).unwrap();
    assert_eq!(&text[..len], b"handed over");
    let len = rustix::io::pread(late, &mut text, 0).unwrap();
    assert_eq!(&text[..len], b"late");
    assert!(rustix::fs::statat(proc, "self", rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok());
    assert!(rustix::fs::statat(&started.root, "bin", rustix::fs::AtFlags::empty()).is_ok());
    let flags = run(
        &started.engine,
        request(&["cat", "/sys/class/net/lo/flags", "/proc/net/dev"]),
    );
    assert!(String::from_utf8_lossy(&flags.await.out).contains("lo:"));
}

#[tokio::test]
async fn filters_apply() {
    const READ_DIR: u64 = 8;
    // A seccomp filter that makes mkdirat fail with a number of its own.
    let filter = |code: u16, jt: u8, jf: u8, k: u32| {
        let mut bytes = [0_u8; 8];
        bytes[..2].copy_from_slice(&code.to_ne_bytes());
        bytes[2] = jt;
        bytes[3] = jf;
        bytes[4..].copy_from_slice(&k.to_ne_bytes());
        bytes
    };
    let program = [
        filter(0x20, 0, 0, 0),
        filter(0x15, 0, 1, libc::SYS_mkdirat as u32),
        filter(0x06, 0, 0, 0x0005_0000 | 122),
        filter(0x06, 0, 0, 0x7fff_0000),
    ]
    .concat();
    let mut plan = plan();
    plan.seccomp_filter("install a filter", &program, 0);
    plan.mkdir("probe the filter", Dir::Cwd, "/proc/x", 0o700);
    let Err(StartError::Op { errno, .. }) = start(config(plan)).await.map(drop) else {
        panic!("the filter must apply");
    };
    assert_eq!(errno, Errno::DQUOT);

    // Landlock without a rule: no directory can be listed.
    let mut plan = self::plan();
    let ruleset = plan
        .landlock_ruleset("create a ruleset", &[READ_DIR])
        .result();
    plan.landlock_restrict("restrict", ruleset, 0);
    plan.open(
        "list /",
        Dir::Cwd,
        "/",
        libc::O_RDONLY | libc::O_DIRECTORY,
        0,
    );
    let Err(StartError::Op { label, errno, .. }) = start(config(plan)).await.map(drop) else {
        panic!("confined")
    };
    assert_eq!((&*label, errno), ("list /", Errno::ACCESS));
}

#[tokio::test]
async fn bad_plans_are_refused_before_anything_starts() {
    let mut plan = Plan::new();
    plan.chdir("a zero byte", "a\0b");
    assert!(matches!(
        start(config(plan)).await.map(drop),
        Err(StartError::Plan(_))
    ));
    let mut plan = Plan::new();
    plan.data(&vec![0; 5 << 20]);
    let error = start(config(plan)).await.map(drop).unwrap_err();
    assert!(
        matches!(error, StartError::Plan(PlanError::TooLarge { .. })),
        "{error}"
    );
}

#[tokio::test]
async fn a_hook_sees_the_agent_and_can_refuse() {
    let mut refused = config(plan());
    let (send, seen) = std::sync::mpsc::channel();
    refused.hook = Some(Box::new(move |pid| {
        let _ = send.send(pid);
        Err(std::io::Error::other("no"))
    }));
    let result = super::start(refused).await.map(drop);
    assert!(matches!(result, Err(StartError::Hook(_))), "{result:?}");
    let pid = seen.recv().unwrap();
    assert!(
        !Path::new(&format!("/proc/{pid}")).exists(),
        "it is gone and reaped"
    );
}

#[tokio::test]
async fn a_plan_that_hangs_times_out() {
    let mut plan = plan();
    let words = plan.data(&[255; 16]);
    // Waits for a signal that is blocked.
    plan.call("hang", libc::SYS_rt_sigsuspend, &[words.into(), 8.into()]);
    let mut config = config(plan);
    config.timeout = Duration::from_millis(100);
    let error = start(config).await.map(drop).unwrap_err();
    assert!(matches!(error, StartError::TimedOut(_)), "{error}");
}

#[tokio::test]
async fn the_host_stays_as_it_was() {
    let before = rustix::process::dumpable_behavior().unwrap();
    let engine = engine().await;
    assert_eq!(rustix::process::dumpable_behavior().unwrap(), before);
    assert!(engine.killer().shut_down().await);
    assert!(engine.lost().is_some());
}
