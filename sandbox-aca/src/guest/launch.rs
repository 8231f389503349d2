//! Launch of a command: arguments, environment, input, directory.
//!
//! Nothing that a caller gives may be taken for a part of a script.

use std::time::Duration;

use bytes::Bytes;
use sandbox_core::{
    Capability, Command, DEFAULT_TERM, Error, ErrorKind, GuestPath, Operation, Result, Stdin,
};

use crate::guest::handle::{Guest, fresh, variables};
use crate::guest::script::Script;
use crate::guest::transport::{PART, Transport};

/// The longest argument that Linux takes, and all of them together.
const LONGEST: usize = 128 << 10;
const ALL: usize = 1900 << 10;
/// A time from which on there is none, or no end: the guest's shell counts in hundredths of a second.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);
/// Search path of programs if no environment says so.
const PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Variables that a shell exports without being asked.
const SHELL_VARIABLES: [&[u8]; 4] = [b"PWD", b"OLDPWD", b"SHLVL", b"_"];
/// The largest input that goes along with the script.
const INLINE: usize = 16 << 10;

/// A command that is about to be started. What it is given stays out of `Debug`.
pub(crate) struct Launch {
    /// Directory of the command in the guest.
    pub(crate) dir: String,
    /// The name by which the guest's scripts know it.
    pub(crate) nonce: String,
    /// The limit that its processes inherit and that nothing else has.
    mark: String,
    /// Directory in the guest that is there while no command may begin.
    gate: String,
    pub(crate) cwd: GuestPath,
    pub(crate) timeout: Option<Duration>,
    /// Time for which the rest of the tree is waited for.
    grace: Duration,
    /// The shell's word for the input.
    input: String,
    /// Bytes of the input that go along.
    given: Bytes,
    /// The names of the input's parts, if it came in some.
    parts: String,
    /// The arguments of `env`: what it unsets, what it sets, the program.
    words: Vec<Vec<u8>>,
    program: Vec<u8>,
    /// The command's own `PATH`; the guest's if `None`.
    path: Option<Vec<u8>>,
}

impl<T: Transport> Guest<T> {
    /// Checks a command; brings its input along if that is long. No error starts anything.
    pub(crate) async fn prepare(&self, op: Operation, command: &Command) -> Result<Launch> {
        self.open(op)?;
        self.awake(op)?;
        command.validate(op)?;
        if command.user.is_some() {
            T::CAPABILITIES.require(Capability::User, op)?;
        }
        if command.terminal.is_some() {
            T::CAPABILITIES.require(Capability::Terminal, op)?;
        }
        let cwd = match &command.cwd {
            Some(cwd) => self.resolve(cwd, op)?,
            None => self.workdir(),
        };
        let (dir, nonce) = fresh(T::STAGING);
        let (mut env, default) = {
            let state = self.state();
            (state.env.clone(), state.info.command_timeout)
        };
        env.extend(variables(&command.env));
        // A shell starts in the background what ignores these two; that of a terminal ignores all
        // that keys send.
        let mut words = vec![match command.terminal {
            None => b"--default-signal=INT,QUIT".to_vec(),
            Some(_) => b"--default-signal".to_vec(),
        }];
        if command.terminal.is_some() {
            env.entry(b"TERM".to_vec())
                .or_insert_with(|| Some(DEFAULT_TERM.into()));
        }
        // What shells set by themselves was not asked for.
        let own = SHELL_VARIABLES
            .iter()
            .filter(|name| !env.contains_key(**name));
        let unset = env.iter().filter(|(_, value)| value.is_none());
        for name in own.copied().chain(unset.map(|(name, _)| name.as_slice())) {
            words.push(b"-u".to_vec());
            words.push(name.to_vec());
        }
        words.push(b"--".to_vec());
        for (name, value) in &env {
            if let Some(value) = value {
                words.push([name, b"=".as_slice(), value.expose()].concat());
            }
        }
        if command.program().contains(&b'=') {
            // `env` would take it for a variable.
            words.extend([&b"sh"[..], b"-c", b"exec \"$@\"", b"sh"].map(<[u8]>::to_vec));
        }
        words.extend(command.argv().iter().cloned());
        let total: usize = words.iter().map(|word| word.len() + 9).sum();
        if total > ALL || words.iter().any(|word| word.len() >= LONGEST) {
            return Err(Error::new(ErrorKind::LimitExceeded, op)
                .with_message("arguments and environment are longer than Linux takes")
                .with_hint("128 KiB for one, 1.9 MiB for all; give more by stdin or a file"));
        }
        let path = match env.get(&b"PATH"[..]) {
            Some(Some(path)) => Some(path.expose().to_vec()),
            Some(None) => Some(b"/bin:/usr/bin".to_vec()),
            None => None,
        };
        let mut launch = Launch {
            cwd,
            timeout: command.timeout.or(default).filter(|limit| *limit < FOREVER),
            grace: self.output_grace.min(FOREVER),
            input: "/dev/null".into(),
            given: Bytes::new(),
            parts: String::new(),
            words,
            program: command.program().to_vec(),
            path,
            dir,
            mark: mark(&nonce),
            gate: format!("{}{GATE}", T::STAGING),
            nonce,
        };
        match &command.stdin {
            _ if command.terminal.is_some() => launch.input = "terminal".into(),
            Stdin::Piped => launch.input = "pipe".into(),
            Stdin::Bytes(bytes) if !bytes.is_empty() => {
                launch.input = format!("{}/in", launch.dir);
                if bytes.len() <= INLINE {
                    launch.given = bytes.clone();
                } else if bytes.len() > PART {
                    launch.parts = self.upload(op, &launch.dir, bytes).await?;
                } else {
                    let put = self
                        .transport
                        .put_file(op, self.id.as_str(), &launch.input, bytes.clone())
                        .await;
                    put.map_err(|failure| self.failed(failure))?;
                }
            }
            _ => {}
        }
        Ok(launch)
    }

