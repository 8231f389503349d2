//! The conformance kit against the local backend: bare, and through a stack of layers.

#[cfg(target_os = "linux")]
mod fixture;

#[cfg(target_os = "linux")]
sandbox_testkit::conformance_main!(fixture::all());

#[cfg(not(target_os = "linux"))]
fn main() {}
