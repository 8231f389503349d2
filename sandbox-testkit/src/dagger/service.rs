//! Services and tunnels to them.
//!
//! The double's containers are in the host's network: a service listens on its own port of
//! loopback, so that two with the same port can't run at once.
//!
//! Invariant: nothing runs before `start`, nor after `stop` or the double's end.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use sandbox_core::{Process, Sandbox, SandboxExt as _};
use serde_json::{Value, json};
use tokio::io::AsyncRead;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::container::Container;
use super::engine::{Engine, Failure};
use super::query::Field;

/// File in which names of services are looked up.
const HOSTS: &str = "/etc/hosts";
/// Time that the engine's health check waits.
const HEALTHY: Duration = Duration::from_secs(60);

/// A service that may run.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) digest: String,
    pub(super) source: ServiceSource,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
pub(super) enum ServiceSource {
    Container {
        container: Arc<Container>,
        args: Vec<String>,
    },
    Tunnel(Arc<Service>),
}

#[derive(Debug)]
struct Running {
    port: u16,
    what: What,
}

#[derive(Debug)]
enum What {
    Server {
        sandbox: Arc<dyn Sandbox>,
        _process: Process,
    },
    Tunnel(JoinHandle<()>),
}

impl Drop for Running {
    fn drop(&mut self) {
        if let What::Tunnel(task) = &self.what {
            task.abort();
        }
    }
}

impl Service {
    pub(super) fn new(digest: String, source: ServiceSource) -> Self {
        Self {
            digest,
            source,
            running: Mutex::default(),
        }
    }

    /// A field of a service.
    pub(super) async fn field(
        self: &Arc<Self>,
        engine: &Arc<Engine>,
        field: &Field,
    ) -> Result<Option<Value>, Failure> {
        let id = json!(format!("Service:{}", self.digest));
        Ok(Some(match field.name.as_str() {
            "id" => id,
            "start" => {
                Box::pin(self.start(engine)).await?;
                id
            }
            "stop" => {
                self.stop().await?;
                id
            }
            "hostname" => json!("127.0.0.1"),
            "endpoint" => {
                let asked = field.arguments.get("port").and_then(Value::as_u64);
                let port = match &self.source {
                    ServiceSource::Container { container, .. } => {
                        let mut ports = container.config.ports.iter().copied();
                        ports.find(|port| asked.is_none_or(|asked| asked == u64::from(*port)))
                    }
                    ServiceSource::Tunnel(_) => self
                        .running
                        .lock()
                        .await
                        .as_ref()
                        .map(|running| running.port),
                };
                let port = port.ok_or_else(|| Failure::text("no ports exposed"))?;
                let scheme = field.text("scheme").map(|scheme| format!("{scheme}://"));
                json!(format!("{}127.0.0.1:{port}", scheme.unwrap_or_default()))
            }
            _ => return Ok(None),
        }))
    }

    async fn start(self: &Arc<Self>, engine: &Arc<Engine>) -> Result<u16, Failure> {
        let mut running = self.running.lock().await;
        if let Some(running) = &*running {
            return Ok(running.port);
        }
        let started = match &self.source {
            ServiceSource::Container { container, args } => serve(engine, container, args).await?,
            ServiceSource::Tunnel(upstream) => {
                let to = Box::pin(upstream.start(engine)).await?;
                tunnel(to).await?
            }
        };
        let port = started.port;
        *running = Some(started);
        Ok(port)
    }

    async fn stop(&self) -> Result<(), Failure> {
        // Held to the end: the next start waits until it has stopped.
        let mut turn = self.running.lock().await;
        let mut running = turn.take();
        match running.as_mut().map(|running| &mut running.what) {
            Some(What::Server { sandbox, .. }) => sandbox.close().await?,
            Some(What::Tunnel(task)) => {
                task.abort();
                // Its listener is closed when it has ended, in whatever way.
                let _ = task.await;
            }
            None => {}
        }
        Ok(())
    }
}

async fn serve(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    args: &[String],
) -> Result<Running, Failure> {
    let no_port = || Failure::text("no ports exposed");
    let port = container
        .config
        .ports
        .first()
        .copied()
        .ok_or_else(no_port)?;
    let state = container.state(engine).await?;
    let sandbox = state.fork_one().await?;
    let args = match args {
        [] => &container.config.entrypoint,
        args => args,
    };
    let Some((program, args)) = args.split_first() else {
        return Err(Failure::text("no command has been set"));
    };
    let command = container
        .config
        .command(program, &engine.quirks())
        .args(args);
    bind(engine, &container.config.bindings, &*sandbox).await?;
    let mut process = sandbox.spawn(command).await?;
    tokio::spawn(discard(process.stdout.take()));
    tokio::spawn(discard(process.stderr.take()));
    let answers = async {
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let failed = tokio::select! {
        () = answers => None,
        exit = process.wait() => Some(format!("service exited before healthcheck: {exit:?}")),
        () = tokio::time::sleep(HEALTHY) => Some("health check timed out".to_owned()),
    };
    if let Some(why) = failed {
        sandbox.close().await?;
        return Err(Failure::text(why));
    }
    let what = What::Server {
        sandbox,
        _process: process,
    };
    Ok(Running { port, what })
}

/// Reads a stream to its end: a full pipe would hold the service up.
async fn discard(stream: Option<impl AsyncRead + Unpin>) {
    if let Some(mut stream) = stream {
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
}

/// Starts what a container is bound to, and has the names in its `hosts`; what was there before.
pub(super) async fn bind(
    engine: &Arc<Engine>,
    bindings: &[(String, Arc<Service>)],
    sandbox: &dyn Sandbox,
) -> Result<Option<String>, Failure> {
    if bindings.is_empty() {
        return Ok(None);
    }
    let before = sandbox.read_to_string(HOSTS).await.unwrap_or_default();
    let mut hosts = before.clone();
    for (alias, service) in bindings {
        Box::pin(service.start(engine)).await?;
        hosts.push_str(&format!("127.0.0.1 {alias}\n"));
    }
    sandbox.write(HOSTS, hosts).await?;
    Ok(Some(before))
}

/// Removes the names again: they do not belong to the files.
pub(super) async fn unbind(before: Option<String>, sandbox: &dyn Sandbox) -> Result<(), Failure> {
    if let Some(before) = before {
        sandbox.write(HOSTS, before).await?;
    }
    Ok(())
}

async fn tunnel(to: u16) -> Result<Running, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((mut near, _)) = listener.accept().await {
            connections.spawn(async move {
                if let Ok(mut far) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await {
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
            });
            while connections.try_join_next().is_some() {}
        }
    });
    let what = What::Tunnel(task);
    Ok(Running { port, what })
}
