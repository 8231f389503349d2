//! HTTP that the host reads: plain, and inside of TLS that it ends.
//!
//! Requests are parsed and written anew, never passed on as bytes, so that the guest and the
//! upstream can't be made to see different requests. Each request of a connection is judged by
//! itself. A secret goes to its host alone, and never into an answer's headers.
//!
//! References: RFC 9110 7.2 and 7.6.1; RFC 9112 3.2 and 6.3.

use std::collections::HashSet;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use sandbox_core::{EgressVerdict, canonical_host};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::meter::Metered;
use crate::reach::{Dialled, Stream, Unreached, carry};
use crate::{Egress, Permit};

/// Limit of the time for the head of a request, from the end of the one before.
const HEAD_TIME: Duration = Duration::from_secs(30);
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// The most that the head of a message may have.
const MOST_HEADERS: usize = 100;
const LARGEST_HEAD: usize = 64 * 1024;

type Body = BoxBody<Bytes, hyper::Error>;

/// One connection of the guest.
struct Site {
    egress: Arc<Egress>,
    to: Dialled,
    permit: Permit,
    /// Whether the guest speaks TLS to us.
    intercepted: bool,
    upstream: Mutex<Option<Upstream>>,
    /// Both ends of a connection that has become another protocol's.
    upgraded: std::sync::Mutex<Option<(OnUpgrade, OnUpgrade)>>,
}

