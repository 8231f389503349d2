//! Values come from TOML and JSON and go back as they were; a secret never does.
#![cfg(feature = "serde")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::time::Duration;

use sandbox_core::{
    Access, Capabilities, Capability, Command, Control, EgressLimits, EgressPolicy, EgressRule,
    Enforcement, Env, EnvValue, ErrorKind, ExitStatus, ExportOptions, GuestPath, ImportOptions,
    IsolationReport, Mount, Network, Operation, RequiredIsolation, Resources, SandboxSpec, Source,
    Support,
};

const SPEC: &str = r#"
workdir = "/work"
network = "open"
ttl = 90
command-timeout = 1.5

[source]
image = "docker.io/library/alpine:3"

[env]
LANG = "C.UTF-8"
TOKEN = { secret = "t0p" }
DEBUG = { unset = true }

[resources]
memory = 536870912
cpus = 1.5

[isolation]
only = ["filesystem", "system-calls"]

[[mounts]]
host = "/data"
guest = "/mnt/data"
access = "read-only"

[labels]
tenant = "acme"
"#;

fn expected() -> SandboxSpec {
    let mut spec = SandboxSpec::new()
        .workdir("/work")
        .network(Network::Open)
        .ttl(Duration::from_secs(90))
        .command_timeout(Duration::from_millis(1500))
        .source(Source::Image("docker.io/library/alpine:3".into()))
        .env("LANG", "C.UTF-8")
        .secret("TOKEN", "t0p")
        .resources(Resources::new().memory(512 << 20).cpus(1.5))
        .isolation(RequiredIsolation::Only(vec![
            Control::Filesystem,
            Control::SystemCalls,
        ]))
        .mount(Mount::read_only("/data", "/mnt/data"))
        .label("tenant", "acme");
    spec.env = spec.env.unset("DEBUG");
    spec
}

/// Compares specs; the variables by name, since a text may give them in another order.
fn assert_same(mut got: SandboxSpec, mut want: SandboxSpec) {
    fn variables(env: &Env) -> BTreeMap<&[u8], Option<&EnvValue>> {
        env.iter().collect()
    }
    assert_eq!(variables(&got.env), variables(&want.env));
    got.env = Env::new();
    want.env = Env::new();
    assert_eq!(got, want);
}

#[test]
fn a_spec_comes_from_toml() {
    let spec: SandboxSpec = toml::from_str(SPEC).unwrap();
    assert_eq!(spec.mounts[0].access, Access::ReadOnly);
    assert_same(spec, expected());
    let empty: SandboxSpec = toml::from_str("").unwrap();
    assert_eq!(empty, SandboxSpec::new());
}

