//! Random sequences of operations on a provider and on the model, which must not differ.
//!
//! Invariant: only what the contract fixes is compared; where it leaves a choice, the choice is
//! named here.

mod ops;
mod world;

use std::sync::Arc;

use proptest::collection::vec;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use sandbox_core::{Capability, Provider, SandboxSpec};

pub use ops::{Op, Write};

use crate::model::ModelProvider;
use world::World;

/// The longest sequence, unless settings say otherwise.
const LENGTH: usize = 40;

/// Settings of a comparison.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Number of sequences that are tried.
    pub cases: u32,
    /// Most operations of a sequence. Default: 40.
    pub length: usize,
    /// Spec of the sandboxes.
    pub spec: SandboxSpec,
    /// The seed, so that a failure comes again; random if `None`.
    pub seed: Option<u64>,
    /// Whether directories are renamed. A backend that deviates from the contract there turns it
    /// off, to be compared in everything else. Default: yes.
    pub directory_renames: bool,
}

impl Settings {
    /// Settings for so many random sequences.
    pub fn new(cases: u32) -> Self {
        Self {
            cases,
            length: LENGTH,
            spec: SandboxSpec::new(),
            seed: None,
            directory_renames: true,
        }
    }

    /// Tries sequences of up to so many operations.
    #[must_use]
    pub fn length(mut self, operations: usize) -> Self {
        self.length = operations;
        self
    }

    /// Creates the provider's sandboxes from this.
    #[must_use]
    pub fn spec(mut self, spec: SandboxSpec) -> Self {
        self.spec = spec;
        self
    }

    /// Leaves out renames of directories.
    #[must_use]
    pub fn without_directory_renames(mut self) -> Self {
        self.directory_renames = false;
        self
    }

    /// Tries the same sequences each time.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}

/// Compares a provider with the model on so many random sequences of operations.
///
/// To be called from a plain test, not from inside a runtime: it brings its own.
///
/// # Errors
/// The shortest sequence found on which the two differ, and how.
pub fn compare_with_model(provider: Arc<dyn Provider>, cases: u32) -> Result<(), String> {
    compare(provider, &Settings::new(cases))
}

/// [`compare_with_model`] with more to choose.
///
/// # Errors
/// The shortest sequence found on which the two differ, and how.
pub fn compare(provider: Arc<dyn Provider>, settings: &Settings) -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let capabilities = provider.capabilities();
    let strategy = vec(
        ops::op(
            capabilities.has(Capability::Exec),
            capabilities.has(Capability::Fork),
        ),
        1..settings.length.max(2),
    );
    let config = Config {
        cases: settings.cases,
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..Config::default()
    };
    let mut runner = match settings.seed {
        None => TestRunner::new(config),
        Some(seed) => {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&seed.to_le_bytes());
            let rng = proptest::test_runner::TestRng::from_seed(
                proptest::test_runner::RngAlgorithm::ChaCha,
                &bytes,
            );
            TestRunner::new_with_rng(config, rng)
        }
    };
    let outcome = runner.run(&strategy, |sequence| {
        runtime
            .block_on(play(&provider, settings, &sequence))
            .map_err(TestCaseError::fail)
    });
    // What a sequence dropped may still be removing its files.
    runtime.shutdown_timeout(std::time::Duration::from_secs(20));
    match outcome {
        Ok(()) => Ok(()),
        Err(TestError::Fail(why, sequence)) => {
            Err(format!("{why}\nafter these operations: {sequence:#?}"))
        }
        Err(TestError::Abort(why)) => Err(why.to_string()),
    }
}

/// Plays one sequence on both.
async fn play(
    provider: &Arc<dyn Provider>,
    settings: &Settings,
    sequence: &[Op],
) -> Result<(), String> {
    let failed = |error: sandbox_core::Error| format!("no sandbox: {error:?}");
    let model = ModelProvider::new();
    let under_test = provider
        .create(settings.spec.clone())
        .await
        .map_err(failed)?;
    let reference = model.create(SandboxSpec::new()).await.map_err(failed)?;
    let mut world = World::new(under_test, reference, settings.directory_renames);
    let mut outcome = Ok(());
    for (step, op) in sequence.iter().enumerate() {
        outcome = world
            .step(op)
            .await
            .map_err(|why| format!("step {step}, {op:?}: {why}"));
        if outcome.is_err() {
            break;
        }
    }
    if outcome.is_ok() {
        outcome = world.compare_trees().await;
    }
    world.close().await;
    outcome
}
