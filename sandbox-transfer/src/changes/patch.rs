//! Changes as a patch that `git apply` takes.
//!
//! The format is that of git-diff(1), "Generating patch text with -p", and of `GIT binary patch` in
//! git's `apply.c` and `diff.c`. A name must never be able to break out of its line.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use sandbox_core::{
    Change, Changes, Error, ErrorKind, FileKind, FileVersion, Operation, Result, Skipped,
};
use sha1::{Digest as _, Sha1};

use super::lines::unified;

/// A file with a NUL among its first bytes is binary to git.
const LOOKED_AT: usize = 8000;
/// Bytes of a line of a binary patch.
const BINARY_LINE: usize = 52;
const BASE85: &[u8; 85] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";

/// A patch, with what of the changes a patch can't say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GitPatch {
    /// The patch, relative to the directory of the changes: for `git apply`, or `patch -p1` if
    /// nothing in it is binary.
    pub text: Vec<u8>,
    /// Entries that are not in it: empty directories, permission bits that git does not keep, FIFOs,
    /// sockets and devices.
    pub left_out: Vec<Skipped>,
}

/// Writes changes as a patch in git's format, binary files included.
///
/// ```
/// use sandbox_core::{Change, Changes, FileKind, FileVersion, Mode};
/// use sandbox_transfer::changes::git_patch;
/// let new = FileVersion::new(FileKind::File, Mode::FILE, 3).content("hi\n");
/// let changes = Changes::new("/w").entries(vec![Change::new("a", None, Some(new))]);
/// let patch = String::from_utf8(git_patch(&changes)?.text).unwrap();
/// assert!(patch.starts_with("diff --git a/a b/a\nnew file mode 100644\n"), "{patch}");
/// assert!(patch.ends_with("@@ -0,0 +1 @@\n+hi\n"));
/// # Ok::<(), sandbox_core::Error>(())
/// ```
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) for changes without contents.
pub fn git_patch(changes: &Changes) -> Result<GitPatch> {
    let mut patch = GitPatch::default();
    for change in &changes.entries {
        entry(change, &mut patch).map_err(|error| error.with_path(change.path.clone()))?;
    }
    Ok(patch)
}

/// One side as git has it: mode and blob.
struct Blob<'a> {
    mode: &'static str,
    content: &'a [u8],
}

fn entry(change: &Change, patch: &mut GitPatch) -> Result<()> {
    let mut leave = |why: &str| patch.left_out.push(Skipped::new(&change.path, why));
    let before = blob(change.before.as_ref())?;
    let after = blob(change.after.as_ref())?;
    let special = [&change.before, &change.after].into_iter().flatten();
    if special.clone().any(|side| {
        !matches!(
            side.kind,
            FileKind::File | FileKind::Symlink | FileKind::Directory
        )
    }) {
        leave("neither a file, a link nor a directory");
    }
    match (before, after) {
        (None, None) => {
            // A directory stands for itself only as long as nothing is in it.
            if special.clone().any(|side| side.kind == FileKind::Directory) {
                leave("a directory: git keeps files");
            }
        }
        // A link in the place of a file: git has no such change, but both of its parts.
        (Some(before), Some(after)) if before.mode[..3] != after.mode[..3] => {
            one(change, Some(&before), None, &mut patch.text)?;
            one(change, None, Some(&after), &mut patch.text)?;
        }
        (Some(before), Some(after))
            if before.mode == after.mode && before.content == after.content =>
        {
            leave("permission bits that git does not keep");
        }
        (before, after) => one(change, before.as_ref(), after.as_ref(), &mut patch.text)?,
    }
    Ok(())
}

fn blob(side: Option<&FileVersion>) -> Result<Option<Blob<'_>>> {
    let Some(side) = side else { return Ok(None) };
    Ok(match side.kind {
        FileKind::File => {
            let content = side.content.as_deref().ok_or_else(|| {
                Error::new(ErrorKind::InvalidInput, Operation::Changes)
                    .with_message("the changes have no contents")
                    .with_hint("ask for them with ChangesOptions::contents(true)")
            })?;
            let mode = match side.mode.bits() & 0o100 {
                0 => "100644",
                _ => "100755",
            };
            Some(Blob { mode, content })
        }
        FileKind::Symlink => {
            let target = side.link_target.as_ref();
            Some(Blob {
                mode: "120000",
                content: target.map(|target| target.as_bytes()).unwrap_or_default(),
            })
        }
        _ => None,
    })
}

