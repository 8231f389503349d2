//! Source of dynamic sessions for the kit: an emulator in this process, or Azure if
//! `SANDBOX_REQUIRE=aca-sessions` asks for that and the environment names a pool.

use std::sync::Arc;
use std::time::Duration;

use sandbox_aca::{
    AcaSessionConfig, AcaSessionProvider, DefaultCredential, SessionKind, StaticToken,
};
use sandbox_core::{Capabilities, Provider, Result, Sandbox, Secret, async_trait};
use sandbox_testkit::Fixture;
use sandbox_testkit::aca::{AcaEmulator, Options};
use tokio::sync::OnceCell;

/// The pool's endpoint, for a run against Azure.
const ENDPOINT: &str = "SANDBOX_ACA_POOL_ENDPOINT";
/// Variable with the kind of that pool's sessions: `python` or `shell`.
const KIND: &str = "SANDBOX_ACA_POOL_KIND";

/// Sessions of one kind.
#[derive(Debug)]
pub(crate) struct Sessions {
    kind: SessionKind,
    emulator: OnceCell<AcaEmulator>,
}

impl Sessions {
    pub(crate) fn new(kind: SessionKind) -> Self {
        Self {
            kind,
            emulator: OnceCell::new(),
        }
    }

    fn pool(&self) -> &'static str {
        match self.kind {
            SessionKind::Shell => "shell",
            _ => "python",
        }
    }

    /// Whether a run against Azure is asked for, with a pool of this kind.
    fn required(&self) -> bool {
        let required = std::env::var("SANDBOX_REQUIRE").unwrap_or_default();
        let kind = std::env::var(KIND).unwrap_or_else(|_| "python".into());
        required.split(',').any(|name| name == "aca-sessions") && kind == self.pool()
    }

    /// The endpoint of the pool in Azure, if it is to be used.
    fn azure(&self) -> Option<String> {
        let endpoint = std::env::var(ENDPOINT).ok();
        endpoint.filter(|_| self.required())
    }

    async fn emulator(&self) -> Result<&AcaEmulator> {
        let start = || {
            let mut options = Options::default();
            options.tls = true;
            AcaEmulator::start(options)
        };
        self.emulator.get_or_try_init(start).await
    }
}

#[async_trait]
impl Fixture for Sessions {
    fn name(&self) -> String {
        match self.required() {
            true => "aca-sessions".into(),
            false => format!("aca-sessions-{}", self.pool()),
        }
    }

    fn case_timeout(&self) -> Duration {
        Duration::from_secs(180)
    }

    fn threads(&self) -> Option<usize> {
        let threads = sandbox_testkit::kit::mostly_waiting();
        match self.kind {
            // A kernel's answers are asked for, with pauses between.
            SessionKind::Python => threads.map(|threads| 2 * threads),
            _ => threads,
        }
    }

    fn capabilities(&self) -> Capabilities {
        AcaSessionProvider::CAPABILITIES
    }

    async fn provider(&self) -> Result<Arc<dyn Provider>> {
        if let Some(endpoint) = self.azure() {
            let config = AcaSessionConfig::new(endpoint, self.kind);
            let credential = Arc::new(DefaultCredential::new());
            return Ok(Arc::new(AcaSessionProvider::new(
                config.credential(credential),
            )?));
        }
        let emulator = self.emulator().await?;
        let endpoint = format!(
            "{}/subscriptions/sub/resourceGroups/group/sessionPools/{}",
            emulator.endpoint(),
            self.pool()
        );
        let mut config = AcaSessionConfig::new(endpoint, self.kind);
        if let Some(file) = emulator.ca_file() {
            config = config.ca_file(file);
        }
        let credential = Arc::new(StaticToken::new(emulator.token()));
        Ok(Arc::new(AcaSessionProvider::new(
            config.credential(credential),
        )?))
    }

    fn available(&self) -> std::result::Result<(), String> {
        match self.required() && self.azure().is_none() {
            true => Err(format!("{ENDPOINT} names no pool")),
            false => Ok(()),
        }
    }

    fn can_sabotage(&self) -> bool {
        self.azure().is_none()
    }

    async fn sabotage(&self, sandbox: &dyn Sandbox) -> bool {
        let Ok(emulator) = self.emulator().await else {
            return false;
        };
        let id = sandbox.info().id;
        for identifier in emulator.sessions().await {
            if AcaSessionProvider::id_of(&Secret::from(identifier.as_str())) == id {
                return emulator.end_session(&identifier).await;
            }
        }
        false
    }
}
