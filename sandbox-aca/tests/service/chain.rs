//! The default chain of credentials through the real `azure_identity`, against the emulator's token
//! endpoints: who gives a token, how often it is asked for, what is said when there is none.
//!
//! What the chain reads is the environment, so that the test program starts itself with another
//! one.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use sandbox_aca::{AcaSandboxProvider, DefaultCredential};
use sandbox_core::Provider as _;
use sandbox_testkit::aca::{AcaEmulator, Options};

use super::config;

const SECRET: &str = "do-not-show";
/// Path at which Entra is asked.
const ENTRA: &str = "/tenant/oauth2/v2.0/token";
const IMDS: &str = "/metadata/identity/oauth2/token";

/// Not a test of its own: lists what `STEPS` says, with hours between that pass for the service.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by other tests"]
async fn lists_with_the_default_credential() {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let endpoint = variable("ENDPOINT");
    let mut config = config(&endpoint);
    if let Ok(file) = std::env::var("SSL_CERT_FILE") {
        config = config.ca_file(file);
    }
    let credential = Arc::new(DefaultCredential::new());
    let provider = AcaSandboxProvider::new(config.credential(credential)).expect("a provider");
    for step in variable("STEPS").split(' ') {
        match step {
            "list" => match provider.list(&Default::default()).await {
                Ok(all) => println!("LISTED {}", all.len()),
                Err(error) => println!("ERROR {:?} {error}", error.kind()),
            },
            _ => advance(&endpoint).await,
        }
    }
}

