//! The model as a backend under test.
//!
//! Invariant: every deviation says what the model lacks, and none is about files.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use sandbox_core::{Capabilities, Provider, Result, Sandbox};

use super::process::lock;
use super::{CAPABILITIES, ModelProvider};
use crate::kit::{Deviation, Fixture, mostly_waiting};

/// The kit's own fixture.
#[derive(Debug, Default)]
pub struct ModelFixture {
    provider: Mutex<ModelProvider>,
}

impl ModelFixture {
    /// A model.
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl Fixture for ModelFixture {
    fn name(&self) -> String {
        "model".into()
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn provider(&self) -> Result<Arc<dyn Provider>> {
        Ok(Arc::new(lock(&self.provider).clone()))
    }

    fn deviations(&self) -> Vec<Deviation> {
        vec![Deviation::new(
            "isolation::a_listener_of_the_host_is_out_of_reach",
            "the model has no program that could connect",
        )]
    }

    fn threads(&self) -> Option<usize> {
        // Its commands cost next to nothing.
        mostly_waiting().map(|threads| 3 * threads)
    }

    fn can_sabotage(&self) -> bool {
        true
    }

    async fn sabotage(&self, sandbox: &dyn Sandbox) -> bool {
        lock(&self.provider).lose(&sandbox.info().id)
    }
}
