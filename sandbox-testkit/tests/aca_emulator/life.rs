//! The state machine of a sandbox.

use std::time::Duration;

use sandbox_testkit::aca::{AutoDeleteFrom, Restore};
use serde_json::{Value, json};

use crate::client::Service;

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_running_sandbox_is_a_409_and_resumes_nothing() {
    let service = Service::start().await;
    let id = service.create().await;
    service.post(&id, "stop", json!({})).await.expect(200);
    let title = "GlobalSandboxNotRunning";
    service.exec(&id, "true").await.problem(409, title);
    service
        .get(&format!("sandboxes/{id}/files?path=/etc/passwd"))
        .await
        .problem(409, title);
    let policy = json!({"defaultAction": "Deny"});
    service
        .post(&id, "egresspolicy", policy)
        .await
        .problem(409, title);
    service
        .post(&id, "stop", json!({}))
        .await
        .problem(409, title);
    assert_eq!(service.state(&id).await, "Stopped");
    let shown = service.get(&format!("sandboxes/{id}")).await.expect(200);
    assert_eq!(shown["stateDetails"]["stoppedReason"], "UserStopped");
    service.post(&id, "resume", Value::Null).await.expect(200);
    service.exec(&id, "true").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_snapshot_of_a_stop_is_not_listed_and_ends_with_the_stop() {
    let service = Service::start().await;
    let id = service.create().await;
    let stopped = service.post(&id, "stop", Value::Null).await.expect(200);
    let snapshot = format!(
        "snapshots/{}",
        stopped["id"].as_str().expect("an identifier")
    );
    assert_eq!(service.get("snapshots").await.expect(200), json!([]));
    service.get(&snapshot).await.expect(200);
    service.post(&id, "resume", json!({})).await.expect(200);
    service.get(&snapshot).await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_state_take_the_time_that_is_set() {
    let minute = Duration::from_secs(60);
    let service = Service::with(|options| {
        options.creating = minute;
        options.stopping = minute;
        options.resuming = minute;
        options.deleting = minute;
    })
    .await;
    let id = service.create().await;
    assert_eq!(service.state(&id).await, "Creating");
    service.exec(&id, "true").await.expect(409);
    service.advance(60);
    service.exec(&id, "true").await.expect(200);
    for (operation, through, to) in [
        ("stop", "Stopping", "Stopped"),
        ("resume", "Resuming", "Running"),
    ] {
        service.post(&id, operation, json!({})).await.expect(200);
        assert_eq!(service.state(&id).await, through);
        service.advance(60);
        assert_eq!(service.state(&id).await, to);
    }
    let path = format!("sandboxes/{id}");
    service.call("DELETE", &path, Value::Null).await.expect(200);
    assert_eq!(service.state(&id).await, "Deleting");
    service.call("DELETE", &path, Value::Null).await.expect(204);
    service.advance(60);
    service.get(&path).await.problem(404, "SandboxNotFound");
    service.call("DELETE", &path, Value::Null).await.expect(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_sandbox_is_suspended_and_use_keeps_it_awake() {
    let service = Service::start().await;
    let id = service.create().await;
    service.advance(200);
    service.exec(&id, "true").await.expect(200);
    service.advance(200);
    assert_eq!(service.state(&id).await, "Running");
    // Looking at it does not count as use.
    service.advance(100);
    assert_eq!(service.state(&id).await, "Stopped");
    let shown = service.get(&format!("sandboxes/{id}")).await.expect(200);
    assert_eq!(shown["stateDetails"]["stoppedReason"], "Idle");
    service.exec(&id, "true").await.expect(409);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lifecycle_is_replaced_whole_and_deletes_when_it_says() {
    let service = Service::with(|options| options.auto_delete_from = AutoDeleteFrom::Use).await;
    let id = service.create().await;
    let policy = json!({"autoDeletePolicy": {"enabled": true, "deleteIntervalInSeconds": 900}});
    service
        .post(&id, "lifecycle", policy.clone())
        .await
        .expect(200);
    let path = format!("sandboxes/{id}");
    assert_eq!(service.get(&path).await.expect(200)["lifecycle"], policy);
    service.advance(600);
    assert_eq!(service.state(&id).await, "Running");
    service.advance(300);
    service.get(&path).await.expect(404);
    assert_eq!(service.emulator.counts(), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_counts_from_what_the_trigger_or_the_switch_says() {
    use AutoDeleteFrom::{Creation, Suspend, Use};
    for (from, trigger, suspended, running) in [
        // What is gone after the time of the policy: one that was suspended at once, one that runs
        // and was used meanwhile.
        (Suspend, None, true, false),
        (Creation, None, true, true),
        (Use, None, true, false),
        (Suspend, Some("AfterCreation"), true, true),
        (Creation, Some("AfterSuspend"), true, false),
    ] {
        let service = Service::with(|options| options.auto_delete_from = from).await;
        let mut delete = json!({"enabled": true, "deleteIntervalInSeconds": 900});
        if let Some(trigger) = trigger {
            delete["trigger"] = json!(trigger);
        }
        let policy = json!({"autoDeletePolicy": delete});
        let mut gone = Vec::new();
        for stopped in [true, false] {
            let id = service.create().await;
            service
                .post(&id, "lifecycle", policy.clone())
                .await
                .expect(200);
            if stopped {
                service.post(&id, "stop", json!({})).await.expect(200);
            }
            service.advance(600);
            if !stopped {
                service.exec(&id, "true").await.expect(200);
            }
            service.advance(600);
            let shown = service.get(&format!("sandboxes/{id}")).await;
            gone.push(shown.status == 404);
        }
        assert_eq!(gone, [suspended, running], "{from:?}, {trigger:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_policy_at_creation_may_be_ignored() {
    let body = json!({
        "sourcesRef": {"diskImage": {"name": "ubuntu"}},
        "lifecycle": {"autoDeletePolicy": {"enabled": true, "deleteIntervalInSeconds": 60}},
    });
    for (ignored, after) in [(false, 404), (true, 200)] {
        let service = Service::with(|options| {
            options.ignore_auto_delete = ignored;
            options.auto_delete_from = AutoDeleteFrom::Use;
        })
        .await;
        let made = service
            .call("PUT", "sandboxes", body.clone())
            .await
            .expect(200);
        service.advance(60);
        let path = format!("sandboxes/{}", made["id"].as_str().expect("an identifier"));
        service.get(&path).await.expect(after);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_has_the_files_and_the_tier_but_not_the_lifecycle() {
    let service = Service::start().await;
    let body = json!({
        "sourcesRef": {"diskImage": {"name": "ubuntu"}},
        "resources": {"cpu": "2000m", "memory": "4Gi"},
        "environment": {"COLOUR": "green"},
        "lifecycle": {"autoSuspendPolicy": {"enabled": false}},
        "labels": {"a": "b"},
    });
    let made = service.call("PUT", "sandboxes", body).await.expect(200);
    assert_eq!(made["resources"]["memory"], "4096Mi");
    assert!(made.get("environment").is_none(), "{made}");
    let id = made["id"].as_str().expect("an identifier");
    service.exec(id, "echo kept > /tmp/kept").await.expect(200);
    let taken = service
        .post(id, "snapshot", json!({"labels": {"s": "1"}}))
        .await
        .expect(200);
    service
        .call("DELETE", &format!("sandboxes/{id}"), Value::Null)
        .await
        .expect(200);
    let source = json!({"sourcesRef": {"snapshot": {"id": taken["id"]}}});
    let restored = service
        .call("PUT", "sandboxes", source.clone())
        .await
        .expect(200);
    assert_eq!(restored["resources"]["memory"], "4096Mi");
    assert_eq!(restored["lifecycle"]["autoSuspendPolicy"]["interval"], 300);
    let id = restored["id"].as_str().expect("an identifier");
    let output = service
        .exec(id, "cat /tmp/kept; echo $COLOUR")
        .await
        .expect(200);
    assert_eq!(output["stdout"], "kept\ngreen\n");
    service
        .emulator
        .change(|options| options.restore = Restore::Refuses);
    let mut more = source.clone();
    more["labels"] = json!({"a": "b"});
    service.call("PUT", "sandboxes", more).await.expect(400);
    service.call("PUT", "sandboxes", source).await.expect(200);
    let snapshot = format!("snapshots/{}", taken["id"].as_str().expect("an identifier"));
    service
        .call("DELETE", &snapshot, Value::Null)
        .await
        .expect(202);
    service
        .call("DELETE", &snapshot, Value::Null)
        .await
        .expect(404);
}
