//! The server: any provider, or one sandbox, over HTTP.
//!
//! # Threat model
//!
//! **The caller** is one owner: what is behind the server is the owner's, and a token or the
//! kernel's word on a Unix socket's peer says who that is ([`Access`]). Everyone else is an
//! attacker who can open connections. **The guest** is an attacker too: it runs what the owner
//! sends, and may reach the server if it has a network. **Trusted** are the provider, the host that
//! the server runs on, and whatever gives TLS before it: the server itself speaks plain HTTP.
//!
//! | Threat | What holds |
//! |---|---|
//! | A caller without the token, or with another's | asked before the body is read; digests compared in constant time; every route but `/v1/health`, unknown ones included, answers 401 alike |
//! | A token in a log | it is a [`Secret`](sandbox_core::Secret); no log, error or `Debug` has a header or a body |
//! | Another user of the host on a Unix socket | mode 0600, and the kernel says who the peer is |
//! | A web page of the owner's browser | the token is in a header that no page can set for another origin; over TCP there is no access without one |
//! | Slow heads and bodies, readers that take nothing | a time for each; the connection is closed |
//! | Many connections, calls, commands, sandboxes; large bodies | a limit for each; bodies share one bound on memory, archives go to disk |
//! | A header bomb | 64 headers, 32 KiB |
//! | A client that vanishes | what it started is ended after the grace; sandboxes that nothing uses are closed |
//! | A lost answer | a call has a name: it is found and not run twice |
//! | Paths that lead out, archives with links and devices | a path is data for the sandbox; an archive is unpacked by descriptor in a directory of its own, no link followed |
//! | Directories of the server's host and images in its files, named in a spec | refused unless [`ServerConfig::host_paths`] |
//! | Guessing names of calls and processes | they are behind the token |
//!
//! It does not protect the owner from the owner: who has the token can use up what the limits
//! allow. It hides neither sizes nor times. It has no TLS: over a network, put a proxy in front
//! that has.

mod access;
mod answer;
mod archive;
mod asked;
mod body;
mod calls;
mod config;
mod follow;
mod job_calls;
mod jobs;
mod lease;
mod listen;
mod openapi;
mod pipe;
mod processes;
mod reply;
mod routes;
mod sandboxes;
mod state;
mod streams;
mod transfer;
mod used;
mod work;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts as _, RawPathParams};
use axum::http::{HeaderMap, Request, Response, StatusCode, header};
use axum::routing::on;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use sandbox_core::{
    Capabilities, Error, ErrorKind, Labels, Operation, Provider, Result, Sandbox, SandboxId,
    SandboxInfo, SandboxSpec, Secret,
};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};

pub use access::{Access, Caller, SameUser, TokenAccess};
pub use config::ServerConfig;
pub use listen::Listener;

use crate::wire::OWN_TOKEN;
use listen::{Kind, Patient};
use reply::Reply;
use routes::{Action, ROUTES};
use state::State;

/// The time in which access must be decided.
const ADMITTING: Duration = Duration::from_secs(15);
/// Time that the directories of transfers may take to go when a server is closed.
const STAGED: Duration = Duration::from_secs(15);
/// The longest wait for the head of a request: a time without an end is beyond a clock.
const A_YEAR: Duration = Duration::from_secs(365 * 86_400);

/// A server that is not started yet.
///
/// ```no_run
/// use std::sync::Arc;
/// use sandbox_remote::{Listener, Server, TokenAccess};
/// # use sandbox_core::{Provider, Result};
/// # async fn example(provider: Arc<dyn Provider>, token: String) -> Result<()> {
/// let listener = Listener::tcp(([127, 0, 0, 1], 8080).into())?;
/// let access = Arc::new(TokenAccess::new(token)?);
/// let serving = Server::new(provider, access).start(listener)?;
/// println!("{}", serving.uri());
/// serving.ended().await;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Server {
    provider: Arc<dyn Provider>,
    own: Option<Arc<dyn Sandbox>>,
    access: Arc<dyn Access>,
    config: ServerConfig,
}

impl Server {
    /// Serves a provider to its owner.
    pub fn new(provider: Arc<dyn Provider>, access: Arc<dyn Access>) -> Self {
        Self {
            provider,
            own: None,
            access,
            config: ServerConfig::default(),
        }
    }

    /// Serves one sandbox and its forks; others can't be created.
    pub fn of_sandbox(sandbox: Arc<dyn Sandbox>, access: Arc<dyn Access>) -> Self {
        let only = Only {
            backend: sandbox.info().backend.into_owned(),
            sandbox: Arc::clone(&sandbox),
        };
        Self::new(Arc::new(only), access).sandbox(sandbox)
    }

