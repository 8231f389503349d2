//! The journal's file: read, cut where it is torn, appended to, compacted.
//!
//! It must never drop a whole record, and never append behind a torn one.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use sandbox_core::backend::FileLock;

use super::record::{Book, Record, from_line, owner_of, to_line};
use crate::{Error, ErrorKind, Result, SessionId};

/// Records that may be there beyond twice the fewest before the file is compacted.
const SLACK: usize = 1_000;

/// An open journal.
#[derive(Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    file: File,
    /// Offset at which the last whole record ends.
    end: u64,
    records: usize,
    book: Book,
    sync: bool,
    /// Set when the file could not be brought back to its last whole record.
    broken: bool,
    _lock: FileLock,
}

impl Store {
    /// Takes the lock, reads what is there and cuts a torn end.
    pub(crate) fn open(directory: &Path, sync: bool) -> Result<(Self, Book)> {
        let failed = |what: &str, error: std::io::Error| {
            Error::journal(format!("{what} in {}: {error}", directory.display()), error)
        };
        std::fs::create_dir_all(directory)
            .map_err(|error| failed("the journal's directory can't be made", error))?;
        let lock = lock(directory)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.mode(0o600);
        }
        let mut file = options
            .open(directory.join("journal"))
            .map_err(|error| failed("the journal can't be opened", error))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(|error| failed("the journal can't be read", error))?;
        let (book, records, end) = read(&bytes, directory)?;
        let mut store = Self {
            directory: directory.to_owned(),
            file,
            end,
            records,
            book,
            sync,
            broken: false,
            _lock: lock,
        };
        store
            .begin(bytes.len() as u64)
            .map_err(|error| failed("the journal can't be written", error))?;
        let book = store.book.clone();
        Ok((store, book))
    }

    /// Cuts what is behind the last whole record, and writes the first one of a new journal.
    fn begin(&mut self, length: u64) -> std::io::Result<()> {
        if length > self.end {
            self.file.set_len(self.end)?;
            self.file.sync_data()?;
        }
        self.file.seek(SeekFrom::Start(self.end))?;
        if self.book.owner.is_none() {
            let owner = owner_of(&SessionId::generate());
            self.append(std::iter::once(&owner))?;
            sync_directory(&self.directory)?;
        }
        Ok(())
    }

    /// Appends records; all are there when it returns, or none if it fails.
    pub(crate) fn append<'a>(
        &mut self,
        records: impl Iterator<Item = &'a Record>,
    ) -> std::io::Result<()> {
        if self.broken {
            return Err(std::io::Error::other(
                "an earlier record was written in part and could not be cut",
            ));
        }
        let records: Vec<&Record> = records.collect();
        let mut bytes = Vec::new();
        for record in &records {
            bytes.extend_from_slice(&to_line(record)?);
        }
        let written = self.file.write_all(&bytes).and_then(|()| match self.sync {
            true => self.file.sync_data(),
            false => Ok(()),
        });
        if let Err(error) = written {
            let back = self
                .file
                .set_len(self.end)
                .and_then(|()| self.file.seek(SeekFrom::Start(self.end)));
            self.broken = back.is_err();
            return Err(error);
        }
        self.end += bytes.len() as u64;
        self.records += records.len();
        for record in records {
            self.book.apply(record);
        }
        let fewest = self.book.kept.len() * 3 + 1;
        if self.records > fewest * 2 + SLACK {
            // The old file goes on if that fails: nothing is lost, it is only longer.
            if let Err(error) = self.compact() {
                tracing::warn!(%error, "the journal was not compacted");
            }
        }
        Ok(())
    }

    /// Writes the fewest records to a new file and puts it in place.
    fn compact(&mut self) -> std::io::Result<()> {
        let records = self.book.records();
        let mut bytes = Vec::new();
        for record in &records {
            bytes.extend_from_slice(&to_line(record)?);
        }
        let new = self.directory.join("journal.new");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.mode(0o600);
        }
        let mut file = options.open(&new)?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        std::fs::rename(&new, self.directory.join("journal"))?;
        self.file = file;
        self.end = bytes.len() as u64;
        self.records = records.len();
        sync_directory(&self.directory)
    }
}

