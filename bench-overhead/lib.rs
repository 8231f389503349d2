//! A package for one benchmark: `cargo bench -p bench-overhead`. It has no library of its own.
