//! The routes: one table, from which the router and the OpenAPI document are made.

use axum::routing::MethodFilter;
use sandbox_core::Operation;

/// Action of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Health,
    OpenApi,
    Info,
    Create,
    List,
    Attach,
    Destroy,
    ListSnapshots,
    DeleteSnapshot,
    Answer,
    GiveUp,
    Exec,
    Spawn,
    WriteFiles,
    ReadFile,
    ListDir,
    Metadata,
    Remove,
    CreateDir,
    Rename,
    SetWorkdir,
    SetEnv,
    Fork,
    Snapshot,
    Isolation,
    Changes,
    Usage,
    Pause,
    Unpause,
    EgressDecisions,
    RestrictEgress,
    StartJob,
    FindJob,
    ListJobs,
    AskJob,
    ChangeJob,
    ConnectPort,
    OpenRead,
    OpenWrite,
    Watch,
    Release,
    Close,
    Import,
    Export,
    Stdout,
    Stderr,
    Stdin,
    Wait,
    Signal,
    Kill,
    Resize,
    Commit,
    LetGo,
}

/// The methods that routes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Post,
    Delete,
}

impl Verb {
    pub(super) fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Delete => MethodFilter::DELETE,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Delete => "delete",
        }
    }
}

/// A route.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(super) verb: Verb,
    pub(super) path: &'static str,
    pub(super) action: Action,
    pub(super) summary: &'static str,
    /// The schema of the body, by name; `""` without one.
    pub(super) takes: &'static str,
    /// The schema of the answer, by name; `"binary"` for bytes.
    pub(super) gives: &'static str,
}

const fn route(
    verb: Verb,
    path: &'static str,
    action: Action,
    summary: &'static str,
    takes: &'static str,
    gives: &'static str,
) -> Route {
    Route {
        verb,
        path,
        action,
        summary,
        takes,
        gives,
    }
}

use Verb::{Delete, Get, Post};

