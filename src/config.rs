//! Everything about sandboxes that an operator decides, from a TOML file and the environment.
//!
//! It must never ignore a key, and never fall back to a provider that is not written down.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sandbox_core::layer::{
    CapabilityGuard, ConcurrencyLimit, Layer as _, Retry, Stack, Timeout, Tracing,
};
use sandbox_core::{Error, ErrorKind, Operation, Provider, Result, SandboxSpec};
use sandbox_layers::{Audit, Metered, OnFailure, Policy};
use sandbox_sessions::{Limits, OnIdle, Pool, Sessions, SessionsConfig};
use serde::Deserialize;

use crate::connect::{PROVIDER_VARIABLE, Selection};
use crate::registry::Registry;

/// The variable that names the file which [`Config::from_env`] reads.
pub const CONFIG_VARIABLE: &str = "SANDBOX_CONFIG";

/// Provider, layers, sessions and named specifications.
///
/// ```
/// use sandbox::config::Config;
/// let config = Config::parse(r#"
///     provider = ["dagger:", "local:"]    # the first that works; only what is written here
///
///     [layers]
///     tracing = true
///     retry = 3                           # attempts
///     timeout = 600                       # seconds
///
///     [layers.policy]
///     allow-write = ["/workspace/**"]
///     deny-read = ["**/.env"]
///
///     [sessions]
///     journal = "/var/lib/app/sessions"
///     idle-timeout = 900
///     limits = { total = 200, per-tenant = 5 }
///     pools = [{ spec = "small", size = 4 }]
///
///     [specs.small]
///     resources = { memory = 536870912, pids = 128 }
///     env = { LANG = "C.UTF-8" }
/// "#)?;
/// assert_eq!(config.spec("small")?.resources.pids, Some(128));
///
/// let error = Config::parse("[session]\nlimits = {}").unwrap_err();
/// assert!(error.to_string().contains("did you mean \"sessions\"?"), "{error}");
/// # Ok::<(), sandbox::Error>(())
/// ```
///
/// Times are seconds. A key that is not known is an error that names the nearest one that is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Config {
    /// A URI, or several of which the first that works is taken. Default: `local:`.
    pub provider: Option<Providers>,
    /// Layers around every sandbox.
    pub layers: LayersConfig,
    /// Section on how sessions are kept.
    pub sessions: SessionsSection,
    /// Specifications by name.
    pub specs: BTreeMap<String, SandboxSpec>,
}

/// The URI of a provider, or a chain of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Providers {
    /// A URI, or several with commas between them.
    Uri(String),
    /// The first that works is taken.
    Chain(Vec<String>),
}

/// The layers, each of which is left out unless it is named. Their order is fixed, from the outside
/// in: tracing, audit, metrics, policy, retry, concurrency, timeout, capability guard.
///
/// ```
/// use sandbox::config::Config;
/// let config = Config::parse("[layers]\nretry = 3\ntimeout = 600")?;
/// assert_eq!(config.layers.retry, Some(3));
/// # Ok::<(), sandbox::Error>(())
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct LayersConfig {
    /// Spans and events.
    pub tracing: bool,
    /// A line for each operation.
    pub audit: Option<AuditSection>,
    /// Durations and counts through the `metrics` facade.
    pub metrics: bool,
    /// Paths and programs that are allowed.
    pub policy: Option<PolicySection>,
    /// Number of times that a call is attempted in all.
    pub retry: Option<u32>,
    /// Number of calls that may be under way.
    pub concurrency: Option<usize>,
    /// Seconds that a call may take.
    pub timeout: Option<f64>,
    /// Refuses what the backend does not declare before it sees it.
    pub capability_guard: bool,
}

/// The audit log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct AuditSection {
    /// File that the lines go to.
    pub file: PathBuf,
    /// Whether arguments of commands are recorded.
    #[serde(default)]
    pub argv: bool,
    /// `refuse` (default) or `drop`, if a line can't be written.
    #[serde(default)]
    pub on_failure: OnFailureName,
}

/// Outcome of a call if its line of the audit log can't be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailureName {
    /// [`OnFailure::Refuse`]
    #[default]
    Refuse,
    /// [`OnFailure::Drop`]
    Drop,
}

/// The policy: lists of patterns, as [`Policy`] has them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct PolicySection {
    /// Paths that may be read; all if it is empty.
    pub allow_read: Vec<String>,
    /// Paths that may not be read.
    pub deny_read: Vec<String>,
    /// Paths that may be written; all if it is empty.
    pub allow_write: Vec<String>,
    /// Paths that may not be written.
    pub deny_write: Vec<String>,
    /// Programs that may be run; all if it is empty.
    pub allow_program: Vec<String>,
    /// Programs that may not be run.
    pub deny_program: Vec<String>,
    /// Looking only.
    pub read_only: bool,
}

