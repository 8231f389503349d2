//! A batch of files: an archive that is built here and unpacked by one command of the guest.
//!
//! Invariant: neither queries nor the guest's programs become more with the number of files. A few
//! small files go without a command where that ends the same ([`put`]).

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::SystemTime;

use sandbox_core::backend::blocking;
use sandbox_core::{Error, FileBatch, Operation, Result, WriteMode};

use crate::guest::Script;
use crate::guest::stage::Stage;
use crate::sandbox::DaggerSandbox;
use crate::sandbox::put::put;
use crate::session::nonce::nonce;
use crate::session::query;

const OP: Operation = Operation::WriteFiles;
/// The mode of a new file for which none is given; `files.sh` has it too.
const MODE: u32 = 0o644;

/// Puts the files of a batch in place: all of them, or none.
pub(crate) async fn write(sandbox: &DaggerSandbox, batch: FileBatch) -> Result<()> {
    let workdir = sandbox.settings().common.workdir;
    if put(sandbox, &batch.resolve(&workdir)?).await? {
        return Ok(());
    }
    let nonce = nonce();
    let name = nonce.clone();
    let staged = blocking(OP, move || {
        let files = batch.resolve(&workdir)?;
        let Some((first, _)) = files.first() else {
            return Ok(None);
        };
        let stage = Stage::new(OP)?;
        let mut script = Script::new(&name)
            .line(&format!("stage={}", query::STAGE))
            .set("path", first.as_bytes())
            .line("each() {");
        for (path, file) in &files {
            let mode = if file.mode.is_some() { "set" } else { "-" };
            let how = match file.write_mode {
                WriteMode::CreateNew => "new",
                WriteMode::Replace => "replace",
            };
            let arguments = [path.as_bytes(), mode.as_bytes(), how.as_bytes()];
            script = script.call("\"$1\"", &arguments);
        }
        let script = script.line("}").files("op_batch");
        stage.file("run.sh", script.as_bytes(), 0o700)?;
        let archive = stage.at("data.tar");
        pack(&archive, &files)
            .map_err(|error| Error::from_io(error, OP).with_host_path(&archive))?;
        Ok(Some((stage, first.clone())))
    });
    match staged.await? {
        Some((stage, first)) => sandbox.mutate_staged(&stage, &nonce, OP, &first).await,
        None => Ok(()),
    }
}

fn pack(
    archive: &Path,
    files: &[(sandbox_core::GuestPath, &sandbox_core::FileWrite)],
) -> io::Result<()> {
    let file = std::fs::File::create_new(archive)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    let mut tar = tar::Builder::new(io::BufWriter::new(file));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs());
    for (path, file) in files {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(file.mode.map_or(MODE, |mode| mode.bits()));
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(now);
        header.set_size(file.content.len() as u64);
        let path = path.as_bytes();
        let path = OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path));
        tar.append_data(&mut header, path, &file.content[..])?;
    }
    let whole = tar.into_inner()?.into_inner();
    whole.map(drop).map_err(io::IntoInnerError::into_error)
}