#[test]
fn a_spec_goes_to_text_and_comes_back() {
    let mut spec = expected();
    spec.env = Env::new().set("LANG", "C.UTF-8").unset("DEBUG");
    let text = toml::to_string(&spec).unwrap();
    assert_same(toml::from_str(&text).unwrap(), spec.clone());
    let text = serde_json::to_string(&spec).unwrap();
    assert!(text.contains(r#""command-timeout":1.5"#), "{text}");
    assert_same(serde_json::from_str(&text).unwrap(), spec);
}

#[test]
fn a_secret_is_never_written() {
    let error = serde_json::to_string(&expected()).unwrap_err().to_string();
    assert!(error.contains("TOKEN"), "{error}");
    assert!(!error.contains("t0p"), "{error}");
    let error = toml::to_string(&expected()).unwrap_err().to_string();
    assert!(!error.contains("t0p"), "{error}");
}

#[test]
fn a_mistyped_secret_is_not_in_the_error() {
    for text in [r#"{"TOKEN": {"secrt": "t0p"}}"#, r#"{"TOKEN": ["t0p"]}"#] {
        let error = serde_json::from_str::<Env>(text).unwrap_err().to_string();
        assert!(!error.contains("t0p"), "{error}");
    }
}

#[test]
fn an_unknown_field_is_refused() {
    assert!(toml::from_str::<SandboxSpec>("netwrok = \"open\"").is_err());
    assert!(toml::from_str::<SandboxSpec>("[resources]\nmem = 1").is_err());
    assert!(serde_json::from_str::<ExportOptions>(r#"{"max_bytes": 1}"#).is_err());
    assert!(serde_json::from_str::<Command>(r#"{"argv": ["a"], "cwdd": "/"}"#).is_err());
}

#[test]
fn a_command_comes_from_json_and_goes_back() {
    let text = r#"{"argv": ["printf", "%s", [255, 0]], "stdin": {"bytes": "hello"}, "timeout": 2}"#;
    let command: Command = serde_json::from_str(text).unwrap();
    assert_eq!(command.argv()[2], [255, 0]);
    assert_eq!(command.timeout, Some(Duration::from_secs(2)));
    assert_eq!(command.stdout_limit, sandbox_core::DEFAULT_OUTPUT_LIMIT);
    let again: Command = serde_json::from_str(&serde_json::to_string(&command).unwrap()).unwrap();
    assert_eq!(again.argv(), command.argv());
    assert!(serde_json::from_str::<Command>(r#"{"argv": []}"#).is_err());
}

#[test]
fn options_have_defaults() {
    let options: ImportOptions = toml::from_str("mirror = true").unwrap();
    assert!(options.mirror && !options.ignore_files);
    let options: ExportOptions = toml::from_str("existing = \"replace\"").unwrap();
    assert_eq!(options.max_entries, ExportOptions::new().max_entries);
}

#[test]
fn names_are_those_of_display() {
    for capability in Capability::ALL {
        let json = serde_json::to_value(capability).unwrap();
        assert_eq!(json, capability.to_string());
    }
    for control in Control::ALL {
        assert_eq!(serde_json::to_value(control).unwrap(), control.to_string());
    }
    let operation = Operation::WriteFiles;
    let json = serde_json::to_value(operation).unwrap();
    assert_eq!(json, operation.to_string());
    let json = serde_json::to_value(ErrorKind::CommandNotFound).unwrap();
    assert_eq!(json, "command-not-found");
    let json = serde_json::to_value(ExitStatus::Code(3)).unwrap();
    assert_eq!(json, serde_json::json!({"code": 3}));
}

#[test]
fn reports_go_there_and_back() {
    let report = IsolationReport::new()
        .with(Control::Network, Enforcement::enforced("a namespace"))
        .with(Control::Disk, Enforcement::absent("an old kernel"));
    let text = serde_json::to_string(&report).unwrap();
    let again: IsolationReport = serde_json::from_str(&text).unwrap();
    assert_eq!(again, report);

    let capabilities = Capabilities::none("a toy")
        .with_each(Capability::ALL)
        .without(Capability::Mounts, "in memory")
        .partial(Capability::Fork, "slow");
    let text = serde_json::to_string(&capabilities).unwrap();
    let again: Capabilities = serde_json::from_str(&text).unwrap();
    assert_eq!(again, capabilities);
    // What a text does not name is not claimed.
    let none: Capabilities = serde_json::from_str("{}").unwrap();
    assert!(Capability::ALL.iter().all(|one| !none.has(*one)));
    assert!(matches!(none.support(Capability::Exec), Support::None(_)));
}

#[test]
fn paths_that_are_not_utf_8_go_there_and_back() {
    let path = GuestPath::new(b"a\xff".as_slice());
    let text = serde_json::to_string(&path).unwrap();
    assert_eq!(text, "[97,255]");
    assert_eq!(serde_json::from_str::<GuestPath>(&text).unwrap(), path);
}

#[test]
fn an_egress_policy_comes_from_toml_and_its_secrets_are_never_written() {
    let text = r#"
        [[rules]]
        host = { exact = "llm.internal" }
        protocol = "http"
        upstream = "api.example.com"
        headers = [{ name = "x-api-key", value = "t0p" }]

        [[rules]]
        host = { apex-and-subdomains = "crates.io" }

        [limits]
        bytes = 1000
    "#;
    let policy: EgressPolicy = toml::from_str(text).unwrap();
    let upstream = EgressRule::exact("llm.internal").upstream("api.example.com");
    let want = EgressPolicy::new()
        .rule(upstream.header("x-api-key", "t0p"))
        .rule(EgressRule::apex_and_subdomains("crates.io"))
        .limits(EgressLimits::new().bytes(1000));
    assert_eq!(policy, want);
    let error = serde_json::to_string(&policy).unwrap_err().to_string();
    assert!(
        error.contains("x-api-key") && !error.contains("t0p"),
        "{error}"
    );
    let plain = EgressPolicy::new().rule(EgressRule::subdomains("crates.io").port(8443));
    let spec = SandboxSpec::new().network(Network::Allow(plain));
    for text in [
        toml::to_string(&spec).unwrap(),
        serde_json::to_string(&spec).unwrap(),
    ] {
        assert!(text.contains("subdomains"), "{text}");
    }
    let text = serde_json::to_string(&spec).unwrap();
    assert_same(serde_json::from_str(&text).unwrap(), spec);
    let wrong = r#"{"rules":[{"host":{"exact":"a.test"},"headers":[{"name":"x","value":4711}]}]}"#;
    let error = serde_json::from_str::<EgressPolicy>(wrong)
        .unwrap_err()
        .to_string();
    assert!(!error.contains("4711"), "{error}");
}
