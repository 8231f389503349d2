//! Options of an emulator: its address and its quirks.
//!
//! Every quirk is off by default: the default is the service on a good day.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::sessions::{FullAs, PoolKind, SessionPool};

/// Behaviour of an emulator.
///
/// What is in [`SWITCHES`](super::SWITCHES) can be changed while it runs; the rest counts when it
/// starts.
///
/// ```
/// use sandbox_testkit::aca::Options;
/// let mut options = Options::default();
/// options.tls = true;
/// assert!(options.listen.ip().is_loopback());
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Address on which it listens. Default: any free port of 127.0.0.1.
    pub listen: SocketAddr,
    /// Whether it speaks TLS with a certificate of its own making.
    pub tls: bool,
    /// Directory for the certificate of its authority; a temporary one if `None`.
    pub certificate: Option<PathBuf>,
    /// Audiences that it accepts in tokens for the data plane.
    pub audiences: Vec<String>,
    /// Destination of the log of requests.
    pub log: Log,
    /// Whether a sandbox whose egress policy allows everything reaches this host's network.
    /// Otherwise none does, whatever the policy says.
    pub allow_network: bool,
    /// Whether every sandbox reaches this host's network, whatever its policy says: what is in it
    /// asks `/.emulator/outside/ID`, which the policy decides about.
    pub asks_outside: bool,
    /// Processes with this in their words go on in a restore, if their client has given them a
    /// limit by which it knows them; a creation is answered when they have asked for the outside.
    /// None if `None`: then a snapshot has no memory.
    pub inherited: Option<String>,
    /// A directory of this host that containers of apps, jobs and session pools see under the same
    /// path: the programs that stand for an image's. None by default.
    pub programs: Option<PathBuf>,
    /// A directory of this host whose files sandboxes of groups begin with, as those of a disk
    /// image; what this host has in `/usr` if `None`.
    pub root: Option<PathBuf>,
    /// Whether a registry is there, with the exchange of tokens that the service's own has; its
    /// images are pulled and run. Debian's program `docker-registry` serves it. Default: no.
    pub registry: bool,

    /// Whether the role assignment is missing: every request is answered with 403.
    pub forbidden: bool,
    /// For how long after the start a role has not arrived: 403 until then.
    pub role_after: Duration,
    /// For how long a new group is answered with 404 `SandboxGroupNotFound`: after it was made by
    /// the management plane, or after the start.
    pub group_after: Duration,
    /// Whether there are only the groups that were made by the management plane; otherwise every
    /// group is there.
    pub strict_groups: bool,
    /// Whether an empty body goes with a 403.
    pub empty_forbidden: bool,
    /// Whether both audiences fit both versions; otherwise the newer one takes only its own.
    pub any_scope: bool,
    /// Whether a version that no document knows is answered with 400; otherwise it is taken for the
    /// older one.
    pub strict_versions: bool,
    /// Whether the newer version answers 200 to what creates, and not 201.
    pub plain_created: bool,
    /// Whether the newer version answers 204 to all that deletes, and not 200 or 202.
    pub bare_deleted: bool,
    /// Whether lists of the older version come as `{value, nextLink}` and not as bare arrays.
    pub envelope: bool,
    /// Form of lists in the newer version.
    pub lists: Lists,
    /// Number of entries in a page of a list; all of them if `None`. A bare array has no pages.
    pub page: Option<u32>,
    /// Whether links to the next page and to operations are relative: a path and a query.
    pub relative_links: bool,
    /// Time that a sandbox is `Creating` before it is `Running`.
    pub creating: Duration,
    /// Time that a new sandbox is answered with 404.
    pub hidden: Duration,
    /// Time that a sandbox is `Stopping`.
    pub stopping: Duration,
    /// Time that a sandbox is `Resuming`.
    pub resuming: Duration,
    /// Time that a deleted sandbox is `Deleting` before it is gone.
    pub deleting: Duration,
    /// Time that a snapshot takes.
    pub snapshot: Duration,
    /// Time that a disk image is `Building` before it is `Ready`.
    pub image_build: Duration,
    /// Whether the building of disk images fails.
    pub image_fails: bool,
    /// Time that a port has no URL.
    pub port_url: Duration,
    /// Time that a command may take before the gateway answers 504; the command goes on.
    pub gateway: Duration,
    /// Whether a `stop` without a body hangs in the older version.
    pub bodyless_stop_hangs: bool,
    /// Whether the newer version has `stop/async` (202).
    pub stop_async: bool,
    /// Whether the next stop ends in `StopFailed`; it is off after that.
    pub stop_fails: bool,
    /// Whether a command on a stream gets no input without a terminal: official clients give none.
    pub input_needs_terminal: bool,
    /// Whether frames of more than 16,384 characters are taken on the newer version's streams.
    pub large_frames: bool,
    /// Session pools that are there from the start. Default: `python` and `shell`.
    pub pools: Vec<SessionPool>,
    /// Time that one execution in a session may take. Default: 220 seconds.
    pub execution_cap: Duration,
    /// Whether a synchronous execution is answered before its end, as `Running`.
    pub answers_running: bool,
    /// The largest upload to a session, in bytes. Default: 128 MiB.
    pub upload_cap: usize,
    /// The largest file that is taken or given in one request, in bytes, of sandboxes and sessions;
    /// none if `None`. A larger one is 413.
    pub file_cap: Option<u32>,
    /// Answer of a session pool that is full.
    pub full_as: FullAs,
    /// Whether what a command returns lacks its exit code.
    pub no_exit_code: bool,
    /// Whether a commit is answered in the old form, `{diskImageId}`.
    pub legacy_commit: bool,
    /// Whether an `autoDeletePolicy` in the body of a creation is ignored: it is not known whether
    /// the service looks at it there.
    pub ignore_auto_delete: bool,
    /// Treatment of what the body of a restore has beside the source: labels, lifecycle, egress
    /// policy. The official client sends none of them.
    pub restore: Restore,
    /// Which egress policy a restore has that was not given one, or whose policy is ignored.
    pub restored_egress: RestoredEgress,
    /// Moment from which the time of an `autoDeletePolicy` without `trigger` counts.
    pub auto_delete_from: AutoDeleteFrom,
    /// Maximum of sandboxes; no limit if `None`.
    pub capacity: Option<u32>,
    /// Requests per minute before 429; no limit if `None`. The service's is 600.
    pub rate: Option<u32>,
    /// Form in which a 429 says when to come again.
    pub retry_after: RetryAfter,
    /// Time that one request to a container app may take: what is not done then breaks off.
    /// Default: 240 seconds.
    pub ingress_timeout: Duration,
    /// Time that an operation of the management plane takes.
    pub arm_operation: Duration,
    /// Whether the operations of the management plane fail.
    pub arm_fails: bool,
    /// Whether starts, stops and patches are answered with 202 even if they are done at once.
    pub arm_accepts: bool,
    /// Whether a write of a container app waits for another one that is under way; it is refused
    /// with 409 otherwise.
    pub arm_queues: bool,
    /// Whether an environment with container apps in it is not deleted; they stay without it
    /// otherwise.
    pub environment_kept: bool,
    /// Whether the images of container apps and jobs can't be pulled.
    pub image_pull_fails: bool,
    /// Whether an execution of a job does not show its exit code, like those of older versions.
    pub no_detailed_status: bool,
    /// Whether principals are new: a role assignment has to say what they are.
    pub new_principals: bool,
    /// Validity of the tokens that clients and identities get. Default: an hour.
    pub token_life: Duration,
    /// Whether clients get no token, whatever their secret.
    pub refuse_clients: bool,
}

