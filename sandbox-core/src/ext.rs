//! Conveniences on top of the trait. They add no behaviour of their own.

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Command, DirEntry, Error, ErrorKind, FileBatch, ForkOptions, GuestPath, ListOptions, Operation,
    Output, ReadOptions, RemoveOptions, Result, Sandbox,
};

mod sealed {
    pub trait Sealed {}
    impl<T: crate::Sandbox + ?Sized> Sealed for T {}
}

/// Shorter ways to say common things; implemented for every [`Sandbox`].
#[async_trait]
pub trait SandboxExt: Sandbox + sealed::Sealed {
    /// Runs a script with `/bin/sh -c`. See [`Sandbox::exec`].
    ///
    /// # Errors
    /// Those of [`Sandbox::exec`].
    async fn sh<S: AsRef<[u8]> + Send>(&self, script: S) -> Result<Output> {
        self.exec(Command::shell(script)).await
    }

    /// Writes one file, replacing what is there. See [`Sandbox::write_files`].
    ///
    /// # Errors
    /// Those of [`Sandbox::write_files`].
    async fn write<P, C>(&self, path: P, content: C) -> Result<()>
    where
        P: Into<GuestPath> + Send,
        C: Into<Bytes> + Send,
    {
        self.write_files(FileBatch::new().file(path, content)).await
    }

    /// Reads a file within the default limit. See [`Sandbox::read_file`].
    ///
    /// # Errors
    /// Those of [`Sandbox::read_file`].
    async fn read<P: Into<GuestPath> + Send>(&self, path: P) -> Result<Bytes> {
        self.read_file(&path.into(), ReadOptions::default()).await
    }

    /// Reads a file of UTF-8 text within the default limit.
    ///
    /// # Errors
    /// Those of [`Sandbox::read_file`]; [`ErrorKind::InvalidInput`] if it is not UTF-8.
    async fn read_to_string<P: Into<GuestPath> + Send>(&self, path: P) -> Result<String> {
        let path = path.into();
        let bytes = self.read_file(&path, ReadOptions::default()).await?;
        String::from_utf8(bytes.into()).map_err(|error| {
            Error::new(ErrorKind::InvalidInput, Operation::ReadFile)
                .with_message("the file is not UTF-8")
                .with_path(path)
                .with_source(error)
        })
    }

    /// Lists a directory, not descending. See [`Sandbox::list_dir`].
    ///
    /// # Errors
    /// Those of [`Sandbox::list_dir`].
    async fn list<P: Into<GuestPath> + Send>(&self, path: P) -> Result<Vec<DirEntry>> {
        self.list_dir(&path.into(), ListOptions::default()).await
    }

    /// Whether something is there, be it a dangling link. See [`Sandbox::metadata`].
    ///
    /// # Errors
    /// Those of [`Sandbox::metadata`], except [`ErrorKind::NotFound`] and
    /// [`ErrorKind::NotADirectory`].
    async fn exists<P: Into<GuestPath> + Send>(&self, path: P) -> Result<bool> {
        match self.metadata(&path.into()).await {
            Ok(_) => Ok(true),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Removes a file or a whole directory. See [`Sandbox::remove`].
    ///
    /// # Errors
    /// Those of [`Sandbox::remove`].
    async fn remove_all<P: Into<GuestPath> + Send>(&self, path: P) -> Result<()> {
        self.remove(&path.into(), RemoveOptions::default().recursive(true))
            .await
    }

    /// Forks `count` times, one after the other; on an error closes those that there are.
    ///
    /// # Errors
    /// Those of [`Sandbox::fork`].
    async fn fork_many(&self, count: usize) -> Result<Vec<std::sync::Arc<dyn Sandbox>>> {
        let mut forks = Vec::with_capacity(count);
        for _ in 0..count {
            match self.fork(ForkOptions::default()).await {
                Ok(fork) => forks.push(fork),
                Err(error) => {
                    for fork in forks {
                        // The first error is the one to tell.
                        let _ = fork.close().await;
                    }
                    return Err(error);
                }
            }
        }
        Ok(forks)
    }
}

impl<T: Sandbox + ?Sized> SandboxExt for T {}
