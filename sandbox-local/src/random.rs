//! Random names, from the kernel.

use std::io;

/// 128 random bits, as 32 hexadecimal digits.
pub(crate) fn hex() -> io::Result<String> {
    let mut bytes = [0u8; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
