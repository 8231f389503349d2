//! `write_files`: a batch is staged beside the sandbox's root, then put in place; what fails on the
//! way is taken back.
//!
//! It must never leave a part of a file under its name, nor a part of a batch after an error.

use std::fs;
use std::io;
use std::path::PathBuf;

use sandbox_core::{
    Capability, Error, ErrorKind, FileBatch, FileWrite, GuestPath, Mode, Operation, Result,
    WriteMode,
};

use super::files::not_a_dir;
use super::tree::{Place, Tree, failed, remove_tree};
use super::{CAPABILITIES, os};

const OP: Operation = Operation::WriteFiles;

/// A file that is written and waits for its name.
struct Staged {
    place: Place,
    file: PathBuf,
    write_mode: WriteMode,
}

pub(super) fn write(tree: &Tree, workdir: &GuestPath, batch: &FileBatch) -> Result<()> {
    let files = batch.resolve(workdir)?;
    if files.iter().any(|(_, file)| file.mode.is_some()) {
        CAPABILITIES.require(Capability::Modes, OP)?;
    }
    let stage = tree.stage();
    fs::create_dir(&stage).map_err(|e| Error::from_io(e, OP))?;
    let written = prepare(tree, &stage, &files).and_then(|staged| put(&stage, &staged));
    // What is left there does no harm.
    let _ = remove_tree(&stage);
    written
}

fn prepare(
    tree: &Tree,
    stage: &std::path::Path,
    files: &[(GuestPath, &FileWrite)],
) -> Result<Vec<Staged>> {
    let mut staged = Vec::with_capacity(files.len());
    for (number, (guest, write)) in files.iter().enumerate() {
        let place = tree.place(guest, guest, OP)?;
        let replaced = check(&place, write.write_mode)?;
        let mode = write.mode.or(replaced).unwrap_or(Mode::FILE);
        let file = stage.join(format!("new-{number}"));
        fs::write(&file, &write.content)
            .and_then(|()| os::set_mode(&file, mode))
            .map_err(|e| failed(e, OP, guest))?;
        staged.push(Staged {
            place,
            file,
            write_mode: write.write_mode,
        });
    }
    Ok(staged)
}

/// Whether the name is free or may be replaced; the permission bits of the file that is there.
fn check(place: &Place, write_mode: WriteMode) -> Result<Option<Mode>> {
    let refuse = |kind, why: &str| {
        Err(Error::new(kind, OP)
            .with_message(why)
            .with_path(&place.guest))
    };
    let meta = match fs::symlink_metadata(&place.host) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e, OP, &place.guest)),
    };
    if write_mode == WriteMode::CreateNew {
        return refuse(ErrorKind::AlreadyExists, "a file is already there");
    }
    if meta.is_dir() {
        return refuse(ErrorKind::IsADirectory, "a directory is there");
    }
    if meta.is_symlink() {
        return Ok(None);
    }
    if !meta.is_file() {
        let why = "a FIFO, socket or device is there";
        return refuse(ErrorKind::NotARegularFile, why);
    }
    // Renaming over a file needs no right to write it; the contract does.
    fs::OpenOptions::new()
        .write(true)
        .open(&place.host)
        .map_err(|e| failed(e, OP, &place.guest))?;
    Ok(Some(Mode::new(os::mode(&meta).bits() & 0o777)))
}

/// Step that was done, to be taken back in reverse.
enum Done {
    MadeDir(PathBuf),
    Put {
        at: PathBuf,
        backup: Option<PathBuf>,
    },
}

fn put(stage: &std::path::Path, staged: &[Staged]) -> Result<()> {
    let mut done = Vec::new();
    for (number, file) in staged.iter().enumerate() {
        let backup = stage.join(format!("old-{number}"));
        if let Err(error) = put_one(file, backup, &mut done) {
            for step in done.into_iter().rev() {
                // The first error is the one to tell.
                let _ = match step {
                    Done::MadeDir(path) => fs::remove_dir(path),
                    Done::Put {
                        at,
                        backup: Some(backup),
                    } => fs::rename(backup, at),
                    Done::Put { at, backup: None } => fs::remove_file(at),
                };
            }
            return Err(failed(error, OP, &file.place.guest));
        }
    }
    Ok(())
}

fn put_one(file: &Staged, backup: PathBuf, done: &mut Vec<Done>) -> io::Result<()> {
    let at = &file.place.host;
    let mut missing = Vec::new();
    let mut parent = at.parent();
    while let Some(dir) = parent {
        match fs::metadata(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => missing.push(dir),
            Err(e) => return Err(e),
            Ok(meta) if meta.is_dir() => break,
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
        }
        parent = dir.parent();
    }
    for dir in missing.into_iter().rev() {
        match fs::create_dir(dir) {
            // Another batch was there first.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => continue,
            made => made.map_err(not_a_dir)?,
        }
        done.push(Done::MadeDir(dir.to_path_buf()));
        os::set_mode(dir, Mode::EXECUTABLE)?;
    }
    if file.write_mode == WriteMode::CreateNew {
        // A link, unlike a rename, fails where something is; so do filesystems without links.
        fs::hard_link(&file.file, at)?;
        done.push(Done::Put {
            at: at.clone(),
            backup: None,
        });
        return Ok(());
    }
    let backup = match fs::symlink_metadata(at) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(e),
        Ok(meta) => {
            // A second name keeps the old file there until the rename takes its place.
            if !meta.is_file() || fs::hard_link(at, &backup).is_err() {
                fs::rename(at, &backup)?;
            }
            Some(backup)
        }
    };
    done.push(Done::Put {
        at: at.clone(),
        backup,
    });
    fs::rename(&file.file, at)
}
