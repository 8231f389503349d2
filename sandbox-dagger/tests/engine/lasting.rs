//! Promises that hold however long a sandbox and its engine are used.

use std::sync::Arc;
use std::time::Duration;

use sandbox_core::{
    ErrorKind, Provider as _, ReadOptions, RenameOptions, Sandbox, SandboxExt as _,
};
use sandbox_dagger::DaggerProvider;

use crate::config;
use crate::support::{Outcome, spec};

/// Counts the layers of a sandbox's root, as its commands see it.
async fn layers(
    sandbox: &Arc<dyn Sandbox>,
) -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
    let script = "grep -m 1 ' / ' /proc/self/mounts | tr ':' '\\n' | grep -c /fs";
    let counted = sandbox.sh(script).await?;
    Ok(counted.stdout.to_string_lossy().trim().parse()?)
}

pub(crate) async fn layers_are_put_together_and_nothing_is_lost() -> Outcome {
    let provider = DaggerProvider::new(config())?;
    let sandbox = provider.create(spec()).await?;
    let made = "mkfifo pipe; ln -s nowhere link; echo x >odd; chmod 4750 odd; \
                touch -d '2001-02-03 04:05:06' odd; mkdir gone; rmdir gone; rm -f /etc/os-release";
    assert!(sandbox.sh(made).await?.success());
    let seen = "stat -c '%n %f %s %Y %u' pipe link odd; readlink link; ls; ls /etc | sort | head";
    let before = sandbox.sh(seen).await?.stdout.bytes;
    for number in 1..=160_u32 {
        let script = format!("echo {number} >>/tmp/log; tail -n 1 /tmp/log");
        let output = sandbox.sh(script).await?;
        assert_eq!(output.stdout.bytes, format!("{number}\n"));
    }
    let log = sandbox.read_to_string("/tmp/log").await?;
    assert_eq!(log.lines().count(), 160);
    assert_eq!(sandbox.sh(seen).await?.stdout.bytes, before);
    // Had nothing been put together, these would be more than 160.
    let layers = layers(&sandbox).await?;
    assert!(layers < 160, "{layers} layers");
    Ok(())
}

pub(crate) async fn two_thousand_operations_on_one_sandbox() -> Outcome {
    let provider = DaggerProvider::new(config())?;
    let sandbox = provider.create(spec()).await?;
    let mut most = 0;
    for number in 0..2_000_u32 {
        match number % 20 {
            0 => sandbox.write("kept", format!("{number}")).await?,
            1 => {
                let read = sandbox.read_to_string("kept").await?;
                assert_eq!(read, format!("{}", number - 1));
            }
            2 => {
                let output = sandbox.sh("cat kept; echo more >>log").await?;
                assert_eq!(output.stdout.bytes, format!("{}", number - 2));
            }
            3 if number % 100 == 3 => most = most.max(layers(&sandbox).await?),
            4 => {
                let (from, to) = ("kept".into(), "renamed".into());
                let options = RenameOptions::new();
                sandbox.rename(&from, &to, options).await?;
            }
            5 => sandbox.remove_all("renamed").await?,
            6 => {
                let options = ReadOptions::new();
                let gone = sandbox.read_file(&"kept".into(), options).await;
                let gone = gone.map(drop).map_err(|error| error.kind());
                assert_eq!(gone, Err(ErrorKind::NotFound));
            }
            7 => sandbox.write("kept", "again").await?,
            _ => {
                let dir = format!("d{}", number % 16);
                let options = sandbox_core::CreateDirOptions::new();
                sandbox.create_dir(&dir.into(), options).await?;
            }
        }
    }
    let log = sandbox.read_to_string("log").await?;
    assert_eq!(log.lines().count(), 100);
    assert!(most < 256, "{most} layers");
    Ok(())
}

pub(crate) async fn forks_that_run_the_same_command_run_it_twice() -> Outcome {
    let provider = DaggerProvider::new(config())?;
    let sandbox = provider.create(spec()).await?;
    let fork = sandbox.fork_one().await?;
    let script = "cat /proc/sys/kernel/random/uuid";
    let (one, two) = tokio::join!(sandbox.sh(script), fork.sh(script));
    let (one, two) = (one?.stdout.bytes, two?.stdout.bytes);
    assert_ne!(one, two);
    assert_ne!(sandbox.sh(script).await?.stdout.bytes, one);
    Ok(())
}

pub(crate) async fn a_provider_outlives_its_engine() -> Outcome {
    let provider = DaggerProvider::new(config())?;
    let old = provider.create(spec()).await?;
    old.write("f", "x").await?;
    let restart = std::env::var_os("SANDBOX_DAGGER_RESTART").ok_or("no way to restart")?;
    let status = tokio::process::Command::new(restart).status().await?;
    assert!(status.success(), "the engine was not restarted: {status}");
    let new = provider.create(spec()).await?;
    assert_eq!(new.sh("echo anew").await?.stdout.bytes, "anew\n");
    // An id may name something else in the new engine: the old sandbox must not get there.
    let failed = tokio::time::timeout(Duration::from_secs(120), old.read("f")).await?;
    let kind = failed.map_err(|error| error.kind());
    assert!(
        matches!(kind, Err(ErrorKind::Lost | ErrorKind::Unavailable)),
        "{kind:?}"
    );
    old.close().await?;
    assert_eq!(new.sh("echo still").await?.stdout.bytes, "still\n");
    Ok(())
}
