//! Runtime of a program without a C library: the memory functions
//! that the compiler calls, and an end for panics. Must never be called by name.

use core::panic::PanicInfo;

/// A broken invariant ends the agent, and with it the sandbox: fail closed.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    super::exit_group(70)
}

/// Named by the unwind tables of the precompiled core library. Nothing unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

// The crate is `no_builtins`, so these loops are not turned into calls to
// themselves.

/// C's memcpy.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    let mut i = 0;
    while i < len {
        // SAFETY: the caller promises `len` valid bytes on both sides.
        unsafe { *to.add(i) = *from.add(i) };
        i += 1;
    }
    to
}

/// C's memmove.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if (to as usize) <= (from as usize) {
        // SAFETY: as promised by the caller; a forward copy to a lower address
        // reads every byte before it is overwritten.
        return unsafe { memcpy(to, from, len) };
    }
    let mut i = len;
    while i > 0 {
        i -= 1;
        // SAFETY: the caller promises `len` valid bytes on both sides.
        unsafe { *to.add(i) = *from.add(i) };
    }
    to
}

/// C's memset.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, len: usize) -> *mut u8 {
    let mut i = 0;
    while i < len {
        // SAFETY: the caller promises `len` valid bytes.
        unsafe { *to.add(i) = value as u8 };
        i += 1;
    }
    to
}

/// C's memcmp.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    let mut i = 0;
    while i < len {
        // SAFETY: the caller promises `len` valid bytes on both sides.
        let (x, y) = unsafe { (*a.add(i), *b.add(i)) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
        i += 1;
    }
    0
}

/// C's bcmp.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    // SAFETY: the same promise.
    unsafe { memcmp(a, b, len) }
}
