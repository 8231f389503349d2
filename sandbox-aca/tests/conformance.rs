//! The conformance kit against sandboxes of the emulator, or of Azure with `SANDBOX_REQUIRE=aca`.

#[cfg(target_os = "linux")]
mod fixture;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    let azure = fixture::Azure::asked_for();
    let code = sandbox_testkit::main(fixture::Sandboxes::new(azure.clone()));
    let listing = std::env::args().any(|argument| argument == "--list");
    if let Some(azure) = azure.filter(|_| !listing) {
        // Cases close what they make; what one left that failed goes here, by the run's label.
        let cleaned = tokio::runtime::Runtime::new()
            .map_err(|e| e.to_string())
            .and_then(|runtime| {
                runtime
                    .block_on(azure.clean_up())
                    .map_err(|e| e.to_string())
            });
        if let Err(error) = cleaned {
            use std::io::Write as _;
            // Nowhere is left to tell if that can't be written.
            let _ = writeln!(
                std::io::stderr(),
                "what is left of this run in Azure was not deleted: {error}"
            );
            return std::process::ExitCode::FAILURE;
        }
    }
    code
}

#[cfg(not(target_os = "linux"))]
fn main() {}
