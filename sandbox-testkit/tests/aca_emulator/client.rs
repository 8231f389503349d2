//! A client that knows nothing of the service but HTTP.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderMap;
use sandbox_testkit::aca::{AcaEmulator, Options};
use serde_json::{Value, json};

pub(crate) const GROUP: &str = "/subscriptions/s/resourceGroups/rg/sandboxGroups/g";
pub(crate) const VERSION: &str = "2026-02-01-preview";

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The answer as JSON, if this is its status.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    #[track_caller]
    pub(crate) fn problem(&self, status: u16, title: &str) {
        assert_eq!(self.expect(status)["title"], title, "{self:?}");
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// An emulator and a client of it.
pub(crate) struct Service {
    pub(crate) emulator: AcaEmulator,
    http: reqwest::Client,
}

impl Service {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(how: impl FnOnce(&mut Options)) -> Self {
        // The second call finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut options = Options::default();
        how(&mut options);
        let emulator = AcaEmulator::start(options).await.expect("an emulator");
        let http = reqwest::Client::builder().no_proxy().build();
        Self {
            emulator,
            http: http.expect("a client"),
        }
    }

    /// A request with this token to a path with its query.
    pub(crate) async fn send(
        &self,
        token: Option<&str>,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Answer {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let url = match path.starts_with("http") {
            true => path.to_owned(),
            false => format!("{}{path}", self.emulator.endpoint()),
        };
        let mut request = self.http.request(method, url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let response = request.send().await.expect("an answer");
        Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: response.text().await.expect("a body"),
        }
    }

    /// A request of the data plane, below the group.
    pub(crate) async fn call(&self, method: &str, rest: &str, body: Value) -> Answer {
        let mark = if rest.contains('?') { '&' } else { '?' };
        let path = format!("{GROUP}/{rest}{mark}api-version={VERSION}");
        let body = (!body.is_null()).then_some(body);
        let token = self.emulator.token();
        self.send(Some(&token), method, &path, body.as_ref()).await
    }

    pub(crate) async fn get(&self, rest: &str) -> Answer {
        self.call("GET", rest, Value::Null).await
    }

    /// A new sandbox's identifier.
    pub(crate) async fn create(&self) -> String {
        let body = json!({"sourcesRef": {"diskImage": {"name": "ubuntu", "isPublic": true}}});
        let made = self.call("PUT", "sandboxes", body).await.expect(200);
        made["id"].as_str().expect("an identifier").to_owned()
    }

    /// Creates a sandbox that is not suspended, however much time passes.
    pub(crate) async fn create_awake(&self) -> String {
        let id = self.create().await;
        let awake = json!({"autoSuspendPolicy": {"enabled": false}});
        self.post(&id, "lifecycle", awake).await.expect(200);
        id
    }

    pub(crate) async fn post(&self, id: &str, operation: &str, body: Value) -> Answer {
        let rest = format!("sandboxes/{id}/{operation}");
        self.call("POST", &rest, body).await
    }

    pub(crate) async fn state(&self, id: &str) -> String {
        let shown = self.get(&format!("sandboxes/{id}")).await.expect(200);
        shown["state"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) async fn exec(&self, id: &str, command: &str) -> Answer {
        let body = json!({"command": command});
        self.post(id, "executeShellCommand", body).await
    }

    /// Turns the emulator itself.
    pub(crate) async fn admin(&self, method: &str, path: &str, body: Value) -> Answer {
        let path = format!("/.emulator/{path}");
        let body = (!body.is_null()).then_some(body);
        self.send(None, method, &path, body.as_ref()).await
    }

    /// Lets time pass, a minute at a time, until this is done.
    pub(crate) async fn hasten<T>(&self, done: impl Future<Output = T>) -> T {
        let time = async {
            loop {
                tokio::time::sleep(Duration::from_millis(20)).await;
                self.advance(60);
            }
        };
        tokio::select! {
            done = done => done,
            () = time => unreachable!("time does not end"),
        }
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.emulator.advance(Duration::from_secs(seconds));
    }
}
