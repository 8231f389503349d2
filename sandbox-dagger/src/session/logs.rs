//! Output of commands, as the engine shows it while they run: server-sent events with OpenTelemetry
//! log records in JSON (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>).
//!
//! Invariant: no event is kept that is larger than a bound, and nothing that can't be read is
//! guessed: the stream ends there.

use bytes::{Buf as _, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;

/// The largest event: the engine puts at most 1,000 records of at most 32 KiB into one.
const MAX_EVENT: usize = 64 << 20;

/// Part of what a command wrote.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The step of the query that it belongs to.
    pub(crate) span: String,
    /// Whether it is of standard error.
    pub(crate) is_stderr: bool,
    /// Time at which it was written, in nanoseconds: it never goes back in one stream.
    pub(crate) time: u64,
    pub(crate) text: String,
}

/// The records of one event that belong to one query.
#[derive(Debug)]
pub(crate) struct Event {
    /// The number of its last record in the session.
    pub(crate) last: u64,
    pub(crate) records: Vec<Record>,
}

/// A stream of events.
#[derive(Debug)]
pub(crate) struct Logs {
    body: Incoming,
    buffer: BytesMut,
    /// Number of bytes of the buffer in which no event ends.
    searched: usize,
}

impl Logs {
    pub(crate) fn new(body: Incoming) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
            searched: 0,
        }
    }

    /// The next event, with its records of this trace (in base64); nothing if the stream ended or
    /// can't be read. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self, trace: &str) -> Option<Event> {
        loop {
            let from = self.searched.saturating_sub(1);
            let end = self.buffer[from..]
                .windows(2)
                .position(|two| two == b"\n\n");
            if let Some(end) = end {
                let event = self.buffer.split_to(from + end);
                self.buffer.advance(2);
                self.searched = 0;
                match read(&event, trace)? {
                    Some(event) => return Some(event),
                    None => continue,
                }
            }
            self.searched = self.buffer.len();
            if self.searched > MAX_EVENT {
                return None;
            }
            if let Ok(chunk) = self.body.frame().await?.ok()?.into_data() {
                self.buffer.extend_from_slice(&chunk);
            }
        }
    }
}

/// Reads an event: nothing inside if it has no records, nothing at all if it can't be read.
pub(crate) fn read(event: &[u8], trace: &str) -> Option<Option<Event>> {
    let text = std::str::from_utf8(event).ok()?;
    let field = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    if field("event").map(str::trim) != Some("logs") {
        return Some(None);
    }
    let last = field("id")?.trim().parse().ok()?;
    let data = field("data")?;
    // Events of other queries are not taken apart.
    let records = match data.contains(trace) {
        true => records(&serde_json::from_str(data).ok()?, trace),
        false => Vec::new(),
    };
    Some(Some(Event { last, records }))
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    let list = value.get(name).and_then(Value::as_array);
    list.map(Vec::as_slice).unwrap_or_default().iter()
}

/// A number, which JSON for protocol buffers writes as a string if it has 64 bits.
fn number(value: &Value) -> Option<u64> {
    let text = value.as_str().and_then(|text| text.parse().ok());
    text.or_else(|| value.as_u64())
}

fn records(data: &Value, trace: &str) -> Vec<Record> {
    let resources = list(data, "resourceLogs");
    let scopes = resources.flat_map(|resource| list(resource, "scopeLogs"));
    let records = scopes.flat_map(|scope| list(scope, "logRecords"));
    let ours =
        records.filter(|record| record.get("traceId").and_then(Value::as_str) == Some(trace));
    ours.filter_map(record).collect()
}

fn record(record: &Value) -> Option<Record> {
    let mut attributes = list(record, "attributes");
    let stream = attributes
        .find(|attribute| attribute.get("key").and_then(Value::as_str) == Some("stdio.stream"))?;
    Some(Record {
        span: record.get("spanId")?.as_str()?.to_owned(),
        is_stderr: number(stream.pointer("/value/intValue")?)? == 2,
        time: number(record.get("timeUnixNano")?)?,
        text: record.pointer("/body/stringValue")?.as_str()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As an engine of version 0.21.9 sent it.
    const SEEN: &str = r#"id: 12
event: logs
data: {"resourceLogs":[{"resource":{"attributes":[{"key":"host.name", "value":{"stringValue":"vm"}}]}, "scopeLogs":[{"scope":{"name":"dagger.io/engine.buildkit"}, "logRecords":[{"timeUnixNano":"1796004502674105448", "body":{"stringValue":"err\n"}, "attributes":[{"key":"stdio.stream", "value":{"intValue":"2"}}], "traceId":"CvdlGRbNQ92ESOshHIAxnA==", "spanId":"k/tG9LhqcvY="}]}], "schemaUrl":"https://opentelemetry.io/schemas/1.40.0"}]}"#;

    #[test]
    fn events_of_an_engine_are_read() {
        let event = read(SEEN.as_bytes(), "CvdlGRbNQ92ESOshHIAxnA==");
        let event = event.flatten().expect("an event");
        assert_eq!(event.last, 12);
        let expected = Record {
            span: "k/tG9LhqcvY=".into(),
            is_stderr: true,
            time: 1_796_004_502_674_105_448,
            text: "err\n".into(),
        };
        assert_eq!(event.records, [expected]);
        let other = read(SEEN.as_bytes(), "AAAAAAAAAAAAAAAAAAAAAA==");
        assert!(other.flatten().expect("an event").records.is_empty());
        assert!(
            read(b"id: \nevent: subscribed\ndata", "x")
                .expect("one")
                .is_none()
        );
        assert!(read(b"event: logs\ndata: {}", "x").is_none());
        assert!(read(b"id: 1\nevent: logs\ndata: x {", "x").is_none());
    }
}
