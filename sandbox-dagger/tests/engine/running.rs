//! Commands and services, seen from elsewhere while they run.

use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox_core::{Command, ErrorKind, Execution, Provider as _, Sandbox, SandboxExt as _};
use sandbox_dagger::{CacheMount, DaggerProvider, ProcessLimits};

use crate::config;
use crate::support::{Outcome, spec};

/// A command that shows that it and its daemon run: a cache is seen while it is written.
pub(crate) const BEATING: &str = "trap '' HUP INT TERM; : >/beats/one; : >/beats/two; \
     beat() { while :; do echo >>/beats/$1; sleep 0.1 || sleep 1; done; }; \
     beat two >/dev/null 2>&1 & beat one";

/// Progress of the command.
pub(crate) async fn beats(
    onlooker: &Arc<dyn Sandbox>,
) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let seen = onlooker.sh("cat /beats/one /beats/two | wc -l").await?;
    Ok(seen.stdout.to_string_lossy().trim().to_owned())
}

/// Waits until nothing beats any more.
pub(crate) async fn until_still(onlooker: &Arc<dyn Sandbox>) -> Outcome {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(60) {
        let before = beats(onlooker).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        if beats(onlooker).await? == before {
            return Ok(());
        }
    }
    Err("the command lives on".into())
}

pub(crate) async fn a_secret_of_one_letter_spoils_no_answer() -> Outcome {
    let provider = DaggerProvider::new(config())?;
    let sandbox = provider.create(spec()).await?;
    for secret in ["a", "1", "=", "a:b", "***"] {
        let mut command = Command::shell("printf %s \"$S\"; printf %s \"$S\" >&2; exit 11");
        command.env = command.env.secret("S", secret);
        let output = sandbox.exec(command).await?;
        assert_eq!(output.stdout.bytes, secret);
        assert_eq!(output.stderr.bytes, secret);
        assert_eq!(output.status.code(), Some(11));
    }
    Ok(())
}

pub(crate) async fn secrets_are_the_commands_alone() -> Outcome {
    let provider = DaggerProvider::new(config())?;
    let sandbox = provider
        .create(spec().secret("TOKEN", "s3cret\" $x\n"))
        .await?;
    let output = sandbox.sh("printf %s \"$TOKEN\"").await?;
    assert_eq!(output.stdout.bytes, "s3cret\" $x\n");
    let output = sandbox.sh("env | grep -c SANDBOX_SECRET").await?;
    assert_eq!(
        output.stdout.bytes, "0\n",
        "the engine's own names are not seen"
    );
    let mut command = Command::shell("printf '%s %s' \"$TOKEN\" \"$OTHER\"");
    command.env = command.env.secret("OTHER", "mine").unset("TOKEN");
    assert_eq!(sandbox.exec(command).await?.stdout.bytes, " mine");
    let output = sandbox.sh("printf %s \"$OTHER\"").await?;
    assert_eq!(output.stdout.bytes, "", "it was that command's");
    Ok(())
}

pub(crate) async fn a_timeout_ends_everything_and_keeps_what_was_said() -> Outcome {
    let config = config().cache(CacheMount::new("sandbox-test-timeout", "/beats"));
    let provider = DaggerProvider::new(config)?;
    let sandbox = provider.create(spec()).await?;
    let onlooker = provider.create(spec()).await?;
    let script = format!("echo said; echo why >&2; echo kept >f; {BEATING}");
    let command = Command::shell(&script).timeout(Duration::from_secs(2));
    let started = Instant::now();
    let Err(error) = sandbox.exec(command).await else {
        return Err("it should have been cut".into());
    };
    assert!(started.elapsed() < Duration::from_secs(60));
    assert_eq!(
        (error.kind(), error.execution()),
        (ErrorKind::Timeout, Some(Execution::Interrupted)),
        "{error:?}"
    );
    let partial = error.partial_output().ok_or("no partial output")?;
    assert_eq!(partial.stdout.bytes, "said\n");
    assert_eq!(partial.stderr.bytes, "why\n");
    assert_eq!(sandbox.read("f").await?, "kept\n");
    let one = beats(&onlooker).await?;
    assert_ne!(one, "0", "it did not run");
    until_still(&onlooker).await
}

