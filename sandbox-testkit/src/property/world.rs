//! The two sides of a comparison: the provider's sandboxes and the model's, pair by pair.
//!
//! Invariant: whatever is done is done to both, and both answers are looked at.

use std::fmt::Debug;
use std::sync::Arc;

use sandbox_core::{
    Capability, Command, CreateDirOptions, Error, ErrorKind, FileBatch, FileKind, GuestPath,
    ListOptions, Mode, RemoveOptions, RenameOptions, Sandbox, SandboxExt,
};

use super::Op;

/// Number of forks that are kept open.
const OPEN: usize = 4;

type Pair = (Arc<dyn Sandbox>, Arc<dyn Sandbox>);

pub(super) struct World {
    pairs: Vec<Pair>,
    current: usize,
    directory_renames: bool,
}

/// Strictness with which errors are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Errors {
    /// By kind.
    Kind,
    /// By kind, but "not found" and "not a directory" are the same: where a file stands among the
    /// parents, the contract does not choose for this operation.
    Loose,
    /// Any error: the operation is wrong in two ways.
    Any,
}

impl World {
    pub(super) fn new(
        under_test: Arc<dyn Sandbox>,
        reference: Arc<dyn Sandbox>,
        directory_renames: bool,
    ) -> Self {
        Self {
            pairs: vec![(under_test, reference)],
            current: 0,
            directory_renames,
        }
    }

    /// Does one thing to both sides.
    pub(super) async fn step(&mut self, op: &Op) -> Result<(), String> {
        let (a, b) = self.pairs[self.current].clone();
        match op {
            Op::Fork => {
                let child = a.fork_one().await;
                let model = b.fork_one().await;
                let (Ok(child), Ok(model)) = (child, model) else {
                    return Err("fork failed".into());
                };
                if self.pairs.len() == OPEN {
                    self.shut(0).await;
                }
                self.pairs.push((child, model));
                self.current = self.pairs.len() - 1;
                Ok(())
            }
            Op::Switch(to) => {
                self.current = to % self.pairs.len();
                Ok(())
            }
            Op::Close => {
                if self.pairs.len() > 1 {
                    self.shut(self.current).await;
                    self.current = 0;
                }
                Ok(())
            }
            Op::Rename(from, ..) if !self.directory_renames && is_dir(&*b, from).await => Ok(()),
            _ => {
                let (found, expected) = (apply(&*a, op).await, apply(&*b, op).await);
                same(found, expected, errors(op))
            }
        }
    }

    async fn shut(&mut self, index: usize) {
        let (a, b) = self.pairs.remove(index);
        // Whether closing works is another test's question.
        let _ = (a.close().await, b.close().await);
    }

    pub(super) async fn close(&mut self) {
        while !self.pairs.is_empty() {
            self.shut(0).await;
        }
    }

    /// Compares all that is below the workdirs.
    pub(super) async fn compare_trees(&self) -> Result<(), String> {
        for (index, (a, b)) in self.pairs.iter().enumerate() {
            let modes = a.capabilities().has(Capability::Modes);
            let (found, expected) = (tree(&**a, modes).await?, tree(&**b, modes).await?);
            if found != expected {
                return Err(format!(
                    "the trees of sandbox {index} differ:\nfound    {found:?}\nexpected {expected:?}"
                ));
            }
        }
        Ok(())
    }
}

async fn is_dir(sandbox: &dyn Sandbox, path: &str) -> bool {
    let metadata = sandbox.stat(path).await;
    metadata.is_ok_and(|metadata| metadata.is_dir())
}

fn errors(op: &Op) -> Errors {
    match op {
        Op::Write(files) if files.len() > 1 => Errors::Any,
        Op::Rename(from, to, _) => {
            let (from, to) = (GuestPath::from(*from), GuestPath::from(*to));
            let nested = from.strip_prefix(&to).is_some() || to.strip_prefix(&from).is_some();
            if nested { Errors::Any } else { Errors::Loose }
        }
        Op::Read(_) | Op::Remove(..) | Op::CreateDir(_, false) | Op::Visit(_) => Errors::Loose,
        _ => Errors::Kind,
    }
}

fn same(
    found: Result<String, Error>,
    expected: Result<String, Error>,
    errors: Errors,
) -> Result<(), String> {
    let loose = |kind: ErrorKind| match kind {
        ErrorKind::NotADirectory => ErrorKind::NotFound,
        kind => kind,
    };
    let alike = match (&found, &expected) {
        (Ok(found), Ok(expected)) => found == expected,
        (Err(found), Err(expected)) => match errors {
            Errors::Kind => found.kind() == expected.kind(),
            Errors::Loose => loose(found.kind()) == loose(expected.kind()),
            Errors::Any => true,
        },
        _ => false,
    };
    if alike {
        return Ok(());
    }
    Err(format!("found {found:?}, expected {expected:?}"))
}

