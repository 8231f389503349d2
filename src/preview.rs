//! An HTTP preview of a port of a sandbox: a reverse proxy on the host that asks for a token.
//!
//! It must never pass its token on to the guest, and never pass on a request that did not bring it. It
//! follows no redirect and looks into no body.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue,
    LOCATION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, REFERRER_POLICY, SET_COOKIE, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use sandbox_core::{Error, ErrorKind, Operation, Result, Sandbox, Secret};
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

const OP: Operation = Operation::ConnectPort;

/// Connections that are carried at once; further ones wait.
const MOST: usize = 256;

/// Time for the head of a request.
const HEAD: Duration = Duration::from_secs(30);

/// Pause after a failure to accept: there may be no descriptor left.
const PAUSE: Duration = Duration::from_millis(50);

/// The header by which a program brings the token.
const HEADER: HeaderName = HeaderName::from_static("x-sandbox-token");

/// The parameter by which a link brings it, once.
const PARAMETER: &str = "sandbox-token";

/// Beginning of the names of cookies with a token. A browser sends those of all previews to each.
const COOKIE_NAME: &str = "sandbox-preview-";

/// Headers of one connection, which are not passed on (RFC 9110, 7.6.1).
const HOP: [HeaderName; 6] = [
    CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
];

type Body = BoxBody<Bytes, hyper::Error>;

/// An HTTP preview of a port, from [`preview`]. Dropping it ends that: the listener and its connections.
#[derive(Debug)]
pub struct Preview {
    address: SocketAddr,
    token: Secret,
    task: JoinHandle<()>,
}

impl Preview {
    /// The address on the loopback device.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The token, for the header `x-sandbox-token`.
    pub fn token(&self) -> &Secret {
        &self.token
    }

    /// A link that opens the preview in a browser. It has the token in it: who has the link has the preview.
    pub fn url(&self) -> String {
        let token = String::from_utf8_lossy(self.token.expose());
        format!("http://{}/?{PARAMETER}={token}", self.address)
    }
}

impl Drop for Preview {
    fn drop(&mut self) {
        // Its connections are tasks in a set that the task owns.
        self.task.abort();
    }
}

/// Shows what speaks HTTP at a port of a sandbox at a port of the host's loopback device, to those who
/// have its token, until the guard is dropped.
///
/// [`Preview::url`] is for a browser: it answers with a cookie for itself and the same address without the
/// token. A program sends the header `x-sandbox-token`. Any other request is refused with 401 before
/// anything reaches the sandbox. The guest sees the request without the token, for the host
/// `localhost:PORT`; WebSockets and other upgrades pass. Where nothing listens the answer is 502. At most
/// 256 connections are carried at once, further ones wait. `at` is the port on the host, 0 a free one.
///
/// Pages from the guest are the guest's: a browser sends it the cookies that other servers at
/// 127.0.0.1 have set, but no token of a preview.
///
/// ```no_run
/// # async fn example(sandbox: std::sync::Arc<dyn sandbox::Sandbox>) -> sandbox::Result<()> {
/// let preview = sandbox::preview(sandbox, 8000, 0).await?;
/// println!("{}", preview.url());
/// # Ok(()) }
/// ```
///
/// Dropping the future leaves nothing behind. It must be polled in a tokio runtime with I/O and time,
/// which serves the preview.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) for port 0, and outside of such a runtime; [`Unsupported`](ErrorKind::Unsupported)
/// without [`Capability::Ports`](sandbox_core::Capability::Ports); the host's error if the address can't
/// be listened on.
pub async fn preview(sandbox: Arc<dyn Sandbox>, port: u16, at: u16) -> Result<Preview> {
    let id = sandbox.info().id;
    let named = |error: Error| error.with_sandbox(id.clone());
    crate::expose::require_runtime().map_err(named)?;
    sandbox_core::backend::check_port(port).map_err(named)?;
    sandbox
        .capabilities()
        .require(sandbox_core::Capability::Ports, OP)
        .map_err(named)?;
    let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, at));
    let failed = |error| {
        named(Error::from_io(error, OP).with_message(format!("{wanted} can't be listened on")))
    };
    let listener = TcpListener::bind(wanted).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let random = || uuid::Uuid::new_v4().simple().to_string();
    let (token, name) = (random() + &random(), random());
    let door = Arc::new(Door {
        sandbox,
        port,
        cookie: format!("{COOKIE_NAME}{}", name.get(..8).unwrap_or_default()),
        token: token.clone(),
    });
    Ok(Preview {
        address,
        token: Secret::from(token),
        task: tokio::spawn(serve(listener, door)),
    })
}

