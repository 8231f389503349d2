//! The provider: what it can do, said once, and sandboxes made from that.

use std::sync::Arc;

use sandbox::{
    Capabilities, Capability, Control, Error, ErrorKind, GuestPath, Operation, Provider,
    RequiredIsolation, Result, Sandbox, SandboxSpec, async_trait,
};

use crate::files::Files;
use crate::toy::ToySandbox;

/// The backend's name.
pub(crate) const BACKEND: &str = "toy";

/// Why most things are not there.
pub(crate) const ONLY_FILES: &str = "the toy keeps files in memory and nothing else";

/// Capabilities that are promised. Everything else is refused, which the kit checks as well.
pub(crate) const CAPABILITIES: Capabilities = Capabilities::none(ONLY_FILES)
    .with(Capability::NonUtf8Names)
    // Nothing runs here, so nothing reaches a network.
    .with(Capability::NetworkOff)
    .partial(Capability::Fork, "the cost grows with the number of files");

/// Makes sandboxes; there is nothing to configure.
#[derive(Debug)]
pub(crate) struct ToyProvider;

// `attach`, `list` and `destroy` are not written: the trait's own refuse what is not declared.
#[async_trait]
impl Provider for ToyProvider {
    fn backend(&self) -> &'static str {
        BACKEND
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        const OP: Operation = Operation::Create;
        spec.validate()?;
        // Each field of the spec is honoured or refused. The environment and the timeout are for
        // commands, and the toy runs none.
        spec.require(&CAPABILITIES, OP)?;
        if let RequiredIsolation::Only(controls) = &spec.isolation
            && let Some(control) = controls
                .iter()
                .find(|control| **control != Control::Network)
        {
            return Err(Error::new(ErrorKind::Isolation, OP)
                .with_message(format!("no control of {control}: {ONLY_FILES}"))
                .with_hint("choose a backend that isolates"));
        }
        let workdir = spec.workdir.unwrap_or_else(|| "/workspace".into());
        let workdir = workdir.resolve(&GuestPath::root(), OP)?;
        let mut files = Files::new();
        files
            .make_dir(&workdir, true)
            .map_err(|kind| Error::new(kind, OP).with_path(&workdir))?;
        let timeout = spec.command_timeout;
        Ok(Arc::new(ToySandbox::new(files, workdir, timeout, None)))
    }
}
