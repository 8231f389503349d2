//! Tests of authorisation.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
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

/// A token whose claims were written anew has a signature of ours and is none.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_checked_as_a_whole() {
    let service = Service::start().await;
    let path = format!("{GROUP}/sandboxes?api-version={VERSION}");
    let status = async |token: &str| {
        let sent = service.send(Some(token), "GET", &path, None).await;
        sent.status
    };
    let token = service.emulator.token_for(AUDIENCE, 3600);
    assert_eq!(status(&token).await, 200);
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else {
        panic!("{token}");
    };
    let rewrite = |part: &str, from: &str, to: &str| {
        let text = URL_SAFE_NO_PAD.decode(part).expect("base64");
        let text = String::from_utf8(text).expect("JSON");
        let changed = text.replace(from, to);
        assert_ne!(text, changed);
        URL_SAFE_NO_PAD.encode(changed)
    };
    let principal = sandbox_testkit::aca::PRINCIPAL;
    let other = rewrite(claims, principal, "00000000-0000-0000-0000-0000000000bb");
    let longer = rewrite(claims, "\"exp\":", "\"exp\":9");
    let unsigned = rewrite(header, "JWT", "JWS");
    for forged in [
        format!("{header}.{other}.{signature}"),
        format!("{header}.{longer}.{signature}"),
        format!("{unsigned}.{claims}.{signature}"),
        format!("{header}.{claims}."),
        format!("{header}.{claims}.{}", &signature[1..]),
        format!("{header}.{claims}.{signature}.x"),
    ] {
        assert_eq!(status(&forged).await, 401, "{forged}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_no_plane_has_is_not_found_with_any_token() {
    let service = Service::start().await;
    let arm = service.emulator.arm_token();
    let data = service.emulator.token();
    for path in [
        "/nothing",
        "/subscriptions/s/resourceGroups/rg/sandboxgroups-of-old/g",
        "/subscriptions/s/resourceGroups/rg/providers/Microsoft.App/clouds/c",
        "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Web/sites/w",
    ] {
        let path = format!("{path}?api-version={VERSION}");
        for token in [&arm, &data] {
            service
                .send(Some(token), "GET", &path, None)
                .await
                .expect(404);
        }
        service.send(None, "GET", &path, None).await.expect(401);
    }
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
    let service = Service::with(|options| {
        options.forbidden = true;
        options.empty_forbidden = true;
    })
    .await;
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
async fn a_machines_metadata_service_wants_its_header() {
    let service = Service::start().await;
    let path = format!("/metadata/identity/oauth2/token?resource={AUDIENCE}");
    service.send(None, "GET", &path, None).await.expect(400);
    let client = reqwest::Client::builder().no_proxy().build();
    let url = format!("{}{path}", service.emulator.endpoint());
    let asked = client
        .expect("a client")
        .get(url)
        .header("metadata", "true");
    let answer = asked.send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
}

/// The first question of MSAL, in any language.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_says_where_its_tokens_are() {
    let service = Service::start().await;
    let path = "/tenant/v2.0/.well-known/openid-configuration";
    let said = service.send(None, "GET", path, None).await.expect(200);
    let endpoint = service.emulator.endpoint();
    assert_eq!(said["issuer"], format!("{endpoint}/tenant/v2.0"));
    let keys = said["jwks_uri"].as_str().expect("an address");
    service.send(None, "GET", keys, None).await.expect(200);
    let tokens = said["token_endpoint"].as_str().expect("an address");
    let client = reqwest::Client::builder().no_proxy().build();
    let client = client.expect("a client");
    let form = "grant_type=client_credentials&client_id=c&client_secret=s&\
                scope=https%3A%2F%2Fdynamicsessions.io%2F.default";
    let given = client.post(tokens).body(form).send().await;
    assert_eq!(given.expect("an answer").status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_a_token_for_its_secret_and_no_other() {
    let service = Service::with(|options| options.token_life = Duration::from_secs(60)).await;
    let client = reqwest::Client::builder().no_proxy().build();
    let client = client.expect("a client");
    let url = format!("{}/tenant/oauth2/v2.0/token", service.emulator.endpoint());
    let ask = async |form: &str| {
        let answer = client.post(&url).body(form.to_owned()).send().await;
        let answer = answer.expect("an answer");
        let status = answer.status().as_u16();
        let body: Value =
            serde_json::from_str(&answer.text().await.expect("a body")).expect("JSON");
        (status, body)
    };
    let scope = "scope=https%3A%2F%2Fdynamicsessions.io%2F.default";
    let whole = format!("grant_type=client_credentials&client_id=c&client_secret=a%2Bb&{scope}");
    let (status, given) = ask(&whole).await;
    assert_eq!((status, &given["expires_in"]), (200, &json!(60)), "{given}");
    let path = format!("{GROUP}/sandboxes?api-version={VERSION}");
    let list = async |token: &Value| {
        let sent = service.send(token.as_str(), "GET", &path, None).await;
        sent.status
    };
    assert_eq!(list(&given["access_token"]).await, 200);
    service.advance(60);
    assert_eq!(list(&given["access_token"]).await, 401, "it has ended");
    for (without, status, code) in [
        ("grant_type=client_credentials&", 400, 70_003),
        ("client_id=c&", 400, 900_144),
        ("client_secret=a%2Bb&", 401, 7_000_218),
        ("%2F.default", 400, 70_011),
    ] {
        let (refused, body) = ask(&whole.replace(without, "")).await;
        assert_eq!(
            (refused, &body["error_codes"][0]),
            (status, &json!(code)),
            "{body}"
        );
        assert!(!body.to_string().contains("a+b"), "{body}");
    }
    service
        .admin("POST", "switches", json!({"refuse-clients": true}))
        .await
        .expect(200);
    let (refused, body) = ask(&whole).await;
    assert_eq!(
        (refused, &body["error"]),
        (401, &json!("invalid_client")),
        "{body}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_versions_are_those_of_the_service() {
    let service = Service::with(|options| options.strict_versions = true).await;
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
    // What is put in one version is posted in the next, which takes another audience.
    let newer = format!("{GROUP}/sandboxes?api-version=2026-09-01-preview");
    send("PUT", newer.clone()).await.expect(401);
    let audience = "https://management.azuredevcompute.io";
    let token = service.emulator.token_for(audience, 3600);
    let put = service.send(Some(&token), "PUT", &newer, None).await;
    put.expect(404);
    let body = json!({"sourcesRef": {"diskImage": {"name": "ubuntu"}}});
    service
        .send(Some(&token), "POST", &newer, Some(&body))
        .await
        .expect(201);
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
