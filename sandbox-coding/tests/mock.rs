//! Environments on the mock: nothing is installed, everything is scripted.
#![allow(clippy::panic, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use sandbox_coding::{
    EnvironmentRequest, Environments, ErrorKind, ModelAccess, Presets, Repository,
};
use sandbox_core::{
    Capability, Labels, Network, Operation, Provider as _, SandboxExt as _, SandboxSpec,
};
use sandbox_sessions::{Filter, SessionId, Sessions, SessionsConfig, Status, Tenant, Watch};
use sandbox_testkit::model::{MockOutcome, ModelProvider, ModelProviderBuilder};

const TALKER: &str = r#"
title = "Talker"
command = ["talk", "--say={prompt}"]
[model]
host = "api.example.com"
header = "x-api-key"
url = "TALK_URL"
key = "TALK_KEY"
[[stream]]
when = { "/type" = "start" }
status = "thinking"
[[stream]]
when = { "/type" = "tool", "/tool/name" = "ask" }
status = "waiting"
[[stream]]
when = { "/type" = "tool" }
status = "working"
[[stream]]
when = { "/type" = "end", "/failed" = true }
status = "error"
"#;

async fn over(model: ModelProviderBuilder) -> (Environments, ModelProvider) {
    let model = model.build();
    let sessions = Sessions::open(Arc::new(model.clone()), SessionsConfig::new())
        .await
        .unwrap();
    let presets = Presets::builtin()
        .unwrap()
        .with("talker", TALKER)
        .unwrap()
        .with(
            "needy",
            "title = 'Needy'\ntools = ['no-such-tool']\ncommand = ['x']",
        )
        .unwrap();
    (Environments::new(sessions, presets), model)
}

fn tenant(name: &str) -> Tenant {
    Tenant::new(name).unwrap()
}

