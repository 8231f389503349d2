//! The programs that the model has in `/bin`.
//!
//! Invariant: a program sees only the model's tree and its own streams.

use std::time::Duration;

use sandbox_core::{ErrorKind, Mode};

use super::io::In;
use super::run::{Flow, Sh};
use crate::model::tree::{Kind, Tried, USER};

/// Their names.
pub(super) const PROGRAMS: &[&str] = &[
    "[", "cat", "chmod", "cp", "dd", "echo", "env", "false", "head", "id", "kill", "ln", "ls",
    "mkdir", "mkfifo", "mv", "nohup", "printf", "pwd", "readlink", "rm", "seq", "setsid", "sh",
    "sleep", "test", "touch", "tr", "true", "wc", "yes",
];

impl Sh {
    /// Runs one of the programs.
    pub(super) async fn run_program(
        &mut self,
        name: &'static str,
        argv: &[Vec<u8>],
    ) -> Result<u8, Flow> {
        let args = argv.get(1..).unwrap_or_default();
        match name {
            "true" => Ok(0),
            "false" => Ok(1),
            "cat" => self.cat(args).await,
            "echo" => {
                let quiet = args.first().is_some_and(|arg| arg == b"-n");
                let mut text = args[usize::from(quiet)..].join(&b' ');
                if !quiet {
                    text.push(b'\n');
                }
                self.out(text).await.map(|()| 0)
            }
            "printf" if args.first().is_some_and(|arg| arg == b"--") => {
                self.out(super::text::printf(&args[1..])).await.map(|()| 0)
            }
            "printf" => self.out(super::text::printf(args)).await.map(|()| 0),
            "test" => Ok(u8::from(!self.test(args))),
            "[" => Ok(u8::from(!self.test(&args[..args.len().saturating_sub(1)]))),
            "sleep" => self.sleep(args).await,
            "env" => self.env(args).await,
            "kill" => self.kill(argv).await,
            "head" => self.head(args).await,
            "wc" => self.wc(args).await,
            "tr" => self.tr(args).await,
            "yes" => self.yes(args).await,
            "dd" => self.dd(args).await,
            "seq" => self.seq(args).await,
            "id" => self.out(format!("{USER}\n")).await.map(|()| 0),
            "pwd" => {
                let cwd = format!("{}\n", self.cwd);
                self.out(cwd).await.map(|()| 0)
            }
            "ls" => self.ls(args).await,
            "readlink" => self.readlink(args).await,
            "setsid" | "nohup" => Box::pin(self.dispatch(args)).await,
            _ => self.change_files(name, args).await,
        }
    }

    async fn cat(&mut self, args: &[Vec<u8>]) -> Result<u8, Flow> {
        let stdin = [b"-".to_vec()];
        let names = if args.is_empty() { &stdin[..] } else { args };
        let mut code = 0;
        for name in names {
            let mut input = match self.open(name) {
                Ok(input) => input,
                Err(kind) => {
                    code = self.failed("cat", name, kind).await?;
                    continue;
                }
            };
            self.copy(&mut input, u64::MAX).await?;
        }
        Ok(code)
    }

    /// Copies to stdout; how much it was.
    async fn copy(&mut self, input: &mut In, limit: u64) -> Result<u64, Flow> {
        let mut buf = vec![0; 64 << 10];
        let mut copied = 0;
        while copied < limit {
            let room = buf
                .len()
                .min(usize::try_from(limit - copied).unwrap_or(usize::MAX));
            match input.read(&mut buf[..room]).await {
                0 => break,
                count => {
                    self.out(&buf[..count]).await?;
                    copied += count as u64;
                }
            }
        }
        Ok(copied)
    }

    async fn sleep(&mut self, args: &[Vec<u8>]) -> Result<u8, Flow> {
        let text = String::from_utf8_lossy(args.first().map_or(b"", Vec::as_slice)).into_owned();
        if text == "infinity" {
            std::future::pending::<()>().await;
        }
        let length = text.parse().ok().map(Duration::try_from_secs_f64);
        let Some(Ok(length)) = length else {
            return self.complain("sleep: not a time").await;
        };
        tokio::time::sleep(length).await;
        Ok(0)
    }

