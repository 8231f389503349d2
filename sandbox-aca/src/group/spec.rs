//! Check of a spec against the service; what it can't do is refused before anything is sent.
//!
//! It must never let an option pass that would be ignored.

use sandbox_core::{Error, ErrorKind, Labels, Operation, RequiredIsolation, Result, SandboxSpec};

use crate::group::capability::CAPABILITIES;
use crate::group::create_once::CREATE_LABEL;

/// Refuses what the service can't do.
pub(crate) fn check(spec: &SandboxSpec) -> Result<()> {
    const OP: Operation = Operation::Create;
    spec.validate()?;
    spec.require(&CAPABILITIES, OP)?;
    if let RequiredIsolation::Only(controls) = &spec.isolation
        && let Some(control) = controls.first()
    {
        return Err(Error::new(ErrorKind::Isolation, OP)
            .with_message(format!(
                "{control} can't be proven from inside of the service's microVM"
            ))
            .with_hint("leave the requirement at its default to take the service's word"));
    }
    Ok(())
}

/// Refuses labels that the service can't be asked for, and those that are the provider's own.
pub(crate) fn check_labels(op: Operation, labels: &Labels, own: &Labels) -> Result<()> {
    for key in labels.keys() {
        let why = if key == CREATE_LABEL || own.contains_key(key) {
            "is the provider's own"
        } else if key.contains([',', '=']) {
            "has a comma or an equals sign, by which the service can't be asked for it"
        } else {
            continue;
        };
        let message = format!("the label {key:?} {why}");
        return Err(Error::new(ErrorKind::InvalidInput, op).with_message(message));
    }
    Ok(())
}
