//! The emulator as a program: `aca-emulator --listen 127.0.0.1:0 --tls`.
//!
//! It prints one line of JSON with what a client needs, and serves until it is told to end; or it
//! runs a command that finds all that in its environment, and ends with it. It must never print
//! anything else to standard output.

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::OsString;
    use std::io::Write as _;
    use std::net::SocketAddr;
    use std::os::unix::process::ExitStatusExt as _;
    use std::path::PathBuf;
    use std::process::ExitCode;

    use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
    use sandbox_testkit::aca::{AcaEmulator, Log, Options, PRINCIPAL, SWITCHES};
    use serde_json::{Value, json};
    use tokio::signal::unix::{SignalKind, signal};

    const AFTER: &str = "\
It prints one line of JSON: endpoint, token, armToken, identityEndpoint, subscription,
resourceGroup, sandboxGroup, pythonPool, shellPool, caFile, registry, principal; then it serves until SIGINT or SIGTERM.

With a COMMAND it prints nothing, and ends with it and with its exit code. The command has that line
in ACA_EMULATOR, the settings of this project's client (SANDBOX_PROVIDER, SANDBOX_ACA_…; the pool is
of the kind that SANDBOX_ACA_POOL_KIND says), and IDENTITY_ENDPOINT; with --tls also
REQUESTS_CA_BUNDLE and SSL_CERT_FILE.

Clients take the certificate by REQUESTS_CA_BUNDLE or SSL_CERT_FILE. A managed identity is at
identityEndpoint (IDENTITY_ENDPOINT; any IDENTITY_HEADER). With --tls the endpoint is an
AZURE_AUTHORITY_HOST too: any client gets tokens there for any secret or assertion. As a proxy
(http_proxy) it answers for a machine's metadata service. The management plane is at the same
endpoint, with armToken. The URL of a port leads to the program that listens in the sandbox.

