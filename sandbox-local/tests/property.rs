//! The local backend does what the model does, on random sequences of operations.
#![cfg(target_os = "linux")]
#![allow(clippy::expect_used, reason = "a test says what it needs")]
#![allow(
    clippy::print_stderr,
    reason = "a seed that is not told can't be tried again"
)]

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use sandbox_local::{LocalConfig, LocalProvider};
use sandbox_testkit::property::{Settings, compare};

/// Number of sequences for each of three seeds, and their length: `SANDBOX_PROPERTY=7000x100`, or a
/// few seconds' worth.
fn sequences() -> (u32, usize) {
    let asked = std::env::var("SANDBOX_PROPERTY").ok();
    let asked = asked.as_deref().and_then(|asked| asked.split_once('x'));
    let number = |(cases, length): (&str, &str)| Some((cases.parse().ok()?, length.parse().ok()?));
    asked.and_then(number).unwrap_or((86, 30))
}

#[test]
fn it_does_what_the_model_does() {
    let provider = Arc::new(LocalProvider::new(LocalConfig::default()).expect("a provider"));
    // The standard library's hash maps are keyed at random, which is all that is needed here.
    let random = RandomState::new().hash_one(());
    eprintln!("the random seed is {random}");
    for seed in [1, 2, random] {
        let (cases, length) = sequences();
        let settings = Settings::new(cases).length(length).seed(seed);
        if let Err(difference) = compare(provider.clone(), &settings) {
            panic!("with seed {seed}: {difference}");
        }
    }
}
