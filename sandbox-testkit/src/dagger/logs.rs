//! Output of commands, shown while they run: server-sent events with OpenTelemetry records in JSON,
//! in the shape in which an engine of version 0.21.9 sent them.
//!
//! Only commands of queries with a `traceparent` are shown: nothing else can be told apart.
//! Invariant: numbers of records rise, and a record is never changed.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::body::{Body, Bytes, Frame};
use sandbox_core::{CapturedStream, Command, Output, PartialOutput, Result, Sandbox};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::{mpsc, watch};

use super::container::MAX_OUTPUT;
use super::engine::{Engine, SecretValue, lock};
use super::quirks::LiveLogs;

/// Time between two looks at what is new.
const LOOK: Duration = Duration::from_millis(100);
/// Number of records in one event at most.
const BATCH: usize = 1000;

tokio::task_local! {
    /// Trace of the query that is carried out, in base64.
    static TRACE: Option<String>;
}

/// Carries out a query of this trace.
pub(super) async fn traced<T>(parent: Option<&str>, query: impl Future<Output = T>) -> T {
    let digits = parent.and_then(|parent| parent.split('-').nth(1));
    let trace = digits.and_then(|digits| {
        let bytes = digits.as_bytes().chunks(2).map(|two| {
            let two = std::str::from_utf8(two).ok()?;
            u8::from_str_radix(two, 16).ok()
        });
        let bytes: Option<Vec<u8>> = bytes.collect();
        Some(BASE64.encode(bytes.filter(|bytes| bytes.len() == 16)?))
    });
    TRACE.scope(trace, query).await
}

/// Trace of the query that is carried out.
pub(super) fn trace() -> Option<String> {
    TRACE.try_with(Clone::clone).ok().flatten()
}

#[derive(Clone, Debug)]
struct Record {
    number: u64,
    time: u128,
    since: Instant,
    trace: String,
    span: String,
    stream: u8,
    text: String,
    eof: bool,
    /// Shown by a field that gives a stream, not by the command.
    again: bool,
}

/// All records of a session.
#[derive(Debug)]
pub(super) struct Logs {
    records: Mutex<Vec<Record>>,
    count: watch::Sender<u64>,
}

impl Default for Logs {
    fn default() -> Self {
        Self {
            records: Mutex::default(),
            count: watch::Sender::new(0),
        }
    }
}

impl Logs {
    fn add(&self, trace: &str, span: &str, stream: u8, text: &str, eof: bool, again: bool) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let mut records = lock(&self.records);
        let number = records.len() as u64 + 1;
        records.push(Record {
            number,
            time: now.unwrap_or_default().as_nanos(),
            since: Instant::now(),
            trace: trace.to_owned(),
            span: span.to_owned(),
            stream,
            text: text.to_owned(),
            eof,
            again,
        });
        self.count.send_replace(number);
    }

    /// A field of the query gives a stream: it is shown again, as of another step.
    pub(super) fn again(&self, text: &str) {
        if let Some(trace) = trace() {
            let span = BASE64.encode("another!");
            self.add(&trace, &span, 1, text, false, true);
            self.add(&trace, &span, 1, "", true, true);
        }
    }
}

/// Runs a command and shows what it writes.
pub(super) async fn watch(
    engine: &Arc<Engine>,
    child: &dyn Sandbox,
    command: Command,
    trace: String,
    secrets: &[(String, Arc<SecretValue>)],
) -> Result<Output> {
    let started = Instant::now();
    let mut process = child.spawn(command).await?;
    let span = BASE64.encode(engine.unique().to_be_bytes());
    let (out, err) = (process.stdout.take(), process.stderr.take());
    let show = Show {
        engine,
        trace: &trace,
        span: &span,
        secrets,
    };
    let (exit, out, err) = tokio::join!(process.wait(), show.stream(out, 1), show.stream(err, 2));
    for stream in [1, 2] {
        engine.logs.add(&trace, &span, stream, "", true, false);
    }
    Ok(Output::new(
        exit?,
        PartialOutput::new(out, err, started.elapsed()),
    ))
}

struct Show<'a> {
    engine: &'a Engine,
    trace: &'a str,
    span: &'a str,
    secrets: &'a [(String, Arc<SecretValue>)],
}

