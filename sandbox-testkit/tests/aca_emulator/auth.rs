//! Who may pass.

use serde_json::{Value, json};

use crate::client::{GROUP, Service, VERSION};

const AUDIENCE: &str = "https://dynamicsessions.io";

#[tokio::test(flavor = "multi_thread")]
async fn without_a_good_token_nothing_is_answered() {
    let service = Service::start().await;
    let path = format!("{GROUP}/sandboxes?api-version={VERSION}");
    let wrong = service.emulator.token_for("https://vault.azure.net", 60);
    let arm = service.emulator.arm_token();
    let forged = format!("{}x", service.emulator.token());
    let tokens = [None, Some("x"), Some(&*wrong), Some(&*arm), Some(&*forged)];
    for token in tokens {
        service.send(token, "GET", &path, None).await.expect(401);
    }
    let other = service
        .emulator
        .token_for("https://management.azuredevcompute.io/", 60);
    service
        .send(Some(&other), "GET", &path, None)
        .await
        .expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_expires_by_the_clock() {
    let service = Service::start().await;
    let path = format!("{GROUP}/sandboxes?api-version={VERSION}");
    let token = service.emulator.token_for(AUDIENCE, 3600);
    service
        .send(Some(&token), "GET", &path, None)
        .await
        .expect(200);
    service.advance(3601);
    service
        .send(Some(&token), "GET", &path, None)
        .await
        .expect(401);
    let fresh = service.admin("POST", "token", json!({"seconds": 60})).await;
    let fresh = fresh.expect(200)["token"]
        .as_str()
        .expect("a token")
        .to_owned();
    service
        .send(Some(&fresh), "GET", &path, None)
        .await
        .expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_role_is_an_empty_403_until_it_has_arrived() {
    let service = Service::with(|options| options.forbidden = true).await;
    let refused = service.get("sandboxes").await;
    assert_eq!((refused.status, &*refused.text), (403, ""));
    let switches = json!({"forbidden": false, "role-after": 60_000});
    service
        .admin("POST", "switches", switches)
        .await
        .expect(200);
    assert_eq!(service.get("sandboxes").await.status, 403);
    service.advance(60);
    service.get("sandboxes").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_group_is_not_found_for_a_while() {
    let service = Service::with(|options| {
        options.group_after = std::time::Duration::from_secs(120);
        options.strict_groups = true;
    })
    .await;
    service
        .get("sandboxes")
        .await
        .problem(404, "SandboxGroupNotFound");
    let arm = service.emulator.arm_token();
    let path = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.App/sandboxGroups/g";
    let path = format!("{path}?api-version=2026-07-01");
    let body = json!({"location": "westus2"});
    service
        .send(Some(&arm), "PUT", &path, Some(&body))
        .await
        .expect(201);
    service
        .get("sandboxes")
        .await
        .problem(404, "SandboxGroupNotFound");
    service.advance(120);
    service.get("sandboxes").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_managed_identity_gives_tokens_for_what_it_is_asked() {
    let service = Service::start().await;
    let path = format!("/msi/token?api-version=2019-08-01&resource={AUDIENCE}");
    let given = service.send(None, "GET", &path, None).await.expect(200);
    assert!(given["expires_on"].is_string(), "{given}");
    let token = given["access_token"].as_str().expect("a token");
    let path = format!("{GROUP}/sandboxes?api-version={VERSION}");
    service
        .send(Some(token), "GET", &path, None)
        .await
        .expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_versions_are_those_of_the_service() {
    let service = Service::start().await;
    let token = service.emulator.token();
    let send = |method: &'static str, path: String| {
        let (service, token) = (&service, token.clone());
        async move { service.send(Some(&token), method, &path, None).await }
    };
    let get = |path: String| send("GET", path);
    get(format!("{GROUP}/sandboxes")).await.expect(400);
    get(format!("{GROUP}/sandboxes?api-version=2020-01-01"))
        .await
        .expect(400);
    let with_provider =
        "/subscriptions/s/resourceGroups/rg/providers/Microsoft.App/sandboxGroups/g";
    get(format!("{with_provider}/sandboxes?api-version={VERSION}"))
        .await
        .expect(404);
    get(format!("{GROUP}/diskImages?api-version={VERSION}"))
        .await
        .expect(404);
    service.get("sandboxes/not-a-guid").await.expect(400);
    // What is put in one version is posted in the next.
    let newer = format!("{GROUP}/sandboxes?api-version=2026-09-01-preview");
    send("PUT", newer.clone()).await.expect(404);
    let body = json!({"sourcesRef": {"diskImage": {"name": "ubuntu"}}});
    service
        .send(Some(&token), "POST", &newer, Some(&body))
        .await
        .expect(200);
    service.call("POST", "sandboxes", body).await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_the_ids_of_its_request() {
    let service = Service::start().await;
    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client");
    let url = format!(
        "{}{GROUP}/sandboxes?api-version={VERSION}",
        service.emulator.endpoint()
    );
    let asked = client
        .get(url)
        .bearer_auth(service.emulator.token())
        .header("x-ms-client-request-id", "mine");
    let answer = asked.send().await.expect("an answer");
    assert_eq!(answer.headers()["x-ms-client-request-id"], "mine");
    assert!(answer.headers().contains_key("x-ms-request-id"));
    let all: Value = serde_json::from_str(&answer.text().await.expect("a body")).expect("JSON");
    assert_eq!(all, json!([]));
}