/// A connection to the host, with the task that drives it.
struct Upstream {
    requests: SendRequest<Incoming>,
    driver: JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Why a request is not passed on.
struct Refusal {
    status: StatusCode,
    why: String,
    /// Nothing of the guest's doing: it was allowed and could not be had, and stands in the log.
    known: bool,
}

fn refuse(status: StatusCode, why: impl Into<String>) -> Refusal {
    Refusal {
        status,
        why: why.into(),
        known: false,
    }
}

/// Serves plain HTTP.
pub(crate) async fn serve(
    egress: Arc<Egress>,
    to: Dialled,
    permit: Permit,
    stream: Metered<TcpStream>,
) {
    requests(egress, to, permit, false, stream).await;
}

/// Ends the guest's TLS, of which the first message was read, and serves the HTTP inside of it.
pub(crate) async fn intercept(
    egress: Arc<Egress>,
    to: Dialled,
    permit: Permit,
    hello: Vec<u8>,
    stream: Metered<TcpStream>,
) {
    let authority = egress.plan.authority.clone();
    let config = match authority.map(|authority| authority.server(&to.name)) {
        Some(Ok(config)) => config,
        Some(Err(error)) => return egress.denied(&to.name, to.port, &error.to_string()),
        None => return egress.denied(&to.name, to.port, "there is no certificate for it"),
    };
    let read = Replayed {
        first: hello.into(),
        stream,
    };
    let accepted = TlsAcceptor::from(config).accept(read);
    match tokio::time::timeout(HANDSHAKE_TIME, accepted).await {
        Ok(Ok(stream)) => requests(egress, to, permit, true, stream).await,
        Ok(Err(error)) => {
            let why = format!(
                "the sandbox's program ended the TLS handshake ({error}); it may not trust the \
                 sandbox's certificate, or speak HTTP/2 alone"
            );
            egress.denied(&to.name, to.port, &why);
        }
        Err(_) => egress.denied(&to.name, to.port, "the TLS handshake took too long"),
    }
}

/// A stream of which the beginning was read before.
struct Replayed<S> {
    first: Bytes,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Replayed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let count = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replayed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

async fn requests(
    egress: Arc<Egress>,
    to: Dialled,
    permit: Permit,
    intercepted: bool,
    stream: impl Stream,
) {
    let site = Arc::new(Site {
        egress,
        to,
        permit,
        intercepted,
        upstream: Mutex::default(),
        upgraded: std::sync::Mutex::default(),
    });
    let service = service_fn(|request| {
        let site = site.clone();
        async move { Ok::<_, Infallible>(site.answer(request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_headers(MOST_HEADERS)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served
        && (error.is_parse() || error.is_timeout())
    {
        let why = format!("a request can't be read: {error}");
        site.egress.denied(&site.to.name, site.to.port, &why);
    }
    let upgraded = match site.upgraded.lock() {
        Ok(mut upgraded) => upgraded.take(),
        Err(_) => None,
    };
    if let Some((guest, upstream)) = upgraded
        && let Ok((guest, upstream)) = tokio::try_join!(guest, upstream)
    {
        let (mut guest, mut upstream) = (TokioIo::new(guest), TokioIo::new(upstream));
        carry(&site.egress, &site.to, &mut guest, &mut upstream).await;
    }
}

impl Site {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let refusal = match self.judge(&request) {
            Ok(()) => match self.pass_on(request).await {
                Ok(response) => return response,
                Err(refusal) => refusal,
            },
            Err(refusal) => refusal,
        };
        let Refusal { status, why, known } = refusal;
        if !known {
            self.egress.denied(&self.to.name, self.to.port, &why);
        }
        let text = format!("sandbox egress: {why}\n");
        let body = Full::new(Bytes::from(text)).map_err(|never| match never {});
        let mut response = Response::new(body.boxed());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        // What may follow was sent by one who thought that this one was passed on.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        response
    }

    /// Whether a request is for the name that was dialled, in every place that says so.
    fn judge(&self, request: &Request<Incoming>) -> Result<(), Refusal> {
        let bad = |why| refuse(StatusCode::BAD_REQUEST, why);
        let wrong_host = |host: &str| {
            let why = format!("the request is for {host:?}, which was not dialled");
            let status = match self.intercepted {
                true => StatusCode::MISDIRECTED_REQUEST,
                false => StatusCode::FORBIDDEN,
            };
            refuse(status, why)
        };
        if request.method() == Method::CONNECT {
            let why = "CONNECT is for proxies; dial the host itself";
            return Err(refuse(StatusCode::METHOD_NOT_ALLOWED, why));
        }
        let echoes = [Method::TRACE, Method::OPTIONS].contains(request.method());
        if echoes && self.permit.rule.has_credentials() {
            let why = "TRACE and OPTIONS are not passed on where the host adds credentials";
            return Err(refuse(StatusCode::METHOD_NOT_ALLOWED, why));
        }
        if request.version() > Version::HTTP_11 {
            return Err(bad("only HTTP/1 can be judged here"));
        }
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(bad("a request has exactly one Host header"));
        };
        let host = host.to_str().unwrap_or_default();
        if !self.is_dialled(host) {
            return Err(wrong_host(host));
        }
        if let Some(authority) = request.uri().authority()
            && !self.is_dialled(authority.as_str())
        {
            return Err(wrong_host(authority.as_str()));
        }
        let schemes = ["http", if self.intercepted { "https" } else { "http" }];
        if request
            .uri()
            .scheme_str()
            .is_some_and(|scheme| !schemes.contains(&scheme))
        {
            return Err(bad("the request's scheme is another than the connection's"));
        }
        Ok(())
    }

    /// Whether a host with an optional port is the one that was dialled.
    fn is_dialled(&self, authority: &str) -> bool {
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()),
            None => (authority, Some(if self.intercepted { 443 } else { 80 })),
        };
        // Without a port the scheme's own is meant; behind another one some clients leave it out.
        let port_fits = port == Some(self.to.port) || !authority.contains(':');
        port_fits && canonical_host(host).is_some_and(|host| host == self.to.name)
    }

    async fn pass_on(&self, mut request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        let guest = hyper::upgrade::on(&mut request);
        let wants_web_socket = is_web_socket(request.headers());
        self.rewrite(&mut request, wants_web_socket)?;
        let mut response = self.send(request).await?;
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switches && !wants_web_socket {
            let why = "the host switched to a protocol that was not asked for";
            return Err(refuse(StatusCode::BAD_GATEWAY, why));
        }
        if switches {
            let upstream = hyper::upgrade::on(&mut response);
            if let Ok(mut upgraded) = self.upgraded.lock() {
                *upgraded = Some((guest, upstream));
            }
        }
        strip(response.headers_mut(), switches);
        self.redact(response.headers_mut());
        Ok(response.map(|body| body.boxed()))
    }

    /// Makes the request the host's own: framed anew, addressed to the upstream, with the rule's
    /// headers in place of the guest's.
    fn rewrite(&self, request: &mut Request<Incoming>, upgrade: bool) -> Result<(), Refusal> {
        let bad = |why| refuse(StatusCode::BAD_REQUEST, why);
        let path = request.uri().path_and_query();
        let path = path.map_or("/", |path| path.as_str()).to_owned();
        *request.uri_mut() = path
            .parse::<Uri>()
            .map_err(|_| bad("the request's path can't be read"))?;
        *request.version_mut() = Version::HTTP_11;
        let headers = request.headers_mut();
        strip(headers, upgrade);
        let default = if self.intercepted { 443 } else { 80 };
        let host = match &self.permit.rule.upstream {
            Some(upstream) => upstream.clone(),
            None if self.to.port == default => self.to.name.clone(),
            None => format!("{}:{}", self.to.name, self.to.port),
        };
        let host = HeaderValue::try_from(host).map_err(|_| bad("the host can't be written"))?;
        headers.insert(header::HOST, host);
        for set in &self.permit.rule.headers {
            let name = HeaderName::from_bytes(set.name.as_bytes());
            let value = HeaderValue::from_bytes(set.value.expose());
            // Both were checked with the policy.
            let (Ok(name), Ok(mut value)) = (name, value) else {
                return Err(bad("a header of the rule can't be written"));
            };
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(())
    }

    /// Sends a request, by the connection of the one before if that is still there.
    async fn send(&self, request: Request<Incoming>) -> Result<Response<Incoming>, Refusal> {
        let mut upstream = self.upstream.lock().await;
        let is_there = match &mut *upstream {
            Some(upstream) => upstream.requests.ready().await.is_ok(),
            None => false,
        };
        if !is_there {
            *upstream = Some(self.connect().await?);
        }
        let Some(Upstream { requests, .. }) = &mut *upstream else {
            return Err(refuse(StatusCode::BAD_GATEWAY, "there is no connection"));
        };
        requests
            .send_request(request)
            .await
            .map_err(|error| Refusal {
                status: StatusCode::BAD_GATEWAY,
                why: format!("the host's answer can't be read: {error}"),
                known: true,
            })
    }

    async fn connect(&self) -> Result<Upstream, Refusal> {
        let failed = |why: String| Refusal {
            status: StatusCode::BAD_GATEWAY,
            why,
            known: false,
        };
        let reached = self.egress.reach(&self.to, &self.permit).await;
        let stream = reached.map_err(|Unreached { verdict, why }| Refusal {
            status: match verdict {
                EgressVerdict::Denied => StatusCode::FORBIDDEN,
                _ => StatusCode::BAD_GATEWAY,
            },
            why,
            known: true,
        })?;
        let stream: Box<dyn Stream> = if self.permit.rule.has_credentials() {
            let Some(client) = self.egress.plan.client.clone() else {
                return Err(failed("the host has no certificates to trust".into()));
            };
            let name = self
                .permit
                .rule
                .upstream
                .as_deref()
                .unwrap_or(&self.to.name);
            let name = name.trim_end_matches('.').to_owned();
            let name = ServerName::try_from(name)
                .map_err(|_| failed("the host's name can't be a TLS server name".into()))?;
            let handshake = TlsConnector::from(client).connect(name, stream);
            match tokio::time::timeout(HANDSHAKE_TIME, handshake).await {
                Ok(Ok(stream)) => Box::new(stream),
                Ok(Err(error)) => {
                    return Err(failed(format!(
                        "the host's certificate or TLS fails: {error}"
                    )));
                }
                Err(_) => return Err(failed("the host's TLS took too long".into())),
            }
        } else {
            Box::new(stream)
        };
        let handshake = hyper::client::conn::http1::Builder::new()
            .max_buf_size(LARGEST_HEAD)
            .handshake(TokioIo::new(stream))
            .await;
        let (requests, connection) = handshake.map_err(|error| failed(error.to_string()))?;
        let driver = tokio::spawn(async move {
            let _ = connection.with_upgrades().await;
        });
        Ok(Upstream { requests, driver })
    }

    /// Takes the rule's secrets out of headers in which the host sends them back.
    fn redact(&self, headers: &mut HeaderMap) {
        for set in &self.permit.rule.headers {
            let secret = set.value.expose();
            // `Bearer SECRET`: the second word alone is the secret too.
            let word = secret.rsplit(|byte| *byte == b' ').next().unwrap_or(secret);
            for value in headers.values_mut() {
                let echoes = word.len() >= 4
                    && value
                        .as_bytes()
                        .windows(word.len())
                        .any(|part| part == word);
                if echoes {
                    *value = HeaderValue::from_static("redacted");
                }
            }
        }
    }
}

fn is_web_socket(headers: &HeaderMap) -> bool {
    let mut upgrades = headers.get_all(header::UPGRADE).iter();
    let one = upgrades
        .next()
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    one && upgrades.next().is_none()
}

/// Headers that are for one connection.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
];

/// Removes what is for one connection, and what `Connection` names; a web socket's upgrade is
/// written anew.
fn strip(headers: &mut HeaderMap, upgrade: bool) {
    let mut named = HashSet::new();
    for value in headers.get_all(header::CONNECTION) {
        let text = value.to_str().unwrap_or_default();
        let tokens = text
            .split(',')
            .map(|token| token.trim().to_ascii_lowercase());
        // Framing is hyper's, whatever a message says of it.
        named.extend(tokens.filter(|token| {
            !["content-length", "host", "transfer-encoding"].contains(&token.as_str())
        }));
    }
    for name in named {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            headers.remove(name);
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    if upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
}