/// Destination of the log of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Log {
    /// Nowhere.
    #[default]
    Off,
    /// To standard error.
    Stderr,
    /// To this file, after what it has.
    File(PathBuf),
}

/// Form of lists in the newer version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lists {
    /// `{value, nextLink}`; the link has a `skipToken`.
    #[default]
    Envelope,
    /// An array; the next page is asked for by `page` and `pageSize`.
    Paged,
    /// An array of all.
    Bare,
}

/// Treatment of what the body of a restore has beside the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Restore {
    /// All of it holds.
    #[default]
    Takes,
    /// Labels hold; lifecycle and egress policy are ignored.
    Ignores,
    /// More than the source is answered with 400.
    Refuses,
}

/// Which egress policy a restore has by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestoredEgress {
    /// None: everything may be reached.
    #[default]
    Absent,
    /// Taken from the snapshot's source.
    Inherited,
}

/// Moment from which the time of an `autoDeletePolicy` counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AutoDeleteFrom {
    /// The suspension: what runs is never deleted.
    #[default]
    Suspend,
    /// The creation, whatever uses the sandbox.
    Creation,
    /// The last use.
    Use,
}

/// Form in which a 429 says when to come again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryAfter {
    /// In the body, `retryAfterSeconds`.
    #[default]
    Body,
    /// By a header, in seconds.
    Seconds,
    /// By a header of Azure's own, in milliseconds.
    Millis,
    /// By a header, as a date.
    Date,
    /// By a header, as a date that has passed.
    Past,
    /// By a header, a day from now.
    Huge,
    /// Not at all.
    Absent,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: false,
            certificate: None,
            audiences: vec![
                "https://dynamicsessions.io".into(),
                "https://management.azuredevcompute.io".into(),
            ],
            log: Log::Off,
            allow_network: false,
            asks_outside: false,
            inherited: None,
            programs: None,
            root: None,
            registry: false,
            forbidden: false,
            role_after: Duration::ZERO,
            group_after: Duration::ZERO,
            strict_groups: false,
            empty_forbidden: false,
            any_scope: false,
            strict_versions: false,
            plain_created: false,
            bare_deleted: false,
            envelope: false,
            lists: Lists::default(),
            page: None,
            relative_links: false,
            creating: Duration::ZERO,
            hidden: Duration::ZERO,
            stopping: Duration::ZERO,
            resuming: Duration::ZERO,
            deleting: Duration::ZERO,
            snapshot: Duration::ZERO,
            image_build: Duration::ZERO,
            image_fails: false,
            port_url: Duration::ZERO,
            gateway: Duration::from_secs(600),
            bodyless_stop_hangs: false,
            stop_async: false,
            stop_fails: false,
            input_needs_terminal: false,
            large_frames: false,
            pools: vec![
                SessionPool::new("python", PoolKind::PythonLts),
                SessionPool::new("shell", PoolKind::Shell),
            ],
            execution_cap: Duration::from_secs(220),
            answers_running: false,
            upload_cap: 128 << 20,
            file_cap: None,
            full_as: FullAs::default(),
            no_exit_code: false,
            legacy_commit: false,
            ignore_auto_delete: false,
            restore: Restore::default(),
            restored_egress: RestoredEgress::default(),
            auto_delete_from: AutoDeleteFrom::default(),
            capacity: None,
            rate: None,
            retry_after: RetryAfter::Body,
            ingress_timeout: Duration::from_secs(240),
            arm_operation: Duration::ZERO,
            arm_fails: false,
            arm_accepts: false,
            arm_queues: false,
            environment_kept: false,
            image_pull_fails: false,
            no_detailed_status: false,
            new_principals: false,
            token_life: Duration::from_secs(3600),
            refuse_clients: false,
        }
    }
}
