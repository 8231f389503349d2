//! Brings a directory of the model to the host.
//!
//! Invariant: the host's side is `sandbox-transfer`'s alone.

use std::path::Path;
use std::sync::Arc;

use sandbox_core::{
    Error, ErrorKind, ExportOptions, FileKind, GuestPath, Operation, Result, TransferReport,
    Unreadable,
};
use sandbox_transfer::{Attributes, Export};

use super::core::Core;
use super::tree::{Kind, Node};

const OP: Operation = Operation::ExportDir;

pub(super) async fn export(
    core: &Arc<Core>,
    from: &GuestPath,
    to: &Path,
    options: &ExportOptions,
) -> Result<TransferReport> {
    // Kept so that the export sees one moment of it.
    let tree = core.tree();
    let top = tree
        .get(from, true)
        .map_err(|kind| core.error(kind, OP, from))?;
    if !top.is_dir() {
        return Err(core.error(ErrorKind::NotADirectory, OP, from));
    }
    fill(&top, to, options)
        .await
        .map_err(|error| error.with_sandbox(core.id.clone()))
}

async fn fill(top: &Arc<Node>, to: &Path, options: &ExportOptions) -> Result<TransferReport> {
    let mut export = Export::new(to, options)?;
    let mut todo = vec![(top.clone(), Vec::new())];
    while let Some((node, path)) = todo.pop() {
        let Kind::Dir(names) = &node.kind else {
            continue;
        };
        for (name, node) in names {
            tokio::task::yield_now().await;
            let path = match path.is_empty() {
                true => name.clone(),
                false => [&path, name.as_slice()].join(&b'/'),
            };
            let needs = if node.is_dir() { [4, 1] } else { [4, 4] };
            let readable = needs.iter().all(|bit| node.allows(*bit));
            match &node.kind {
                Kind::Dir(_) | Kind::File(_) if !readable => {
                    if options.unreadable == Unreadable::Fail {
                        let error = Error::new(ErrorKind::PermissionDenied, OP);
                        return Err(error.with_path(path));
                    }
                    export.skip(&path, "can't be read: permission denied")?;
                }
                Kind::Dir(_) => {
                    export.directory(&path, attributes(node))?;
                    todo.push((node.clone(), path));
                }
                Kind::File(content) => {
                    export.file(&path, attributes(node), &mut content.as_slice())?;
                }
                Kind::Link(target) => export.symlink(&path, target, Some(node.modified))?,
                Kind::Fifo => export.special(&path, FileKind::Fifo)?,
            }
        }
    }
    export.finish(attributes(top))
}

fn attributes(node: &Node) -> Attributes {
    Attributes {
        mode: node.mode,
        modified: Some(node.modified),
    }
}
