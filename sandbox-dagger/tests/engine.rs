//! What only a real engine can show. Run with an engine in reach:
//! `cargo test -p sandbox-dagger --test engine -- --ignored` (`SANDBOX_DAGGER_IMAGE` names the
//! image).

mod support;

use sandbox_core::{Command, Provider as _, SandboxExt as _};
use sandbox_dagger::{DaggerConfig, DaggerProvider};
use support::{Outcome, spec};

fn provider() -> DaggerProvider {
    let mut config = DaggerConfig::default();
    if let Ok(image) = std::env::var("SANDBOX_DAGGER_IMAGE") {
        config = config.with_image(image);
    }
    DaggerProvider::with_config(config)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Dagger engine"]
async fn layers_are_put_together_and_nothing_is_lost() -> Outcome {
    let provider = provider();
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
    let layers = "grep -m 1 ' / ' /proc/self/mounts | tr ':' '\\n' | grep -c /fs";
    let layers = sandbox.sh(layers).await?;
    let layers = layers.stdout.to_string_lossy().trim().parse::<u32>();
    assert!(layers.is_ok_and(|layers| layers < 160));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Dagger engine"]
async fn a_secret_of_one_letter_spoils_no_answer() -> Outcome {
    let provider = provider();
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