    /// Starts a script that first clears away what earlier commands left.
    pub(crate) fn cleared(&self) -> Script {
        let mut script = Script::default();
        let stale_dirs = std::mem::take(&mut self.state().stale_dirs);
        if !stale_dirs.is_empty() {
            script = script.text("rm -rf");
            for dir in stale_dirs {
                script = script.word(dir.as_bytes());
            }
            script = script.text("\n");
        }
        script
    }
}

/// End of the name of the directory that holds commands back while a sandbox is paused.
pub(crate) const GATE: &str = "paused";

/// Prefix of every mark.
pub(crate) const MARKED: &str = "4242";

/// The limit of locks of files, which the kernel heeds no more, that marks a command's tree. Every
/// process inherits it, an environment that is cleared does not lose it, a shell sets it by itself, and
/// all may read it in `/proc/PID/limits`.
fn mark(nonce: &str) -> String {
    let number = nonce
        .get(..12)
        .and_then(|text| u64::from_str_radix(text, 16).ok());
    format!(
        "{MARKED}{:014}",
        number.unwrap_or_default() % 100_000_000_000_000
    )
}

impl std::fmt::Debug for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Launch");
        shown.field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Launch {
    /// The settings that the guest's scripts ask for.
    pub(crate) fn settings(&self, mut script: Script) -> Script {
        let limit = self.timeout.map_or(String::new(), |limit| {
            (limit.as_millis() / 10).max(1).to_string()
        });
        let Self {
            dir,
            nonce,
            mark,
            gate,
            grace,
            ..
        } = self;
        let grace = grace.as_millis().div_ceil(10);
        script = script.text(&format!(
            "dir={dir} nonce={nonce} mark={mark} gate={gate} timeout={limit} grace={grace}\npath="
        ));
        match &self.path {
            Some(path) => script.quoted(path),
            None => {
                script = script.text("${PATH:-");
                script = script.text(&String::from_utf8_lossy(PATH)).text("}");
            }
        }
        if !self.given.is_empty() {
            script = script.text(&format!("\nmkdir -p {dir}; base64 -d > {dir}/in <<'.'\n"));
            script = script.base64(&self.given).text("\n.");
        }
        if !self.parts.is_empty() {
            let parts = &self.parts;
            script = script.text(&format!("\ncat {parts} > {dir}/in; rm -f {parts}"));
        }
        script.text("\n")
    }

    /// Calls a function of the guest's scripts that launches the command.
    pub(crate) fn call(&self, mut script: Script, function: &str) -> Script {
        script = script
            .text(function)
            .word(self.input.as_bytes())
            .word(self.cwd.as_bytes())
            .word(&self.program);
        for word in &self.words {
            script = script.word(word);
        }
        script.text("\n")
    }
}
