//! Putting a staged batch in place, or back.
//!
//! Invariant: each step can be taken back until the last one has been done; the last one alone may
//! replace a file without keeping it.

use rustix::fs::{AtFlags, RenameFlags, renameat_with, unlinkat};
use rustix::io::Errno;
use sandbox_core::{ErrorKind, Result, WriteMode};

use super::super::GuestRoot;
use super::super::stat::stat_at;
use super::plan::{Dir, Item, Opened, Plan, check_target, place};
use super::stage::{staged_name, staged_tree};

/// Step that was done, to be undone from the last to the first.
enum Done<'a> {
    /// A name that did not exist has the staged file or directory.
    Created {
        dir: &'a Dir,
        name: &'a [u8],
        staged: Vec<u8>,
    },
    /// The staged name has what was there before.
    Exchanged {
        dir: &'a Dir,
        name: &'a [u8],
        staged: Vec<u8>,
    },
}

/// Puts everything in place and removes what was replaced. If that fails everything is as before,
/// and what was not put in place still has its staged name.
pub(super) fn commit(root: &GuestRoot, plan: &Plan<'_>) -> Result<()> {
    let mut done = Vec::new();
    let outcome = put_all(root, plan, &mut done);
    match &outcome {
        Ok(()) => done.into_iter().for_each(|step| finish(root, step)),
        Err(_) => done.into_iter().rev().for_each(|step| undo(root, step)),
    }
    outcome
}

fn put_all<'a>(root: &GuestRoot, plan: &'a Plan<'_>, done: &mut Vec<Done<'a>>) -> Result<()> {
    for (index, tree) in plan.trees.iter().enumerate() {
        let staged = staged_tree(&plan.prefix, index);
        let dir = tree.anchor.open(root)?;
        renameat_with(&dir, &*staged, &dir, &*tree.name, RenameFlags::NOREPLACE).map_err(
            |errno| match errno {
                Errno::EXIST | Errno::NOENT => place(&tree.path).changed(b""),
                errno => place(&tree.path).fail(errno, b""),
            },
        )?;
        done.push(Done::Created {
            dir: &tree.anchor,
            name: &tree.name,
            staged,
        });
    }
    // What replaces comes last, and the very last without a copy: on an overlay, keeping aside a
    // file of a lower layer copies it, which for a batch of one file is all waste.
    let replacing = plan
        .groups
        .iter()
        .flat_map(|group| &group.items)
        .filter(|item| item.replaces)
        .count();
    let mut left = replacing;
    for replaces in [false, true] {
        for group in &plan.groups {
            if !group.items.iter().any(|item| item.replaces == replaces) {
                continue;
            }
            let dir = group.dir.open(root)?;
            for item in group.items.iter().filter(|item| item.replaces == replaces) {
                let staged = staged_name(&plan.prefix, item.index);
                if replaces {
                    left -= 1;
                }
                if replaces && left == 0 {
                    return overwrite(&dir, item, &staged);
                }
                done.push(put(&group.dir, &dir, item, staged)?);
            }
        }
    }
    Ok(())
}

/// Number of times that a place may be made and removed by others while a file is put in it.
const TRIES: u32 = 16;

/// Puts one file in its place such that it can be taken back.
fn put<'a>(
    dir: &'a Dir,
    open: &Opened<'_>,
    item: &'a Item<'_>,
    staged: Vec<u8>,
) -> Result<Done<'a>> {
    let at = place(item.path);
    let name = item.name;
    let mut now = Item { ..*item };
    let mut tries = 0;
    loop {
        tries += 1;
        let flags = match now.replaces {
            true => RenameFlags::EXCHANGE,
            false => RenameFlags::NOREPLACE,
        };
        match renameat_with(open, &*staged, open, name, flags) {
            Ok(()) if now.replaces => break,
            Ok(()) => return Ok(Done::Created { dir, name, staged }),
            // Made meanwhile: it is replaced like any other, if that is allowed.
            Err(Errno::EXIST) if item.file.write_mode == WriteMode::Replace && tries < TRIES => {
                check_target(open, &mut now)?;
            }
            // Removed meanwhile.
            Err(Errno::NOENT) if now.replaces && tries < TRIES => now.replaces = false,
            Err(Errno::NOENT) => return Err(at.changed(b"")),
            Err(errno) => return Err(at.fail(errno, b"")),
        }
    }
    // Only now is it certain what was there.
    match stat_at(open, &*staged) {
        Ok(stat) if !stat.is_dir() && !stat.mounted => Ok(Done::Exchanged { dir, name, staged }),
        other => {
            let _ = exchange(open, name, &staged);
            Err(match other {
                Ok(stat) if stat.is_dir() => {
                    at.error(ErrorKind::IsADirectory, b"", "a directory is there")
                }
                Ok(_) => at.mounted(b""),
                Err(_) => at.changed(b""),
            })
        }
    }
}

/// Puts the last file in its place.
fn overwrite(open: &Opened<'_>, item: &Item<'_>, staged: &[u8]) -> Result<()> {
    let at = place(item.path);
    renameat_with(open, staged, open, item.name, RenameFlags::empty()).map_err(
        |errno| match errno {
            Errno::NOENT => at.changed(b""),
            errno => at.fail(errno, b""),
        },
    )
}

fn finish(root: &GuestRoot, step: Done<'_>) {
    if let Done::Exchanged { dir, staged, .. } = step
        && let Ok(dir) = dir.open(root)
    {
        let _ = unlinkat(&dir, &*staged, AtFlags::empty());
    }
}

fn undo(root: &GuestRoot, step: Done<'_>) {
    // Nothing more can be done if this fails: the guest has removed or renamed the directory.
    match step {
        Done::Created { dir, name, staged } => {
            if let Ok(dir) = dir.open(root) {
                let _ = renameat_with(&dir, name, &dir, &*staged, RenameFlags::NOREPLACE);
            }
        }
        Done::Exchanged { dir, name, staged } => {
            if let Ok(dir) = dir.open(root) {
                let _ = exchange(&dir, name, &staged);
            }
        }
    }
}

fn exchange(dir: &Opened<'_>, name: &[u8], staged: &[u8]) -> rustix::io::Result<()> {
    renameat_with(dir, staged, dir, name, RenameFlags::EXCHANGE)
}
