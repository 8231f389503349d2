//! Connecting without settings: by the environment, in the order of the README.
#![cfg(target_os = "linux")]

mod support;

use std::fs;

use sandbox_core::{Provider as _, SandboxExt as _};
use sandbox_dagger::{DaggerConfig, DaggerProvider};
use sandbox_testkit::dagger::{DaggerDouble, Quirks};
use support::{Outcome, spec};

/// Program that the other tests run by itself, because an environment is a process's.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the other tests run it in environments of their own"]
async fn in_this_environment() -> Outcome {
    let said = async {
        let sandbox = DaggerProvider::new(DaggerConfig::default())?
            .create(spec())
            .await?;
        sandbox.sh("echo works").await
    };
    let said = match said.await {
        Ok(output) => output.stdout.to_string_lossy().into_owned(),
        Err(error) => format!("{:?}: {error} ({:?})", error.kind(), error.hint()),
    };
    fs::write(std::env::var("SANDBOX_TEST_SAID")?, said)?;
    Ok(())
}

/// Runs a provider without settings where these variables are all that concerns it.
async fn said<V: AsRef<std::ffi::OsStr>>(
    variables: &[(&str, V)],
) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("said");
    let status = tokio::process::Command::new(std::env::current_exe()?)
        .args(["--exact", "in_this_environment", "--ignored"])
        .env_remove("_EXPERIMENTAL_DAGGER_CLI_BIN")
        .env_remove("DAGGER_SESSION_PORT")
        .env_remove("DAGGER_SESSION_TOKEN")
        .env("PATH", "/nowhere")
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .env("SANDBOX_TEST_SAID", &file)
        .status()
        .await?;
    assert!(status.success());
    Ok(fs::read_to_string(file)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_names_the_session() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    let dir = tempfile::tempdir()?;
    let (port, token) = (double.port().to_string(), double.token());
    let script = format!("echo '{{\"port\":{port},\"session_token\":\"{token}\"}}'\nexec /bin/cat");
    let cli = support::program(dir.path().join("dagger"), &script)?;
    let cli = cli.to_string_lossy().into_owned();
    let session = [
        ("DAGGER_SESSION_PORT", port.clone()),
        ("DAGGER_SESSION_TOKEN", token),
    ];
    assert_eq!(said(&session).await?, "works\n");
    let named = ("_EXPERIMENTAL_DAGGER_CLI_BIN", cli);
    assert_eq!(said(std::slice::from_ref(&named)).await?, "works\n");
    let path = ("PATH", dir.path().to_string_lossy().into_owned());
    assert_eq!(said(std::slice::from_ref(&path)).await?, "works\n");
    assert!(
        double.queries_with("node:20-alpine3.22") > 0,
        "the default image"
    );
    // What is broken is told, whatever would come next.
    let broken = [("DAGGER_SESSION_PORT", "none".into()), path.clone()];
    let text = said(&broken).await?;
    assert!(text.starts_with("InvalidInput: "), "{text}");
    use std::os::unix::ffi::OsStringExt as _;
    let no_text = std::ffi::OsString::from_vec(b"\xff".to_vec());
    let broken = [
        ("DAGGER_SESSION_PORT", no_text),
        ("PATH", path.1.clone().into()),
    ];
    let text = said(&broken).await?;
    assert!(text.starts_with("InvalidInput: "), "{text}");
    let broken = [session[0].clone(), path.clone()];
    let text = said(&broken).await?;
    assert!(text.starts_with("InvalidInput: "), "{text}");
    let broken = [("_EXPERIMENTAL_DAGGER_CLI_BIN", "/no/such".into()), path];
    let text = said(&broken).await?;
    assert!(text.starts_with("Unavailable: "), "{text}");
    assert!(text.contains("can't be started"), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_session_and_a_cli_the_remedy_is_told() -> Outcome {
    let text = said::<&str>(&[]).await?;
    assert!(text.starts_with("Unavailable: "), "{text}");
    assert!(text.contains("no Dagger CLI"), "{text}");
    assert!(text.contains("https://docs.dagger.io/install"), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_proxy_is_asked() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    let nobody = "http://127.0.0.1:9".to_owned();
    let variables = [
        ("DAGGER_SESSION_PORT", double.port().to_string()),
        ("DAGGER_SESSION_TOKEN", double.token()),
        ("HTTP_PROXY", nobody.clone()),
        ("http_proxy", nobody.clone()),
        ("ALL_PROXY", nobody),
    ];
    assert_eq!(said(&variables).await?, "works\n");
    Ok(())
}