    async fn env(&mut self, args: &[Vec<u8>]) -> Result<u8, Flow> {
        let mut inner = self.clone();
        let mut args = args;
        if args.first().is_some_and(|arg| arg == b"-i") {
            inner.vars.clear();
            args = &args[1..];
        }
        while let Some(arg) = args.first() {
            let Some(equals) = arg.iter().position(|b| *b == b'=') else {
                return Box::pin(inner.dispatch(args)).await;
            };
            let value = arg[equals + 1..].to_vec();
            inner.vars.insert(arg[..equals].to_vec(), (value, true));
            args = &args[1..];
        }
        let mut text = Vec::new();
        for (name, (value, _)) in inner.vars.iter().filter(|(_, (_, exported))| *exported) {
            text.extend_from_slice(name);
            text.push(b'=');
            text.extend_from_slice(value);
            text.push(b'\n');
        }
        self.out(text).await.map(|()| 0)
    }

    /// `head [-c BYTES | -n LINES] [FILE]`
    async fn head(&mut self, args: &[Vec<u8>]) -> Result<u8, Flow> {
        let count = super::text::number(args.get(1)).unwrap_or(10);
        let bytes = args.first().is_some_and(|arg| arg == b"-c");
        let mut input = match args.get(2) {
            None => self.io.stdin.clone(),
            Some(name) => match self.open(name) {
                Ok(input) => input,
                Err(kind) => return self.failed("head", name, kind).await,
            },
        };
        if bytes {
            return self.copy(&mut input, count).await.map(|_| 0);
        }
        for _ in 0..count {
            let Some(mut line) = input.read_line().await else {
                break;
            };
            line.push(b'\n');
            self.out(line).await?;
        }
        Ok(0)
    }

    /// `wc -c` or `wc -l`, of stdin or a file.
    async fn wc(&mut self, args: &[Vec<u8>]) -> Result<u8, Flow> {
        let lines = args.first().is_some_and(|arg| arg == b"-l");
        let mut input = match args.get(1) {
            None => self.io.stdin.clone(),
            Some(name) => match self.open(name) {
                Ok(input) => input,
                Err(kind) => return self.failed("wc", name, kind).await,
            },
        };
        let mut buf = vec![0; 64 << 10];
        let mut total = 0;
        loop {
            match input.read(&mut buf).await {
                0 => break,
                count if lines => total += buf[..count].iter().filter(|b| **b == b'\n').count(),
                count => total += count,
            }
        }
        self.out(format!("{total}\n")).await.map(|()| 0)
    }

    async fn tr(&mut self, args: &[Vec<u8>]) -> Result<u8, Flow> {
        let delete = args.first().is_some_and(|arg| arg == b"-d");
        let set = |index: usize| super::text::set(args.get(index).map_or(b"", Vec::as_slice));
        let (from, to) = if delete {
            (set(1), Vec::new())
        } else {
            (set(0), set(1))
        };
        let mut input = self.io.stdin.clone();
        let mut buf = vec![0; 64 << 10];
        loop {
            let count = input.read(&mut buf).await;
            if count == 0 {
                return Ok(0);
            }
            let translate = |byte: &u8| match from.iter().position(|from| from == byte) {
                Some(_) if delete => None,
                Some(at) => to.get(at).or(to.last()).copied(),
                None => Some(*byte),
            };
            let text: Vec<u8> = buf[..count].iter().filter_map(translate).collect();
            self.out(text).await?;
        }
    }

    async fn yes(&mut self, args: &[Vec<u8>]) -> Result<u8, Flow> {
        let mut line = args.first().cloned().unwrap_or_else(|| b"y".to_vec());
        line.push(b'\n');
        let block = line.repeat((16 << 10) / line.len() + 1);
        loop {
            self.checkpoint().await?;
            self.out(&block).await?;
        }
    }

    /// `dd if=FILE bs=BYTES count=BLOCKS`, to stdout.
    async fn dd(&mut self, args: &[Vec<u8>]) -> Result<u8, Flow> {
        let option = |name: &[u8]| args.iter().find_map(|arg| arg.strip_prefix(name));
        let number = |name: &[u8]| super::text::number(option(name));
        let limit = number(b"bs=").unwrap_or(512) * number(b"count=").unwrap_or(1);
        let name = option(b"if=").unwrap_or(b"-").to_vec();
        match self.open(&name) {
            Ok(mut input) => self.copy(&mut input, limit).await.map(|_| 0),
            Err(kind) => self.failed("dd", &name, kind).await,
        }
    }

