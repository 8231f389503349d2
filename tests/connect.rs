//! Choosing a provider: what is taken, what is refused, and what is said about it.
#![cfg(feature = "local")]

use sandbox::{ErrorKind, connect, connect_chain};

#[tokio::test]
async fn an_unknown_scheme_lists_those_that_there_are() {
    let error = connect("docker:").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    for word in ["\"docker\"", "local:", "local-plain:"] {
        assert!(error.to_string().contains(word), "{error}");
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
