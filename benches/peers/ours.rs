//! The local backend in the comparison, and no sandbox at all as its ground.

use std::fs;
use std::process::Command as HostCommand;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sandbox::local::LocalProvider;
use sandbox::{Command, FileBatch, Provider, Resources, Sandbox, SandboxExt, SandboxSpec};
use tokio::runtime::Runtime;

use super::peer::{Peer, Place, Work};
use crate::support::measure::timed;
use crate::support::{Outcome, host};

/// Which of this crate's lines it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The default spec.
    Default,
    /// With limits on memory and processes, as container engines have them.
    Limits,
    /// Up to the end of its first command; closed off the clock.
    First,
    /// Created from what the provider prepares ahead of time, waiting for it off the
    /// clock.
    Prepared,
}

impl Kind {
    fn is_first(self) -> bool {
        matches!(self, Self::First | Self::Prepared)
    }
}

/// The local backend.
pub(crate) struct Ours {
    kind: Kind,
    place: Rc<Place>,
    runtime: Rc<Runtime>,
    provider: LocalProvider,
    /// Stays between rounds; has the tree of 1,000 files.
    kept: Option<Arc<dyn Sandbox>>,
}

impl Ours {
    pub(crate) fn new(
        kind: Kind,
        place: Rc<Place>,
        runtime: Rc<Runtime>,
        provider: LocalProvider,
    ) -> Self {
        Self {
            kind,
            place,
            runtime,
            provider,
            kept: None,
        }
    }

    fn create(&self) -> Outcome<Arc<dyn Sandbox>> {
        let spec = SandboxSpec::new();
        let spec = match self.kind {
            Kind::Limits => spec.resources(Resources::new().memory(512 << 20).pids(128)),
            _ => spec,
        };
        Ok(self.runtime.block_on(self.provider.create(spec))?)
    }

    fn exec(&self, sandbox: &Arc<dyn Sandbox>) -> Outcome<()> {
        let output = self
            .runtime
            .block_on(sandbox.exec(Command::new("/bin/true")))?;
        match output.success() {
            true => Ok(()),
            false => Err("true failed".into()),
        }
    }

    fn close(&self, sandbox: &Arc<dyn Sandbox>) -> Outcome<()> {
        Ok(self.runtime.block_on(sandbox.close())?)
    }

    fn kept(&mut self) -> Outcome<Arc<dyn Sandbox>> {
        if let Some(kept) = &self.kept {
            return Ok(Arc::clone(kept));
        }
        let kept = self.create()?;
        let batch = self.batch("tree");
        self.runtime.block_on(kept.write_files(batch))?;
        Ok(Arc::clone(self.kept.insert(kept)))
    }

    fn batch(&self, dir: &str) -> FileBatch {
        (0..self.place.files).fold(FileBatch::new(), |batch, file| {
            let path = format!("{dir}/{}/{}", file / 100, file % 100);
            batch.file(path, &host::KIB[..])
        })
    }

    fn whole(&mut self) -> Outcome<Duration> {
        if self.kind == Kind::Prepared {
            // What the round before used up is made good in the background; there is no way to ask
            // whether it is.
            std::thread::sleep(std::time::Duration::from_millis(30));
        }
        if !self.kind.is_first() {
            return timed(|| {
                let sandbox = self.create()?;
                self.exec(&sandbox)?;
                self.close(&sandbox)
            });
        }
        let mut sandbox = None;
        let time = timed(|| self.exec(sandbox.insert(self.create()?)));
        if let Some(sandbox) = sandbox {
            self.close(&sandbox)?;
        }
        time
    }

    fn hundred(&self) -> Outcome<Duration> {
        timed(|| {
            let sandbox = self.create()?;
            for _ in 0..self.place.hundred() {
                self.exec(&sandbox)?;
            }
            self.close(&sandbox)
        })
    }

    fn fork(&mut self) -> Outcome<Duration> {
        let kept = self.kept()?;
        self.runtime.block_on(kept.write("tree/changed", "x"))?;
        let mut fork = None;
        let time = timed(|| {
            let made = self.runtime.block_on(kept.fork_one())?;
            self.exec(fork.insert(made))
        });
        if let Some(fork) = fork {
            self.close(&fork)?;
        }
        time
    }

    /// In a new sandbox each time, as the others get a new directory: what the round before
    /// removed would slow the filesystem down.
    fn files(&self) -> Outcome<Duration> {
        let sandbox = self.create()?;
        let batch = self.batch("files");
        let time = timed(|| Ok(self.runtime.block_on(sandbox.write_files(batch))?))?;
        self.close(&sandbox)?;
        Ok(time)
    }
}

impl Peer for Ours {
    fn name(&self) -> String {
        match self.kind {
            Kind::Default => "**this crate**",
            Kind::Limits => "this crate, memory and processes limited",
            Kind::First => "this crate, until its first command is done",
            Kind::Prepared => "this crate, prepared ahead of time, until its first command is done",
        }
        .into()
    }

    fn note(&self) -> String {
        match self.kind {
            Kind::Default => "commands in a running sandbox; files by `write_files`; `fork`".into(),
            Kind::Limits => "512 MiB, 128 processes".into(),
            Kind::First => "closed off the clock".into(),
            Kind::Prepared => "`LocalConfig::with_prepared(4)`; closed off the clock".into(),
        }
    }

    fn offers(&self, work: Work) -> bool {
        !self.kind.is_first() || work == Work::True
    }

    fn round(&mut self, work: Work) -> Outcome<Duration> {
        match work {
            Work::True => self.whole(),
            Work::Exec => self.kept().and_then(|kept| timed(|| self.exec(&kept))),
            Work::Hundred => self.hundred(),
            Work::Fork => self.fork(),
            Work::Files => self.files(),
        }
    }

    fn probe(&mut self, script: &str) -> Outcome<String> {
        let sandbox = self.create()?;
        let output = self.runtime.block_on(sandbox.sh(script))?;
        self.close(&sandbox)?;
        Ok(output.stdout.to_string_lossy().into_owned())
    }

    fn landlock(&self) -> &'static str {
        "yes, where the kernel has it"
    }

    fn finish(&mut self) {
        if let Some(kept) = self.kept.take() {
            // The figures are taken; what could not be freed is collected later.
            let _ = self.close(&kept);
        }
    }
}

/// No sandbox: a spawn, plain writes, a copy.
pub(crate) struct Plain {
    pub(crate) place: Rc<Place>,
}

impl Plain {
    fn spawn() -> Outcome<()> {
        host::run(&mut HostCommand::new("/bin/true")).map(drop)
    }
}

impl Peer for Plain {
    fn name(&self) -> String {
        "no sandbox".into()
    }

    fn note(&self) -> String {
        "`std`'s spawn; plain writes; `cp -a`".into()
    }

    fn offers(&self, _: Work) -> bool {
        true
    }

    fn round(&mut self, work: Work) -> Outcome<Duration> {
        let dir = self.place.fresh("plain");
        let time = match work {
            Work::True | Work::Exec => timed(Self::spawn),
            Work::Hundred => timed(|| (0..self.place.hundred()).try_for_each(|_| Self::spawn())),
            Work::Fork => timed(|| {
                let tree = self.place.tree();
                host::run(HostCommand::new("cp").arg("-a").arg(tree).arg(&dir))?;
                Self::spawn()
            }),
            Work::Files => timed(|| host::tree(&dir, self.place.files)),
        };
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        time
    }

    fn probe(&mut self, script: &str) -> Outcome<String> {
        host::run(HostCommand::new("/bin/sh").arg("-c").arg(script))
    }
}
