//! Rules on what a caller may do to a sandbox: paths, programs, approvals.
//!
//! It must never let a call through because it does not know it, and never bind `close` or
//! `destroy`.

mod patterns;
mod workdirs;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sandbox_core::layer::{Answer, Around, Attempt, Call, Request, Target};
use sandbox_core::{
    Command, Error, ErrorKind, Execution, GuestPath, Operation, Result, SandboxId, async_trait,
};

use patterns::Patterns;
use workdirs::{Held, Workdirs};

/// A policy on what is asked of a sandbox. Without a rule, everything is allowed.
///
/// Paths are glob patterns on absolute paths (`*` within a name, `**` over directories, `?`, `[…]`,
/// `{a,b}`); a path is resolved against the workdir first, `..` included. `/dir/**` means the
/// directory itself too. Denied is stronger than asked, and asked than allowed; once something is
/// allowed by pattern, everything else of its sort is denied. An operation on a whole tree (a
/// recursive list or removal, an import, an export, a rename of a directory) is refused if a denied
/// path could lie in it. While a call with a relative path is under way, the workdir can't be changed
/// ([`Busy`](ErrorKind::Busy)), nor does one begin while it is being changed: what was judged, or approved
/// by a person, is what is done.
///
/// Programs are patterns too: on the program's path if the pattern has a `/`, otherwise on its
/// name. A path is taken from the command's working directory. A denied or asked path without wildcards
/// also means its name alone, which `PATH` would find there; an allowed one is only what is written as
/// an absolute or relative path without `..`. Deny by name what must not run: a directory may have
/// a second name, as `/bin` is `/usr/bin`.
///
/// # What it is not
///
/// It binds the caller of the API, such as an agent's file tools. It does not bind programs in the
/// sandbox: those may read and write whatever the sandbox's user may, and through a shell or an
/// interpreter run every other program. Nor does it look through links that a program made. What is
/// not to be had in the sandbox must not be brought into it.
///
/// ```
/// # fn main() -> Result<(), sandbox_core::Error> {
/// use sandbox_layers::Policy;
/// let policy = Policy::new()
///     .allow_write("/workspace/**")?
///     .deny_write("/workspace/.git/**")?
///     .deny_read("**/.env")?
///     .allow_program("cargo")?
///     .ask_program("git")?;
/// # let _ = policy;
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct Policy {
    rules: Arc<Rules>,
    workdirs: Workdirs,
}

#[derive(Clone, Default)]
struct Rules {
    read: Sort,
    write: Sort,
    program: Sort,
    read_only: bool,
    approver: Option<Arc<dyn Approver>>,
    approval_timeout: Option<Duration>,
}

/// The patterns of one sort of subjects.
#[derive(Clone, Debug, Default)]
struct Sort {
    allow: Patterns,
    deny: Patterns,
    ask: Patterns,
}

/// Asked before a call that the policy does not decide by itself.
#[async_trait]
pub trait Approver: Send + Sync + 'static {
    /// Decides; it may take its time. The future is dropped when the caller drops the call.
    async fn decide(&self, question: Question) -> Verdict;
}

/// A call that an [`Approver`] decides on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Question {
    /// Operation that is asked for.
    pub operation: Operation,
    /// The sandbox that it is about.
    pub sandbox: Option<SandboxId>,
    /// The path or program because of which it is asked.
    pub subject: String,
    /// The argument vector of a command, for a person to read. It may hold secrets.
    pub argv: Option<Vec<String>>,
}

/// Decision of an [`Approver`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The call is made.
    Allow,
    /// The call is refused, for this reason.
    Deny(String),
}

/// The source of an error by which a policy refuses a call.
///
/// ```
/// use std::error::Error as _;
/// # let error = sandbox_core::Error::new(sandbox_core::ErrorKind::PermissionDenied, sandbox_core::Operation::ReadFile);
/// let by_policy = error.source().is_some_and(|source| source.is::<sandbox_layers::Refused>());
/// # assert!(!by_policy);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(String);

impl Refused {
    /// Why.
    pub fn reason(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the policy refuses it: {}", self.0)
    }
}

impl std::error::Error for Refused {}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("read", &self.rules.read)
            .field("write", &self.rules.write)
            .field("program", &self.rules.program)
            .field("read_only", &self.rules.read_only)
            .finish_non_exhaustive()
    }
}

