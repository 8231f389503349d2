//! An application that tests itself with the mock: a small agent that repairs a project.
//!
//! The agent is twenty lines; the tests show each part of the mock: outcomes in sequence, steps,
//! faults, expectations, the log of calls, and production specs.
#![allow(clippy::expect_used)]

use std::time::Duration;

use sandbox_core::{
    Command, EgressPolicy, EgressRule, ErrorKind, Execution, GuestUser, Mount, Network, Operation,
    Provider, Resources, Result, Sandbox, SandboxExt as _, SandboxSpec, Source,
};
use sandbox_testkit::model::{Fault, MockOutcome, ModelProvider};

/// The application: runs the tests of a project, applies a patch while they fail, and gives up
/// after three patches.
async fn repair(provider: &dyn Provider) -> Result<Option<u32>> {
    let spec = SandboxSpec::new()
        .source(Source::Image("docker.io/library/rust:1".into()))
        .network(Network::Off)
        .resources(Resources::new().memory(1 << 30).pids(256));
    let sandbox = provider.create(spec).await?;
    let repaired = patches(&*sandbox).await;
    // Whatever came of it.
    sandbox.close().await?;
    repaired
}

async fn patches(sandbox: &dyn Sandbox) -> Result<Option<u32>> {
    for patch in 0..=3 {
        let tests = Command::new("cargo")
            .arg("test")
            .timeout(Duration::from_millis(300));
        match sandbox.exec(tests).await {
            Ok(output) if output.success() => return Ok(Some(patch)),
            // It ran and it hangs: a patch may help. What never ran is no matter of patches.
            Err(error) if error.kind() != ErrorKind::Timeout => return Err(error),
            _ => sandbox.write("patch", patch.to_string()).await?,
        }
    }
    Ok(None)
}

fn failing() -> MockOutcome {
    MockOutcome::exit(101)
        .stdout("running 1 test\n")
        .pause(Duration::from_millis(5))
        .write("target/report.txt", "1 failed")
        .stderr("error: test failed\n")
}

#[tokio::test]
async fn the_second_patch_repairs_it() {
    let provider = ModelProvider::builder()
        .accept_production_specs()
        .on_program("cargo", [failing(), failing(), MockOutcome::exit(0)])
        .expect_calls(Operation::WriteFiles, 2)
        .expect_calls(Operation::Close, 1)
        .build();
    assert_eq!(repair(&provider).await.expect("no error"), Some(2));
    provider.verify().expect("every outcome was used");
    let calls = provider.calls();
    let commands: Vec<_> = calls
        .iter()
        .filter_map(|call| call.command.as_ref())
        .collect();
    assert_eq!(commands[0].argv(), [b"cargo".to_vec(), b"test".to_vec()]);
}

#[tokio::test]
async fn it_gives_up_and_closes() {
    let provider = ModelProvider::builder()
        .accept_production_specs()
        .on(|command| (command.program() == b"cargo").then(failing))
        .expect_calls(Operation::Exec, 4)
        .expect_calls(Operation::Close, 1)
        .build();
    assert_eq!(repair(&provider).await.expect("no error"), None);
    provider.verify().expect("four attempts, then closed");
}

#[tokio::test]
async fn tests_that_hang_are_worth_a_patch() {
    let provider = ModelProvider::builder()
        .accept_production_specs()
        .on_program(
            "cargo",
            [
                MockOutcome::hang().stdout("running 1 test\n"),
                MockOutcome::exit(0),
            ],
        )
        .build();
    assert_eq!(repair(&provider).await.expect("no error"), Some(1));
    provider.verify().expect("both were used");
}

#[tokio::test]
async fn what_never_ran_is_told_and_the_sandbox_is_closed() {
    let provider = ModelProvider::builder()
        .accept_production_specs()
        .fault_on(Operation::Exec, [Fault::Refuse(ErrorKind::Unavailable)])
        .expect_calls(Operation::Close, 1)
        .build();
    let error = repair(&provider).await.expect_err("unavailable");
    assert_eq!(error.execution(), Some(Execution::NotStarted));
    provider.verify().expect("closed all the same");
}

#[tokio::test]
async fn a_lost_answer_leaves_the_effect() {
    let provider = ModelProvider::builder()
        .fault_on(
            Operation::WriteFiles,
            [Fault::LoseAnswer(ErrorKind::Unavailable)],
        )
        .build();
    let sandbox = provider.create(SandboxSpec::new()).await.expect("created");
    let error = sandbox.write("f", "x").await.expect_err("lost");
    assert!(error.is_retryable());
    assert_eq!(sandbox.read_to_string("f").await.expect("it is there"), "x");
}

