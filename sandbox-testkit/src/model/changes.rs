//! Changes of a model sandbox: two trees, compared.
//!
//! It must never look at what is beyond the directory that was asked about.

use std::collections::BTreeMap;
use std::sync::Arc;

use sandbox_core::{
    Changes, ChangesOptions, ErrorKind, FileVersion, GuestPath, Mode, Operation, Result,
};
use sandbox_transfer::changes::{ChangeCollector, compare};

use super::core::Core;
use super::process::lock;
use super::tree::{Kind, Node, Tree};

pub(crate) fn changes(
    core: &Core,
    given: &GuestPath,
    directory: &GuestPath,
    options: &ChangesOptions,
) -> Result<Changes> {
    let (before, after) = {
        let state = lock(&core.state);
        (state.origin.clone(), state.tree.clone())
    };
    let fail = |kind| core.error(kind, Operation::Changes, given);
    let before = top(&before, directory);
    let after = top(&after, directory);
    let dirs = match (before, after) {
        (Ok(before), Ok(after)) => [Some(before), Some(after)],
        (Ok(before), Err(_)) => [Some(before), None],
        (Err(_), Ok(after)) => [None, Some(after)],
        (Err(_), Err(kind)) => return Err(fail(kind)),
    };
    let [before, after] = dirs.map(|dir| {
        let mut entries = BTreeMap::new();
        if let Some(dir) = dir {
            flatten(&dir, &GuestPath::new(Vec::new()), &mut entries);
        }
        entries
    });
    let named = |error: sandbox_core::Error| error.with_sandbox(core.id.clone());
    let mut collector = ChangeCollector::new(directory, options).map_err(named)?;
    compare(&before, &after, &mut collector).map_err(named)?;
    Ok(collector.finish())
}

/// The directory at a path; no link is followed.
pub(super) fn top(tree: &Tree, path: &GuestPath) -> std::result::Result<Arc<Node>, ErrorKind> {
    let place = super::tree::Place {
        names: path.components().map(<[u8]>::to_vec).collect(),
        missing: 0,
    };
    let node = tree.node(&place)?;
    match node.is_dir() {
        true => Ok(node),
        false => Err(ErrorKind::NotADirectory),
    }
}

fn flatten(dir: &Node, path: &GuestPath, entries: &mut BTreeMap<GuestPath, FileVersion>) {
    let Kind::Dir(names) = &dir.kind else {
        return;
    };
    for (name, node) in names {
        let path = path.join(name.as_slice());
        let metadata = node.metadata();
        let version = FileVersion::new(metadata.kind, Mode::new(node.mode), 0);
        let version = match &node.kind {
            Kind::File(content) => {
                let size = content.len() as u64;
                FileVersion::new(version.kind, version.mode, size).content(content.clone())
            }
            Kind::Link(target) => version.link_target(target.as_slice()),
            Kind::Dir(_) | Kind::Fifo => version,
        };
        entries.insert(path.clone(), version);
        flatten(node, &path, entries);
    }
}
