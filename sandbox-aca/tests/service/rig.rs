//! An emulator behind the proxy that breaks things, and a client: of sandboxes, or of either kind
//! of sessions.

use std::sync::Arc;
use std::time::Duration;

use sandbox_aca::{AcaSandboxProvider, AcaSessionProvider, Credential, SessionKind, StaticToken};
use sandbox_core::{Provider, Sandbox, SandboxId, SandboxSpec};
use sandbox_testkit::aca::{AcaEmulator, Options};
use sandbox_testkit::proxy::{Break, FaultProxy};

use super::{config, pool};

/// The cooldown of the pools.
pub(super) const COOLDOWN: Duration = Duration::from_secs(86_400);

/// A service behind a proxy.
pub(super) struct Rig {
    pub(super) emulator: AcaEmulator,
    pub(super) proxy: FaultProxy,
    pub(super) provider: Arc<dyn Provider>,
    /// Ways in which a table of faults breaks requests here.
    pub(super) breaks: &'static [Break],
    pub(super) kind: Option<SessionKind>,
}

impl Rig {
    pub(super) async fn new(kind: Option<SessionKind>) -> Self {
        let mut options = Options::default();
        // Tests turn the clock by hours.
        for pool in &mut options.pools {
            pool.cooldown = COOLDOWN;
        }
        let emulator = AcaEmulator::start(options).await;
        let emulator = emulator.expect("an emulator");
        let proxy = FaultProxy::start(emulator.address()).await;
        let proxy = proxy.expect("a proxy");
        let token = Arc::new(StaticToken::new(emulator.token()));
        let provider = Self::provider(&proxy.endpoint(), kind, token);
        Self {
            emulator,
            proxy,
            provider,
            breaks: &[],
            kind,
        }
    }

    /// Another client of the same service.
    pub(super) fn with(&self, credential: Arc<dyn Credential>) -> Arc<dyn Provider> {
        Self::provider(&self.proxy.endpoint(), self.kind, credential)
    }

    fn provider(
        endpoint: &str,
        kind: Option<SessionKind>,
        token: Arc<dyn Credential>,
    ) -> Arc<dyn Provider> {
        match kind {
            None => Arc::new(
                AcaSandboxProvider::new(config(endpoint).credential(token)).expect("a provider"),
            ),
            Some(kind) => {
                let made = AcaSessionProvider::new(pool(endpoint, kind).credential(token));
                Arc::new(made.expect("a provider"))
            }
        }
    }

    /// Another client of the same service, which waits so long for output.
    pub(super) fn waiting(&self, grace: Duration) -> Arc<dyn Provider> {
        let endpoint = self.proxy.endpoint();
        let token = Arc::new(StaticToken::new(self.emulator.token()));
        match self.kind {
            None => {
                let config = config(&endpoint).credential(token).output_grace(grace);
                Arc::new(AcaSandboxProvider::new(config).expect("a provider"))
            }
            Some(kind) => {
                let config = pool(&endpoint, kind).credential(token).output_grace(grace);
                Arc::new(AcaSessionProvider::new(config).expect("a provider"))
            }
        }
    }

    /// Part of the path of the request that runs a command.
    pub(super) fn execution(&self) -> &'static str {
        match self.kind {
            None => "/executeShellCommand",
            Some(_) => "/executions",
        }
    }

    pub(super) async fn sandbox(&self) -> Arc<dyn Sandbox> {
        let made = self.provider.create(SandboxSpec::new()).await;
        made.expect("a sandbox")
    }

    /// Ends what a client could not.
    pub(super) async fn forget(&self, id: &SandboxId) {
        if self.emulator.destroy(id.as_str()).await {
            return;
        }
        for identifier in self.emulator.sessions().await {
            self.emulator.end_session(&identifier).await;
        }
    }

    /// Number of sandboxes and snapshots, or of sessions.
    pub(super) async fn there(&self) -> usize {
        let (sandboxes, snapshots) = self.emulator.counts();
        sandboxes + snapshots + self.emulator.sessions().await.len()
    }

    /// Waits until there are so many: what is cleared away is cleared behind the caller's back.
    pub(super) async fn left(&self, expected: usize, what: &str) {
        let mut there = None;
        let gone = async {
            while there != Some(expected) {
                there = Some(self.there().await);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let gone = tokio::time::timeout(Duration::from_secs(120), gone).await;
        gone.unwrap_or_else(|_| panic!("{what}: {there:?} are there and not {expected}"));
    }
}

pub(super) const KINDS: [Option<SessionKind>; 3] =
    [None, Some(SessionKind::Python), Some(SessionKind::Shell)];

/// Does this for each service, side by side.
pub(super) async fn each(work: impl AsyncFn(Rig)) {
    let work = &work;
    let all = KINDS.map(async |kind| work(Rig::new(kind).await).await);
    futures_util::future::join_all(all).await;
}

/// Number of parts in which a table of faults is played, side by side.
const LANES: usize = 3;

/// Does this for each service with a part of the faults at a time, side by side: most of it is
/// waiting.
pub(super) async fn in_lanes(breaks: &'static [Break], work: impl AsyncFn(Rig)) {
    let work = &work;
    let lanes = breaks.chunks(breaks.len().div_ceil(LANES));
    let all = lanes.flat_map(|breaks| KINDS.map(|kind| (kind, breaks)));
    let all = all.map(async |(kind, breaks)| {
        let mut rig = Rig::new(kind).await;
        rig.breaks = breaks;
        work(rig).await;
    });
    futures_util::future::join_all(all).await;
}
