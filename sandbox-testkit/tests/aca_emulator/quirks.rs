//! Quirks of the service, and faults between it and a client.

use std::time::Duration;

use sandbox_testkit::aca::{Action, Fault, SWITCHES};
use serde_json::{Value, json};

use crate::client::{GROUP, Service, VERSION};

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_bare_or_in_pages_whose_links_lead_back_here() {
    let service = Service::start().await;
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(service.create().await);
    }
    let bare = service.get("sandboxes").await.expect(200);
    assert_eq!(bare.as_array().map(Vec::len), Some(3));
    service
        .admin("POST", "switches", json!({"envelope": true, "page": 2}))
        .await
        .expect(200);
    let first = service.get("sandboxes").await.expect(200);
    let link = first["nextLink"].as_str().expect("a link");
    assert!(link.starts_with(&service.emulator.endpoint()), "{link}");
    let token = service.emulator.token();
    let second = service
        .send(Some(&token), "GET", link, None)
        .await
        .expect(200);
    assert!(second.get("nextLink").is_none(), "{second}");
    let pages = [&first, &second].map(|page| page["value"].as_array().cloned());
    let seen: Vec<Value> = pages.into_iter().flatten().flatten().collect();
    let seen: Vec<&str> = seen.iter().filter_map(|one| one["id"].as_str()).collect();
    assert_eq!(seen, made);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_filtered_by_every_label() {
    let service = Service::start().await;
    for labels in [json!({"a": "1", "b": "1"}), json!({"a": "1", "b": "2"})] {
        let body = json!({"sourcesRef": {"diskImage": {"name": "ubuntu"}}, "labels": labels});
        service.call("PUT", "sandboxes", body).await.expect(200);
    }
    for (labels, count) in [("a=1", 2), ("a=1,b=2", 1), ("b=3", 0)] {
        let found = service
            .get(&format!("sandboxes?labels={labels}"))
            .await
            .expect(200);
        assert_eq!(found.as_array().map(Vec::len), Some(count), "{labels}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_sandbox_is_hidden_for_a_while() {
    let service = Service::with(|options| options.hidden = Duration::from_secs(200)).await;
    let id = service.create().await;
    service.get(&format!("sandboxes/{id}")).await.expect(404);
    assert_eq!(service.get("sandboxes").await.expect(200), json!([]));
    service.advance(200);
    assert_eq!(service.state(&id).await, "Running");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_without_a_body_hangs_only_where_it_is_asked_for() {
    let service = Service::start().await;
    let id = service.create().await;
    service
        .emulator
        .change(|options| options.bodyless_stop_hangs = true);
    let hung = service.post(&id, "stop", Value::Null);
    let waited = tokio::time::timeout(Duration::from_millis(300), hung).await;
    assert!(waited.is_err(), "it was answered");
    assert_eq!(service.state(&id).await, "Running");
    service.post(&id, "stop", json!({})).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_in_a_missing_directory_is_refused_as_the_clients_mistake() {
    let service = Service::start().await;
    let id = service.create().await;
    for dir in ["/no/such", "/etc/hostname"] {
        let body = json!({"command": "touch /tmp/ran", "workingDirectory": dir});
        let refused = service.post(&id, "executeShellCommand", body).await;
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(refused.text.contains("workingDirectory"), "{refused:?}");
    }
    let ran = service.exec(&id, "test -e /tmp/ran").await.expect(200);
    assert_eq!(ran["exitCode"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_without_an_exit_code() {
    let service = Service::with(|options| options.no_exit_code = true).await;
    let id = service.create().await;
    let output = service.exec(&id, "exit 3").await.expect(200);
    assert!(output.get("exitCode").is_none(), "{output}");
    service
        .emulator
        .change(|options| options.no_exit_code = false);
    assert_eq!(service.exec(&id, "exit 3").await.expect(200)["exitCode"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_hit_the_requests_they_are_for_and_only_once() {
    let service = Service::start().await;
    let id = service.create().await;
    let fault = json!({"on": "/executeShellCommand", "action": "status", "status": 429,
        "retryAfter": "7"});
    service.admin("POST", "faults", fault).await.expect(204);
    service.get("sandboxes").await.expect(200);
    let refused = service.exec(&id, "touch /tmp/ran").await;
    refused.expect(429);
    assert_eq!(refused.header("retry-after"), Some("7"));
    let looked = service.exec(&id, "ls /tmp/ran").await.expect(200);
    assert_ne!(looked["exitCode"], 0, "it was carried out");
    service
        .emulator
        .inject(Fault::new("/executeShellCommand", Action::StatusAfter(504)));
    service.exec(&id, "touch /tmp/ran").await.expect(504);
    assert_eq!(
        service.exec(&id, "ls /tmp/ran").await.expect(200)["exitCode"],
        0
    );
    let executions = service
        .admin("GET", "executions?contains=touch", Value::Null)
        .await;
    assert_eq!(executions.expect(200)["count"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_whose_answer_breaks_off_has_been_carried_out() {
    let service = Service::start().await;
    service
        .emulator
        .inject(Fault::new("PUT ", Action::DropAfter));
    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client");
    let url = format!(
        "{}{GROUP}/sandboxes?api-version={VERSION}",
        service.emulator.endpoint()
    );
    let body = json!({"sourcesRef": {"diskImage": {"name": "ubuntu"}}}).to_string();
    let asked = client
        .put(url)
        .bearer_auth(service.emulator.token())
        .body(body);
    let answer = asked.send().await;
    let whole = match answer {
        Ok(answer) => answer.bytes().await.is_ok(),
        Err(_) => false,
    };
    assert!(!whole, "the answer came whole");
    assert_eq!(service.emulator.counts().0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn switches_are_set_all_or_none_and_tell_what_they_are_set_to() {
    let service = Service::start().await;
    let before = service
        .admin("GET", "switches", Value::Null)
        .await
        .expect(200);
    assert_eq!(
        before.as_object().map(serde_json::Map::len),
        Some(SWITCHES.len())
    );
    for wrong in [
        json!({"envelope": true, "no-such": 1}),
        json!({"envelope": true, "gateway": "soon"}),
        json!({"envelope": true, "retry-after": "later"}),
        json!([1]),
    ] {
        service.admin("POST", "switches", wrong).await.expect(400);
    }
    assert_eq!(
        service
            .admin("GET", "switches", Value::Null)
            .await
            .expect(200),
        before
    );
    // What it says can be given back to it.
    service
        .admin("POST", "switches", before.clone())
        .await
        .expect(200);
    service
        .admin("POST", "switches", json!({"envelope": true}))
        .await
        .expect(200);
    let after = service
        .admin("GET", "switches", Value::Null)
        .await
        .expect(200);
    assert_eq!(after["envelope"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_administration_shows_and_destroys() {
    let service = Service::start().await;
    let id = service.create().await;
    let shown = service.admin("GET", "", Value::Null).await.expect(200);
    assert_eq!(shown["sandboxes"], 1);
    let turned = service
        .admin("POST", "clock", json!({"advanceSeconds": 86_400}))
        .await;
    assert!(turned.expect(200)["now"].as_str() > shown["now"].as_str());
    service
        .admin("POST", "clock", json!({"advanceSeconds": -1}))
        .await
        .expect(400);
    let path = format!("sandboxes/{id}");
    service
        .admin("DELETE", &path, Value::Null)
        .await
        .expect(204);
    service
        .admin("DELETE", &path, Value::Null)
        .await
        .expect(404);
    assert_eq!(service.emulator.counts().0, 0);
}