async fn statuses(watch: &mut Watch, until: Status) -> Vec<Status> {
    let mut seen = Vec::new();
    let all = async {
        while let Some(info) = watch.next().await {
            seen.push(info.status);
            if info.status == until && seen.len() > 2 {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(120), all)
        .await
        .unwrap();
    seen
}

#[tokio::test]
async fn the_agents_own_stream_tells_what_it_is_doing() {
    let lines = [
        r#"{"type":"start"}"#,
        "no JSON, and no status",
        r#"{"type":"tool","tool":{"name":"write"}}"#,
        r#"{"type":"tool","tool":{"name":"ask"}}"#,
        r#"{"type":"end","failed":true}"#,
    ];
    let outcome = MockOutcome::exit(1)
        .stdout(lines.join("\n"))
        .stderr("it broke\n");
    let (environments, _) = over(ModelProvider::builder().on_program("talk", [outcome])).await;
    let acme = tenant("acme");
    let environment = environments
        .create_environment(&acme, EnvironmentRequest::new("talker"))
        .await
        .unwrap();
    assert_eq!(environment.session().status(), Status::Ready);
    let mut watch = environments.sessions().watch(Filter::new());
    let mut run = environments
        .spawn_agent(&acme, environment.id(), "--hello")
        .await
        .unwrap();
    let mut told = Vec::new();
    while let Some(line) = run.next_line().await.unwrap() {
        told.push((line.status, run.session().status()));
    }
    let expected = [
        (Some(Status::Thinking), Status::Thinking),
        (None, Status::Thinking),
        (Some(Status::Working), Status::Working),
        (Some(Status::Waiting), Status::Waiting),
        (Some(Status::Error), Status::Error),
    ];
    assert_eq!(told, expected);
    let exit = run.wait().await.unwrap();
    assert_eq!((exit.status.code(), &*exit.errors), (Some(1), "it broke\n"));
    assert_eq!(environment.session().status(), Status::Error);
    environments
        .destroy_environment(&acme, environment.id())
        .await
        .unwrap();
    let seen = statuses(&mut watch, Status::Gone).await;
    for status in [
        Status::Thinking,
        Status::Waiting,
        Status::Error,
        Status::Gone,
    ] {
        assert!(seen.contains(&status), "{status}: {seen:?}");
    }
}

#[tokio::test]
async fn an_environment_is_its_tenants_and_a_name_is_only_a_name() {
    let (environments, model) = over(ModelProvider::builder()).await;
    let (acme, other) = (tenant("acme"), tenant("other"));
    for (agent, branch) in [
        ("talker; rm -rf /", "main"),
        ("../talker", "main"),
        ("", "main"),
        ("talker", "../../x"),
        ("talker", "--upload-pack=x"),
        ("talker", "a b"),
        ("talker", "x:refs/heads/main"),
    ] {
        let request = EnvironmentRequest::new(agent).branch(branch);
        let error = environments
            .create_environment(&acme, request)
            .await
            .unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::InvalidInput,
            "{agent:?} {branch:?}"
        );
    }
    for revision in ["--all", "no-such", "HEAD; true"] {
        let place = tempfile::tempdir().unwrap();
        let repository = Repository::new(place.path()).revision(revision);
        let request = EnvironmentRequest::new("talker").repository(repository);
        let error = environments
            .create_environment(&acme, request)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{revision}");
    }
    assert_eq!(model.count(Operation::Create), 0);

    let made = environments
        .create_environment(&acme, EnvironmentRequest::new("talker"))
        .await;
    let environment = made.unwrap();
    let id: SessionId = environment.id().parse().unwrap();
    assert_eq!(id.as_str(), id.as_str().to_lowercase());
    assert_eq!(environment.branch().unwrap(), format!("agent/{id}"));
    let found = environments
        .get_environment(&acme, environment.id())
        .await
        .unwrap();
    assert_eq!(found.agent().as_deref(), Some("talker"));
    let error = environments
        .get_environment(&other, environment.id())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    environments
        .destroy_environment(&other, environment.id())
        .await
        .unwrap();
    for id in ["../x", "", &environment.id().to_uppercase(), "plain"] {
        let error = environments.get_environment(&acme, id).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{id:?}");
        assert!(environments.spawn_agent(&acme, id, "x").await.is_err());
        assert!(environments.destroy_environment(&acme, id).await.is_err());
    }
    assert_eq!(environments.list(&acme).len(), 1);
    assert!(environments.list(&other).is_empty());
    environments
        .destroy_environment(&acme, environment.id())
        .await
        .unwrap();
    assert!(
        environments
            .get_environment(&acme, environment.id())
            .await
            .is_err()
    );
    environments
        .destroy_environment(&acme, environment.id())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_key_stays_outside_and_a_tool_that_is_missing_is_named() {
    let (environments, model) = over(ModelProvider::builder()).await;
    let acme = tenant("acme");
    let request = EnvironmentRequest::new("talker").model(ModelAccess::Key("very-secret".into()));
    // The mock has no egress by name, and says so instead of leaving the policy out.
    let refused = environments
        .create_environment(&acme, request.clone())
        .await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Session);
    let open = request
        .clone()
        .spec(SandboxSpec::new().network(Network::Open));
    let error = environments
        .create_environment(&acme, open)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(!format!("{request:?}").contains("very-secret"));

    let accepting = ModelProvider::builder()
        .accept(Capability::EgressByName)
        .accept(Capability::EgressCredentials);
    let (accepting, _) = over(accepting).await;
    let environment = accepting.create_environment(&acme, request).await.unwrap();
    let seen = environment.session().sandbox().sh("env").await.unwrap();
    let seen = seen.stdout.to_string_lossy().into_owned();
    assert!(!seen.contains("very-secret"), "{seen}");
    assert!(seen.contains("TALK_URL=http://model.internal"), "{seen}");

    let error = environments
        .create_environment(&acme, EnvironmentRequest::new("needy"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MissingTool);
    assert!(error.to_string().contains("no-such-tool"), "{error}");
    assert!(environments.sessions().list(&Filter::new()).is_empty());
    let there = model.list(&Labels::new()).await.unwrap();
    assert!(there.is_empty(), "{there:?}");
}