/// Section on how sessions are kept, as [`SessionsConfig`] has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct SessionsSection {
    /// The directory of the journal.
    pub journal: Option<PathBuf>,
    /// Whether records reach the disk before a call goes on.
    pub sync: Option<bool>,
    /// Limits on the sessions there may be.
    pub limits: Limits,
    /// Seconds without use after which a session ends.
    pub idle_timeout: Option<f64>,
    /// Seconds after which a session ends.
    pub max_life: Option<f64>,
    /// `close` (default) or `suspend`, after the idle timeout.
    pub on_idle: OnIdle,
    /// Seconds between two comparisons with the backend.
    pub sweep_every: Option<f64>,
    /// Sandboxes that are created ahead, by the names of their specifications.
    pub pools: Vec<PoolSection>,
}

/// A shape of sandboxes that are created ahead.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct PoolSection {
    /// A name among the specifications.
    pub spec: String,
    /// Number of sandboxes that are kept ready.
    pub size: usize,
}

fn invalid(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, Operation::Connect).with_message(why)
}

fn seconds(what: &str, seconds: f64) -> Result<Duration> {
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err(invalid(format!(
            "{what}: {seconds} is not a time in seconds"
        ))),
    }
}

/// The known word that is most like one that is not known, as a hint.
fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(unknown, word), word))
        .filter(|(distance, word)| *distance <= 1 + word.len() / 3)
        .min()
        .map(|(_, word)| format!("did you mean {word:?}?"))
}

/// The hint for a message of serde's about a word that is not known. Its form is fixed:
/// "unknown field `x`, expected one of `a`, `b`".
fn hint_for(message: &str) -> Option<String> {
    if !message.contains("unknown field") && !message.contains("unknown variant") {
        return None;
    }
    let mut words = message.split('`').skip(1).step_by(2);
    let unknown = words.next()?;
    nearest(unknown, words)
}

/// A message of serde's without the text that it found: where that stands in the wrong place, it may
/// be a secret.
fn without_value(message: &str) -> String {
    for kind in ["invalid type: string ", "invalid value: string "] {
        if let Some(rest) = message.strip_prefix(kind)
            && let Some(at) = rest.rfind(", expected")
        {
            return format!("{}{}", kind.trim_end(), &rest[at..]);
        }
    }
    message.to_owned()
}

