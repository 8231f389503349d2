//! Operations on the files of a sandbox whose tree is a directory of the host, on paths that are
//! resolved already.
//!
//! Must never resolve a path nor decide where something may be made: there the sandboxes differ.

use std::path::Path;

use bytes::Bytes;
use sandbox_core::{
    CreateDirOptions, DirEntry, ExportOptions, GuestPath, ImportOptions, ListOptions, Metadata,
    MetadataOptions, Operation, ReadOptions, RemoveOptions, RenameOptions, Result, TransferReport,
};

use crate::files::GuestRoot;
use crate::walk::Cancel;

/// A sandbox whose files are worked on from the host.
pub(crate) trait FileOperations: Sync {
    /// Works on the files, on a thread for blocking work.
    fn on_files<T: Send + 'static>(
        &self,
        operation: Operation,
        work: impl FnOnce(&GuestRoot) -> Result<T> + Send + 'static,
    ) -> impl Future<Output = Result<T>> + Send;

    /// Works on the files and can be told to stop, as it is when the future is dropped.
    fn on_files_until<T: Send + 'static>(
        &self,
        operation: Operation,
        work: impl FnOnce(&GuestRoot, Cancel) -> Result<T> + Send + 'static,
    ) -> impl Future<Output = Result<T>> + Send {
        async move {
            // Of this call alone.
            let cancel = Cancel::default();
            let _stop = cancel.on_drop();
            self.on_files(operation, move |root| work(root, cancel))
                .await
        }
    }

    fn read_at(
        &self,
        path: GuestPath,
        options: ReadOptions,
    ) -> impl Future<Output = Result<Bytes>> + Send {
        self.on_files(Operation::ReadFile, move |root| root.read(&path, &options))
    }

    fn list_at(
        &self,
        path: GuestPath,
        options: ListOptions,
    ) -> impl Future<Output = Result<Vec<DirEntry>>> + Send {
        self.on_files_until(Operation::ListDir, move |root, cancel| {
            root.list_until(&path, &options, cancel)
        })
    }

    fn metadata_at(
        &self,
        path: GuestPath,
        options: MetadataOptions,
    ) -> impl Future<Output = Result<Metadata>> + Send {
        self.on_files(Operation::Metadata, move |root| {
            root.metadata(&path, &options)
        })
    }

    fn remove_at(
        &self,
        path: GuestPath,
        options: RemoveOptions,
    ) -> impl Future<Output = Result<()>> + Send {
        self.on_files_until(Operation::Remove, move |root, cancel| {
            options.settle(root.remove_until(&path, &options, cancel))
        })
    }

    fn create_dir_at(
        &self,
        path: GuestPath,
        options: CreateDirOptions,
    ) -> impl Future<Output = Result<()>> + Send {
        self.on_files(Operation::CreateDir, move |root| {
            root.create_dir(&path, &options)
        })
    }

    fn rename_at(
        &self,
        from: GuestPath,
        to: GuestPath,
        options: RenameOptions,
    ) -> impl Future<Output = Result<()>> + Send {
        self.on_files(Operation::Rename, move |root| {
            root.rename(&from, &to, &options)
        })
    }

    fn import_at(
        &self,
        from: &Path,
        to: GuestPath,
        options: ImportOptions,
    ) -> impl Future<Output = Result<TransferReport>> + Send {
        let from = from.to_owned();
        self.on_files(Operation::ImportDir, move |root| {
            root.import(&from, &to, &options)
        })
    }

    fn export_at(
        &self,
        from: GuestPath,
        to: &Path,
        options: ExportOptions,
    ) -> impl Future<Output = Result<TransferReport>> + Send {
        let to = to.to_owned();
        self.on_files_until(Operation::ExportDir, move |root, cancel| {
            root.export(&from, &to, &options, &cancel)
        })
    }

    fn check_dir_at(&self, path: GuestPath) -> impl Future<Output = Result<()>> + Send {
        const OP: Operation = Operation::SetWorkdir;
        self.on_files(OP, move |root| root.check_dir(&path, OP))
    }
}
