//! Single files and directories: read, list, describe, remove, create, rename.
//!
//! Each is one request to the guest, and one more where an answer is large.

use std::collections::BTreeSet;
use std::time::SystemTime;

use bytes::Bytes;
use sandbox_core::{
    CreateDirOptions, DirEntry, Env, Error, ErrorKind, FileKind, GuestPath, ListOptions, Metadata,
    MetadataOptions, Mode, Operation, ReadOptions, RemoveOptions, RenameOptions, Result,
};

use crate::guest::handle::{Guest, fresh, variables};
use crate::guest::script::garbled;
use crate::guest::transport::Transport;

/// Listing of a directory, as the guest reports it.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// In no order.
    pub(crate) entries: Vec<DirEntry>,
    /// Directories among them whose entries the sandbox's user can't see.
    pub(crate) closed: BTreeSet<Vec<u8>>,
}

/// The largest listing in bytes.
const LISTING: u64 = 1 << 30;

impl<T: Transport> Guest<T> {
    pub(crate) async fn read_file(&self, path: &GuestPath, options: ReadOptions) -> Result<Bytes> {
        const OP: Operation = Operation::ReadFile;
        self.open(OP)?;
        let at = self.resolve(path, OP)?;
        let (dir, _) = fresh(T::STAGING);
        let limit = options.limit.min(1 << 40);
        let script = self.files_script(&dir).text("fetch").word(at.as_bytes());
        let script = script.text(&format!(" {limit}\n"));
        let said = self.helper(OP, script, &dir, &[&at]).await;
        let said = said.map_err(|error| match error.kind() {
            ErrorKind::LimitExceeded => {
                let error = Error::new(ErrorKind::LimitExceeded, OP)
                    .with_message(format!(
                        "the file is larger than the limit of {limit} bytes"
                    ))
                    .with_path(&at);
                self.named(error)
            }
            _ => error,
        })?;
        self.emitted(OP, &said, &dir, limit).await
    }

    pub(crate) async fn list_dir(
        &self,
        path: &GuestPath,
        options: ListOptions,
    ) -> Result<Vec<DirEntry>> {
        const OP: Operation = Operation::ListDir;
        self.open(OP)?;
        let at = self.resolve(path, OP)?;
        let depth = if options.recursive { "" } else { "-maxdepth 1" };
        let mut entries = self.list_at(OP, &at, depth, options.limit).await?.entries;
        if entries.len() > options.limit {
            let error = Error::new(ErrorKind::LimitExceeded, OP)
                .with_message(format!("more than {} entries", options.limit))
                .with_path(&at);
            return Err(self.named(error));
        }
        entries.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
        Ok(entries)
    }

    /// At most one entry more than `limit`, in no order; `depth` is an option of `find`'s: with
    /// `-mindepth 0` the directory itself comes first, without a name.
    pub(crate) async fn list_at(
        &self,
        op: Operation,
        at: &GuestPath,
        depth: &str,
        limit: usize,
    ) -> Result<Listing> {
        let (dir, _) = fresh(T::STAGING);
        let limit = limit.min(100_000_000);
        let script = self.files_script(&dir).text("list").word(at.as_bytes());
        let script = script.text(&format!(" '{depth}' {limit}\n"));
        let said = self.helper(op, script, &dir, &[at]).await?;
        let bytes = self.emitted(op, &said, &dir, LISTING).await?;
        listing(&bytes).ok_or_else(|| self.named(garbled(op)))
    }

    pub(crate) async fn metadata(
        &self,
        path: &GuestPath,
        options: MetadataOptions,
    ) -> Result<Metadata> {
        const OP: Operation = Operation::Metadata;
        self.open(OP)?;
        let at = self.resolve(path, OP)?;
        let (dir, _) = fresh(T::STAGING);
        let script = self
            .files_script(&dir)
            .text("about")
            .word(at.as_bytes())
            .text(if options.follow { " -L\n" } else { " ''\n" });
        let said = self.helper(OP, script, &dir, &[&at]).await?;
        let bytes = self.emitted(OP, &said, &dir, LISTING).await?;
        let found = listing(&bytes).and_then(|found| found.entries.into_iter().next());
        found
            .map(|entry| entry.metadata)
            .ok_or_else(|| self.named(garbled(OP)))
    }

    pub(crate) async fn remove(&self, path: &GuestPath, options: RemoveOptions) -> Result<()> {
        const OP: Operation = Operation::Remove;
        self.open(OP)?;
        let at = self.resolve(path, OP)?;
        self.not_root(&at, OP, "the root can't be removed")?;
        let (dir, _) = fresh(T::STAGING);
        let flag = if options.recursive { " 1\n" } else { " ''\n" };
        let script = self
            .files_script(&dir)
            .text("take_away")
            .word(at.as_bytes())
            .text(flag);
        options.settle(self.helper(OP, script, &dir, &[&at]).await.map(drop))
    }

