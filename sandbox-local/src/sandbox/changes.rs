//! Changes of a local sandbox, by the layers above those that it began with.

use sandbox_core::{Changes, ChangesOptions, Error, ErrorKind, GuestPath, Operation, Result};
use sandbox_transfer::changes::ChangeCollector;

use super::LocalSandbox;
use crate::runtime;

const OP: Operation = Operation::Changes;

impl LocalSandbox {
    /// See [`Sandbox::changes`](sandbox_core::Sandbox::changes).
    pub(super) async fn changes_of(
        &self,
        path: &GuestPath,
        options: &ChangesOptions,
    ) -> Result<Changes> {
        self.check_open(OP)?;
        runtime::require(OP).map_err(|error| self.named(error))?;
        let directory = self.resolve(path, OP)?;
        let mut collector =
            ChangeCollector::new(&directory, options).map_err(|error| self.named(error))?;
        for bind in self.blueprint.binds.iter().filter(|bind| !bind.read_only) {
            if directory.strip_prefix(&bind.guest).is_some() {
                return Err(self.named(
                    Error::new(ErrorKind::InvalidInput, OP)
                        .with_message(
                            "a directory of the host that is mounted has no beginning to compare \
                             with",
                        )
                        .with_path(path)
                        .with_hint("import the directory instead of mounting it"),
                ));
            }
            if let Some(below) = bind.guest.strip_prefix(&directory) {
                collector.skip(below, "a directory of the host that is mounted");
            }
        }
        self.facts.usage.touch();
        let alone = self.alone(OP).await?;
        let Some(running) = alone.as_ref() else {
            return Err(self.ended.error(OP, &self.id));
        };
        if let Some(why) = running.engine.lost() {
            return Err(self.lost(why, &running.cgroup, OP));
        }
        let (host, blueprint) = (&self.host, &self.blueprint);
        let paused = self.is_paused();
        let changes = running.changes(host, blueprint, &directory, collector, paused);
        changes.await.map_err(|error| self.unless_closed(error, OP))
    }
}
