//! Random names, by which the engine's cache tells executions apart and answers are recognised.

/// A name that is used once: sixteen random hexadecimal digits, and a count.
pub(crate) fn nonce() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static KEYS: std::sync::OnceLock<RandomState> = std::sync::OnceLock::new();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // The keys of a hasher are the randomness that the standard library gives out.
    let random = KEYS
        .get_or_init(RandomState::new)
        .hash_one((count, std::process::id()));
    format!("{random:016x}{count:x}")
}
