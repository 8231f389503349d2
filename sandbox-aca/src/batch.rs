//! `write_files`: the batch goes as one tar with the script that puts it in place.
//!
//! The names in the tar are numbers: what the caller names is only in the script, quoted.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sandbox_core::{Error, ErrorKind, FileBatch, GuestPath, Mode, Operation, Result, WriteMode};

use crate::carrier::Carrier;
use crate::handle::{Inner, fresh};
use crate::script::{FILES, INLINE, Script};

const OP: Operation = Operation::WriteFiles;
/// The largest part of a tar that goes in one request.
pub(crate) const CHUNK: usize = 64 << 20;

impl<C: Carrier> Inner<C> {
    pub(crate) async fn write_files(self: Arc<Self>, batch: FileBatch) -> Result<()> {
        self.open(OP)?;
        let workdir = self.workdir();
        let files = batch.resolve(&workdir).map_err(|error| self.named(error))?;
        for (_, file) in &files {
            self.resolve(&file.path, OP)?;
        }
        if files.is_empty() {
            return Ok(());
        }
        let (dir, _) = fresh(C::STAGING);
        let mut script = Script::new(FILES).text(&format!(
            "d={dir}\ntrap 'rm -rf $d' EXIT\ndone_= beside= last=- far=\n"
        ));
        for (number, (path, _)) in files.iter().enumerate() {
            script = script.text(&format!("p{}=", number + 1));
            script.quoted(path.as_bytes());
            script = script.text("\n");
        }
        script = script.text("lock\n");
        for (number, (_, file)) in files.iter().enumerate() {
            let n = number + 1;
            let keep = if file.mode.is_none() { "1" } else { "''" };
            let new = if file.write_mode == WriteMode::CreateNew {
                "1"
            } else {
                "''"
            };
            script = script.text(&format!("check {n} \"$p{n}\" {keep} {new}\n"));
        }
        for (number, (_, file)) in files.iter().enumerate() {
            let n = number + 1;
            let new = if file.write_mode == WriteMode::CreateNew {
                "1"
            } else {
                "''"
            };
            script = script.text(&format!("put {n} \"$p{n}\" {new}\n"));
        }
        script = script.text("swept\necho OK\n");
        let contents = files
            .iter()
            .map(|(_, file)| (file.content.as_ref(), file.mode.unwrap_or(Mode::FILE)));
        let tar = pack(contents, &script.0).map_err(|e| self.named(Error::from_io(e, OP)))?;
        let paths: Vec<GuestPath> = files.into_iter().map(|(path, _)| path).collect();
        // On a task of its own: once the guest puts files in place it finishes, and a fork waits.
        let inner = Arc::clone(&self);
        let sent = tokio::spawn(async move {
            let lock = Arc::clone(&inner.files).lock_owned().await;
            let done = inner.place(&dir, tar, &paths).await;
            drop(lock);
            done
        });
        sent.await.unwrap_or_else(|e| {
            let error = Error::new(ErrorKind::Other, OP).with_message("the writing ended");
            Err(self.named(error.with_source(e)))
        })
    }

    async fn place(&self, dir: &str, tar: Vec<u8>, paths: &[GuestPath]) -> Result<()> {
        let run = format!(
            "cd {dir} && tar -xpf - --no-same-owner 2>/dev/null || {{ rm -rf {dir}; echo 'E NOSPACE'; exit 0; }}; sh {dir}/go"
        );
        let line = if tar.len() < INLINE / 2 {
            let packed = STANDARD.encode(&tar);
            format!(
                "mkdir -p {dir}; base64 -d <<'.' > {dir}/tar\n{packed}\n.\nexec < {dir}/tar; {run}"
            )
        } else {
            let parts = self.upload(OP, dir, tar).await?;
            format!("cat {parts} > {dir}/tar; rm -f {parts}; exec < {dir}/tar; {run}")
        };
        let timeout = Duration::from_secs(300);
        let said = self
            .http
            .shell(OP, self.id.as_str(), &line, false, timeout)
            .await;
        let said = said.map_err(|failure| self.failed(failure))?;
        let paths: Vec<&GuestPath> = paths.iter().collect();
        self.verdict(OP, &said, &paths)
    }

    /// Uploads bytes in parts and gives the parts' names, for the shell.
    pub(crate) async fn upload(&self, op: Operation, dir: &str, bytes: Vec<u8>) -> Result<String> {
        let bytes = bytes::Bytes::from(bytes);
        let mut names = Vec::new();
        for (number, start) in (0..bytes.len()).step_by(CHUNK).enumerate() {
            let end = (start + CHUNK).min(bytes.len());
            let name = format!("{dir}/part-{number}");
            let put = self
                .http
                .put_file(op, self.id.as_str(), &name, bytes.slice(start..end))
                .await;
            put.map_err(|failure| self.failed(failure))?;
            names.push(name);
        }
        Ok(names.join(" "))
    }
}

/// A tar of numbered files and the script `go`.
fn pack<'a>(
    files: impl Iterator<Item = (&'a [u8], Mode)>,
    script: &[u8],
) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, content: &[u8], mode: u32| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_mtime(now());
        tar.append_data(&mut header, name, content)
    };
    for (number, (content, mode)) in files.enumerate() {
        add(&(number + 1).to_string(), content, mode.bits())?;
    }
    add("go", script, 0o600)?;
    tar.into_inner()
}

/// Files of a batch were changed when they were written.
fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
