//! The part of [`Sandbox`](sandbox_core::Sandbox) that a guest carries out by itself, whichever
//! service it is of.
//!
//! It must never hold an operation in which the services differ.

/// Implements `Sandbox` for a type with a field `guest`: what is the same for every service, beside
/// the given operations, in which this one differs.
macro_rules! sandbox_over_guest {
    (impl Sandbox for $sandbox:ty { $($own:tt)* }) => {
        #[async_trait::async_trait]
        impl sandbox_core::Sandbox for $sandbox {
            $($own)*

            fn info(&self) -> sandbox_core::SandboxInfo {
                self.guest.state().info.clone()
            }

            async fn exec(
                &self,
                command: sandbox_core::Command,
            ) -> sandbox_core::Result<sandbox_core::Output> {
                std::sync::Arc::clone(&self.guest).exec(command).await
            }

            async fn write_files(&self, batch: sandbox_core::FileBatch) -> sandbox_core::Result<()> {
                std::sync::Arc::clone(&self.guest).write_files(batch).await
            }

            async fn read_file(
                &self,
                path: &sandbox_core::GuestPath,
                options: sandbox_core::ReadOptions,
            ) -> sandbox_core::Result<bytes::Bytes> {
                self.guest.read_file(path, options).await
            }

            async fn open_read(
                &self,
                path: &sandbox_core::GuestPath,
                options: sandbox_core::OpenReadOptions,
            ) -> sandbox_core::Result<sandbox_core::FileReader> {
                std::sync::Arc::clone(&self.guest).open_read(path, options).await
            }

            async fn open_write(
                &self,
                path: &sandbox_core::GuestPath,
                options: sandbox_core::OpenWriteOptions,
            ) -> sandbox_core::Result<sandbox_core::FileWriter> {
                std::sync::Arc::clone(&self.guest).open_write(path, options).await
            }

            async fn list_dir(
                &self,
                path: &sandbox_core::GuestPath,
                options: sandbox_core::ListOptions,
            ) -> sandbox_core::Result<Vec<sandbox_core::DirEntry>> {
                self.guest.list_dir(path, options).await
            }

            async fn metadata(
                &self,
                path: &sandbox_core::GuestPath,
                options: sandbox_core::MetadataOptions,
            ) -> sandbox_core::Result<sandbox_core::Metadata> {
                self.guest.metadata(path, options).await
            }

            async fn remove(
                &self,
                path: &sandbox_core::GuestPath,
                options: sandbox_core::RemoveOptions,
            ) -> sandbox_core::Result<()> {
                self.guest.remove(path, options).await
            }

            async fn create_dir(
                &self,
                path: &sandbox_core::GuestPath,
                options: sandbox_core::CreateDirOptions,
            ) -> sandbox_core::Result<()> {
                self.guest.create_dir(path, options).await
            }

            async fn rename(
                &self,
                from: &sandbox_core::GuestPath,
                to: &sandbox_core::GuestPath,
                options: sandbox_core::RenameOptions,
            ) -> sandbox_core::Result<()> {
                self.guest.rename(from, to, options).await
            }

            async fn import_dir(
                &self,
                from: &std::path::Path,
                to: &sandbox_core::GuestPath,
                options: sandbox_core::ImportOptions,
            ) -> sandbox_core::Result<sandbox_core::TransferReport> {
                std::sync::Arc::clone(&self.guest).import_dir(from, to, options).await
            }

            async fn export_dir(
                &self,
                from: &sandbox_core::GuestPath,
                to: &std::path::Path,
                options: sandbox_core::ExportOptions,
            ) -> sandbox_core::Result<sandbox_core::TransferReport> {
                std::sync::Arc::clone(&self.guest).export_dir(from, to, options).await
            }

            async fn set_workdir(&self, path: &sandbox_core::GuestPath) -> sandbox_core::Result<()> {
                self.guest.set_workdir(path).await
            }

            async fn set_env(&self, changes: sandbox_core::Env) -> sandbox_core::Result<()> {
                self.guest.set_env(&changes)
            }
        }
    };
}

pub(crate) use sandbox_over_guest;
