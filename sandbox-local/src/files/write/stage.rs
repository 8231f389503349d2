//! Writing a batch's content under names of its own.
//!
//! Invariant: only new names are created, each with `O_EXCL` in an opened directory.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use rustix::io::{Errno, Result as Sys};
use sandbox_core::{Error, ErrorKind, GuestPath, Operation, Result};

use super::super::GuestRoot;
use super::super::create::{PARENT_MODE, make_dir};
use super::super::resolve::{DIR_PATH, open_same_mount};
use super::super::stat::stat_fd;
use super::super::tree::remove_tree;
use super::plan::{Plan, Tree, mode_of, place};
use crate::sys::launch;

/// Number of files of one directory from which on a second thread pays.
const TWO_THREADS: usize = 64;

/// A file to be written.
struct Job<'a> {
    path: &'a GuestPath,
    name: Vec<u8>,
    content: &'a [u8],
    mode: u32,
}

/// Writes everything of a plan beside its place.
pub(super) fn stage(root: &GuestRoot, plan: &Plan<'_>) -> Result<()> {
    for group in &plan.groups {
        let jobs: Vec<Job<'_>> = group
            .items
            .iter()
            .map(|item| Job {
                path: item.path,
                name: staged_name(&plan.prefix, item.index),
                content: &item.file.content,
                mode: item.mode,
            })
            .collect();
        write_all(root, group.dir.open(root)?.as_fd(), &jobs)?;
    }
    for (index, tree) in plan.trees.iter().enumerate() {
        stage_tree(root, tree, &staged_tree(&plan.prefix, index))?;
    }
    Ok(())
}

/// Creates the one file of a plan beside its place, empty.
pub(super) fn stage_one(root: &GuestRoot, plan: &Plan<'_>) -> Result<OwnedFd> {
    let create = |dir: BorrowedFd<'_>, path: &GuestPath, name: &[u8], mode| {
        create_file(dir, name, mode, &mut Modes::default()).map_err(|errno| match errno {
            Errno::EXIST => place(path).changed(b""),
            Errno::NOENT => refused(path),
            errno => place(path).fail(errno, b""),
        })
    };
    if let Some(group) = plan.groups.first()
        && let Some(item) = group.items.first()
    {
        let name = staged_name(&plan.prefix, item.index);
        let dir = group.dir.open(root)?;
        return create(dir.as_fd(), item.path, &name, item.mode);
    }
    if let Some(tree) = plan.trees.first()
        && let Some((rel, files)) = tree.files.iter().next()
        && let Some(new) = files.first()
    {
        let top = stage_top(root, tree, &staged_tree(&plan.prefix, 0))?;
        let dir = descend(&top, rel).map_err(|errno| staging(tree, errno))?;
        return create(dir.as_fd(), new.path, new.name, mode_of(new.file));
    }
    Err(Error::new(ErrorKind::Other, Operation::WriteFiles)
        .with_message("there is no file to stage"))
}

/// Removes what a failed batch has under staged names; what can't be removed stays, as
/// the caller could not remove it either.
pub(super) fn clean_up(root: &GuestRoot, plan: &Plan<'_>) {
    for group in &plan.groups {
        if let Ok(dir) = group.dir.open(root) {
            for item in &group.items {
                let staged = staged_name(&plan.prefix, item.index);
                let _ = unlinkat(&dir, staged, AtFlags::empty());
            }
        }
    }
    for (index, tree) in plan.trees.iter().enumerate() {
        if let Ok(dir) = tree.anchor.open(root) {
            let _ = remove_tree(&dir, &staged_tree(&plan.prefix, index), &place(&tree.path));
        }
    }
}

/// The name under which the file with this number is staged.
pub(super) fn staged_name(prefix: &str, index: usize) -> Vec<u8> {
    format!("{prefix}{index}").into_bytes()
}

/// The name under which the tree with this number is staged.
pub(super) fn staged_tree(prefix: &str, index: usize) -> Vec<u8> {
    format!("{prefix}d{index}").into_bytes()
}

/// Returns the error that staging a tree fails with.
fn staging(tree: &Tree<'_>, errno: Errno) -> Error {
    match errno {
        Errno::NOENT => refused(&tree.path),
        errno => place(&tree.path).fail(errno, b""),
    }
}

