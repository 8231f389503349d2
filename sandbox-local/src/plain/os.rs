//! Differences between Unix and other hosts: names, modes, kinds, links.
//!
//! It must never decide anything: it translates.

use std::ffi::{OsStr, OsString};
use std::fs::Metadata as HostMetadata;
use std::io;
use std::path::{Path, PathBuf};

use sandbox_core::{FileKind, Metadata, Mode};

pub(super) use imp::{bytes, default_environment, kind, mode, name, name_of, set_mode, symlink};

/// The canonical form of a path, without the prefix that Windows puts in front of it and that few
/// programs understand.
pub(super) fn canonical(path: &Path) -> io::Result<PathBuf> {
    let path = std::fs::canonicalize(path)?;
    #[cfg(windows)]
    if let Some(short) = path.to_str().and_then(|text| text.strip_prefix(r"\\?\"))
        && short.as_bytes().get(1) == Some(&b':')
    {
        return Ok(PathBuf::from(short));
    }
    Ok(path)
}

/// Describes the entry at `path`, a link itself.
pub(super) fn describe(path: &Path, meta: &HostMetadata) -> io::Result<Metadata> {
    let kind = kind(meta.file_type());
    let mut out = Metadata::new(kind, meta.len(), mode(meta));
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        out = out.owner(meta.uid(), meta.gid());
    }
    out.modified = meta.modified().ok();
    if kind == FileKind::Symlink {
        out = out.link_target(bytes(std::fs::read_link(path)?.as_os_str()));
    }
    Ok(out)
}

#[cfg(unix)]
mod imp {
    use std::fs::FileType;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};

    use super::*;

    pub(in super::super) fn bytes(name: &OsStr) -> Vec<u8> {
        name.as_bytes().to_vec()
    }

    /// A name, or `None` if the host cannot have it.
    pub(in super::super) fn name(bytes: &[u8]) -> Option<OsString> {
        Some(OsString::from_vec(bytes.to_vec()))
    }

    /// Bytes as the host's text, for what is not a name.
    pub(in super::super) fn name_of(bytes: &[u8]) -> OsString {
        OsString::from_vec(bytes.to_vec())
    }

    pub(in super::super) fn mode(meta: &HostMetadata) -> Mode {
        Mode::new(meta.permissions().mode())
    }

    pub(in super::super) fn set_mode(path: &Path, mode: Mode) -> io::Result<()> {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode.bits()))
    }

    pub(in super::super) fn kind(kind: FileType) -> FileKind {
        if kind.is_file() {
            FileKind::File
        } else if kind.is_dir() {
            FileKind::Directory
        } else if kind.is_symlink() {
            FileKind::Symlink
        } else if kind.is_fifo() {
            FileKind::Fifo
        } else if kind.is_socket() {
            FileKind::Socket
        } else {
            FileKind::Device
        }
    }

    pub(in super::super) fn symlink(target: &OsStr, at: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(target, at)
    }

    /// The variables that a command gets whatever the spec says.
    pub(in super::super) fn default_environment(root: &Path) -> Vec<(&'static str, Vec<u8>)> {
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        vec![
            ("PATH", path.into()),
            ("HOME", bytes(root.join("home").as_os_str())),
            ("TMPDIR", bytes(root.join("tmp").as_os_str())),
        ]
    }
}

#[cfg(not(unix))]
mod imp {
    use std::fs::FileType;

    use super::*;

    pub(in super::super) fn bytes(name: &OsStr) -> Vec<u8> {
        name.to_string_lossy().into_owned().into_bytes()
    }

    /// A name, or `None` if the host cannot have it.
    pub(in super::super) fn name(bytes: &[u8]) -> Option<OsString> {
        let name = std::str::from_utf8(bytes).ok()?;
        (!name.contains(['\\', ':'])).then(|| name.into())
    }

    /// Bytes as the host's text, for what is not a name.
    pub(in super::super) fn name_of(bytes: &[u8]) -> OsString {
        String::from_utf8_lossy(bytes).into_owned().into()
    }

    pub(in super::super) fn mode(meta: &HostMetadata) -> Mode {
        if meta.is_dir() {
            Mode::EXECUTABLE
        } else {
            Mode::FILE
        }
    }

    pub(in super::super) fn set_mode(_: &Path, _: Mode) -> io::Result<()> {
        Ok(())
    }

    pub(in super::super) fn kind(kind: FileType) -> FileKind {
        if kind.is_dir() {
            FileKind::Directory
        } else if kind.is_symlink() {
            FileKind::Symlink
        } else {
            FileKind::File
        }
    }

    pub(in super::super) fn symlink(_: &OsStr, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The variables that a command gets whatever the spec says. Hardly any program of Windows
    /// starts without `SystemRoot`.
    pub(in super::super) fn default_environment(root: &Path) -> Vec<(&'static str, Vec<u8>)> {
        let system = std::env::var("SystemRoot").unwrap_or_else(|_| r"C:\Windows".into());
        let temp = bytes(root.join("tmp").as_os_str());
        vec![
            ("PATH", format!(r"{system}\System32;{system}").into()),
            ("SystemRoot", system.into()),
            ("USERPROFILE", bytes(root.join("home").as_os_str())),
            ("TEMP", temp.clone()),
            ("TMP", temp),
        ]
    }
}