    async fn seq(&mut self, args: &[Vec<u8>]) -> Result<u8, Flow> {
        let (from, to) = match args {
            [to] => (1, super::text::number(Some(to))),
            [from, to, ..] => (
                super::text::number(Some(from)).unwrap_or(1),
                super::text::number(Some(to)),
            ),
            [] => (1, None),
        };
        for number in from..=to.unwrap_or(0) {
            self.out(format!("{number}\n")).await?;
        }
        Ok(0)
    }

    async fn ls(&mut self, args: &[Vec<u8>]) -> Result<u8, Flow> {
        let name = args.iter().find(|arg| !arg.starts_with(b"-"));
        let name = name.map_or(b".".as_slice(), Vec::as_slice);
        match self.core.tree().list(&self.path(name), false, usize::MAX) {
            Ok(entries) => {
                for entry in entries {
                    self.out([entry.path.as_bytes(), b"\n"].concat()).await?;
                }
                Ok(0)
            }
            Err(kind) => self.failed("ls", name, kind).await.map(|_| 2),
        }
    }

    async fn readlink(&mut self, args: &[Vec<u8>]) -> Result<u8, Flow> {
        let path = self.path(args.first().map_or(b".", Vec::as_slice));
        let node = self.core.tree().get(&path, false);
        match node.as_deref().map(|node| &node.kind) {
            Ok(Kind::Link(target)) => self
                .out([target.as_slice(), b"\n"].concat())
                .await
                .map(|()| 0),
            _ => Ok(1),
        }
    }

    /// The programs that change files: each name is handled on its own.
    async fn change_files(&mut self, name: &str, args: &[Vec<u8>]) -> Result<u8, Flow> {
        let flags: Vec<u8> = args
            .iter()
            .take_while(|arg| *arg != b"--")
            .filter(|arg| arg.starts_with(b"-"))
            .flatten()
            .copied()
            .collect();
        let flag = |flag: u8| flags.contains(&flag);
        let mut literal = false;
        let words: Vec<&Vec<u8>> = args
            .iter()
            .filter(|arg| {
                let option = !literal && arg.starts_with(b"-");
                literal |= *arg == b"--";
                !option
            })
            .collect();
        let mut code = 0;
        let each = match (name, words.as_slice()) {
            ("mv" | "cp" | "ln", [.., _]) => &words[..1],
            ("chmod", [_, names @ ..]) => names,
            (_, names) => names,
        };
        for word in each {
            let path = self.path(word);
            let last = words.last().map_or(b".".as_slice(), |word| word.as_slice());
            let mut to = self.path(last);
            // A link is not followed with the option that says so.
            let follow = name != "ln" || !flag(b'n');
            if matches!(name, "mv" | "cp" | "ln")
                && self
                    .core
                    .tree()
                    .get(&to, follow)
                    .is_ok_and(|to| to.is_dir())
            {
                to = to.join(path.file_name().unwrap_or_default());
            }
            let first = words[0].clone();
            let done: Tried<()> = self.core.change(|tree| match name {
                "mkdir" => tree.make_dir(&path, flag(b'p'), Mode::EXECUTABLE),
                "mkfifo" => tree.make(&path, Kind::Fifo),
                "touch" => tree.open_for_writing(&path, true).map(drop),
                "ln" => tree.make(&to, Kind::Link(first)),
                "chmod" => {
                    let text = String::from_utf8_lossy(&first).into_owned();
                    let mode = u32::from_str_radix(&text, 8);
                    let mode = mode.map_err(|_| ErrorKind::InvalidInput)?;
                    tree.chmod(&path, mode)
                }
                "mv" if path == to => Err(ErrorKind::InvalidInput),
                "mv" => tree.rename(&path, &to, true).map_err(|(kind, _)| kind),
                "cp" => {
                    let content = tree.read(&path, u64::MAX)?;
                    let to = tree.open_for_writing(&to, false)?;
                    tree.append(&to, &content)
                }
                _ => {
                    let whole = flag(b'r') || flag(b'R');
                    if !whole && tree.get(&path, false)?.is_dir() {
                        return Err(ErrorKind::IsADirectory);
                    }
                    tree.remove(&path, whole)
                }
            });
            match done {
                Ok(()) => {}
                Err(ErrorKind::NotFound | ErrorKind::NotADirectory)
                    if name == "rm" && flag(b'f') => {}
                Err(kind) => code = self.failed(name, word, kind).await?,
            }
        }
        Ok(code)
    }
}
