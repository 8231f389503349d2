//! Needs of everyday programs: background servers, process substitution, damaged binaries, the
//! environment; the same for both services.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox_core::{
    Command, ErrorKind, FileBatch, ForkOptions, Mode, OpenWriteOptions, Sandbox, SandboxExt as _,
    SandboxSpec,
};
use tokio::io::AsyncWriteExt as _;

use super::rig::each;

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_of_a_command_is_what_was_asked_for() {
    each(async |rig| {
        let sandbox = rig.sandbox().await;
        let asked = Command::new("env").env("ASKED", "1").env("PWD", "mine");
        let output = sandbox.exec(asked).await.expect("it runs");
        let text = output.stdout.to_string_lossy().into_owned();
        let names: Vec<&str> = text
            .lines()
            .filter_map(|line| line.split('=').next())
            .collect();
        assert!(
            names.contains(&"ASKED") && text.contains("PWD=mine\n"),
            "{text}"
        );
        for own in ["SANDBOX_RUN", "OLDPWD", "SHLVL", "_"] {
            assert!(!names.contains(&own), "{own} was not asked for: {text}");
        }
        let output = sandbox.exec(Command::new("env")).await.expect("it runs");
        assert!(!output.stdout.to_string_lossy().contains("PWD="), "{text}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_does_not_wait_for_a_writer_that_is_open() {
    each(async |rig| {
        let sandbox = rig.sandbox().await;
        let options = OpenWriteOptions::new();
        let mut writer = sandbox
            .open_write(&"f".into(), options)
            .await
            .expect("open");
        writer.write_all(b"content").await.expect("written");
        let fork = tokio::time::timeout(Duration::from_secs(120), sandbox.fork(ForkOptions::new()));
        let fork = fork.await.expect("the fork waits").expect("a fork");
        writer.commit().await.expect("committed");
        assert_eq!(sandbox.read("f").await.expect("it is there"), "content");
        assert!(!fork.exists("f").await.expect("it is asked for"));
        fork.close().await.expect("closed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_kernel_does_not_execute_is_not_run_as_a_script() {
    each(async |rig| {
        let sandbox = rig.sandbox().await;
        let shell = sandbox.read("/bin/true").await.expect("a program").to_vec();
        let with = |offset: usize, byte: u8| {
            let mut bytes = shell.clone();
            bytes[offset] = byte;
            bytes
        };
        let programs = [
            ("short", b"\x7fELF\n touch ran\n".to_vec()),
            ("header", shell[..64].to_vec()),
            // RISC-V, and what has no program headers.
            ("machine", with(18, 0xf3)),
            ("empty", with(56, 0)),
            ("script", b"#!./machine\ntouch ran\n".to_vec()),
            ("nothing", b"#!\ntouch ran\n".to_vec()),
        ];
        let mut batch = FileBatch::new().file_with_mode("good", shell.clone(), Mode::EXECUTABLE);
        for (name, bytes) in &programs {
            batch = batch.file_with_mode(*name, bytes.clone(), Mode::EXECUTABLE);
        }
        sandbox.write_files(batch).await.expect("files");
        let good = sandbox.exec(Command::new("./good")).await;
        assert!(good.expect("the control runs").success());
        for (name, _) in programs {
            let error = sandbox.exec(Command::new(format!("./{name}"))).await;
            let error = error.expect_err(name);
            assert_eq!(error.kind(), ErrorKind::NotExecutable, "{name}: {error:?}");
        }
        assert!(!sandbox.exists("ran").await.expect("it says"), "it was run");
        // In the search path what can't be executed is not what isn't there.
        sandbox
            .sh("mkdir bin; touch bin/prog")
            .await
            .expect("it runs");
        for (name, kind) in [
            ("prog", ErrorKind::NotExecutable),
            ("other", ErrorKind::CommandNotFound),
        ] {
            let command = Command::new(name).env("PATH", "/workspace/bin");
            let error = sandbox.exec(command).await.expect_err(name);
            assert_eq!(error.kind(), kind, "{name}: {error:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workdir_behind_a_dangling_link_is_not_found() {
    each(async |rig| {
        let sandbox = rig.sandbox().await;
        sandbox.sh("ln -s nowhere link").await.expect("it runs");
        let error = sandbox
            .set_workdir(&"link".into())
            .await
            .expect_err("nothing is there");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_in_the_background_goes_on_when_it_prints() {
    each(async |rig| {
        let sandbox = rig.sandbox().await;
        let script = "(for i in 1 2 3; do while ! [ -e go$i ]; do sleep 0.01; done; \
                      echo line $i; echo line $i >&2; echo $i >> log; done) & echo began";
        let output = sandbox.sh(script).await.expect("it runs");
        assert_eq!(output.stdout.to_string_lossy(), "began\n");
        for i in 1..=3 {
            let wait = format!("touch go{i}; until grep -qs {i} log; do sleep 0.01; done");
            let command = Command::shell(wait).timeout(Duration::from_secs(120));
            sandbox
                .exec(command)
                .await
                .expect("the program printed and goes on");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tree_writes_a_moment_later_is_output() {
    each(async |rig| {
        let sandbox = rig.sandbox().await;
        for run in 0..10 {
            let script = format!("exec > >(tee log{run}) 2>&1; echo hello; seq 1 2000");
            let command = Command::new("bash").args(["-c", &script]);
            let output = sandbox.exec(command).await.expect("it runs");
            assert_eq!(output.stdout.bytes.len(), 8899, "run {run}");
            let log = sandbox
                .read(format!("log{run}").as_str())
                .await
                .expect("the log");
            assert_eq!(log.len(), 8899, "the log of run {run}");
        }
    })
    .await;
}

/// Runs a script that does not end, for as long as a machine takes to come to what it prints.
async fn timed_out(sandbox: &dyn Sandbox, script: &str, prints: &str) {
    let mut limit = Duration::from_millis(700);
    loop {
        let command = Command::shell(script).timeout(limit);
        let error = sandbox.exec(command).await.expect_err("it is too long");
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
        let printed = error.partial_output().expect("its output");
        if printed.stdout.bytes == prints {
            return;
        }
        assert!(limit < Duration::from_secs(60), "{script}: {error:?}");
        limit *= 4;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn how_long_output_is_waited_for_is_the_embedders_choice() {
    each(async |rig| {
        let sleeper = "sleep 600 & echo said";
        // What is left behind is waited for: so long, and not for ever.
        let usual = (Arc::clone(&rig.provider), Duration::from_millis(100));
        let longer = Duration::from_secs(3);
        for (provider, grace) in [usual, (rig.waiting(longer), longer)] {
            let sandbox = provider.create(SandboxSpec::new()).await;
            let sandbox = sandbox.expect("a sandbox");
            let output = sandbox.sh(sleeper).await.expect("it runs");
            assert_eq!(output.stdout.bytes, "said\n");
            assert!(output.duration >= grace, "{grace:?}: {output:?}");
            sandbox.close().await.expect("closed");
        }
        // Without an end all of it comes, until the command has had its time.
        let provider = rig.waiting(Duration::MAX);
        let sandbox = provider.create(SandboxSpec::new()).await;
        let sandbox = sandbox.expect("a sandbox");
        let script = "exec > >(sleep 1.5; tee late) 2>&1; seq 1 2000";
        let command = Command::new("bash").args(["-c", script]);
        let output = sandbox.exec(command).await.expect("it runs");
        assert_eq!(output.stdout.bytes.len(), 8893);
        assert_eq!(sandbox.read("late").await.expect("it is there").len(), 8893);
        timed_out(&*sandbox, sleeper, "said\n").await;
        sandbox.close().await.expect("closed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_in_the_background_does_not_hold_a_command_up() {
    each(async |rig| {
        let sandbox = rig.sandbox().await;
        for script in [
            "sleep 600 & echo said",
            "(while sleep 0.01; do echo more; done) & echo said",
        ] {
            let began = Instant::now();
            let output = sandbox.sh(script).await.expect("it runs");
            // The background loop may come first.
            let said = output.stdout.to_string_lossy();
            assert!(said.lines().any(|line| line == "said"), "{output:?}");
            let took = began.elapsed();
            assert!(took < Duration::from_secs(60), "{script}: {took:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_reaches_what_cleared_its_environment() {
    each(async |rig| {
        let sandbox = rig.sandbox().await;
        let script = "env -i /bin/sh -c 'setsid sleep 4711 & sleep 4711' & echo up; sleep 4711";
        timed_out(&*sandbox, script, "up\n").await;
        let left = sandbox
            .sh("grep -lsaE 'sleep.471[1]' /proc/[0-9]*/cmdline || :")
            .await;
        let left = left.expect("it runs").stdout.to_string_lossy().into_owned();
        assert_eq!(left, "", "processes are left");
    })
    .await;
}
