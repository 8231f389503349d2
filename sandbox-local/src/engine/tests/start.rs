//! Plans, and what a start leaves behind when it fails.

use std::io::ErrorKind;

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

/// Directory of a group for each hierarchy in which one can be made here.
fn groups() -> Vec<(bool, tempfile::TempDir)> {
    let table = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = |controller: &str| {
        let mut lines = table.lines().map(|line| line.splitn(3, ':').skip(1));
        lines.find_map(|mut line| {
            let (of, path) = (line.next()?, line.next()?);
            (of == controller).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let parents = [
        (true, "/sys/fs/cgroup/unified", own("")),
        (true, "/sys/fs/cgroup", own("")),
        (false, "/sys/fs/cgroup/memory", own("memory")),
        (false, "/sys/fs/cgroup/cpu", own("cpu")),
    ];
    let made = parents.into_iter().filter_map(|(v2, mount, own)| {
        let parent = Path::new(mount).join(own?);
        let group = tempfile::Builder::new()
            .prefix("sandbox-test-")
            .tempdir_in(parent);
        let group = group.ok()?;
        let names = if v2 { "cgroup.controllers" } else { "tasks" };
        group.path().join(names).exists().then_some((v2, group))
    });
    made.collect()
}

/// Removes a group once its process is gone.
async fn remove(group: &Path) {
    while std::fs::remove_dir(group).is_err_and(|error| error.kind() == ErrorKind::ResourceBusy) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_agent_is_born_in_its_groups_and_the_host_stays_out_of_them() {
    let groups = groups();
    if is_root() {
        assert!(!groups.is_empty(), "root can make control groups");
    }
    let procs = |group: &Path| std::fs::read_to_string(group.join("cgroup.procs")).unwrap();
    for together in [false, true] {
        let sets = if together {
            vec![groups.iter().collect::<Vec<_>>()]
        } else {
            groups.iter().map(|group| vec![group]).collect()
        };
        for set in sets.iter().filter(|set| !set.is_empty()) {
            let of = |v2: bool| set.iter().filter(move |(is_v2, _)| *is_v2 == v2);
            let mut config = config(plan());
            config.born_in = Some(BornIn {
                v1: of(false).map(|(_, group)| group.path().into()).collect(),
                v2: of(true).map(|(_, group)| group.path().into()).next(),
            });
            let up = start(config).await.unwrap();
            let pid = up.engine.pid();
            for (_, group) in set {
                assert_eq!(
                    procs(group.path()),
                    format!("{pid}\n"),
                    "{}",
                    group.path().display()
                );
                let tasks = std::fs::read_to_string(group.path().join("tasks"));
                assert!(tasks.is_err() || tasks.is_ok_and(|tasks| tasks == format!("{pid}\n")));
            }
            assert!(up.engine.killer().shut_down().await);
        }
    }
    for (_, group) in groups {
        remove(group.path()).await;
    }
}

#[tokio::test]
async fn an_agent_that_can_not_be_born_in_its_groups_is_not_started() {
    let nowhere = tempfile::tempdir().unwrap();
    let lost = nowhere.path().join("lost");
    let places = [
        BornIn {
            v1: vec![lost.clone()],
            v2: None,
        },
        BornIn {
            v1: Vec::new(),
            v2: Some(lost),
        },
        // A directory, but no group: neither does the kernel start it there nor can it be moved.
        BornIn {
            v1: Vec::new(),
            v2: Some(nowhere.path().join("none")),
        },
    ];
    std::fs::create_dir(nowhere.path().join("none")).unwrap();
    std::fs::create_dir(nowhere.path().join("none/cgroup.procs")).unwrap();
    for place in places {
        let mut refused = config(plan());
        refused.born_in = Some(place);
        let result = start(refused).await.map(drop);
        assert!(matches!(result, Err(StartError::Groups(_))), "{result:?}");
    }
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
