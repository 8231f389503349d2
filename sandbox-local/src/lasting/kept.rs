//! A lasting sandbox that is open in this process: its record, and the layers that it names.
//!
//! The record names the layers, so it is replaced before anything is written into a layer that it does
//! not name, and before a layer that it names goes. Must never name a layer of a fork.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use sandbox_core::backend::Settings;
use sandbox_core::{EgressPolicy, Error, ErrorKind, Network, Operation, Result, SandboxSpec};

use super::record::{self, Process, Record};
use crate::images::ImageRoot;
use crate::layers::stack::Stack;
use crate::layers::{Layer, State};

/// Time that the processes of the run before get to end.
const DYING: Duration = Duration::from_secs(5);

/// Pause between two looks at them.
const POLL: Duration = Duration::from_millis(5);

/// The record of a sandbox that is open here, and the layers that it names.
#[derive(Debug)]
pub(crate) struct Kept {
    state: Arc<State>,
    inner: Mutex<Contents>,
}

#[derive(Debug)]
struct Contents {
    record: Record,
    layers: Vec<Arc<Layer>>,
    /// Whether it was closed: the record must not come back.
    forgotten: bool,
}

/// A record that is removed unless the sandbox is handed out.
pub(crate) struct Unclaimed(Option<Arc<Kept>>);

impl Unclaimed {
    /// Keeps it from now on.
    pub(crate) fn claim(mut self) -> Option<Arc<Kept>> {
        self.0.take()
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(kept) = &self.0
            && let Err(error) = kept.forget()
        {
            tracing::warn!(%error, "a sandbox that was not handed out stays on the disk");
        }
    }
}

impl Kept {
    /// Writes down a new sandbox whose first run is ready: on this image, with these layers of its
    /// own, the topmost first, and this init.
    pub(crate) fn create(
        state: Arc<State>,
        record: Record,
        image: Option<&ImageRoot>,
        layers: Vec<Arc<Layer>>,
        init: u32,
    ) -> Result<(Arc<Self>, Unclaimed)> {
        let record = Record {
            image: chains(image),
            layers: names(&layers),
            init: Process::of(init),
            ..record
        };
        let kept = Arc::new(Self::new(state, record, layers));
        kept.rewrite(Operation::Create, |_| None)?;
        Ok((kept.clone(), Unclaimed(Some(kept))))
    }

    /// Writes down that this process has it open.
    pub(super) fn take_up(
        state: Arc<State>,
        record: Record,
        layers: Vec<Arc<Layer>>,
    ) -> Result<Self> {
        let kept = Self::new(state, record, layers);
        kept.rewrite(Operation::Attach, |record| {
            record.host = std::process::id();
            None
        })?;
        kept.touch();
        Ok(kept)
    }