#[tokio::test]
async fn the_mock_says_what_was_not_met() {
    let provider = ModelProvider::builder()
        .on_program("make", [MockOutcome::exit(0), MockOutcome::exit(0)])
        .expect_calls(Operation::Fork, 1)
        .build();
    let sandbox = provider.create(SandboxSpec::new()).await.expect("created");
    sandbox.exec(Command::new("make")).await.expect("the first");
    let unmet = provider.verify().expect_err("one is left, and no fork");
    assert!(unmet.contains("1 outcomes of \"make\""), "{unmet}");
    assert!(unmet.contains("fork was called 0 times"), "{unmet}");
    sandbox
        .exec(Command::new("make"))
        .await
        .expect("the second");
    let beyond = sandbox.exec(Command::new("make")).await;
    let beyond = beyond.expect_err("no outcome is left");
    assert_eq!(beyond.execution(), Some(Execution::NotStarted));
}

#[tokio::test]
async fn specs_that_the_model_can_not_honour_are_refused_unless_accepted() {
    let limits = SandboxSpec::new().resources(Resources::new().memory(1 << 30));
    let strict = ModelProvider::new().create(limits.clone()).await;
    let refused = strict.expect_err("the model enforces no limit");
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    let lenient = ModelProvider::builder()
        .accept(sandbox_core::Capability::MemoryLimit)
        .build();
    lenient.create(limits).await.expect("accepted");
}

#[tokio::test]
async fn every_part_of_a_production_spec_is_accepted() {
    let host = tempfile::tempdir().expect("a directory");
    let rule = EgressRule::exact("api.test")
        .port(8443)
        .header("authorization", "Bearer secret");
    let policy = EgressPolicy::new().rule(rule);
    let base = || SandboxSpec::new().network(Network::Off);
    let limits = Resources::new()
        .memory(1 << 30)
        .cpus(1.5)
        .pids(64)
        .disk(1 << 30);
    let image = || Source::Image("docker.io/library/rust:1".into());
    let specs = [
        ("an image", base().source(image())),
        (
            "a directory",
            base().source(Source::RootDir(host.path().into())),
        ),
        ("limits", base().resources(limits.clone())),
        ("root", base().user(GuestUser::Root)),
        ("an open network", base().network(Network::Open)),
        (
            "a network by name",
            base().network(Network::Allow(policy.clone())),
        ),
        (
            "a mount",
            base().mount(Mount::read_only(host.path(), "/data")),
        ),
        ("one that lasts", base().lasting(true)),
        ("labels", base().label("tenant", "a")),
        ("a time to live", base().ttl(Duration::from_secs(60))),
        (
            "all at once",
            base()
                .source(image())
                .resources(limits)
                .user(GuestUser::Root)
                .network(Network::Allow(policy))
                .mount(Mount::read_only(host.path(), "/data"))
                .lasting(true)
                .label("tenant", "a")
                .ttl(Duration::from_secs(60)),
        ),
    ];
    let provider = ModelProvider::builder().accept_production_specs().build();
    for (what, spec) in specs {
        let egress = matches!(spec.network, Network::Allow(_));
        let sandbox = provider.create(spec).await.expect(what);
        assert_eq!(
            sandbox.sh("echo hi").await.expect(what).stdout.bytes,
            "hi\n"
        );
        if egress {
            let seen = sandbox.egress_decisions(0).await.expect(what);
            assert!(seen.decisions.is_empty(), "{what}");
            let only = EgressPolicy::new().rule(EgressRule::exact("api.test"));
            sandbox.restrict_egress(only).await.expect(what);
            let invalid = EgressPolicy::new().rule(EgressRule::exact("*.test"));
            let refused = sandbox.restrict_egress(invalid).await.expect_err(what);
            assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{what}");
        }
        sandbox.close().await.expect(what);
    }
    // What no part of a spec asks for stays refused until it is accepted by its name.
    let sandbox = provider.create(base()).await.expect("created");
    let refused = sandbox.connect_port(80).await.expect_err("no ports");
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    let provider = ModelProvider::builder()
        .accept(sandbox_core::Capability::Ports)
        .build();
    let sandbox = provider.create(base()).await.expect("created");
    let refused = sandbox.connect_port(80).await.expect_err("nothing listens");
    assert_eq!(refused.kind(), ErrorKind::NotListening);
}
