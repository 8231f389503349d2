//! A kernel for unit tests: processes, their files below `/proc`, a clock, and a host at the other
//! end of the control socket. Every system call of the agent ends here, so that all of the agent's
//! code but the instruction itself is tested. Each test's thread has a world of its own.
//!
//! Must never answer a call that it does not model: such a call fails the test.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::CStr;

use super::arch::nr;
use super::slot::Slot;
use super::{EACCES, EAGAIN, ECHILD, ENOENT, ESRCH, Result, SIGCONT, SIGKILL, SIGSTOP};
use crate::protocol::Message;

/// A process of the fake world.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// Process group.
    pub(crate) group: i32,
    /// The inode of its UTS namespace.
    pub(crate) tree: u64,
    /// The state letter of each thread.
    pub(crate) threads: Vec<u8>,
    /// Whether its namespaces can be read.
    pub(crate) is_readable: bool,
    /// Number of its kind that appear when it is killed: a fork bomb.
    pub(crate) respawns: u32,
    /// Number of times that it was executed and switched out.
    pub(crate) switches: u64,
    /// Switches that are still to come: the state that it shows has been set, but it is being
    /// executed until the agent next waits.
    pub(crate) leaving: u64,
    /// After so many readings of its state another process of the guest continues it.
    pub(crate) continues_in: Option<u32>,
    /// Whether SIGSTOP and SIGCONT reach it.
    pub(crate) obeys: bool,
}

impl Process {
    /// An ordinary one that runs.
    pub(crate) fn new(group: i32, tree: u64) -> Self {
        Self {
            group,
            tree,
            threads: vec![b'S'],
            is_readable: true,
            respawns: 0,
            switches: 1,
            leaving: 0,
            continues_in: None,
            obeys: true,
        }
    }
}

enum File {
    Directory { names: Vec<String>, next: usize },
    Text { bytes: Vec<u8>, at: usize },
}

/// Everything that a test sees and sets.
#[derive(Default)]
pub(crate) struct World {
    /// By number. The agent itself is not among them.
    pub(crate) processes: BTreeMap<i32, Process>,
    /// Processes that the agent reaps next: number and status.
    pub(crate) ended: VecDeque<(i32, i32)>,
    /// Milliseconds.
    pub(crate) now: u64,
    /// Messages that the host has sent and the agent has not received: bytes, descriptors, whether
    /// the kernel had to cut it.
    pub(crate) inbox: VecDeque<(Vec<u8>, Vec<i32>, bool)>,
    /// Messages that the agent has sent.
    pub(crate) sent: Vec<Message>,
    /// Signals as the agent sent them.
    pub(crate) signals: Vec<(i32, i32)>,
    /// Descriptors that the agent has closed.
    pub(crate) closed: Vec<i32>,
    /// Answer of the next clone; a number that is negative is an errno.
    pub(crate) next_pid: isize,
    /// Whether calls that are not modelled are refused (ENOSYS), instead of failing the test.
    pub(crate) is_lenient: bool,
    /// The errno of plan calls, by call number.
    pub(crate) refused: BTreeMap<usize, i32>,
    files: BTreeMap<i32, File>,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
}

/// The descriptor of the fake proc mount.
pub(crate) const PROC: i32 = 100;

/// Looks at the world, or changes it.
pub(crate) fn world<T>(with: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with(|world| with(&mut world.borrow_mut()))
}

/// A call that plans of tests make: it has no effect.
pub(crate) const PLAN_CALL: usize = 4000;

pub(super) unsafe fn syscall(number: usize, args: [usize; 6]) -> isize {
    // SAFETY: the agent's promise to the real kernel.
    let result = world(|world| unsafe { world.call(number, args) });
    result.unwrap_or_else(|errno| -(errno as isize))
}

/// In place of the assembly: a process that has executed its program when the agent next waits.
pub(super) unsafe fn agent_clone(
    _: usize,
    _: *mut u8,
    _: unsafe extern "C" fn(*const core::ffi::c_void) -> !,
    argument: *const core::ffi::c_void,
    running: *mut u32,
) -> isize {
    let pid = world(|world| world.next_pid);
    if pid > 0 {
        let tree = 5000 + pid as u64;
        world(|world| {
            world
                .processes
                .insert(pid as i32, Process::new(pid as i32, tree))
        });
        // SAFETY: slots are static, and the word is one of its own.
        unsafe {
            (*argument.cast::<Slot>()).set_mark(tree);
            *running = 0;
        }
    }
    pid
}

