//! `write_files`: the batch goes as one tar with the script that puts it in place.
//!
//! What the caller names is in the script only quoted; what is in the tar is unpacked into a
//! directory of ours.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sandbox_core::{
    Error, ErrorKind, FileBatch, FileWrite, GuestPath, Mode, Operation, Result, WriteMode,
};

use crate::guest::handle::{Guest, fresh};
use crate::guest::script::{BATCH, COMMON, Script};
use crate::guest::transport::Transport;

const OP: Operation = Operation::WriteFiles;
/// The largest tar that goes along with the request.
const SMALL: usize = 30 << 10;

/// Files by the directory that they go to, with their place in the batch.
pub(crate) type ByDirectory<'a> = BTreeMap<GuestPath, Vec<(usize, &'a [u8], &'a FileWrite)>>;

impl<T: Transport> Guest<T> {
    pub(crate) async fn write_files(self: Arc<Self>, batch: FileBatch) -> Result<()> {
        self.open(OP)?;
        let workdir = self.workdir();
        let files = batch.resolve(&workdir).map_err(|error| self.named(error))?;
        if files.is_empty() {
            return Ok(());
        }
        let mut by_directory = ByDirectory::new();
        for (number, (path, file)) in files.iter().enumerate() {
            self.resolve(path, OP)?;
            let parent = path.parent().unwrap_or_else(GuestPath::root);
            let name = path.file_name().unwrap_or_default();
            let entry = by_directory.entry(parent).or_default();
            entry.push((number + 1, name, *file));
        }
        let (dir, nonce) = fresh(T::STAGING);
        let tar = pack(&by_directory, &script(&dir, &nonce, &by_directory));
        let tar = tar.map_err(|e| self.named(Error::from_io(e, OP)))?;
        let paths: Vec<GuestPath> = files.into_iter().map(|(path, _)| path).collect();
        // On a task of its own: once the guest puts files in place it finishes, and a fork waits.
        let guest = Arc::clone(&self);
        let sent = tokio::spawn(async move {
            let lock = Arc::clone(&guest.files).read_owned().await;
            let done = guest.place(&dir, tar.into(), &paths).await;
            drop(lock);
            done
        });
        sent.await.unwrap_or_else(|e| {
            let error = Error::new(ErrorKind::Other, OP)
                .with_message("the task that writes the files ended early");
            Err(self.named(error.with_source(e)))
        })
    }

    async fn place(&self, dir: &str, tar: Bytes, paths: &[GuestPath]) -> Result<()> {
        let mut script = self.cleared();
        if tar.len() < SMALL {
            script = script
                .text(&format!("mkdir -p {dir}; base64 -d > {dir}/tar <<'.'\n"))
                .base64(&tar)
                .text("\n.\n");
        } else {
            let parts = self.upload(OP, dir, &tar).await?;
            script = script.text(&format!("cat {parts} > {dir}/tar; rm -f {parts}\n"));
        }
        let script = script.text(&format!(
            "tar -xpf {dir}/tar -C {dir} --no-same-owner 2> /dev/null || {{ rm -rf {dir}; echo 'E NOSPACE'; exit 0; }}\n\
             rm -f {dir}/tar; exec sh {dir}/go\n"
        ));
        let timeout = Duration::from_secs(300);
        let said = self.run(OP, &script, dir, false, timeout).await;
        let said = said.map_err(|failure| self.failed(failure))?;
        let paths: Vec<&GuestPath> = paths.iter().collect();
        self.verdict(OP, &said, &paths)
    }
}

/// Script that checks the whole batch and then puts it in place.
pub(crate) fn script(dir: &str, nonce: &str, by_directory: &ByDirectory<'_>) -> Script {
    let mut script = Script::default().text(COMMON).text(BATCH).text(&format!(
        "stage={dir} nonce={nonce}\ntrap 'cd /; rm -rf $stage' EXIT\nlock\n"
    ));
    for (k, (directory, files)) in by_directory.iter().enumerate() {
        let first = files.first().map_or(1, |(number, ..)| *number);
        // The root is the empty word, so that a name goes behind a slash.
        let at = match directory.as_bytes() {
            b"/" => b"",
            path => path,
        };
        script = script
            .text(&format!("into {}", k + 1))
            .word(at)
            .text(&format!(" {first}\n"));
        for (number, name, file) in files {
            let keep = if file.mode.is_none() { "1" } else { "''" };
            let new = match file.write_mode {
                WriteMode::CreateNew => "1",
                _ => "''",
            };
            script = script
                .text(&format!("file {number}"))
                .word(name)
                .text(&format!(" {keep} {new}\n"));
        }
    }
    script = script.text("exec 3>&- 4>&- 5>&- 6>&-\n");
    for k in 1..=by_directory.len() {
        script = script.text(&format!("put {k}\n"));
    }
    script.text("swept\necho OK\n")
}

/// A tar of the files, each directory's below its number, and of the script as `go`.
fn pack(by_directory: &ByDirectory<'_>, script: &Script) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    // Files of a batch were changed when they were written.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    let mut add = |name: PathBuf, content: &[u8], mode: u32| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_mtime(now);
        tar.append_data(&mut header, name, content)
    };
    for (k, files) in by_directory.values().enumerate() {
        for (_, name, file) in files {
            let path = PathBuf::from(format!("{}/new", k + 1)).join(OsStr::from_bytes(name));
            add(path, &file.content, file.mode.unwrap_or(Mode::FILE).bits())?;
        }
    }
    add("go".into(), &script.0, 0o600)?;
    tar.into_inner()
}
