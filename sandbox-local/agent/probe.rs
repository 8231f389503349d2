//! The agent as a probe: run as a guest, it tries a plan of system calls and
//! tells what came of each. Must have no more rights than any other guest, which
//! is the point.

use crate::play::Player;
use crate::protocol::{MAX_SLOTS, put};
use crate::sys::{self, EINTR, Errno};

const STDIN: i32 = 0;
const STDOUT: i32 = 1;

/// Exit code for a plan that makes no sense.
const MALFORMED: i32 = 3;

/// Plays the plan in the file on standard input; writes all slots, then the
/// plan's data, to standard output.
pub(crate) fn run() -> i32 {
    probe().map_or(MALFORMED, |()| 0)
}

fn probe() -> Option<()> {
    let length = sys::length(STDIN).ok()?;
    let mut player = Player::new(sys::map(STDIN, length).ok()?, [0; MAX_SLOTS], 0)?;
    player.try_all()?;
    let (slots, data) = player.findings()?;
    // At once: the reader is a guest's host, woken by each write.
    let mut bytes = [0; 8 * MAX_SLOTS];
    for (index, slot) in slots.iter().enumerate() {
        put(&mut bytes, 8 * index, &slot.to_ne_bytes());
    }
    write_all(&bytes)?;
    write_all(data)
}

fn write_all(mut bytes: &[u8]) -> Option<()> {
    while !bytes.is_empty() {
        match sys::write(STDOUT, bytes) {
            Ok(written) => bytes = bytes.get(written..)?,
            Err(Errno(EINTR)) => {}
            Err(_) => return None,
        }
    }
    Some(())
}
