//! A session carries the operations of a sandbox: every line goes through the driver.
//!
//! A kernel runs one piece of code at a time, so that no line may keep it for long.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use sandbox_core::{Capabilities, Operation};
use std::sync::atomic::Ordering;

use super::capability::CLOSED;
use super::client::{HOME, Place, Session};
use super::driver::{Call, Heard, sound};
use crate::guest::transport::Transport;
use crate::http::{Failure, Request};

/// File that shows that a session is still the one that it was; a new one does not have it.
pub(super) const MARKER: &str = "/var/tmp/.sandbox-session";
/// The largest output that comes along with an answer, in the new shape and in the old.
const INLINE: usize = 384 << 10;
const INLINE_OLD: usize = 2 << 10;
/// The longest pause between two questions about a command.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Session {
    /// Whether a session that the service knows was made by this backend: another program's has no
    /// marker. Nothing in it is changed.
    pub(super) async fn is_ours(&self, op: Operation) -> Result<bool, Failure> {
        let line = format!("[ -e {MARKER} ] && echo ours || echo other");
        let minute = Duration::from_secs(60);
        let said = self.line_in(op, "", &line, true, minute).await?;
        Ok(said == "ours\n")
    }

    /// Runs a line. Once the session has begun, one without our marker is another one.
    pub(super) async fn line(
        &self,
        op: Operation,
        line: &str,
        repeat: bool,
        timeout: Duration,
    ) -> Result<String, Failure> {
        let marker = match self.begun.load(Ordering::Acquire) {
            true => MARKER,
            false => "",
        };
        self.line_in(op, marker, line, repeat, timeout).await
    }

    /// Runs a line in a session that has this marker, if one is named.
    async fn line_in(
        &self,
        op: Operation,
        marker: &str,
        line: &str,
        repeat: bool,
        timeout: Duration,
    ) -> Result<String, Failure> {
        let inline = match self.pool.old {
            true => INLINE_OLD,
            false => INLINE,
        };
        let whole = format!("{}{line}", self.prelude(line));
        let call = Call::new(self.pool.kind, Self::STAGING, marker, &whole, inline);
        let done = self.execute(op, &call.text, repeat, timeout).await?;
        let bytes = match call.heard(&done.stdout) {
            Some(Heard::Said(bytes)) => bytes,
            Some(Heard::Lost) => return Err(self.gone(op)),
            Some(Heard::Written { size, sha }) => {
                let (dir, file) = (&call.dir, format!("{}/t", call.dir));
                let (parts, query) = match self.pool.old {
                    true => self.flat(&file),
                    false => self.nested(&file),
                };
                let got = self.fetch(op, &parts, query, size).await;
                // Whatever is said of the file, the line did run.
                let got = got.map_err(|failure| Failure {
                    unknown: true,
                    ..failure
                })?;
                self.drop_later([dir.clone(), format!("{dir}.t")]);
                if !sound(&got, size, &sha) {
                    return Err(Failure::garbled(op));
                }
                got.into()
            }
            None => return Err(Failure::garbled(op)),
        };
        self.placed(line);
        String::from_utf8(bytes).map_err(|_| Failure::garbled(op))
    }
}

impl Session {
    /// Place at which a file of ours can be fetched.
    async fn file(&self, op: Operation, path: &str) -> Result<Place, Failure> {
        if !self.pool.old {
            return Ok(self.nested(path));
        }
        let place = self.flat(path);
        if let Some(name) = place.0.last() {
            let line = format!("ln -f {path} {HOME}/{name}");
            self.line(op, &line, true, Duration::from_secs(60)).await?;
            self.drop_later([format!("{HOME}/{name}")]);
        }
        Ok(place)
    }

    async fn fetch(
        &self,
        op: Operation,
        parts: &[String],
        query: Vec<(&'static str, String)>,
        limit: u64,
    ) -> Result<Bytes, Failure> {
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let request = download(&parts, query, limit);
        let answer = self.pool.data.answer(op, request).await;
        let answer = answer.map_err(|failure| self.missed(op, failure))?;
        Ok(self.same(op, answer)?.body)
    }
}

impl Transport for Session {
    // Below the directory that files can be fetched from; a directory's name has no dot there.
    const STAGING: &'static str = "/mnt/data/sandbox-";
    const SLICE: Duration = Duration::from_millis(150);
    const CAPABILITIES: Capabilities = CLOSED;
    const CLOSE_HINT: &'static str = "close it again; the pool's cooldown ends it too";

    fn pause(ran: Duration) -> Duration {
        (ran / 8).min(LONGEST_PAUSE)
    }

    async fn shell(
        &self,
        op: Operation,
        _: &str,
        line: &str,
        repeat: bool,
        timeout: Duration,
    ) -> Result<String, Failure> {
        self.line(op, line, repeat, timeout).await
    }

    async fn touch(&self, _: &str) -> Result<(), Failure> {
        self.look().await
    }

    async fn delete(&self, op: Operation, _: &str) -> Result<(), Failure> {
        self.pool.delete(op, &self.identifier).await
    }

    async fn put_file(
        &self,
        op: Operation,
        _: &str,
        path: &str,
        bytes: Bytes,
    ) -> Result<(), Failure> {
        self.upload(op, path, bytes).await
    }

    async fn get_file(
        &self,
        op: Operation,
        _: &str,
        path: &str,
        limit: u64,
    ) -> Result<Bytes, Failure> {
        let (parts, query) = self.file(op, path).await?;
        self.fetch(op, &parts, query, limit).await
    }
}

fn download<'a>(
    parts: &'a [&'a str],
    query: Vec<(&'static str, String)>,
    limit: u64,
) -> Request<'a> {
    let mut request = Request::new(Method::GET, parts);
    request.query = query;
    request.timeout = Duration::from_secs(600);
    request.limit = limit;
    request
}

/// The line that begins a session: what tells it from another one, and the workdir.
pub(super) fn beginning() -> String {
    format!("mkdir -p /var/tmp {HOME}; [ -e {MARKER} ] || {{ : > {MARKER}; sleep 0.02; }}\n")
}
