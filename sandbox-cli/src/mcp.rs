//! `sandbox mcp`: sandboxes for an agent that speaks the Model Context Protocol.
//!
//! It must never print anything but the protocol to standard output while it serves there, nor
//! listen where another machine could reach it: there is no TLS here.

use std::net::SocketAddr;

use sandbox::sessions::{Limits, Sessions, SessionsConfig, ShutdownOptions};
use sandbox::{Error, ErrorKind, Operation};
use sandbox_mcp::{HttpOptions, Server, ServerOptions};

use crate::arguments::McpOptions;
use crate::show::{Failure, complain};
use crate::stock::connect;
use crate::stop::{closed, stopped};

pub(crate) async fn mcp(uri: &str, options: McpOptions) -> Result<u8, Failure> {
    let http = http(&options)?;
    let config = SessionsConfig::new()
        .idle_timeout(options.idle)
        .limits(Limits::new().total(options.max_sandboxes));
    let mut allowed = ServerOptions::new().allow_network(options.allow_network);
    if let Some(root) = options.export_root {
        allowed = allowed.export_root(root);
    }
    for root in options.import_root {
        allowed = allowed.import_root(root);
    }
    let uri = uri.to_owned();
    let open = move || {
        let (uri, config) = (uri.clone(), config.clone());
        async move {
            let provider = connect(&uri).await.map_err(Failure::into_error)?;
            Sessions::open(provider, config).await.map_err(failed)
        }
    };
    let server = Server::opening(open, allowed)?;
    let serving = server.clone();
    let serve = async {
        match http {
            None => serving.serve_stdio().await,
            Some((address, options)) => {
                let ready =
                    |address| complain(&format!("sandbox: listening on http://{address}/mcp"));
                serving.serve_http(address, options, ready).await
            }
        }
    };
    let served = tokio::select! {
        served = serve => served,
        error = mistake(&server) => Err(error),
        () = stopped() => Ok(()),
    };
    let ended = closed(async {
        match server.end().await {
            Some(sessions) => sessions.shutdown(ShutdownOptions::new()).await.map(drop),
            None => Ok(()),
        }
    });
    let ended = ended.await;
    served?;
    match ended {
        Ok(ended) => ended.map_err(failed).map(|()| 0).map_err(Failure::from),
        Err(signal) => Ok(signal),
    }
}

/// Connects ahead of the first call. Comes back with what only the operator can mend; an outage is told
/// to the calls, each of which tries again.
async fn mistake(server: &Server) -> Error {
    match server.open().await {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::InvalidInput | ErrorKind::Unsupported
            ) =>
        {
            return error;
        }
        Err(error) => complain(&format!("sandbox: {error}; the next call tries again")),
        Ok(_) => {}
    }
    std::future::pending().await
}

fn failed(error: sandbox::sessions::Error) -> Error {
    Error::new(ErrorKind::Other, Operation::Connect).with_message(error.to_string())
}

fn invalid(why: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, Operation::Connect).with_message(why)
}

fn http(options: &McpOptions) -> Result<Option<(SocketAddr, HttpOptions)>, Error> {
    let Some(address) = options.listen else {
        return Ok(None);
    };
    if !address.ip().is_loopback() {
        return Err(
            invalid("other machines could reach this address, without TLS").with_hint(
                "listen on 127.0.0.1, put a proxy that has TLS in front, and name it with \
                 --allow-host",
            ),
        );
    }
    let Some(file) = &options.token_file else {
        return Err(invalid(
            "over TCP every program of this host could connect, so that a token is needed",
        )
        .with_hint(
            "make one: (umask 077; head -c 32 /dev/urandom | base64 > token), and give \
             --token-file token",
        ));
    };
    let token = std::fs::read(file).map_err(|error| {
        Error::from_io(error, Operation::Connect)
            .with_message("the token's file can't be read")
            .with_host_path(file)
    })?;
    let mut http = HttpOptions::new(token.trim_ascii().to_vec());
    for host in &options.allow_host {
        http = http.allow_host(host);
    }
    for origin in &options.allow_origin {
        http = http.allow_origin(origin);
    }
    Ok(Some((address, http)))
}
