//! Ports and egress policies.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::Service;

#[tokio::test(flavor = "multi_thread")]
async fn a_port_has_its_url_after_a_while() {
    let service = Service::with(|options| options.port_url = Duration::from_secs(10)).await;
    let id = service.create().await;
    let added = service
        .post(&id, "ports/add", json!({"port": 8080}))
        .await
        .expect(200);
    assert_eq!(added["ports"][0]["port"], 8080);
    assert!(added["ports"][0].get("url").is_none(), "{added}");
    service.advance(10);
    let shown = service.get(&format!("sandboxes/{id}")).await.expect(200);
    let url = shown["ports"][0]["url"].as_str().expect("a URL");
    let endpoint = service.emulator.endpoint();
    assert_eq!(url, format!("{endpoint}/.ports/{id}/8080/"));
    service
        .post(&id, "ports/add", json!({"port": 8080}))
        .await
        .expect(409);
    let left = service
        .post(&id, "ports/remove", json!({"port": 8080}))
        .await
        .expect(200);
    assert_eq!(left["ports"], json!([]));
    service
        .post(&id, "ports/remove", json!({"port": 8080}))
        .await
        .expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_there_from_the_creation_if_it_says_so() {
    let service = Service::start().await;
    let body = json!({"sourcesRef": {"diskImage": {"name": "ubuntu"}}, "ports": [{"port": 80}]});
    let made = service.call("PUT", "sandboxes", body).await.expect(200);
    assert_eq!(made["ports"][0]["port"], 80);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_form_that_replaces_all_ports_wants_urls() {
    let service = Service::start().await;
    let id = service.create().await;
    let path = format!("sandboxes/{id}/ports");
    let bare = json!({"ports": [{"port": 80}]});
    service.call("PUT", &path, bare).await.expect(400);
    let whole = json!({"ports": [{"port": 80, "url": "https://x.invalid"}]});
    service.call("PUT", &path, whole).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn access_rules_are_checked() {
    let service = Service::start().await;
    let id = service.create().await;
    let rule = |name: &str, priority: u32, cidr: &str| json!({"name": name, "action": "Allow", "priority": priority, "sourceCidrs": [cidr]});
    let access = |rules: Vec<Value>| json!({"defaultAction": "Deny", "rules": rules});
    let many = |n: u32| {
        (0..n)
            .map(|i| rule(&format!("r{i}"), i, "10.0.0.0/8"))
            .collect()
    };
    let good = [
        access(many(10)),
        access(vec![rule("a", 0, "0.0.0.0/0"), rule("b", 1000, "fd00::/8")]),
    ];
    let bad = [
        json!({"rules": []}),
        access(many(11)),
        access(vec![rule("a", 1, "10.0.0.5/8")]),
        access(vec![rule("a", 1001, "10.0.0.0/8")]),
        access(vec![rule("-a", 1, "10.0.0.0/8")]),
        access(vec![rule("a", 1, "10.0.0.0/8"), rule("A", 2, "10.0.0.0/8")]),
        access(vec![rule("a", 1, "10.0.0.0/8"), rule("b", 1, "10.0.0.0/8")]),
        access(vec![
            json!({"name": "a", "action": "Allow", "priority": 1, "sourceCidrs": []}),
        ]),
    ];
    for (port, access) in (1..).zip(good) {
        let body = json!({"port": port, "ipAccessControl": access});
        service.post(&id, "ports/add", body).await.expect(200);
    }
    for access in bad {
        let body = json!({"port": 99, "ipAccessControl": access});
        service.post(&id, "ports/add", body).await.expect(400);
    }
    let both = json!({"port": 99, "auth": {"anonymous": true, "entraId": {"enabled": true}}});
    service.post(&id, "ports/add", both).await.expect(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_egress_policy_is_checked_and_kept() {
    let service = Service::start().await;
    let id = service.create().await;
    let policy = json!({
        "defaultAction": "Deny", "trafficInspection": "Full",
        "hostRules": [{"pattern": "*.pypi.org", "action": "Allow"}],
    });
    service
        .post(&id, "egresspolicy", policy.clone())
        .await
        .expect(200);
    let shown = service.get(&format!("sandboxes/{id}")).await.expect(200);
    assert_eq!(shown["egressPolicy"], policy);
    let partial = json!({"defaultAction": "Deny", "trafficInspection": "Partial"});
    service.post(&id, "egresspolicy", partial).await.expect(400);
    let decisions = service
        .get(&format!("sandboxes/{id}/egress-decisions"))
        .await
        .expect(200);
    assert_eq!(decisions["networkEgress"]["denied"], json!([]));
}
