//! The conformance kit against the Dagger backend: on the engine double, and on a real engine where
//! one is given.

#[cfg(target_os = "linux")]
mod fixture;
#[cfg(target_os = "linux")]
mod support;

#[cfg(target_os = "linux")]
sandbox_testkit::conformance_main!(fixture::all());

#[cfg(not(target_os = "linux"))]
fn main() {}
