//! The agent in one of its places, as the kit sees it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sandbox_aca::provision::{
    AppSpec, Container, ControlPlane, ControlPlaneConfig, CustomPool, Ingress, OwnerAuth, PoolSpec,
    PrincipalId, ResourceId,
};
use sandbox_aca::{AccessToken, AgentAccess, AgentToken, Credential};
use sandbox_core::{
    Capabilities, Capability, Error, ErrorKind, Network, Operation, Provider, Result, SandboxSpec,
    async_trait,
};
use sandbox_local::{LocalProvider, PlainConfig, PlainProvider};
use sandbox_remote::{RemoteConfig, RemoteProvider, ServerConfig};
use sandbox_testkit::aca::{AcaEmulator, Options, PRINCIPAL};
use sandbox_testkit::{Deviation, Fixture};

const SUBSCRIPTION: &str = "00000000-0000-0000-0000-000000000000";
const CLIENT: &str = "11111111-2222-3333-4444-555555555555";

/// By digest, as an app must name it; the emulator takes this host's files for it.
const IMAGE: &str = "r.azurecr.io/agent@sha256:\
    e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Cases, by the beginning of their names, that go through most kinds of requests of the agent's
/// protocol and need little of the machine.
const PART: &[&str] = &[
    "batch::",
    "fork::a_fork_sees_modes",
    "fork::a_fork_that_a_close",
    "isolation::the_report_names",
    "lifecycle::info_names",
    "spawn::a_process_keeps",
    "spawn::output_comes",
    "spawn::streams_end",
    "spawn::wait_tells",
    "streams::output_",
    "streams::stdin_",
    "streams::stdout_and",
    "unsupported::",
];

/// Cases of a pool, whose way to the agent is shorter.
const PART_OF_POOL: &[&str] = &["streams::output_"];

/// Reason for cases about paths above a sandbox's own directory.
const CONFINED: &str =
    "plain mode: paths are the container's, and refused outside of the sandbox's own directory";

/// Reason for cases about what the client's root may read.
const NOT_ROOT: &str =
    "what comes for an agent that is not root it leaves out, and reports, if no mode lets it in";

/// Cases that plain sandboxes in a container do not pass.
const DEVIATIONS: &[(&str, &str)] = &[
    ("exec::cwd_may_be_relative_or_absolute", CONFINED),
    ("files::reading_a_directory_is_refused", CONFINED),
    ("files::reading_a_missing_file_names_it", CONFINED),
    ("fork::every_directory_is_forked", CONFINED),
    (
        "fork::a_fork_beside_a_program_that_writes_is_of_one_moment",
        "plain mode copies while programs go on",
    ),
    ("lifecycle::two_sandboxes_never_see_each_other", CONFINED),
    ("listing::the_root_is_listed", CONFINED),
    ("paths::dot_dot_never_leaves_the_root", CONFINED),
    ("paths::nothing_of_the_host_is_at_its_host_path", CONFINED),
    ("transfer::import_fills_closed_directories", NOT_ROOT),
    ("transfer::import_leaves_out_what_cannot_be_read", NOT_ROOT),
    (
        "env::the_workdir_of_the_spec_is_created",
        "plain mode chooses the workdir",
    ),
    (
        "fork::a_fork_has_the_workdir",
        "plain mode: a fork's directory has a name of its own",
    ),
    (
        "isolation::a_listener_of_the_host_is_in_reach_of_an_open_network",
        "the network is the container's, which has none",
    ),
];

/// Place of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Loopback,
    Pool,
    App,
}

/// The kit's view of an agent in its place.
pub(crate) struct Placed {
    place: Place,
    whole: bool,
    /// Servers of the agent, which live as long as the fixture.
    serving: Mutex<Vec<Serving>>,
}

/// Holds what serves an agent.
enum Serving {
    Emulator {
        _emulator: Arc<AcaEmulator>,
    },
    Program {
        child: Child,
        _dir: tempfile::TempDir,
    },
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Self::Program { child, .. } = self {
            // It has ended already, or it ends now.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Gives the emulator's tokens.
#[derive(Debug)]
struct Mint(Arc<AcaEmulator>);

#[async_trait]
impl Credential for Mint {
    async fn token(&self, scope: &str) -> Result<AccessToken> {
        let audience = scope.trim_end_matches("/.default");
        Ok(AccessToken::new(self.0.token_for(audience, 86_400), None))
    }
}

/// The agent: the one that was built with this test, or another build of it.
fn program() -> PathBuf {
    let other = std::env::var_os("SANDBOX_AGENT_PROGRAM");
    other.map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_sandbox-agent")),
        PathBuf::from,
    )
}

fn failed(why: &str) -> Error {
    Error::new(ErrorKind::Unavailable, Operation::Connect).with_message(why)
}

impl Placed {
    pub(crate) fn boxed(place: Place, whole: bool) -> Box<dyn Fixture> {
        Box::new(Self {
            place,
            whole,
            serving: Mutex::default(),
        })
    }

    fn keep(&self, serving: Serving) {
        self.serving.lock().expect("no panic").push(serving);
    }

