//! Cache volumes: directories that outlive containers, and that running commands share.
//!
//! Each container has a copy. Invariant: what a command wrote is in the volume, and in the containers
//! of the commands that share it and still run, once it has ended; a file appears there whole.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as StdMutex};

use sandbox_core::{
    ExistingDir, ExportOptions, FileBatch, GuestPath, Mode, Sandbox, SandboxExt as _,
};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::directory::blocking;
use super::engine::{Failure, lock};
use super::host::{self, OwnDir};

/// Way in which commands that run at the same time use a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    Shared,
    /// One after the other.
    Locked,
}

/// A volume.
#[derive(Debug)]
pub(super) struct Cache {
    pub(super) key: String,
    dir: Arc<Mutex<CacheDir>>,
    /// The running commands that share it, and where it is in their containers.
    running: StdMutex<Vec<(Arc<dyn Sandbox>, GuestPath)>>,
}

/// Directory of a volume's files on the host.
#[derive(Debug)]
struct CacheDir {
    _keep: OwnDir,
    path: PathBuf,
}

/// A volume while a command uses it.
#[derive(Debug)]
pub(super) struct Mounted {
    cache: Arc<Cache>,
    to: GuestPath,
    child: Arc<dyn Sandbox>,
    /// Held all the time by those that don't share it.
    held: Option<OwnedMutexGuard<CacheDir>>,
    /// The files at the beginning.
    before: OwnDir,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let mut running = lock(&self.cache.running);
        running.retain(|(child, to)| !Arc::ptr_eq(child, &self.child) || *to != self.to);
    }
}

impl Cache {
    pub(super) fn new(key: &str) -> Result<Self, Failure> {
        let keep = OwnDir::new()?;
        let path = keep.path().join("files");
        std::fs::create_dir(&path)?;
        Ok(Self {
            key: key.to_owned(),
            dir: Arc::new(Mutex::new(CacheDir { _keep: keep, path })),
            running: StdMutex::default(),
        })
    }

    /// Copies its files into the container of a command that is about to run.
    pub(super) async fn mount(
        self: &Arc<Self>,
        sharing: Sharing,
        child: &Arc<dyn Sandbox>,
        to: GuestPath,
    ) -> Result<Mounted, Failure> {
        let held = self.dir.clone().lock_owned().await;
        child.import(&held.path, &to).await?;
        let before = OwnDir::new()?;
        let (from, copy) = (held.path.clone(), before.path().join("files"));
        blocking(move || Ok(host::copy(&from, &copy)?)).await?;
        let held = match sharing {
            Sharing::Locked => Some(held),
            Sharing::Shared => {
                lock(&self.running).push((child.clone(), to.clone()));
                None
            }
        };
        Ok(Mounted {
            cache: self.clone(),
            to,
            child: child.clone(),
            held,
            before,
        })
    }
}

impl Mounted {
    /// Takes over what the command wrote.
    pub(super) async fn unmount(mut self) -> Result<(), Failure> {
        let held = match self.held.take() {
            Some(held) => held,
            None => self.cache.dir.clone().lock_owned().await,
        };
        let options = ExportOptions::new().existing(ExistingDir::Replace);
        let after = self.before.path().join("after");
        self.child.export_dir(&self.to, &after, options).await?;
        let (from, before, to) = (after, self.before.path().join("files"), held.path.clone());
        let changed = blocking(move || {
            let mut changed = Vec::new();
            differences(&before, &from, Path::new(""), &mut changed)?;
            for name in gone(&before, &from, Path::new(""))? {
                let file = to.join(name);
                match file.symlink_metadata() {
                    Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(file)?,
                    Ok(_) => std::fs::remove_file(file)?,
                    Err(_) => {}
                }
            }
            for name in &changed {
                if let Some(parent) = to.join(name).parent() {
                    std::fs::create_dir_all(parent)?;
                }
                let _ = std::fs::remove_file(to.join(name));
                host::copy(&from.join(name), &to.join(name))?;
            }
            let mut batch = Vec::new();
            for name in changed {
                let file = from.join(&name);
                if file.symlink_metadata()?.is_file() {
                    batch.push((name, std::fs::read(&file)?));
                }
            }
            Ok(batch)
        })
        .await?;
        let running = lock(&self.cache.running).clone();
        for (child, to) in running {
            if changed.is_empty() || Arc::ptr_eq(&child, &self.child) {
                continue;
            }
            let files = changed
                .iter()
                .fold(FileBatch::new(), |batch, (name, bytes)| {
                    let name = [to.as_bytes(), b"/", name.as_os_str().as_encoded_bytes()].concat();
                    batch.file_with_mode(GuestPath::new(name), bytes.clone(), Mode::new(0o644))
                });
            // One that has just ended needs them no more.
            let _ = child.write_files(files).await;
        }
        drop(held);
        Ok(())
    }
}

/// Names of the files that are not the same in both trees, from the second.
fn differences(
    before: &Path,
    after: &Path,
    name: &Path,
    changed: &mut Vec<PathBuf>,
) -> Result<(), Failure> {
    for entry in std::fs::read_dir(after.join(name))? {
        let name = name.join(entry?.file_name());
        let (old, new) = (before.join(&name), after.join(&name));
        let metadata = new.symlink_metadata()?;
        if metadata.is_dir() {
            if !old.is_dir() && std::fs::read_dir(&new)?.next().is_none() {
                changed.push(name.clone());
            }
            differences(before, after, &name, changed)?;
            continue;
        }
        let same = match metadata.is_symlink() {
            true => std::fs::read_link(&old).ok() == std::fs::read_link(&new).ok(),
            false => {
                let was = old.symlink_metadata().ok();
                was.is_some_and(|was| was.is_file() && was.permissions() == metadata.permissions())
                    && std::fs::read(&old)? == std::fs::read(&new)?
            }
        };
        if !same {
            changed.push(name);
        }
    }
    Ok(())
}

/// Names of what is in the first tree and not in the second.
fn gone(before: &Path, after: &Path, name: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(before.join(name))? {
        let name = name.join(entry?.file_name());
        if after.join(&name).symlink_metadata().is_err() {
            found.push(name);
        } else if before.join(&name).is_dir() && after.join(&name).is_dir() {
            found.extend(gone(before, after, &name)?);
        }
    }
    Ok(found)
}
