//! Containers to start from: images, Dockerfiles, archives, directories, snapshots.
//!
//! Invariant: a path of the host is looked at here before the engine is asked for it, so that what
//! is missing is told with its path. A password is in no query but the one that hands it over.

use std::path::{Path, PathBuf};

use sandbox_core::backend::blocking;
use sandbox_core::{Error, ErrorKind, Operation, Result, Source};

use crate::config::DaggerConfig;
use crate::config::options::Base;
use crate::session::client::SMALL_ANSWER;
use crate::session::connect::Session;
use crate::session::failure::Failed;
use crate::session::failure::NotMade;
use crate::session::login::signed_in;
use crate::session::query::{self, find};

/// Base that a container is made from.
#[derive(Clone, Debug)]
pub(crate) enum Start {
    Image(String),
    Dockerfile { context: PathBuf, file: String },
    Tarball(PathBuf),
    RootDir(PathBuf),
}

/// A container that was not used yet.
#[derive(Clone, Debug)]
pub(crate) struct Based {
    pub(crate) id: String,
    /// The user of its image; empty for root.
    pub(crate) user: String,
}

impl From<&Base> for Start {
    fn from(base: &Base) -> Self {
        match base {
            Base::Image(image) => Self::Image(image.clone()),
            Base::Dockerfile { context, file } => Self::Dockerfile {
                context: context.clone(),
                file: file.clone(),
            },
            Base::Tarball(archive) => Self::Tarball(archive.clone()),
        }
    }
}

impl Start {
    /// Reads a spec's source, snapshots apart.
    pub(crate) fn new(config: &DaggerConfig, source: &Source) -> Result<Self> {
        match source {
            Source::Default => Ok(Self::from(&config.base)),
            Source::Image(image) => Ok(Self::Image(image.clone())),
            Source::RootDir(root) => Ok(Self::RootDir(root.clone())),
            _ => Err(Error::unsupported(
                Operation::Create,
                "this source",
                "it is not known",
            )),
        }
    }

    /// Looks on the host whether everything is there, and makes paths absolute.
    fn checked(self, operation: Operation) -> Result<Self> {
        let absolute = |path: &Path, file: &Path, is_dir: bool| {
            let failed = |error| Error::from_io(error, operation).with_host_path(file);
            let metadata = std::fs::metadata(file).map_err(failed)?;
            if metadata.is_dir() != is_dir {
                let (kind, why) = match is_dir {
                    true => (ErrorKind::NotADirectory, "not a directory"),
                    false => (ErrorKind::IsADirectory, "a directory"),
                };
                return Err(Error::new(kind, operation)
                    .with_message(why)
                    .with_host_path(file));
            }
            std::path::absolute(path).map_err(failed)
        };
        Ok(match self {
            Self::Image(image) => Self::Image(image),
            Self::Dockerfile { context, file } => Self::Dockerfile {
                context: absolute(&context, &context.join(&file), false)?,
                file,
            },
            Self::Tarball(archive) => Self::Tarball(absolute(&archive, &archive, false)?),
            Self::RootDir(root) => Self::RootDir(absolute(&root, &root, true)?),
        })
    }

    /// The container, made in the engine.
    pub(crate) async fn container(
        self,
        session: &Session,
        config: &DaggerConfig,
        operation: Operation,
    ) -> std::result::Result<Based, NotMade> {
        const SELECT: &str = "id user";
        let start = blocking(operation, move || self.checked(operation)).await?;
        let ask = async |query: String| {
            let within = config.operation_timeout;
            session.query(&query, SMALL_ANSWER, within).await
        };
        let host = async |query: String| -> std::result::Result<String, Failed> {
            let answer = ask(query).await?;
            let id = find(&answer, "id").ok_or_else(|| Failed::Garbage("no id".into()))?;
            Ok(query::string(id))
        };
        let query = match start {
            Self::Image(image) => {
                let from = format!("from(address: {}) {{ {SELECT} }}", query::string(&image));
                let below = signed_in(session, config, &image, operation, from).await?;
                format!("query {{ container {{ {below} }} }}")
            }
            Self::Dockerfile { context, file } => {
                let id = host(query::host_directory(&context.to_string_lossy())).await?;
                let file = query::string(&file);
                format!(
                    "query {{ node(id: {id}) {{ ... on Directory {{ dockerBuild(dockerfile: {file}) \
                     {{ {SELECT} }} }} }} }}"
                )
            }
            Self::Tarball(archive) => {
                let id = host(query::host_file(&archive.to_string_lossy())).await?;
                format!("query {{ container {{ import(source: {id}) {{ {SELECT} }} }} }}")
            }
            Self::RootDir(root) => {
                let id = host(query::host_directory(&root.to_string_lossy())).await?;
                format!("query {{ container {{ withRootfs(directory: {id}) {{ {SELECT} }} }} }}")
            }
        };
        let answer = ask(query).await?;
        let id = find(&answer, "id").ok_or_else(|| Failed::Garbage("no id".into()))?;
        Ok(Based {
            id: id.to_owned(),
            user: find(&answer, "user").unwrap_or_default().to_owned(),
        })
    }
}
