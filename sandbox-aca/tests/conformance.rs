//! The conformance kit against sandboxes of the emulator.

#[cfg(target_os = "linux")]
mod fixture;

#[cfg(target_os = "linux")]
sandbox_testkit::conformance_main!(fixture::Emulated::default());

#[cfg(not(target_os = "linux"))]
fn main() {}