impl Show<'_> {
    async fn stream(&self, stream: Option<impl AsyncRead + Unpin>, number: u8) -> CapturedStream {
        let mut kept = Vec::new();
        let mut total = 0;
        let mut buffer = vec![0; 32 << 10];
        let Some(mut stream) = stream else {
            return CapturedStream::default();
        };
        while let Ok(read) = stream.read(&mut buffer).await
            && read > 0
        {
            let mut text = String::from_utf8_lossy(&buffer[..read]).into_owned();
            for (_, secret) in self.secrets {
                if !secret.plaintext.is_empty() {
                    text = text.replace(&secret.plaintext, "***");
                }
            }
            let logs = &self.engine.logs;
            logs.add(self.trace, self.span, number, &text, false, false);
            total += read as u64;
            if total <= MAX_OUTPUT {
                kept.extend_from_slice(&buffer[..read]);
            }
        }
        CapturedStream::new(kept, total)
    }
}

/// The body of an answer: events as they come. Dropping it ends what makes them.
pub(super) struct Events(mpsc::Receiver<Bytes>);

impl Body for Events {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(cx)
            .map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Events with the records after this one.
pub(super) fn subscribe(engine: &Arc<Engine>, since: u64) -> Events {
    let (sender, receiver) = mpsc::channel(1);
    let engine = engine.clone();
    tokio::spawn(async move {
        let subscribed = Bytes::from_static(b"id: \nevent: subscribed\ndata\n\n");
        if sender.send(subscribed).await.is_err() {
            return;
        }
        let mut since = since;
        let mut count = engine.logs.count.subscribe();
        loop {
            let quirk = engine.quirks().live_logs;
            let records = new(&engine.logs, since, quirk);
            let Some(last) = records.iter().map(|record| record.number).max() else {
                tokio::select! {
                    () = sender.closed() => return,
                    () = tokio::time::sleep(LOOK) => continue,
                    changed = count.changed() => match changed {
                        // The records of one moment come together.
                        Ok(()) => tokio::time::sleep(LOOK / 10).await,
                        Err(_) => return,
                    },
                }
                continue;
            };
            since = last;
            let event = event(last, &spoiled(records, quirk));
            if sender.send(event.into()).await.is_err() || quirk == LiveLogs::Cut {
                return;
            }
        }
    });
    Events(receiver)
}

fn new(logs: &Logs, since: u64, quirk: LiveLogs) -> Vec<Record> {
    let most = match quirk {
        LiveLogs::Cut => 1,
        _ => BATCH,
    };
    let records = lock(&logs.records);
    let from = usize::try_from(since).unwrap_or(usize::MAX);
    let records = records.iter().skip(from);
    let ripe = records.take_while(|record| match quirk {
        LiveLogs::Late(after) => record.since.elapsed() >= after,
        _ => true,
    });
    ripe.take(most).cloned().collect()
}

/// The records as this quirk has them.
fn spoiled(mut records: Vec<Record>, quirk: LiveLogs) -> Vec<Record> {
    match quirk {
        LiveLogs::Turned => records.reverse(),
        LiveLogs::Lost => records.retain(|record| !record.number.is_multiple_of(3)),
        LiveLogs::Doubled => {
            records = records
                .into_iter()
                .flat_map(|record| [record.clone(), record])
                .collect();
        }
        LiveLogs::Foreign => {
            let other = |record: &Record| Record {
                trace: BASE64.encode([7; 16]),
                text: format!("foreign\n{}", record.text),
                ..record.clone()
            };
            records = records
                .into_iter()
                .flat_map(|record| [other(&record), record])
                .collect();
        }
        LiveLogs::Prompt | LiveLogs::Absent | LiveLogs::Late(_) | LiveLogs::Cut => {}
    }
    records
}

fn event(last: u64, records: &[Record]) -> String {
    let records = records.iter().map(|record| {
        let mut attributes =
            vec![json!({"key": "stdio.stream", "value": {"intValue": record.stream.to_string()}})];
        if record.again {
            attributes.push(json!({"key": "dagger.io/logs.verbose", "value": {"boolValue": true}}));
        }
        if record.eof {
            attributes.push(json!({"key": "stdio.eof", "value": {"boolValue": true}}));
        }
        json!({
            "timeUnixNano": record.time.to_string(),
            "body": {"stringValue": record.text},
            "attributes": attributes,
            "traceId": record.trace,
            "spanId": record.span,
        })
    });
    let data = json!({"resourceLogs": [{
        "resource": {"attributes": [
            {"key": "service.name", "value": {"stringValue": "dagger-engine"}},
        ]},
        "scopeLogs": [{
            "scope": {"name": "dagger.io/engine.buildkit"},
            "logRecords": records.collect::<Vec<_>>(),
        }],
        "schemaUrl": "https://opentelemetry.io/schemas/1.40.0",
    }]});
    format!("id: {last}\nevent: logs\ndata: {data}\n\n")
}
