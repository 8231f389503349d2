//! The quirks by name: one table for the command line, the administration and the help.
//!
//! Everything in it can be changed while the emulator runs.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::options::{AutoDeleteFrom, Lists, Options, Restore, RestoredEgress, RetryAfter};
use super::sessions::FullAs;

/// A quirk that can be switched on by its name.
#[derive(Debug)]
pub struct Switch {
    /// The name, on the command line and in `/.emulator/switches`.
    pub name: &'static str,
    /// Effect of the switch.
    pub help: &'static str,
    field: Field,
}

/// Value that a switch is set to.
#[derive(Debug)]
enum Field {
    Flag(fn(&mut Options) -> &mut bool),
    Millis(fn(&mut Options) -> &mut Duration),
    Number(fn(&mut Options) -> &mut Option<u32>),
    /// One of these words, by its place among them.
    Word(
        &'static [&'static str],
        fn(&Options) -> usize,
        fn(&mut Options, usize),
    ),
}

const RETRY_AFTER: &[RetryAfter] = &[
    RetryAfter::Body,
    RetryAfter::Seconds,
    RetryAfter::Millis,
    RetryAfter::Date,
    RetryAfter::Past,
    RetryAfter::Huge,
    RetryAfter::Absent,
];

const LISTS: &[Lists] = &[Lists::Envelope, Lists::Paged, Lists::Bare];

const RESTORE: &[Restore] = &[Restore::Takes, Restore::Ignores, Restore::Refuses];

const RESTORED_EGRESS: &[RestoredEgress] = &[RestoredEgress::Absent, RestoredEgress::Inherited];

const AUTO_DELETE_FROM: &[AutoDeleteFrom] = &[
    AutoDeleteFrom::Suspend,
    AutoDeleteFrom::Creation,
    AutoDeleteFrom::Use,
];

const FULL_AS: &[FullAs] = &[FullAs::TooManyRequests, FullAs::NotFound, FullAs::Bare];

/// The place of what is set among what can be.
fn place<T: PartialEq>(all: &[T], set: &T) -> usize {
    all.iter().position(|one| one == set).unwrap_or(0)
}

macro_rules! switch {
    ($kind:ident, $field:ident, $name:literal, $help:literal) => {
        Switch {
            name: $name,
            help: $help,
            field: Field::$kind(|options| &mut options.$field),
        }
    };
}