    fn inner(&self) -> MutexGuard<'_, Contents> {
        // Replaced whole: a panic elsewhere leaves it valid.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new(state: Arc<State>, record: Record, layers: Vec<Arc<Layer>>) -> Self {
        let inner = Mutex::new(Contents {
            record,
            layers,
            forgotten: false,
        });
        Self { state, inner }
    }

    /// Replaces the record by one that differs so, and the layers by those that it gives.
    fn rewrite(
        &self,
        operation: Operation,
        change: impl FnOnce(&mut Record) -> Option<Vec<Arc<Layer>>>,
    ) -> Result<()> {
        let mut inner = self.inner();
        if inner.forgotten {
            return Err(Error::closed(operation, &inner.record.id));
        }
        let mut record = inner.record.clone();
        let layers = change(&mut record);
        {
            // Held: no layer goes between the two.
            let mut kept = self.state.kept();
            record::write(self.state.dir(), &record).map_err(|error| match error.kind() {
                io::ErrorKind::FileTooLarge => too_large(operation),
                _ => unusable(error, self.state.dir(), operation),
            })?;
            *kept = Some(record.layers.clone());
        }
        inner.record = record;
        if let Some(layers) = layers {
            inner.layers = layers;
        }
        Ok(())
    }

    /// Writes down the layers, the topmost first, and the init of a new run on them. Blocks.
    pub(crate) fn stacked(
        &self,
        layers: Vec<Arc<Layer>>,
        init: Option<u32>,
        operation: Operation,
    ) -> Result<()> {
        self.rewrite(operation, |record| {
            record.layers = names(&layers);
            if let Some(init) = init {
                record.init = Process::of(init);
            }
            Some(layers)
        })
    }

    /// Writes down the workdir and the environment. Blocks.
    pub(crate) fn set(&self, settings: &Settings, operation: Operation) -> Result<()> {
        self.rewrite(operation, |record| {
            record.set(settings);
            None
        })
    }

    /// Writes down a narrower egress policy. Blocks.
    pub(crate) fn restrict(&self, policy: EgressPolicy, operation: Operation) -> Result<()> {
        self.rewrite(operation, |record| {
            record.spec.network = Network::Allow(policy);
            None
        })
    }

    /// Removes the record, for good: the directory goes with the last use. One unlink.
    pub(crate) fn forget(&self) -> io::Result<()> {
        let mut inner = self.inner();
        record::forget(self.state.dir())?;
        inner.forgotten = true;
        *self.state.kept() = None;
        inner.layers.clear();
        Ok(())
    }

    /// Notes that it is in use, for the time to live after this process is gone.
    pub(crate) fn touch(&self) {
        let now = File::open(self.state.dir().join("lease"));
        if let Err(error) = now.and_then(|lease| lease.set_modified(SystemTime::now())) {
            tracing::debug!(%error, "the last use of a lasting sandbox was not noted");
        }
    }

    /// Spec, settings and layers to start it again with, as soon as nothing of the run before can
    /// write. Blocks.
    pub(crate) fn to_start(&self) -> Result<(SandboxSpec, Settings, Stack)> {
        const OP: Operation = Operation::Attach;
        let (record, layers) = {
            let inner = self.inner();
            (inner.record.clone(), inner.layers.clone())
        };
        let until = Instant::now() + DYING;
        while record.init.as_ref().is_some_and(Process::is_alive) {
            if Instant::now() > until {
                return Err(Error::new(ErrorKind::Busy, OP)
                    .with_message("processes of its last run have not ended yet")
                    .with_hint("try again: they were killed and wait in the kernel")
                    .with_retryable(true));
            }
            thread::sleep(POLL);
        }
        let stack = layers
            .into_iter()
            .rev()
            .fold(Stack::default(), |stack, layer| stack.with(layer));
        Ok((record.spec.clone(), record.settings(), stack))
    }

    /// Checks that what its layers lie on is what they did.
    pub(crate) fn check(&self, image: Option<&ImageRoot>) -> Result<()> {
        if self.inner().record.image == chains(image) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Conflict, Operation::Attach)
            .with_message(
                "its image is another one by now, and its files are changes to the one before",
            )
            .with_hint("bring back the image that it was created from, or destroy the sandbox"))
    }

    pub(crate) fn created(&self) -> SystemTime {
        self.inner().record.created
    }
}

fn names(layers: &[Arc<Layer>]) -> Vec<String> {
    layers.iter().map(|layer| layer.name().to_owned()).collect()
}

fn chains(image: Option<&ImageRoot>) -> Vec<String> {
    let layers = image.into_iter().flat_map(|image| image.cached());
    layers.map(|layer| layer.chain.hex().to_string()).collect()
}

fn too_large(operation: Operation) -> Error {
    let message = format!(
        "what the lasting sandbox is started with again, its environment above all, would take more than \
         {} MiB",
        record::LARGEST >> 20
    );
    Error::new(ErrorKind::LimitExceeded, operation)
        .with_message(message)
        .with_hint("keep large values in files of the sandbox")
}

pub(super) fn unusable(error: io::Error, path: &Path, operation: Operation) -> Error {
    let message = format!("the directory of the lasting sandbox can't be used: {error}");
    Error::from_io(error, operation)
        .with_message(message)
        .with_host_path(path)
}
