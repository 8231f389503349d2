//! Changes put in place in another sandbox: the parent's, or one of another backend.
//!
//! It must never write before everything was compared. Files go in one batch, so that all of them
//! are there or none.

use std::collections::HashMap;

use sandbox_core::{
    Change, Changes, Command, CreateDirOptions, Error, ErrorKind, FileBatch, FileKind, FileVersion,
    GuestPath, ListOptions, MetadataOptions, Mode, Operation, ReadOptions, RemoveOptions, Result,
    Sandbox, WriteMode,
};

use super::plan::{ApplyOptions, ApplyReport, Cleared, Found, Plan, is_of_interest, mode_of};

const OP: Operation = Operation::ApplyChanges;

/// Puts changes in place in a directory of a sandbox: of the parent, or of another backend. The
/// rules are those of [`apply_to_dir`](super::apply_to_dir).
///
/// Files come as one batch, whole: all of them or none. Then what is to go goes. Links are made
/// with `ln`, for which the sandbox needs
/// [`Capability::Exec`](sandbox_core::Capability::Exec); permission bits of directories that are
/// there already are left as they are. Each entry costs a call or two for the comparison, and each
/// directory above them one; no link of the sandbox is followed below the directory.
///
/// Dropping the future leaves all of the files or none, and some of the rest.
///
/// ```no_run
/// # use sandbox_core::{ForkOptions, Result, Sandbox, SandboxExt as _};
/// # async fn example(parent: &dyn Sandbox) -> Result<()> {
/// use sandbox_transfer::changes::{ApplyOptions, apply_to_sandbox};
/// let attempt = parent.fork(ForkOptions::new()).await?;
/// attempt.sh("cd project && ./agent").await?;
/// let changes = attempt.changes_in("project").await?;
/// let report =
///     apply_to_sandbox(&changes, parent, &"project".into(), &ApplyOptions::new()).await?;
/// assert!(report.conflicts.is_empty());
/// # Ok(()) }
/// ```
///
/// # Errors
/// Those of the sandbox's calls.
pub async fn apply_to_sandbox(
    changes: &Changes,
    sandbox: &dyn Sandbox,
    directory: &GuestPath,
    options: &ApplyOptions,
) -> Result<ApplyReport> {
    let top = directory.resolve(&sandbox.info().workdir, OP)?;
    if !sandbox
        .metadata(&top, MetadataOptions::new().follow(true))
        .await?
        .is_dir()
    {
        return Err(Error::new(ErrorKind::NotADirectory, OP)
            .with_message("not a directory")
            .with_path(top)
            .with_sandbox(sandbox.info().id));
    }
    let mut plan = Plan::new(changes);
    let mut modes = HashMap::new();
    let mut ways = Ways {
        sandbox,
        top: &top,
        known: HashMap::new(),
    };
    for change in &changes.entries {
        if !plan.admits(change, options) {
            continue;
        }
        let found = ways.find(change).await?;
        if let Found::Entry(Some(version)) = &found
            && version.kind == FileKind::File
        {
            modes.insert(&change.path, version.mode.bits() & 0o777);
        }
        plan.judge(change, found);
    }
    let mut entries = Vec::new();
    for change in plan.emptied() {
        let path = top.join(&change.path);
        let listed = sandbox.list_dir(&path, ListOptions::new()).await?;
        let paths = listed.into_iter();
        let paths = paths.map(|entry| change.path.join(&entry.path));
        entries.push((change, paths.collect()));
    }
    plan.keep_unless_emptied(entries);
    if !options.dry_run && plan.report.conflicts.is_empty() {
        write(sandbox, &top, &plan.take, &modes).await?;
    }
    Ok(plan.report)
}

/// The directories of the target that entries lie in, each looked at once.
struct Ways<'a> {
    sandbox: &'a dyn Sandbox,
    top: &'a GuestPath,
    known: HashMap<&'a [u8], Way>,
}

/// A directory on the way to an entry.
#[derive(Clone, Copy)]
enum Way {
    Open,
    Missing,
    /// A link or a file.
    Blocked,
}