/// Every switch.
pub const SWITCHES: &[Switch] = &[
    switch!(
        Flag,
        forbidden,
        "forbidden",
        "the role is missing: 403 to everything"
    ),
    switch!(
        Millis,
        role_after,
        "role-after",
        "403 for so long after the start: the role has not arrived"
    ),
    switch!(
        Millis,
        group_after,
        "group-after",
        "a new group is 404 SandboxGroupNotFound so long"
    ),
    switch!(
        Flag,
        strict_groups,
        "strict-groups",
        "only groups made by the management plane are there"
    ),
    switch!(
        Flag,
        envelope,
        "envelope",
        "lists of the older version come as {value, nextLink}"
    ),
    Switch {
        name: "lists",
        help: "how lists of the newer version come: envelope, paged, bare",
        field: Field::Word(
            &["envelope", "paged", "bare"],
            |options| place(LISTS, &options.lists),
            |options, at| options.lists = LISTS[at],
        ),
    },
    switch!(
        Flag,
        empty_forbidden,
        "empty-forbidden",
        "a 403 has no body"
    ),
    switch!(
        Flag,
        any_scope,
        "any-scope",
        "tokens of either audience fit both versions"
    ),
    switch!(
        Flag,
        strict_versions,
        "strict-versions",
        "an unknown api-version is a 400, and not taken for the older one"
    ),
    switch!(
        Flag,
        plain_created,
        "plain-created",
        "creations of the newer version answer 200, and not 201"
    ),
    switch!(
        Flag,
        bare_deleted,
        "bare-deleted",
        "deletions of the newer version answer 204"
    ),
    switch!(
        Flag,
        stop_async,
        "stop-async",
        "the newer version has stop/async"
    ),
    switch!(
        Flag,
        stop_fails,
        "stop-fails",
        "the next stop ends in StopFailed"
    ),
    switch!(
        Flag,
        input_needs_terminal,
        "input-needs-terminal",
        "a command on a stream gets no input without a terminal"
    ),
    switch!(
        Flag,
        large_frames,
        "large-frames",
        "frames of over 16,384 characters are taken (newer version)"
    ),
    switch!(Number, page, "page", "so many entries on a page"),
    switch!(
        Flag,
        relative_links,
        "relative-links",
        "links to pages and operations have no host"
    ),
    switch!(
        Millis,
        creating,
        "creating",
        "a sandbox is Creating so long"
    ),
    switch!(Millis, hidden, "hidden", "a new sandbox is 404 so long"),
    switch!(
        Millis,
        stopping,
        "stopping",
        "a sandbox is Stopping so long"
    ),
    switch!(
        Millis,
        resuming,
        "resuming",
        "a sandbox is Resuming so long"
    ),
    switch!(
        Millis,
        deleting,
        "deleting",
        "a deleted sandbox is Deleting so long"
    ),
    switch!(Millis, snapshot, "snapshot", "a snapshot takes so long"),
    switch!(
        Millis,
        image_build,
        "image-build",
        "a disk image is Building so long"
    ),
    switch!(
        Flag,
        image_fails,
        "image-fails",
        "the building of disk images fails"
    ),
    switch!(Millis, port_url, "port-url", "a port has no URL so long"),
    switch!(
        Millis,
        gateway,
        "gateway",
        "a command that takes longer is a 504, and goes on"
    ),
    switch!(
        Millis,
        ingress_timeout,
        "ingress-timeout",
        "a request to a container app breaks off after so long"
    ),
    switch!(
        Flag,
        bodyless_stop_hangs,
        "bodyless-stop-hangs",
        "a stop without a body is never answered (older version)"
    ),
    switch!(
        Flag,
        no_exit_code,
        "no-exit-code",
        "what a command returns lacks its exit code"
    ),
    switch!(
        Flag,
        legacy_commit,
        "legacy-commit",
        "a commit is answered as {diskImageId}"
    ),
    switch!(
        Flag,
        ignore_auto_delete,
        "ignore-auto-delete",
        "an autoDeletePolicy at creation is ignored"
    ),
    Switch {
        name: "restore",
        help: "what a restore does with labels, lifecycle, egress policy: takes, ignores, refuses",
        field: Field::Word(
            &["takes", "ignores", "refuses"],
            |options| place(RESTORE, &options.restore),
            |options, at| options.restore = RESTORE[at],
        ),
    },
    Switch {
        name: "restored-egress",
        help: "the egress policy of a restore that was given none: absent, inherited",
        field: Field::Word(
            &["absent", "inherited"],
            |options| place(RESTORED_EGRESS, &options.restored_egress),
            |options, at| options.restored_egress = RESTORED_EGRESS[at],
        ),
    },
    Switch {
        name: "auto-delete-from",
        help: "from when an autoDeletePolicy without a trigger counts: suspend, creation, use",
        field: Field::Word(
            &["suspend", "creation", "use"],
            |options| place(AUTO_DELETE_FROM, &options.auto_delete_from),
            |options, at| options.auto_delete_from = AUTO_DELETE_FROM[at],
        ),
    },
    switch!(Number, capacity, "capacity", "429 beyond so many sandboxes"),
    switch!(
        Number,
        rate,
        "rate",
        "429 beyond so many requests a minute (the service: 600 by its answers, 6000 by its documents)"
    ),
    Switch {
        name: "retry-after",
        help: "how a 429 says when to come again: body, seconds, millis, date, past, huge, absent",
        field: Field::Word(
            &[
                "body", "seconds", "millis", "date", "past", "huge", "absent",
            ],
            |options| place(RETRY_AFTER, &options.retry_after),
            |options, at| options.retry_after = RETRY_AFTER[at],
        ),
    },
    switch!(
        Millis,
        execution_cap,
        "execution-cap",
        "an execution in a session may take so long"
    ),
    switch!(
        Flag,
        answers_running,
        "answers-running",
        "an execution of Python is answered before its end"
    ),
    switch!(
        Number,
        file_cap,
        "file-cap",
        "413 for files of more than so many bytes, in both directions"
    ),
    Switch {
        name: "full-as",
        help: "how a full session pool says so: 429, 404, bare",
        field: Field::Word(
            &["429", "404", "bare"],
            |options| place(FULL_AS, &options.full_as),
            |options, at| options.full_as = FULL_AS[at],
        ),
    },
    switch!(
        Millis,
        arm_operation,
        "arm-operation",
        "an operation of the management plane takes so long"
    ),
    switch!(
        Flag,
        arm_fails,
        "arm-fails",
        "operations of the management plane fail"
    ),
    switch!(
        Flag,
        arm_accepts,
        "arm-accepts",
        "starts, stops and patches are 202 even if done at once"
    ),
    switch!(
        Flag,
        arm_queues,
        "arm-queues",
        "overlapping writes of an app wait (otherwise: 409)"
    ),
    switch!(
        Flag,
        environment_kept,
        "environment-kept",
        "an environment with apps in it is not deleted: 409"
    ),
    switch!(
        Flag,
        image_pull_fails,
        "image-pull-fails",
        "images of apps and jobs can't be pulled"
    ),
    switch!(
        Flag,
        no_detailed_status,
        "no-detailed-status",
        "an execution of a job does not show its exit code"
    ),
    switch!(
        Flag,
        new_principals,
        "new-principals",
        "a role assignment without a principalType is 400"
    ),
    switch!(
        Millis,
        token_life,
        "token-life",
        "tokens of clients and identities are valid so long"
    ),
    switch!(
        Flag,
        refuse_clients,
        "refuse-clients",
        "clients get no token, whatever their secret"
    ),
];