/// The part of one file.
fn one(
    change: &Change,
    before: Option<&Blob<'_>>,
    after: Option<&Blob<'_>>,
    out: &mut Vec<u8>,
) -> Result<()> {
    let old_name = quoted(b"a/", change.path.as_bytes());
    let new_name = quoted(b"b/", change.path.as_bytes());
    out.extend_from_slice(b"diff --git ");
    out.extend_from_slice(&old_name);
    out.push(b' ');
    out.extend_from_slice(&new_name);
    out.push(b'\n');
    let same_mode = match (before, after) {
        (None, Some(after)) => {
            out.extend_from_slice(format!("new file mode {}\n", after.mode).as_bytes());
            ""
        }
        (Some(before), None) => {
            out.extend_from_slice(format!("deleted file mode {}\n", before.mode).as_bytes());
            ""
        }
        (Some(before), Some(after)) if before.mode != after.mode => {
            let modes = format!("old mode {}\nnew mode {}\n", before.mode, after.mode);
            out.extend_from_slice(modes.as_bytes());
            ""
        }
        (Some(before), _) => before.mode,
        (None, None) => return Ok(()),
    };
    let old = before.map(|blob| blob.content).unwrap_or_default();
    let new = after.map(|blob| blob.content).unwrap_or_default();
    if old == new && before.is_some() && after.is_some() {
        return Ok(());
    }
    let hash = |blob: Option<&Blob<'_>>| blob.map_or("0".repeat(40), |blob| hash(blob.content));
    let index = format!("index {}..{}", hash(before), hash(after));
    out.extend_from_slice(index.as_bytes());
    if !same_mode.is_empty() {
        out.push(b' ');
        out.extend_from_slice(same_mode.as_bytes());
    }
    out.push(b'\n');
    if is_binary(old) || is_binary(new) {
        out.extend_from_slice(b"GIT binary patch\n");
        literal(new, out)?;
        literal(old, out)?;
        return Ok(());
    }
    if old == new {
        // An empty file that comes or goes has no hunk.
        return Ok(());
    }
    let header = |sign: &[u8], name: &[u8], there: bool, out: &mut Vec<u8>| {
        out.extend_from_slice(sign);
        if there {
            out.extend_from_slice(name);
            // So does git: what comes after a blank would be taken for a time.
            if name.contains(&b' ') {
                out.push(b'\t');
            }
        } else {
            out.extend_from_slice(b"/dev/null");
        }
        out.push(b'\n');
    };
    header(b"--- ", &old_name, before.is_some(), out);
    header(b"+++ ", &new_name, after.is_some(), out);
    out.extend_from_slice(&unified(old, new));
    Ok(())
}

fn is_binary(content: &[u8]) -> bool {
    content.iter().take(LOOKED_AT).any(|byte| *byte == 0)
}

fn hash(content: &[u8]) -> String {
    let mut sha = Sha1::new();
    sha.update(format!("blob {}\0", content.len()));
    sha.update(content);
    sha.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A name with its prefix, in quotes if git would quote it.
fn quoted(prefix: &[u8], path: &[u8]) -> Vec<u8> {
    let plain = |byte: &u8| matches!(byte, 0x20..=0x7e) && !matches!(byte, b'"' | b'\\');
    if path.iter().all(plain) {
        return [prefix, path].concat();
    }
    let mut out = vec![b'"'];
    out.extend_from_slice(prefix);
    for byte in path {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte if plain(byte) => out.push(*byte),
            byte => out.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
        }
    }
    out.push(b'"');
    out
}

/// A whole content of a binary patch.
fn literal(content: &[u8], out: &mut Vec<u8>) -> Result<()> {
    out.extend_from_slice(format!("literal {}\n", content.len()).as_bytes());
    let mut deflated = ZlibEncoder::new(Vec::new(), Compression::default());
    let deflated = deflated.write_all(content).and_then(|()| deflated.finish());
    let deflated = deflated.map_err(|error| Error::from_io(error, Operation::Changes))?;
    for line in deflated.chunks(BINARY_LINE) {
        // The length as a letter: A to Z for 1 to 26, a to z for 27 to 52.
        let length = u8::try_from(line.len()).unwrap_or_default();
        out.push(match length {
            0..=26 => b'A' + length.saturating_sub(1),
            _ => b'a' + (length - 27),
        });
        for group in line.chunks(4) {
            let mut bytes = [0; 4];
            bytes[..group.len()].copy_from_slice(group);
            let mut value = u32::from_be_bytes(bytes);
            let mut digits = [0; 5];
            for digit in digits.iter_mut().rev() {
                *digit = BASE85[(value % 85) as usize];
                value /= 85;
            }
            out.extend_from_slice(&digits);
        }
        out.push(b'\n');
    }
    out.push(b'\n');
    Ok(())
}
