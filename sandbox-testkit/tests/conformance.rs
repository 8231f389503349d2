//! The kit against its own model: plain, and through the pointers that forward the traits.

use std::sync::Arc;

use sandbox_core::Provider;
use sandbox_testkit::model::ModelFixture;
use sandbox_testkit::{Fixture, wrapped};

fn fixtures() -> Vec<Box<dyn Fixture>> {
    let through = |name: &str, wrap: fn(Arc<dyn Provider>) -> Arc<dyn Provider>| {
        wrapped(name, ModelFixture::new(), wrap)
    };
    vec![
        Box::new(ModelFixture::new()),
        through("model-arc", |provider| Arc::new(provider)),
        through("model-box", |provider| {
            let boxed: Box<dyn Provider> = Box::new(provider);
            Arc::new(boxed)
        }),
    ]
}

sandbox_testkit::conformance_main!(fixtures());