#[rustfmt::skip]
pub(super) const ROUTES: &[Route] = &[
    route(Get, "/v1/health", Action::Health, "Whether the server runs; needs no token", "", "Nothing"),
    route(Get, "/v1/openapi.json", Action::OpenApi, "This document", "", "Any"),
    route(Get, "/v1/info", Action::Info, "The backend, its capabilities, and the server's own sandbox", "", "Hello"),
    route(Post, "/v1/sandboxes", Action::Create, "Creates a sandbox", "Create", "Handle"),
    route(Post, "/v1/sandboxes/list", Action::List, "Lists open sandboxes by labels", "WithLabels", "Sandboxes"),
    route(Post, "/v1/sandboxes/attach", Action::Attach, "Finds a sandbox by its identifier", "Id", "Handle"),
    route(Post, "/v1/sandboxes/destroy", Action::Destroy, "Closes a sandbox by its identifier", "Id", "Nothing"),
    route(Post, "/v1/snapshots/list", Action::ListSnapshots, "Lists snapshots by labels", "WithLabels", "Snapshots"),
    route(Post, "/v1/snapshots/delete", Action::DeleteSnapshot, "Deletes a snapshot", "Id", "Nothing"),
    route(Get, "/v1/calls/{call}", Action::Answer, "Waits for the answer of a call that was made before", "", "Any"),
    route(Delete, "/v1/calls/{call}", Action::GiveUp, "Gives a call up: ends it, and undoes what it made", "", "Nothing"),
    route(Post, "/v1/sandboxes/{sandbox}/exec", Action::Exec, "Runs a command to its end", "Run", "Output"),
    route(Post, "/v1/sandboxes/{sandbox}/spawn", Action::Spawn, "Starts a command; the name of the call becomes the name of the process", "Run", "Spawned"),
    route(Post, "/v1/sandboxes/{sandbox}/write-files", Action::WriteFiles, "Writes a batch of files: all of it or nothing", "WriteFiles", "Nothing"),
    route(Post, "/v1/sandboxes/{sandbox}/read-file", Action::ReadFile, "Reads a file whole", "ReadFile", "binary"),
    route(Post, "/v1/sandboxes/{sandbox}/list-dir", Action::ListDir, "Lists a directory", "ListDir", "Entries"),
    route(Post, "/v1/sandboxes/{sandbox}/metadata", Action::Metadata, "Describes an entry", "Describe", "Metadata"),
    route(Post, "/v1/sandboxes/{sandbox}/remove", Action::Remove, "Removes an entry", "Remove", "Nothing"),
    route(Post, "/v1/sandboxes/{sandbox}/create-dir", Action::CreateDir, "Creates a directory", "CreateDir", "Nothing"),
    route(Post, "/v1/sandboxes/{sandbox}/rename", Action::Rename, "Renames an entry", "Rename", "Nothing"),
    route(Post, "/v1/sandboxes/{sandbox}/set-workdir", Action::SetWorkdir, "Changes where relative paths and commands start", "Path", "Handle"),
    route(Post, "/v1/sandboxes/{sandbox}/set-env", Action::SetEnv, "Changes the environment of later commands", "SetEnv", "Nothing"),
    route(Post, "/v1/sandboxes/{sandbox}/fork", Action::Fork, "Makes an independent sandbox with the same files", "Fork", "Handle"),
    route(Post, "/v1/sandboxes/{sandbox}/snapshot", Action::Snapshot, "Keeps the files under a name", "TakeSnapshot", "Snapshot"),
    route(Post, "/v1/sandboxes/{sandbox}/isolation", Action::Isolation, "Tells which isolation is in force", "Nothing", "Isolation"),
    route(Post, "/v1/sandboxes/{sandbox}/changes", Action::Changes, "Tells what differs in a directory from the files that the sandbox began with", "Differ", "Changes"),
    route(Post, "/v1/sandboxes/{sandbox}/usage", Action::Usage, "Tells what the sandbox uses at the moment", "Nothing", "Usage"),
    route(Post, "/v1/sandboxes/{sandbox}/pause", Action::Pause, "Holds everything in the sandbox still", "Nothing", "Nothing"),
    route(Post, "/v1/sandboxes/{sandbox}/resume", Action::Unpause, "Lets everything go on that a pause held still", "Nothing", "Nothing"),
    route(Post, "/v1/sandboxes/{sandbox}/egress-decisions", Action::EgressDecisions, "Tells what was decided about names and connections, after a number", "After", "EgressDecisions"),
    route(Post, "/v1/sandboxes/{sandbox}/restrict-egress", Action::RestrictEgress, "Narrows the egress policy", "Policy", "Nothing"),
    route(Post, "/v1/sandboxes/{sandbox}/start-job", Action::StartJob, "Starts a command under a key, once", "StartJob", "Job"),
    route(Post, "/v1/sandboxes/{sandbox}/find-job", Action::FindJob, "Finds a job by its key", "Key", "Job"),
    route(Post, "/v1/sandboxes/{sandbox}/list-jobs", Action::ListJobs, "Lists the jobs", "Nothing", "Jobs"),
    route(Post, "/v1/sandboxes/{sandbox}/ask-job", Action::AskJob, "Asks a job how far it is, for its log or its end, or gives it input: what may be asked again", "AskJob", "Any"),
    route(Post, "/v1/sandboxes/{sandbox}/change-job", Action::ChangeJob, "Signals, stops or forgets a job", "AskJob", "Nothing"),
    route(Post, "/v1/sandboxes/{sandbox}/connect-port", Action::ConnectPort, "Connects to a port in the sandbox: the name of the call becomes that of a process whose input and output are the connection", "Port", "Nothing"),
    route(Post, "/v1/sandboxes/{sandbox}/open-read", Action::OpenRead, "Opens a file for reading: the name of the call becomes that of a process whose output is the file", "OpenRead", "Opened"),
    route(Post, "/v1/sandboxes/{sandbox}/open-write", Action::OpenWrite, "Opens a new file for writing: the name of the call becomes that of a process whose input is the file; nothing is there before its commit", "OpenWrite", "Nothing"),
    route(Post, "/v1/sandboxes/{sandbox}/watch", Action::Watch, "Watches a directory: the name of the call becomes that of a process whose output are the events, a line of JSON each, and an empty line behind those that belong together", "Watch", "Nothing"),
    route(Post, "/v1/sandboxes/{sandbox}/release", Action::Release, "Lets go of a lasting sandbox, once for each time that it was created or attached to: then it is stopped, and can be attached to again", "Nothing", "Nothing"),
    route(Post, "/v1/sandboxes/{sandbox}/close", Action::Close, "Ends the sandbox", "Nothing", "Nothing"),
    route(Post, "/v1/sandboxes/{sandbox}/import", Action::Import, "Brings a tar archive into a directory; the body is the length of a head (four bytes, big-endian), the head (JSON, Import) and the archive", "binary", "Imported"),
    route(Post, "/v1/sandboxes/{sandbox}/export", Action::Export, "Gives a directory out; frames, whose data are the length of a head, the head (JSON, Exported) and a tar archive", "Export", "binary"),
    route(Get, "/v1/processes/{process}/stdout", Action::Stdout, "Standard output from the byte `from` on, in frames: what comes before is forgotten", "", "binary"),
    route(Get, "/v1/processes/{process}/stderr", Action::Stderr, "Standard error from the byte `from` on, in frames", "", "binary"),
    route(Post, "/v1/processes/{process}/stdin", Action::Stdin, "Writes input that starts at the byte `offset`; `end` closes it", "binary", "Taken"),
    route(Post, "/v1/processes/{process}/wait", Action::Wait, "Waits for the end of a process, for a time", "Nothing", "Waited"),
    route(Post, "/v1/processes/{process}/signal", Action::Signal, "Sends a signal", "SendSignal", "Nothing"),
    route(Post, "/v1/processes/{process}/resize", Action::Resize, "Changes the size of a terminal", "Resize", "Nothing"),
    route(Post, "/v1/processes/{process}/commit", Action::Commit, "Puts a file in place that was written", "Commit", "Nothing"),
    route(Post, "/v1/processes/{process}/kill", Action::Kill, "Kills a process and everything it started", "Nothing", "Nothing"),
    route(Delete, "/v1/processes/{process}", Action::LetGo, "Lets go of a process: it is killed, unless it has ended", "", "Nothing"),
];

