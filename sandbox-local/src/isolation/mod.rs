//! Which isolation is in force, found out from inside.
//!
//! A probe runs as a guest like any other and tries what a guest should not be able to do; the
//! report says what it found, not what was configured. Must never report a control as enforced on
//! the strength of having asked for it.

mod evidence;
mod limits;
mod proven;

use sandbox_core::{
    Control, Enforcement, Error, ErrorKind, IsolationReport, Network, Operation, Result,
};

use crate::mutation;
use crate::sandbox::running::Running;
use crate::start::blueprint::Blueprint;
use crate::start::failure;
use evidence::Evidence;
use proven::Shape;

pub(crate) use proven::Proven;

/// Probes a running sandbox.
pub(crate) async fn report(running: &Running, blueprint: &Blueprint) -> Result<IsolationReport> {
    let evidence = Evidence::gather(running).await.map_err(|error| {
        let kind = match error.lost() {
            Some(_) => ErrorKind::Lost,
            None => ErrorKind::Other,
        };
        let told = Error::new(kind, Operation::Isolation)
            .with_message("the isolation could not be probed");
        failure::exhausted(told, error.errno().and_then(failure::used_up)).with_source(error)
    })?;
    let mut report = IsolationReport::new()
        .with(Control::Filesystem, filesystem(&evidence, blueprint))
        .with(Control::Processes, processes(&evidence))
        .with(Control::Network, network(&evidence, blueprint))
        .with(Control::Ipc, ipc(&evidence, blueprint))
        .with(Control::Privileges, privileges(&evidence, blueprint))
        .with(Control::SystemCalls, system_calls(&evidence));
    for (control, enforcement) in limits::report(running, blueprint, &evidence) {
        report = report.with(control, enforcement);
    }
    Ok(report)
}

/// Fails with what is missing if a control that the spec requires is not in force.
///
/// Probed once for every shape of sandbox: what the host grants one it grants the next.
pub(crate) async fn require(
    running: &Running,
    blueprint: &Blueprint,
    proven: &Proven,
) -> Result<()> {
    let shape = Shape::of(blueprint);
    if proven.holds(&shape) || mutation::is_any_off() {
        return Ok(());
    }
    let report = report(running, blueprint).await.map_err(|error| {
        if let Some(bytes) = blueprint.resources().memory
            && running.cgroup.is_full(bytes)
        {
            return failure::memory(bytes, error, Operation::Create);
        }
        let hint = error
            .hint()
            .map(str::to_owned)
            .unwrap_or_else(|| HINT.into());
        Error::new(ErrorKind::Isolation, Operation::Create)
            .with_message("the isolation that is required could not be probed")
            .with_hint(hint)
            .with_source(error)
    })?;
    check(&report, |control| blueprint.requires(control))?;
    proven.note(shape);
    Ok(())
}

const HINT: &str = "docs/platforms.md tells what each control needs of the host";

fn check(report: &IsolationReport, requires: impl Fn(Control) -> bool) -> Result<()> {
    for control in Control::ALL {
        if !requires(*control) || report.is_enforced(*control) {
            continue;
        }
        // What the caller opened by name is no gap in what the backend enforces.
        if matches!(report.get(*control), Some(Enforcement::Partial { .. })) {
            continue;
        }
        let found = report
            .get(*control)
            .map_or_else(|| "not probed".into(), ToString::to_string);
        return Err(Error::new(ErrorKind::Isolation, Operation::Create)
            .with_message(format!("{control} is required and was found {found}"))
            .with_hint(HINT));
    }
    Ok(())
}

/// Sums up what was found, or what of it is missing.
fn all(by: &str, found: &[(bool, &str)]) -> Enforcement {
    match found.iter().find(|(held, _)| !held) {
        None => Enforcement::enforced(by),
        Some((_, gap)) => Enforcement::absent(*gap),
    }
}

fn filesystem(evidence: &Evidence, blueprint: &Blueprint) -> Enforcement {
    let by = "user and mount namespaces, a private root";
    let found = all(
        by,
        &[
            (
                evidence.other_namespace("user"),
                "the host's user namespace is shared",
            ),
            (
                evidence.other_namespace("mnt"),
                "the host's mount namespace is shared",
            ),
            (
                evidence.root_is_overlay,
                "the root is not an overlay of the sandbox's own",
            ),
            (
                evidence.host_state_hidden,
                "the host's state directory is visible",
            ),
            (
                // A given root directory's own are the guest's, above an overlay.
                evidence.system_read_only || !blueprint.is_of_host(),
                "the host's system directories can be written",
            ),
            (evidence.cannot_mount, "a filesystem can be mounted"),
        ],
    );
    let writable = blueprint
        .binds
        .iter()
        .filter(|bind| !bind.read_only)
        .count();
    match found {
        Enforcement::Enforced { by } if writable > 0 => Enforcement::partial(
            by,
            format!("the spec mounts {writable} host path(s) for writing"),
        ),
        found => found,
    }
}

