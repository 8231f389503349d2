//! The pipeline of a tenant's image, and where its credentials are afterwards: nowhere.
//!
//! The image is built in Dagger's double, pushed to a real registry, run by the emulator as a
//! tenant's app. Every credential that took part, and one in the environment of the program that ran it, is
//! then searched for in all that is left of it: layers, logs, files, environments, memory.
#![cfg(target_os = "linux")]
// Helpers of tests are not tests to clippy.
#![allow(clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sandbox_aca::provision::{
    App, AppSpec, ClientId, Container, ControlPlane, ControlPlaneConfig, Ingress, LogOptions,
    OwnerAuth, PrincipalId, ResourceId,
};
use sandbox_aca::{AccessToken, AgentAccess, AgentToken, Credential};
use sandbox_core::{ErrorKind, Result, Sandbox, SandboxExt as _, async_trait};
use sandbox_dagger::{Base, DaggerConfig, DaggerProvider, ImageBuild, RegistryLogin};
use sandbox_testkit::aca::{AcaEmulator, Log, Options, PRINCIPAL};
use sandbox_testkit::dagger::{DaggerDouble, Quirks};

const SUBSCRIPTION: &str = "00000000-0000-0000-0000-000000000000";
const CLIENT: &str = "11111111-2222-3333-4444-555555555555";

/// Is where it belongs: what finds it would find a credential too.
const CONTROL: &str = "a-text-that-is-no-secret-5d1f";

/// A variable with a credential of the program that runs the pipeline.
const ORCHESTRATORS: &str = "AZURE_CLIENT_SECRET";

/// Says where in the guest the texts on its input are.
const SEARCH: &str = include_str!("search.py");

/// Gives the emulator's tokens, and keeps each.
#[derive(Debug)]
struct Mint(Arc<AcaEmulator>, Mutex<Vec<String>>);

#[async_trait]
impl Credential for Mint {
    async fn token(&self, scope: &str) -> Result<AccessToken> {
        let token = self
            .0
            .token_for(scope.trim_end_matches("/.default"), 86_400);
        let mut given = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        given.push(token.clone());
        Ok(AccessToken::new(token, None))
    }
}

/// Everything that this process logs.
#[derive(Clone, Debug, Default)]
struct Traced(Arc<Mutex<Vec<u8>>>);

impl Write for Traced {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Rig {
    emulator: Arc<AcaEmulator>,
    credential: Arc<Mint>,
    plane: ControlPlane,
    registry: String,
    dir: tempfile::TempDir,
}

async fn rig() -> Rig {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = Options::default();
    options.tls = true;
    options.registry = true;
    options.log = Log::File(dir.path().join("emulator.log"));
    let emulator = Arc::new(AcaEmulator::start(options).await.expect("an emulator"));
    let credential = Arc::new(Mint(Arc::clone(&emulator), Mutex::default()));
    let config = ControlPlaneConfig::new(SUBSCRIPTION, "rg", "westus2", "pipeline")
        .endpoint(emulator.endpoint())
        .credential(Arc::clone(&credential) as _)
        .ca_file(emulator.ca_file().expect("a certificate"))
        .poll(Duration::from_millis(50));
    Rig {
        plane: ControlPlane::new(config).expect("a control plane"),
        registry: emulator.registry().expect("a registry"),
        emulator,
        credential,
        dir,
    }
}

fn id(rest: &str) -> ResourceId {
    let group = format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers");
    ResourceId::new(format!("{group}/{rest}")).expect("an identifier")
}

impl Rig {
    fn spec(&self, image: &str, token: &AgentToken) -> AppSpec {
        let client = ClientId::new(CLIENT).expect("a client");
        let owner = PrincipalId::new(PRINCIPAL).expect("a principal");
        let container = Container::new(image)
            .args(["--network", "open", "--listen", "0.0.0.0:8080"])
            .env("CONTROL", CONTROL)
            .agent(token);
        let puller = id("Microsoft.ManagedIdentity/userAssignedIdentities/puller");
        AppSpec::new(id("Microsoft.App/managedEnvironments/env"), container)
            .registry(&self.registry, puller)
            .ingress(Ingress::internal(8080))
            .auth(OwnerAuth::principal(CLIENT, client, owner))
    }

    fn access(&self, token: &AgentToken) -> AgentAccess {
        AgentAccess::new(token.clone())
            .entra(
                Arc::clone(&self.credential) as _,
                format!("api://{CLIENT}/.default"),
            )
            .dial(self.emulator.address())
            .ca_file(self.emulator.ca_file().expect("a certificate"))
    }

