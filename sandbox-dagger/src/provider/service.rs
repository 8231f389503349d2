//! Servers in the engine, reached from the host.
//!
//! Invariant: a service without a handle is stopped; nothing waits for that without a bound.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sandbox_core::{Command, Error, ErrorKind, GuestPath, Operation, Result, SandboxId, Stdin};

use crate::DaggerProvider;
use crate::sandbox::exec;
use crate::session::client::SMALL_ANSWER;
use crate::session::connect::Session;
use crate::session::failure::Failed;
use crate::session::query::{self, find};
use crate::session::secrets::keep_secrets;

const OP: Operation = Operation::Spawn;
/// Limit of the time for stopping.
const STOP: Duration = Duration::from_secs(30);

/// A server that runs on a copy of a sandbox's files; its port can be reached from the host.
///
/// What it writes stays with it: the sandbox does not see it. It goes on when the sandbox is
/// closed, and is stopped by [`stop`](Self::stop) or, within a runtime, when it is dropped.
#[derive(Debug)]
pub struct Service {
    session: Arc<Session>,
    /// The tunnel first: it is what is in use.
    ids: Vec<String>,
    address: SocketAddr,
}

impl Service {
    /// Address on this host's loopback.
    ///
    /// The engine's client may listen on **all** addresses of the host, and every sandbox of the
    /// engine reaches the port inside, across sessions too: what serves must not trust its callers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops it.
    ///
    /// Dropping the future may leave it running until the session ends.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) if the engine can't be asked.
    pub async fn stop(mut self) -> Result<()> {
        let ids = std::mem::take(&mut self.ids);
        stop(&self.session, ids)
            .await
            .map_err(|failed| failed.error(OP))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let ids = std::mem::take(&mut self.ids);
        if let (false, Ok(runtime)) = (ids.is_empty(), tokio::runtime::Handle::try_current()) {
            let session = self.session.clone();
            runtime.spawn(async move {
                // A failure can't be reported any more; the engine ends it with the session at the
                // latest.
                let _ = stop(&session, ids).await;
            });
        }
    }
}

async fn stop(session: &Session, ids: Vec<String>) -> std::result::Result<(), Failed> {
    for id in ids {
        let query = query::on_service(&id, "stop(kill: true)");
        session.query(&query, SMALL_ANSWER, STOP).await?;
    }
    Ok(())
}

impl DaggerProvider {
    /// Runs a command as a server on the files that a sandbox of this provider has now, and waits
    /// until its TCP port answers.
    ///
    /// It gets the sandbox's environment and workdir, and the command's own. Limits of output are
    /// without meaning here; a timeout, input or a user is refused.
    ///
    /// Dropping the future leaves no server that can be reached.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) without such a sandbox,
    /// [`Unsupported`](ErrorKind::Unsupported) for what is refused,
    /// [`Other`](ErrorKind::Other) with what the engine says if the command ends or its port does
    /// not answer.
    pub async fn serve(&self, sandbox: &SandboxId, command: Command, port: u16) -> Result<Service> {
        let sandbox = self.find(sandbox, OP)?;
        sandbox.check_open(OP)?;
        command.validate(OP).map_err(|error| sandbox.named(error))?;
        let refused = [
            ("a timeout", command.timeout.is_some()),
            ("standard input", !matches!(command.stdin, Stdin::Empty)),
            ("a user", command.user.is_some()),
        ];
        if let Some((what, _)) = refused.iter().find(|(_, asked)| *asked) {
            let why = "a service has no such option";
            return Err(sandbox.named(Error::unsupported(OP, *what, why)));
        }
        let mut settings = sandbox.settings();
        let cwd = command.cwd.clone().unwrap_or_else(|| GuestPath::from("."));
        let cwd = settings.common.resolve(&cwd, OP)?;
        let own = keep_secrets(&sandbox.session, &command.env, sandbox.patience()).await;
        let own = own.map_err(|failed| sandbox.named(failed.error(OP)))?;
        settings.change_env(&command.env, own);
        let limits = &sandbox.shared.config.limits;
        let (script, secrets) = exec::serve(&command, &cwd, &settings, limits)?;
        let script = query::string(&script);
        let mut below = format!(
            "withExposedPort(port: {port}) {{ asService(args: [\"/bin/sh\", \"-c\", {script}], \
             experimentalPrivilegedNesting: false) {{ id }} }}"
        );
        for (variable, secret) in secrets {
            below = format!(
                "withSecretVariable(name: \"{variable}\", secret: {}) {{ {below} }}",
                query::string(&secret)
            );
        }
        let ask = async |query: String| {
            let within = sandbox.patience();
            sandbox.ask(&query, OP, SMALL_ANSWER, within).await
        };
        let garbage = || Failed::Garbage("no id".into()).error(OP);
        let answer = ask(query::on_container(&sandbox.chain.head().id, &below)).await?;
        let served = find(&answer, "id").ok_or_else(garbage)?.to_owned();
        let answer = ask(format!(
            "query {{ host {{ tunnel(service: {}) {{ id }} }} }}",
            query::string(&served)
        ))
        .await?;
        let tunnel = find(&answer, "id").ok_or_else(garbage)?.to_owned();
        // From here on a dropped future stops what was started.
        let mut service = Service {
            session: sandbox.session.clone(),
            ids: vec![tunnel.clone(), served],
            address: (Ipv4Addr::LOCALHOST, 0).into(),
        };
        ask(query::on_service(&tunnel, "start")).await?;
        let answer = ask(query::on_service(&tunnel, "endpoint")).await?;
        let endpoint = find(&answer, "endpoint").unwrap_or_default();
        let port = endpoint
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok());
        let port = port.ok_or_else(|| {
            Error::new(ErrorKind::Other, OP).with_message(format!(
                "the engine gave {endpoint:?} instead of an address"
            ))
        })?;
        service.address.set_port(port);
        Ok(service)
    }
}