/// A port behind its token.
struct Door {
    sandbox: Arc<dyn Sandbox>,
    port: u16,
    cookie: String,
    token: String,
}

/// Token that a request brought, or none.
enum Brought {
    Token,
    /// In a link: the address without it.
    InLink(String),
    Nothing,
}

async fn serve(listener: TcpListener, door: Arc<Door>) {
    let places = Arc::new(Semaphore::new(MOST));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        // The semaphore is never closed.
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let door = door.clone();
        connections.spawn(async move {
            let _place = place;
            // Tunnels end with their connection: nothing outlives this task.
            let mut tunnels = tokio::task::JoinSet::new();
            let (tell, mut told) = tokio::sync::mpsc::channel(1);
            let service = service_fn(|request| {
                let (door, tell) = (door.clone(), tell.clone());
                async move { Ok::<_, Infallible>(door.answer(request, tell).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            // A client that breaks off is no event.
            let _ = connection.await;
            while let Ok((outer, inner)) = told.try_recv() {
                tunnels.spawn(tunnel(outer, inner));
            }
            while tunnels.join_next().await.is_some() {}
        });
    }
}

type Upgrades = (hyper::upgrade::OnUpgrade, hyper::upgrade::OnUpgrade);

/// Carries a connection that has changed its protocol.
async fn tunnel(outer: hyper::upgrade::OnUpgrade, inner: hyper::upgrade::OnUpgrade) {
    if let (Ok(outer), Ok(inner)) = tokio::join!(outer, inner) {
        let (mut outer, mut inner) = (TokioIo::new(outer), TokioIo::new(inner));
        let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
    }
}

impl Door {
    async fn answer(
        &self,
        request: Request<Incoming>,
        tell: tokio::sync::mpsc::Sender<Upgrades>,
    ) -> Response<Body> {
        match self.brought(&request) {
            Brought::Token => {}
            Brought::InLink(rest) => return self.admit(&rest),
            Brought::Nothing => {
                let text =
                    "401: this preview needs its token: open the link that it was given with\n";
                return told(StatusCode::UNAUTHORIZED, text);
            }
        }
        match self.pass(request, tell).await {
            Ok(response) => response,
            Err(text) => told(StatusCode::BAD_GATEWAY, text),
        }
    }

    fn is_token(&self, given: &[u8]) -> bool {
        given.ct_eq(self.token.as_bytes()).into()
    }

    fn brought(&self, request: &Request<Incoming>) -> Brought {
        let headers = request.headers();
        if let Some(given) = headers.get(&HEADER)
            && self.is_token(given.as_bytes())
        {
            return Brought::Token;
        }
        // Before the cookie: a page must not find the token in its own address.
        let (given, rest) = split_off_token(request.uri());
        let is_given = given.iter().any(|pair| {
            let (_, value) = pair.split_once('=').unwrap_or_default();
            self.is_token(value.as_bytes())
        });
        if is_given {
            return Brought::InLink(rest);
        }
        let is_ours =
            |(name, value): (&str, &str)| name == self.cookie && self.is_token(value.as_bytes());
        match cookies(headers).any(is_ours) {
            true => Brought::Token,
            false => Brought::Nothing,
        }
    }

    /// Gives a browser the cookie, and has it ask again without the token in the address.
    fn admit(&self, rest: &str) -> Response<Body> {
        let cookie = format!(
            "{}={}; Path=/; HttpOnly; SameSite=Strict",
            self.cookie, self.token
        );
        let mut response = told(StatusCode::SEE_OTHER, "");
        let headers = response.headers_mut();
        for (name, value) in [(LOCATION, rest), (SET_COOKIE, cookie.as_str())] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        response
    }

    /// Passes a request on to the guest.
    async fn pass(
        &self,
        mut request: Request<Incoming>,
        tell: tokio::sync::mpsc::Sender<Upgrades>,
    ) -> std::result::Result<Response<Body>, &'static str> {
        let upgrades = request.headers().contains_key(UPGRADE);
        let outer = upgrades.then(|| hyper::upgrade::on(&mut request));
        self.strip(&mut request, upgrades);
        let stream = self.sandbox.connect_port(self.port).await;
        let stream = stream.map_err(|error| match error.kind() {
            ErrorKind::NotListening => "502: nothing listens at this port of the sandbox\n",
            _ => "502: the sandbox can't be reached\n",
        })?;
        let broken = "502: what listens in the sandbox does not speak HTTP\n";
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|_| broken)?;
        // Ends with the request: the sender, or what was upgraded, is dropped then.
        let driver = tokio::spawn(connection.with_upgrades());
        let mut response = sender.send_request(request).await.map_err(|_| broken)?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(outer) = outer else {
                driver.abort();
                return Err(broken);
            };
            let inner = hyper::upgrade::on(&mut response);
            // One for each connection: after it there is no further request.
            let _ = tell.try_send((outer, inner));
            let head = response.into_parts().0;
            return Ok(Response::from_parts(head, empty()));
        }
        let headers = response.headers_mut();
        remove_hop(headers);
        // A guest must not take a token away from its user.
        let kept: Vec<_> = headers
            .get_all(SET_COOKIE)
            .iter()
            .filter(|cookie| {
                !cookie
                    .as_bytes()
                    .trim_ascii_start()
                    .starts_with(COOKIE_NAME.as_bytes())
            })
            .cloned()
            .collect();
        headers.remove(SET_COOKIE);
        for cookie in kept {
            headers.append(SET_COOKIE, cookie);
        }
        Ok(response.map(|body| {
            Body::new(Held {
                body,
                _driver: Ends(driver),
            })
        }))
    }

    /// Takes out what is the preview's own, and names the host that the guest knows.
    fn strip(&self, request: &mut Request<Incoming>, upgrades: bool) {
        let (_, rest) = split_off_token(request.uri());
        if let Ok(uri) = rest.parse::<Uri>() {
            *request.uri_mut() = uri;
        }
        let headers = request.headers_mut();
        let others: Vec<String> = cookies(headers)
            .filter(|(name, _)| !name.starts_with(COOKIE_NAME))
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        headers.remove(COOKIE);
        // Wherever else it stands: a page that had the link names it as its referrer.
        let with_token: Vec<_> = headers
            .iter()
            .filter(|(_, value)| has(value.as_bytes(), self.token.as_bytes()))
            .map(|(name, _)| name.clone())
            .collect();
        for name in with_token.iter().chain(&[HEADER]) {
            headers.remove(name);
        }
        if !others.is_empty()
            && let Ok(others) = HeaderValue::from_str(&others.join("; "))
        {
            headers.insert(COOKIE, others);
        }
        remove_hop(headers);
        if upgrades {
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        }
        if let Ok(host) = HeaderValue::from_str(&format!("localhost:{}", self.port)) {
            headers.insert(HOST, host);
        }
    }
}

