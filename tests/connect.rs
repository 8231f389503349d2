//! Choosing a provider: what is taken, what is refused, and what is said about it.
#![cfg(feature = "local")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use sandbox::{
    Connector, Error, ErrorKind, Operation, Provider, Registry, Result, Settings, async_trait,
    connect, connect_chain,
};
use sandbox_testkit::model::ModelProvider;

#[tokio::test]
async fn an_unknown_scheme_lists_those_that_are_known() {
    let error = connect("docker:").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let said = error.to_string();
    for word in ["unknown scheme \"docker\"", "local:", "local-plain:"] {
        assert!(said.contains(word), "{error}");
    }
}

/// A backend that this crate knows nothing about.
struct Stranger(ModelProvider);

#[async_trait]
impl Connector for Stranger {
    fn settings(&self) -> &[&str] {
        &["region"]
    }

    async fn connect(&self, settings: Settings) -> Result<Arc<dyn Provider>> {
        match settings.value("region") {
            Some("nowhere") => Err(settings.invalid("region must be a real one")),
            _ => Ok(Arc::new(self.0.clone())),
        }
    }
}

fn with_stranger() -> Result<Registry> {
    let stranger = Stranger(ModelProvider::new());
    Registry::built_in().register("stranger", stranger)
}

#[tokio::test]
async fn an_application_adds_a_scheme() {
    let registry = with_stranger().unwrap();
    assert!(registry.schemes().any(|scheme| scheme == "stranger"));
    let provider = registry.connect("stranger:?region=eu").await.unwrap();
    assert_eq!(provider.backend(), "model");
    let chain = "local-plain:?base_dir=/no/such/dir, stranger:";
    let selection = registry.connect_chain(chain).await.unwrap();
    assert_eq!(selection.uri, "stranger:");
    // The others are there still, and this one is in no other registry.
    registry.connect("local-plain:").await.unwrap();
    assert!(connect("stranger:").await.is_err());
}

#[tokio::test]
async fn settings_of_an_added_scheme_are_checked() {
    let registry = with_stranger().unwrap();
    let unknown = registry.connect("stranger:?zone=1").await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::InvalidInput);
    for word in ["\"zone\"", "region"] {
        assert!(unknown.to_string().contains(word), "{unknown}");
    }
    let wrong = registry.connect("stranger:?region=nowhere").await;
    let wrong = wrong.unwrap_err();
    assert!(wrong.to_string().contains("stranger:?region"), "{wrong}");
}

#[test]
fn a_scheme_can_be_taken_once() {
    let stranger = || Stranger(ModelProvider::new());
    // Also one whose backend this build may lack.
    for taken in ["local", "dagger", "aca-sessions", "stranger"] {
        let again = with_stranger().unwrap().register(taken, stranger());
        let error = again.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{taken}");
        assert!(error.to_string().contains(taken), "{error}");
    }
    Registry::empty().register("local", stranger()).unwrap();
}

#[test]
fn a_scheme_that_no_uri_could_name_is_refused() {
    for scheme in ["", "Mine", "my:", "my scheme", "1st", "-x", "ü"] {
        let error = Registry::empty()
            .register(scheme, Stranger(ModelProvider::new()))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{scheme:?}");
    }
}

#[tokio::test]
async fn an_unknown_setting_lists_those_that_there_are() {
    for (uri, known) in [
        ("local:?root=/x", "state_dir"),
        ("local-plain:?state_dir=/x", "base_dir"),
    ] {
        let error = connect(uri).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{uri}");
        assert!(error.to_string().contains(known), "{error}");
    }
}

#[tokio::test]
async fn a_chain_takes_the_first_that_works_and_says_why_not_the_others() {
    let chain = "local-plain:?base_dir=/no/such/dir, local-plain:";
    let selection = connect_chain(chain).await.unwrap();
    assert_eq!(selection.uri, "local-plain:");
    let (uri, error) = &selection.rejected[0];
    assert!(uri.contains("/no/such/dir"));
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_chain_of_which_none_works_names_all_reasons() {
    let chain = "local-plain:?base_dir=/no/a,local-plain:?base_dir=/no/b";
    let error = connect_chain(chain).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("/no/a") && error.to_string().contains("/no/b"));
}

#[tokio::test]
async fn a_mistake_anywhere_in_a_chain_is_told() {
    for chain in [
        "local-plain:,docker:",
        "local-plain:,",
        "",
        "local-plain:,local:?x=y",
    ] {
        let error = connect_chain(chain).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{chain}");
    }
}

/// A backend that counts how often it is reached.
struct Untouched(Arc<AtomicUsize>);

#[async_trait]
impl Connector for Untouched {
    async fn connect(&self, _: Settings) -> Result<Arc<dyn Provider>> {
        self.0.fetch_add(1, Relaxed);
        Err(Error::new(ErrorKind::InvalidInput, Operation::Create))
    }
}

#[tokio::test]
async fn nothing_behind_the_one_that_works_is_connected_to() {
    let reached = Arc::new(AtomicUsize::new(0));
    let engine = Untouched(reached.clone());
    let registry = Registry::built_in().register("engine", engine).unwrap();
    let chain = "local-plain:,engine:";
    let selection = registry.connect_chain(chain).await.unwrap();
    assert_eq!(selection.uri, "local-plain:");
    // A mistake is told before anything is.
    let error = registry.connect_chain("engine:,engine:?x=y").await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(reached.load(Relaxed), 0);
}