impl Config {
    /// Reads a configuration from the text of a TOML file.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] with the line, what is wrong and, for a key that is not known, the
    /// nearest one that is.
    pub fn parse(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let line = error
                .span()
                .and_then(|span| text.get(..span.start))
                .map_or(1, |before| before.matches('\n').count() + 1);
            // Not as its source: that quotes the line, and lines have values of variables.
            let message = without_value(error.message());
            let mut said = invalid(format!("the configuration, line {line}: {message}"));
            if let Some(hint) = hint_for(&message) {
                said = said.with_hint(hint);
            }
            said
        })?;
        for pool in &config.sessions.pools {
            config.spec(&pool.spec)?;
        }
        for (name, spec) in &config.specs {
            spec.validate().map_err(|error| {
                invalid(format!("[specs.{name}] of the configuration: {error}")).with_source(error)
            })?;
        }
        Ok(config)
    }

    /// Reads a configuration from a TOML file.
    ///
    /// # Errors
    /// Those of [`parse`](Config::parse); what the operating system says, with the path.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::from_io(error, Operation::Connect).with_host_path(path))?;
        Self::parse(&text).map_err(|error| error.with_host_path(path))
    }

    /// Reads the file that [`CONFIG_VARIABLE`] names, if it is set, and then what other variables
    /// say, which is stronger:
    ///
    /// | Variable | Key |
    /// |---|---|
    /// | `SANDBOX_PROVIDER` | `provider`: a URI, or several with commas between them |
    /// | `TRAILS_PROVIDER` | the same if that is not set; `dagger` and `mock` are read as `dagger:` and `mock:` |
    /// | `SANDBOX_SESSIONS_JOURNAL` | `sessions.journal` |
    /// | `SANDBOX_SESSIONS_TOTAL`, `SANDBOX_SESSIONS_PER_TENANT` | `sessions.limits` |
    /// | `SANDBOX_SESSIONS_IDLE_TIMEOUT`, `SANDBOX_SESSIONS_MAX_LIFE` | in seconds |
    ///
    /// # Errors
    /// Those of [`read`](Config::read); [`ErrorKind::InvalidInput`] that names the variable, also for
    /// a variable that begins with `SANDBOX_SESSIONS_` and is not known.
    pub fn from_env() -> Result<Self> {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            Some((name, value.into_string().ok()))
        });
        Self::from_variables(variables.collect())
    }

    fn from_variables(variables: BTreeMap<String, Option<String>>) -> Result<Self> {
        const PREFIX: &str = "SANDBOX_SESSIONS_";
        const KNOWN: [&str; 5] = [
            "SANDBOX_SESSIONS_JOURNAL",
            "SANDBOX_SESSIONS_TOTAL",
            "SANDBOX_SESSIONS_PER_TENANT",
            "SANDBOX_SESSIONS_IDLE_TIMEOUT",
            "SANDBOX_SESSIONS_MAX_LIFE",
        ];
        let value = |name: &str| match variables.get(name) {
            Some(Some(value)) => Ok(Some(value.as_str())),
            Some(None) => Err(invalid(format!("{name} is not UTF-8"))),
            None => Ok(None),
        };
        let unknown = variables
            .keys()
            .find(|name| name.starts_with(PREFIX) && !KNOWN.contains(&name.as_str()));
        if let Some(unknown) = unknown {
            let mut error = invalid(format!("the variable {unknown} is not known"));
            if let Some(hint) = nearest(unknown, KNOWN) {
                error = error.with_hint(hint);
            }
            return Err(error);
        }
        let mut config = match value(CONFIG_VARIABLE)? {
            Some(path) => Self::read(path)?,
            None => Self::default(),
        };
        let number = |name: &str| -> Result<Option<usize>> {
            let Some(text) = value(name)? else {
                return Ok(None);
            };
            let number = text.parse();
            number
                .map(Some)
                .map_err(|_| invalid(format!("{name}: {text:?} is not a number")))
        };
        let time = |name: &str| -> Result<Option<f64>> {
            let Some(text) = value(name)? else {
                return Ok(None);
            };
            let parsed: f64 = text
                .parse()
                .map_err(|_| invalid(format!("{name}: {text:?} is not a time in seconds")))?;
            seconds(name, parsed)?;
            Ok(Some(parsed))
        };
        if let Some(uris) = value(PROVIDER_VARIABLE)? {
            config.provider = Some(Providers::Uri(uris.to_owned()));
        } else if let Some(name) = value("TRAILS_PROVIDER")? {
            let uri = match name {
                "dagger" | "mock" => format!("{name}:"),
                other => {
                    return Err(invalid(format!(
                        "TRAILS_PROVIDER: {other:?} is not \"dagger\" or \"mock\""
                    ))
                    .with_hint(format!("name other providers in {PROVIDER_VARIABLE}")));
                }
            };
            config.provider = Some(Providers::Uri(uri));
        }
        let sessions = &mut config.sessions;
        if let Some(journal) = value("SANDBOX_SESSIONS_JOURNAL")? {
            sessions.journal = Some(journal.into());
        }
        if let Some(total) = number("SANDBOX_SESSIONS_TOTAL")? {
            sessions.limits.total = Some(total);
        }
        if let Some(per_tenant) = number("SANDBOX_SESSIONS_PER_TENANT")? {
            sessions.limits.per_tenant = Some(per_tenant);
        }
        if let Some(idle) = time("SANDBOX_SESSIONS_IDLE_TIMEOUT")? {
            sessions.idle_timeout = Some(idle);
        }
        if let Some(life) = time("SANDBOX_SESSIONS_MAX_LIFE")? {
            sessions.max_life = Some(life);
        }
        Ok(config)
    }

    /// The specification of a name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] with the names that there are.
    pub fn spec(&self, name: &str) -> Result<SandboxSpec> {
        self.specs.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.specs.keys().map(String::as_str).collect();
            let hint = nearest(name, known.iter().copied()).unwrap_or_else(|| match known[..] {
                [] => "there is no [specs.…] in the configuration".to_owned(),
                _ => format!("there are: {}", known.join(", ")),
            });
            invalid(format!("there is no specification {name:?}")).with_hint(hint)
        })
    }

    /// The layers.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a pattern or time that can't be right; what opening the audit
    /// log says.
    pub fn stack(&self) -> Result<Stack> {
        let layers = &self.layers;
        let mut stack = Stack::new();
        if layers.tracing {
            stack = stack.with(Tracing::new());
        }
        if let Some(audit) = &layers.audit {
            let on_failure = match audit.on_failure {
                OnFailureName::Refuse => OnFailure::Refuse,
                OnFailureName::Drop => OnFailure::Drop,
            };
            let audit = Audit::open(&audit.file)?
                .argv(audit.argv)
                .on_failure(on_failure);
            stack = stack.with(audit);
        }
        if layers.metrics {
            stack = stack.with(Metered::new());
        }
        if let Some(section) = &layers.policy {
            stack = stack.with(section.policy()?);
        }
        if let Some(attempts) = layers.retry {
            stack = stack.with(Retry::new(attempts));
        }
        if let Some(limit) = layers.concurrency {
            stack = stack.with(ConcurrencyLimit::new(limit));
        }
        if let Some(timeout) = layers.timeout {
            stack = stack.with(Timeout::new(seconds("layers.timeout", timeout)?));
        }
        if layers.capability_guard {
            stack = stack.with(CapabilityGuard::new());
        }
        Ok(stack)
    }

    /// The provider, with the layers around it. The [`Selection`] says which one was taken and why
    /// those before it were not.
    ///
    /// # Errors
    /// Those of [`Registry::connect_chain`] and [`stack`](Config::stack).
    pub async fn connect(&self, registry: &Registry) -> Result<Selection> {
        // Before the provider: a mistake in the layers should not cost a connection.
        let stack = self.stack()?;
        let mut selection = match &self.provider {
            None => registry.connect_chain("local:").await?,
            Some(Providers::Uri(uris)) => registry.connect_chain(uris).await?,
            Some(Providers::Chain(uris)) if uris.is_empty() => {
                return Err(invalid("the chain of providers is empty")
                    .with_hint("leave the key out for \"local:\""));
            }
            // Each as it stands: a comma in it is a part of it.
            Some(Providers::Chain(uris)) => crate::connect::chain(registry, uris).await?,
        };
        let provider: Arc<dyn Provider> = stack.layer_provider(selection.provider);
        selection.provider = provider;
        Ok(selection)
    }

    /// The configuration of sessions.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a time that can't be one or a pool whose specification is not
    /// there.
    pub fn sessions(&self) -> Result<SessionsConfig> {
        let section = &self.sessions;
        let mut config = SessionsConfig::new()
            .limits(section.limits)
            .on_idle(section.on_idle);
        if let Some(journal) = &section.journal {
            config = config.journal(journal);
        }
        if let Some(sync) = section.sync {
            config = config.sync(sync);
        }
        if let Some(time) = section.idle_timeout {
            config = config.idle_timeout(seconds("sessions.idle-timeout", time)?);
        }
        if let Some(time) = section.max_life {
            config = config.max_life(seconds("sessions.max-life", time)?);
        }
        if let Some(time) = section.sweep_every {
            config = config.sweep_every(seconds("sessions.sweep-every", time)?);
        }
        for pool in &section.pools {
            config = config.pool(Pool::new(self.spec(&pool.spec)?, pool.size));
        }
        Ok(config)
    }

    /// Connects and opens the sessions.
    ///
    /// # Errors
    /// Those of [`connect`](Config::connect), [`sessions`](Config::sessions) and [`Sessions::open`].
    pub async fn open_sessions(
        &self,
        registry: &Registry,
    ) -> std::result::Result<Sessions, sandbox_sessions::Error> {
        let config = self.sessions()?;
        let selection = self.connect(registry).await?;
        Sessions::open(selection.provider, config).await
    }
}