macro_rules! pattern {
    ($($(#[$doc:meta])* $name:ident: $sort:ident.$list:ident, $checked:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// [`ErrorKind::InvalidInput`] for a pattern that can't be one.
        pub fn $name(mut self, pattern: &str) -> Result<Self> {
            patterns::$checked(pattern)?;
            Arc::make_mut(&mut self.rules).$sort.$list.add(pattern)?;
            Ok(self)
        }
    )*};
}

impl Policy {
    /// A policy that allows everything.
    pub fn new() -> Self {
        Self::default()
    }

    pattern! {
        /// Allows reading what matches, and no longer anything else.
        allow_read: read.allow, path;
        /// Refuses reading what matches.
        deny_read: read.deny, path;
        /// Asks the approver before what matches is read.
        ask_read: read.ask, path;
        /// Allows writing what matches, and no longer anything else.
        allow_write: write.allow, path;
        /// Refuses writing what matches.
        deny_write: write.deny, path;
        /// Asks the approver before what matches is written.
        ask_write: write.ask, path;
        /// Allows running what matches, and no longer anything else.
        allow_program: program.allow, program;
        /// Refuses running what matches.
        deny_program: program.deny, program;
        /// Asks the approver before what matches is run.
        ask_program: program.ask, program;
    }

    /// Allows looking only: reading, listing, exporting, the isolation report. Nothing is run,
    /// since a program could write; no job is found, since what finds it can stop it and write to it; a
    /// provider deletes no snapshot.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        Arc::make_mut(&mut self.rules).read_only = true;
        self
    }

    /// Asks this one. Without an approver, what would be asked is refused.
    #[must_use]
    pub fn approver(mut self, approver: impl Approver) -> Self {
        Arc::make_mut(&mut self.rules).approver = Some(Arc::new(approver));
        self
    }

    /// Refuses what the approver has not decided after this time. Default: it may take forever.
    #[must_use]
    pub fn approval_timeout(mut self, timeout: Duration) -> Self {
        Arc::make_mut(&mut self.rules).approval_timeout = Some(timeout);
        self
    }

    /// Judges a call by the rules.
    fn judge(&self, call: &Call<'_>) -> Judgement {
        let rules = &*self.rules;
        let looks = matches!(
            call.request,
            Request::ReadFile(..)
                | Request::ListDir(..)
                | Request::Metadata(..)
                | Request::OpenRead(..)
                | Request::ExportDir(..)
                | Request::Changes(..)
                | Request::Watch(..)
                | Request::Usage
                | Request::EgressDecisions(_)
                | Request::ListJobs
                | Request::Isolation
        );
        let Target::Sandbox(sandbox) = call.target else {
            if rules.read_only && matches!(call.request, Request::DeleteSnapshot(_)) {
                return Judgement::Deny("it allows looking only".to_owned());
            }
            // What a provider is asked for has no path in a sandbox that exists.
            return Judgement::Allow;
        };
        if rules.read_only && !looks {
            return Judgement::Deny(format!("it allows looking only, not {}", call.operation()));
        }
        let mut judgement = Judgement::Allow;
        let workdir = sandbox.info().workdir;
        if let Some(command) = call.command() {
            let program = Program::of(command, &workdir, call.operation());
            judgement = judgement.and(rules.program.judge_program(&program));
        }
        let sort = if looks { &rules.read } else { &rules.write };
        // Where a command starts is no read and no write.
        if call.command().is_some() || matches!(call.request, Request::SetWorkdir(_)) {
            return judgement;
        }
        let tree = match call.request {
            Request::ListDir(_, options) => options.recursive,
            Request::Remove(_, options) => options.recursive,
            Request::ReadFile(..)
            | Request::OpenRead(..)
            | Request::OpenWrite(..)
            | Request::Metadata(..)
            | Request::WriteFiles(_)
            | Request::CreateDir(..) => false,
            _ => true,
        };
        for path in call.paths() {
            let Ok(path) = path.resolve(&workdir, call.operation()) else {
                // The backend refuses it with the reason.
                continue;
            };
            judgement = judgement.and(sort.judge_path(&path, tree));
            if matches!(call.request, Request::Rename(..)) {
                // What is renamed is read as much as it is written.
                judgement = judgement.and(rules.read.judge_path(&path, tree));
            }
        }
        judgement
    }

    /// Holds the workdir still for a call that the rules can't judge without it, and is still there for the
    /// backend.
    fn hold(&self, call: &Call<'_>) -> Result<Option<Held>> {
        let rules = &*self.rules;
        let Target::Sandbox(sandbox) = call.target else {
            return Ok(None);
        };
        let dependent = match call.command() {
            Some(command) => {
                let program = command.program();
                let is_relative = program.contains(&b'/') && !program.starts_with(b"/");
                is_relative && !rules.program.is_empty()
            }
            None => {
                let has_rules = !rules.read.is_empty() || !rules.write.is_empty();
                has_rules && call.paths().iter().any(|path| !path.is_absolute())
            }
        };
        let (held, why) = match call.request {
            Request::SetWorkdir(_) => (
                self.workdirs.change(sandbox.info().id),
                "a call whose path is relative to the workdir is under way",
            ),
            _ if dependent => (
                self.workdirs.depend(sandbox.info().id),
                "the workdir that its path is relative to is being changed",
            ),
            _ => return Ok(None),
        };
        held.map(Some).ok_or_else(|| {
            Error::new(ErrorKind::Busy, call.operation())
                .with_message(why)
                .with_sandbox(sandbox.info().id)
                .with_hint("try again, or use an absolute path")
                .with_retryable(true)
        })
    }

    async fn ask(&self, call: &Call<'_>, subject: String) -> std::result::Result<(), String> {
        let Some(approver) = &self.rules.approver else {
            return Err(format!(
                "{subject} needs an approval, and there is no approver"
            ));
        };
        let argv = call.command().map(|command| {
            let argv = command.argv().iter();
            argv.map(|arg| String::from_utf8_lossy(arg).into_owned())
                .collect()
        });
        let question = Question {
            operation: call.operation(),
            sandbox: call.sandbox_id(),
            subject: subject.clone(),
            argv,
        };
        let late = self.rules.approval_timeout;
        if late.is_some() {
            let checked = sandbox_core::backend::require_time(call.operation());
            checked.map_err(|error| format!("{subject} can't be asked for: {error}"))?;
        }
        let verdict = match late {
            Some(timeout) => tokio::time::timeout(timeout, approver.decide(question))
                .await
                .map_err(|_| format!("{subject} was not approved within {timeout:?}"))?,
            None => approver.decide(question).await,
        };
        match verdict {
            Verdict::Allow => Ok(()),
            Verdict::Deny(reason) => Err(format!("{subject} was not approved: {reason}")),
        }
    }
}

