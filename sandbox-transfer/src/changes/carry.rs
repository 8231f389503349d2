//! Changes put in place in another sandbox: the parent's, or one of another backend.
//!
//! It must never write before everything was compared. Files go in one batch, so that all of them
//! are there or none.

use sandbox_core::{
    Change, Changes, Command, CreateDirOptions, Error, ErrorKind, FileBatch, FileKind, FileVersion,
    GuestPath, MetadataOptions, Mode, Operation, ReadOptions, RemoveOptions, Result, Sandbox,
    WriteMode,
};

use super::plan::{ApplyOptions, ApplyReport, Found, Plan, is_of_interest, mode_of};

const OP: Operation = Operation::ApplyChanges;

/// Puts changes in place in a directory of a sandbox: of the parent, or of another backend. The
/// rules are those of [`apply_to_dir`](super::apply_to_dir).
///
/// Files come as one batch, whole: all of them or none. Then what is to go goes. Links are made
/// with `ln`, for which the sandbox needs
/// [`Capability::Exec`](sandbox_core::Capability::Exec); permission bits of directories that are
/// there already are left as they are. Each entry costs a call or two for the comparison.
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
    let mut modes = Vec::new();
    for change in &changes.entries {
        if !plan.admits(change, options) {
            continue;
        }
        let found = find(sandbox, &top, change).await?;
        let mode = match &found {
            Found::Entry(Some(version)) if version.kind == FileKind::File => {
                Some(version.mode.bits() & 0o777)
            }
            _ => None,
        };
        let before = plan.take.len();
        plan.judge(change, found);
        if plan.take.len() > before {
            modes.push(mode);
        }
    }
    if !options.dry_run && plan.report.conflicts.is_empty() {
        write(sandbox, &top, &plan.take, &modes).await?;
    }
    Ok(plan.report)
}

/// Describes the entry of the sandbox where a change is. The content of a file is read only if it could be that
/// of a side.
async fn find(sandbox: &dyn Sandbox, top: &GuestPath, change: &Change) -> Result<Found> {
    let path = top.join(&change.path);
    let metadata = match sandbox.metadata(&path, MetadataOptions::new()).await {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotADirectory => return Ok(Found::Blocked),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let parent = path.parent().unwrap_or_else(|| top.clone());
            return match sandbox.metadata(&parent, MetadataOptions::new()).await {
                Ok(parent) if parent.is_dir() => Ok(Found::Entry(None)),
                Ok(_) => Ok(Found::Blocked),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(Found::NoParent),
                Err(error) if error.kind() == ErrorKind::NotADirectory => Ok(Found::Blocked),
                Err(error) => Err(error),
            };
        }
        Err(error) => return Err(error),
    };
    let mut version = FileVersion::new(metadata.kind, metadata.mode, 0);
    version.link_target = metadata.link_target;
    if metadata.kind == FileKind::File {
        version.size = metadata.size;
        if is_of_interest(change, metadata.size) {
            let options = ReadOptions::new().limit(metadata.size.saturating_add(1));
            version.content = Some(sandbox.read_file(&path, options).await?);
        }
    }
    Ok(Found::Entry(Some(version)))
}

async fn write(
    sandbox: &dyn Sandbox,
    top: &GuestPath,
    take: &[&Change],
    modes: &[Option<u32>],
) -> Result<()> {
    let at = |change: &Change| top.join(&change.path);
    let is = |side: &Option<FileVersion>, kind: FileKind| {
        side.as_ref().is_some_and(|side| side.kind == kind)
    };
    let dir = FileKind::Directory;
    let replaced = |change: &Change| {
        change.before.is_some()
            && change.after.is_some()
            && is(&change.before, dir) != is(&change.after, dir)
    };
    let is_below = |change: &Change| {
        take.iter().any(|other| {
            let rest = change.path.strip_prefix(&other.path);
            replaced(other) && rest.is_some_and(|rest| !rest.as_bytes().is_empty())
        })
    };
    for change in take.iter().rev() {
        if replaced(change) || (change.after.is_none() && is_below(change)) {
            remove(sandbox, &at(change)).await?;
        }
    }
    for change in take {
        if let Some(after) = change.after.as_ref().filter(|after| after.kind == dir)
            && (change.before.is_none() || replaced(change))
        {
            let mode = Mode::new(after.mode.bits() & 0o777);
            let options = CreateDirOptions::new().mode(mode);
            sandbox.create_dir(&at(change), options).await?;
        }
    }
    let mut batch = FileBatch::new();
    for (change, mode) in take.iter().zip(modes) {
        if let Some(after) = change
            .after
            .as_ref()
            .filter(|after| after.kind == FileKind::File)
        {
            let content = after.content.clone().unwrap_or_default();
            let file = batch.push(at(change), content);
            file.mode = Some(Mode::new(mode_of(change, *mode)));
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
        if change.before.is_some() && !replaced(change) {
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
        if change.after.is_none() && !is_below(change) {
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