impl PolicySection {
    fn policy(&self) -> Result<Policy> {
        type Add = fn(Policy, &str) -> Result<Policy>;
        let lists: [(&[String], Add); 6] = [
            (&self.allow_read, Policy::allow_read),
            (&self.deny_read, Policy::deny_read),
            (&self.allow_write, Policy::allow_write),
            (&self.deny_write, Policy::deny_write),
            (&self.allow_program, Policy::allow_program),
            (&self.deny_program, Policy::deny_program),
        ];
        let mut policy = Policy::new();
        for (patterns, add) in lists {
            for pattern in patterns {
                policy = add(policy, pattern)?;
            }
        }
        Ok(if self.read_only {
            policy.read_only()
        } else {
            policy
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> Result<Config> {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned())));
        Config::from_variables(variables.collect())
    }

    #[test]
    fn a_key_that_is_not_known_is_an_error_that_names_the_nearest() {
        for (text, line, hint) in [
            ("providers = 'local:'", 1, "provider"),
            ("\n[layers]\ntimout = 3", 3, "timeout"),
            ("[sessions]\nlimits = { per-tennant = 3 }", 2, "per-tenant"),
            ("[specs.a]\nresources = { memry = 3 }", 2, "memory"),
            ("[layers.policy]\nallow-reed = []", 2, "allow-read"),
            ("[sessions]\non-idle = 'suspent'", 2, "suspend"),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
            let said = error.to_string();
            assert!(said.contains(&format!("line {line}:")), "{said}");
            assert!(said.contains(&format!("did you mean {hint:?}?")), "{said}");
        }
        let error =
            Config::parse("[sessions]\npools = [{ spec = 'smal', size = 1 }]\n[specs.small]");
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("did you mean \"small\"?")
        );
        let error = from(&[("SANDBOX_SESSIONS_TOTALS", "3")]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("did you mean \"SANDBOX_SESSIONS_TOTAL\"?"),
            "{error}"
        );
    }

    #[test]
    fn the_environment_is_stronger_than_the_file() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("sandbox.toml");
        std::fs::write(
            &file,
            "provider = 'local:'\n[sessions]\nidle-timeout = 60\nmax-life = 120",
        )
        .unwrap();
        let config = from(&[
            (CONFIG_VARIABLE, file.to_str().unwrap()),
            (PROVIDER_VARIABLE, "dagger:"),
            ("TRAILS_PROVIDER", "mock"),
            ("SANDBOX_SESSIONS_MAX_LIFE", "0.5"),
            ("SANDBOX_SESSIONS_PER_TENANT", "2"),
        ])
        .unwrap();
        assert_eq!(config.provider, Some(Providers::Uri("dagger:".into())));
        let sessions = config.sessions().unwrap();
        assert_eq!(sessions.idle_timeout, Some(Duration::from_secs(60)));
        assert_eq!(sessions.max_life, Some(Duration::from_millis(500)));
        assert_eq!(sessions.limits.per_tenant, Some(2));
        let seed = from(&[("TRAILS_PROVIDER", "mock")]).unwrap();
        assert_eq!(seed.provider, Some(Providers::Uri("mock:".into())));
        assert!(from(&[("TRAILS_PROVIDER", "docker")]).is_err());
        for (name, value) in [
            ("SANDBOX_SESSIONS_TOTAL", "many"),
            ("SANDBOX_SESSIONS_IDLE_TIMEOUT", "-1"),
        ] {
            let error = from(&[(name, value)]).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn what_can_not_be_right_is_refused_where_it_stands() {
        for text in [
            "[layers.policy]\ndeny-read = ['relative']",
            "[layers]\ntimeout = 0",
        ] {
            let error = Config::parse(text).and_then(|config| config.stack());
            assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput, "{text}");
        }
        let error = Config::parse("[specs.small]\nworkdir = 'relative'").unwrap_err();
        assert!(error.to_string().contains("[specs.small]"), "{error}");
    }

    #[test]
    fn a_mistake_beside_a_secret_does_not_tell_it() {
        for text in [
            "[specs.a]\nenv = { KEY = 'very-secret' }\nmemry = 3",
            "specs.a = { env = { KEY = 'very-secret' }, memry = 3 }",
            "[specs.a]\nenv = 'KEY=very-secret'",
            "[specs.a.env]\nKEY = 'very-secret' and more",
            "[specs.a]\nenv = ['KEY=very-secret']",
        ] {
            let error = Config::parse(text).unwrap_err();
            let mut said = format!("{error} {error:?}");
            let mut next = std::error::Error::source(&error);
            while let Some(source) = next {
                said.push_str(&format!(" {source} {source:?}"));
                next = source.source();
            }
            assert!(!said.contains("very-secret"), "{text}: {said}");
        }
    }

    #[tokio::test]
    async fn a_comma_in_a_uri_of_a_list_is_a_part_of_it() {
        let place = tempfile::tempdir().unwrap();
        let with_comma = place.path().join("a,b");
        std::fs::create_dir(&with_comma).unwrap();
        let uri = format!("local-plain:?base_dir={}", with_comma.display());
        for list in [
            format!("provider = ['{uri}']"),
            format!("provider = ['local-plain:?base_dir=/no/such/dir', '{uri}']"),
        ] {
            let config = Config::parse(&list).unwrap();
            let selection = config.connect(&Registry::built_in()).await.unwrap();
            assert_eq!(selection.uri, uri);
        }
        let empty = Config::parse("provider = []").unwrap();
        let error = empty.connect(&Registry::built_in()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("empty"), "{error}");
    }
}
