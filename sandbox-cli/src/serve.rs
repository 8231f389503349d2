//! `sandbox serve`: sandboxes for other programs, in any language, and beyond the life of a client.
//!
//! It must never listen where another machine could reach it: there is no TLS here.

use std::net::SocketAddr;
use std::sync::Arc;

use sandbox::remote::{Access, Listener, SameUser, Server, ServerConfig, TokenAccess};
use sandbox::{Error, ErrorKind, Operation};
use serde_json::json;

use crate::arguments::ServeOptions;
use crate::show::{Failure, print, print_json};
use crate::stock::connect;
use crate::stop::{closed, stopped};

pub(crate) async fn serve(uri: &str, options: ServeOptions, json: bool) -> Result<u8, Failure> {
    let token = token(&options)?;
    let (listener, access): (Listener, Arc<dyn Access>) = match options.listen.strip_prefix("unix:")
    {
        Some(path) => {
            let access: Arc<dyn Access> = match token {
                Some(token) => Arc::new(token),
                None => Arc::new(SameUser),
            };
            (Listener::unix(path)?, access)
        }
        None => {
            let address: SocketAddr = options.listen.parse().map_err(|_| {
                invalid("the address to listen on can't be read")
                    .with_hint("write unix:/PATH or 127.0.0.1:PORT")
            })?;
            if !address.ip().is_loopback() {
                return Err(
                    invalid("other machines could reach this address, without TLS")
                        .with_hint("listen on 127.0.0.1 and put a proxy that has TLS in front")
                        .into(),
                );
            }
            let Some(token) = token else {
                return Err(invalid(
                    "over TCP every program of this host could connect, so that a token is needed",
                )
                .with_hint(
                    "make one: (umask 077; head -c 32 /dev/urandom | base64 > token), and give \
                     --token-file token; or listen on unix:/PATH",
                )
                .into());
            };
            (Listener::tcp(address)?, Arc::new(token))
        }
    };
    let provider = connect(uri).await?;
    let config = ServerConfig::new()
        .host_paths(options.allow_host_paths)
        .max_commands(options.max_commands)
        .max_sandboxes(options.max_sandboxes)
        .idle(options.idle);
    let serving = Server::new(provider, access)
        .config(config)
        .start(listener)?;
    match json {
        true => print_json(&json!({ "provider": serving.uri() }))?,
        false => print(format!("{}\n", serving.uri()).as_bytes())?,
    }
    tokio::select! {
        () = serving.ended() => {}
        () = stopped() => {}
    }
    Ok(closed(serving.close()).await.err().unwrap_or(0))
}

fn invalid(why: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, Operation::Connect).with_message(why)
}

fn token(options: &ServeOptions) -> Result<Option<TokenAccess>, Failure> {
    let Some(file) = &options.token_file else {
        return Ok(None);
    };
    let read = std::fs::read(file).map_err(|error| {
        Error::from_io(error, Operation::Connect)
            .with_message("the token's file can't be read")
            .with_host_path(file)
    })?;
    Ok(Some(TokenAccess::new(read.trim_ascii())?))
}
