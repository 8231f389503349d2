//! One file as a stream.
//!
//! Invariant: no more of a file than a buffer is in memory; what is written is staged as a batch of
//! one file is, and removed unless it is put in place.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use sandbox_core::{
    Error, FileBatch, GuestPath, OpenReadOptions, OpenWriteOptions, Operation, Result,
};

use super::GuestRoot;
use super::place::Place;
use super::resolve::reopen;

/// Number of bytes that are copied at once.
const CHUNK: usize = 256 << 10;

/// Interval at which it is asked whether the bytes are still wanted, while none come.
const LOOK: Duration = Duration::from_millis(100);

/// Input from the writer of a stream.
pub(crate) trait Incoming {
    /// The bytes, up to the end of file.
    fn pipe(&self) -> &OwnedFd;

    /// Whether the end of file is the writer's commit.
    fn is_committed(&self) -> bool;

    /// Refuses to go on if the sandbox was closed.
    fn check_open(&self) -> Result<()>;
}

impl GuestRoot {
    /// Opens a regular file at an offset; gives its size and when it was last changed too.
    pub(crate) fn open_read(
        &self,
        path: &GuestPath,
        options: &OpenReadOptions,
    ) -> Result<(File, u64, Option<SystemTime>)> {
        let place = Place::guest(Operation::OpenRead, path);
        let _guest = self.as_guest(Operation::OpenRead)?;
        let (handle, stat) = self.regular(path, &place)?;
        let file = reopen(&handle, OFlags::RDONLY).map_err(place.failed())?;
        let mut file = File::from(file);
        // A filesystem refuses offsets beyond the largest file that it can have.
        let offset = options.offset.min(stat.size);
        file.seek(SeekFrom::Start(offset))
            .map_err(|error| Error::from_io(error, Operation::OpenRead).with_path(path))?;
        Ok((file, stat.size, stat.metadata().modified))
    }

    /// Stages a file, says so, fills it with what comes, and puts it in place at the commit. Blocks
    /// all the time.
    pub(crate) fn open_write(
        &self,
        path: &GuestPath,
        options: &OpenWriteOptions,
        opened: impl FnOnce(),
        incoming: &impl Incoming,
    ) -> Result<()> {
        let mut batch = FileBatch::new();
        let file = batch.push(path.clone(), "");
        file.mode = options.mode;
        file.write_mode = options.write_mode;
        let files = batch.resolve(&GuestPath::root())?;
        self.write_with(&files, |staged| {
            opened();
            fill(staged, incoming).map_err(|error| error.or_io(path))
        })
        .map_err(|error| error.with_operation(Operation::OpenWrite))
    }
}

enum Failure {
    Stopped(Error),
    Kernel(Errno),
}

impl Failure {
    fn or_io(self, path: &GuestPath) -> Error {
        match self {
            Self::Stopped(error) => error,
            Self::Kernel(errno) => {
                Error::from_io(errno.into(), Operation::OpenWrite).with_path(path)
            }
        }
    }
}

/// Copies what comes up to the end of file; says whether that was the commit.
fn fill(to: &OwnedFd, incoming: &impl Incoming) -> Result<bool, Failure> {
    let mut buffer = vec![0; CHUNK];
    let look = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(LOOK.subsec_nanos()),
    };
    loop {
        incoming.check_open().map_err(Failure::Stopped)?;
        let mut polled = [PollFd::new(incoming.pipe(), PollFlags::IN)];
        match poll(&mut polled, Some(&look)) {
            Ok(0) | Err(Errno::INTR) => continue,
            Ok(_) => {}
            Err(errno) => return Err(Failure::Kernel(errno)),
        }
        let len = match rustix::io::read(incoming.pipe(), &mut buffer) {
            Ok(0) => {
                // Nothing is put in place in a sandbox that was closed meanwhile.
                incoming.check_open().map_err(Failure::Stopped)?;
                return Ok(incoming.is_committed());
            }
            Ok(len) => len,
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(errno) => return Err(Failure::Kernel(errno)),
        };
        let mut bytes = buffer.get(..len).unwrap_or_default();
        while !bytes.is_empty() {
            match rustix::io::write(to.as_fd(), bytes) {
                Ok(0) => return Err(Failure::Kernel(Errno::IO)),
                Ok(len) => bytes = bytes.get(len..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Failure::Kernel(errno)),
            }
        }
    }
}