impl Action {
    /// The operation that an error of this route names.
    pub(super) fn operation(self) -> Operation {
        match self {
            Self::Create => Operation::Create,
            Self::List => Operation::List,
            Self::Attach => Operation::Attach,
            Self::Destroy => Operation::Destroy,
            Self::ListSnapshots => Operation::ListSnapshots,
            Self::DeleteSnapshot => Operation::DeleteSnapshot,
            Self::Exec => Operation::Exec,
            Self::Spawn => Operation::Spawn,
            Self::WriteFiles => Operation::WriteFiles,
            Self::ReadFile => Operation::ReadFile,
            Self::ListDir => Operation::ListDir,
            Self::Metadata => Operation::Metadata,
            Self::Remove => Operation::Remove,
            Self::CreateDir => Operation::CreateDir,
            Self::Rename => Operation::Rename,
            Self::SetWorkdir => Operation::SetWorkdir,
            Self::SetEnv => Operation::SetEnv,
            Self::Fork => Operation::Fork,
            Self::Snapshot => Operation::Snapshot,
            Self::Isolation => Operation::Isolation,
            Self::Changes => Operation::Changes,
            Self::Usage => Operation::Usage,
            Self::Pause => Operation::Pause,
            Self::Unpause => Operation::Resume,
            Self::EgressDecisions => Operation::EgressDecisions,
            Self::RestrictEgress => Operation::RestrictEgress,
            Self::StartJob => Operation::StartJob,
            Self::FindJob | Self::AskJob => Operation::FindJob,
            Self::ListJobs => Operation::ListJobs,
            Self::ChangeJob => Operation::StopJob,
            Self::ConnectPort => Operation::ConnectPort,
            Self::OpenRead => Operation::OpenRead,
            Self::OpenWrite | Self::Commit => Operation::OpenWrite,
            Self::Watch => Operation::Watch,
            Self::Close | Self::Release => Operation::Close,
            Self::Import => Operation::ImportDir,
            Self::Export => Operation::ExportDir,
            Self::Stdout | Self::Stderr | Self::Stdin | Self::Wait | Self::LetGo => {
                Operation::Spawn
            }
            Self::Signal | Self::Kill => Operation::Signal,
            Self::Resize => Operation::Resize,
            Self::Health | Self::OpenApi | Self::Info | Self::Answer | Self::GiveUp => {
                Operation::Connect
            }
        }
    }

    /// Whether a call of it has a name, by which it is found when it comes again.
    pub(super) fn is_named(self) -> bool {
        use Action::*;
        matches!(
            self,
            Create
                | Destroy
                | DeleteSnapshot
                | Exec
                | Spawn
                | WriteFiles
                | Remove
                | CreateDir
                | Rename
                | SetWorkdir
                | SetEnv
                | Fork
                | Snapshot
                | Pause
                | Unpause
                | RestrictEgress
                | StartJob
                | ChangeJob
                | ConnectPort
                | OpenRead
                | OpenWrite
                | Watch
                | Commit
                | Close
                | Release
                | Import
                | Signal
        )
    }
}
