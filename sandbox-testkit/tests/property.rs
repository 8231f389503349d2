//! The property harness tested: the model equals itself, and a fake does not equal the model.

use std::sync::Arc;

use sandbox_testkit::model::ModelProvider;
use sandbox_testkit::mutants::{Mutant, MutantProvider};
use sandbox_testkit::property::{Settings, compare, compare_with_model};

#[test]
fn the_model_equals_itself() {
    compare_with_model(Arc::new(ModelProvider::default()), 100).expect("no difference");
}

#[test]
fn a_fake_differs_from_the_model() {
    for fault in [
        Mutant::BatchNotAtomic,
        Mutant::CreateNewReplaces,
        Mutant::ModeLost,
        Mutant::RemoveOfMissingIsFine,
        Mutant::ForkSharesWrites,
        Mutant::ListUnsorted,
        Mutant::DotDotDropped,
    ] {
        let provider = Arc::new(MutantProvider::new(fault));
        let settings = Settings::new(200).seed(1);
        let difference = compare(provider, &settings).expect_err("a difference");
        assert!(difference.contains("operations"), "{fault:?}: {difference}");
    }
}
