//! A tenant's app: what it is made of, how it is, what it says.

use std::time::Duration;

use sandbox_aca::provision::{
    AppSpec, ClientCertificates, ClientId, Container, Health, Ingress, LogOptions, LogTables,
    OwnerAuth, PrincipalId, Probe, ProbeType, RunningStatus, Share, Size,
};
use sandbox_core::ErrorKind;

use super::{IMAGE, environment, identity, start};

const GUID: &str = "11111111-2222-3333-4444-555555555555";

fn shell(script: &str) -> Container {
    Container::new(IMAGE).command(["/bin/sh", "-c", script])
}

fn full(secret: &str) -> AppSpec {
    let client = ClientId::new(GUID).expect("a client");
    let owner = PrincipalId::new(GUID).expect("a principal");
    let container = shell("echo \"started with $KEY\"; exec sleep 1000")
        .secret_env("KEY", "key")
        .size(Size::quarters(2).expect("a size"))
        .probe(Probe::new(ProbeType::Liveness, "/health", 8080));
    AppSpec::new(environment(), container)
        .secret("key", secret)
        .registry("r.azurecr.io", identity())
        .ingress(
            Ingress::internal(8080)
                .allow("10.0.0.0/24")
                .certificates(ClientCertificates::Require),
        )
        .auth(OwnerAuth::principal(GUID, client, owner).open_path("/health"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_app_is_closed_until_its_owner_is_known_and_runs_then() {
    let (emulator, plane) =
        start(|options| options.arm_operation = Duration::from_millis(100)).await;
    let app = plane.app("tenant-1").expect("a name");
    let made = app.ensure(&full("hidden")).await.expect("an app");
    let fqdn = made.properties.fqdn().expect("a name");
    assert!(fqdn.contains(".internal."), "{fqdn}");
    assert!(matches!(
        app.health().await.expect("a state"),
        Health::Healthy(0)
    ));
    let written: Vec<String> = emulator.requested("PUT /");
    let written: Vec<&str> = written
        .iter()
        .filter_map(|line| line.rsplit('/').next())
        .collect();
    assert_eq!(written, ["tenant-1", "current", "tenant-1"]);
    // The ingress is no change of the template: one revision.
    assert_eq!(app.revisions().await.expect("revisions").len(), 1);
    // Nothing is written for what is so already; another value of a secret is.
    app.ensure(&full("hidden")).await.expect("an app");
    assert_eq!(emulator.requests("PUT /"), 3);
    let other = full("other");
    app.ensure(&other).await.expect("an app");
    assert!(emulator.requests("PUT /") > 3);
    let secrets = app.secrets().await.expect("secrets");
    assert_eq!(secrets, [("key".to_owned(), "other".into())]);
    let shown = format!("{:?}", app.show().await.expect("an answer"));
    assert!(
        !shown.contains("other") && !format!("{other:?}").contains("other"),
        "{shown}"
    );
    app.delete().await.expect("it goes");
    assert!(app.show().await.expect("an answer").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_stopped_started_and_restarted_and_its_log_comes_as_it_is_written() {
    let (emulator, plane) = start(|_| {}).await;
    let app = plane.app("app").expect("a name");
    let spec = AppSpec::new(
        environment(),
        shell("echo one; echo two; i=0; while sleep 0.05; do i=$((i+1)); echo \"tick $i\"; done"),
    );
    app.ensure(&spec).await.expect("an app");
    let mut log = app
        .logs(LogOptions::new().follow(true).tail(300))
        .await
        .expect("a log");
    let mut lines = Vec::new();
    while lines.len() < 5 {
        lines.push(log.line().await.expect("a line").expect("not the end"));
    }
    assert_eq!(lines[..3], ["one", "two", "tick 1"]);
    app.stop().await.expect("it stops");
    while log.line().await.expect("a line").is_some() {}
    let shown = app.show().await.expect("an answer").expect("an app");
    assert_eq!(
        shown.properties.running_status,
        Some(RunningStatus::Stopped)
    );
    assert!(matches!(
        app.health().await.expect("a state"),
        Health::Stopped
    ));
    let error = app.logs(LogOptions::new()).await.expect_err("no replica");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    app.stop().await.expect("nothing to do");
    app.start().await.expect("it starts");
    app.ready().await.expect("it runs");
    app.restart().await.expect("it restarts");
    app.ready().await.expect("it runs");
    assert_eq!(emulator.executions("stop app"), 1);
    assert_eq!(emulator.executions("restart app--"), 1);
    let query = app.console_query(LogTables::AzureMonitor, 10);
    let table = plane
        .query("workspace", &query, Duration::from_secs(600))
        .await;
    let table = table.expect("an answer");
    assert!(table.column("Log").contains(&"one"), "{table:?}");
    let name = app.revisions().await.expect("revisions")[0].name.clone();
    let shares = [Share::new(&name, 100).label("tenant")];
    app.share(&shares).await.expect("a label");
    let error = app
        .share(&[Share::new(&name, 99)])
        .await
        .expect_err("not 100");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    app.delete().await.expect("it goes");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_does_not_run_is_an_error_with_its_last_lines() {
    let (emulator, plane) = start(|_| {}).await;
    let app = plane.app("loops").expect("a name");
    let spec = AppSpec::new(environment(), shell("echo 'no such database' >&2; exit 3"));
    let error = app
        .ensure(&spec)
        .await
        .expect_err("it ends again and again");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("CrashLoopBackOff") && text.contains("no such database"),
        "{text}"
    );
    emulator.change(|options| options.image_pull_fails = true);
    let app = plane.app("absent").expect("a name");
    let error = app.ensure(&spec).await.expect_err("no image");
    let text = error.to_string();
    assert!(
        text.contains("can't be pulled") && text.contains("nothing"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_weaken_an_app_is_refused_before_it_is_sent() {
    let (emulator, plane) = start(|_| {}).await;
    let app = plane.app("app").expect("a name");
    let client = ClientId::new(GUID).expect("a client");
    let owner = PrincipalId::new(GUID).expect("a principal");
    let auth = OwnerAuth::principal(GUID, client, owner);
    let mut ownerless = auth.clone();
    ownerless.principals.clear();
    let pinned = || AppSpec::new(environment(), Container::new(IMAGE));
    for (what, spec) in [
        (
            "a tag",
            AppSpec::new(environment(), Container::new("r.azurecr.io/x:latest")),
        ),
        ("no ingress", pinned().auth(auth)),
        (
            "no owner",
            pinned().ingress(Ingress::internal(80)).auth(ownerless),
        ),
        (
            "an exposed identity",
            pinned()
                .registry("r.azurecr.io", identity())
                .exposed_identity(identity()),
        ),
    ] {
        let error = app.ensure(&spec).await.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{what}: {error:?}");
    }
    assert_eq!(emulator.requests("PUT /"), 0);
}
