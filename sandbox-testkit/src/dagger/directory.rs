//! Directories and files as values: of the host, of a container, put together from others.
//!
//! Invariant: nothing is read before an answer needs it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sandbox_core::{ExistingDir, ExportOptions, GuestPath, ReadOptions, Sandbox, SandboxExt as _};

use super::container::Container;
use super::engine::{Engine, Failure};
use super::eval::clean;
use super::host::{self, Copied};
use super::oci;

/// A directory that may not have been looked at yet.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) digest: String,
    pub(super) source: Source,
    /// Number of layers that mounting it takes.
    pub(super) layers: u32,
}

/// Origin of a directory.
#[derive(Debug)]
pub(super) enum Source {
    Empty,
    Host {
        path: PathBuf,
        cached: bool,
    },
    Guest {
        container: Arc<Container>,
        path: String,
    },
    With {
        base: Arc<Directory>,
        path: String,
        other: Arc<Directory>,
    },
    Below {
        base: Arc<Directory>,
        path: String,
    },
    Edit {
        base: Arc<Directory>,
        path: String,
        edit: Edit,
    },
}

/// One change of a directory.
#[derive(Debug)]
pub(super) enum Edit {
    NewFile(String),
    NewDirectory,
    File(Arc<File>),
    Without,
}

/// A file of a container or of a directory.
#[derive(Debug)]
pub(super) struct File {
    pub(super) digest: String,
    pub(super) source: FileSource,
}

/// Origin of a file.
#[derive(Debug)]
pub(super) enum FileSource {
    Guest {
        container: Arc<Container>,
        path: String,
    },
    Below {
        directory: Arc<Directory>,
        path: String,
    },
    Host {
        path: PathBuf,
    },
    /// A text with a mode; equal ones are one file, with the time at which it came first.
    New {
        contents: String,
        mode: u32,
        since: u64,
    },
    /// Another file with this time.
    Timed {
        file: Arc<File>,
        time: u64,
    },
    /// A container as an archive.
    Image(Arc<Container>),
}

/// A path below a directory of the host, that can't leave it.
pub(super) fn below(base: &Path, path: &str) -> PathBuf {
    let mut full = base.to_owned();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if full != base {
                    full.pop();
                }
            }
            name => full.push(name),
        }
    }
    full
}

impl Directory {
    /// The container whose whole root this is, if it is nothing else: what a squash hands back.
    pub(super) fn whole_root(&self) -> Option<&Arc<Container>> {
        match &self.source {
            Source::Guest { container, path } if path == "/" => Some(container),
            Source::With { base, path, other }
                if path == "/" && matches!(base.source, Source::Empty) =>
            {
                other.whole_root()
            }
            _ => None,
        }
    }

    /// The files of a container that have a path of this directory, if it is nothing but a part of
    /// them, and where it is there. They can be looked at without being copied.
    pub(super) async fn in_guest(
        &self,
        engine: &Arc<Engine>,
        path: &str,
    ) -> Result<Option<(Arc<dyn Sandbox>, String)>, Failure> {
        let (container, top) = match (&self.source, self.whole_root()) {
            (_, Some(container)) => (container, "/"),
            (Source::Guest { container, path }, None) => (container, path.as_str()),
            _ => return Ok(None),
        };
        // It can't be left by `..`.
        let path = format!("{top}{}", clean(&format!("/{path}")));
        Ok(Some((container.state(engine).await?, clean(&path))))
    }

