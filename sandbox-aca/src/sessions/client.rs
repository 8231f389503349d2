//! The calls of one session: code, files, its end.
//!
//! It must never send an execution twice unless the service proves that it did not accept it, and
//! never go on with a session that is another one than it was.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::Method;
use sandbox_core::{Error, ErrorKind, Operation, Result};
use serde_json::{Value, json};

use super::config::SessionKind;
use super::identifier::Identifier;
use crate::guest::transport::TOUCH;
use crate::http::{Answer, Failure, Http, Request, parse};

/// The longest execution that the service allows [Azure, January 2026].
pub(crate) const LONGEST: Duration = Duration::from_secs(220);
/// Bytes that are kept of an output stream; the service's default is 4096.
const KEPT: u64 = 1 << 20;
/// The largest part of an upload; the service takes 128 MB [Azure, January 2026].
const PART: usize = 64 << 20;
/// Time that the service may take beyond an execution's own time before its end is known.
const LATE: Duration = Duration::from_secs(30);
/// Interval at which an execution is asked after that was answered before its end.
const POLL: Duration = Duration::from_millis(200);
/// Directory of files that come and go.
pub(crate) const HOME: &str = "/mnt/data";

/// A pool, as its sessions see it.
#[derive(Debug)]
pub(crate) struct Pool {
    /// The data plane in the configured version.
    pub(crate) data: Http,
    /// Client in the newest version: the old ones can't end a session.
    pub(crate) manage: Http,
    pub(crate) kind: SessionKind,
    pub(crate) old: bool,
}

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) pool: Arc<Pool>,
    pub(crate) identifier: Identifier,
    /// Whether it is known to be there: from then on a new one is a loss.
    pub(crate) begun: AtomicBool,
    lost: AtomicBool,
    /// Uploads that the next line which names their directory puts in place.
    arrived: Mutex<Vec<Arrived>>,
    /// Directories of our own that are to be removed.
    stale_dirs: Mutex<Vec<String>>,
}

/// A file that came in parts below [`HOME`].
#[derive(Debug)]
struct Arrived {
    dir: String,
    path: String,
    parts: Vec<String>,
}

