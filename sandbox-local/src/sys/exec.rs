//! Execution of a command's own file.
//!
//! A command with anything to do between fork and exec is executed by the C library's `execvp`, which
//! gives a file that the kernel has no format for to the shell. It must never allocate after the fork.

use std::ffi::{CString, OsStr, c_char};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::ptr;

/// Pointers to strings that it owns, as execve(2) takes them.
struct Strings {
    pointers: Vec<*const c_char>,
    _owned: Vec<CString>,
}

impl Strings {
    fn new(strings: impl Iterator<Item = Vec<u8>>) -> io::Result<Self> {
        let owned = strings.map(CString::new).collect::<Result<Vec<_>, _>>()?;
        let pointers = owned.iter().map(|string| string.as_ptr());
        Ok(Self {
            pointers: pointers.chain([ptr::null()]).collect(),
            _owned: owned,
        })
    }
}

// SAFETY: the pointers are to what it owns, which is on the heap and never changed.
unsafe impl Send for Strings {}
// SAFETY: as above.
unsafe impl Sync for Strings {}

/// Makes the command execute its file and nothing else, under this name. The command has a path and an
/// environment of its own (`env_clear`). To be called after everything else that is to be done between
/// fork and exec.
pub(crate) fn arm(command: &mut tokio::process::Command, name: &[u8]) -> io::Result<()> {
    let std = command.as_std();
    let bytes = |text: &OsStr| text.as_bytes().to_vec();
    let file = CString::new(bytes(std.get_program()))?;
    let arguments = Strings::new([name.to_vec()].into_iter().chain(std.get_args().map(bytes)))?;
    let environment = Strings::new(std.get_envs().filter_map(|(name, value)| {
        value.map(|value| [name.as_bytes(), b"=", value.as_bytes()].concat())
    }))?;
    // SAFETY: the closure makes one system call, on memory that it holds.
    unsafe {
        command.pre_exec(move || {
            let (arguments, environment) = (&arguments, &environment);
            libc::execve(
                file.as_ptr(),
                arguments.pointers.as_ptr(),
                environment.pointers.as_ptr(),
            );
            Err(io::Error::last_os_error())
        });
    }
    Ok(())
}
