//! Finds the host's own Rust toolchain and says how a sandbox gets it.

use std::path::{Path, PathBuf};
use std::process::Command;

use sandbox::{Capabilities, Capability, Mount, Network, SandboxSpec};

/// Directory in which the sandbox sees the toolchain.
const GUEST: &str = "/opt/toolchain";

/// The directory of the toolchain that `rustc` on this host belongs to.
pub(crate) fn find() -> Result<PathBuf, String> {
    let remedy = "install Rust from https://rustup.rs or with `apt-get install cargo`";
    let output = Command::new("rustc")
        .args(["--print", "sysroot"])
        .output()
        .map_err(|e| format!("rustc can't be started ({e}); {remedy}"))?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if !output.status.success() || sysroot.as_os_str().is_empty() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "rustc has no toolchain ({}); {remedy}",
            said.trim()
        ));
    }
    for program in ["cargo", "rustc"] {
        let program = sysroot.join("bin").join(program);
        if !program.exists() && !program.with_extension("exe").exists() {
            return Err(format!("there is no {}; {remedy}", program.display()));
        }
    }
    Ok(sysroot)
}

/// A sandbox that has the toolchain, only to read, and no network where the backend can do that.
pub(crate) fn spec(sysroot: &Path, capabilities: &Capabilities) -> SandboxSpec {
    let mut spec = SandboxSpec::new();
    let mut bin = format!("{GUEST}/bin");
    if capabilities.has(Capability::Mounts) {
        spec = spec.mount(Mount::read_only(sysroot, GUEST));
    } else {
        // A backend without mounts that runs on the host's own files, as plain mode does.
        bin = sysroot.join("bin").to_string_lossy().into_owned();
    }
    if !capabilities.has(Capability::NetworkOff) {
        spec = spec.network(Network::Open);
    }
    spec.env("PATH", format!("{bin}:/usr/local/bin:/usr/bin:/bin"))
        .env("CARGO_HOME", "target/cargo-home")
        .env("CARGO_TERM_COLOR", "never")
        .env("CARGO_INCREMENTAL", "0")
}
