//! The routes. Each looks at the token before anything else, and an answer never says whether another
//! application exists.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{any, delete, get, post, put};
use futures_util::{Stream, StreamExt as _};
use sandbox::sessions::{ErrorKind, Filter, Session, SessionOptions, Sessions, Tenant, Wait};
use sandbox::{Command, OpenReadOptions, OpenWriteOptions, SandboxSpec, TerminalSize};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use crate::socket;
use crate::tokens::{Tokens, fresh};

/// The key under which each application's one sandbox is kept.
const KEY: &str = "main";
/// Most bytes of an upload.
const UPLOAD: usize = 1 << 30;
const PIECE: usize = 64 << 10;

/// Everything that the routes share.
pub(crate) struct Service {
    sessions: Sessions,
    spec: SandboxSpec,
    tokens: Tokens,
    operator: String,
    calls: Arc<crate::calls::Calls>,
    audit: PathBuf,
}

impl Service {
    pub(crate) fn new(
        sessions: Sessions,
        spec: SandboxSpec,
        calls: Arc<crate::calls::Calls>,
        audit: PathBuf,
    ) -> std::io::Result<Self> {
        let operator = fresh()?;
        Ok(Self {
            sessions,
            spec,
            tokens: Tokens::new(&operator),
            operator,
            calls,
            audit,
        })
    }

    pub(crate) fn operator(&self) -> &str {
        &self.operator
    }

    /// The application's sandbox, for the holder of its token; created if it has expired.
    async fn session(&self, app: &str, headers: &HeaderMap) -> Result<Session, Failed> {
        if !self.tokens.is_app(app, headers) {
            return Err(Failed::denied());
        }
        let wait = SessionOptions::new().wait(Wait::AtMost(std::time::Duration::from_secs(10)));
        let spec = self.spec.clone();
        Ok(self
            .sessions
            .get_or_create_with(app, KEY, spec, wait)
            .await?)
    }

    fn operator_only(&self, headers: &HeaderMap) -> Result<(), Failed> {
        match self.tokens.is_operator(headers) {
            true => Ok(()),
            false => Err(Failed::denied()),
        }
    }
}

/// An answer in JSON.
struct Json(Value);

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        let kind = [(header::CONTENT_TYPE, "application/json")];
        (kind, self.0.to_string()).into_response()
    }
}

/// Reads the JSON of a request.
fn asked(body: &[u8]) -> Result<Value, Failed> {
    serde_json::from_slice(body).map_err(|error| {
        Failed(
            StatusCode::BAD_REQUEST,
            format!("the body is no JSON: {error}"),
        )
    })
}

/// An answer that is a failure.
struct Failed(StatusCode, String);

