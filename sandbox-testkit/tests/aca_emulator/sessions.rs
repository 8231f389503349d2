//! Dynamic sessions: shapes, limits, state, and what the service is known to be odd about.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Answer, Service};

const NEWEST: &str = "2025-10-02-preview";
const OLD: &str = "2024-02-02-preview";

/// A request to a pool for the session `abcd` in this version.
async fn call(
    service: &Service,
    method: &str,
    pool: &str,
    rest: &str,
    version: &str,
    body: Value,
) -> Answer {
    let mark = if rest.contains('?') { '&' } else { '?' };
    let path = format!(
        "/subscriptions/s/resourceGroups/g/sessionPools/{pool}/{rest}{mark}api-version={version}&identifier=abcd"
    );
    let body = (!body.is_null()).then_some(body);
    let token = service.emulator.token();
    let sent = service.send(Some(&token), method, &path, body.as_ref());
    sent.await
}

async fn python(service: &Service, body: Value) -> Answer {
    call(service, "POST", "python", "executions", NEWEST, body).await
}

async fn shell(service: &Service, body: Value) -> Answer {
    call(service, "POST", "shell", "executions", NEWEST, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_shape_is_served_under_its_own_versions() {
    let service = Service::start().await;
    let properties = json!({"properties": {
        "codeInputType": "inline", "executionType": "synchronous", "code": "print('a')\n6 * 7",
    }});
    let old = call(
        &service,
        "POST",
        "python",
        "code/execute",
        OLD,
        properties.clone(),
    )
    .await;
    let old = old.expect(200);
    assert_eq!(old["properties"]["status"], "Success", "{old}");
    assert_eq!(old["properties"]["result"], 42, "{old}");
    assert_eq!(old["properties"]["stdout"], "a\n", "{old}");
    let code = json!({"code": "x = 1\n'text'"});
    let new = python(&service, code.clone()).await.expect(200);
    assert_eq!(new["status"], "Succeeded", "{new}");
    assert_eq!(new["result"]["executionResult"], "text", "{new}");
    let crossed = call(
        &service,
        "POST",
        "python",
        "code/execute",
        NEWEST,
        properties,
    )
    .await;
    assert_eq!(crossed.status, 404, "{crossed:?}");
    let crossed = call(&service, "POST", "python", "executions", OLD, code.clone()).await;
    assert_eq!(crossed.status, 404, "{crossed:?}");
    let unknown = call(&service, "POST", "python", "executions", "2020-01-01", code).await;
    assert_eq!(unknown.status, 400, "{unknown:?}");
    let none = call(&service, "GET", "none", "files", NEWEST, Value::Null).await;
    assert_eq!(none.status, 404, "{none:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_keeps_its_names_until_the_session_expires() {
    let service = Service::start().await;
    let first = python(&service, json!({"code": "x = 41"})).await;
    assert_eq!(
        first.header("x-ms-new-allocation"),
        Some("true"),
        "{first:?}"
    );
    let second = python(&service, json!({"code": "x + 1"})).await;
    assert_eq!(second.header("x-ms-new-allocation"), None, "{second:?}");
    assert_eq!(second.expect(200)["result"]["executionResult"], 42);
    service.advance(200);
    let still = python(&service, json!({"code": "x"})).await.expect(200);
    assert_eq!(still["result"]["executionResult"], 41);
    service.advance(301);
    let lost = python(&service, json!({"code": "x"})).await;
    assert_eq!(lost.header("x-ms-new-allocation"), Some("true"), "{lost:?}");
    let lost = lost.expect(200);
    assert_eq!(lost["status"], "Failed", "{lost}");
    let said = lost["result"]["stderr"].as_str().expect("a text");
    assert!(said.contains("NameError"), "{lost}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_figure_is_an_image_in_the_result() {
    let service = Service::start().await;
    let of = async |code: &str| {
        let answer = python(&service, json!({"code": code})).await.expect(200);
        answer["result"]["executionResult"].clone()
    };
    let image = |data: &str| json!({"type": "image", "format": "png", "base64_data": data});
    let shown = "class Shown:\n  def _repr_png_(self): return b'png'\nShown()";
    assert_eq!(of(shown).await, image("cG5n"));
    // What pyplot has, without the many megabytes of it.
    let pyplot = "import os, sys, types\n\
        plt = types.ModuleType('matplotlib.pyplot')\n\
        plt.open = [1, 2]\n\
        plt.get_fignums = lambda: plt.open\n\
        plt.savefig = lambda to, format: to.write(f'{format} {len(plt.open)}'.encode())\n\
        plt.close = lambda which: plt.open.clear()\n\
        sys.modules['matplotlib.pyplot'] = plt\n\
        os.environ['MPLBACKEND']";
    assert_eq!(of(pyplot).await, image("cG5nIDI="));
    assert_eq!(of("os.environ['MPLBACKEND']").await, "agg", "it is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn output_and_time_are_limited() {
    let service = Service::start().await;
    let code = "print('a' * 10000)";
    let cut = python(&service, json!({"code": code})).await.expect(200);
    let length = |answer: &Value| answer["result"]["stdout"].as_str().map(str::len);
    assert_eq!(length(&cut), Some(4096));
    let asked = json!({"code": code, "outputStreamsMaxLength": 20000});
    let whole = python(&service, asked).await.expect(200);
    assert_eq!(length(&whole), Some(10001));
    let long = json!({"code": "1", "timeoutInSeconds": 221});
    assert_eq!(python(&service, long).await.status, 400);
    let late = json!({"code": "while True: pass", "timeoutInSeconds": 1});
    let late = python(&service, late).await.expect(200);
    assert_eq!(late["status"], "Failed", "{late}");
    let late = json!({"shellCommand": "sleep 100", "timeoutInSeconds": 1});
    assert_eq!(shell(&service, late).await.expect(200)["status"], "-1");
    let code = json!({"shellCommand": "pwd; exit 3"});
    let code = shell(&service, code).await.expect(200);
    assert_eq!(
        (&code["status"], &code["result"]["stdout"]),
        (&json!("3"), &json!("/mnt/data\n"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn late_code_is_interrupted_until_it_hears_it() {
    let service = Service::start().await;
    let deaf = "import signal, time\nx = 41\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n\
                time.sleep(1.5)\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n\
                while True: pass";
    let late = json!({"code": deaf, "timeoutInSeconds": 1});
    let late = python(&service, late).await.expect(200);
    assert_eq!(late["status"], "Failed", "{late}");
    let kept = python(&service, json!({"code": "x + 1"})).await.expect(200);
    assert_eq!(kept["result"]["executionResult"], 42, "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asynchronous_execution_is_asked_after() {
    let service = Service::start().await;
    let code = json!({"code": "40 + 2", "executionType": "Asynchronous"});
    let begun = python(&service, code).await;
    let id = begun
        .header("operation-id")
        .expect("an operation")
        .to_owned();
    assert_eq!(begun.expect(202)["status"], "Running");
    let path = format!("executions/{id}");
    let ended = async {
        loop {
            let shown = call(&service, "GET", "python", &path, NEWEST, Value::Null).await;
            let shown = shown.expect(200);
            if shown["status"] != "Running" {
                return shown;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert_eq!(ended.await["result"]["executionResult"], 42);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_shown_and_deleted_once() {
    let service = Service::start().await;
    let get = |rest: &'static str| call(&service, "GET", "shell", rest, NEWEST, Value::Null);
    let none = get("session").await;
    assert_eq!(
        none.header("x-ms-error-code"),
        Some("NoSessionFoundError"),
        "{none:?}"
    );
    assert_eq!(none.expect(404)["error"]["code"], "NoSessionFoundError");
    shell(&service, json!({"shellCommand": "echo a > 'a b'; mkdir d"}))
        .await
        .expect(200);
    assert_eq!(get("session").await.expect(200)["identifier"], "abcd");
    let listed = get("listSessions").await.expect(200);
    assert_eq!(listed["sessions"][0]["identifier"], "abcd", "{listed}");
    let files = get("files").await.expect(200);
    assert_eq!(files["value"][0]["name"], "a b", "{files}");
    assert_eq!(files["value"][1]["type"], "directory", "{files}");
    assert_eq!(get("files/a%20b/content").await.text, "a\n");
    for name in ["files/a%3Ab", "files/a%2Fb", "files?path=a.b", "files/none"] {
        let refused = get(name).await;
        assert!([400, 404].contains(&refused.status), "{name}: {refused:?}");
    }
    let delete = |rest: &'static str| call(&service, "DELETE", "shell", rest, NEWEST, Value::Null);
    assert_eq!(delete("files/a%20b").await.status, 204);
    assert_eq!(delete("files/a%20b").await.status, 404);
    assert_eq!(delete("session").await.status, 204);
    assert_eq!(delete("session").await.status, 404);
}
