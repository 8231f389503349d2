//! The trait that a backend's author implements so that the kit can run.
//!
//! Invariant: everything but `provider` and `sabotage` is known without talking to a service,
//! because a test runner may start the program once for each case.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sandbox_core::{Capabilities, Capability, Provider, Resources, Result, Sandbox, SandboxSpec};

use crate::egress::Upstreams;

/// A case that a backend fails knowingly, and why.
#[derive(Clone, Debug)]
pub struct Deviation {
    /// The case's name, without the fixture's.
    pub case: String,
    /// The reason, shown with the ignored case.
    pub reason: String,
}

impl Deviation {
    /// Declares that a case is not passed, and why.
    pub fn new(case: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            case: case.into(),
            reason: reason.into(),
        }
    }
}

/// A backend under test.
#[async_trait]
pub trait Fixture: Send + Sync + 'static {
    /// The name: the prefix of its cases and part of the matrix's file name.
    fn name(&self) -> String;

    /// The capabilities that the backend declares. No I/O.
    fn capabilities(&self) -> Capabilities;

    /// Makes the provider under test. Called once in a process, and once more by a case that drops
    /// its provider.
    async fn provider(&self) -> Result<Arc<dyn Provider>>;

    /// The spec that every sandbox of the kit is created from.
    fn spec(&self) -> SandboxSpec {
        SandboxSpec::new()
    }

    /// Whether the backend can run here at all; if not, why. Every case is then ignored with that
    /// reason, unless `SANDBOX_REQUIRE` names the fixture (or says `all`): then every case fails.
    fn available(&self) -> std::result::Result<(), String> {
        Ok(())
    }

    /// Cases that the backend is known not to pass. A name that is not a case's, a missing reason
    /// and a case that is named twice are errors; a case that passes by now is told after a whole
    /// run.
    fn deviations(&self) -> Vec<Deviation> {
        Vec::new()
    }

    /// Whether a case is left out, and why: where the same requests run whole elsewhere, a part of
    /// the kit may be enough. Not a way around a case that fails.
    fn leaves_out(&self, case: &str) -> Option<String> {
        let _ = case;
        None
    }

    /// Whether this host grants a declared capability that depends on it (a limit, a network); if
    /// not, why. The cases that need it are then ignored with that reason.
    fn grants(&self, capability: Capability) -> std::result::Result<(), String> {
        let _ = capability;
        Ok(())
    }

    /// The time that a case may take; two minutes by default. More is for a service each of whose
    /// operations is several requests: some cases have hundreds of operations.
    /// `SANDBOX_CASE_TIMEOUT` comes before it.
    fn case_timeout(&self) -> Duration {
        Duration::from_secs(120)
    }

    /// The time that a case waits for something that has to happen, such as a daemon's first sign of
    /// life; 20 seconds by default. What is killed has half of it to be dead.
    fn patience(&self) -> Duration {
        Duration::from_secs(20)
    }

    /// Number of cases that run side by side, unless the command line says it (`--test-threads`).
    /// If `None`: in a test as many as the host has processors, in [`run`](crate::run) one after the
    /// other. More is for a backend whose cases mostly wait.
    fn threads(&self) -> Option<usize> {
        None
    }

    /// Whether commands of the sandboxes are processes of this host, under this kernel.
    ///
    /// Then the kit looks at them from outside: nothing may run on after `close`, no directory of
    /// the host may be inside, and what the isolation report claims is held against what the
    /// kernel says. No by default, as for a service or a virtual machine.
    fn is_of_this_host(&self) -> bool {
        false
    }

    /// Whether [`sabotage`](Fixture::sabotage) works.
    fn can_sabotage(&self) -> bool {
        false
    }

    /// Destroys a sandbox behind its handle, and says whether it did.
    async fn sabotage(&self, sandbox: &dyn Sandbox) -> bool {
        let _ = sandbox;
        false
    }

    /// A user of the sandbox, other than its own, that commands may run as.
    fn other_user(&self) -> Option<String> {
        None
    }

    /// Hosts on loopback for the cases of egress by name: its provider resolves names by
    /// [`Upstreams::resolve`] and dials by [`Upstreams::dial`]. The guest must have `python3`.
    /// Without them those cases are ignored.
    fn upstreams(&self) -> Option<Arc<Upstreams>> {
        None
    }

    /// An image with a POSIX shell, for [`Capability::Image`].
    fn image(&self) -> Option<String> {
        None
    }

    /// A directory of the host with a POSIX system in it, for [`Capability::RootDir`].
    fn root_dir(&self) -> Option<PathBuf> {
        None
    }
}