    /// Serves this sandbox of the provider as the server's own: clients find it without knowing its
    /// identifier, and it is not closed for want of use.
    #[must_use]
    pub fn sandbox(mut self, sandbox: Arc<dyn Sandbox>) -> Self {
        self.own = Some(sandbox);
        self
    }

    sandbox_core::setters! {
        /// Sets limits.
        config: ServerConfig,
    }

    /// Starts to serve, in tasks of the runtime that this is called on.
    ///
    /// # Errors
    /// What the system says of the listener; [`ErrorKind::InvalidInput`] outside of a tokio runtime
    /// with I/O and time.
    pub fn start(self, listener: Listener) -> Result<Serving> {
        crate::runtime::require(Operation::Connect)?;
        let uri = listener.uri()?;
        let state = State::new(self.provider, self.own, self.access, self.config);
        let state = Arc::new(state);
        let ended = watch::Sender::new(false);
        let guard = EndGuard(ended.clone());
        let tidy = tokio::spawn(State::tidy(Arc::downgrade(&state)));
        let accepting = tokio::spawn(accept(listener.0, Arc::clone(&state), guard));
        Ok(Serving {
            uri,
            state,
            accepting: accepting.abort_handle(),
            tidy: tidy.abort_handle(),
            ended,
        })
    }
}

/// A server that runs. Dropped, it stops: connections are cut and what was started through them
/// ends; sandboxes are dropped, or closed by [`close`](Self::close).
#[derive(Debug)]
pub struct Serving {
    uri: String,
    state: Arc<State>,
    accepting: AbortHandle,
    tidy: AbortHandle,
    ended: watch::Sender<bool>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("provider", &self.provider)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

impl Serving {
    /// Returns the `remote:` URI at which it is reached.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Returns when the server has stopped. Dropping the future has no effect.
    pub async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        // The sender is this one's own.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Stops the server, gives up the calls that run and closes every sandbox that it holds; the file of
    /// its socket is gone then, and so are the directories of transfers that were under way. Dropping the
    /// future leaves some sandboxes to their backend's collector.
    pub async fn close(self) {
        self.accepting.abort();
        self.tidy.abort();
        // What accepts owns the socket: a program that ends now would leave its file.
        self.ended().await;
        self.state.end().await;
        // Transfers have failed by now; removing what they had written takes a moment.
        let gone = self.state.staged.closed();
        if tokio::time::timeout(STAGED, gone).await.is_err() {
            tracing::warn!("a transfer goes on; its directory is left");
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.accepting.abort();
        self.tidy.abort();
    }
}

/// Tells that serving is over, however it ends.
struct EndGuard(watch::Sender<bool>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

/// Facts that are known of a connection's peer.
#[derive(Clone, Copy, Debug)]
struct Peer {
    same_user: bool,
}

async fn accept(listener: Kind, state: Arc<State>, guard: EndGuard) {
    let _guard = guard;
    let places = Arc::new(Semaphore::new(state.config.max_connections.max(1)));
    let router = router(Arc::clone(&state));
    let mut connections = JoinSet::new();
    match listener {
        Kind::Tcp(listener) => {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
                return;
            };
            loop {
                let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                    return;
                };
                let Ok((stream, _)) = listener.accept().await else {
                    // Too many open files, mostly: that passes.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                // Frames are small, and waited for.
                let _ = stream.set_nodelay(true);
                let serve = serve(
                    stream,
                    Peer { same_user: false },
                    router.clone(),
                    &state,
                    &places,
                );
                connections.spawn(async move {
                    let _place = place;
                    serve.await;
                });
                while connections.try_join_next().is_some() {}
            }
        }
        #[cfg(unix)]
        Kind::Unix(listener, _file) => {
            let Ok(listener) = tokio::net::UnixListener::from_std(listener) else {
                return;
            };
            let own = rustix::process::geteuid().as_raw();
            loop {
                let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                    return;
                };
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let peer = stream.peer_cred().map(|peer| peer.uid());
                let same_user = peer.is_ok_and(|uid| uid == own || uid == 0);
                let serve = serve(stream, Peer { same_user }, router.clone(), &state, &places);
                connections.spawn(async move {
                    let _place = place;
                    serve.await;
                });
                while connections.try_join_next().is_some() {}
            }
        }
    }
}

/// Serves one connection to its end.
fn serve<T>(
    stream: T,
    peer: Peer,
    router: Router,
    state: &State,
    places: &Arc<Semaphore>,
) -> impl Future<Output = ()> + Send + use<T>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router);
    let places = Arc::clone(places);
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        let answer = hyper::service::Service::call(&service, request);
        let places = Arc::clone(&places);
        async move {
            let mut response = answer.await?;
            // With others waiting, an idle connection would hold a place for nothing.
            if places.available_permits() == 0 {
                let close = axum::http::HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let io = TokioIo::new(Patient::new(stream, state.config.idle_time));
    // Hyper adds it to its clock.
    let header_time = state.config.header_time.min(A_YEAR);
    async move {
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(header_time)
            .max_headers(64)
            .max_buf_size(32 << 10)
            .serve_connection(io, service);
        // A peer that breaks off is no fault of the server.
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection ended early");
        }
    }
}

