//! The file: each line names the hash of the one before.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use sandbox_core::backend::FileLock;
use sandbox_core::{Error, ErrorKind, Operation, Result};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// End of a chain: the number of its last line and that line's SHA-256.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditHead {
    /// Number of the last line, from 1; 0 for an empty log.
    pub seq: u64,
    /// SHA-256 of the last line in hexadecimal digits; 64 zeros for an empty log.
    pub hash: String,
}

/// An open log.
#[derive(Debug)]
pub(super) struct Chain {
    file: FileLock,
    head: AuditHead,
    end: u64,
    /// Lines that were not written since the last one.
    dropped: u64,
}

fn hash(line: &[u8]) -> String {
    let digest = Sha256::digest(line);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn start() -> AuditHead {
    AuditHead {
        seq: 0,
        hash: "0".repeat(64),
    }
}

impl Chain {
    /// Opens a log; `None` if another process has it.
    pub(super) fn open(path: &Path) -> std::io::Result<Option<Self>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.mode(0o600);
        }
        let Some(mut file) = FileLock::try_exclusive(options.open(path)?)? else {
            return Ok(None);
        };
        let end = file.seek(SeekFrom::End(0))?;
        let mut head = start();
        let last = last_line(&mut file, end)?;
        if let Some(last) = &last {
            head.hash = hash(last.strip_suffix(b"\n").unwrap_or(last));
            head.seq = seq_before(&mut file, end)?;
        }
        file.seek(SeekFrom::Start(end))?;
        let mut chain = Self {
            file,
            head,
            end,
            dropped: 0,
        };
        if last.is_some_and(|last| !last.ends_with(b"\n")) {
            chain.file.write_all(b"\n")?;
            chain.end += 1;
        }
        Ok(Some(chain))
    }

    pub(super) fn head(&self) -> AuditHead {
        self.head.clone()
    }

    /// Counts lines that never came here.
    pub(super) fn miss(&mut self, lines: u64) {
        self.dropped += lines;
    }

    /// Appends a line with its number and the hash of the one before.
    pub(super) fn append(&mut self, mut line: Map<String, Value>) -> std::io::Result<()> {
        let seq = self.head.seq + 1;
        line.insert("seq".into(), json!(seq));
        line.insert("prev".into(), json!(self.head.hash));
        if self.dropped > 0 {
            line.insert("dropped".into(), json!(self.dropped));
        }
        let mut bytes = serde_json::to_vec(&line).map_err(std::io::Error::other)?;
        let hash = hash(&bytes);
        bytes.push(b'\n');
        if let Err(error) = self.file.write_all(&bytes) {
            self.dropped += 1;
            // Half a line would be taken for one that was changed.
            let _ = self.file.set_len(self.end);
            let _ = self.file.seek(SeekFrom::Start(self.end));
            return Err(error);
        }
        self.end += bytes.len() as u64;
        self.dropped = 0;
        self.head = AuditHead { seq, hash };
        Ok(())
    }
}

/// The last line with its end, if there is one; looked for from the end.
fn last_line(file: &mut File, end: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut window = 64 << 10;
    loop {
        let from = end.saturating_sub(window);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        (&mut *file).take(end - from).read_to_end(&mut bytes)?;
        let body = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        match body.iter().rposition(|b| *b == b'\n') {
            Some(at) => return Ok(Some(bytes[at + 1..].to_vec())),
            None if from == 0 => return Ok((!bytes.is_empty()).then_some(bytes)),
            None => window = window.saturating_mul(2),
        }
    }
}

/// The number of the last line: its own, or, if it is torn, how many lines there are.
fn seq_before(file: &mut File, end: u64) -> std::io::Result<u64> {
    let last = last_line(file, end)?.unwrap_or_default();
    if let Some(seq) = seq_of(&last) {
        return Ok(seq);
    }
    file.seek(SeekFrom::Start(0))?;
    let mut lines = 0;
    for line in BufReader::new((&mut *file).take(end)).split(b'\n') {
        line?;
        lines += 1;
    }
    Ok(lines)
}

fn seq_of(line: &[u8]) -> Option<u64> {
    let line: Value = serde_json::from_slice(line).ok()?;
    line.get("seq")?.as_u64()
}

/// Checks the chain of a log from its first line to its last; gives where it ends.
///
/// A line that is no JSON is one that a crash tore: it is accepted if the next line names its hash.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] with the number of the first line that does not continue the chain; what
/// the operating system says.
///
/// ```no_run
/// let head = sandbox_layers::verify("/var/log/app/audit.jsonl")?;
/// println!("{} lines", head.seq);
/// # Ok::<(), sandbox_core::Error>(())
/// ```
pub fn verify(path: impl AsRef<Path>) -> Result<AuditHead> {
    let path = path.as_ref();
    let failed = |error| Error::from_io(error, Operation::ReadFile).with_host_path(path);
    let file = File::open(path).map_err(failed)?;
    let mut head = start();
    for line in BufReader::new(file).split(b'\n') {
        let line = line.map_err(failed)?;
        let said: Option<Value> = serde_json::from_slice(&line).ok();
        let prev = said.as_ref().and_then(|said| said.get("prev")?.as_str());
        let number = said.as_ref().and_then(|said| said.get("seq")?.as_u64());
        let seq = head.seq + 1;
        // Without JSON it is a torn line; whether it was there, the next one says.
        let fits = said.is_none() || (prev == Some(&head.hash) && number == Some(seq));
        if !fits {
            return Err(Error::new(ErrorKind::InvalidInput, Operation::ReadFile)
                .with_message(format!("line {seq} does not continue the chain"))
                .with_host_path(path)
                .with_hint("it, or a line before it, was changed, removed or put in"));
        }
        head = AuditHead {
            seq,
            hash: hash(&line),
        };
    }
    Ok(head)
}