impl World {
    /// # Safety
    /// The arguments must be valid for the call.
    unsafe fn call(&mut self, number: usize, args: [usize; 6]) -> std::result::Result<isize, i32> {
        if let Some(errno) = self.refused.get(&number) {
            return Err(*errno);
        }
        match number {
            PLAN_CALL => Ok(7),
            nr::CLOCK_GETTIME => {
                // Looking at the clock takes time too, or loops that wait for it never end.
                self.now += 1;
                // SAFETY: a timespec.
                unsafe {
                    *(args[1] as *mut [u64; 2]) = [self.now / 1000, self.now % 1000 * 1_000_000]
                };
                Ok(0)
            }
            nr::PPOLL => {
                self.now += 1;
                for process in self.processes.values_mut() {
                    process.switches += std::mem::take(&mut process.leaving);
                }
                Ok(0)
            }
            nr::FUTEX => Ok(0),
            nr::KILL => self.kill(args[0] as i32, args[1] as i32),
            nr::GETPGID => match self.processes.get(&(args[0] as i32)) {
                Some(process) => Ok(process.group as isize),
                None => Err(ESRCH),
            },
            nr::WAITID if self.processes.is_empty() && self.ended.is_empty() => Err(ECHILD),
            nr::WAITID => Ok(0),
            nr::WAIT4 => match self.ended.pop_front() {
                Some((pid, status)) => {
                    // SAFETY: the agent's own variable.
                    unsafe { *(args[1] as *mut i32) = status };
                    Ok(pid as isize)
                }
                None if self.processes.is_empty() => Err(ECHILD),
                None => Ok(0),
            },
            nr::OPENAT => {
                // SAFETY: a string of the agent's.
                let path = unsafe { CStr::from_ptr(args[1] as *const core::ffi::c_char) };
                self.open(args[0] as i32, &path.to_string_lossy())
            }
            nr::CLOSE => {
                self.files.remove(&(args[0] as i32));
                self.closed.push(args[0] as i32);
                Ok(0)
            }
            nr::LSEEK => {
                if args[0] as i32 == PROC {
                    let names = self.processes.keys().map(i32::to_string);
                    // What else is in there must be passed over.
                    let names = ["self".into(), "1".into()]
                        .into_iter()
                        .chain(names)
                        .collect();
                    self.files.insert(PROC, File::Directory { names, next: 0 });
                } else if let Some(File::Directory { next, .. }) =
                    self.files.get_mut(&(args[0] as i32))
                {
                    *next = 0;
                }
                Ok(0)
            }
            // SAFETY: the agent's buffer.
            nr::GETDENTS64 => unsafe { self.list(args) },
            // SAFETY: the agent's buffer.
            nr::READ => unsafe { self.read(args) },
            nr::NEWFSTATAT => {
                // SAFETY: a string of the agent's.
                let path = unsafe { CStr::from_ptr(args[1] as *const core::ffi::c_char) };
                let inode = self.inode(&path.to_string_lossy())?;
                // SAFETY: a structure of at least 32 words, of which this is the second.
                unsafe { *(args[2] as *mut u64).add(1) = inode };
                Ok(0)
            }
            // SAFETY: the agent's message.
            nr::RECVMSG => unsafe { self.receive(args[1]) },
            nr::SENDMSG => {
                // SAFETY: struct msghdr: the parts are the third word, one of address and length.
                let bytes = unsafe {
                    let part = *(*(args[1] as *const [usize; 7])).get(2).unwrap_or(&0);
                    let [at, len] = *(part as *const [usize; 2]);
                    std::slice::from_raw_parts(at as *const u8, len)
                };
                self.sent.extend(Message::decode(bytes));
                Ok(bytes.len() as isize)
            }
            _ if self.is_lenient => Err(38),
            number => panic!("no such call in the fake kernel: {number}"),
        }
    }

    fn kill(&mut self, pid: i32, signal: i32) -> std::result::Result<isize, i32> {
        self.signals.push((pid, signal));
        let meant: Vec<i32> = self
            .processes
            .iter()
            .filter(|(number, process)| match pid {
                -1 => true,
                pid if pid < 0 => process.group == -pid,
                pid => **number == pid,
            })
            .map(|(number, _)| *number)
            .collect();
        for number in &meant {
            match signal {
                SIGKILL => {
                    let killed = self.processes.remove(number);
                    self.ended.push_back((*number, SIGKILL));
                    // Nothing forks its way around a signal to all.
                    if let Some(bomb) = killed.filter(|bomb| bomb.respawns > 0 && pid != -1) {
                        let next = self
                            .processes
                            .keys()
                            .max()
                            .copied()
                            .unwrap_or(*number)
                            .max(*number)
                            + 1;
                        let respawns = bomb.respawns - 1;
                        self.processes.insert(
                            next,
                            Process {
                                group: next,
                                respawns,
                                ..bomb
                            },
                        );
                    }
                }
                SIGSTOP | SIGCONT => {
                    if let Some(process) = self
                        .processes
                        .get_mut(number)
                        .filter(|process| process.obeys)
                    {
                        let state = if signal == SIGSTOP { b'T' } else { b'S' };
                        process.threads.fill(state);
                    }
                }
                _ => {}
            }
        }
        if meant.is_empty() { Err(ESRCH) } else { Ok(0) }
    }