/// Lets an hour and more pass for the service, but not here.
async fn advance(endpoint: &str) {
    let file = std::env::var("SSL_CERT_FILE").expect("a certificate");
    let certificate = std::fs::read(file).expect("a certificate");
    let certificate = reqwest::Certificate::from_pem(&certificate).expect("a certificate");
    let client = reqwest::Client::builder()
        .tls_certs_only([certificate])
        .build();
    let sent = client
        .expect("a client")
        .post(format!("{endpoint}/.emulator/clock"))
        .body(r#"{"advanceSeconds": 3700}"#)
        .send();
    assert!(sent.await.expect("an answer").status().is_success());
}

/// Does these steps with these variables, and none that means anything beside.
async fn run(emulator: &AcaEmulator, steps: &str, variables: &[(&str, &str)]) -> String {
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command
        .args(["--exact", "chain::lists_with_the_default_credential"])
        .args(["--ignored", "--nocapture"])
        .env_clear()
        .env("PATH", "/nowhere")
        .env("ENDPOINT", emulator.endpoint())
        .env("STEPS", steps)
        .envs(variables.iter().copied());
    if let Some(file) = emulator.ca_file() {
        // What the Azure SDK trusts, and where it looks for Entra.
        command.env("SSL_CERT_FILE", file);
        command.env("AZURE_AUTHORITY_HOST", emulator.endpoint());
    }
    let ran = tokio::task::spawn_blocking(move || command.output()).await;
    let Output {
        status,
        stdout,
        stderr,
    } = ran.expect("it ran").expect("it runs");
    let said = String::from_utf8_lossy(&stdout).into_owned();
    let other = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{said}{other}");
    assert!(
        !said.contains(SECRET) && !other.contains(SECRET),
        "a secret is shown: {said}{other}"
    );
    said
}

async fn emulator(tls: bool, how: impl FnOnce(&mut Options)) -> AcaEmulator {
    let mut options = Options::default();
    options.tls = tls;
    how(&mut options);
    AcaEmulator::start(options).await.expect("an emulator")
}

const CLIENT: [(&str, &str); 3] = [
    ("AZURE_TENANT_ID", "tenant"),
    ("AZURE_CLIENT_ID", "client"),
    ("AZURE_CLIENT_SECRET", SECRET),
];

fn listed(said: &str) -> usize {
    said.matches("LISTED ").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_secret_gives_a_token_that_is_asked_for_once() {
    let emulator = emulator(true, |_| {}).await;
    let said = run(&emulator, "list list list", &CLIENT).await;
    assert_eq!(listed(&said), 3, "{said}");
    assert_eq!(emulator.requests(ENTRA), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_identity_gives_a_token_that_is_asked_for_once() {
    let emulator = emulator(true, |_| {}).await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("token");
    std::fs::write(&file, SECRET).expect("a file");
    let said = run(&emulator, "list list", &federated(&file)).await;
    assert_eq!(listed(&said), 2, "{said}");
    assert_eq!(emulator.requests(ENTRA), 1);
}

fn federated(file: &Path) -> [(&'static str, &str); 3] {
    [
        ("AZURE_TENANT_ID", "tenant"),
        ("AZURE_CLIENT_ID", "client"),
        ("AZURE_FEDERATED_TOKEN_FILE", file.to_str().expect("UTF-8")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_service_of_a_machine_gives_a_token_that_is_asked_for_once() {
    let mut said = String::new();
    // A machine may be too slow for the probe's three seconds, but not each time.
    for _ in 0..5 {
        let emulator = emulator(false, |_| {}).await;
        // Its address is fixed; a proxy leads to where it is played.
        let endpoint = emulator.endpoint();
        let machine = [("http_proxy", endpoint.as_str()), ("no_proxy", "127.0.0.1")];
        said = run(&emulator, "list list", &machine).await;
        if !said.contains("no answer in 3s") {
            assert_eq!(listed(&said), 2, "{said}");
            assert_eq!(emulator.requests(IMDS), 1);
            return;
        }
    }
    panic!("{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metadata_service_that_never_answers_is_given_up_on() {
    let emulator = emulator(false, |_| {}).await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = (
        format!("http://{}", silent.local_addr().expect("an address")),
        silent,
    );
    let machine = [("http_proxy", silent.0.as_str()), ("no_proxy", "127.0.0.1")];
    let said = run(&emulator, "list", &machine).await;
    assert!(said.contains("ERROR Unauthenticated"), "{said}");
    assert!(said.contains("managed identity: no answer in 3s"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_about_to_end_is_asked_for_anew() {
    let minute = Duration::from_secs(60);
    let emulator = emulator(true, |options| options.token_life = minute).await;
    let said = run(&emulator, "list list list", &CLIENT).await;
    assert_eq!(listed(&said), 3, "{said}");
    assert_eq!(emulator.requests(ENTRA), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_refused_is_asked_for_anew_and_once() {
    // Here the token is good for another hour: by the clock of the service it has ended.
    let emulator = emulator(true, |_| {}).await;
    let said = run(&emulator, "list advance list list", &CLIENT).await;
    assert_eq!(listed(&said), 3, "{said}");
    assert_eq!(emulator.requests(ENTRA), 2);
    // And one that never was good is not asked for without end.
    emulator.change(|options| options.audiences = vec!["https://elsewhere".into()]);
    let said = run(&emulator, "list", &CLIENT).await;
    assert!(said.contains("ERROR Unauthenticated"), "{said}");
    assert!(said.contains("az account get-access-token"), "{said}");
    assert_eq!(emulator.requests(ENTRA), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_that_works_is_asked_from_then_on() {
    let hasty = |options: &mut Options| {
        options.refuse_clients = true;
        options.token_life = Duration::from_secs(60);
    };
    let emulator = emulator(true, hasty).await;
    let identity = emulator.identity_endpoint();
    let mut variables = CLIENT.to_vec();
    variables.extend([
        ("IDENTITY_ENDPOINT", identity.as_str()),
        ("IDENTITY_HEADER", "h"),
    ]);
    let said = run(&emulator, "list list list", &variables).await;
    assert_eq!(listed(&said), 3, "{said}");
    assert_eq!(
        emulator.requests("/msi/token"),
        3,
        "it is about to end each time"
    );
    assert_eq!(
        emulator.requests(ENTRA),
        1,
        "asked again though it gave none"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_entra_stands_among_what_the_others_lack() {
    let refusing = |options: &mut Options| options.refuse_clients = true;
    let emulator = emulator(true, refusing).await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("token");
    std::fs::write(&file, SECRET).expect("a file");
    let mut variables = CLIENT.to_vec();
    variables.push(federated(&file)[2]);
    // Without a listener: no machine of Azure.
    variables.extend([
        ("http_proxy", "http://127.0.0.1:1"),
        ("no_proxy", "127.0.0.1"),
    ]);
    let said = run(&emulator, "list", &variables).await;
    assert!(said.contains("ERROR Unauthenticated"), "{said}");
    for part in [
        "AADSTS7000215",
        "AADSTS700213",
        "client secret: ",
        "workload identity: ",
        "managed identity: ",
        "developer tools: ",
        "az login --scope https://dynamicsessions.io/.default",
    ] {
        assert!(said.contains(part), "no {part:?} in: {said}");
    }
}
