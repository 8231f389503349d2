//! A command in a running sandbox: a static program, `true`, a shell, Python; and how many of them
//! two cores run at once.

use std::fs;
use std::path::Path;
use std::process::Command as HostCommand;
use std::sync::Arc;
use std::time::Duration;

use sandbox::{Command, FileBatch, Mode};
use tokio::runtime::Runtime;

use crate::bench::{Bench, clocked, exec, spawn};
use crate::support::measure::{Case, timed};
use crate::support::{Outcome, host};

/// A program that does nothing but end: what is left of a command's cost when its own is nothing.
const STATIC: &str = r#"
void _start(void) {
#if defined(__x86_64__)
    __asm__ volatile("mov $60, %eax\n xor %edi, %edi\n syscall");
#elif defined(__aarch64__)
    __asm__ volatile("mov x8, #93\n mov x0, #0\n svc #0");
#endif
}
"#;

fn build(dir: &Path) -> Outcome<String> {
    let (source, program) = (dir.join("nothing.c"), dir.join("nothing"));
    fs::write(&source, STATIC)?;
    host::run(
        HostCommand::new("cc")
            .args(["-O2", "-static", "-nostdlib", "-o"])
            .arg(&program)
            .arg(source),
    )?;
    Ok(program.to_string_lossy().into_owned())
}

pub(crate) fn all(bench: &mut Bench) -> Outcome<()> {
    let dir = host::scratch()?;
    let program = build(dir.path())?;
    let runtime = Arc::clone(&bench.runtime);
    let sandbox = bench.create()?;
    let bytes = fs::read(&program)?;
    let install = FileBatch::new().file_with_mode("nothing", bytes, Mode::EXECUTABLE);
    runtime.block_on(sandbox.write_files(install))?;
    let inside = "/workspace/nothing";
    for (name, here, there, args) in [
        ("exec static program", program.as_str(), inside, &[][..]),
        ("exec /bin/true", "/bin/true", "/bin/true", &[][..]),
        (
            "exec sh -c",
            "/bin/sh",
            "/bin/sh",
            &["-c", "echo hello"][..],
        ),
        (
            "exec python3 -c",
            // The sandbox's own: another one may come first in the host's PATH, or a script that looks for it.
            "/usr/bin/python3",
            "/usr/bin/python3",
            &["-c", "print(1)"][..],
        ),
    ] {
        let cases = vec![
            Case::new("tokio spawn", || spawn(&runtime, here, args)),
            Case::new("exec", || {
                let command = Command::new(there).args(args);
                clocked(&runtime, exec(&sandbox, command))
            }),
        ];
        bench.compare(name, cases)?;
    }
    let other = bench.create()?;
    let install = FileBatch::new().file_with_mode("nothing", fs::read(&program)?, Mode::EXECUTABLE);
    runtime.block_on(other.write_files(install))?;
    for (name, here, there) in [
        ("a static program", program.as_str(), inside),
        ("/bin/true", "/bin/true", "/bin/true"),
    ] {
        throughput(bench, [&sandbox, &other], name, here, there)?;
    }
    bench.close(&other)?;
    bench.close(&sandbox)
}

/// Compares the same number of commands one after the other and two at a time: the second by the
/// first is what the second core brings. Tokio's own spawns too: what it can bring.
fn throughput(
    bench: &mut Bench,
    sandboxes: [&Arc<dyn sandbox::Sandbox>; 2],
    name: &str,
    here: &str,
    there: &str,
) -> Outcome<()> {
    let runtime = Arc::clone(&bench.runtime);
    let count = bench.effort.pick(4, 100, 200);
    let spawns = |tasks: usize| {
        tasks_of(&runtime, tasks, |_| {
            let here = here.to_owned();
            async move {
                for _ in 0..count / tasks {
                    tokio::process::Command::new(&here).output().await?;
                }
                Ok(())
            }
        })
    };
    let execs = |tasks: usize, sandboxes: [&Arc<dyn sandbox::Sandbox>; 2]| {
        tasks_of(&runtime, tasks, |place| {
            let (sandbox, there) = (Arc::clone(sandboxes[place % 2]), there.to_owned());
            async move {
                for _ in 0..count / tasks {
                    exec(&sandbox, Command::new(there.as_str())).await?;
                }
                Ok(())
            }
        })
    };
    let [one, _] = sandboxes;
    let cases = vec![
        Case::new("tokio spawn, one after the other", || spawns(1)),
        Case::new("tokio spawn, two at a time", || spawns(2)),
        Case::new("one after the other", || execs(1, [one, one])),
        Case::new("two at a time, one sandbox", || execs(2, [one, one])),
        Case::new("two at a time, two sandboxes", || execs(2, sandboxes)),
    ];
    bench.compare(&format!("{count} execs of {name}"), cases)
}

/// Measures how long so many tasks take side by side.
fn tasks_of<F>(runtime: &Runtime, tasks: usize, task: impl Fn(usize) -> F) -> Outcome<Duration>
where
    F: Future<Output = Outcome<()>> + Send + 'static,
{
    timed(|| {
        let tasks: Vec<_> = (0..tasks).map(|place| runtime.spawn(task(place))).collect();
        for task in tasks {
            runtime.block_on(task)??;
        }
        Ok(())
    })
}