    /// Brings the tree to the host.
    pub(super) async fn read(&self, engine: &Arc<Engine>) -> Result<Copied, Failure> {
        match &self.source {
            Source::Empty => Ok(host::empty()?),
            Source::Host { path, cached } => engine.host.read(path, *cached).await,
            Source::Guest { container, path } => {
                let state = container.state(engine).await?;
                let copied = host::empty()?;
                let options = ExportOptions::new().existing(ExistingDir::Merge);
                let from = GuestPath::from(path.as_str());
                state.export_dir(&from, &copied.path, options).await?;
                Ok(copied)
            }
            Source::With { base, path, other } => {
                let base = Box::pin(base.read(engine)).await?;
                let other = Box::pin(other.read(engine)).await?;
                let path = path.clone();
                blocking(move || {
                    let copied = host::empty()?;
                    host::copy(&base.path, &copied.path)?;
                    let to = below(&copied.path, &path);
                    std::fs::create_dir_all(&to)?;
                    host::copy(&other.path, &to)?;
                    Ok(copied)
                })
                .await
            }
            Source::Edit { base, path, edit } => {
                let base = Box::pin(base.read(engine)).await?;
                let content = match edit {
                    Edit::NewFile(contents) => Some(contents.clone().into_bytes()),
                    Edit::File(file) => Some(Box::pin(file.read(engine)).await?),
                    Edit::NewDirectory | Edit::Without => None,
                };
                let keep = !matches!(edit, Edit::Without);
                let path = path.clone();
                blocking(move || {
                    let copied = host::empty()?;
                    host::copy(&base.path, &copied.path)?;
                    let at = below(&copied.path, &path);
                    match (content, keep) {
                        (Some(content), _) => {
                            if let Some(parent) = at.parent() {
                                std::fs::create_dir_all(parent)?;
                            }
                            std::fs::write(at, content)?;
                        }
                        (None, true) => std::fs::create_dir_all(at)?,
                        (None, false) if at.is_dir() => std::fs::remove_dir_all(at)?,
                        (None, false) if at.exists() => std::fs::remove_file(at)?,
                        _ => {}
                    }
                    Ok(copied)
                })
                .await
            }
            Source::Below { base, path } => {
                let base = Box::pin(base.read(engine)).await?;
                let from = below(&base.path, path);
                blocking(move || {
                    let copied = host::empty()?;
                    host::copy(&from, &copied.path)?;
                    Ok(copied)
                })
                .await
            }
        }
    }

    /// The names in it, directories with a slash behind.
    pub(super) async fn entries(
        &self,
        engine: &Arc<Engine>,
        path: &str,
    ) -> Result<Vec<String>, Failure> {
        if let Some((state, at)) = self.in_guest(engine, path).await? {
            let at = GuestPath::from(at.as_str());
            let listed = state.list(&at).await?;
            let mut names: Vec<_> = listed
                .iter()
                .map(|entry| {
                    let slash = if entry.metadata.is_dir() { "/" } else { "" };
                    let name = String::from_utf8_lossy(entry.path.as_bytes()).into_owned();
                    format!("{name}{slash}")
                })
                .collect();
            names.sort();
            return Ok(names);
        }
        let copied = self.read(engine).await?;
        let at = below(&copied.path, path);
        blocking(move || {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(&at)? {
                let entry = entry?;
                let slash = if entry.file_type()?.is_dir() { "/" } else { "" };
                names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
            }
            names.sort();
            Ok(names)
        })
        .await
    }
}

impl File {
    /// Mode of the file where it is put, unless that names another.
    pub(super) fn mode(&self) -> u32 {
        match &self.source {
            FileSource::New { mode, .. } => *mode,
            FileSource::Timed { file, .. } => file.mode(),
            _ => 0o644,
        }
    }

    /// Time of the file in seconds, if it is not that of its use.
    pub(super) fn time(&self) -> Option<u64> {
        match &self.source {
            FileSource::New { since, .. } => Some(*since),
            FileSource::Timed { time, .. } => Some(*time),
            _ => None,
        }
    }

    /// The bytes.
    pub(super) async fn read(&self, engine: &Arc<Engine>) -> Result<Vec<u8>, Failure> {
        match &self.source {
            FileSource::Guest { container, path } => {
                let state = container.state(engine).await?;
                read_guest(&*state, path).await
            }
            FileSource::Below { directory, path } => {
                let copied = directory.read(engine).await?;
                let at = below(&copied.path, path);
                blocking(move || Ok(std::fs::read(at)?)).await
            }
            FileSource::New { contents, .. } => Ok(contents.clone().into_bytes()),
            FileSource::Timed { file, .. } => Box::pin(file.read(engine)).await,
            FileSource::Image(container) => oci::write(engine, container).await,
            FileSource::Host { path } => {
                let path = path.clone();
                blocking(move || Ok(std::fs::read(path)?)).await
            }
        }
    }
}

async fn read_guest(state: &dyn Sandbox, path: &str) -> Result<Vec<u8>, Failure> {
    let options = ReadOptions::new().limit(1 << 30);
    Ok(state
        .read_file(&GuestPath::from(path), options)
        .await?
        .into())
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(Failure::text)?
}