fn stage_top(root: &GuestRoot, tree: &Tree<'_>, staged: &[u8]) -> Result<OwnedFd> {
    let anchor = tree.anchor.open(root)?;
    make_dir(&anchor, staged, PARENT_MODE).map_err(|errno| staging(tree, errno))
}

/// Opens a directory below another, and makes what is missing of it.
fn descend(top: &OwnedFd, rel: &[u8]) -> Sys<OwnedFd> {
    let mut dir = top.try_clone().map_err(|_| Errno::MFILE)?;
    for name in rel.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
        dir = match make_dir(&dir, name, PARENT_MODE) {
            Err(Errno::EXIST) => open_same_mount(&dir, name, DIR_PATH),
            made => made,
        }?;
    }
    Ok(dir)
}

fn stage_tree(root: &GuestRoot, tree: &Tree<'_>, staged: &[u8]) -> Result<()> {
    let top = stage_top(root, tree, staged)?;
    // Sorted by bytes, a directory comes before what is in it.
    for (rel, files) in &tree.files {
        let dir = descend(&top, rel).map_err(|errno| staging(tree, errno))?;
        let jobs: Vec<Job<'_>> = files
            .iter()
            .map(|new| Job {
                path: new.path,
                name: new.name.to_vec(),
                content: &new.file.content,
                mode: mode_of(new.file),
            })
            .collect();
        write_all(root, dir.as_fd(), &jobs)?;
    }
    Ok(())
}

/// Writes the files of one directory, many of them on two threads.
fn write_all(root: &GuestRoot, dir: BorrowedFd<'_>, jobs: &[Job<'_>]) -> Result<()> {
    if jobs.len() < TWO_THREADS {
        return write_some(dir, jobs);
    }
    let (here, there) = jobs.split_at(jobs.len() / 2);
    std::thread::scope(|scope| {
        let other = std::thread::Builder::new().spawn_scoped(scope, || {
            // A thread inherits the user of the one that starts it; taking it on again says
            // so where it matters.
            let _guest = root.as_guest(Operation::WriteFiles)?;
            write_some(dir, there)
        });
        let here = write_some(dir, here);
        match other {
            Ok(other) => here.and(other.join().unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Other, Operation::WriteFiles)
                    .with_message("a writing thread ended unexpectedly"))
            })),
            Err(_no_thread) => here.and_then(|()| write_some(dir, there)),
        }
    })
}

fn write_some(dir: BorrowedFd<'_>, jobs: &[Job<'_>]) -> Result<()> {
    let mut modes = Modes::default();
    for job in jobs {
        write_file(dir, job, &mut modes).map_err(|errno| match errno {
            Errno::EXIST => place(job.path).changed(b""),
            Errno::NOENT => refused(job.path),
            errno => place(job.path).fail(errno, b""),
        })?;
    }
    // The kernel executes nothing that is open for writing somewhere.
    if jobs.iter().any(|job| job.mode & 0o111 != 0) {
        launch::let_go();
    }
    Ok(())
}

/// For `ENOENT` on creating something in an existing directory: either that was removed just now,
/// or it is one that takes no files (procfs).
fn refused(path: &GuestPath) -> Error {
    place(path).error(
        ErrorKind::PermissionDenied,
        b"",
        "nothing can be created there",
    )
}

fn write_file(dir: BorrowedFd<'_>, job: &Job<'_>, modes: &mut Modes) -> Sys<()> {
    let file = create_file(dir, &job.name, job.mode, modes)?;
    let mut content = job.content;
    while !content.is_empty() {
        match rustix::io::write(&file, content) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => content = content.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// The mode with which files came out as asked for in one directory: umask and default ACL leave
/// the next one alone too, which saves looking at each.
#[derive(Debug, Default)]
pub(in super::super) struct Modes {
    exact: Option<u32>,
}

/// Creates a file with exactly this mode, whatever the umask.
pub(in super::super) fn create_file(
    dir: BorrowedFd<'_>,
    name: &[u8],
    mode: u32,
    modes: &mut Modes,
) -> Sys<OwnedFd> {
    let file = openat(
        dir,
        name,
        OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::from_raw_mode(mode),
    )?;
    if modes.exact != Some(mode) {
        if stat_fd(&file)?.permissions() == mode {
            modes.exact = Some(mode);
        } else {
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        }
    }
    Ok(file)
}