/// Judgement of rules on a call.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Allow,
    Ask(String),
    Deny(String),
}

impl Judgement {
    /// The stricter of two.
    fn and(self, other: Self) -> Self {
        match (&self, &other) {
            (Self::Deny(_), _) | (Self::Ask(_), Self::Allow | Self::Ask(_)) => self,
            _ => other,
        }
    }
}

impl Sort {
    fn is_empty(&self) -> bool {
        [&self.allow, &self.deny, &self.ask]
            .into_iter()
            .all(Patterns::is_empty)
    }

    fn judge_path(&self, path: &GuestPath, tree: bool) -> Judgement {
        let shown = path.to_string_lossy().into_owned();
        if let Some(pattern) = self.deny.hit(&shown, tree) {
            return Judgement::Deny(format!("{shown} is denied by {pattern:?}"));
        }
        if !self.allow.is_empty() && !self.allow.allows(&shown, tree) {
            return Judgement::Deny(format!("{shown} is not among what is allowed"));
        }
        match self.ask.hit(&shown, tree) {
            Some(_) => Judgement::Ask(shown),
            None => Judgement::Allow,
        }
    }

    fn judge_program(&self, program: &Program) -> Judgement {
        let shown = &program.written;
        if let Some(pattern) = self.deny.could_run(&program.resolved) {
            return Judgement::Deny(format!("the program {shown} is denied by {pattern:?}"));
        }
        if self.ask.could_run(&program.resolved).is_some() {
            return Judgement::Ask(shown.clone());
        }
        if self.allow.is_empty() {
            return Judgement::Allow;
        }
        if program.goes_up {
            let why = "has .. in its path, which is never among those allowed";
            return Judgement::Deny(format!("the program {shown} {why}"));
        }
        match self.allow.program(&program.resolved) {
            Some(_) => Judgement::Allow,
            None => Judgement::Deny(format!("the program {shown} is not among those allowed")),
        }
    }
}

/// The program of a command, as rules see it.
struct Program {
    written: String,
    /// A name without a slash, or an absolute path without dots.
    resolved: String,
    /// Whether it is written with `..`, which the kernel follows after links.
    goes_up: bool,
}

impl Program {
    fn of(command: &Command, workdir: &GuestPath, operation: Operation) -> Self {
        let written = String::from_utf8_lossy(command.program()).into_owned();
        let goes_up = written.split('/').any(|part| part == "..");
        let absolute = || {
            let start = match &command.cwd {
                Some(cwd) => cwd.resolve(workdir, operation).ok()?,
                None => workdir.clone(),
            };
            let path = GuestPath::from(written.as_str());
            path.resolve(&start, operation).ok()
        };
        let resolved = match written.contains('/') {
            // What is no path at all the backend refuses.
            true => absolute().map_or_else(|| written.clone(), |path| path.to_string()),
            false => written.clone(),
        };
        Self {
            written,
            resolved,
            goes_up,
        }
    }
}

impl Around for Policy {
    async fn around<T: Answer>(&self, call: Call<'_>, attempt: Attempt<'_, T>) -> Result<T> {
        if matches!(call.request, Request::Close | Request::Destroy(_)) {
            return attempt().await;
        }
        let not_started = |error: Error| match call.command() {
            Some(_) => error.with_execution(Execution::NotStarted),
            None => error,
        };
        let _held = self.hold(&call).map_err(not_started)?;
        let refused = match self.judge(&call) {
            Judgement::Allow => None,
            Judgement::Deny(reason) => Some(reason),
            Judgement::Ask(subject) => self.ask(&call, subject).await.err(),
        };
        let Some(reason) = refused else {
            return attempt().await;
        };
        let refused = Refused(reason);
        let mut error = Error::new(ErrorKind::PermissionDenied, call.operation())
            .with_message(refused.to_string())
            .with_source(refused);
        if let Some(id) = call.sandbox_id() {
            error = error.with_sandbox(id);
        }
        Err(not_started(error))
    }
}