/// The path and the query of a request.
pub(super) type Place = (Vec<String>, Vec<(&'static str, String)>);

/// Result of an execution.
#[derive(Debug)]
pub(crate) struct Executed {
    pub(crate) succeeded: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) result: Value,
    pub(crate) took: Option<Duration>,
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of a file in one of our directories where there are none.
fn flat(path: &str) -> String {
    let below = path.strip_prefix(HOME).unwrap_or(path);
    below.trim_matches('/').replace('/', ".")
}

impl Session {
    pub(crate) fn new(pool: Arc<Pool>, identifier: Identifier) -> Self {
        Self {
            pool,
            identifier,
            begun: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            arrived: Mutex::default(),
            stale_dirs: Mutex::default(),
        }
    }

    /// The session is gone; whatever was made in its place is not left behind.
    pub(super) fn gone(&self, op: Operation) -> Failure {
        if !self.lost.swap(true, Ordering::AcqRel)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (pool, identifier) = (Arc::clone(&self.pool), self.identifier.clone());
            runtime.spawn(async move {
                if let Err(failure) = pool.delete(op, &identifier).await {
                    tracing::debug!(status = ?failure.status, "an empty session was not deleted");
                }
            });
        }
        let error = Error::new(ErrorKind::Lost, op)
            .with_message("the session ended and with it everything in it")
            .with_hint("the pool's cooldown ends idle sessions");
        Failure {
            status: Some(404),
            title: "SessionLost".into(),
            ..Failure::before(error)
        }
    }

    /// Sends a request for this session.
    async fn send(&self, op: Operation, mut request: Request<'_>) -> Result<Answer, Failure> {
        if self.lost.load(Ordering::Acquire) {
            return Err(self.gone(op));
        }
        let identifier = self.identifier.expose();
        request.query.push(("identifier", identifier));
        let begun = self.begun.load(Ordering::Acquire);
        let answer = self.pool.data.answer(op, request).await.map_err(full)?;
        let fresh = answer.headers.get("x-ms-new-allocation");
        match begun && fresh.is_some_and(|value| value == "true") {
            true => Err(self.gone(op)),
            false => Ok(answer),
        }
    }

    /// Asks whether the session is there, which makes none, and then for a list of its files, which
    /// starts its cooldown anew.
    pub(super) async fn look(&self) -> Result<(), Failure> {
        const OP: Operation = Operation::Connect;
        let mut request = Request::new(Method::GET, &["session"]);
        request.timeout = TOUCH;
        request.query.push(("identifier", self.identifier.expose()));
        match self.pool.manage.send(OP, request).await {
            Err(failure) if failure.title == "NoSessionFoundError" => return Err(self.gone(OP)),
            other => other?,
        };
        let mut request = Request::new(Method::GET, &["files"]);
        request.timeout = TOUCH;
        if self.pool.kind == SessionKind::Shell {
            request.query.push(("path", HOME.into()));
        }
        self.send(OP, request).await.map(drop)
    }

    /// Runs code or a line of shell, whichever the pool runs.
    pub(crate) async fn execute(
        &self,
        op: Operation,
        text: &str,
        repeat: bool,
        timeout: Duration,
    ) -> Result<Executed, Failure> {
        let seconds = timeout.min(LONGEST).as_secs().max(1);
        let (path, body): (&[&str], Value) = match (self.pool.kind, self.pool.old) {
            (SessionKind::Shell, _) => (
                &["executions"],
                json!({
                    "shellCommand": text, "timeoutInSeconds": seconds,
                    "outputStreamsMaxLength": KEPT,
                }),
            ),
            (SessionKind::Python, false) => (
                &["executions"],
                json!({
                    "codeInputType": "Inline", "executionType": "Synchronous", "code": text,
                    "timeoutInSeconds": seconds, "outputStreamsMaxLength": KEPT,
                }),
            ),
            (SessionKind::Python, true) => (
                &["code", "execute"],
                json!({"properties": {
                    "codeInputType": "inline", "executionType": "synchronous", "code": text,
                    "timeoutInSeconds": seconds,
                }}),
            ),
        };
        let mut request = Request::new(Method::POST, path).json(&body);
        request.repeat = repeat;
        request.timeout = timeout + Duration::from_secs(30);
        let asked = Instant::now();
        let mut answer = parse(op, &self.send(op, request).await?.body)?;
        // The service may answer before the end: then it is asked again, and nothing runs twice.
        while !self.pool.old && matches!(answer["status"].as_str(), Some("NotStarted" | "Running"))
        {
            let Some(id) = answer["id"].as_str().map(str::to_owned) else {
                return Err(Failure::garbled(op));
            };
            if asked.elapsed() > timeout + LATE {
                let what = "the service says that the execution still runs";
                let error = Error::unanswered(op, what);
                return Err(Failure::unknown(error));
            }
            tokio::time::sleep(POLL).await;
            let path = ["executions", id.as_str()];
            let sent = self.send(op, Request::new(Method::GET, &path)).await;
            // The execution was accepted: what fails now leaves open what came of it.
            let sent = sent.map_err(|failure| Failure {
                unknown: true,
                ..failure
            })?;
            answer = parse(op, &sent.body)?;
        }
        let said = match self.pool.old {
            true => &answer["properties"],
            false => &answer["result"],
        };
        let status = match self.pool.old {
            true => said["status"].as_str(),
            false => answer["status"].as_str(),
        };
        let (Some(stdout), Some(status)) = (said["stdout"].as_str(), status) else {
            return Err(Failure::garbled(op));
        };
        let took = said["executionTimeInMilliseconds"].as_u64();
        let result = match self.pool.old {
            true => &said["result"],
            false => &said["executionResult"],
        };
        Ok(Executed {
            succeeded: ["Succeeded", "Success", "0"].contains(&status),
            stdout: stdout.to_owned(),
            stderr: said["stderr"].as_str().unwrap_or_default().to_owned(),
            result: result.clone(),
            took: took.map(Duration::from_millis),
        })
    }

    /// Uploads a file; the next line that names its directory finds it there.
    pub(crate) async fn upload(
        &self,
        op: Operation,
        path: &str,
        bytes: Bytes,
    ) -> Result<(), Failure> {
        let (dir, _) = path.rsplit_once('/').unwrap_or((HOME, path));
        // Whether an upload makes directories is not documented: all come to one that is there.
        let flat = flat(path);
        let mut parts = Vec::new();
        let mut start = 0;
        loop {
            let end = (start + PART).min(bytes.len());
            let part = format!("{flat}.{}", parts.len());
            self.upload_part(op, &part, bytes.slice(start..end)).await?;
            parts.push(format!("{HOME}/{part}"));
            start = end;
            if start == bytes.len() {
                break;
            }
        }
        locked(&self.arrived).push(Arrived {
            dir: dir.to_owned(),
            path: path.to_owned(),
            parts,
        });
        Ok(())
    }

    async fn upload_part(&self, op: Operation, name: &str, part: Bytes) -> Result<(), Failure> {
        let boundary = format!("part-{}", uuid::Uuid::new_v4().simple());
        let body = form(&boundary, name, &part);
        let path: &[&str] = match self.pool.old {
            true => &["files", "upload"],
            false => &["files"],
        };
        let kind = format!("multipart/form-data; boundary={boundary}");
        let mut request = Request::new(Method::POST, path).with_body(kind, body.into());
        if self.pool.kind == SessionKind::Shell {
            request.query.push(("path", HOME.into()));
        }
        // The same bytes under the same name: once or twice is the same.
        request.repeat = true;
        request.timeout = Duration::from_secs(600);
        let answer = parse(op, &self.send(op, request).await?.body)?;
        let first = match &answer {
            Value::Array(all) => &all[0],
            one if one["value"].is_array() => &one["value"][0],
            one => one,
        };
        let written = match self.pool.old {
            true => first["properties"]["size"].as_u64(),
            false => first["sizeInBytes"].as_u64(),
        };
        match written {
            Some(size) if size == part.len() as u64 => Ok(()),
            _ => Err(Failure::garbled(op)),
        }
    }

    /// Prelude of a line: uploads that it names put in place, stale files cleared away.
    pub(super) fn prelude(&self, line: &str) -> String {
        let mut text = String::new();
        let stale_dirs = std::mem::take(&mut *locked(&self.stale_dirs));
        if !stale_dirs.is_empty() {
            text.push_str(&format!("rm -rf {}\n", stale_dirs.join(" ")));
        }
        for Arrived { dir, path, parts } in locked(&self.arrived).iter() {
            if line.contains(dir.as_str()) {
                let (all, first) = (parts.join(" "), parts.first().map_or("", String::as_str));
                text.push_str(&format!(
                    "if [ -e {first} ]; then mkdir -p {dir}; cat {all} > {path}.new && mv {path}.new {path} && rm -f {all}; fi\n"
                ));
            }
        }
        text
    }

    /// Lines that name these directories came through: their uploads are in place.
    pub(super) fn placed(&self, line: &str) {
        locked(&self.arrived).retain(|file| !line.contains(file.dir.as_str()));
    }

    /// Place at which a file in one of our directories can be fetched.
    pub(super) fn nested(&self, path: &str) -> Place {
        let (dir, name) = path.rsplit_once('/').unwrap_or((HOME, path));
        let dir = match self.pool.kind {
            SessionKind::Shell => dir,
            SessionKind::Python => dir.strip_prefix(HOME).unwrap_or(dir).trim_matches('/'),
        };
        let query = vec![
            ("identifier", self.identifier.expose()),
            ("path", dir.to_owned()),
        ];
        (vec!["files".into(), name.into(), "content".into()], query)
    }

    /// Place of a file in the old shape, which knows no directories: under a name of its own.
    pub(super) fn flat(&self, path: &str) -> Place {
        let query = vec![("identifier", self.identifier.expose())];
        (vec!["files".into(), "content".into(), flat(path)], query)
    }

    /// Removed by the next line.
    pub(super) fn drop_later<const N: usize>(&self, paths: [String; N]) {
        locked(&self.stale_dirs).extend(paths);
    }

    /// Only our own files are asked for: one that is not there went with its session.
    pub(super) fn missed(&self, op: Operation, failure: Failure) -> Failure {
        match failure.title.as_str() {
            "FileNotFound" => self.gone(op),
            _ => full(failure),
        }
    }

    /// An answer to a request for a file: its session must be the one that made it.
    pub(super) fn same(&self, op: Operation, answer: Answer) -> Result<Answer, Failure> {
        let fresh = answer.headers.get("x-ms-new-allocation");
        match fresh.is_some_and(|value| value == "true") {
            true => Err(self.gone(op)),
            false => Ok(answer),
        }
    }
}

impl Pool {
    /// Ends a session; one that has ended already is fine.
    pub(crate) async fn delete(
        &self,
        op: Operation,
        identifier: &Identifier,
    ) -> Result<(), Failure> {
        let mut request = Request::new(Method::DELETE, &["session"]);
        request.query.push(("identifier", identifier.expose()));
        match self.manage.send(op, request).await {
            Err(failure) if failure.status == Some(404) => Ok(()),
            other => other.map(drop).map_err(full),
        }
    }

    /// The identifiers of the pool's sessions.
    pub(crate) async fn identifiers(&self, op: Operation) -> Result<Vec<Identifier>, Failure> {
        const PAGES: usize = 1000;
        let mut all = Vec::new();
        for _ in 0..PAGES {
            let mut request = Request::new(Method::GET, &["listSessions"]);
            if !all.is_empty() {
                request.query.push(("skip", all.len().to_string()));
            }
            let page = parse(op, &self.manage.send(op, request).await.map_err(full)?)?;
            let Some(sessions) = page["sessions"].as_array() else {
                return Err(Failure::garbled(op));
            };
            let names = sessions.iter().filter_map(|one| one["identifier"].as_str());
            all.extend(names.map(Identifier::known));
            if sessions.is_empty() || !page["nextLink"].is_string() {
                return Ok(all);
            }
        }
        Err(Failure::garbled(op))
    }
}

/// A full pool is told in several ways; it is neither a lost sandbox nor a wrong path.
fn full(failure: Failure) -> Failure {
    if failure.title != "SessionsCountExceedsLimit" {
        return failure;
    }
    let error = Error::new(ErrorKind::RateLimited, failure.error.operation())
        .with_message("the pool has as many sessions as it may")
        .with_hint("close sandboxes, or: az containerapp sessionpool update --max-sessions NUMBER");
    Failure {
        status: Some(429),
        error: error.with_source(failure.error),
        ..failure
    }
}

/// A form with one file in it. The boundary must not be in the file: a random one is not.
pub(crate) fn form(boundary: &str, name: &str, content: &[u8]) -> Vec<u8> {
    let head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    [head.as_bytes(), content, tail.as_bytes()].concat()
}