impl Failed {
    /// Refuses a wrong token and an application that is not there alike.
    fn denied() -> Self {
        Self(
            StatusCode::UNAUTHORIZED,
            "the token does not open this".into(),
        )
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

impl From<sandbox::sessions::Error> for Failed {
    fn from(error: sandbox::sessions::Error) -> Self {
        let status = match error.kind() {
            ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Full | ErrorKind::Busy | ErrorKind::ShutDown => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::BAD_GATEWAY,
        };
        Self(status, error.to_string())
    }
}

impl From<sandbox::Error> for Failed {
    fn from(error: sandbox::Error) -> Self {
        use sandbox::ErrorKind;
        let status = match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotListening => StatusCode::NOT_FOUND,
            ErrorKind::InvalidInput | ErrorKind::IsADirectory | ErrorKind::NotADirectory => {
                StatusCode::BAD_REQUEST
            }
            ErrorKind::PermissionDenied | ErrorKind::ReadOnly => StatusCode::FORBIDDEN,
            ErrorKind::StorageFull | ErrorKind::LimitExceeded => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_GATEWAY,
        };
        Self(status, error.to_string())
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

type App = State<Arc<Service>>;

pub(crate) fn routes(service: Arc<Service>) -> axum::Router {
    axum::Router::new()
        .route("/", get(async || Html(include_str!("page.html"))))
        .route("/apps", post(create).get(list))
        .route("/apps/{app}", delete(close))
        .route("/apps/{app}/run", post(run))
        .route("/apps/{app}/files/{*path}", put(upload).get(download))
        .route("/apps/{app}/terminal", get(terminal))
        .route("/apps/{app}/preview/{port}/", any(preview))
        .route("/apps/{app}/preview/{port}/{*rest}", any(preview))
        .route("/watch", get(watch))
        .route("/metrics", get(metrics))
        .route("/audit", get(audit))
        .layer(DefaultBodyLimit::max(UPLOAD))
        .with_state(service)
}

async fn create(State(service): App, headers: HeaderMap, body: Bytes) -> Result<Json, Failed> {
    service.operator_only(&headers)?;
    let app = Tenant::new(asked(&body)?["app"].as_str().unwrap_or_default())?;
    let spec = service.spec.clone();
    let wait = SessionOptions::new().wait(Wait::Never);
    let sessions = &service.sessions;
    sessions.get_or_create_with(&app, KEY, spec, wait).await?;
    // Last: an application that is there keeps its token if that fails.
    let token = service.tokens.give(app.as_str())?;
    Ok(Json(json!({ "app": app, "token": token })))
}

async fn list(State(service): App, headers: HeaderMap) -> Result<Json, Failed> {
    service.operator_only(&headers)?;
    Ok(Json(json!(service.sessions.list(&Filter::new()))))
}

/// The operator's kill switch, and the application's own.
async fn close(
    State(service): App,
    Path(app): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Failed> {
    if !service.tokens.is_app(&app, &headers) {
        service.operator_only(&headers)?;
    }
    service.tokens.take(&app);
    service.sessions.close(app.as_str(), KEY).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn said(name: &str, value: Value) -> Result<Event, Infallible> {
    Ok(Event::default().event(name).data(value.to_string()))
}

/// The output as it comes, then how it ended. A client that hangs up ends the command.
async fn run(
    State(service): App,
    Path(app): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failed> {
    let session = service.session(&app, &headers).await?;
    let script = asked(&body)?["script"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let mut process = session.sandbox().spawn(Command::shell(script)).await?;
    let stdout = process.stdout.take().map(|stream| pieces("stdout", stream));
    let stderr = process.stderr.take().map(|stream| pieces("stderr", stream));
    let streams = futures_util::stream::iter(stdout.into_iter().chain(stderr));
    let output = streams.flatten_unordered(None);
    let end = futures_util::stream::once(async move {
        match process.wait().await {
            Ok(exit) => said("exit", json!({ "status": exit.status.shell_code() })),
            Err(error) => said("error", json!({ "error": error.to_string() })),
        }
    });
    Ok(Sse::new(output.chain(end)))
}

/// Pieces of a stream as they are read. A character that is split between two pieces is
/// replaced; a client that needs bytes reads a file.
fn pieces<S: AsyncRead + Send + Unpin + 'static>(
    name: &'static str,
    stream: S,
) -> futures_util::stream::BoxStream<'static, Result<Event, Infallible>> {
    futures_util::stream::unfold(stream, move |mut stream| async move {
        let mut piece = vec![0; PIECE];
        match stream.read(&mut piece).await {
            Ok(count) if count > 0 => {
                let text = String::from_utf8_lossy(&piece[..count]).into_owned();
                Some((said(name, json!(text)), stream))
            }
            _ => None,
        }
    })
    .boxed()
}

async fn upload(
    State(service): App,
    Path((app, path)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Failed> {
    let session = service.session(&app, &headers).await?;
    let sandbox = session.sandbox();
    let mut file = sandbox
        .open_write(&path.into(), OpenWriteOptions::new())
        .await?;
    let (mut body, mut left) = (body.into_data_stream(), UPLOAD);
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|error| Failed(StatusCode::BAD_REQUEST, error.to_string()))?;
        left = left.checked_sub(piece.len()).ok_or_else(|| {
            Failed(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("more than {UPLOAD} bytes"),
            )
        })?;
        file.write_all(&piece).await?;
    }
    // Until here there is no file: an upload that breaks off leaves nothing.
    file.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn download(
    State(service): App,
    Path((app, path)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Body, Failed> {
    let session = service.session(&app, &headers).await?;
    let file = session
        .sandbox()
        .open_read(&path.into(), OpenReadOptions::new())
        .await?;
    let bytes = futures_util::stream::unfold(file, |mut file| async move {
        let mut piece = vec![0; PIECE];
        match file.read(&mut piece).await {
            Ok(0) => None,
            Ok(count) => {
                piece.truncate(count);
                Some((Ok(Bytes::from(piece)), file))
            }
            Err(error) => Some((Err(error), file)),
        }
    });
    Ok(Body::from_stream(bytes))
}

/// A shell: bytes of the terminal in binary messages, `{"rows": 24, "columns": 80}` as text.
async fn terminal(
    State(service): App,
    Path(app): Path<String>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Failed> {
    let session = service.session(&app, &headers).await?;
    Ok(upgrade.on_upgrade(async move |socket| {
        let command = Command::new("sh").terminal(TerminalSize::default());
        if let Ok(process) = session.sandbox().spawn(command).await {
            // Whichever side goes away ends both.
            let _ = socket::relay(process, socket).await;
        }
    }))
}

/// Passes a request on to a server in the sandbox, without the token that opened the way to it.
async fn preview(
    State(service): App,
    Path(parts): Path<Vec<(String, String)>>,
    mut request: Request,
) -> Result<Response, Failed> {
    let part = |name: &str| {
        parts
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| &**value)
    };
    let app = part("app").unwrap_or_default();
    let port = part("port").and_then(|port| port.parse().ok()).unwrap_or(0);
    let session = service.session(app, request.headers()).await?;
    let query = request
        .uri()
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    let path = format!("/{}{query}", part("rest").unwrap_or_default());
    let unread = |error: &dyn std::fmt::Display| Failed(StatusCode::BAD_GATEWAY, error.to_string());
    *request.uri_mut() = path.parse().map_err(|error| unread(&error))?;
    for name in ["authorization", "connection", "upgrade", "cookie"] {
        request.headers_mut().remove(name);
    }
    let stream = session.sandbox().connect_port(port).await?;
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
        .await
        .map_err(|error| unread(&error))?;
    tokio::spawn(connection);
    let answer = sender
        .send_request(request)
        .await
        .map_err(|error| unread(&error))?;
    let (parts, body) = answer.into_parts();
    let mut answer = Response::from_parts(parts, Body::new(body));
    // A browser then gives the page an origin of its own: what it keeps for this service stays apart.
    let policy = axum::http::HeaderValue::from_static("sandbox allow-scripts allow-forms");
    answer
        .headers_mut()
        .insert("content-security-policy", policy);
    answer.headers_mut().remove("set-cookie");
    Ok(answer)
}

/// Sessions as they are, then each change.
async fn watch(
    State(service): App,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failed> {
    service.operator_only(&headers)?;
    let watch = service.sessions.watch(Filter::new());
    Ok(Sse::new(futures_util::stream::unfold(
        watch,
        |mut watch| async move {
            let info = watch.next().await?;
            Some((said("session", json!(info)), watch))
        },
    )))
}

async fn metrics(State(service): App, headers: HeaderMap) -> Result<String, Failed> {
    service.operator_only(&headers)?;
    let stats = service.sessions.stats();
    Ok(format!(
        "{}sandbox_sessions {}\nsandbox_sessions_waiting {}\nsandbox_jobs_live {}\n\
         sandbox_pool_ready {}\n",
        service.calls.render(),
        stats.sessions,
        stats.waiting,
        stats.jobs,
        stats.pool_ready,
    ))
}

async fn audit(State(service): App, headers: HeaderMap) -> Result<Vec<u8>, Failed> {
    service.operator_only(&headers)?;
    Ok(tokio::fs::read(&service.audit).await?)
}
