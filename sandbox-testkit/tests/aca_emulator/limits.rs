//! Limits of the service, and how it says that one is reached.

use std::time::Duration;

use serde_json::json;

use crate::client::Service;

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_are_a_429_in_every_form_and_pass_with_the_minute() {
    let service = Service::with(|options| options.rate = Some(2)).await;
    for _ in 0..2 {
        service.get("sandboxes").await.expect(200);
    }
    let refused = service.get("sandboxes").await;
    refused.problem(429, "Rate limit exceeded");
    let wait = refused.json()["retryAfterSeconds"].as_u64();
    assert!(
        wait.is_some_and(|wait| (1..=61).contains(&wait)),
        "{refused:?}"
    );
    assert_eq!(refused.header("retry-after"), None);
    type Fits = fn(&str) -> bool;
    let forms: [(&str, Fits); 4] = [
        ("seconds", |after| {
            after.parse::<u64>().is_ok_and(|after| after <= 61)
        }),
        ("huge", |after| after == "86400"),
        ("date", |after| after.ends_with(" GMT")),
        ("past", |after| after.ends_with(" GMT")),
    ];
    for (form, fits) in forms {
        service
            .admin("POST", "switches", json!({"retry-after": form}))
            .await
            .expect(200);
        let refused = service.get("sandboxes").await;
        refused.expect(429);
        assert!(
            refused.header("retry-after").is_some_and(fits),
            "{form}: {refused:?}"
        );
        assert!(
            refused.json().get("retryAfterSeconds").is_none(),
            "{refused:?}"
        );
    }
    service
        .admin("POST", "switches", json!({"retry-after": "millis"}))
        .await
        .expect(200);
    let refused = service.get("sandboxes").await;
    let millis = refused.header("x-ms-retry-after-ms");
    let millis = millis.and_then(|millis| millis.parse::<u64>().ok());
    assert!(millis.is_some_and(|millis| millis <= 61_000), "{refused:?}");
    service
        .admin("POST", "switches", json!({"retry-after": "absent"}))
        .await
        .expect(200);
    assert_eq!(service.get("sandboxes").await.header("retry-after"), None);
    service.advance(60);
    service.get("sandboxes").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_group_takes_no_more() {
    let service = Service::with(|options| options.capacity = Some(1)).await;
    let id = service.create().await;
    let body = json!({"sourcesRef": {"diskImage": {"name": "ubuntu"}}});
    let refused = service.call("PUT", "sandboxes", body.clone()).await;
    refused.problem(429, "SandboxQuotaExceeded");
    service
        .call("DELETE", &format!("sandboxes/{id}"), json!({}))
        .await
        .expect(200);
    service.call("PUT", "sandboxes", body).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_gives_up_and_the_command_goes_on() {
    let service = Service::start().await;
    let id = service.create_awake().await;
    let waits = "until [ -e /tmp/go ]; do sleep 0.1; done; touch /tmp/done";
    let answer = service.hasten(service.exec(&id, waits)).await;
    answer.problem(504, "GatewayTimeout");
    service.exec(&id, "touch /tmp/go").await.expect(200);
    let seen = "until [ -e /tmp/done ]; do sleep 0.1; done";
    assert_eq!(service.exec(&id, seen).await.expect(200)["exitCode"], 0);
    assert_eq!(service.emulator.executions("touch /tmp/done"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_waits_for_whoever_holds_its_output() {
    let service = Service::start().await;
    let id = service.create().await;
    let held = "echo early; (sleep 1; echo late) &";
    let output = service.exec(&id, held).await.expect(200);
    assert_eq!(output["stdout"], "early\nlate\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_and_bodies_are_checked() {
    let service = Service::start().await;
    let source = json!({"diskImage": {"name": "ubuntu"}});
    let long = "x".repeat(64);
    for body in [
        json!({}),
        json!({"sourcesRef": source, "labels": {"a": long}}),
        json!({"sourcesRef": source, "entrypoint": "sleep 1"}),
        json!({"sourcesRef": source, "egressPolicy":
            {"defaultAction": "Deny", "trafficInspection": "Partial"}}),
    ] {
        let refused = service.call("PUT", "sandboxes", body).await;
        refused.problem(400, "One or more validation errors occurred.");
    }
    let unknown = json!({"sourcesRef": {"diskImage": {"name": "no-such"}}});
    service.call("PUT", "sandboxes", unknown).await.expect(404);
    assert_eq!(service.emulator.counts().0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_snapshot_is_answered_when_it_is_taken() {
    let service = Service::with(|options| options.snapshot = Duration::from_secs(232)).await;
    let id = service.create_awake().await;
    let answer = service
        .hasten(service.post(&id, "snapshot", json!({})))
        .await;
    answer.expect(200);
    assert_eq!(service.emulator.counts().1, 1);
}
