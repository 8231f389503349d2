//! Tests that need a real engine, beyond the conformance kit.
//!
//! `SANDBOX_REQUIRE=dagger` says that there is an engine: then every test runs, and one that finds
//! none fails. Otherwise each is listed as ignored with the reason. Further variables:
//!
//! - `SANDBOX_DAGGER_IMAGE`: an image for engines that can't pull the default.
//! - `SANDBOX_DAGGER_REGISTRY`: a repository, such as `127.0.0.1:5001/acme`, that the engine reaches
//!   and that lets only `SANDBOX_DAGGER_LOGIN` in (`user:password`).
//! - `SANDBOX_DAGGER_COST`: set, it has operations measured beside raw queries (`--nocapture`).
//! - `SANDBOX_DAGGER_STOP`, `SANDBOX_DAGGER_START`, `SANDBOX_DAGGER_FILL`: see `ends.rs`.
//! - `SANDBOX_DAGGER_RESTART`: a program that restarts the engine and returns when it answers.

#[cfg(target_os = "linux")]
mod cost;
#[cfg(target_os = "linux")]
mod ends;
#[cfg(target_os = "linux")]
mod lasting;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod running;
#[cfg(target_os = "linux")]
mod sources;
#[cfg(target_os = "linux")]
#[path = "../support/mod.rs"]
mod support;

#[cfg(target_os = "linux")]
use {
    libtest_mimic::{Arguments, Trial},
    sandbox_dagger::DaggerConfig,
    std::process::ExitCode,
    support::Outcome,
};

/// A configuration that finds the engine of the environment.
#[cfg(target_os = "linux")]
fn config() -> DaggerConfig {
    let config = DaggerConfig::default();
    match std::env::var("SANDBOX_DAGGER_IMAGE") {
        Ok(image) => config.image(image),
        Err(_) => config,
    }
}

/// A test of this name, which needs the variables besides the engine.
#[cfg(target_os = "linux")]
fn trial(
    name: &str,
    needs: &[&str],
    test: impl AsyncFnOnce() -> Outcome + Send + 'static,
) -> Trial {
    let required = std::env::var("SANDBOX_REQUIRE").unwrap_or_default();
    let required = required
        .split(',')
        .any(|entry| matches!(entry.trim(), "dagger" | "all"));
    let missing = needs
        .iter()
        .find(|variable| std::env::var_os(variable).is_none());
    let reason = match (required, missing) {
        (false, _) => Some("SANDBOX_REQUIRE does not name dagger".to_owned()),
        (true, Some(variable)) => Some(format!("{variable} is not set")),
        (true, None) => None,
    };
    let trial = Trial::test(name, move || {
        let runtime = tokio::runtime::Runtime::new()?;
        runtime.block_on(test()).map_err(|error| match error {
            // An error of the library says more when it is shown for debugging.
            error if error.is::<sandbox_core::Error>() => format!("{error:#?}").into(),
            error => error.to_string().into(),
        })
    });
    match reason {
        Some(reason) => trial.with_kind(reason).with_ignored_flag(true),
        None => trial,
    }
}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    if let Some(cli) = std::env::var_os(process::HOST) {
        return process::host(cli.into());
    }
    macro_rules! trials {
        ($($module:ident::$test:ident $([$($needs:literal),*])?),* $(,)?) => {
            vec![$(trial(
                concat!(stringify!($module), "::", stringify!($test)),
                &[$($($needs),*)?],
                $module::$test,
            )),*]
        };
    }
    let trials = trials![
        cost::beside_raw_queries["SANDBOX_DAGGER_COST"],
        ends::killed["SANDBOX_DAGGER_STOP", "SANDBOX_DAGGER_START"],
        ends::asked_to_end["SANDBOX_DAGGER_STOP", "SANDBOX_DAGGER_START"],
        ends::full["SANDBOX_DAGGER_FILL"],
        lasting::layers_are_put_together_and_nothing_is_lost,
        lasting::two_thousand_operations_on_one_sandbox,
        lasting::forks_that_run_the_same_command_run_it_twice,
        lasting::a_provider_outlives_its_engine["SANDBOX_DAGGER_RESTART"],
        process::a_cli_ends_with_its_provider,
        process::a_cli_ends_with_a_host_that_was_killed,
        running::a_secret_of_one_letter_spoils_no_answer,
        running::secrets_are_the_commands_alone,
        running::a_timeout_ends_everything_and_keeps_what_was_said,
        running::a_dropped_exec_is_ended_by_the_engine,
        running::processes_have_the_limits_that_were_asked_for,
        running::a_service_is_reached_from_the_host_until_it_is_stopped,
        running::a_service_that_ends_at_once_is_told,
        sources::a_dockerfile_is_built,
        sources::a_build_that_fails_says_what_the_command_said,
        sources::an_archive_is_written_and_started_from,
        sources::an_image_is_published_with_a_login["SANDBOX_DAGGER_REGISTRY", "SANDBOX_DAGGER_LOGIN"],
        sources::snapshots_in_archives_outlive_their_provider,
        sources::snapshots_in_a_registry_outlive_their_provider
            ["SANDBOX_DAGGER_REGISTRY", "SANDBOX_DAGGER_LOGIN"],
        sources::a_cache_is_shared_and_outlives_sandboxes,
        sources::sandboxes_run_as_the_user_that_was_asked_for,
        sources::an_image_that_is_missing_is_told,
    ];
    // Few at a time: what is tested is the engine's behaviour, not its patience.
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(2));
    libtest_mimic::run(&arguments, trials).exit_code()
}

#[cfg(not(target_os = "linux"))]
fn main() {}