    /// The guest of an app that is ready.
    async fn guest(&self, app: &App, token: &AgentToken) -> Arc<dyn Sandbox> {
        let provider = app.agent(&self.access(token)).await.expect("an agent");
        provider.own_sandbox().await.expect("a sandbox")
    }
}

/// The agent without what only debuggers read.
fn agent(into: &Path) {
    let to = into.join("sandbox-agent");
    let stripped = std::process::Command::new("strip")
        .arg("-o")
        .args([&to, Path::new(env!("CARGO_BIN_EXE_sandbox-agent"))])
        .status();
    assert!(stripped.expect("strip").success());
}

/// Files below a directory with what is in them, by path.
fn files(below: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(below).expect("a directory").flatten() {
        match entry.path() {
            path if path.is_dir() => files(&path, into),
            path => drop(into.insert(path.clone(), std::fs::read(path).unwrap_or_default())),
        }
    }
}

fn has(text: &[u8], what: &str) -> bool {
    memchr::memmem::find(text, what.as_bytes()).is_some()
}

/// Runs the test once more, in a process whose environment has a credential.
fn with_a_credential_in_the_environment() {
    let planted = AgentToken::random();
    let planted = String::from_utf8_lossy(planted.secret().expose()).into_owned();
    let again = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "--nocapture", NAME])
        .env(ORCHESTRATORS, planted)
        .output()
        .expect("this program");
    let said = [again.stdout, again.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(again.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

/// The test's own name.
const NAME: &str = "an_image_is_built_pushed_and_run_and_no_credential_is_left_anywhere";

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_built_pushed_and_run_and_no_credential_is_left_anywhere() {
    let Ok(orchestrators) = std::env::var(ORCHESTRATORS) else {
        return with_a_credential_in_the_environment();
    };
    let traced = Traced::default();
    let into = traced.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || into.clone())
        .init();
    let rig = rig().await;
    let double = DaggerDouble::start(Quirks::default())
        .await
        .expect("a double");

    let login = rig
        .plane
        .registry_login(&rig.registry)
        .await
        .expect("a login");
    let password = String::from_utf8_lossy(login.password.expose()).into_owned();
    let config = DaggerConfig::default()
        .session(double.port(), double.token())
        .operation_timeout(Duration::from_secs(120))
        .login(RegistryLogin::new(login.server, login.user, login.password));
    let dagger = DaggerProvider::new(config).expect("a provider");
    let context = rig.dir.path().join("context");
    std::fs::create_dir(&context).expect("a directory");
    agent(&context);
    let image = ImageBuild::new(Base::Image("python:3.13-slim".into()))
        .copy(&context, "/tenant/bin")
        .run(&format!("echo {CONTROL} >/tenant/made-in-the-build"))
        .env("container", "oci")
        .workdir("/tenant")
        .entrypoint(["/tenant/bin/sandbox-agent", "--backend", "plain"]);
    let address = format!("{}/tenants/acme:1", rig.registry);
    let image = dagger
        .publish_image(&image, &address)
        .await
        .expect("an image");

    let token = AgentToken::random();
    let app = rig.plane.app("tenant").expect("a name");
    app.ensure(&rig.spec(&image, &token)).await.expect("an app");
    let guest = rig.guest(&app, &token).await;
    let made = guest
        .sh("cat /tenant/made-in-the-build")
        .await
        .expect("it runs");
    assert_eq!(made.stdout.bytes, format!("{CONTROL}\n"));

    // The ingress ends what takes longer than it allows; the command runs once and is found again.
    rig.emulator
        .change(|options| options.ingress_timeout = Duration::from_millis(700));
    let script = "for i in 1 2 3 4; do echo $i; echo >>runs; sleep 0.4; done; wc -l <runs";
    let slow = guest.sh(script).await.expect("it runs");
    assert_eq!(slow.stdout.bytes, "1\n2\n3\n4\n4\n");
    rig.emulator
        .change(|options| options.ingress_timeout = Duration::from_secs(240));

    // Every credential, by the part of it that no other text has.
    let entra = rig
        .credential
        .1
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let signature = entra[0].rsplit('.').next().expect("a signature").to_owned();
    let agent = String::from_utf8_lossy(token.secret().expose()).into_owned();
    let session = double.token();
    let secrets = [
        ("Entra", signature.as_str()),
        ("registry", &password),
        ("agent", &agent),
        ("Dagger", &session),
        ("orchestrator", &orchestrators),
    ];

    // The guest: what its processes were given and hold, and every file that it can read. The shell,
    // which waits, is given the control.
    let reversed = |text: &str| text.chars().rev().collect::<String>();
    let lines = [("control", CONTROL)].into_iter().chain(secrets);
    let lines = lines.map(|(whose, text)| format!("{whose} {}\n", reversed(text)));
    let search = sandbox_core::Command::new("sh")
        .args(["-c", "python3 -c \"$0\" \"$@\"; true", SEARCH])
        .args(["/tenant", "/tmp", "/etc", "/run", "/var", "/home", "/root"])
        .env("CONTROL", CONTROL)
        .stdin(lines.collect::<String>());
    let said = guest.exec(search).await.expect("it runs");
    let said = said.stdout.to_string_lossy().into_owned();
    for place in [
        "the environment of sh",
        "the memory of sh",
        "the file /tenant/made-in-the-build",
    ] {
        let control = format!("found control in {place}");
        assert!(said.contains(&control), "the search is blind: {said}");
    }
    assert!(
        said.contains("closed /tenant/bin/sandbox-agent"),
        "a command can read the agent, which sees its owner's token: {said}"
    );
    let found: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("found") && !line.starts_with("found control"))
        .collect();
    assert!(found.is_empty(), "{said}");
    let mut places: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    files(
        rig.emulator.registry_dir().expect("a directory"),
        &mut places,
    );
    let layers = places.values().filter(|bytes| has(bytes, CONTROL)).count();
    assert!(layers > 0, "the search does not find what is in a layer");

    // What was logged: by the container, the services, the registry, this process.
    let mut log = app.logs(LogOptions::new().tail(300)).await.expect("a log");
    let mut lines = Vec::new();
    while let Some(line) = log.line().await.expect("a line") {
        lines.extend_from_slice(&line);
        lines.push(b'\n');
    }
    assert!(
        has(&lines, "serving at"),
        "{}",
        String::from_utf8_lossy(&lines)
    );
    places.insert("container's log".into(), lines);
    let shown = app.show().await.expect("an answer").expect("an app");
    places.insert("the app as shown".into(), format!("{shown:?}").into_bytes());

    // Stopped, started, gone.
    app.stop().await.expect("it stops");
    let error = app.agent(&rig.access(&token)).await.expect_err("stopped");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    let lost = guest.sh("true").await.expect_err("its replica is gone");
    places.insert(
        "an error".into(),
        format!("{error:?} {lost:?}").into_bytes(),
    );
    app.start().await.expect("it starts");
    app.ready().await.expect("it runs");
    let guest = rig.guest(&app, &token).await;
    assert!(
        guest
            .sh("test -x /tenant/bin/sandbox-agent")
            .await
            .expect("it runs")
            .success()
    );

    // Another tenant's token opens neither the ingress nor the agent; an image that is pulled by no
    // identity does not run.
    let other = AgentToken::random();
    let error = app
        .agent(&rig.access(&other))
        .await
        .expect_err("another's token");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error:?}");
    let stranger = rig.emulator.token_of("another", &format!("api://{CLIENT}"));
    let access = rig
        .access(&token)
        .entra(Arc::new(sandbox_aca::StaticToken::new(stranger)), "");
    let error = app.agent(&access).await.expect_err("another principal");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    let mut bare = rig.spec(&image, &token);
    bare.registry = None;
    let error = rig.plane.app("bare").expect("a name").ensure(&bare).await;
    let error = error.expect_err("no identity for the registry").to_string();
    assert!(
        error.contains("can't be pulled") || error.contains("401"),
        "{error}"
    );
    let elsewhere = Ingress::internal(8080).allow("10.0.0.0/24");
    let closed = rig.spec(&image, &token).ingress(elsewhere);
    app.ensure(&closed).await.expect("an app");
    let error = app.agent(&rig.access(&token)).await;
    let error = error.expect_err("an address that is not let in");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    app.delete().await.expect("it goes");
    assert!(app.show().await.expect("an answer").is_none());

    let log = rig.dir.path().join("emulator.log");
    places.insert("emulator's log".into(), std::fs::read(log).expect("a log"));
    let traced = traced
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    assert!(!traced.is_empty(), "nothing was traced");
    places.insert("this process's log".into(), traced);
    for (place, text) in &places {
        for (whose, secret) in secrets {
            assert!(
                !has(text, secret),
                "{whose}'s credential is in {}",
                place.display()
            );
        }
    }
}
