//! The management plane.

use serde_json::{Value, json};

use crate::client::{Answer, Service};

const APP: &str = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.App";

async fn arm(service: &Service, method: &str, rest: &str, body: Value) -> Answer {
    let path = format!("{APP}/{rest}?api-version=2026-03-02-preview");
    let body = (!body.is_null()).then_some(body);
    let token = service.emulator.arm_token();
    service
        .send(Some(&token), method, &path, body.as_ref())
        .await
}

async fn get(service: &Service, rest: &str) -> Answer {
    arm(service, "GET", rest, Value::Null).await
}

/// Follows a link as a client does.
async fn follow(service: &Service, answer: &Answer, header: &str) -> Answer {
    let link = answer.header(header).expect("a link").to_owned();
    assert!(link.starts_with(&service.emulator.endpoint()), "{link}");
    let token = service.emulator.arm_token();
    service.send(Some(&token), "GET", &link, None).await
}

fn app() -> Value {
    json!({"location": "westus2", "properties": {
        "environmentId": "/e", "configuration": {
            "secrets": [{"name": "s", "value": "hidden"}],
            "ingress": {"external": false, "targetPort": 80}}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_made_changed_listed_and_deleted_by_operations() {
    let minute = std::time::Duration::from_secs(60);
    let service = Service::with(|options| options.arm_operation = minute).await;
    let body = json!({"location": "westus2", "tags": {"a": "1", "b": "2"}});
    let made = arm(&service, "PUT", "sandboxGroups/g", body.clone()).await;
    assert_eq!(
        made.expect(201)["properties"]["provisioningState"],
        "InProgress"
    );
    assert_eq!(made.header("retry-after"), Some("1"));
    let header = "azure-asyncoperation";
    assert_eq!(
        follow(&service, &made, header).await.expect(200)["status"],
        "InProgress"
    );
    service.advance(60);
    assert_eq!(
        follow(&service, &made, header).await.expect(200)["status"],
        "Succeeded"
    );
    let shown = get(&service, "sandboxGroups/g").await.expect(200);
    assert_eq!(shown["properties"]["provisioningState"], "Succeeded");
    assert_eq!(
        shown["properties"]["managementEndpoint"],
        service.emulator.endpoint()
    );
    assert_eq!(shown["type"], "Microsoft.App/sandboxGroups");
    let patch = json!({"tags": {"b": null, "c": "3"}});
    let patched = arm(&service, "PATCH", "sandboxGroups/g", patch)
        .await
        .expect(200);
    assert_eq!(patched["tags"], json!({"a": "1", "c": "3"}));
    let listed = get(&service, "sandboxGroups").await.expect(200);
    assert_eq!(listed["value"].as_array().map(Vec::len), Some(1));
    arm(&service, "PUT", "sandboxGroups/g", body)
        .await
        .expect(200);
    let gone = arm(&service, "DELETE", "sandboxGroups/g", Value::Null).await;
    gone.expect(202);
    follow(&service, &gone, "location").await.expect(202);
    let shown = get(&service, "sandboxGroups/g").await.expect(200);
    assert_eq!(shown["properties"]["provisioningState"], "Deleting");
    service.advance(60);
    follow(&service, &gone, "location").await.expect(204);
    get(&service, "sandboxGroups/g").await.expect(404);
    arm(&service, "DELETE", "sandboxGroups/g", Value::Null)
        .await
        .expect(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_its_group_a_sandbox_is_gone() {
    let service = Service::start().await;
    let body = json!({"location": "westus2"});
    arm(&service, "PUT", "sandboxGroups/g", body)
        .await
        .expect(201);
    service.create().await;
    let gone = arm(&service, "DELETE", "sandboxGroups/g", Value::Null).await;
    follow(&service, &gone, "location").await.expect(204);
    assert_eq!(service.emulator.counts().0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_management_plane_has_its_own_audience_and_versions() {
    let service = Service::start().await;
    let path = format!("{APP}/sandboxGroups?api-version=2026-07-01");
    let data = service.emulator.token();
    service
        .send(Some(&data), "GET", &path, None)
        .await
        .expect(401);
    let arm = service.emulator.arm_token();
    service
        .send(Some(&arm), "GET", &path, None)
        .await
        .expect(200);
    let all = "/subscriptions/s/providers/microsoft.app/sandboxGroups?api-version=2026-07-01";
    service.send(Some(&arm), "GET", all, None).await.expect(200);
    let old = format!("{APP}/sandboxGroups?api-version=2019-01-01");
    let refused = service
        .send(Some(&arm), "GET", &old, None)
        .await
        .expect(400);
    assert_eq!(refused["error"]["code"], "InvalidApiVersionParameter");
    // The role of the data plane is not one of this plane.
    service.emulator.change(|options| options.forbidden = true);
    service
        .send(Some(&arm), "GET", &path, None)
        .await
        .expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_names_are_checked() {
    let service = Service::start().await;
    let at = |properties: Value| json!({"location": "westus2", "properties": properties});
    let mut mixed = app();
    mixed["properties"]["configuration"]["ingress"]["ipSecurityRestrictions"] =
        json!([{"action": "Allow"}, {"action": "Deny"}]);
    for (path, body) in [
        ("sandboxGroups/-g", at(json!({}))),
        ("sandboxGroups/g", json!({})),
        (
            "sessionPools/Upper",
            at(json!({"containerType": "PythonLTS"})),
        ),
        ("sessionPools/pool", at(json!({"containerType": "RubyLTS"}))),
        (
            "sessionPools/pool",
            at(json!({"containerType": "PythonLTS", "environmentId": "/e"})),
        ),
        (
            "sessionPools/pool",
            at(json!({"containerType": "PythonLTS",
            "scaleConfiguration": {"maxConcurrentSessions": 601}})),
        ),
        (
            "sessionPools/pool",
            at(
                json!({"containerType": "PythonLTS", "dynamicPoolConfiguration":
            {"lifecycleConfiguration": {"cooldownPeriodInSeconds": 299}}}),
            ),
        ),
        ("containerApps/app", at(json!({}))),
        ("containerApps/app", mixed),
        ("jobs/job", at(json!({"environmentId": "/e"}))),
    ] {
        let refused = arm(&service, "PUT", path, body.clone()).await;
        assert_eq!(refused.status, 400, "{path} {body}: {refused:?}");
    }
    // Stable versions have fewer kinds of pools.
    let shell = at(json!({"containerType": "Shell"}));
    let token = service.emulator.arm_token();
    let stable = format!("{APP}/sessionPools/pool?api-version=2026-01-01");
    service
        .send(Some(&token), "PUT", &stable, Some(&shell))
        .await
        .expect(400);
    arm(&service, "PUT", "sessionPools/pool", shell)
        .await
        .expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_was_made_has_sessions_and_one_that_was_deleted_has_none() {
    let service = Service::start().await;
    let body = json!({"location": "westus2", "properties": {"containerType": "Shell"}});
    let made = arm(&service, "PUT", "sessionPools/mine", body)
        .await
        .expect(201);
    let endpoint = made["properties"]["poolManagementEndpoint"]
        .as_str()
        .expect("an endpoint");
    let token = service.emulator.token();
    let url = format!("{endpoint}/executions?api-version=2025-10-02-preview&identifier=abcd");
    let command = json!({"shellCommand": "echo $((6 * 7))"});
    let ran = service
        .send(Some(&token), "POST", &url, Some(&command))
        .await;
    assert!(matches!(ran.status, 200 | 202), "{ran:?}");
    assert_eq!(ran.json()["result"]["stdout"], "42\n");
    let gone = arm(&service, "DELETE", "sessionPools/mine", Value::Null).await;
    follow(&service, &gone, "location").await.expect(204);
    service
        .send(Some(&token), "POST", &url, Some(&command))
        .await
        .expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_started_stopped_and_guarded() {
    let minute = std::time::Duration::from_secs(60);
    let service = Service::with(|options| options.arm_operation = minute).await;
    let made = arm(&service, "PUT", "containerApps/app", app()).await;
    assert!(!made.text.contains("hidden"), "{made:?}");
    let fqdn = &made.expect(201)["properties"]["configuration"]["ingress"]["fqdn"];
    assert_eq!(fqdn, "app.internal.emulator.azurecontainerapps.io");
    service.advance(60);
    let stopped = arm(&service, "POST", "containerApps/app/stop", Value::Null).await;
    stopped.expect(202);
    follow(&service, &stopped, "location").await.expect(202);
    service.advance(60);
    let shown = follow(&service, &stopped, "location").await.expect(200);
    assert_eq!(shown["properties"]["runningStatus"], "Stopped");
    arm(&service, "POST", "containerApps/none/start", Value::Null)
        .await
        .expect(404);
    let auth = json!({"properties": {"platform": {"enabled": true}}});
    let path = "containerApps/app/authConfigs/current";
    arm(&service, "PUT", path, auth.clone()).await.expect(200);
    assert_eq!(
        get(&service, path).await.expect(200)["properties"]["platform"]["enabled"],
        true
    );
    arm(
        &service,
        "PUT",
        "containerApps/none/authConfigs/current",
        auth,
    )
    .await
    .expect(404);
    let listed = get(&service, "containerApps").await.expect(200);
    assert_eq!(
        listed["value"].as_array().map(Vec::len),
        Some(1),
        "{listed}"
    );
    arm(&service, "DELETE", "containerApps/app", Value::Null)
        .await
        .expect(202);
    service.advance(60);
    get(&service, path).await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_has_executions_that_end_or_are_stopped() {
    let minute = std::time::Duration::from_secs(60);
    let service = Service::with(|options| options.arm_operation = minute).await;
    let body = json!({"location": "westus2", "properties": {"environmentId": "/e",
        "configuration": {"triggerType": "Manual", "replicaTimeout": 60}}});
    arm(&service, "PUT", "jobs/job", body).await.expect(201);
    let mut paths = Vec::new();
    for _ in 0..2 {
        let started = arm(&service, "POST", "jobs/job/start", json!({}))
            .await
            .expect(200);
        let name = started["name"].as_str().expect("a name");
        paths.push(format!("jobs/job/executions/{name}"));
    }
    assert_eq!(
        get(&service, &paths[0]).await.expect(200)["properties"]["status"],
        "Running"
    );
    arm(&service, "POST", &format!("{}/stop", paths[1]), json!({}))
        .await
        .expect(200);
    service.advance(60);
    let listed = get(&service, "jobs/job/executions").await.expect(200);
    assert_eq!(listed["value"].as_array().map(Vec::len), Some(2));
    assert_eq!(
        get(&service, &paths[0]).await.expect(200)["properties"]["status"],
        "Succeeded"
    );
    assert_eq!(
        get(&service, &paths[1]).await.expect(200)["properties"]["status"],
        "Stopped"
    );
}
