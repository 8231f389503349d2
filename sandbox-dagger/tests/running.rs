//! Running commands, seen from the host, because their files are seen at their end.
#![cfg(target_os = "linux")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox_core::{
    CollectOptions, Command, ErrorKind, Execution, ExitStatus, FileBatch, Mode, Sandbox,
    SandboxExt as _,
};
use sandbox_testkit::dagger::{Fault, LiveLogs};
use support::{Outcome, Rig};

/// Whether a process of this host has such an argument.
fn runs(argument: &str) -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .any(|line| {
            let mut words = line.split(|byte| *byte == 0);
            words.next() == Some(b"sleep") && words.any(|word| word == argument.as_bytes())
        })
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) -> Outcome {
    let started = Instant::now();
    while !condition() {
        if started.elapsed() > Duration::from_secs(120) {
            return Err(what.into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

fn unique(number: u32) -> String {
    format!("{}.{number}", 70_000 + std::process::id())
}

/// A command with a child and a daemon that sleep for a time that no other process sleeps for.
fn sleepers(time: &str) -> Command {
    Command::shell("setsid sleep $1 >/dev/null 2>&1 & sleep $1 & wait").args(["sh", time])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_exec_kills_all_that_it_started() -> Outcome {
    let rig = Rig::new().await?;
    let time = unique(1);
    let task = {
        let (sandbox, command) = (rig.sandbox.clone(), sleepers(&time));
        tokio::spawn(async move { sandbox.exec(command).await })
    };
    until("the command did not start", || runs(&time)).await?;
    task.abort();
    until("the command lives on", || !runs(&time)).await?;
    assert_eq!(
        rig.sandbox.sh("echo usable").await?.stdout.bytes,
        "usable\n"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_process_goes_on_when_a_timeout_kills_what_it_waits_for() -> Outcome {
    let rig = Rig::new().await?;
    // Numbers are used up until a child comes before its parent in the order of their names.
    let script = "echo said; me=$$ p=$$; while [ ${#p} = ${#me} ]; do p=$(sh -c 'echo $$'); done; \
                  sh -c 'sleep 1000; echo on >f; sleep 1000; :' >&2; echo on >g";
    let command = Command::shell(script).timeout(Duration::from_secs(3));
    let Err(error) = rig.sandbox.exec(command).await else {
        return Err("it should have been cut".into());
    };
    assert_eq!(
        (error.kind(), error.execution()),
        (ErrorKind::Timeout, Some(Execution::Interrupted)),
        "{error:?}"
    );
    let partial = error.partial_output().ok_or("no partial output")?;
    assert_eq!(partial.stdout.bytes, "said\n");
    assert_eq!(partial.stderr.bytes, "", "no process reported a death");
    assert!(!rig.sandbox.exists("f").await?);
    assert!(!rig.sandbox.exists("g").await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn close_cuts_a_running_command() -> Outcome {
    let rig = Rig::new().await?;
    let time = unique(2);
    let task = {
        let (sandbox, command) = (rig.sandbox.clone(), sleepers(&time));
        tokio::spawn(async move { sandbox.exec(command).await })
    };
    until("the command did not start", || runs(&time)).await?;
    rig.sandbox.close().await?;
    let Err(error) = task.await? else {
        return Err("it should have been cut".into());
    };
    assert_eq!(
        (error.kind(), error.execution()),
        (ErrorKind::Closed, Some(Execution::Interrupted)),
        "{error:?}"
    );
    until("the command lives on", || !runs(&time)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn forks_run_at_the_same_time_and_one_is_not_waited_for() -> Outcome {
    let rig = Rig::new().await?;
    rig.sandbox.write("before", "x").await?;
    let time = unique(3);
    let task = {
        let (sandbox, command) = (rig.sandbox.clone(), sleepers(&time));
        tokio::spawn(async move { sandbox.exec(command).await })
    };
    until("the command did not start", || runs(&time)).await?;
    let fork: Arc<dyn Sandbox> = rig.sandbox.fork_one().await?;
    assert_eq!(fork.sh("cat before").await?.stdout.bytes, "x");
    assert!(runs(&time), "the parent's command was disturbed");
    task.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_supervisor_keeps_nothing_where_a_command_could_fill_it() -> Outcome {
    let rig = Rig::new().await?;
    let script = "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; sleep 0.3; \
                  find /dev/shm /tmp -type f -size +1 >/found; exit 3";
    let output = rig.sandbox.sh(script).await?;
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(output.stdout.bytes.len(), 3_000_000);
    assert_eq!(output.stderr.bytes.len(), 3_000_000);
    assert_eq!(rig.sandbox.read_to_string("/found").await?, "");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_a_moment_after_the_end_is_not_lost() -> Outcome {
    let rig = Rig::new().await?;
    for number in 0..10 {
        let script = format!("exec > >(tee t{number}.log) 2>&1; seq 1 2000");
        let output = rig
            .sandbox
            .exec(Command::new("bash").args(["-c", &script]))
            .await?;
        assert!(output.stdout.bytes.ends_with(b"\n2000\n"), "run {number}");
        let log = rig.sandbox.read(format!("t{number}.log").as_str()).await?;
        assert!(log.ends_with(b"\n2000\n"), "the log of run {number}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn how_long_output_is_waited_for_is_the_embedders_choice() -> Outcome {
    let sleeper = "sleep 1000 & echo said";
    // What is left behind is waited for: so long, and not for ever.
    for grace in [Duration::from_millis(100), Duration::from_secs(3)] {
        let rig = match grace.as_secs() {
            0 => Rig::new().await?,
            _ => Rig::with(|config| config.output_grace(grace)).await?,
        };
        let output = rig.sandbox.sh(sleeper).await?;
        assert_eq!(output.stdout.bytes, "said\n");
        assert!(output.duration >= grace, "{grace:?}: {output:?}");
    }
    // Without an end all of it comes, until the command has had its time.
    let rig = Rig::with(|config| config.output_grace(Duration::MAX)).await?;
    let script = "exec > >(sleep 1.5; tee late) 2>&1; seq 1 2000";
    let command = Command::new("bash").args(["-c", script]);
    assert!(
        rig.sandbox
            .exec(command)
            .await?
            .stdout
            .bytes
            .ends_with(b"\n2000\n")
    );
    assert!(rig.sandbox.read("late").await?.ends_with(b"\n2000\n"));
    let command = Command::shell(sleeper).timeout(Duration::from_secs(1));
    let Err(error) = rig.sandbox.exec(command).await else {
        return Err("it should have been held".into());
    };
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    let partial = error.partial_output().ok_or("no partial output")?;
    assert_eq!(partial.stdout.bytes, "said\n");
    // A spawned one is killed meanwhile.
    let process = rig.sandbox.spawn(Command::shell(sleeper)).await?;
    process.kill().await?;
    process.wait().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_the_output_or_writes_for_ever_holds_no_command() -> Outcome {
    let rig = Rig::new().await?;
    for script in [
        "sleep 1000 & echo said",
        "(while :; do echo more; sleep 0.03; done) & echo said",
    ] {
        let output = rig.sandbox.sh(script).await?;
        // The background loop may come first.
        let said = output.stdout.to_string_lossy();
        assert!(said.lines().any(|line| line == "said"), "{output:?}");
        assert!(output.duration < Duration::from_secs(120), "{output:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_program_is_no_shell_script() -> Outcome {
    let rig = Rig::new().await?;
    let mut other_machine = std::fs::read("/bin/sh")?;
    // e_machine: an S/390, which no test machine is.
    other_machine[18] = 22;
    let cut = std::fs::read("/bin/sh")?[..64].to_vec();
    for (name, bytes) in [
        ("text", &b"\x7fELF\n touch /ran\n"[..]),
        ("other", &other_machine),
        ("cut", &cut),
    ] {
        let batch = FileBatch::new().file_with_mode(name, bytes.to_vec(), Mode::EXECUTABLE);
        rig.sandbox.write_files(batch).await?;
        let ran = rig.sandbox.exec(Command::new(format!("./{name}"))).await;
        let Err(error) = ran else {
            return Err(format!("{name} ran: {ran:?}").into());
        };
        assert_eq!(
            (error.kind(), error.execution()),
            (ErrorKind::NotExecutable, Some(Execution::NotStarted)),
            "{name}: {error:?}"
        );
        assert!(!rig.sandbox.exists("/ran").await?);
    }
    let whole =
        FileBatch::new().file_with_mode("whole", std::fs::read("/bin/sh")?, Mode::EXECUTABLE);
    rig.sandbox.write_files(whole).await?;
    let command = Command::new("./whole").args(["-c", "echo control"]);
    assert_eq!(rig.sandbox.exec(command).await?.stdout.bytes, "control\n");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_program_can_be_given_is_refused_at_once() -> Outcome {
    let rig = Rig::new().await?;
    let before = rig.double.queries();
    let large = "x".repeat((128 << 10) - 4);
    let commands = [
        Command::new("true").env("BIG", large.as_str()),
        Command::new("true").args([format!("12345{large}")]),
        Command::new("true").args(std::iter::repeat_n("x".repeat(100_000), 30)),
    ];
    for command in commands {
        let Err(error) = rig.sandbox.exec(command).await else {
            return Err("it should have been refused".into());
        };
        assert_eq!(
            (error.kind(), error.execution()),
            (ErrorKind::LimitExceeded, Some(Execution::NotStarted)),
            "{error:?}"
        );
    }
    assert_eq!(rig.double.queries(), before, "nothing was sent");
    // One byte less is what Linux takes.
    let command = Command::shell("printf %s ${#BIG}").env("BIG", &large[1..]);
    let output = rig.sandbox.exec(command).await?;
    assert_eq!(output.stdout.bytes, (large.len() - 1).to_string());
    let mut secret = Command::shell("printf %s ${#BIG}");
    secret.env = secret.env.secret("BIG", &large[..120_000]);
    assert_eq!(rig.sandbox.exec(secret).await?.stdout.bytes, "120000");
    // A guest that allows less than Linux does: the program is not started, and nothing waits.
    let many = Command::new("true")
        .args(std::iter::repeat_n("x".repeat(100_000), 10))
        .timeout(Duration::from_secs(120));
    assert!(rig.sandbox.exec(many).await?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_have_no_variable_of_the_engine() -> Outcome {
    let rig = Rig::new().await?;
    let output = rig.sandbox.exec(Command::new("env")).await?;
    let text = output.stdout.to_string_lossy().into_owned();
    let mut names: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_once('=').map(|(name, _)| name))
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["HOME", "LANG", "PATH"], "{text}");
    Ok(())
}

/// The modes of this process's staged directories and of what is in them, while a batch waits.
fn staged() -> Vec<(std::path::PathBuf, u32)> {
    use std::os::unix::fs::PermissionsExt as _;
    let entries = std::fs::read_dir(std::env::temp_dir())
        .into_iter()
        .flatten();
    let own = entries.flatten().filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with(&format!("sandbox-dagger-{}-", std::process::id()))
    });
    own.flat_map(|dir| {
        let below = std::fs::read_dir(dir.path())
            .into_iter()
            .flatten()
            .flatten();
        let below: Vec<_> = below.map(|entry| entry.path()).collect();
        std::iter::once(dir.path()).chain(below)
    })
    .filter_map(|path| {
        let mode = std::fs::symlink_metadata(&path).ok()?.permissions().mode();
        Some((path, mode & 0o777))
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn staged_content_is_private_and_does_not_stay() -> Outcome {
    let rig = Rig::new().await?;
    rig.double.inject(Fault::Slow(Duration::from_secs(2)));
    let task = {
        let sandbox = rig.sandbox.clone();
        // A text would go without being staged.
        tokio::spawn(async move { sandbox.write("f", &b"\xff"[..]).await })
    };
    until("nothing was staged", || {
        staged().iter().any(|(path, _)| path.ends_with("f0"))
    })
    .await?;
    for (path, mode) in staged() {
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
    }
    task.await??;
    until("something stays", || staged().is_empty()).await
}

/// Bytes of both streams with pauses, so that they come in several records.
const SPEAKER: &str = "for i in 1 2 3 4; do printf \"$i\\377\\000\"; printf \"e$i\\n\" >&2; \
                       sleep 0.15; done; yes | head -c 200000; echo x >f; exit 7";

#[tokio::test(flavor = "multi_thread")]
async fn live_output_is_whole_and_in_order_however_the_engine_shows_it() -> Outcome {
    let rig = Rig::new().await?;
    let mut stdout = b"1\xff\x002\xff\x003\xff\x004\xff\x00".to_vec();
    stdout.extend(b"y\n".iter().cycle().take(200_000));
    for quirk in [
        LiveLogs::Prompt,
        LiveLogs::Late(Duration::from_secs(3)),
        LiveLogs::Cut,
        LiveLogs::Turned,
        LiveLogs::Doubled,
        LiveLogs::Lost,
        LiveLogs::Foreign,
    ] {
        rig.double.set_quirks(|quirks| quirks.live_logs = quirk);
        let before = rig.double.executions();
        let process = rig.sandbox.spawn(Command::shell(SPEAKER)).await?;
        let output = process.wait_with_output(CollectOptions::new()).await?;
        assert_eq!(output.stdout.total, stdout.len() as u64, "{quirk:?}");
        assert!(output.stdout.bytes == stdout, "{quirk:?}");
        assert_eq!(output.stderr.bytes, "e1\ne2\ne3\ne4\n", "{quirk:?}");
        assert_eq!(output.status, ExitStatus::Code(7), "{quirk:?}");
        assert_eq!(
            rig.double.executions() - before,
            1,
            "{quirk:?}: it ran once"
        );
        assert!(rig.sandbox.exists("f").await?, "{quirk:?}: its files");
        rig.sandbox.remove_all("f").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_shows_nothing_live_is_not_asked_to_run_it() -> Outcome {
    let rig = Rig::new().await?;
    rig.double
        .set_quirks(|quirks| quirks.live_logs = LiveLogs::Absent);
    let before = rig.double.executions();
    let Err(error) = rig.sandbox.spawn(Command::new("true")).await else {
        return Err("it should have been refused".into());
    };
    assert_eq!(
        (error.kind(), error.execution()),
        (ErrorKind::Unsupported, Some(Execution::NotStarted)),
        "{error:?}"
    );
    assert_eq!(rig.double.executions(), before);
    assert_eq!(
        rig.sandbox.sh("echo usable").await?.stdout.bytes,
        "usable\n"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_in_which_a_process_runs_is_busy_and_has_its_files_after_a_kill() -> Outcome {
    let rig = Rig::new().await?;
    let time = unique(9);
    let script = "echo x >f; setsid sleep $1 & sleep $1";
    let command = Command::shell(script).args(["sh", &time]);
    let process = rig.sandbox.spawn(command).await?;
    until("it did not start", || runs(&time)).await?;
    for refused in [
        rig.sandbox.write("g", "x").await,
        rig.sandbox.sh("true").await.map(drop),
    ] {
        assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::Busy));
    }
    let fork = rig.sandbox.fork_one().await?;
    fork.write("g", "x").await?;
    process.kill().await?;
    assert!(!runs(&time), "everything is dead when kill returns");
    assert_eq!(process.wait().await?.status, ExitStatus::Signal(9));
    assert!(rig.sandbox.exists("f").await?);
    rig.sandbox.write("g", "x").await?;
    // One whose handle is dropped ends too, and leaves the sandbox as it was.
    let time = unique(10);
    let dropped = rig.sandbox.spawn(sleepers(&time)).await?;
    until("it did not start", || runs(&time)).await?;
    drop(dropped);
    until("the process lives on", || !runs(&time)).await?;
    let started = Instant::now();
    while rig.sandbox.write("g", "y").await.is_err() {
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "it stays busy"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
