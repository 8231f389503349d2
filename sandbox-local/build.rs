//! Compiles the agent, a freestanding program, for the target of this crate, so
//! that the library can embed it. Must need nothing but the compiler and linker
//! that are already building the crate, and must do nothing off Linux.

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

const SOURCES: [&str; 2] = ["agent", "src/protocol.rs"];

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    println!("cargo::rustc-check-cfg=cfg(sandbox_mutation)");
    println!("cargo::rerun-if-env-changed=SANDBOX_LOCAL_MUTATIONS");
    if env::var_os("SANDBOX_LOCAL_MUTATIONS").is_some() {
        // For the tests of the tests: see src/mutation.rs.
        println!("cargo::rustc-cfg=sandbox_mutation");
    }
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return ExitCode::SUCCESS;
    }
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("cargo::error={why}");
            ExitCode::FAILURE
        }
    }
}

fn compile() -> Result<(), String> {
    let variable = |name: &str| env::var(name).map_err(|_| format!("cargo did not set {name}"));
    let arch = variable("CARGO_CFG_TARGET_ARCH")?;
    if !["x86_64", "aarch64"].contains(&arch.as_str()) {
        return Err(format!(
            "sandbox-local does not support Linux on {arch} yet"
        ));
    }
    let source = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("agent/main.rs");
    let output = PathBuf::from(variable("OUT_DIR")?).join("sandbox-agent");
    let mut rustc = Command::new(variable("RUSTC")?);
    rustc
        .arg(&source)
        .arg("-o")
        .arg(&output)
        .args([
            "--crate-name",
            "sandbox_agent",
            "--crate-type",
            "bin",
            "--edition",
            "2024",
        ])
        .args(["--target", &variable("TARGET")?, "--cap-lints", "warn"])
        .args([
            "-C",
            "panic=abort",
            "-C",
            "opt-level=s",
            "-C",
            "codegen-units=1",
        ])
        .args(["-C", "debuginfo=0", "-C", "strip=symbols"])
        // A fixed address needs no relocation by a loader that is not there.
        .args([
            "-C",
            "relocation-model=static",
            "-C",
            "target-feature=+crt-static",
        ]);
    if variable("CARGO_CFG_TARGET_ENV")? == "musl" {
        // The start files that come with the target have a `_start` of their own.
        rustc.args(["-C", "link-self-contained=no"]);
    }
    let linker = env::var("RUSTC_LINKER").ok();
    if linker.is_none() && variable("HOST")? != variable("TARGET")? {
        // The host's `cc` cannot link for another architecture; the linker that
        // comes with the compiler can, and a freestanding program needs no more.
        rustc.args(["-C", "linker=rust-lld", "-C", "linker-flavor=ld.lld"]);
    } else {
        for argument in ["-nostartfiles", "-nostdlib", "-static"] {
            rustc.arg("-C").arg(format!("link-arg={argument}"));
        }
        if let Some(linker) = linker {
            rustc.arg("-C").arg(format!("linker={linker}"));
        }
    }
    // The flags of the crate itself (sanitizers, native CPU) are not for the agent.
    rustc
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    let done = rustc
        .output()
        .map_err(|error| format!("cannot run rustc: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&done.stderr).replace('\n', "\ncargo::error=");
    Err(format!("the agent does not compile:\ncargo::error={text}"))
}
