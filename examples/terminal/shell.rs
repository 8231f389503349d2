//! The shell: keys in, what is shown out, changes of the size.

use std::os::fd::AsFd;

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use sandbox::{Command, ExitStatus, Process, SandboxSpec, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

pub(super) type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
pub(super) async fn run() -> Outcome<()> {
    let mut words = std::env::args().skip(1).peekable();
    let web = words.next_if(|word| word == "--web" || word.starts_with("--web="));
    let command = Command::new(words.next().unwrap_or_else(|| "sh".into())).args(words);
    if let Some(web) = web {
        let address = web.strip_prefix("--web=").unwrap_or("127.0.0.1:0");
        return super::web::serve(address, command).await;
    }
    let provider = sandbox::connect("local:").await?;
    let sandbox = provider.create(SandboxSpec::new()).await?;
    let status = match isatty(std::io::stdin()) {
        true => {
            let process = sandbox.spawn(command.terminal(size()?)).await?;
            let raw = Raw::new()?;
            let status = relay(process).await;
            drop(raw);
            status?
        }
        false => {
            let size = TerminalSize {
                rows: 30,
                columns: 100,
            };
            converse(sandbox.spawn(command.terminal(size)).await?).await?
        }
    };
    println!("[{status}]");
    sandbox.close().await?;
    // Not by returning: a thread still waits for standard input.
    std::process::exit(status.shell_code())
}

/// The size of this program's terminal.
fn size() -> Outcome<TerminalSize> {
    let size = tcgetwinsize(std::io::stdin())?;
    Ok(TerminalSize {
        rows: size.ws_row.max(1),
        columns: size.ws_col.max(1),
    })
}

/// This program's terminal in raw mode, while it lives: every key goes to the sandbox.
struct Raw(Termios);

impl Raw {
    fn new() -> Outcome<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin().as_fd(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // There is no other way to give it back.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Carries keys, what is shown, and changes of the size, until the program ends.
async fn relay(mut process: Process) -> Outcome<ExitStatus> {
    let mut keys = process.stdin.take().ok_or("no input")?;
    let mut shown = process.stdout.take().ok_or("no output")?;
    let typing = tokio::spawn(async move {
        let mut stdin = tokio::io::stdin();
        let mut bytes = [0; 4096];
        while let Ok(len @ 1..) = stdin.read(&mut bytes).await {
            if keys.write_all(&bytes[..len]).await.is_err() {
                break;
            }
        }
        // Kept open: a terminal's input has no end.
        std::future::pending::<()>().await;
    });
    let mut resized = signal(SignalKind::window_change())?;
    let mut stdout = tokio::io::stdout();
    let mut bytes = vec![0; 64 << 10];
    loop {
        tokio::select! {
            len = shown.read(&mut bytes) => match len? {
                0 => break,
                len => {
                    stdout.write_all(&bytes[..len]).await?;
                    stdout.flush().await?;
                }
            },
            _ = resized.recv() => process.resize(size()?).await?,
        }
    }
    typing.abort();
    Ok(process.wait().await?.status)
}

/// Types a few lines, and shows what a user would see.
async fn converse(mut process: Process) -> Outcome<ExitStatus> {
    let mut keys = process.stdin.take().ok_or("no input")?;
    let mut shown = process.stdout.take().ok_or("no output")?;
    keys.write_all(b"tty; stty size\nexit\n").await?;
    let mut bytes = Vec::new();
    shown.read_to_end(&mut bytes).await?;
    println!("{}", String::from_utf8_lossy(&bytes).replace("\r\n", "\n"));
    Ok(process.wait().await?.status)
}