    async fn loopback(&self) -> Result<RemoteProvider> {
        let token = AgentToken::random();
        let dir = tempfile::tempdir().map_err(|_| failed("no directory"))?;
        let mut child = std::process::Command::new(program())
            .args(["--listen", "127.0.0.1:0", "--max-commands", "256"])
            .args(["--max-sandboxes", "256"])
            .env("SANDBOX_AGENT_TOKEN_DIGEST", token.digest())
            .env("TMPDIR", dir.path())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|_| failed("the agent does not start"))?;
        let log = child.stderr.take().ok_or_else(|| failed("no log"))?;
        let mut log = BufReader::new(log).lines();
        let mut serves = || {
            log.by_ref()
                .map_while(std::result::Result::ok)
                .find_map(|line| {
                    let at = line.split_once("serving at ")?.1;
                    Some(at.trim().to_owned())
                })
        };
        let at = serves().ok_or_else(|| failed("the agent does not say where it is"))?;
        // Or it waits for a reader at the next line.
        std::thread::spawn(move || log.for_each(drop));
        self.keep(Serving::Program { child, _dir: dir });
        let config = RemoteConfig::new(&format!("http://{at}"))?;
        RemoteProvider::connect(config.secret(token.secret().clone())).await
    }

    async fn emulated(&self) -> Result<RemoteProvider> {
        let mut options = Options::default();
        options.tls = true;
        options.programs = program().parent().map(Path::to_owned);
        let emulator = Arc::new(AcaEmulator::start(options).await?);
        let credential: Arc<dyn Credential> = Arc::new(Mint(Arc::clone(&emulator)));
        let ca = emulator.ca_file().ok_or_else(|| failed("no certificate"))?;
        let config = ControlPlaneConfig::new(SUBSCRIPTION, "rg", "westus2", "kit")
            .endpoint(emulator.endpoint())
            .credential(Arc::clone(&credential))
            .ca_file(ca)
            .poll(Duration::from_millis(50));
        let plane = ControlPlane::new(config)?;
        let environment = ResourceId::new(format!(
            "/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.App/managedEnvironments/env"
        ))?;
        let token = AgentToken::random();
        let container = Container::new(IMAGE)
            .command([program().to_string_lossy()])
            .args([
                "--backend",
                "plain",
                "--network",
                "open",
                "--listen",
                "0.0.0.0:8080",
            ])
            .env("SANDBOX_AGENT_MAX_SANDBOXES", "256")
            .env("SANDBOX_AGENT_MAX_COMMANDS", "256")
            // As the Dockerfile has it: nothing else says in a pool that a container is around it.
            .env("container", "oci")
            .agent(&token);
        let access = AgentAccess::new(token).ca_file(ca);
        let connected = match self.place {
            Place::Pool => {
                let pool = plane.session_pool("agents")?;
                let custom = CustomPool::new(environment, container, 8080);
                pool.ensure(&PoolSpec::custom(custom)).await?;
                pool.agent("tenant-7f3a91", &access).await?
            }
            _ => {
                let client = sandbox_aca::provision::ClientId::new(CLIENT)?;
                let owner = OwnerAuth::principal(CLIENT, client, PrincipalId::new(PRINCIPAL)?);
                let spec = AppSpec::new(environment, container)
                    .ingress(Ingress::internal(8080))
                    .auth(owner);
                let app = plane.app("tenant")?;
                app.ensure(&spec).await?;
                let access = access
                    .entra(credential, format!("api://{CLIENT}/.default"))
                    .dial(emulator.address());
                app.agent(&access).await?
            }
        };
        self.keep(Serving::Emulator {
            _emulator: emulator,
        });
        Ok(connected)
    }
}

#[async_trait]
impl Fixture for Placed {
    fn name(&self) -> String {
        match self.place {
            Place::Loopback => "agent-loopback".into(),
            Place::Pool => "agent-pool".into(),
            Place::App => "agent-app".into(),
        }
    }

    fn case_timeout(&self) -> Duration {
        Duration::from_secs(300)
    }

    fn capabilities(&self) -> Capabilities {
        let config = ServerConfig::new();
        match self.place {
            Place::Loopback => config.serves(LocalProvider::CAPABILITIES),
            // The container is the isolation.
            Place::Pool | Place::App => {
                let plain = PlainProvider::new(PlainConfig::default()).expect("a provider");
                config.serves(plain.capabilities())
            }
        }
    }

    async fn provider(&self) -> Result<Arc<dyn Provider>> {
        Ok(Arc::new(match self.place {
            Place::Loopback => self.loopback().await?,
            Place::Pool | Place::App => self.emulated().await?,
        }))
    }

    fn spec(&self) -> SandboxSpec {
        match self.place {
            Place::Loopback => SandboxSpec::new(),
            Place::Pool | Place::App => SandboxSpec::new().network(Network::Open),
        }
    }

    fn grants(&self, capability: Capability) -> std::result::Result<(), String> {
        match capability {
            Capability::Image => Err("an agent takes images of registries alone".into()),
            _ => Ok(()),
        }
    }

    fn deviations(&self) -> Vec<Deviation> {
        let plain = self.place != Place::Loopback;
        let known = DEVIATIONS.iter().filter(|_| plain);
        known
            .map(|(case, reason)| Deviation::new(*case, *reason))
            .collect()
    }

    fn leaves_out(&self, case: &str) -> Option<String> {
        let part = match self.place {
            Place::Pool => PART_OF_POOL,
            _ => PART,
        };
        let part = part.iter().any(|group| case.starts_with(group));
        let why = "the whole kit runs with SANDBOX_AGENT_WHOLE=1";
        (!self.whole && !part).then(|| why.to_owned())
    }

    fn threads(&self) -> Option<usize> {
        sandbox_testkit::kit::mostly_waiting()
    }
}
