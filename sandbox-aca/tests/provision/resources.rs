//! Environments, sandbox groups, session pools, quotas, plans, ownership.

use std::time::Duration;

use sandbox_aca::provision::{
    Action, AppSpec, Container, ControlPlane, CustomPool, EnvironmentSpec, PoolSpec,
    ProvisioningState, SandboxGroupSpec, Wanted,
};
use sandbox_aca::{
    AcaSandboxProvider, AcaSessionConfig, AcaSessionProvider, SessionKind, StaticToken,
};
use sandbox_core::{Command, ErrorKind, Labels, Provider as _, SandboxSpec};

use super::{IMAGE, config, environment, identity, start};

const SOON: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_is_made_once_changed_listed_and_deleted() {
    for accepts in [false, true] {
        let (emulator, plane) = start(|options| {
            options.arm_operation = SOON;
            options.arm_accepts = accepts;
        })
        .await;
        let environment = plane.environment("env").expect("a name");
        assert!(environment.show().await.expect("an answer").is_none());
        let spec = EnvironmentSpec::new();
        let made = environment.ensure(&spec).await.expect("an environment");
        let state = made.properties.provisioning_state;
        assert_eq!(state, Some(ProvisioningState::Succeeded));
        assert!(made.properties.default_domain.is_some());
        assert_eq!(
            made.tags.get("sandbox-owner").map(String::as_str),
            Some("owner-1")
        );
        // What was asked for already is not written again.
        environment.ensure(&spec).await.expect("an environment");
        assert_eq!(emulator.requests("PUT /"), 1);
        let other = EnvironmentSpec::new().peer_tls(true);
        environment.ensure(&other).await.expect("an environment");
        environment.update(&other).await.expect("an environment");
        assert_eq!(emulator.requests("PUT /"), 3);
        assert_eq!(plane.environments().await.expect("a list").len(), 1);
        let quotas = environment.quotas().await.expect("quotas");
        assert!(
            quotas.iter().any(|quota| quota.limit == 100.0),
            "{quotas:?}"
        );
        environment.delete().await.expect("it goes");
        assert!(environment.show().await.expect("an answer").is_none());
        environment.delete().await.expect("nothing to do");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_whole_whatever_their_links_are() {
    for relative in [false, true] {
        let (_emulator, plane) = start(|options| {
            options.page = Some(2);
            options.relative_links = relative;
        })
        .await;
        for name in ["a1", "b2", "c3", "d4", "e5"] {
            let group = plane.sandbox_group(name).expect("a name");
            let made = group.ensure(&SandboxGroupSpec::new()).await;
            made.expect("a group");
        }
        let all = plane.sandbox_groups().await.expect("a list");
        assert_eq!(all.len(), 5, "relative: {relative}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_was_made_has_sandboxes() {
    let (emulator, plane) = start(|options| options.strict_groups = true).await;
    let group = plane.sandbox_group("mine").expect("a name");
    group
        .ensure(&SandboxGroupSpec::new())
        .await
        .expect("a group");
    let config = group.config().await.expect("a configuration");
    let token = std::sync::Arc::new(StaticToken::new(emulator.token()));
    let provider = AcaSandboxProvider::new(config.credential(token)).expect("a provider");
    let sandbox = provider
        .create(SandboxSpec::new())
        .await
        .expect("a sandbox");
    sandbox.close().await.expect("it closes");
    // Its environment can be given later, and not be changed then.
    let spec = SandboxGroupSpec::new().environment(environment());
    group.ensure(&spec).await.expect("a group");
    let other = SandboxGroupSpec::new();
    let error = group.ensure(&other).await.expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
    group.delete().await.expect("it goes");
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_of_every_kind_are_made_and_a_shells_runs_commands() {
    let (emulator, plane) = start(|options| options.arm_operation = SOON).await;
    let custom = CustomPool::new(environment(), Container::new(IMAGE), 8080)
        .registry("r.azurecr.io", identity());
    for (name, spec) in [
        ("python1", PoolSpec::python()),
        ("node1", PoolSpec::node()),
        ("shell1", PoolSpec::shell().mcp(true)),
        ("custom1", PoolSpec::custom(custom.clone())),
    ] {
        let pool = plane.session_pool(name).expect("a name");
        let made = pool.ensure(&spec.sessions(20)).await.expect("a pool");
        let endpoint = made.properties.pool_management_endpoint.as_deref();
        assert!(
            endpoint.is_some_and(|endpoint| endpoint.contains(name)),
            "{made:?}"
        );
        assert_eq!(made.properties.mcp_endpoint().is_some(), name == "shell1");
        assert_eq!(pool.mcp_key().await.is_ok(), name == "shell1");
    }
    let pool = plane.session_pool("shell1").expect("a name");
    let shown = pool.show().await.expect("an answer").expect("a pool");
    let endpoint = shown
        .properties
        .pool_management_endpoint
        .expect("an endpoint");
    let token = std::sync::Arc::new(StaticToken::new(emulator.token()));
    let config = AcaSessionConfig::new(endpoint, SessionKind::Shell).credential(token);
    let provider = AcaSessionProvider::new(config).expect("a provider");
    let sandbox = provider
        .create(SandboxSpec::new())
        .await
        .expect("a session");
    let ran = sandbox
        .exec(Command::shell("echo hello"))
        .await
        .expect("it runs");
    assert_eq!(ran.stdout.bytes, "hello\n");
    sandbox.close().await.expect("it closes");
    // The service drops this in silence, and the client says so.
    let pool = plane.session_pool("custom2").expect("a name");
    let error = pool.ensure(&PoolSpec::custom(custom).mcp(true)).await;
    assert_eq!(error.expect_err("no server").kind(), ErrorKind::Unsupported);
    let quotas = plane.quotas().await.expect("quotas");
    let pools = quotas.iter().find(|quota| quota.name == "SessionPoolCount");
    assert_eq!(
        pools.map(|quota| (quota.used, quota.left())),
        Some((5.0, 1.0))
    );
    for name in ["python1", "node1", "shell1", "custom1", "custom2"] {
        let pool = plane.session_pool(name).expect("a name");
        pool.delete().await.expect("it goes");
    }
    assert!(plane.session_pools().await.expect("a list").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_another_owner_is_left_alone() {
    let (emulator, ours) = start(|_| {}).await;
    let mut other = config(&emulator, &emulator.endpoint());
    other.owner = "owner-2".into();
    let theirs = ControlPlane::new(other.tag("run", "r2")).expect("a control plane");
    let group = theirs.sandbox_group("shared").expect("a name");
    group
        .ensure(&SandboxGroupSpec::new())
        .await
        .expect("a group");
    let written = emulator.requests("PUT /");
    let group = ours.sandbox_group("shared").expect("a name");
    let error = group
        .ensure(&SandboxGroupSpec::new())
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error:?}");
    assert!(error.to_string().contains("owner-2"), "{error}");
    let error = group.delete().await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error:?}");
    assert_eq!(emulator.requests("PUT /"), written);
    assert_eq!(emulator.requests("DELETE /"), 0);
    // A collection takes what is the owner's, bears the tags and is not said to live.
    let run = Labels::from([("run".to_owned(), "r1".to_owned())]);
    let tagged = ControlPlane::new(config(&emulator, &emulator.endpoint()).tag("run", "r1"));
    let tagged = tagged.expect("a control plane");
    for name in ["one", "two"] {
        let group = tagged.sandbox_group(name).expect("a name");
        group
            .ensure(&SandboxGroupSpec::new())
            .await
            .expect("a group");
    }
    let untagged = ours.sandbox_group("three").expect("a name");
    untagged
        .ensure(&SandboxGroupSpec::new())
        .await
        .expect("a group");
    let living = [tagged.sandbox_group("two").expect("a name").id().clone()];
    let collected = ours.collect(&run, &living).await.expect("a collection");
    let names: Vec<&str> = collected.deleted.iter().map(|id| id.name()).collect();
    assert_eq!((names, collected.failed.len()), (vec!["one"], 0));
    let owned = ours.owned(&Labels::new()).await.expect("a list");
    let left: Vec<&str> = owned.iter().map(|owned| owned.id.name()).collect();
    assert_eq!(left, ["three", "two"]);
    assert_eq!(ours.sandbox_groups().await.expect("a list").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_says_what_would_be_done_and_does_nothing() {
    let (emulator, plane) = start(|_| {}).await;
    let spec = EnvironmentSpec::new();
    let environment = plane.environment("env").expect("a name");
    environment.ensure(&spec).await.expect("an environment");
    let app = AppSpec::new(environment.id().clone(), Container::new(IMAGE)).secret("k", "hidden");
    let wanted = [
        Wanted::Environment("env".into(), spec),
        Wanted::App("tenant-1".into(), app),
        Wanted::SessionPool("pool".into(), PoolSpec::python().sessions(10)),
    ];
    let before = emulator.requests("");
    let plan = plane.plan(&wanted).await.expect("a plan");
    let sent = emulator.requested("");
    assert!(
        sent[before..].iter().all(|line| line.starts_with("GET ")),
        "{sent:?}"
    );
    let actions: Vec<Action> = plan.lines.iter().map(|line| line.action).collect();
    assert_eq!(actions, [Action::Keep, Action::Create, Action::Create]);
    // Half a processor and 1 GiB for a month, at the idle and at the active rate.
    let app = &plan.lines[1].cost;
    assert!(
        (app.idle - 11.8).abs() < 0.2 && (app.busy - 39.4).abs() < 0.2,
        "{app:?}"
    );
    let text = plan.to_string();
    assert!(
        text.contains("2025-12") && !text.contains("hidden"),
        "{text}"
    );
    let other = [Wanted::Environment(
        "env".into(),
        EnvironmentSpec::new().peer_tls(true),
    )];
    let plan = plane.plan(&other).await.expect("a plan");
    assert_eq!(plan.lines[0].action, Action::Update);
}