/// Sandboxes behind a server, by URI.
#[cfg(feature = "remote")]
#[tokio::test]
async fn an_address_is_for_schemes_that_take_one_and_a_token_is_not_sent_in_the_clear() {
    for (uri, said) in [
        ("remote:", "address is missing"),
        ("remote:?keep=yes", "address is missing"),
        ("remote:http://sandbox.example", "token"),
        ("remote:unix:relative", "absolute"),
        (
            "remote:https://me:s3cret@sandbox.example",
            "name or password",
        ),
        ("remote:unix:/no/such/socket?keep=maybe", "yes or no"),
        ("remote:unix:/no/such/socket?token=x", "token_file"),
        ("local:https://sandbox.example", "only settings"),
    ] {
        let error = connect(uri).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{uri}: {error}");
        assert!(error.to_string().contains(said), "{uri}: {error}");
    }
    let error = connect("remote:unix:/no/such/socket").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

/// Azure Container Apps by URI. What is not in the URI comes from the environment, so that the test
/// program starts itself with one that has nothing.
#[cfg(feature = "aca")]
mod aca {
    use sandbox::{ErrorKind, connect};

    #[tokio::test]
    async fn what_can_not_be_a_setting_is_refused() {
        for (uri, known) in [
            ("aca-sandboxes:?region=x", "resource_group"),
            ("aca-sessions:?group=x", "kind"),
            ("aca-sessions:?endpoint=x&kind=ruby", "python or shell"),
            ("aca-sessions:?keep_alive=soon", "seconds"),
            ("aca-sandboxes:?keep_alive=0", "seconds"),
        ] {
            let error = connect(uri).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{uri}: {error}");
            assert!(error.to_string().contains(known), "{uri}: {error}");
        }
    }

    #[tokio::test]
    #[ignore = "started by another test"]
    #[allow(clippy::print_stdout)]
    async fn without_settings() {
        for uri in ["aca-sandboxes:", "aca-sessions:"] {
            let error = connect(uri).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{uri}: {error}");
            println!("{error}");
        }
    }

    #[tokio::test]
    #[ignore = "started by another test"]
    async fn with_the_variable_of_others() {
        let provider = connect("aca-sessions:").await.unwrap();
        assert_eq!(provider.backend(), "aca-sessions");
        // A configuration file need not repeat it.
        #[cfg(feature = "config")]
        {
            let config = sandbox::config::Config::parse("provider = 'aca-sessions:'").unwrap();
            let registry = sandbox::Registry::built_in();
            let selection = config.connect(&registry).await.unwrap();
            assert_eq!(selection.provider.backend(), "aca-sessions");
        }
    }

    #[test]
    fn the_variable_that_other_clients_take_is_understood() {
        let this = |variables: &[(&str, &str)]| {
            let mut this = std::process::Command::new(std::env::current_exe().unwrap());
            this.args(["--exact", "aca::with_the_variable_of_others", "--ignored"]);
            this.env_clear().envs(variables.iter().copied());
            this.output().unwrap().status.success()
        };
        let pool =
            "https://eastasia.dynamicsessions.io/subscriptions/s/resourceGroups/g/sessionPools/p";
        assert!(this(&[("ACA_POOL_MANAGEMENT_ENDPOINT", pool)]));
        assert!(this(&[
            ("ACA_POOL_MANAGEMENT_ENDPOINT", "not an endpoint"),
            ("SANDBOX_ACA_POOL_ENDPOINT", pool),
        ]));
        assert!(!this(&[]));
    }

    #[test]
    fn without_settings_each_is_named_with_where_to_find_it() {
        let mut this = std::process::Command::new(std::env::current_exe().unwrap());
        this.args([
            "--exact",
            "aca::without_settings",
            "--ignored",
            "--nocapture",
        ]);
        let output = this.env_clear().output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}");
        for word in [
            "SANDBOX_ACA_ENDPOINT",
            "SANDBOX_ACA_SUBSCRIPTION",
            "az account show",
            "SANDBOX_ACA_RESOURCE_GROUP",
            "SANDBOX_ACA_GROUP",
            "SANDBOX_ACA_POOL_ENDPOINT",
            "az containerapp sessionpool show",
            "emulator",
        ] {
            assert!(said.contains(word), "no {word:?} in: {said}");
        }
    }
}

#[cfg(feature = "dagger")]
#[tokio::test]
async fn a_dagger_uri_says_what_is_wrong_with_it_before_it_connects() {
    for (uri, said) in [
        ("local:", "not a dagger: URI"),
        ("dagger:?images=x", "unknown setting"),
        ("dagger:?cache=key", "KEY:/PATH"),
        ("dagger:?cache=key:/a;:/b", "KEY:/PATH"),
        ("dagger:?login=acme@ghcr.io", "USER@REGISTRY=/FILE"),
        ("dagger:?login=acme@ghcr.io=/no/such/file", "no such file"),
        (
            "dagger:?login=@ghcr.io=/no/such/file",
            "USER@REGISTRY=/FILE",
        ),
    ] {
        let error = sandbox::dagger::connect(uri).await.unwrap_err();
        assert!(error.to_string().contains(said), "{uri}: {error}");
        if uri.starts_with("dagger:") {
            let error = connect(uri).await.unwrap_err();
            assert!(error.to_string().contains(said), "{uri}: {error}");
        }
    }
}