pub(crate) async fn a_dropped_exec_is_ended_by_the_engine() -> Outcome {
    let config = config().cache(CacheMount::new("sandbox-test-dropped", "/beats"));
    let provider = DaggerProvider::new(config)?;
    let sandbox = provider.create(spec()).await?;
    let onlooker = provider.create(spec()).await?;
    onlooker.sh("rm -f /beats/*").await?;
    let task = {
        let sandbox = sandbox.clone();
        tokio::spawn(async move { sandbox.exec(Command::shell(BEATING)).await })
    };
    let started = Instant::now();
    while matches!(beats(&onlooker).await?.as_str(), "" | "0") {
        assert!(started.elapsed() < Duration::from_secs(120), "nothing runs");
    }
    task.abort();
    until_still(&onlooker).await?;
    assert_eq!(sandbox.sh("echo usable").await?.stdout.bytes, "usable\n");
    Ok(())
}

pub(crate) async fn processes_have_the_limits_that_were_asked_for() -> Outcome {
    let limits = ProcessLimits::none().file_size(4096).open_files(32);
    let provider = DaggerProvider::new(config().limits(limits))?;
    let sandbox = provider.create(spec()).await?;
    let output = sandbox.sh("ulimit -n; head -c 4096 /dev/zero >f").await?;
    assert_eq!(output.stdout.bytes, "32\n");
    assert!(output.success());
    assert!(!sandbox.sh("head -c 9000 /dev/zero >g").await?.success());
    assert_eq!(sandbox.stat("g").await?.size, 4096);
    Ok(())
}

/// Reads what a service writes to its clients.
fn answer(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

pub(crate) async fn a_service_is_reached_from_the_host_until_it_is_stopped() -> Outcome {
    let provider = DaggerProvider::new(config())?;
    let sandbox = provider.create(spec()).await?;
    sandbox.write("page", "hello from inside").await?;
    // BusyBox has nc, Debian has Perl.
    let script = "if command -v nc >/dev/null; then \
             while :; do { cat page; printf %s \"$TOKEN\"; } | nc -l -p 8080; done; \
         fi; exec perl -e 'use IO::Socket::INET; \
             my $s = IO::Socket::INET->new(LocalPort => 8080, Listen => 5) or die; \
             while (my $c = $s->accept) { \
                 open(my $f, \"<\", \"page\"); print {$c} <$f>, $ENV{TOKEN}; close $c }'";
    let mut command = Command::shell(script);
    command.env = command.env.secret("TOKEN", "s3cret");
    let id = sandbox.info().id;
    let service = provider.serve(&id, command, 8080).await?;
    sandbox.write("page", "changed").await?;
    sandbox.close().await?;
    let address = service.address();
    // A server of one connection at a time may be between two.
    let started = Instant::now();
    let text = loop {
        let text = tokio::task::spawn_blocking(move || answer(address)).await?;
        match text {
            Ok(text) if !text.is_empty() => break text,
            _ if started.elapsed() > Duration::from_secs(30) => {
                return Err(format!("no answer: {text:?}").into());
            }
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    assert_eq!(text, "hello from insides3cret");
    service.stop().await?;
    let after = tokio::task::spawn_blocking(move || answer(address)).await?;
    assert!(after.is_err(), "{after:?}");
    Ok(())
}

pub(crate) async fn a_service_that_ends_at_once_is_told() -> Outcome {
    let provider = DaggerProvider::new(config())?;
    let sandbox = provider.create(spec()).await?;
    let id = sandbox.info().id;
    let Err(error) = provider.serve(&id, Command::new("false"), 65_432).await else {
        return Err("it should have failed".into());
    };
    assert!(error.to_string().contains("exit"), "{error:?}");
    Ok(())
}
