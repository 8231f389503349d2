//! The layers under one sandbox, and how deep they may get.

use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use crate::layers::Layer;

/// Frozen layers beyond this are merged into one: every layer costs a little on each lookup of a
/// name that is not there, and mounts stop at 500.
pub(crate) const DEEPEST: usize = 48;

/// Number of small layers in a row that are worth merging without those around them.
const ENOUGH: usize = 12;

/// Frozen layers, topmost first, above the base that the blueprint names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stack {
    frozen: Vec<Arc<Layer>>,
}

impl Stack {
    /// Adds a layer on top.
    pub(crate) fn with(&self, top: Arc<Layer>) -> Self {
        let mut frozen = Vec::with_capacity(self.frozen.len() + 1);
        frozen.push(top);
        frozen.extend_from_slice(&self.frozen);
        Self { frozen }
    }

    /// The frozen layers, topmost first.
    pub(crate) fn layers(&self) -> &[Arc<Layer>] {
        &self.frozen
    }

    /// The mode of `/`: an overlay takes it from its upper layer, which is a new one for each run.
    /// What the owner's own processes need is always in it, since nothing could start without.
    pub(crate) fn root_mode(&self) -> io::Result<u32> {
        let Some(top) = self.frozen.first() else {
            return Ok(0o755);
        };
        Ok(std::fs::symlink_metadata(top.path())?.mode() & 0o7777 | 0o700)
    }

    /// The layers that came since another stack, topmost first. Those of the other one that were
    /// merged since are among them: they mean the same on top of it.
    pub(crate) fn since(&self, origin: &Self) -> &[Arc<Layer>] {
        let is_of_origin =
            |layer: &Arc<Layer>| origin.frozen.iter().any(|old| Arc::ptr_eq(old, layer));
        let new = self.frozen.iter().rposition(|layer| !is_of_origin(layer));
        self.frozen
            .get(..new.map_or(0, |last| last + 1))
            .unwrap_or_default()
    }

    pub(crate) fn is_too_deep(&self) -> bool {
        self.frozen.len() > DEEPEST
    }

    /// Which layers of a stack that is too deep are best merged: the longest row of small ones, so
    /// that a large one below them is not gone through again and again. All of them, if hardly any
    /// is small.
    pub(crate) fn worth_merging(&self) -> Range<usize> {
        let (mut best, mut start) = (0..0, 0);
        for (index, layer) in self.frozen.iter().enumerate() {
            if !layer.is_small() {
                start = index + 1;
            } else if index + 1 - start > best.len() {
                best = start..index + 1;
            }
        }
        if best.len() < ENOUGH {
            0..self.frozen.len()
        } else {
            best
        }
    }

    /// Puts one layer in the place of some.
    pub(crate) fn replaced(&self, range: Range<usize>, by: Arc<Layer>) -> Self {
        let mut frozen = self.frozen.clone();
        frozen.splice(range, [by]);
        Self { frozen }
    }

    /// `lowerdir=` of an overlay mount: names relative to the layers' directory.
    pub(crate) fn lower_dirs(&self, base: &[Arc<Layer>]) -> String {
        let names: Vec<&str> = self
            .frozen
            .iter()
            .chain(base)
            .map(|layer| layer.name())
            .collect();
        names.join(":")
    }
}

/// Whether nothing was written into a layer yet.
pub(crate) fn is_untouched(layer: &Layer) -> io::Result<bool> {
    match std::fs::read_dir(layer.path()) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        // The guest closed its own root directory.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        Err(error) => Err(error),
    }
}
