//! The wire protocol as types: what a body holds, in JSON, with bytes in base64.
//!
//! It must never print a secret: types that hold variables, input or content have no `Debug`.
//!
//! A value is a type of the core where that can be serialised as it is. It has a type of its own
//! here where the core refuses (secrets), where JSON would be long (bytes), and where serde can't
//! say it (times before 1970).

mod capabilities;
mod changes;
mod command;
mod failure;
mod files;
mod jobs;

pub(crate) use capabilities::Supports;
pub(crate) use changes::{Differ, WireChanges};
#[cfg(feature = "server")]
pub(crate) use command::environment;
#[cfg(feature = "client")]
pub(crate) use command::variables;
pub(crate) use command::{Run, Variable, WireOutput};
pub(crate) use failure::Problem;
#[cfg(feature = "server")]
pub(crate) use files::batch;
#[cfg(feature = "client")]
pub(crate) use files::files;
pub(crate) use files::{Entry, WireFile, WireMetadata};
pub(crate) use jobs::{Ask, AskJob, Jobs, Key, StartJob, WireLog};

use bytes::Bytes;
use sandbox_core::{
    CreateDirOptions, EgressPolicy, Exit, ExportOptions, ForkOptions, GuestPath, ImportOptions,
    Labels, ListOptions, MetadataOptions, OpenReadOptions, OpenWriteOptions, ReadOptions,
    RemoveOptions, RenameOptions, SandboxInfo, SandboxSpec, Snapshot, SnapshotOptions,
    TerminalSize, TransferReport, WatchOptions,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The version of the protocol, in the header [`PROTOCOL_HEADER`] of every answer.
pub(crate) const PROTOCOL: &str = "1";

/// Says that an answer is a server's of this protocol, and not one of something before it.
pub(crate) const PROTOCOL_HEADER: &str = "sandbox-protocol";
/// The client's name for one call: a repeated one is found, not run again.
pub(crate) const REQUEST_ID: &str = "sandbox-request-id";
/// Names one start of a server; its tables are empty after the next.
pub(crate) const INSTANCE: &str = "sandbox-instance";
/// The server's own token, where `authorization` belongs to what stands before it.
pub(crate) const OWN_TOKEN: &str = "sandbox-authorization";

/// Number of bytes of one stream that a server keeps for a client that has not confirmed them.
pub(crate) const WINDOW: usize = 1 << 20;

/// The kinds of frames of an output stream: a byte, the length in four bytes, big-endian, and so
/// many bytes.
pub(crate) mod frame {
    /// Bytes of the stream.
    pub(crate) const DATA: u8 = b'D';
    /// The stream has ended.
    pub(crate) const END: u8 = b'E';
    /// The connection lives.
    pub(crate) const HEARTBEAT: u8 = b'H';
    /// End of what may be sent without a confirmation: ask again with the new offset.
    pub(crate) const MORE: u8 = b'M';
    /// Failure, as JSON; nothing follows.
    pub(crate) const ERROR: u8 = b'X';
    /// The length of a frame's head.
    pub(crate) const HEAD: usize = 5;

    /// The head of a frame.
    #[cfg(feature = "server")]
    pub(crate) fn head(kind: u8, length: usize) -> [u8; HEAD] {
        let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        [kind, a, b, c, d]
    }
}

/// Bytes in base64.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Base64(pub(crate) Bytes);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::Engine as _;
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Base64;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes in base64")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Base64, E> {
                let bytes = base64::engine::general_purpose::STANDARD.decode(text);
                // What it says would quote the text.
                let bytes = bytes.map_err(|_| E::custom("not base64"))?;
                Ok(Base64(bytes.into()))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// The body of an answer that is an error.
#[derive(Serialize, Deserialize)]
pub(crate) struct Failed {
    pub(crate) error: Problem,
}

/// Description of a server: the answer to the first request.
#[derive(Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) backend: String,
    pub(crate) capabilities: Supports,
    /// The sandbox that the server was started for, if there is one.
    pub(crate) sandbox: Option<String>,
    pub(crate) instance: String,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Create {
    /// Without its environment.
    pub(crate) spec: SandboxSpec,
    #[serde(default)]
    pub(crate) env: Vec<Variable>,
}

/// Facts that a handle knows of its sandbox.
#[derive(Serialize, Deserialize)]
pub(crate) struct Handle {
    pub(crate) info: SandboxInfo,
    pub(crate) capabilities: Supports,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct After {
    pub(crate) after: u64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Policy {
    /// Without credentials.
    pub(crate) policy: EgressPolicy,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Id {
    pub(crate) id: String,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct WithLabels {
    #[serde(default)]
    pub(crate) labels: Labels,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Sandboxes {
    pub(crate) sandboxes: Vec<SandboxInfo>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Snapshots {
    pub(crate) snapshots: Vec<Snapshot>,
}

/// An empty object: nothing to say.
#[derive(Serialize, Deserialize)]
pub(crate) struct Nothing {}

#[derive(Serialize, Deserialize)]
pub(crate) struct Port {
    pub(crate) port: u16,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct OpenRead {
    pub(crate) path: GuestPath,
    #[serde(default)]
    pub(crate) options: OpenReadOptions,
}

/// A file that is open for reading.
#[derive(Serialize, Deserialize)]
pub(crate) struct Opened {
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) modified: Option<Time>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct OpenWrite {
    pub(crate) path: GuestPath,
    #[serde(default)]
    pub(crate) options: OpenWriteOptions,
}

/// A directory to watch. The events come as lines: each event as JSON, and an empty line behind those
/// that are taken together.
#[derive(Serialize, Deserialize)]
pub(crate) struct Watch {
    pub(crate) path: GuestPath,
    #[serde(default)]
    pub(crate) options: WatchOptions,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Commit {
    /// Every byte that was written: a file of which some are missing is not put in place.
    pub(crate) size: u64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Spawned {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Waited {
    Running,
    Ended(Exit),
}

/// Point up to which a stream of input was taken.
#[derive(Serialize, Deserialize)]
pub(crate) struct Taken {
    pub(crate) offset: u64,
    /// Whether the program does not read on.
    pub(crate) closed: bool,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct SendSignal {
    pub(crate) signal: i32,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Resize {
    pub(crate) size: TerminalSize,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct WriteFiles {
    pub(crate) files: Vec<WireFile>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Path {
    pub(crate) path: GuestPath,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct ReadFile {
    pub(crate) path: GuestPath,
    #[serde(default)]
    pub(crate) options: ReadOptions,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct ListDir {
    pub(crate) path: GuestPath,
    #[serde(default)]
    pub(crate) options: ListOptions,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Describe {
    pub(crate) path: GuestPath,
    #[serde(default)]
    pub(crate) options: MetadataOptions,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Entries {
    pub(crate) entries: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Remove {
    pub(crate) path: GuestPath,
    #[serde(default)]
    pub(crate) options: RemoveOptions,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct CreateDir {
    pub(crate) path: GuestPath,
    #[serde(default)]
    pub(crate) options: CreateDirOptions,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Rename {
    pub(crate) from: GuestPath,
    pub(crate) to: GuestPath,
    #[serde(default)]
    pub(crate) options: RenameOptions,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct SetEnv {
    pub(crate) env: Vec<Variable>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Fork {
    #[serde(default)]
    pub(crate) options: ForkOptions,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct TakeSnapshot {
    #[serde(default)]
    pub(crate) options: SnapshotOptions,
}

/// The head of an import's body; the archive follows. Head: its length in four bytes, big-endian,
/// and JSON.
#[derive(Serialize, Deserialize)]
pub(crate) struct Import {
    pub(crate) to: GuestPath,
    #[serde(default)]
    pub(crate) options: ImportOptions,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Imported {
    pub(crate) report: TransferReport,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Export {
    pub(crate) from: GuestPath,
    #[serde(default)]
    pub(crate) options: ExportOptions,
}

/// The head of an export's answer; the archive follows.
#[derive(Serialize, Deserialize)]
pub(crate) struct Exported {
    /// Report of what the server's side left out.
    pub(crate) report: TransferReport,
    /// Permission bits of the directory itself.
    pub(crate) mode: u32,
    /// Modification time of the directory.
    pub(crate) modified: Option<Time>,
}

/// The most bytes of the head of an import or export.
pub(crate) const MAX_HEAD: usize = 8 << 20;

/// A time: seconds since 1970, negative before, and nanoseconds that are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    #[serde(default)]
    pub(crate) nanoseconds: u32,
}

impl From<std::time::SystemTime> for Time {
    fn from(time: std::time::SystemTime) -> Self {
        let (seconds, nanoseconds) = sandbox_transfer::since_epoch(time);
        Self {
            seconds,
            nanoseconds,
        }
    }
}

impl Time {
    /// Returns the time as the system has it; `None` for one that it can't have.
    pub(crate) fn system(self) -> Option<std::time::SystemTime> {
        sandbox_transfer::from_epoch(self.seconds, self.nanoseconds)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn times_before_1970_survive() {
        for time in [
            UNIX_EPOCH,
            UNIX_EPOCH + Duration::new(7, 5),
            UNIX_EPOCH - Duration::new(7, 5),
            UNIX_EPOCH - Duration::from_secs(1_000_000_000),
        ] {
            assert_eq!(Time::from(time).system(), Some(time));
        }
        let never = Time {
            seconds: i64::MIN,
            nanoseconds: u32::MAX,
        };
        let _ = never.system();
    }

    #[test]
    fn bytes_are_base64_and_what_is_not_does_not_come_back_in_the_error() {
        let text = serde_json::to_string(&Base64(Bytes::from_static(b"\xff\0"))).unwrap();
        assert_eq!(text, "\"/wA=\"");
        let error = serde_json::from_str::<Base64>("\"s3cret!\"").err().unwrap();
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}
