//! The `Sandbox` trait and everything that backends and applications share.
