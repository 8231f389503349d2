//! The conformance kit against Python sessions of the emulator, or of Azure.

#[cfg(target_os = "linux")]
mod sessions;

#[cfg(target_os = "linux")]
sandbox_testkit::conformance_main!(sessions::Sessions::new(sandbox_aca::SessionKind::Python));

#[cfg(not(target_os = "linux"))]
fn main() {}
