//! Which shapes of sandbox were found to have the isolation that was required of them.
//!
//! Invariant: only a successful probe is remembered, and only for the same requirement.

use std::sync::{Mutex, PoisonError};

use sandbox_core::{EgressPolicy, Network, RequiredIsolation};

use crate::start::blueprint::Blueprint;

/// Shape of a sandbox: what a probe's outcome depends on, apart from the host.
#[derive(Debug, PartialEq)]
pub(super) struct Shape {
    own_programs: bool,
    network: Network,
    /// Memory, processor time, processes, disk.
    limited: [bool; 4],
    writes_to_host: bool,
    root: bool,
    required: RequiredIsolation,
}

impl Shape {
    pub(super) fn of(blueprint: &Blueprint) -> Self {
        let spec = &blueprint.spec;
        let limits = &spec.resources;
        Self {
            own_programs: !blueprint.is_of_host(),
            network: match &spec.network {
                // Which hosts it names makes no difference to what holds.
                Network::Allow(_) => Network::Allow(EgressPolicy::new()),
                network => network.clone(),
            },
            limited: [
                limits.memory.is_some(),
                limits.cpus.is_some(),
                limits.pids.is_some(),
                limits.disk.is_some(),
            ],
            writes_to_host: blueprint.writes_to_host(),
            root: blueprint.is_root(),
            required: spec.isolation.clone(),
        }
    }
}

/// Outcomes that were proven since the provider was made.
#[derive(Debug, Default)]
pub(crate) struct Proven {
    shapes: Mutex<Vec<Shape>>,
}

/// More than a program ever uses; beyond it, the oldest is probed again.
const MOST: usize = 64;

impl Proven {
    pub(super) fn holds(&self, shape: &Shape) -> bool {
        self.shapes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(shape)
    }

    pub(super) fn note(&self, shape: Shape) {
        // A panic elsewhere leaves a list that is valid, if perhaps too long by one.
        let mut shapes = self.shapes.lock().unwrap_or_else(PoisonError::into_inner);
        if shapes.len() >= MOST {
            shapes.remove(0);
        }
        if !shapes.contains(&shape) {
            shapes.push(shape);
        }
    }
}
