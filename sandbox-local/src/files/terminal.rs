//! Terminals in a guest's own devpts.
//!
//! Invariant: nothing but the multiplexer of a devpts is ever opened as one.

use rustix::fs::{FileType, OFlags, fstat, major, minor};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{InputModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};
use sandbox_core::{Error, ErrorKind, GuestPath, Operation, Result, TerminalOptions, TerminalSize};

use super::GuestRoot;
use super::place::Place;
use super::resolve::reopen;
use crate::engine::Terminal;

/// The device number of a multiplexer.
const PTMX: (u32, u32) = (5, 2);

impl GuestRoot {
    /// Makes a terminal that belongs to the guest's user.
    pub(crate) fn open_terminal(
        &self,
        options: &TerminalOptions,
        operation: Operation,
    ) -> Result<Terminal> {
        let path = GuestPath::from("/dev/pts/ptmx");
        let place = Place::guest(operation, &path);
        // The slave belongs to the file identity of the thread that opens the multiplexer.
        let _guest = self.as_guest(operation)?;
        let handle = self.open(&path, OFlags::PATH).map_err(place.failed())?;
        let found = fstat(&handle).map_err(place.failed())?;
        let device = (major(found.st_rdev), minor(found.st_rdev));
        let kind = FileType::from_raw_mode(found.st_mode);
        if kind != FileType::CharacterDevice || device != PTMX {
            return Err(place.error(ErrorKind::Other, b"", "not a multiplexer of terminals"));
        }
        let open = || {
            let master = reopen(&handle, OFlags::RDWR)?;
            unlockpt(&master)?;
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let slave = ioctl_tiocgptpeer(&master, flags)?;
            let mut modes = tcgetattr(&slave)?;
            if options.raw {
                modes.make_raw();
            }
            // So that erasing a character takes all of its bytes.
            modes.input_modes |= InputModes::IUTF8;
            tcsetattr(&slave, OptionalActions::Now, &modes)?;
            resize(&master, options.size)?;
            Ok(Terminal { master, slave })
        };
        open().map_err(|errno| match errno {
            Errno::NOSPC => Error::new(ErrorKind::LimitExceeded, operation)
                .with_message("the sandbox has as many terminals as it may have")
                .with_hint("end commands that have one"),
            errno => place.fail(errno, b""),
        })
    }
}

/// Sets the size of a terminal by the host's end.
pub(crate) fn resize(master: impl std::os::fd::AsFd, size: TerminalSize) -> Result<(), Errno> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(master, size)
}
