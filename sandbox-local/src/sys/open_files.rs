//! Counting this process's open files without opening one.

use std::ops::Range;

/// Counts the numbers in a range that no open file has, up to `most` of them.
///
/// References: fcntl(2). Not poll(2), to which a descriptor of a mere place (`O_PATH`) is none.
pub(crate) fn free(numbers: Range<u64>, most: usize) -> u64 {
    let numbers = numbers.map_while(|number| libc::c_int::try_from(number).ok());
    let is_free = |number: &libc::c_int| {
        // SAFETY: takes no memory, and only looks at what the number stands for.
        unsafe { libc::fcntl(*number, libc::F_GETFD) < 0 }
    };
    numbers.filter(is_free).take(most).count() as u64
}