fn shown(value: impl Debug) -> String {
    format!("{value:?}")
}

/// Does one thing and describes what came of it.
async fn apply(sandbox: &dyn Sandbox, op: &Op) -> Result<String, Error> {
    match op {
        Op::Write(files) => {
            let mut batch = FileBatch::new();
            for file in files {
                let added = batch.push(file.path, file.content.clone());
                added.mode = file.mode.map(Mode::new);
                if file.new {
                    added.write_mode = sandbox_core::WriteMode::CreateNew;
                }
            }
            sandbox.write_files(batch).await.map(shown)
        }
        Op::Read(path) => {
            let read = sandbox.read(*path);
            read.await.map(shown)
        }
        Op::List(path, recursive) => {
            let mut options = ListOptions::new();
            options.recursive = *recursive;
            let entries = sandbox.list_dir(&(*path).into(), options).await?;
            let entry = |entry: &sandbox_core::DirEntry| (entry.path.clone(), entry.metadata.kind);
            Ok(shown(entries.iter().map(entry).collect::<Vec<_>>()))
        }
        Op::Metadata(path) => {
            let metadata = sandbox.stat(*path).await?;
            let size = (metadata.kind != FileKind::Directory).then_some(metadata.size);
            Ok(shown((metadata.kind, size, metadata.link_target)))
        }
        Op::Remove(path, recursive) => {
            let mut options = RemoveOptions::new();
            options.recursive = *recursive;
            sandbox.remove(&(*path).into(), options).await.map(shown)
        }
        Op::Rename(from, to, replace) => {
            let mut options = RenameOptions::new();
            options.replace = *replace;
            let (from, to) = ((*from).into(), (*to).into());
            sandbox.rename(&from, &to, options).await.map(shown)
        }
        Op::CreateDir(path, parents) => {
            let mut options = CreateDirOptions::new();
            options.recursive = *parents;
            let path = (*path).into();
            sandbox.create_dir(&path, options).await.map(shown)
        }
        Op::Visit(path) => {
            let home = sandbox.info().workdir;
            sandbox.set_workdir(&(*path).into()).await?;
            let listed = sandbox.list(".").await;
            sandbox.set_workdir(&home).await?;
            Ok(shown(listed?.len()))
        }
        Op::Cat(path) => run(sandbox, Command::new("cat").arg(path)).await,
        Op::Append(path, text) => {
            let script = "umask 022; printf '%s' \"$1\" >> \"$0\"";
            run(sandbox, Command::shell(script).arg(path).arg(text)).await
        }
        Op::Rm(path) => run(sandbox, Command::new("rm").args(["-rf", path])).await,
        Op::Mv(from, to) => run(sandbox, Command::new("mv").args([from, to])).await,
        Op::Link(to) => {
            let command = Command::new("ln").args(["-sn", to, super::ops::LINK]);
            run(sandbox, command).await
        }
        Op::Fork | Op::Switch(_) | Op::Close => Ok(String::new()),
    }
}

/// Runs a command: what it says on stdout and whether it succeeds; its complaints are its own.
async fn run(sandbox: &dyn Sandbox, command: Command) -> Result<String, Error> {
    let output = sandbox.exec(command).await?;
    Ok(shown((output.success(), output.stdout.bytes)))
}

/// All that is below the workdir.
async fn tree(sandbox: &dyn Sandbox, modes: bool) -> Result<Vec<String>, String> {
    let failed = |error: Error| format!("the tree can't be read: {error:?}");
    let options = ListOptions::new().recursive(true);
    let entries = sandbox.list_dir(&".".into(), options).await;
    let mut found = Vec::new();
    for entry in entries.map_err(failed)? {
        let metadata = &entry.metadata;
        let mut text = format!("{} {:?}", entry.path, metadata.kind);
        if modes && metadata.kind != FileKind::Symlink {
            text += &format!(" {:?}", metadata.mode);
        }
        if metadata.kind == FileKind::File {
            let read = sandbox.read(&entry.path).await;
            text += &format!(" {:?}", read.map_err(failed)?);
        }
        if let Some(target) = &metadata.link_target {
            text += &format!(" -> {target}");
        }
        found.push(text);
    }
    Ok(found)
}