impl Switch {
    /// Returns what its value is called; `None` if it is on or off.
    pub fn value_name(&self) -> Option<&'static str> {
        match self.field {
            Field::Flag(_) => None,
            Field::Millis(_) => Some("MS"),
            Field::Number(_) => Some("N"),
            Field::Word(..) => Some("WORD"),
        }
    }

    /// Sets it: a flag to a boolean, a time to milliseconds, a number to a number or null.
    ///
    /// # Errors
    /// What the value should have been.
    pub fn set(&self, options: &mut Options, value: &Value) -> Result<(), String> {
        let wrong = |what: &str| format!("{} must be {what}, not {value}", self.name);
        match self.field {
            Field::Flag(field) => {
                *field(options) = value.as_bool().ok_or_else(|| wrong("a boolean"))?;
            }
            Field::Millis(field) => {
                let millis = value.as_u64().ok_or_else(|| wrong("milliseconds"))?;
                *field(options) = Duration::from_millis(millis);
            }
            Field::Number(field) => {
                *field(options) = match value {
                    Value::Null => None,
                    value => {
                        let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
                        Some(number.ok_or_else(|| wrong("a number or null"))?)
                    }
                };
            }
            Field::Word(words, _, set) => {
                let at = words.iter().position(|word| value.as_str() == Some(word));
                set(
                    options,
                    at.ok_or_else(|| wrong(&format!("one of {words:?}")))?,
                );
            }
        }
        Ok(())
    }

    /// Sets it from a word of the command line; a flag has none.
    ///
    /// # Errors
    /// What the word should have been.
    pub fn set_word(&self, options: &mut Options, word: Option<&str>) -> Result<(), String> {
        let value = match (&self.field, word) {
            (_, None) => json!(true),
            (Field::Word(..), Some(word)) => json!(word),
            (_, Some(word)) => serde_json::from_str(word).unwrap_or_else(|_| json!(word)),
        };
        self.set(options, &value)
    }

    fn get(&self, options: &Options) -> Value {
        // The table has one way to a field, and that is for writing.
        let mut options = options.clone();
        match self.field {
            Field::Flag(field) => json!(*field(&mut options)),
            Field::Millis(field) => json!(u64::try_from(field(&mut options).as_millis()).ok()),
            Field::Number(field) => json!(*field(&mut options)),
            Field::Word(words, get, _) => json!(words[get(&options)]),
        }
    }
}

/// Returns what every switch is set to.
pub(super) fn all(options: &Options) -> Value {
    let pairs = SWITCHES
        .iter()
        .map(|switch| (switch.name.to_owned(), switch.get(options)));
    Value::Object(pairs.collect::<Map<_, _>>())
}

/// Sets what `changes` names, all of it or nothing.
pub(super) fn apply(options: &mut Options, changes: &Value) -> Result<(), String> {
    let changes = changes.as_object().ok_or("an object of switches")?;
    let mut changed = options.clone();
    for (name, value) in changes {
        let switch = SWITCHES.iter().find(|switch| switch.name == name);
        let switch = switch.ok_or_else(|| format!("there is no switch {name:?}"))?;
        switch.set(&mut changed, value)?;
    }
    *options = changed;
    Ok(())
}
