//! Does the work of `benches/peers` with the `hakoniwa` crate and says how long it took.
//!
//! Prints its version, then answers each line on standard input (a word and arguments, with tabs
//! between) with `ok TEXT` or `error TEXT`. It must never time what the crate's user would not
//! wait for.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use hakoniwa::{Container, Namespace};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// All namespaces that it has, the host's programs read-only, a `/dev` and a `/tmp` of its own.
fn container(workspace: Option<&str>) -> Outcome<Container> {
    let mut container = Container::new();
    for namespace in [
        Namespace::Network,
        Namespace::Ipc,
        Namespace::Uts,
        Namespace::Cgroup,
    ] {
        container.unshare(namespace);
    }
    container.rootfs("/")?.devfsmount("/dev").tmpfsmount("/tmp");
    match workspace {
        Some(dir) => container.bindmount_rw(dir, "/workspace"),
        None => container.dir("/workspace", 0o755),
    };
    Ok(container)
}

fn run(
    workspace: Option<&str>,
    program: &str,
    args: &[&str],
    stdin: Option<File>,
) -> Outcome<String> {
    let container = container(workspace)?;
    let mut command = container.command(program);
    command.args(args);
    match stdin {
        Some(file) => command.stdin(hakoniwa::Stdio::from(file)),
        None => command.stdin(hakoniwa::Stdio::from(File::open("/dev/null")?)),
    };
    command
        .stdout(hakoniwa::Stdio::piped())
        .stderr(hakoniwa::Stdio::piped());
    let output = command.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{program}: {:?} {said}", output.status).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn answer(line: &str) -> Outcome<String> {
    let mut words = line.split('\t');
    let work = words.next().unwrap_or_default();
    let mut word = || words.next().ok_or("an argument is missing");
    let nanos = |started: Instant| started.elapsed().as_nanos().to_string();
    match work {
        "hundred" => {
            let count: u32 = word()?.parse()?;
            let started = Instant::now();
            for _ in 0..count {
                run(None, "/bin/true", &[], None)?;
            }
            Ok(nanos(started))
        }
        "fork" => {
            let (tree, copy) = (word()?, word()?);
            fs::write(format!("{tree}/changed"), "x")?;
            let started = Instant::now();
            let copied = Command::new("cp")
                .args(["-a", tree, copy])
                .stdin(Stdio::null())
                .status()?;
            if !copied.success() {
                return Err("cp failed".into());
            }
            run(Some(copy), "/bin/true", &[], None)?;
            let time = nanos(started);
            fs::remove_dir_all(copy)?;
            Ok(time)
        }
        "files" => {
            let (archive, dir) = (word()?, word()?);
            fs::create_dir(dir)?;
            let archive = File::open(archive)?;
            let started = Instant::now();
            let args = ["-xf", "-", "--no-same-owner", "-C", "/workspace"];
            run(Some(dir), "/bin/tar", &args, Some(archive))?;
            let time = nanos(started);
            if fs::read_dir(dir)?.next().is_none() {
                return Err("the files did not arrive".into());
            }
            fs::remove_dir_all(dir)?;
            Ok(time)
        }
        "probe" => run(None, "/bin/sh", &["-c", word()?], None),
        other => Err(format!("no such work: {other}").into()),
    }
}

fn main() -> Outcome<()> {
    let mut out = std::io::stdout();
    writeln!(out, "1.8.0")?;
    for line in std::io::stdin().lock().lines() {
        let (word, text) = match answer(&line?) {
            Ok(text) => ("ok", text),
            Err(error) => ("error", error.to_string()),
        };
        writeln!(out, "{word} {}", text.trim_end().replace('\n', "\\n"))?;
    }
    Ok(())
}
