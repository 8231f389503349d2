//! Ways to other processes, to the host's files and to more rights (A 1–3, 6–8, 10, 12).

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process;

use sandbox_core::{Command, Mount, Provider, SandboxExt, SandboxSpec};
use sandbox_local::{LocalConfig, LocalProvider};

use crate::{host, support};

#[tokio::test]
async fn programs_cannot_be_written_and_init_not_even_read() {
    let _turn = host::shared().await;
    let sandbox = host::guest().await;
    let dir = host::public_dir();
    let program = dir.path().join("bystander");
    fs::copy(host::tool("escape"), &program).expect("a copy");
    let bystander = || {
        let mut command = process::Command::new(&program);
        command.arg("pause").stdout(process::Stdio::null()).spawn()
    };
    // A process that another test just starts has, for a moment, the descriptor of the copy.
    let mut bystander = support::until("a bystander", async || match bystander() {
        Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => None,
        started => Some(started.expect("a bystander")),
    })
    .await;
    let control = host::outside("escape", &["exe", &bystander.id().to_string()]);
    bystander.kill().expect("kill");
    bystander.wait().expect("wait");
    // A running program is busy for everybody; that it can be read is what differs.
    assert_eq!(control.get("self"), "ETXTBSY");
    assert_eq!(
        (control.get("other_read"), control.get("other_chmod")),
        ("ok", "ok")
    );
    let found = host::inside(&sandbox, "escape", &["exe", "1"]).await;
    assert_eq!(found.get("self"), "ETXTBSY");
    assert_eq!(found.get("self_truncate"), "ETXTBSY");
    for attempt in ["other_read", "other_write", "other_truncate", "other_chmod"] {
        assert_eq!(found.get(attempt), "EACCES", "{attempt}");
    }
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn a_guest_has_three_descriptors_however_many_the_host_has() {
    let _turn = host::shared().await;
    let secret = host::public_dir();
    let directory = fs::File::open(secret.path()).expect("a directory");
    // Kept across exec, unlike those that the standard library opens.
    let leaks: Vec<_> = (0..64)
        .map(|_| rustix::io::dup(&directory).expect("dup"))
        .collect();
    let control = host::outside("escape", &["descriptors"]);
    let leaked = control
        .get("fds")
        .split(',')
        .filter(|fd| !fd.is_empty())
        .count();
    assert!(leaked >= 64 + 3, "no control: {control:?}");
    let sandbox = host::guest().await;
    let found = host::inside(&sandbox, "escape", &["descriptors"]).await;
    assert_eq!(found.get("fds"), "0,1,2,", "{found:?}");
    assert_eq!(found.get("fd0"), "/dev/null");
    for fd in ["fd1", "fd2"] {
        assert!(found.get(fd).starts_with("pipe:"), "{found:?}");
    }
    drop(leaks);
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn a_working_directory_through_a_descriptor_stays_inside() {
    let _turn = host::shared().await;
    let sandbox = host::guest().await;
    let root = support::sh(&sandbox, "stat -c %d:%i /").await;
    let mut refused = 0;
    let numbers = (0..64).map(|n| format!("/proc/self/fd/{n}"));
    let links = [
        "/proc/1/cwd",
        "/proc/1/root",
        "/proc/self/cwd",
        "/proc/self/root",
    ];
    for cwd in numbers.chain(links.map(String::from)) {
        // Climbs to the top of whatever it is in: that must be the guest's root.
        let climb = "cd -P ../../../../../../../.. && stat -c %d:%i . && ls -a";
        match sandbox.exec(Command::shell(climb).cwd(cwd.as_str())).await {
            Ok(output) => {
                let found = output.stdout.to_string_lossy();
                assert!(
                    found.starts_with(&root) || found.is_empty(),
                    "{cwd}: {found}"
                );
                assert!(!output.stderr.to_string_lossy().contains("root/"), "{cwd}");
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 50, "only {refused} were refused");
    // The control: a directory inside is one.
    let output = sandbox
        .exec(Command::shell("pwd").cwd("/proc/self/../../opt"))
        .await;
    assert_eq!(output.expect("pwd").stdout.bytes, "/opt\n");
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn init_neighbours_and_the_host_are_out_of_reach() {
    let _turn = host::shared().await;
    let sandbox = host::guest().await;
    let neighbour = host::guest().await;
    let mark = format!("neighbour-{}", process::id());
    let (running, _) = host::start(&neighbour, "escape", &["pause", &mark]).await;
    let other = host::find_process(&mark).expect("the host sees the neighbour's process");
    let control = host::outside("escape", &["reach"]);
    let own = process::id().to_string();
    let args = ["reach", "1", own.as_str(), &other.to_string()];
    let found = host::inside(&sandbox, "escape", &args).await;
    let attempts = [
        "readv", "getfd", "mem", "maps", "environ", "auxv", "exe", "root", "cwd", "fd0", "fds",
        "oom", "uid_map", "exe_link", "seize",
    ];
    for attempt in attempts {
        // The child shows that the call is right and that a debugger works within a sandbox.
        let on_child = format!("child_{attempt}");
        assert_eq!(control.get(&on_child), "ok", "no control for {attempt}");
        assert_eq!(found.get(&on_child), "ok", "{attempt}");
        let on_init = found.get(&format!("pid1_{attempt}"));
        assert!(
            ["EPERM", "EACCES"].contains(&on_init),
            "init: {attempt}: {on_init}"
        );
        for pid in ["pid2", "pid3"] {
            let result = found.get(&format!("{pid}_{attempt}"));
            assert!(
                ["ESRCH", "ENOENT", "EBADF"].contains(&result),
                "{pid}: {attempt}: {result}"
            );
        }
    }
    for pid in ["pid2", "pid3"] {
        assert_eq!(found.get(&format!("{pid}_exists")), "ESRCH");
        assert_eq!(found.get(&format!("{pid}_pidfd")), "ESRCH");
    }
    running.kill().await.expect("kill");
    neighbour.close().await.expect("close");
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn killing_everybody_spares_init_and_the_host() {
    let _turn = host::shared().await;
    let sandbox = host::guest().await;
    let neighbour = host::guest().await;
    let mark = format!("spared-{}", process::id());
    let (running, _) = host::start(&neighbour, "escape", &["pause", &mark]).await;
    let (victim, _) = host::start(&sandbox, "escape", &["pause"]).await;
    let mut bystander = process::Command::new("sleep")
        .arg("60")
        .spawn()
        .expect("a bystander");
    let found = host::inside(&sandbox, "escape", &["signal-init"]).await;
    assert_eq!(found.get("last"), "ok", "a signal to init is swallowed");
    let found = host::inside(&sandbox, "escape", &["kill-all"]).await;
    assert_eq!(found.get("killed"), "ok");
    // The control: those that it may kill are dead.
    assert_eq!(
        victim.wait().await.expect("its end").status.signal(),
        Some(9)
    );
    assert_eq!(support::sh(&sandbox, "echo alive").await, "alive\n");
    assert!(
        bystander.try_wait().expect("wait").is_none(),
        "the host's process was killed"
    );
    assert!(
        host::find_process(&mark).is_some(),
        "the neighbour's process was killed"
    );
    bystander.kill().expect("kill");
    bystander.wait().expect("wait");
    running.kill().await.expect("kill");
    for sandbox in [sandbox, neighbour] {
        sandbox.close().await.expect("close");
    }
}

#[tokio::test]
async fn the_kernels_settings_and_devices_are_out_of_reach() {
    let _turn = host::shared().await;
    let sandbox = host::guest().await;
    let control = host::outside("escape", &["procfs"]);
    let found = host::inside(&sandbox, "escape", &["procfs"]).await;
    for dir in [
        "/proc/sys",
        "/proc/1",
        "/proc/irq",
        "/proc/bus",
        "/proc/fs",
        "/sys",
        "/dev/bus",
    ] {
        let first = found.get("first_writable");
        assert_eq!(
            found.number(dir),
            0,
            "{dir} has writable files, such as {first}"
        );
    }
    for file in ["/proc/sysrq-trigger", "/proc/kmsg", "/proc/mtrr"] {
        assert_ne!(found.get(file), "ok", "{file}");
    }
    assert_eq!(found.get("/proc/sys/kernel/core_pattern"), "EACCES");
    for file in ["ns_last_pid", "timerslack", "attr"] {
        assert!(
            ["EPERM", "EINVAL"].contains(&found.get(file)),
            "{file}: {found:?}"
        );
    }
    if host::is_root() {
        assert!(control.number("/proc/sys") > 100, "no control");
        assert_eq!(control.get("/proc/sys/kernel/core_pattern"), "ok");
        assert_eq!(control.get("read:/proc/kmsg"), "ok");
    }
    for file in [
        "/proc/kcore",
        "/proc/kmsg",
        "/proc/vmallocinfo",
        "/proc/kpageflags",
    ] {
        assert_ne!(found.get(&format!("read:{file}")), "ok", "{file}");
    }
    for device in ["mem", "kmsg", "vda", "sda", "fuse", "kvm", "net/tun"] {
        assert_eq!(
            found.get(&format!("read:/dev/{device}")),
            "ENOENT",
            "{device}"
        );
    }
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn there_is_no_chroot_to_get_out_of() {
    let _turn = host::shared().await;
    let sandbox = host::guest().await;
    let control = host::outside("escape", &["chroot"]);
    assert_eq!(
        (control.get("chroot"), control.get("chroot_again")),
        ("ok", "ok")
    );
    let found = host::inside(&sandbox, "escape", &["chroot"]).await;
    assert_eq!(
        (found.get("chroot"), found.get("chroot_again")),
        ("EPERM", "EPERM")
    );
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn a_setuid_program_gains_nothing() {
    let _turn = host::shared().await;
    let dir = host::public_dir();
    let program = dir.path().join("setuid");
    fs::copy(host::tool("escape"), &program).expect("a copy");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o6755)).expect("its mode");
    let owner = fs::metadata(&program).expect("its owner").uid();
    if host::is_root() {
        let args = ["--reuid", "65534", "--clear-groups"];
        let ran = process::Command::new("setpriv")
            .args(args)
            .arg(&program)
            .arg("status")
            .output();
        let said = ran.expect("setpriv runs").stdout;
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.contains("euid 0\n"), "no control: {said}");
    }
    let spec = SandboxSpec::new().mount(Mount::read_only(dir.path(), "/mounted"));
    let provider = LocalProvider::new(LocalConfig::default()).expect("a provider");
    let sandbox = provider.create(spec).await.expect("a sandbox");
    host::equip(&sandbox).await;
    let own = "cp /opt/hostile/escape /tmp/own && chmod 6755 /tmp/own && stat -c %a /tmp/own";
    assert_eq!(support::sh(&sandbox, own).await, "6755\n");
    for path in ["/mounted/setuid", "/tmp/own"] {
        let output = sandbox
            .exec(Command::new(path).arg("status"))
            .await
            .expect("it runs");
        let found = host::findings(&output);
        assert_eq!(found.get("euid"), "1000", "{path} of user {owner}");
        assert_eq!(found.get("NoNewPrivs"), "1");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(found.get(set), "0000000000000000", "{path}: {set}");
        }
    }
    assert!(
        sandbox
            .sh("su -c true; sudo -n true")
            .await
            .is_ok_and(|output| !output.success())
    );
    sandbox.close().await.expect("close");
}