impl<'a> Ways<'a> {
    async fn way(&mut self, path: &'a [u8]) -> Result<Way> {
        if let Some(way) = self.known.get(path) {
            return Ok(*way);
        }
        let at = self.top.join(path);
        let way = match self.sandbox.metadata(&at, MetadataOptions::new()).await {
            Ok(metadata) if metadata.is_dir() => Way::Open,
            Ok(_) => Way::Blocked,
            Err(error) if error.kind() == ErrorKind::NotFound => Way::Missing,
            Err(error) => return Err(error),
        };
        self.known.insert(path, way);
        Ok(way)
    }

    /// Describes the entry where a change is, following no link. The content of a file is read only
    /// if it could be that of a side.
    async fn find(&mut self, change: &'a Change) -> Result<Found> {
        let path = change.path.as_bytes();
        for (end, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            match self.way(path.get(..end).unwrap_or_default()).await? {
                Way::Open => {}
                Way::Missing => return Ok(Found::NoParent),
                Way::Blocked => return Ok(Found::Blocked),
            }
        }
        let path = self.top.join(&change.path);
        let metadata = match self.sandbox.metadata(&path, MetadataOptions::new()).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Entry(None)),
            metadata => metadata?,
        };
        let mut version = FileVersion::new(metadata.kind, metadata.mode, 0);
        version.link_target = metadata.link_target;
        if metadata.kind == FileKind::File {
            version.size = metadata.size;
            if is_of_interest(change, metadata.size) {
                let options = ReadOptions::new().limit(metadata.size.saturating_add(1));
                version.content = Some(self.sandbox.read_file(&path, options).await?);
            }
        }
        Ok(Found::Entry(Some(version)))
    }
}

async fn write(
    sandbox: &dyn Sandbox,
    top: &GuestPath,
    take: &[&Change],
    modes: &HashMap<&GuestPath, u32>,
) -> Result<()> {
    let at = |change: &Change| top.join(&change.path);
    let dir = FileKind::Directory;
    let cleared = Cleared::of(take);
    for change in take.iter().rev() {
        if cleared.has(change) || change.after.is_none() && cleared.is_below(change) {
            remove(sandbox, &at(change)).await?;
        }
    }
    for change in take {
        if let Some(after) = change.after.as_ref().filter(|after| after.kind == dir)
            && (change.before.is_none() || cleared.has(change))
        {
            let mode = Mode::new(after.mode.bits() & 0o777);
            let options = CreateDirOptions::new().mode(mode);
            sandbox.create_dir(&at(change), options).await?;
        }
    }
    let mut batch = FileBatch::new();
    for change in take {
        if let Some(after) = change
            .after
            .as_ref()
            .filter(|after| after.kind == FileKind::File)
        {
            let content = after.content.clone().unwrap_or_default();
            let file = batch.push(at(change), content);
            let old = modes.get(&change.path).copied();
            file.mode = Some(Mode::new(mode_of(change, old)));
            if change.before.is_none() {
                file.write_mode = WriteMode::CreateNew;
            }
        }
    }
    if !batch.files().is_empty() {
        sandbox.write_files(batch).await?;
    }
    for change in take {
        let Some(target) = change
            .after
            .as_ref()
            .and_then(|after| after.link_target.as_ref())
        else {
            continue;
        };
        let path = at(change);
        if change.before.is_some() && !cleared.has(change) {
            remove(sandbox, &path).await?;
        }
        let link = Command::new("ln").arg("-s").arg("--");
        let link = link.arg(target.as_bytes()).arg(path.as_bytes());
        let output = sandbox.exec(link).await?;
        if !output.success() {
            return Err(Error::new(ErrorKind::Other, OP)
                .with_message(format!(
                    "ln could not make a link: {}",
                    output.stderr.to_string_lossy().trim()
                ))
                .with_path(path)
                .with_sandbox(sandbox.info().id));
        }
    }
    for change in take.iter().rev() {
        if change.after.is_none() && !cleared.is_below(change) {
            remove(sandbox, &at(change)).await?;
        }
    }
    Ok(())
}

/// Removes one entry. A directory with something else in it stays.
async fn remove(sandbox: &dyn Sandbox, path: &GuestPath) -> Result<()> {
    let options = RemoveOptions::new().ignore_missing(true);
    match sandbox.remove(path, options).await {
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
        removed => removed,
    }
}