/// The parameters of an address that bring a token, and the path and query without them.
fn split_off_token(uri: &Uri) -> (Vec<&str>, String) {
    let query = uri.query().unwrap_or_default();
    let (given, rest): (Vec<&str>, Vec<&str>) = query.split('&').partition(|pair| {
        let (name, _) = pair.split_once('=').unwrap_or((pair, ""));
        name == PARAMETER
    });
    // Not of another host: a path that begins with two slashes would name one.
    let path = uri.path().trim_start_matches('/');
    let query = rest.join("&");
    let rest = match query.is_empty() {
        true => format!("/{path}"),
        false => format!("/{path}?{query}"),
    };
    (given, rest)
}

fn has(value: &[u8], token: &[u8]) -> bool {
    value.windows(token.len()).any(|part| part == token)
}

/// A response's body, with what carries it.
struct Held {
    body: Incoming,
    _driver: Ends,
}

struct Ends(JoinHandle<hyper::Result<()>>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl hyper::body::Body for Held {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<hyper::Result<hyper::body::Frame<Bytes>>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// The cookies of a request that can be read.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let texts = headers.get_all(COOKIE).iter();
    let texts = texts.filter_map(|value| value.to_str().ok());
    texts
        .flat_map(|text| text.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
}

/// Removes what holds for one connection, and what that says holds for it alone.
fn remove_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| *name != UPGRADE)
        .collect();
    for name in HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

fn empty() -> Body {
    Full::default()
        .map_err(|never: Infallible| match never {})
        .boxed()
}

/// An answer of the preview itself.
fn told(status: StatusCode, text: &'static str) -> Response<Body> {
    let body = Full::new(Bytes::from_static(text.as_bytes()));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, "text/plain; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