/// Takes records in up to the first that is torn; says where the last whole one ends.
fn read(bytes: &[u8], directory: &Path) -> Result<(Book, usize, u64)> {
    let mut book = Book::default();
    let (mut records, mut end) = (0, 0);
    let mut torn = None;
    let mut at = 0;
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        let whole = line.strip_suffix(b"\n").and_then(from_line);
        at += line.len();
        match (whole, torn) {
            (Some(record), None) => {
                if let Record::Owner { version, .. } = record
                    && version != 1
                {
                    return Err(Error::new(ErrorKind::Journal).with_message(format!(
                        "the journal in {} is of version {version}, which this one does not read",
                        directory.display()
                    )));
                }
                book.apply(&record);
                records += 1;
                end = at;
            }
            (None, None) => torn = Some(records + 1),
            // Only the end can be torn: a whole record behind a broken one was damaged otherwise.
            (Some(_), Some(line)) => {
                return Err(Error::new(ErrorKind::Journal)
                    .with_message(format!(
                        "the journal in {} is damaged at line {line}, with whole records behind",
                        directory.display()
                    ))
                    .with_hint(
                        "look at the line; without it what it names is not found again. Move the \
                         file away to begin a new journal",
                    ));
            }
            (None, Some(_)) => {}
        }
    }
    Ok((book, records, end as u64))
}

fn lock(directory: &Path) -> Result<FileLock> {
    let path = directory.join("lock");
    let failed = |error: std::io::Error| {
        Error::journal(
            format!("the journal's lock in {}: {error}", directory.display()),
            error,
        )
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed)?;
    let lock = FileLock::try_exclusive(file).map_err(failed)?;
    lock.ok_or_else(|| locked(directory))
}

fn locked(directory: &Path) -> Error {
    Error::new(ErrorKind::Locked)
        .with_message(format!(
            "another process has the journal in {}",
            directory.display()
        ))
        .with_hint("give each process a directory of its own, or end the other one")
}

/// Makes a new name in a directory last.
fn sync_directory(directory: &Path) -> std::io::Result<()> {
    if cfg!(unix) {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn creating(id: &SessionId) -> Record {
        Record::Creating {
            id: id.clone(),
            session: None,
        }
    }

    fn reopened(directory: &Path) -> Book {
        Store::open(directory, false).unwrap().1
    }

    #[test]
    fn a_journal_cut_at_any_byte_has_every_whole_record_and_goes_on() {
        let place = tempfile::tempdir().unwrap();
        let ids: Vec<SessionId> = (0..4).map(|_| SessionId::generate()).collect();
        let path = place.path().join("journal");
        let mut ends = Vec::new();
        {
            let (mut store, _) = Store::open(place.path(), false).unwrap();
            ends.push(store.end);
            for id in &ids {
                store.append(std::iter::once(&creating(id))).unwrap();
                ends.push(store.end);
            }
        }
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            let expected = ends
                .iter()
                .skip(1)
                .filter(|end| **end <= cut as u64)
                .count();
            std::fs::write(&path, &whole[..cut]).unwrap();
            let more = SessionId::generate();
            {
                let (mut store, book) = Store::open(place.path(), false).unwrap();
                assert_eq!(book.kept.len(), expected, "cut at {cut}");
                store.append(std::iter::once(&creating(&more))).unwrap();
            }
            let book = reopened(place.path());
            assert_eq!(book.kept.len(), expected + 1, "cut at {cut}");
            assert!(book.kept.contains_key(&more));
        }
    }

    #[test]
    fn a_torn_end_may_be_anything_and_damage_in_the_middle_is_told() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("journal");
        let id = SessionId::generate();
        {
            let (mut store, _) = Store::open(place.path(), false).unwrap();
            store.append(std::iter::once(&creating(&id))).unwrap();
        }
        let whole = std::fs::read(&path).unwrap();
        for tail in [&b"\0\0\0\0\0"[..], b"garbage\n\0\0", b"\n\n"] {
            std::fs::write(&path, [&whole, tail].concat()).unwrap();
            assert_eq!(reopened(place.path()).kept.len(), 1);
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
        let mut damaged = whole;
        damaged[12] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        let error = Store::open(place.path(), false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Journal);
        assert!(error.to_string().contains("line 1"), "{error}");
    }

    #[test]
    fn one_process_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let first = Store::open(place.path(), false).unwrap();
        let error = Store::open(place.path(), false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        drop(first);
        Store::open(place.path(), false).unwrap();
    }

    #[test]
    fn it_stays_small_and_says_the_same_after_it_was_compacted() {
        let place = tempfile::tempdir().unwrap();
        let stays = SessionId::generate();
        {
            let (mut store, _) = Store::open(place.path(), false).unwrap();
            store.append(std::iter::once(&creating(&stays))).unwrap();
            for _ in 0..5_000 {
                let id = SessionId::generate();
                let records = [creating(&id), Record::Closed { id: id.clone() }];
                store.append(records.iter()).unwrap();
            }
            assert!(store.records < 2 * SLACK, "{}", store.records);
            let size = std::fs::metadata(place.path().join("journal"))
                .unwrap()
                .len();
            assert_eq!(size, store.end);
        }
        let book = reopened(place.path());
        assert_eq!(book.kept.keys().collect::<Vec<_>>(), [&stays]);
        assert!(!place.path().join("journal.new").exists());
    }
}
