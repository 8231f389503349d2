//! A command in a running sandbox: a static program, `true`, a shell, Python; and how many of them
//! two cores run at once.

use std::fs;
use std::path::Path;
use std::process::Command as HostCommand;
use std::sync::Arc;

use sandbox::{Command, FileBatch, Mode};

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
            "python3",
            "python3",
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
    throughput(bench, &sandbox, inside)?;
    bench.close(&sandbox)
}

/// The same number of commands, one after the other and two at a time: the second by the first is
/// what the second core brings.
fn throughput(
    bench: &mut Bench,
    sandbox: &Arc<dyn sandbox::Sandbox>,
    program: &'static str,
) -> Outcome<()> {
    let runtime = Arc::clone(&bench.runtime);
    let count = bench.effort.pick(4, 100, 200);
    let other = bench.create()?;
    let run = |sandboxes: [&Arc<dyn sandbox::Sandbox>; 2], tasks: usize| {
        timed(|| {
            let _entered = runtime.enter();
            let tasks: Vec<_> = (0..tasks)
                .map(|place| {
                    let sandbox = Arc::clone(sandboxes[place % 2]);
                    tokio::spawn(async move {
                        for _ in 0..count / tasks {
                            exec(&sandbox, Command::new(program)).await?;
                        }
                        Ok::<_, sandbox::Error>(())
                    })
                })
                .collect();
            for task in tasks {
                runtime.block_on(task)??;
            }
            Ok(())
        })
    };
    runtime.block_on(async {
        let bytes = sandbox
            .read_file(&program.into(), sandbox::ReadOptions::default())
            .await?;
        let install = FileBatch::new().file_with_mode(program, bytes, Mode::EXECUTABLE);
        other.write_files(install).await
    })?;
    let cases = vec![
        Case::new("one after the other", || run([sandbox, sandbox], 1)),
        Case::new("two at a time, one sandbox", || run([sandbox, sandbox], 2)),
        Case::new("two at a time, two sandboxes", || run([sandbox, &other], 2)),
    ];
    bench.compare(&format!("{count} execs of a static program"), cases)?;
    bench.close(&other)
}
