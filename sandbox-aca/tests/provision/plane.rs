//! Traits of all calls: operations that fail, never end or overlap, and what errors say.

use std::error::Error as _;
use std::time::Duration;

use sandbox_aca::provision::{
    AppSpec, Container, ControlPlane, EnvironmentSpec, PoolSpec, Refusal, SandboxGroupSpec,
};
use sandbox_core::{Error, ErrorKind};
use sandbox_testkit::aca::{Action, Fault};

use super::{IMAGE, config, environment, plane, start};

fn refusal(error: &Error) -> &Refusal {
    let source = error.source().and_then(|source| source.downcast_ref());
    source.expect("a refusal")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_says_the_code_the_request_the_role_and_the_command() {
    let (emulator, plane) = start(|_| {}).await;
    let pool = plane.session_pool("pool").expect("a name");
    let error = pool.ensure(&PoolSpec::python().sessions(601)).await;
    let error = error.expect_err("too many");
    let said = refusal(&error);
    assert_eq!(
        (error.kind(), said.status),
        (ErrorKind::InvalidInput, Some(400))
    );
    assert_eq!(said.code, "InvalidParameterValueInContainerTemplate");
    assert!(
        said.request_id.is_some() && !said.message.is_empty(),
        "{said:?}"
    );
    let text = error.to_string();
    assert!(
        text.contains("az containerapp sessionpool create --name pool"),
        "{text}"
    );
    emulator.inject(Fault::new("PUT /", Action::Status(403, None)));
    let error = pool.ensure(&PoolSpec::python()).await.expect_err("no role");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("Container Apps SessionPools Contributor"),
        "{text}"
    );
    assert!(text.contains("az role assignment create"), "{text}");
    for bad in ["", "a/b", "..", "a?b", "Äpfel"] {
        assert!(plane.session_pool(bad).is_err(), "{bad:?}");
        assert!(
            plane.app(bad).is_err() && plane.job(bad).is_err(),
            "{bad:?}"
        );
    }
    assert!(plane.app("two--hyphens").is_err() && plane.app("Upper").is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_fails_says_why_and_one_that_never_ends_what_was_said_last() {
    let (emulator, ours) = start(|options| {
        options.arm_operation = Duration::from_millis(100);
        options.arm_fails = true;
    })
    .await;
    let group = ours.sandbox_group("group").expect("a name");
    let error = group
        .ensure(&SandboxGroupSpec::new())
        .await
        .expect_err("it fails");
    assert_eq!(
        refusal(&error).code,
        "ContainerAppOperationError",
        "{error:?}"
    );
    emulator.change(|options| {
        options.arm_fails = false;
        options.arm_operation = Duration::from_secs(3600);
    });
    let config = config(&emulator, &emulator.endpoint()).timeout(Duration::from_secs(3));
    let hasty = ControlPlane::new(config).expect("a control plane");
    let slow = hasty.sandbox_group("slow").expect("a name");
    let error = slow
        .ensure(&SandboxGroupSpec::new())
        .await
        .expect_err("too slow");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.to_string().contains("InProgress"), "{error}");
    let environment = hasty.environment("slow").expect("a name");
    let error = environment
        .ensure(&EnvironmentSpec::new())
        .await
        .expect_err("too slow");
    assert!(error.to_string().contains("InProgress"), "{error}");
    // It goes on, and asking again takes it up without writing again.
    let written = emulator.requests("PUT /");
    emulator.advance(Duration::from_secs(3600));
    emulator.change(|options| options.arm_operation = Duration::ZERO);
    let again = plane(&emulator);
    let slow = again.sandbox_group("slow").expect("a name");
    slow.ensure(&SandboxGroupSpec::new())
        .await
        .expect("a group");
    assert_eq!(emulator.requests("PUT /"), written);
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_of_one_app_go_one_after_the_other() {
    for queues in [false, true] {
        let (emulator, one) = start(|options| {
            options.arm_operation = Duration::from_millis(200);
            options.arm_queues = queues;
        })
        .await;
        // Another process: it shares no lock.
        let two = plane(&emulator);
        let spec = |value: &str| {
            let container = Container::new(IMAGE).env("A", value);
            AppSpec::new(environment(), container)
        };
        let app = |plane: &ControlPlane| plane.app("app").expect("a name");
        let (first, second) = (app(&one), app(&two));
        first.ensure(&spec("0")).await.expect("an app");
        let (one_spec, two_spec) = (spec("1"), spec("2"));
        let (a, b) = tokio::join!(first.ensure(&one_spec), second.ensure(&two_spec));
        a.expect("an app");
        b.expect("an app");
        assert_eq!(first.revisions().await.expect("revisions").len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_request_is_sent_again_when_the_service_says() {
    let (emulator, plane) = start(|_| {}).await;
    let group = plane.sandbox_group("group").expect("a name");
    for method in ["GET /", "PUT /"] {
        let busy = Action::Status(429, Some("1".into()));
        emulator.inject(Fault::new(method, busy));
    }
    group
        .ensure(&SandboxGroupSpec::new())
        .await
        .expect("a group");
    let puts = emulator.requests("PUT /");
    assert_eq!(puts, 2, "the one that was refused, and one");
}
