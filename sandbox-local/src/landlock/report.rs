//! Which isolation is in force, found out from inside.
//!
//! A process that is put under the same tries what a command should not be able to do; the report
//! says what it found. It must never report a control as enforced on the strength of having asked
//! for it, and never without the gap that a sandbox without namespaces has.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Stdio;

use sandbox_core::{Control, Enforcement, Error, ErrorKind, IsolationReport, Operation, Result};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command as HostCommand;

use super::domain::Confinement;
use crate::mutation;
use crate::plain::process::Launch as _;
use crate::sys::confine::{ATTEMPTS, Targets, arm_attempts};

const OP: Operation = Operation::Isolation;

/// File of the host beside a sandbox's root, for the attempts.
pub(super) const OUTSIDE: &str = "outside";

/// Findings of the attempts.
pub(super) struct Found([i32; ATTEMPTS]);

impl Found {
    /// Tries everything under this confinement, or under none as a control.
    pub(super) async fn probe(dir: &Path, confinement: &Confinement) -> Result<Self> {
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Other, OP)
                .with_message("the isolation could not be probed")
                .with_source(error)
        };
        let path =
            |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(|e| failed(e.into()));
        let targets = Targets {
            file: path(&dir.join(OUTSIDE))?,
            dir: path(dir)?,
        };
        // Never executed: the attempts end the process before.
        let mut command = HostCommand::new("/");
        command
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        confinement.cage.arm(&mut command);
        arm_attempts(&mut command, targets);
        let (_, launched) = confinement.launch(command).await.map_err(failed)?;
        let (mut child, reach) = launched.map_err(failed)?;
        let mut bytes = Vec::new();
        if let Some(stdout) = &mut child.stdout {
            stdout.read_to_end(&mut bytes).await.map_err(failed)?;
        }
        child.wait().await.map_err(failed)?;
        drop(reach);
        let words: Vec<i32> = bytes
            .chunks_exact(4)
            .map(|word| word.try_into().map_or(0, i32::from_ne_bytes))
            .collect();
        let short = |_| failed(std::io::Error::other("the probe did not end"));
        Ok(Self(words.try_into().map_err(short)?))
    }

    fn refused(&self, attempts: std::ops::Range<usize>) -> bool {
        self.0
            .get(attempts)
            .is_some_and(|found| found.iter().all(|errno| *errno != 0))
    }

    /// The report.
    pub(super) fn report(&self, open_network: bool, own_user: bool) -> IsolationReport {
        let unless = |held: bool, enforcement| match held {
            true => enforcement,
            false => Enforcement::absent("an attempt from inside was not refused"),
        };
        let filesystem = Enforcement::partial(
            "Landlock",
            "there is no mount namespace: names, sizes, owners and times of the host's files can be \
             seen, and /tmp is not the sandbox's own",
        );
        let processes = Enforcement::partial(
            "Landlock",
            "there is no pid namespace: it can be tried which process numbers the host has",
        );
        let network = match open_network {
            true => Enforcement::absent("the spec asks for the host's network"),
            false => {
                Enforcement::enforced("a filter that makes no socket, and Landlock's TCP rules")
            }
        };
        let privileges = match own_user {
            true => {
                Enforcement::enforced("a user of its own, without capabilities or a way to any")
            }
            false => Enforcement::partial(
                "no capabilities and no way to any",
                "there is no user namespace: the user is the host's",
            ),
        };
        let ipc = Enforcement::enforced("a filter: no shared memory, queues or named sockets");
        // Both are positive findings.
        let unprivileged = self.0.get(12..14) == Some(&[1, 1]);
        let limits = "there is no control group, and the kernel counts a user's processes together";
        IsolationReport::new()
            .with(Control::Filesystem, unless(self.refused(0..5), filesystem))
            .with(Control::Processes, unless(self.refused(5..7), processes))
            .with(
                Control::Network,
                match open_network {
                    true => network,
                    false => unless(self.refused(7..9), network),
                },
            )
            .with(Control::Ipc, unless(self.refused(9..12), ipc))
            .with(Control::Privileges, unless(unprivileged, privileges))
            .with(
                Control::SystemCalls,
                unless(
                    self.refused(14..18),
                    Enforcement::enforced("a seccomp filter"),
                ),
            )
            .with(Control::Memory, Enforcement::absent(limits))
            .with(Control::Cpu, Enforcement::absent(limits))
            .with(Control::Pids, Enforcement::absent(limits))
            .with(
                Control::Disk,
                Enforcement::absent("it writes to the host's filesystem"),
            )
    }
}

/// Fails if something that this tier is for does not hold.
pub(super) fn require(report: &IsolationReport, open_network: bool) -> Result<()> {
    let mut expected = vec![
        Control::Filesystem,
        Control::Processes,
        Control::Ipc,
        Control::Privileges,
        Control::SystemCalls,
    ];
    if !open_network {
        expected.push(Control::Network);
    }
    let missing = |control: &Control| {
        !matches!(
            report.get(*control),
            Some(Enforcement::Enforced { .. } | Enforcement::Partial { .. })
        )
    };
    let missing: Vec<&str> = expected
        .into_iter()
        .filter(missing)
        .map(Control::as_str)
        .collect();
    if missing.is_empty() || mutation::is_any_off() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Isolation, Operation::Create)
        .with_message(format!("not in force: {}", missing.join(", "))))
}