While it runs, without a token:
  GET    /.emulator/                 what it is and has
  POST   /.emulator/clock            {\"advanceSeconds\": 3600}
  POST   /.emulator/switches         {\"forbidden\": true, \"gateway\": 2000}: any switch above
  POST   /.emulator/faults           {\"on\": \"/executeShellCommand\", \"action\": \"drop-after\"}
  DELETE /.emulator/faults
  GET    /.emulator/executions?contains=TEXT    how many commands were run
  GET    /.emulator/requests?contains=TEXT      how many requests came
  POST   /.emulator/token            {\"audience\": \"https://…\", \"seconds\": -1}
  DELETE /.emulator/sandboxes/ID     as if it had never been

Actions of faults: status and status-after (with \"status\", \"retryAfter\"), drop-before,
drop-after, garbage, cut-stream (with \"frames\").";

    pub(super) fn main() -> ExitCode {
        let matches = match command().try_get_matches() {
            Ok(matches) => matches,
            Err(error) => {
                // Where it prints to may be closed.
                let _ = error.print();
                return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
            }
        };
        let options = match options(&matches) {
            Ok(options) => options,
            Err(why) => return fail(&format!("{why}; see --help")),
        };
        let command = matches.get_many::<OsString>("command");
        let command: Vec<OsString> = command.into_iter().flatten().cloned().collect();
        match tokio::runtime::Runtime::new() {
            Ok(runtime) => runtime.block_on(run(options, command)),
            Err(error) => fail(&error.to_string()),
        }
    }

    fn command() -> Command {
        let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
        let mut command = Command::new("aca-emulator")
            .about("Azure Container Apps on this machine: test against it without Azure")
            .version(env!("CARGO_PKG_VERSION"))
            .after_help(AFTER)
            .arg(
                Arg::new("listen")
                    .long("listen")
                    .value_name("ADDRESS:PORT")
                    .default_value("127.0.0.1:0")
                    .value_parser(value_parser!(SocketAddr))
                    .help("where to listen; port 0 is any that is free"),
            )
            .arg(flag("tls").help("speak https with a certificate of its own making"))
            .arg(
                Arg::new("ca-file")
                    .long("ca-file")
                    .value_name("FILE")
                    .value_parser(value_parser!(PathBuf))
                    .help("write the authority's certificate there (with --tls)"),
            )
            .arg(
                Arg::new("audience")
                    .long("audience")
                    .value_name("URL")
                    .action(ArgAction::Append)
                    .help("accept tokens for this audience too"),
            )
            .arg(
                flag("allow-network")
                    .help("let sandboxes whose egress policy allows it reach the network"),
            )
            .arg(flag("registry").help(
                "have a registry too, with the service's exchange of tokens; its images are run",
            ))
            .arg(
                Arg::new("log")
                    .long("log")
                    .value_name("FILE")
                    .help("log every request there; - is standard error"),
            );
        command = command.arg(
            Arg::new("command")
                .value_name("COMMAND")
                .num_args(1..)
                .last(true)
                .value_parser(value_parser!(OsString))
                .help("run this against it, and end with it"),
        );
        for switch in SWITCHES {
            let arg = Arg::new(switch.name)
                .long(switch.name)
                .help(switch.help)
                .help_heading("Quirks, also while it runs");
            command = command.arg(match switch.value_name() {
                Some(name) => arg.value_name(name),
                None => arg.action(ArgAction::SetTrue),
            });
        }
        command
    }

    fn options(matches: &ArgMatches) -> Result<Options, String> {
        let mut options = Options::default();
        if let Some(listen) = matches.get_one::<SocketAddr>("listen") {
            options.listen = *listen;
        }
        options.tls = matches.get_flag("tls");
        options.certificate = matches.get_one::<PathBuf>("ca-file").cloned();
        options.registry = matches.get_flag("registry");
        options.allow_network = matches.get_flag("allow-network");
        let audiences = matches.get_many::<String>("audience");
        options
            .audiences
            .extend(audiences.into_iter().flatten().cloned());
        options.log = match matches.get_one::<String>("log").map(String::as_str) {
            None => Log::Off,
            Some("-") => Log::Stderr,
            Some(file) => Log::File(file.into()),
        };
        for switch in SWITCHES {
            match switch.value_name() {
                None if matches.get_flag(switch.name) => switch.set_word(&mut options, None)?,
                None => {}
                Some(_) => {
                    if let Some(word) = matches.get_one::<String>(switch.name) {
                        switch.set_word(&mut options, Some(word))?;
                    }
                }
            }
        }
        Ok(options)
    }

    async fn run(options: Options, command: Vec<OsString>) -> ExitCode {
        let ends = (
            signal(SignalKind::interrupt()),
            signal(SignalKind::terminate()),
        );
        let (Ok(mut interrupt), Ok(mut terminate)) = ends else {
            return fail("signals can't be caught");
        };
        let emulator = match AcaEmulator::start(options).await {
            Ok(emulator) => emulator,
            Err(error) => return fail(&error.to_string()),
        };
        let line = describe(&emulator);
        let work = async {
            match command.is_empty() {
                false => client(&emulator, &line, &command).await,
                true if writeln!(std::io::stdout(), "{line}").is_err() => {
                    fail("nobody reads the line that says where it is")
                }
                true => std::future::pending().await,
            }
        };
        let code = tokio::select! {
            code = work => code,
            _ = interrupt.recv() => ExitCode::SUCCESS,
            _ = terminate.recv() => ExitCode::SUCCESS,
        };
        emulator.close().await;
        code
    }

    fn describe(emulator: &AcaEmulator) -> Value {
        const RESOURCES: &str = "/subscriptions/00000000-0000-0000-0000-000000000000\
            /resourceGroups/emulator";
        let endpoint = emulator.endpoint();
        json!({
            "endpoint": endpoint,
            "token": emulator.token(),
            "armToken": emulator.arm_token(),
            "identityEndpoint": emulator.identity_endpoint(),
            "subscription": "00000000-0000-0000-0000-000000000000",
            "resourceGroup": "emulator",
            "sandboxGroup": "emulator",
            "pythonPool": format!("{endpoint}{RESOURCES}/sessionPools/python"),
            "shellPool": format!("{endpoint}{RESOURCES}/sessionPools/shell"),
            "caFile": emulator.ca_file(),
            "registry": emulator.registry(),
            "principal": PRINCIPAL,
        })
    }

    /// Runs a command with all it needs in its environment, and gives its exit code.
    async fn client(emulator: &AcaEmulator, line: &Value, command: &[OsString]) -> ExitCode {
        let mut child = tokio::process::Command::new(&command[0]);
        child.args(&command[1..]).kill_on_drop(true);
        child.env("ACA_EMULATOR", line.to_string());
        // Of the kind that the command is told to expect.
        let kind = std::env::var("SANDBOX_ACA_POOL_KIND");
        let pool = match kind.as_deref() {
            Ok("shell") => "shellPool",
            _ => "pythonPool",
        };
        for (variable, key) in [
            ("SANDBOX_ACA_ENDPOINT", "endpoint"),
            ("SANDBOX_ACA_TOKEN", "token"),
            ("SANDBOX_ACA_SUBSCRIPTION", "subscription"),
            ("SANDBOX_ACA_RESOURCE_GROUP", "resourceGroup"),
            ("SANDBOX_ACA_GROUP", "sandboxGroup"),
            ("SANDBOX_ACA_POOL_ENDPOINT", pool),
            ("IDENTITY_ENDPOINT", "identityEndpoint"),
        ] {
            child.env(variable, line[key].as_str().unwrap_or_default());
        }
        child.env("IDENTITY_HEADER", "emulator");
        // A command that says which of both it wants is not overruled.
        if std::env::var_os("SANDBOX_PROVIDER").is_none() {
            child.env("SANDBOX_PROVIDER", "aca-sandboxes:");
        }
        if let Some(file) = emulator.ca_file() {
            for variable in ["SANDBOX_ACA_CA_FILE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"] {
                child.env(variable, file);
            }
        }
        let ended = match child.spawn() {
            Ok(mut child) => child.wait().await,
            Err(error) => Err(error),
        };
        match ended {
            // Killed by a signal: what a shell says then.
            Ok(status) => {
                let code = status.code();
                let code = code.or(status.signal().map(|signal| 128 + signal));
                ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
            }
            Err(error) => {
                let program = command[0].to_string_lossy();
                fail(&format!("{program} can't be run: {error}"))
            }
        }
    }

    fn fail(text: &str) -> ExitCode {
        // Nowhere is left to tell if standard error is closed.
        let _ = writeln!(std::io::stderr(), "aca-emulator: {text}");
        ExitCode::FAILURE
    }
}
