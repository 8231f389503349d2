//! The context of a case: a fresh sandbox, and ways to more of them that are closed afterwards.
//!
//! Invariant: whatever a case creates through its context is closed by the runner, also when the
//! case fails half way.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::kit::host_dir::{HostDir, Late};
use crate::kit::{Failed, Fixture, Verdict};
use sandbox_core::{
    Command, GuestPath, Output, Provider, Result, Sandbox, SandboxExt as _, SandboxSpec,
};

tokio::task_local! {
    /// The longest time that the case of this task waits for something that has to happen.
    pub(crate) static PATIENCE: Duration;
}

/// See [`PATIENCE`]; outside of a case, that of most fixtures.
pub(crate) fn patience() -> Duration {
    PATIENCE
        .try_with(|patience| *patience)
        .unwrap_or(Duration::from_secs(20))
}

/// The context of one run of a case.
#[derive(Clone)]
pub struct Context {
    /// The backend under test.
    pub fixture: Arc<dyn Fixture>,
    /// The provider.
    pub provider: Arc<dyn Provider>,
    /// A fresh sandbox, created from the fixture's spec.
    pub sandbox: Arc<dyn Sandbox>,
    opened: Arc<Mutex<Vec<Arc<dyn Sandbox>>>>,
    late: Late,
}

impl Context {
    pub(crate) fn new(
        fixture: Arc<dyn Fixture>,
        provider: Arc<dyn Provider>,
        sandbox: Arc<dyn Sandbox>,
    ) -> Self {
        let opened = Arc::new(Mutex::new(vec![sandbox.clone()]));
        Self {
            fixture,
            provider,
            sandbox,
            opened,
            late: Late::default(),
        }
    }

    /// Registers a sandbox, to be closed when the case is over.
    pub fn track(&self, sandbox: Arc<dyn Sandbox>) -> Arc<dyn Sandbox> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.push(sandbox.clone());
        sandbox
    }

    /// Another sandbox.
    ///
    /// # Errors
    /// The provider's error.
    pub async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        self.provider
            .create(spec)
            .await
            .map(|sandbox| self.track(sandbox))
    }

    /// Another sandbox like the case's own.
    ///
    /// # Errors
    /// The provider's error.
    pub async fn another(&self) -> Result<Arc<dyn Sandbox>> {
        self.create(self.fixture.spec()).await
    }

    /// A fork of a sandbox.
    ///
    /// # Errors
    /// The sandbox's error.
    pub async fn fork(&self, parent: &dyn Sandbox) -> Result<Arc<dyn Sandbox>> {
        parent.fork_one().await.map(|child| self.track(child))
    }

    /// Runs a script of the case's own that has to succeed; its output.
    ///
    /// # Errors
    /// What exec says, or the exit status with what it wrote to stderr. A missing program is a
    /// failure of the case: the kit assumes a POSIX shell and its usual programs.
    #[track_caller]
    pub fn sh<'a>(
        &'a self,
        script: impl AsRef<[u8]>,
    ) -> impl Future<Output = Verdict<Output>> + Send + 'a {
        sh_on(&*self.sandbox, script)
    }

    /// A path of the workdir, absolute.
    pub fn at(&self, name: &str) -> GuestPath {
        self.sandbox.info().workdir.join(name)
    }

    /// An empty directory of the host.
    ///
    /// # Errors
    /// If the host has no place for it.
    #[track_caller]
    pub fn host_dir(&self) -> Verdict<HostDir> {
        HostDir::new(&self.late).map_err(Failed::from)
    }

    /// An empty directory of the host that every user of it may write to: the guest's user may be
    /// another than this process's.
    ///
    /// # Errors
    /// If the host has no place for it.
    #[track_caller]
    pub fn shared_dir(&self) -> Verdict<HostDir> {
        let dir = self.host_dir()?;
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(dir.path(), open)?;
        Ok(dir)
    }

    pub(crate) async fn close_all(&self) {
        let opened = {
            let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *opened)
        };
        let mut closing = tokio::task::JoinSet::new();
        for sandbox in opened {
            closing.spawn(async move { sandbox.close().await });
        }
        while let Some(closed) = closing.join_next().await {
            // What a case leaves unfreed is not the verdict on what it checked; a panic is.
            if let Err(panic) = closed.map_err(tokio::task::JoinError::try_into_panic)
                && let Ok(panic) = panic
            {
                std::panic::resume_unwind(panic);
            }
        }
        self.late.remove().await;
    }
}

/// Runs a script that has to succeed in a sandbox.
#[track_caller]
pub(crate) fn sh_on<'a>(
    sandbox: &'a dyn Sandbox,
    script: impl AsRef<[u8]>,
) -> impl Future<Output = Verdict<Output>> + Send + 'a {
    let at = std::panic::Location::caller();
    let command = Command::shell(script.as_ref());
    let script = String::from_utf8_lossy(script.as_ref()).into_owned();
    async move {
        let output = sandbox
            .exec(command)
            .await
            .map_err(|error| Failed::new(format_args!("{script:?}, from {at}: {error:?}")))?;
        if output.success() {
            return Ok(output);
        }
        Err(Failed::new(format_args!(
            "{script:?}, from {at}, ended with {}: {}",
            output.status,
            output.stderr.to_string_lossy()
        )))
    }
}

/// Polls until `done` says yes, and fails with `what` if that takes too long.
#[track_caller]
pub(crate) fn eventually<'a, F, T>(what: &'a str, mut done: F) -> impl Future<Output = Verdict> + 'a
where
    F: FnMut() -> T + 'a,
    T: Future<Output = Verdict<bool>> + 'a,
{
    let at = std::panic::Location::caller();
    async move {
        let (start, patience) = (Instant::now(), patience());
        loop {
            if done().await? {
                return Ok(());
            }
            if start.elapsed() > patience {
                return Err(Failed::new(format_args!(
                    "did not happen within {patience:?}: {what}, from {at}"
                )));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