fn router(state: Arc<State>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let (action, state) = (route.action, Arc::clone(&state));
        let handler = move |request: Request<Body>| {
            let state = Arc::clone(&state);
            async move {
                let (mut parts, body) = request.into_parts();
                let params = RawPathParams::from_request_parts(&mut parts, &()).await;
                // Each path names one thing at most.
                let subject = params.ok().and_then(|params| {
                    let first = params.iter().next();
                    first.map(|(_, value)| value.to_owned())
                });
                let request = Request::from_parts(parts, body);
                answer::answer(state, action, subject.unwrap_or_default(), request).await
            }
        };
        router = router.route(route.path, on(route.verb.filter(), handler));
    }
    let unknown = |status: StatusCode, why: &'static str| {
        move || async move {
            let error = reply::refused(ErrorKind::InvalidInput, Operation::Connect, why);
            let mut reply = Reply::error(error);
            reply.status = status;
            reply.into_response()
        }
    };
    let missing = "there is no such route; /v1/openapi.json has all";
    let wrong = "the route has no such method; /v1/openapi.json has all";
    router
        .fallback(unknown(StatusCode::NOT_FOUND, missing))
        .method_not_allowed_fallback(unknown(StatusCode::METHOD_NOT_ALLOWED, wrong))
        .layer(axum::middleware::from_fn_with_state(state, admit))
}

/// Lets a request pass whose caller is the owner.
async fn admit(
    axum::extract::State(state): axum::extract::State<Arc<State>>,
    mut request: Request<Body>,
    next: axum::middleware::Next,
) -> Response<Body> {
    let is_health = ROUTES
        .iter()
        .any(|route| route.action == Action::Health && route.path == request.uri().path());
    if !is_health {
        let peer = request.extensions().get::<Peer>().copied();
        let caller = Caller {
            token: token(request.headers()),
            same_user: peer.is_some_and(|peer| peer.same_user),
        };
        let admitted = tokio::time::timeout(ADMITTING, state.access.admits(&caller)).await;
        if admitted != Ok(true) {
            let error = Error::new(ErrorKind::Unauthenticated, Operation::Connect)
                .with_message("the server does not admit this caller")
                .with_hint("give the token that the server was started with");
            let mut response = Reply::error(error).into_response();
            let challenge = axum::http::HeaderValue::from_static("Bearer");
            let headers = response.headers_mut();
            headers.insert(header::WWW_AUTHENTICATE, challenge);
            // The body was not read.
            let close = axum::http::HeaderValue::from_static("close");
            headers.insert(header::CONNECTION, close);
            return response;
        }
        // Nothing behind this needs it.
        request.headers_mut().remove(header::AUTHORIZATION);
        request.headers_mut().remove(OWN_TOKEN);
    }
    next.run(request).await
}

/// The token of a request: in the server's own header, or in the usual one.
fn token(headers: &HeaderMap) -> Option<Secret> {
    let value = headers
        .get(OWN_TOKEN)
        .or_else(|| headers.get(header::AUTHORIZATION))?;
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| Secret::new(token.trim_ascii()))
}

/// A provider of one sandbox.
#[derive(Debug)]
struct Only {
    backend: String,
    sandbox: Arc<dyn Sandbox>,
}

impl Only {
    fn find(&self, id: &SandboxId, operation: Operation) -> Result<&Arc<dyn Sandbox>> {
        match self.sandbox.info().id == *id {
            true => Ok(&self.sandbox),
            false => Err(Error::new(ErrorKind::NotFound, operation)
                .with_message("the server has one sandbox, and this is another")
                .with_sandbox(id.clone())),
        }
    }
}

#[async_trait]
impl Provider for Only {
    fn backend(&self) -> &str {
        &self.backend
    }

    fn capabilities(&self) -> Capabilities {
        self.sandbox.capabilities()
    }

    async fn create(&self, _: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        let why = "the server has one sandbox, which exists";
        let error = Error::unsupported(Operation::Create, "another sandbox", why);
        Err(error.with_hint("attach to the server's own"))
    }

    async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
        self.find(id, Operation::Attach).cloned()
    }

    async fn list(&self, labels: &Labels) -> Result<Vec<SandboxInfo>> {
        let info = self.sandbox.info();
        let fits = labels.iter().all(|(k, v)| info.labels.get(k) == Some(v));
        Ok(fits.then_some(info).into_iter().collect())
    }

    async fn destroy(&self, id: &SandboxId) -> Result<()> {
        self.find(id, Operation::Destroy)?.close().await
    }
}
