//! Streamable HTTP: who may connect.
//!
//! It must never serve a request without the token, nor one that a page of a foreign origin sends.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use sandbox_core::{Error, ErrorKind, Operation, Result, Secret};
use subtle::ConstantTimeEq as _;

use crate::server::Server;
use crate::tools::Tools;

/// Options of a server over HTTP.
///
/// ```
/// use sandbox_mcp::HttpOptions;
/// let options = HttpOptions::new("a-long-random-token")
///     .allow_host("sandboxes.example.com")
///     .allow_origin("https://app.example.com:443");
/// assert_eq!(options.allowed_origins.len(), 1);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HttpOptions {
    /// Token that a client must send as `Authorization: Bearer TOKEN`; at least 16 bytes.
    pub token: Secret,
    /// Names in the `Host` header that are served beside those of the loopback.
    pub allowed_hosts: Vec<String>,
    /// Origins whose pages may send requests, with scheme and port. Default: none. A request without
    /// an `Origin` header does not come from a page.
    pub allowed_origins: Vec<String>,
}

impl HttpOptions {
    /// Requires this token; serves the loopback's names, and no page.
    pub fn new(token: impl Into<Secret>) -> Self {
        Self {
            token: token.into(),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
        }
    }

    /// Serves this name too.
    #[must_use]
    pub fn allow_host(mut self, host: impl Into<String>) -> Self {
        self.allowed_hosts.push(host.into());
        self
    }

    /// Lets pages of this origin send requests.
    #[must_use]
    pub fn allow_origin(mut self, origin: impl Into<String>) -> Self {
        self.allowed_origins.push(origin.into());
        self
    }
}

impl Server {
    /// Serves streamable HTTP at `/mcp` of an address until the future is dropped; `ready` is called
    /// with the address once it is listened on. The sessions stay the caller's.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a token that is too short; what the operating system says of
    /// the address.
    pub async fn serve_http(
        self,
        address: SocketAddr,
        options: HttpOptions,
        ready: impl FnOnce(SocketAddr) + Send,
    ) -> Result<()> {
        if options.token.expose().len() < 16 {
            return Err(Error::new(ErrorKind::InvalidInput, Operation::Connect)
                .with_message("the token has less than 16 bytes")
                .with_hint("use a random one, such as of `openssl rand -hex 32`"));
        }
        let io = |error| {
            Error::from_io(error, Operation::Connect).with_message(format!("listen on {address}"))
        };
        let mut hosts = vec![
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
            "::1".to_owned(),
        ];
        hosts.extend(options.allowed_hosts);
        let config = StreamableHttpServerConfig::default()
            .with_allowed_hosts(hosts)
            .with_allowed_origins(options.allowed_origins)
            .enforce_origin_validation();
        let service: StreamableHttpService<Tools, LocalSessionManager> = StreamableHttpService::new(
            move || Ok(Tools::new(self.shared.clone())),
            Arc::default(),
            config,
        );
        let token: Arc<Secret> = Arc::new(options.token);
        let app = axum::Router::new()
            .route_service("/mcp", service)
            .layer(from_fn_with_state(token, authorize));
        let listener = tokio::net::TcpListener::bind(address).await.map_err(io)?;
        ready(listener.local_addr().map_err(io)?);
        axum::serve(listener, app).await.map_err(io)
    }
}

async fn authorize(State(token): State<Arc<Secret>>, request: Request, next: Next) -> Response {
    if is_authorized(request.headers(), token.expose()) {
        return next.run(request).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    (
        StatusCode::UNAUTHORIZED,
        challenge,
        "a bearer token is needed",
    )
        .into_response()
}

fn is_authorized(headers: &HeaderMap, token: &[u8]) -> bool {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    let Some((scheme, given)) = value.as_bytes().split_at_checked(7) else {
        return false;
    };
    scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(given.ct_eq(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_opens() {
        let with = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            is_authorized(&headers, b"0123456789abcdef")
        };
        assert!(with(&["Bearer 0123456789abcdef"]) && with(&["bearer 0123456789abcdef"]));
        for values in [
            &[][..],
            &["0123456789abcdef"],
            &["Bearer "],
            &["Bearer 0123456789abcde"],
            &["Bearer 0123456789abcdeg"],
            &["Bearer 0123456789abcdef "],
            &["Basic 0123456789abcdef"],
            &["Bearer 0123456789abcdef", "Bearer x"],
        ] {
            assert!(!with(values), "{values:?}");
        }
    }
}
