//! Reading the sandbox's own proc mount: which processes exist, to which tree
//! each belongs, whether it stands still. Must never believe a process's name.

use core::ffi::CStr;

use crate::sys::{self, EACCES, ENOENT, ESRCH, Errno, Open};

/// To which tree a process belongs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Inode of its UTS namespace.
    Known(u64),
    /// Ended; waits to be reaped by its parent.
    Ended,
    /// Dying: it has left its namespaces and runs nothing any more.
    Dying,
    /// Gone before it could be looked at.
    Vanished,
    /// The kernel does not tell.
    Unreadable,
}

/// A short path below the proc mount.
struct Path {
    bytes: [u8; 64],
    len: usize,
}

impl Path {
    fn new(pid: i32, rest: &str) -> Self {
        let mut path = Self {
            bytes: [0; 64],
            len: 0,
        };
        path.number(pid);
        path.text(rest);
        path
    }

    fn text(&mut self, text: &str) {
        for byte in text.bytes() {
            self.byte(byte);
        }
    }

    fn byte(&mut self, byte: u8) {
        // The last byte stays zero.
        if self.len + 1 < self.bytes.len()
            && let Some(to) = self.bytes.get_mut(self.len)
        {
            *to = byte;
            self.len += 1;
        }
    }

    fn number(&mut self, number: i32) {
        let mut digits = [0_u8; 10];
        let mut rest = number.unsigned_abs();
        let mut count = 0;
        loop {
            if let Some(digit) = digits.get_mut(count) {
                *digit = b'0' + (rest % 10) as u8;
            }
            count += 1;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        for digit in digits.iter().take(count).rev() {
            self.byte(*digit);
        }
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }
}

/// Calls `each` with every numeric name in the directory, in ascending order,
/// until it returns false.
pub(crate) fn for_each_number(dir: i32, mut each: impl FnMut(i32) -> bool) -> sys::Result<()> {
    sys::rewind(dir)?;
    // Small, so that what is listed is looked at before it can change much.
    let mut bytes = [0_u8; 1024];
    loop {
        let len = sys::read_dir(dir, &mut bytes)?;
        if len == 0 {
            return Ok(());
        }
        let mut rest = bytes.get(..len).unwrap_or_default();
        // struct linux_dirent64: ino u64, off u64, reclen u16, type u8, name.
        while let Some(length) = rest.get(16..18) {
            let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
            if length < 20 || length > rest.len() {
                break;
            }
            let name = rest.get(19..length).unwrap_or_default();
            if let Some(number) = parse(name)
                && !each(number)
            {
                return Ok(());
            }
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

/// A zero-terminated decimal number.
fn parse(name: &[u8]) -> Option<i32> {
    let mut number = 0_i32;
    let mut any = false;
    for byte in name {
        match byte {
            0 => break,
            b'0'..=b'9' => {
                any = true;
                number = number
                    .checked_mul(10)?
                    .checked_add(i32::from(byte - b'0'))?;
            }
            _ => return None,
        }
    }
    any.then_some(number)
}

/// The UTS namespace of process `number` (or of a thread, if `dir` is a task
/// directory).
fn namespace(dir: i32, number: i32) -> sys::Result<u64> {
    let path = Path::new(number, "/ns/uts");
    let inode = sys::inode(dir, path.as_c_str());
    match inode {
        // Also what proc_ns_get_link() says of a process that is reaped between
        // the lookup of the link and its reading: then it is gone the next time.
        Err(Errno(EACCES)) => sys::inode(dir, path.as_c_str()),
        inode => inode,
    }
}

/// The tree of `pid`.
pub(crate) fn mark(proc: i32, pid: i32) -> Mark {
    match namespace(proc, pid) {
        Ok(inode) => Mark::Known(inode),
        Err(Errno(ENOENT | ESRCH)) => mark_of_threads(proc, pid),
        Err(_) => Mark::Unreadable,
    }
}

/// A process whose first thread has ended has no namespaces to show, but lives
/// on in its other threads.
fn mark_of_threads(proc: i32, pid: i32) -> Mark {
    let dir = match sys::open(
        Some(proc),
        Path::new(pid, "/task").as_c_str(),
        Open::Directory,
    ) {
        Ok(dir) => dir,
        Err(Errno(ENOENT | ESRCH)) => return Mark::Vanished,
        Err(_) => return Mark::Unreadable,
    };
    let mut found = Mark::Ended;
    let mut threads = 0_u32;
    let listed = for_each_number(dir, |thread| {
        threads += 1;
        match namespace(dir, thread) {
            Ok(inode) => found = Mark::Known(inode),
            Err(Errno(ENOENT | ESRCH)) => {}
            Err(_) => found = Mark::Unreadable,
        }
        found == Mark::Ended
    });
    sys::close(dir);
    match (listed, found) {
        (Err(_), _) => Mark::Vanished,
        (Ok(()), Mark::Ended) => match state(proc, pid) {
            Some(b'Z' | b'X') if threads == 1 => Mark::Ended,
            Some(_) => Mark::Dying,
            None => Mark::Vanished,
        },
        (Ok(()), found) => found,
    }
}

/// The state letter of the first thread of process `number` (or of a thread, if
/// `dir` is a task directory).
pub(crate) fn state(dir: i32, number: i32) -> Option<u8> {
    let fd = sys::open(Some(dir), Path::new(number, "/stat").as_c_str(), Open::Read).ok()?;
    let mut line = [0_u8; 256];
    let len = sys::read(fd, &mut line);
    sys::close(fd);
    let line = line.get(..len.ok()?)?;
    // "pid (name) S …": the name may hold anything, but nothing after it does.
    let end = line.iter().rposition(|byte| *byte == b')')?;
    line.get(end + 2).copied()
}

/// State of a thread, and the number of times that it was switched out.
pub(crate) struct Seen {
    /// The state letter.
    pub(crate) state: u8,
    /// All switches, voluntary or not: they only grow.
    pub(crate) switches: u64,
}

/// Calls `each` with every thread of `pid` that has not ended, in ascending order, until it
/// returns false. Gives false then, and if a thread can't be looked at.
pub(crate) fn for_each_live_thread(
    proc: i32,
    pid: i32,
    mut each: impl FnMut(i32, &Seen) -> bool,
) -> bool {
    let path = Path::new(pid, "/task");
    let Ok(dir) = sys::open(Some(proc), path.as_c_str(), Open::Directory) else {
        // It was listed a moment ago: something has moved.
        return false;
    };
    let mut good = true;
    let listed = for_each_number(dir, |thread| {
        good = match see(dir, thread) {
            Some(Seen {
                state: b'Z' | b'X', ..
            }) => true,
            Some(seen) => each(thread, &seen),
            None => false,
        };
        good
    });
    sys::close(dir);
    good && listed.is_ok()
}

fn see(dir: i32, thread: i32) -> Option<Seen> {
    let path = Path::new(thread, "/status");
    let fd = sys::open(Some(dir), path.as_c_str(), Open::Read).ok()?;
    // Masks of processors and memory nodes make it long on large machines.
    let mut text = [0_u8; 8192];
    let mut len = 0;
    while let Some(rest) = text.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match sys::read(fd, rest) {
            Ok(more) if more > 0 => len += more,
            _ => break,
        }
    }
    sys::close(fd);
    let text = text.get(..len)?;
    // In the name a line break is escaped, so it can't begin a line.
    let voluntary = field(text, b"\nvoluntary_ctxt_switches:\t")?;
    let forced = field(text, b"\nnonvoluntary_ctxt_switches:\t")?;
    Some(Seen {
        state: *after(text, b"\nState:\t")?.first()?,
        switches: number(voluntary)?.wrapping_add(number(forced)?),
    })
}

/// Text behind the first occurrence of `label`.
fn after<'a>(text: &'a [u8], label: &[u8]) -> Option<&'a [u8]> {
    let at = text.windows(label.len()).position(|found| found == label)?;
    text.get(at + label.len()..)
}

/// The rest of the line after `label`.
fn field<'a>(text: &'a [u8], label: &[u8]) -> Option<&'a [u8]> {
    after(text, label)?.split(|byte| *byte == b'\n').next()
}

fn number(digits: &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
    }
    (!digits.is_empty()).then_some(value)
}

/// Whether every thread of `pid` is stopped or has ended; with `patient`, a
/// thread that waits in the kernel and cannot be woken counts as well.
pub(crate) fn stands_still(proc: i32, pid: i32, patient: bool) -> bool {
    let path = Path::new(pid, "/task");
    let Ok(dir) = sys::open(Some(proc), path.as_c_str(), Open::Directory) else {
        return true;
    };
    let mut still = true;
    let listed = for_each_number(dir, |thread| {
        still = match state(dir, thread) {
            Some(state) => is_still(state) || patient && state == b'D',
            None => true,
        };
        still
    });
    sys::close(dir);
    still || listed.is_err()
}

/// Whether a state letter means that nothing is executed.
pub(crate) fn is_still(state: u8) -> bool {
    matches!(state, b'T' | b't' | b'Z' | b'X')
}
