//! Tokens: their sources, the time of their use, and the message when there is none.
//!
//! What the chain reads is the environment, which a test can't change for itself: the test program
//! starts itself again with another one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use sandbox_aca::{
    AcaSandboxProvider, AcaSessionProvider, AccessToken, Credential, DefaultCredential,
    SessionKind, StaticToken,
};
use sandbox_core::{ErrorKind, Provider as _, Result, SandboxSpec, async_trait};
use sandbox_testkit::aca::{AcaEmulator, Options};

use super::{BOTH, VERSIONS, config, pool, provider, start};

const SCOPE: &str = "https://dynamicsessions.io/.default";

/// Not a test of its own: what a test starts with an environment of its making.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by other tests"]
async fn asks_the_default_credential() {
    let credential = DefaultCredential::new();
    for _ in 0..2 {
        match credential.token(SCOPE).await {
            Ok(token) => println!("TOKEN {}", String::from_utf8_lossy(token.token.expose())),
            Err(error) => println!("ERROR {:?} {error}", error.kind()),
        }
    }
}

/// Asks the chain twice with these variables, and none that means anything to it beside.
fn ask(variables: &[(&str, &str)]) -> String {
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command
        .args(["--exact", "auth::asks_the_default_credential"])
        .args(["--ignored", "--nocapture"])
        .env_clear()
        .env("PATH", "/nowhere")
        .envs(variables.iter().copied());
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&stdout).into_owned();
    assert!(
        status.success(),
        "{said}{}",
        String::from_utf8_lossy(&stderr)
    );
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_managed_identity_gives_a_token_that_the_service_takes() {
    let emulator = AcaEmulator::start(Options::default())
        .await
        .expect("an emulator");
    let endpoint = emulator.identity_endpoint();
    let said = tokio::task::spawn_blocking(move || {
        ask(&[
            ("IDENTITY_ENDPOINT", &endpoint),
            ("IDENTITY_HEADER", "secret"),
        ])
    });
    let said = said.await.expect("it ran");
    let token = said.lines().find_map(|line| line.split_once("TOKEN "));
    let (_, token) = token.unwrap_or_else(|| panic!("{said}"));
    let provider = provider(&emulator, Arc::new(StaticToken::new(token)));
    provider.list(&Default::default()).await.expect("a list");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_azure_cli_gives_a_token_when_nothing_else_does() {
    let dir = tempfile::tempdir().expect("a directory");
    let az = dir.path().join("az");
    let script = r#"#!/bin/sh
printf '{"accessToken":"from-az","expires_on":4102444800,"expiresOn":"2100-01-01 00:00:00.000000","subscription":"s","tenant":"t","tokenType":"Bearer"}'
"#;
    fs::write(&az, script).expect("a program");
    fs::set_permissions(&az, fs::Permissions::from_mode(0o755)).expect("it may be run");
    let path = format!("{}:/usr/bin:/bin", dir.path().display());
    let said = tokio::task::spawn_blocking(move || ask(&[("PATH", &path)]));
    let said = said.await.expect("it ran");
    assert_eq!(said.matches("TOKEN from-az").count(), 2, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_credential_each_says_what_it_lacks() {
    let said = tokio::task::spawn_blocking(|| {
        ask(&[
            ("AZURE_TENANT_ID", "tenant"),
            ("AZURE_CLIENT_SECRET", "do-not-show"),
        ])
    });
    let said = said.await.expect("it ran");
    assert!(said.contains("ERROR Unauthenticated"), "{said}");
    for part in [
        "client secret: AZURE_CLIENT_ID is not set",
        "workload identity: AZURE_FEDERATED_TOKEN_FILE is not set",
        "managed identity: ",
        "developer tools: ",
        "az login --scope https://dynamicsessions.io/.default",
    ] {
        assert!(said.contains(part), "no {part:?} in: {said}");
    }
    assert!(!said.contains("do-not-show"), "a secret is shown: {said}");
}

/// Gives tokens that are valid for so long, and counts them.
#[derive(Debug)]
struct Counting {
    token: String,
    valid: Duration,
    asked: AtomicUsize,
}

#[async_trait]
impl Credential for Counting {
    async fn token(&self, scope: &str) -> Result<AccessToken> {
        assert_eq!(scope, SCOPE);
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(AccessToken::new(
            self.token.as_str(),
            Some(SystemTime::now() + self.valid),
        ))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_kept_until_it_is_about_to_end() {
    let emulator = AcaEmulator::start(Options::default())
        .await
        .expect("an emulator");
    for (valid, asked) in [(3600, 1), (60, 5)] {
        let credential = Arc::new(Counting {
            token: emulator.token(),
            valid: Duration::from_secs(valid),
            asked: AtomicUsize::new(0),
        });
        let provider = provider(&emulator, credential.clone());
        for _ in 0..5 {
            provider.list(&Default::default()).await.expect("a list");
        }
        assert_eq!(
            credential.asked.load(Ordering::Relaxed),
            asked,
            "valid for {valid} s"
        );
    }
}

/// Notes what tokens are asked for, and gives one that opens every plane.
#[derive(Debug)]
struct Noting {
    token: String,
    scopes: Mutex<Vec<String>>,
}

#[async_trait]
impl Credential for Noting {
    async fn token(&self, scope: &str) -> Result<AccessToken> {
        self.scopes.lock().expect("no panic").push(scope.to_owned());
        let end = SystemTime::now() + Duration::from_secs(3600);
        Ok(AccessToken::new(self.token.as_str(), Some(end)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_version_asks_for_a_token_of_its_own_audience() {
    for (version, audience) in [
        (VERSIONS[0], "https://dynamicsessions.io"),
        (VERSIONS[1], BOTH),
    ] {
        let emulator = AcaEmulator::start(Options::default())
            .await
            .expect("an emulator");
        let credential = Arc::new(Noting {
            token: emulator.token_for(audience, 86_400),
            scopes: Mutex::default(),
        });
        let config = config(&emulator.endpoint()).api_version(version);
        let provider = AcaSandboxProvider::new(config.credential(credential.clone()));
        let provider = provider.expect("a provider");
        provider.list(&Default::default()).await.expect("a list");
        let scopes = credential.scopes.lock().expect("no panic").clone();
        assert_eq!(scopes, [format!("{audience}/.default")], "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_audience_is_named_with_the_scope_and_the_command() {
    let emulator = AcaEmulator::start(Options::default())
        .await
        .expect("an emulator");
    let wrong = emulator.token_for("https://management.azure.com", 3600);
    let provider = provider(&emulator, Arc::new(StaticToken::new(wrong.as_str())));
    let error = provider
        .list(&Default::default())
        .await
        .expect_err("a wrong audience");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error:?}");
    let text = format!("{error} {error:?}");
    assert!(
        text.contains(SCOPE) && text.contains("az account get-access-token"),
        "{text}"
    );
    assert!(!text.contains(&wrong), "the token is shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_names_its_role_its_scope_and_what_to_do() {
    for kind in [SessionKind::Python, SessionKind::Shell] {
        let emulator = AcaEmulator::start(Options::default()).await;
        let emulator = emulator.expect("an emulator");
        let create = async |token: String| {
            let token = Arc::new(StaticToken::new(token));
            let provider =
                AcaSessionProvider::new(pool(&emulator.endpoint(), kind).credential(token));
            let made = provider
                .expect("a provider")
                .create(SandboxSpec::new())
                .await;
            made.expect_err("it is refused")
        };
        let wrong = emulator.token_for("https://management.azure.com", 3600);
        let error = create(wrong.clone()).await;
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error:?}");
        let text = format!("{error} {error:?}");
        assert!(
            text.contains(&format!("az account get-access-token --scope {SCOPE}")),
            "{text}"
        );
        assert!(!text.contains(&wrong), "the token is shown");
        assert_eq!(emulator.requests("POST"), 2, "once and once again");
        emulator.change(|options| options.forbidden = true);
        let error = create(emulator.token()).await;
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
        let text = error.to_string();
        for part in [
            "Azure ContainerApps Session Executor",
            "az role assignment create",
            "/providers/Microsoft.App/sessionPools/",
        ] {
            assert!(text.contains(part), "no {part:?} in: {text}");
        }
        assert!(emulator.sessions().await.is_empty());
    }
}

/// Checks that what comes after ten minutes is refused without a wait, and found with one.
async fn comes_late(options: Options, kind: ErrorKind, remedy: &str) {
    let (emulator, hasty) = start(options).await;
    let error = hasty
        .create(SandboxSpec::new())
        .await
        .expect_err("not there yet");
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(error.to_string().contains(remedy), "{error}");
    let patient = config(&emulator.endpoint()).role_wait(Duration::from_secs(100));
    let token = Arc::new(StaticToken::new(emulator.token()));
    let patient = AcaSandboxProvider::new(patient.credential(token)).expect("a provider");
    let before = emulator.requests("GET");
    let list = tokio::spawn(async move { patient.list(&Default::default()).await });
    while emulator.requests("GET") == before {
        tokio::task::yield_now().await;
    }
    emulator.advance(Duration::from_secs(600));
    list.await.expect("it ran").expect("it has come");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_about_to_arrive_is_waited_for_when_asked() {
    let mut options = Options::default();
    options.group_after = Duration::from_secs(600);
    comes_late(options, ErrorKind::NotFound, "az resource show").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_about_to_arrive_is_waited_for_when_asked() {
    let mut options = Options::default();
    options.role_after = Duration::from_secs(600);
    comes_late(
        options,
        ErrorKind::PermissionDenied,
        "az role assignment create",
    )
    .await;
}

#[tokio::test]
async fn a_configuration_that_can_not_be_is_refused_before_anybody_is_asked() {
    let token: Arc<dyn Credential> = Arc::new(StaticToken::new("t"));
    let mut nameless = config("https://example.invalid");
    nameless.sandbox_group = String::new();
    let mut slashed = config("https://example.invalid");
    slashed.resource_group = "a/b".into();
    for (config, part) in [
        (config("not a url"), "not a URL"),
        (config("http://example.invalid"), "https"),
        (nameless, "sandbox_group"),
        (slashed, "resource_group"),
    ] {
        let made = AcaSandboxProvider::new(config.credential(Arc::clone(&token)));
        let error = made.expect_err(part);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        assert!(error.to_string().contains(part), "{error}");
    }
}