fn processes(evidence: &Evidence) -> Enforcement {
    all(
        "a pid namespace with its own /proc",
        &[
            (
                evidence.other_namespace("pid"),
                "the host's pid namespace is shared",
            ),
            (evidence.init_is_closed, "the init can be read"),
            (evidence.own_proc, "/proc shows another namespace"),
        ],
    )
}

fn network(evidence: &Evidence, blueprint: &Blueprint) -> Enforcement {
    if blueprint.spec.network == Network::Open {
        return Enforcement::absent("the spec opens the host's network, its loopback included");
    }
    let found = all(
        "a network namespace with nothing but loopback",
        &[
            (
                evidence.other_namespace("net"),
                "the host's network namespace is shared",
            ),
            (
                evidence.only_loopback,
                "there is another interface than loopback",
            ),
            (
                evidence.nothing_reached,
                "an address outside of the sandbox can be dialled",
            ),
        ],
    );
    match found {
        Enforcement::Enforced { by } if blueprint.egress.is_some() => Enforcement::partial(
            format!("{by}; the host's process answers for names and judges each connection"),
            "the hosts of the egress policy are reached, and what TLS hides is not seen: a host that \
             serves others too (a CDN) may pass it on to them",
        ),
        found => found,
    }
}

fn ipc(evidence: &Evidence, blueprint: &Blueprint) -> Enforcement {
    let found = all(
        "an ipc namespace and its own /dev/shm",
        &[(
            evidence.other_namespace("ipc"),
            "the host's ipc namespace is shared",
        )],
    );
    let shared = blueprint.spec.network == Network::Open;
    match found {
        Enforcement::Enforced { by } if shared && crate::sys::landlock_version() >= 6 => {
            Enforcement::enforced(format!("{by}; Landlock keeps abstract sockets apart"))
        }
        Enforcement::Enforced { by } if shared => Enforcement::partial(
            by,
            "abstract sockets belong to the host's network, which the spec opens, and this kernel's \
             Landlock cannot scope them",
        ),
        found => found,
    }
}

fn privileges(evidence: &Evidence, blueprint: &Blueprint) -> Enforcement {
    let root = blueprint.is_root();
    let found = all(
        match root {
            false => "no capabilities, no_new_privs, no user namespaces",
            true => "one capability, no_new_privs, no user namespaces",
        },
        &[
            (
                evidence.status_is("NoNewPrivs", "1"),
                "set-user-ID programs gain rights",
            ),
            (
                match root {
                    false => evidence.no_capabilities,
                    true => evidence.only_over_own_files,
                },
                "there are capabilities",
            ),
            (evidence.no_user_namespace, "a user namespace can be made"),
        ],
    );
    match found {
        Enforcement::Enforced { by } if root => Enforcement::partial(
            by,
            "the spec asks for root: user 0 of a namespace with one user, whom no mode of that user's own \
             files stops (CAP_DAC_OVERRIDE), and who is told that owners were changed",
        ),
        found => found,
    }
}

fn system_calls(evidence: &Evidence) -> Enforcement {
    all(
        "a seccomp filter",
        &[
            (evidence.status_is("Seccomp", "2"), "no filter is in force"),
            (
                evidence.filtered,
                "a call that the filter refuses went through",
            ),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_required_and_absent_is_an_error_that_names_it() {
        let report = IsolationReport::new()
            .with(
                Control::Filesystem,
                Enforcement::partial("a root", "a mount for writing"),
            )
            .with(Control::Network, Enforcement::enforced("a namespace"))
            .with(
                Control::SystemCalls,
                Enforcement::absent("no filter is in force"),
            );
        assert!(check(&report, |_| false).is_ok());
        assert!(check(&report, |control| control == Control::Network).is_ok());
        assert!(check(&report, |control| control == Control::Filesystem).is_ok());
        // The second was not probed at all.
        for (control, found) in [
            (Control::SystemCalls, "no filter is in force"),
            (Control::Ipc, "not probed"),
        ] {
            let error = check(&report, |required| required == control).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Isolation);
            let text = error.to_string();
            assert!(
                text.contains(&control.to_string()) && text.contains(found),
                "{text}"
            );
            assert!(text.contains("docs/platforms.md"), "{text}");
        }
    }
}