    fn open(&mut self, _: i32, path: &str) -> std::result::Result<isize, i32> {
        let (number, rest) = path.split_once('/').ok_or(ENOENT)?;
        let number: i32 = number.parse().map_err(|_| ENOENT)?;
        // Threads of the process n have the numbers n, n + 10000, n + 20000.
        let process = self.processes.get_mut(&(number % 10_000)).ok_or(ENOENT)?;
        if rest == "stat" {
            match process.continues_in {
                Some(0) => {
                    process.threads.fill(b'S');
                    process.continues_in = None;
                }
                Some(left) => process.continues_in = Some(left - 1),
                None => {}
            }
        }
        let file = match rest {
            "task" => File::Directory {
                names: (0..process.threads.len())
                    .map(|i| (number + 10_000 * i as i32).to_string())
                    .collect(),
                next: 0,
            },
            "stat" => {
                let state = *process
                    .threads
                    .get(number as usize / 10_000)
                    .ok_or(ENOENT)?;
                // A name that tries to pass for the rest of the line.
                let text = format!("{number} (x) R 1) {} 1 1", char::from(state));
                File::Text {
                    bytes: text.into(),
                    at: 0,
                }
            }
            "status" => {
                let state = *process
                    .threads
                    .get(number as usize / 10_000)
                    .ok_or(ENOENT)?;
                let state = char::from(state);
                let switches = process.switches;
                let text = format!(
                    "Name:\tx\nState:\t{state} (x)\nvoluntary_ctxt_switches:\t{switches}\n\
                     nonvoluntary_ctxt_switches:\t1\n"
                );
                File::Text {
                    bytes: text.into(),
                    at: 0,
                }
            }
            _ => return Err(ENOENT),
        };
        let fd = 200 + self.files.len() as i32;
        self.files.insert(fd, file);
        Ok(fd as isize)
    }

    /// # Safety
    /// The arguments are those of getdents64(2).
    unsafe fn list(&mut self, args: [usize; 6]) -> std::result::Result<isize, i32> {
        let Some(File::Directory { names, next }) = self.files.get_mut(&(args[0] as i32)) else {
            return Err(ENOENT);
        };
        let mut bytes = Vec::new();
        while let Some(name) = names.get(*next) {
            let length = (19 + name.len() + 1).next_multiple_of(8);
            if bytes.len() + length > args[2] {
                break;
            }
            let start = bytes.len();
            bytes.extend([0; 16]);
            bytes.extend((length as u16).to_ne_bytes());
            bytes.push(0);
            bytes.extend(name.as_bytes());
            bytes.resize(start + length, 0);
            *next += 1;
        }
        // SAFETY: it fits, see above.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), args[1] as *mut u8, bytes.len()) };
        Ok(bytes.len() as isize)
    }

    /// # Safety
    /// The arguments are those of read(2).
    unsafe fn read(&mut self, args: [usize; 6]) -> std::result::Result<isize, i32> {
        let Some(File::Text { bytes, at }) = self.files.get_mut(&(args[0] as i32)) else {
            return Err(ENOENT);
        };
        let rest = bytes.get(*at..).unwrap_or_default();
        let len = rest.len().min(args[2]);
        // SAFETY: no more than there is room for.
        unsafe { std::ptr::copy_nonoverlapping(rest.as_ptr(), args[1] as *mut u8, len) };
        *at += len;
        Ok(len as isize)
    }

    fn inode(&self, path: &str) -> std::result::Result<u64, i32> {
        let number = path.strip_suffix("/ns/uts").ok_or(ENOENT)?;
        let number: i32 = number.parse().map_err(|_| ENOENT)?;
        let process = self.processes.get(&(number % 10_000)).ok_or(ENOENT)?;
        let state = *process
            .threads
            .get(number as usize / 10_000)
            .ok_or(ENOENT)?;
        match state {
            b'Z' | b'X' => Err(ENOENT),
            _ if process.is_readable => Ok(process.tree),
            _ => Err(EACCES),
        }
    }

    /// # Safety
    /// `header` is the address of a `struct msghdr`.
    unsafe fn receive(&mut self, header: usize) -> std::result::Result<isize, i32> {
        let (bytes, fds, is_cut) = self.inbox.pop_front().ok_or(EAGAIN)?;
        // SAFETY: name, its length, parts, their number, control, its length, flags.
        let header = unsafe { &mut *(header as *mut [usize; 7]) };
        // SAFETY: one part, of address and length; the control buffer has room for 16 descriptors.
        unsafe {
            let [at, len] = *(header[2] as *const [usize; 2]);
            assert!(bytes.len() <= len, "the host sends no more than that");
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len());
            let control = header[4] as *mut u64;
            *control = 16 + 4 * fds.len() as u64;
            *control.add(1) = 1 | 1 << 32;
            for (i, fd) in fds.iter().enumerate() {
                *control.add(2).cast::<i32>().add(i) = *fd;
            }
        }
        header[5] = if fds.is_empty() {
            0
        } else {
            16 + 4 * fds.len()
        };
        // MSG_CTRUNC, in the low half of the last word.
        header[6] = if is_cut { 0x8 } else { 0 };
        Ok(bytes.len() as isize)
    }
}

/// Calls without a kernel always succeed.
pub(crate) fn never_fails<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|errno| panic!("errno {}", errno.0))
}