/// Three times as many cases as the host has processors, for [`Fixture::threads`] of a backend
/// whose cases mostly wait for a program to do something.
pub fn mostly_waiting() -> Option<usize> {
    let processors = std::thread::available_parallelism();
    Some(3 * processors.map_or(1, std::num::NonZero::get))
}

/// One fixture or several: what [`conformance_main!`](crate::conformance_main) takes.
pub trait IntoFixtures {
    /// The fixtures.
    fn into_fixtures(self) -> Vec<Arc<dyn Fixture>>;
}

impl<F: Fixture> IntoFixtures for F {
    fn into_fixtures(self) -> Vec<Arc<dyn Fixture>> {
        vec![Arc::new(self)]
    }
}

impl IntoFixtures for Vec<Box<dyn Fixture>> {
    fn into_fixtures(self) -> Vec<Arc<dyn Fixture>> {
        self.into_iter().map(Arc::from).collect()
    }
}

impl IntoFixtures for Vec<Arc<dyn Fixture>> {
    fn into_fixtures(self) -> Vec<Arc<dyn Fixture>> {
        self
    }
}

/// Tries whether a provider on this host makes a sandbox with a limit on memory or processor time; for
/// [`Fixture::grants`] of a backend that takes control groups for them.
///
/// # Errors
/// What the provider says. Any other capability is granted.
pub fn limits_are_granted(
    capability: Capability,
    provider: impl FnOnce() -> Result<Arc<dyn Provider>> + Send + 'static,
) -> std::result::Result<(), String> {
    let resources = match capability {
        Capability::MemoryLimit => Resources::new().memory(1 << 30),
        Capability::CpuLimit => Resources::new().cpus(1.0),
        _ => return Ok(()),
    };
    let attempt = async move || {
        let spec = SandboxSpec::new().resources(resources);
        provider()?.create(spec).await?.close().await
    };
    // The caller may be in a runtime already.
    let tried = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
        let tried = runtime.block_on(attempt());
        tried.map_err(|error| error.to_string())
    });
    tried.join().map_err(|_| "the trial panicked".to_owned())?
}

/// Wraps a fixture under another name, with something around its provider: a layer, a pointer, a
/// fault. The rest is the inner fixture's.
pub fn wrapped<F, W>(name: impl Into<String>, fixture: F, wrap: W) -> Box<dyn Fixture>
where
    F: Fixture,
    W: Fn(Arc<dyn Provider>) -> Arc<dyn Provider> + Send + Sync + 'static,
{
    Box::new(Wrapped {
        name: name.into(),
        fixture,
        wrap,
    })
}

struct Wrapped<F, W> {
    name: String,
    fixture: F,
    wrap: W,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<F, W> Fixture for Wrapped<F, W>
where
    F: Fixture,
    W: Fn(Arc<dyn Provider>) -> Arc<dyn Provider> + Send + Sync + 'static,
{
    fn name(&self) -> String {
        self.name.clone()
    }
    fn capabilities(&self) -> Capabilities {
        self.fixture.capabilities()
    }
    async fn provider(&self) -> Result<Arc<dyn Provider>> {
        Ok((self.wrap)(self.fixture.provider().await?))
    }
    fn spec(&self) -> SandboxSpec {
        self.fixture.spec()
    }
    fn available(&self) -> std::result::Result<(), String> {
        self.fixture.available()
    }
    fn deviations(&self) -> Vec<Deviation> {
        self.fixture.deviations()
    }
    fn leaves_out(&self, case: &str) -> Option<String> {
        self.fixture.leaves_out(case)
    }
    fn grants(&self, capability: Capability) -> std::result::Result<(), String> {
        self.fixture.grants(capability)
    }
    fn case_timeout(&self) -> Duration {
        self.fixture.case_timeout()
    }
    fn patience(&self) -> Duration {
        self.fixture.patience()
    }
    fn threads(&self) -> Option<usize> {
        self.fixture.threads()
    }
    fn is_of_this_host(&self) -> bool {
        self.fixture.is_of_this_host()
    }
    fn can_sabotage(&self) -> bool {
        self.fixture.can_sabotage()
    }
    async fn sabotage(&self, sandbox: &dyn Sandbox) -> bool {
        self.fixture.sabotage(sandbox).await
    }
    fn other_user(&self) -> Option<String> {
        self.fixture.other_user()
    }
    fn upstreams(&self) -> Option<Arc<Upstreams>> {
        self.fixture.upstreams()
    }
    fn image(&self) -> Option<String> {
        self.fixture.image()
    }
    fn root_dir(&self) -> Option<PathBuf> {
        self.fixture.root_dir()
    }
}
