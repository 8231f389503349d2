//! Files, disk images, volumes and secrets.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::Service;

#[tokio::test(flavor = "multi_thread")]
async fn files_are_on_the_wire_as_the_service_has_them() {
    let service = Service::start().await;
    let id = service.create().await;
    let files = format!("sandboxes/{id}/files");
    let put = format!("{files}?path=/data/a/f&createDirs=true");
    let written = service.call("PUT", &put, json!("text")).await.expect(200);
    assert_eq!(written, json!({"bytesWritten": 6, "success": true}));
    let deep = format!("{files}?path=/none/f&createDirs=false");
    service
        .call("PUT", &deep, json!("text"))
        .await
        .problem(404, "FileNotFound");
    let stat = service
        .get(&format!("{files}/stat?path=/data/a/f"))
        .await
        .expect(200);
    let keys: Vec<&str> = stat
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    let wire = [
        "isDir",
        "isSymlink",
        "mode",
        "modifiedTime",
        "name",
        "path",
        "size",
    ];
    assert_eq!(keys, wire);
    assert_eq!(
        (&stat["mode"], &stat["isDir"]),
        (&json!(0o644), &json!(false))
    );
    let read = service.get(&format!("{files}?path=/data/a/f")).await;
    assert_eq!(read.text, "\"text\"");
    assert_eq!(
        read.header("content-type"),
        Some("application/octet-stream")
    );
    let list = service
        .get(&format!("{files}/list?path=/data"))
        .await
        .expect(200);
    assert_eq!(list["entries"][0]["isDir"], true);
    service
        .post(&id, "files/mkdir", json!({"path": "/data/b"}))
        .await
        .expect(200);
    let missing = service.get(&format!("{files}?path=/nothing")).await;
    assert_eq!(missing.expect(404)["errorCode"], "FileNotFound");
    let delete = format!("{files}?path=/data&recursive=true");
    service
        .call("DELETE", &delete, Value::Null)
        .await
        .expect(204);
    service
        .call("DELETE", &delete, Value::Null)
        .await
        .expect(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_ready_when_it_is_built() {
    let service = Service::with(|options| options.image_build = Duration::from_secs(30)).await;
    let body = json!({
        "image": {"base": "docker.io/library/python:3"}, "labels": {"name": "py"},
        "registryCredentials": {"username": "u", "token": "hidden"},
    });
    let made = service.call("PUT", "diskimages", body.clone()).await;
    assert!(!made.text.contains("hidden"), "{made:?}");
    let made = made.expect(200);
    assert_eq!(made["status"]["state"], "Building");
    let source = json!({"sourcesRef": {"diskImage": {"id": made["id"]}}});
    service
        .call("PUT", "sandboxes", source.clone())
        .await
        .expect(409);
    service.advance(30);
    let path = format!("diskimages/{}", made["id"].as_str().expect("an identifier"));
    assert_eq!(
        service.get(&path).await.expect(200)["status"]["state"],
        "Ready"
    );
    service.call("PUT", "sandboxes", source).await.expect(200);
    service.call("DELETE", &path, Value::Null).await.expect(202);
    service.get(&path).await.expect(404);
    service
        .emulator
        .change(|options| options.image_fails = true);
    let made = service.call("PUT", "diskimages", body).await.expect(200);
    service.advance(30);
    let path = format!("diskimages/{}", made["id"].as_str().expect("an identifier"));
    assert_eq!(
        service.get(&path).await.expect(200)["status"]["state"],
        "Failed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_an_image_of_the_files() {
    let service = Service::start().await;
    let id = service.create().await;
    service
        .exec(&id, "echo committed > /tmp/it")
        .await
        .expect(200);
    let made = service
        .post(&id, "commit", json!({"labels": {"name": "c"}}))
        .await
        .expect(200);
    let source = json!({"sourcesRef": {"diskImage": {"id": made["diskImage"]["id"]}}});
    let copy = service.call("PUT", "sandboxes", source).await.expect(200);
    let copy = copy["id"].as_str().expect("an identifier");
    let output = service.exec(copy, "cat /tmp/it").await.expect(200);
    assert_eq!(output["stdout"], "committed\n");
    service
        .emulator
        .change(|options| options.legacy_commit = true);
    let made = service.post(&id, "commit", json!({})).await.expect(200);
    assert!(made["diskImageId"].is_string(), "{made}");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_never_shown() {
    let service = Service::start().await;
    let body = json!({"values": {"key": "hidden"}});
    for answer in [
        service.call("PUT", "secrets/s", body).await,
        service.get("secrets").await,
        service.get("secrets/s/keys").await,
        service.call("POST", "secrets/s/peek", Value::Null).await,
    ] {
        answer.expect(200);
        assert!(!answer.text.contains("hidden"), "{answer:?}");
        assert!(answer.text.contains("key"), "{answer:?}");
    }
    service
        .call("DELETE", "secrets/s", Value::Null)
        .await
        .expect(202);
    assert_eq!(
        service.get("secrets").await.expect(200)["secrets"],
        json!([])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_mounted_from_the_creation_and_stays_while_a_sandbox_has_it() {
    let service = Service::start().await;
    let volume = |body: Value| service.call("PUT", "volumes/v", body);
    volume(json!({"type": "DataDisk"})).await.expect(400);
    let made = volume(json!({"type": "DataDisk", "size": "1Gi"})).await;
    assert_eq!(made.expect(200)["isAttached"], false);
    let body = |name: &str, point: &str| {
        json!({
            "sourcesRef": {"diskImage": {"name": "ubuntu"}},
            "volumes": [{"volumeName": name, "mountpoint": point}],
        })
    };
    let create = |body: Value| service.call("PUT", "sandboxes", body);
    create(body("none", "/v"))
        .await
        .problem(404, "VolumeNotFound");
    create(body("v", "relative")).await.expect(400);
    let made = create(body("v", "/v")).await.expect(200);
    assert_eq!(made["volumes"][0]["mountpoint"], "/v");
    let id = made["id"].as_str().expect("an identifier").to_owned();
    service.exec(&id, "echo kept > /v/f").await.expect(200);
    assert_eq!(
        service.get("volumes/v").await.expect(200)["isAttached"],
        true
    );
    let delete = || service.call("DELETE", "volumes/v", Value::Null);
    delete().await.problem(409, "VolumeInUse");
    let path = format!("sandboxes/{id}");
    service.call("DELETE", &path, Value::Null).await.expect(200);
    let next = create(body("v", "/other/place")).await.expect(200);
    let next = next["id"].as_str().expect("an identifier");
    let read = service.exec(next, "cat /other/place/f").await.expect(200);
    assert_eq!(read["stdout"], "kept\n");
    // Nothing can be mounted into a sandbox of the emulator that runs.
    let mount = json!({"volumeMount": {"volumeName": "v", "mountpoint": "/w"}});
    service
        .post(next, "volumes/add", mount)
        .await
        .problem(501, "NotEmulated");
    let path = format!("sandboxes/{next}");
    service.call("DELETE", &path, Value::Null).await.expect(200);
    delete().await.expect(202);
    delete().await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_body_wants_to_run_runs_from_the_beginning() {
    let service = Service::start().await;
    let body = json!({
        "sourcesRef": {"diskImage": {"name": "ubuntu"}},
        "entrypoint": ["/bin/sh", "-c"], "cmd": ["echo begun > /tmp/begun"],
    });
    let made = service.call("PUT", "sandboxes", body).await.expect(200);
    let id = made["id"].as_str().expect("an identifier");
    let seen = "until [ -s /tmp/begun ]; do sleep 0.1; done; cat /tmp/begun";
    assert_eq!(
        service.exec(id, seen).await.expect(200)["stdout"],
        "begun\n"
    );
}
