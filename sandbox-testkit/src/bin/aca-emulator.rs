//! The emulator as a program: `aca-emulator --listen 127.0.0.1:0 --tls`.
//!
//! It prints one line of JSON with what a client needs, and serves until it is killed. It must
//! never print anything else to standard output.

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
mod linux {
    use std::io::Write as _;
    use std::process::ExitCode;
    use std::time::Duration;

    use sandbox_testkit::aca::{AcaEmulator, Options};
    use serde_json::json;

    const HELP: &str = "\
aca-emulator: Azure Container Apps Sandboxes on this machine, for tests

usage: aca-emulator [options]

  --listen ADDRESS:PORT   where to listen (127.0.0.1:0: any free port)
  --tls                   speak https with a certificate of its own making
  --ca-file FILE          write the authority's certificate there
  --audience URL          accept this audience too (may be repeated)
  --allow-network         let sandboxes whose egress policy allows it reach the network
  --forbidden             answer every request with an empty 403
  --envelope [--page N]   lists as {value, nextLink}, N entries a page
  --creating MS           a sandbox is Creating so long
  --hidden MS             a new sandbox is a 404 so long
  --snapshot MS           a snapshot takes so long
  --port-url MS           a port has no URL so long
  --gateway MS            a command that takes longer is a 504, and goes on (600000)
  --bodyless-stop-hangs   a stop without a body is never answered
  --rate N                429 beyond so many requests a minute
  --log                   log every request to standard error
  --help                  this text

It prints one line of JSON: endpoint, token, subscription, resourceGroup, sandboxGroup, caFile.
Clients take the certificate by REQUESTS_CA_BUNDLE or SSL_CERT_FILE. A managed identity is at
ENDPOINT/msi/token (IDENTITY_ENDPOINT; any IDENTITY_HEADER).
";

    pub(super) fn main() -> ExitCode {
        let options = match parse(std::env::args().skip(1)) {
            Ok(Some(options)) => options,
            Ok(None) => return say(HELP),
            Err(why) => return fail(&format!("{why}; see --help")),
        };
        let runtime = match tokio::runtime::Runtime::new() {
            Ok(runtime) => runtime,
            Err(error) => return fail(&error.to_string()),
        };
        runtime.block_on(async {
            let emulator = match AcaEmulator::start(options).await {
                Ok(emulator) => emulator,
                Err(error) => return fail(&error.to_string()),
            };
            let line = json!({
                "endpoint": emulator.endpoint(),
                "token": emulator.token(),
                "subscription": "00000000-0000-0000-0000-000000000000",
                "resourceGroup": "emulator",
                "sandboxGroup": "emulator",
                "caFile": emulator.ca_file(),
            });
            let said = say(&format!("{line}\n"));
            if said != ExitCode::SUCCESS {
                return said;
            }
            std::future::pending().await
        })
    }

    fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
        let mut options = Options::default();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            let number = |text: String| {
                text.parse::<u64>()
                    .map_err(|_| format!("{text:?} is no number"))
            };
            let mut millis = || value().and_then(number).map(Duration::from_millis);
            match arg.as_str() {
                "--help" | "-h" => return Ok(None),
                "--tls" => options.tls = true,
                "--allow-network" => options.allow_network = true,
                "--forbidden" => options.forbidden = true,
                "--envelope" => options.envelope = true,
                "--bodyless-stop-hangs" => options.bodyless_stop_hangs = true,
                "--log" => options.log = true,
                "--creating" => options.creating = millis()?,
                "--hidden" => options.hidden = millis()?,
                "--snapshot" => options.snapshot = millis()?,
                "--port-url" => options.port_url = millis()?,
                "--gateway" => options.gateway = millis()?,
                "--ca-file" => options.certificate = Some(value()?.into()),
                "--audience" => options.audiences.push(value()?),
                "--page" => options.page = usize::try_from(number(value()?)?).ok(),
                "--rate" => options.rate = u32::try_from(number(value()?)?).ok(),
                "--listen" => {
                    let text = value()?;
                    let address = text.parse();
                    options.listen = address.map_err(|_| format!("{text:?} is no address"))?;
                }
                other => return Err(format!("{other:?} is no option")),
            }
        }
        Ok(Some(options))
    }

    fn say(text: &str) -> ExitCode {
        match std::io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        }
    }

    fn fail(text: &str) -> ExitCode {
        // Nowhere is left to tell if standard error is closed.
        let _ = writeln!(std::io::stderr(), "aca-emulator: {text}");
        ExitCode::FAILURE
    }
}
