//! `export_dir`: the guest lists, the host decides, one tar comes back.
//!
//! Nothing that the guest says is believed: see `transfer/receive.rs`.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use sandbox_core::{Error, ErrorKind, ExportOptions, GuestPath, Operation, Result, TransferReport};
use sandbox_transfer::{Attributes, Landing};

use crate::guest::handle::{Guest, fresh};
use crate::guest::script::garbled;
use crate::guest::transport::Transport;
use crate::transfer::{Wanted, build, decide, names};

const OP: Operation = Operation::ExportDir;

impl<T: Transport> Guest<T> {
    pub(crate) async fn export_dir(
        self: Arc<Self>,
        from: &GuestPath,
        to: &Path,
        options: ExportOptions,
    ) -> Result<TransferReport> {
        self.open(OP)?;
        let from = self.resolve(from, OP)?;
        // What the host refuses is refused before the guest works for it.
        drop(Landing::prepare(to, options.existing).map_err(|error| self.named(error))?);
        let to = to.to_owned();
        // With the directory itself, which comes first and has no name.
        let mut there = self.list_at(OP, &from, "-mindepth 0", 10_000_000).await?;
        let closed = there.closed;
        let top = match there.entries.first() {
            Some(top) if top.path.as_bytes().is_empty() => there.entries.remove(0).metadata,
            _ => return Err(self.named(garbled(OP))),
        };
        if closed.contains(&b""[..]) {
            let error = Error::new(ErrorKind::PermissionDenied, OP)
                .with_message("the directory can't be read")
                .with_path(&from);
            return Err(self.named(error));
        }
        let wanted = decide(there.entries, &options).map_err(|error| self.named(error))?;
        let tar = self.fetch_tar(&from, &wanted, &options).await?;
        let top = Attributes {
            mode: top.mode.bits(),
            modified: top.modified,
        };
        let built =
            tokio::task::spawn_blocking(move || build(&to, wanted, &closed, tar, &options, top))
                .await;
        let built =
            built.map_err(|e| self.named(Error::new(ErrorKind::Other, OP).with_source(e)))?;
        built.map_err(|error| self.named(error))
    }

    async fn fetch_tar(
        &self,
        from: &GuestPath,
        wanted: &Wanted,
        options: &ExportOptions,
    ) -> Result<File> {
        let names = names(wanted);
        if names.is_empty() {
            return tempfile::tempfile().map_err(|e| self.named(Error::from_io(e, OP)));
        }
        let (dir, _) = fresh(T::STAGING);
        let put = self
            .transport
            .put_file(OP, self.id.as_str(), &format!("{dir}/names"), names.into())
            .await;
        put.map_err(|failure| self.failed(failure))?;
        let mut script = self.files_script(&dir).text("from=");
        script.quoted(from.as_bytes());
        let script = script.text(
            r#"
said=$(LC_ALL=C tar -C "$from" --no-recursion --hard-dereference --ignore-failed-read --sparse --format=gnu --null --verbatim-files-from -T "$stage/names" -cf "$stage/out" 2>&1)
case $? in 0 | 1) ;; *) denied "$said" ;; esac
emit "$stage/out"
"#,
        );
        let said = self.helper(OP, script, &dir, &[from]).await?;
        // Headers and padding: some KiB for each file.
        let room = 4096 * (wanted.len() as u64 + 16) * 3;
        let limit = options.max_bytes.saturating_add(room);
        self.emitted_to_file(OP, &said, &dir, limit).await
    }
}
