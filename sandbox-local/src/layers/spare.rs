//! Directories made before they are asked for: two of a filesystem's slower operations less on
//! the way to a sandbox.
//!
//! Must never be waited for: who finds none makes its own.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::State;
use super::layer::{Layer, Pair, WorkDir};

/// Number of directories that are kept: a fork and its renewed parent take two at once.
const KEPT: usize = 2;

/// Names of layers, each with that of its first work directory.
#[derive(Debug, Default)]
pub(super) struct Spares(Mutex<Vec<Pair>>);

impl Spares {
    fn pairs(&self) -> std::sync::MutexGuard<'_, Vec<Pair>> {
        // Every change is a single call: a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// An empty layer for a guest to write, whose top has mode 755, and a work directory for it.
    pub(crate) fn writable(self: &Arc<Self>) -> io::Result<(Arc<Layer>, WorkDir)> {
        let spare = self.spares.pairs().pop();
        self.janitor.prepare(Arc::downgrade(self));
        let pair = spare.map_or_else(|| self.make(), Ok)?;
        Ok(Layer::of_pair(self, pair))
    }

    /// Makes as many as are missing, for those who come later.
    pub(super) fn make_spares(&self) -> io::Result<()> {
        while self.spares.pairs().len() < KEPT {
            let pair = self.make()?;
            self.spares.pairs().push(pair);
        }
        let guests = self.guests.as_ref();
        guests.map_or(Ok(()), |guests| guests.make_spares(&self.dir))
    }

    fn make(&self) -> io::Result<Pair> {
        let layer = self.number().to_string();
        super::layer::make(&self.layers_dir().join(&layer), 0o755, self.guest_user)?;
        let work = format!("../work/{layer}");
        super::layer::make(&self.layers_dir().join(&work), 0o700, self.guest_user)?;
        Ok(Pair { layer, work })
    }
}
