//! The trait's methods: each checks its arguments, asks once and reads the answer.
//!
//! Invariant: no method holds anything over a dropped future but the turn, which is then free.

use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use sandbox_core::{
    Capabilities, Command, CreateDirOptions, DirEntry, Env, Error, ErrorKind, ExportOptions,
    FileBatch, ForkOptions, GuestPath, ImportOptions, IsolationReport, ListOptions, Metadata,
    MetadataOptions, Operation, Output, Process, ReadOptions, RemoveOptions, RenameOptions, Result,
    Sandbox, SandboxId, SandboxInfo, Snapshot, SnapshotOptions, TransferReport,
};
use tokio::sync::watch;

use crate::guest::Script;
use crate::sandbox::DaggerSandbox;
use crate::sandbox::capability::{CAPABILITIES, unprobed};
use crate::sandbox::chain::Chain;
use crate::sandbox::{batch, files, snapshot, transfer};
use crate::session::client::SMALL_ANSWER;
use crate::session::nonce::nonce;
use crate::session::secrets::keep_secrets;

#[async_trait]
impl Sandbox for DaggerSandbox {
    fn info(&self) -> SandboxInfo {
        let mut info = SandboxInfo::new(self.id.clone(), "dagger", self.settings().common.workdir)
            .labels(self.labels.clone())
            .command_timeout(Some(self.command_timeout));
        info.parent.clone_from(&self.parent);
        info.created = self.created;
        info
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn isolation(&self) -> Result<IsolationReport> {
        self.check_open(Operation::Isolation)?;
        let report = unprobed();
        Ok(report)
    }

    async fn exec(&self, command: Command) -> Result<Output> {
        self.run(command).await
    }

    async fn spawn(&self, command: Command) -> Result<Process> {
        self.start(command).await
    }

    async fn write_files(&self, batch: FileBatch) -> Result<()> {
        self.check_open(Operation::WriteFiles)?;
        batch::write(self, batch)
            .await
            .map_err(|error| self.named(error))
    }

    async fn read_file(&self, path: &GuestPath, options: ReadOptions) -> Result<Bytes> {
        const OP: Operation = Operation::ReadFile;
        let path = self.resolve(path, OP)?;
        let limit = options.limit;
        if let Some(bytes) = self.read_directly(&path, limit).await? {
            return Ok(bytes);
        }
        let largest = limit.saturating_mul(3).saturating_add(SMALL_ANSWER) / 2 + SMALL_ANSWER;
        let script = move |script: Script| script.line(&format!("limit={limit}")).files("op_read");
        let (stdout, nonce) = self.query(script, OP, &path, largest).await?;
        let opened = files::open(&stdout, &nonce, OP, &path).map_err(|error| match error.kind() {
            ErrorKind::LimitExceeded => error.with_message(format!(
                "the file is larger than the limit of {limit} bytes"
            )),
            _ => error,
        });
        let mut frame = opened.map_err(|error| self.named(error))?;
        let bytes = frame
            .bytes()
            .map_err(|problem| self.named(files::broken(problem, OP)))?;
        Ok(bytes.into())
    }

    async fn list_dir(&self, path: &GuestPath, options: ListOptions) -> Result<Vec<DirEntry>> {
        const OP: Operation = Operation::ListDir;
        let path = self.resolve(path, OP)?;
        let limit = options.limit;
        let depth = if options.recursive { "" } else { "-maxdepth 1" };
        let settings = format!("limit=0 depth='{depth}'");
        let script = move |script: Script| script.line(&settings).files("op_list");
        let (stdout, nonce) = self.query(script, OP, &path, 256 << 20).await?;
        let opened = files::open(&stdout, &nonce, OP, &path);
        let mut frame = opened.map_err(|error| self.named(error))?;
        let mut entries = self.entries(&mut frame, OP)?;
        if entries.len() > limit {
            return Err(self
                .named(Error::new(ErrorKind::LimitExceeded, OP))
                .with_message(format!("more than {limit} entries"))
                .with_path(path));
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }

    async fn metadata(&self, path: &GuestPath, options: MetadataOptions) -> Result<Metadata> {
        const OP: Operation = Operation::Metadata;
        let path = self.resolve(path, OP)?;
        let follow = if options.follow {
            "follow=-L"
        } else {
            "follow="
        };
        let script = move |script: Script| script.line(follow).files("op_metadata");
        let (stdout, nonce) = self.query(script, OP, &path, SMALL_ANSWER).await?;
        let opened = files::open(&stdout, &nonce, OP, &path);
        let mut frame = opened.map_err(|error| self.named(error))?;
        let entry = self.entries(&mut frame, OP)?.into_iter().next();
        entry.map(|entry| entry.metadata).ok_or_else(|| {
            self.named(Error::new(ErrorKind::Other, OP).with_message("the guest said nothing"))
        })
    }

    async fn remove(&self, path: &GuestPath, options: RemoveOptions) -> Result<()> {
        const OP: Operation = Operation::Remove;
        let path = self.resolve(path, OP)?;
        if path == GuestPath::root() {
            return Err(self
                .named(Error::new(ErrorKind::InvalidInput, OP))
                .with_message("the root can't be removed")
                .with_path(path));
        }
        let recursive = if options.recursive { "yes" } else { "no" };
        let settings = format!("recursive={recursive}");
        let removed = self
            .mutate(
                move |script| script.line(&settings).files("op_remove"),
                OP,
                &path,
            )
            .await;
        options.settle(removed)
    }

    async fn create_dir(&self, path: &GuestPath, options: CreateDirOptions) -> Result<()> {
        const OP: Operation = Operation::CreateDir;
        let path = self.resolve(path, OP)?;
        let parents = if options.recursive { "yes" } else { "no" };
        let settings = format!("parents={parents} mode={:o}", options.mode.bits());
        self.mutate(
            move |script| script.line(&settings).files("op_create_dir"),
            OP,
            &path,
        )
        .await
    }

    async fn rename(&self, from: &GuestPath, to: &GuestPath, options: RenameOptions) -> Result<()> {
        const OP: Operation = Operation::Rename;
        let from = self.resolve(from, OP)?;
        let to = self.resolve(to, OP)?;
        if let Some(root) = [&from, &to]
            .into_iter()
            .find(|path| **path == GuestPath::root())
        {
            return Err(self
                .named(Error::new(ErrorKind::InvalidInput, OP))
                .with_message("the root can't be renamed or replaced")
                .with_path(root));
        }
        let replace = if options.replace {
            "replace=yes"
        } else {
            "replace=no"
        };
        let target = to.clone();
        let script = move |script: Script| {
            script
                .set("to", target.as_bytes())
                .line(replace)
                .files("op_rename")
        };
        self.mutate(script, OP, &from).await
    }

    async fn import_dir(
        &self,
        from: &Path,
        to: &GuestPath,
        options: ImportOptions,
    ) -> Result<TransferReport> {
        let to = self.resolve(to, Operation::ImportDir)?;
        transfer::import(self, from, &to, options)
            .await
            .map_err(|error| self.named(error))
    }

    async fn export_dir(
        &self,
        from: &GuestPath,
        to: &Path,
        options: ExportOptions,
    ) -> Result<TransferReport> {
        let from = self.resolve(from, Operation::ExportDir)?;
        transfer::export(self, &from, to, options)
            .await
            .map_err(|error| self.named(error))
    }

    async fn set_workdir(&self, path: &GuestPath) -> Result<()> {
        const OP: Operation = Operation::SetWorkdir;
        let path = self.resolve(path, OP)?;
        if !self.is_dir_directly(&path, OP).await? {
            let script = |script: Script| script.files("op_check_dir");
            let (stdout, nonce) = self.query(script, OP, &path, SMALL_ANSWER).await?;
            files::open(&stdout, &nonce, OP, &path).map_err(|error| self.named(error))?;
        }
        self.change(|settings| settings.common.workdir = path);
        Ok(())
    }

    async fn set_env(&self, changes: Env) -> Result<()> {
        const OP: Operation = Operation::SetEnv;
        self.check_open(OP)?;
        changes.validate(OP).map_err(|error| self.named(error))?;
        let secrets = keep_secrets(&self.session, &changes, self.patience()).await;
        let secrets = secrets.map_err(|failed| self.named(failed.error(OP)))?;
        self.change(|settings| settings.change_env(&changes, secrets));
        Ok(())
    }

    async fn fork(&self, options: ForkOptions) -> Result<Arc<dyn Sandbox>> {
        // A command that runs is not waited for: the child has the files as of now.
        self.check_open(Operation::Fork)?;
        let sandbox = Arc::new(Self {
            id: SandboxId::new(&nonce()[..16]),
            parent: Some(self.id.clone()),
            labels: options.labels,
            created: SystemTime::now(),
            shared: self.shared.clone(),
            open: self.open.clone(),
            session: self.session.clone(),
            user: self.user.clone(),
            chain: Chain::new(self.chain.head()),
            settings: RwLock::new(self.settings()),
            command_timeout: self.command_timeout,
            closed: watch::Sender::new(false),
        });
        self.open.insert(sandbox.id.clone(), &sandbox);
        Ok(sandbox)
    }

    async fn snapshot(&self, options: SnapshotOptions) -> Result<Snapshot> {
        self.check_open(Operation::Snapshot)?;
        let taken = snapshot::take(self, &options).await;
        taken.map_err(|error| self.named(error))
    }

    async fn close(&self) -> Result<()> {
        // What runs sees this and drops its connection, upon which the engine ends it.
        self.closed.send_replace(true);
        self.open.remove(&self.id);
        Ok(())
    }
}