    pub(crate) async fn create_dir(
        &self,
        path: &GuestPath,
        options: CreateDirOptions,
    ) -> Result<()> {
        const OP: Operation = Operation::CreateDir;
        self.open(OP)?;
        let at = self.resolve(path, OP)?;
        let (dir, _) = fresh(T::STAGING);
        let flag = if options.recursive { "1" } else { "''" };
        let script = self.files_script(&dir).text("make_dir").word(at.as_bytes());
        let script = script.text(&format!(" {:o} {flag}\n", options.mode.bits()));
        self.helper(OP, script, &dir, &[&at]).await.map(drop)
    }

    pub(crate) async fn rename(
        &self,
        from: &GuestPath,
        to: &GuestPath,
        options: RenameOptions,
    ) -> Result<()> {
        const OP: Operation = Operation::Rename;
        self.open(OP)?;
        let (from, to) = (self.resolve(from, OP)?, self.resolve(to, OP)?);
        self.not_root(&from, OP, "the root can't be renamed")?;
        self.not_root(&to, OP, "the root can't be replaced")?;
        if from != to && to.strip_prefix(&from).is_some() {
            let error = Error::new(ErrorKind::InvalidInput, OP)
                .with_message("a directory can't be moved into itself")
                .with_path(&from);
            return Err(self.named(error));
        }
        let (dir, _) = fresh(T::STAGING);
        let flag = if options.replace { " 1\n" } else { " ''\n" };
        let script = self.files_script(&dir).text("move").word(from.as_bytes());
        let script = script.word(to.as_bytes()).text(flag);
        self.helper(OP, script, &dir, &[&from, &to]).await.map(drop)
    }

    pub(crate) async fn set_workdir(&self, path: &GuestPath) -> Result<()> {
        const OP: Operation = Operation::SetWorkdir;
        self.open(OP)?;
        let at = self.resolve(path, OP)?;
        let (dir, _) = fresh(T::STAGING);
        let script = self
            .files_script(&dir)
            .text("enter")
            .word(at.as_bytes())
            .text("\n");
        self.helper(OP, script, &dir, &[&at]).await?;
        self.state().info.workdir = at;
        Ok(())
    }

    pub(crate) fn set_env(&self, changes: &Env) -> Result<()> {
        const OP: Operation = Operation::SetEnv;
        self.open(OP)?;
        changes.validate(OP).map_err(|error| self.named(error))?;
        self.state().env.extend(variables(changes));
        Ok(())
    }

    fn not_root(&self, path: &GuestPath, op: Operation, why: &str) -> Result<()> {
        if *path != GuestPath::root() {
            return Ok(());
        }
        let error = Error::new(ErrorKind::InvalidInput, op)
            .with_message(why)
            .with_path(path);
        Err(self.named(error))
    }
}

/// Reads a time as `find` says it: seconds, negative before 1970, and what comes after them. Nothing if
/// it can't be told.
pub(super) fn moment(text: &str) -> Option<SystemTime> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanoseconds = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    sandbox_transfer::from_epoch(seconds.parse().ok()?, nanoseconds)
}

/// Reads what `find` says: path, type, size, mode, owner, group, time, target, each before a NUL.
fn listing(bytes: &[u8]) -> Option<Listing> {
    let mut fields = bytes.split(|byte| *byte == 0);
    let mut found = Listing::default();
    loop {
        let path = fields.next()?;
        let Some(kind) = fields.next() else {
            return path.is_empty().then_some(found);
        };
        let mut text = || std::str::from_utf8(fields.next()?).ok();
        let kind = match kind {
            b"d" => FileKind::Directory,
            b"x" => {
                found.closed.insert(path.to_vec());
                FileKind::Directory
            }
            b"l" => FileKind::Symlink,
            b"p" => FileKind::Fifo,
            b"s" => FileKind::Socket,
            b"c" | b"b" => FileKind::Device,
            _ => FileKind::File,
        };
        let size = text()?.parse().ok()?;
        let mode = u32::from_str_radix(text()?, 8).ok()?;
        let (uid, gid) = (text()?.parse().ok()?, text()?.parse().ok()?);
        let time = text()?;
        let mut metadata = Metadata::new(kind, size, Mode::new(mode)).owner(uid, gid);
        if let Some(modified) = moment(time) {
            metadata = metadata.modified(modified);
        }
        let target = fields.next()?;
        if kind == FileKind::Symlink {
            metadata = metadata.link_target(target);
        }
        found.entries.push(DirEntry::new(path, metadata));
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn times_are_told_to_the_nanosecond_and_before_1970() {
        let nanos = Duration::from_nanos;
        for (text, expected) in [
            (
                "1700000000.1234567890",
                Some(UNIX_EPOCH + nanos(1_700_000_000_123_456_789)),
            ),
            ("0.25", Some(UNIX_EPOCH + nanos(250_000_000))),
            ("7", Some(UNIX_EPOCH + nanos(7_000_000_000))),
            // One and a half seconds before 1970, as `find` says it.
            ("-2.5000000000", Some(UNIX_EPOCH - nanos(1_500_000_000))),
            ("-1.0000000000", Some(UNIX_EPOCH - nanos(1_000_000_000))),
            ("", None),
            ("1e9", None),
            ("1.é", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(moment(text), expected, "{text}");
        }
    }
}
