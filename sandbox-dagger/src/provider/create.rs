//! Making a sandbox: a container to start from, its caches and user, its workdir, what its
//! environment is.
//!
//! Invariant: a future that is dropped leaves nothing but values that the engine forgets.

use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use sandbox_core::backend::{DEFAULT_PATH, Registry, Settings};
use sandbox_core::{Env, Error, GuestPath, Operation, SandboxId, SandboxSpec, Source};
use serde_json::Value;
use tokio::sync::watch;

use crate::guest::Script;
use crate::provider::base::Start;
use crate::provider::{bind, snapshot};
use crate::sandbox::DaggerSandbox;
use crate::sandbox::chain::{Chain, Head};
use crate::sandbox::files;
use crate::sandbox::settings::DaggerSettings;
use crate::sandbox::shared::Shared;
use crate::session::client::SMALL_ANSWER;
use crate::session::connect::Session;
use crate::session::failure::Failed;
use crate::session::failure::NotMade;
use crate::session::nonce::nonce;
use crate::session::query::{self, find, owner};
use crate::session::secrets::{SecretIds, find_secrets, keep_secrets};

/// The timeout of commands where neither they nor the spec name one.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(600);
/// Number of layers that an image is assumed to have at most.
const IMAGE_LAYERS: u32 = 64;

/// The error of a creation, and whether another session may help.
pub(crate) struct NotCreated {
    pub(crate) error: Error,
    pub(crate) reconnect: bool,
}

impl From<Error> for NotCreated {
    fn from(error: Error) -> Self {
        Self {
            error,
            reconnect: false,
        }
    }
}

impl From<Failed> for NotCreated {
    fn from(failed: Failed) -> Self {
        // What a create did before it failed is a container that no handle names: it may be done
        // again in another session.
        let reconnect = failed.is_of_the_session();
        Self {
            error: failed.error(Operation::Create),
            reconnect,
        }
    }
}

impl From<NotMade> for NotCreated {
    fn from(not_made: NotMade) -> Self {
        match not_made {
            NotMade::Refused(error) => error.into(),
            NotMade::Failed(failed) => failed.into(),
        }
    }
}

impl DaggerSandbox {
    pub(crate) async fn create(
        shared: &Arc<Shared>,
        open: &Arc<Registry<Self>>,
        session: &Arc<Session>,
        spec: &SandboxSpec,
    ) -> std::result::Result<Arc<Self>, NotCreated> {
        const OP: Operation = Operation::Create;
        session.count_sandbox();
        let config = &shared.config;
        let start = match &spec.source {
            Source::Snapshot(id) => snapshot::find(shared, id)?,
            source => Start::new(config, source)?,
        };
        let based = start.container(session, config, OP).await;
        let based = based.map_err(|not_made| match (&spec.source, not_made) {
            (Source::Snapshot(id), NotMade::Failed(Failed::NoImage(_))) => {
                NotMade::Refused(snapshot::missing(id))
            }
            (_, not_made) => not_made,
        })?;
        let user = config.user.clone().unwrap_or(based.user);
        let id = with_caches(shared, session, based.id, &user).await?;
        let id = bind::with_services(shared, session, id).await?;
        let workdir = spec.workdir.clone().unwrap_or_else(|| "/workspace".into());
        let workdir = workdir.resolve(&GuestPath::root(), OP)?;
        let (id, environment) = prepared(shared, session, &id, &user, &workdir).await?;
        let mut settings = DaggerSettings {
            common: Settings::new(workdir, &environment),
            secrets: SecretIds::new(),
        };
        let found = find_secrets(session, &config.secrets, config.operation_timeout).await?;
        let names = config.secrets.iter().map(|secret| &secret.variable);
        // The engine has the values; the name is what is kept here.
        let names = names.fold(Env::new(), |env, name| env.secret(name.as_str(), ""));
        settings.change_env(&names, found);
        let secrets = keep_secrets(session, &spec.env, config.operation_timeout).await?;
        settings.change_env(&spec.env, secrets);
        let sandbox = Arc::new(Self {
            id: SandboxId::new(&nonce()[..16]),
            parent: None,
            labels: spec.labels.clone(),
            created: SystemTime::now(),
            shared: shared.clone(),
            open: open.clone(),
            session: session.clone(),
            user,
            chain: Chain::new(Head {
                id,
                layers: IMAGE_LAYERS,
            }),
            settings: RwLock::new(settings),
            command_timeout: spec.command_timeout.unwrap_or(COMMAND_TIMEOUT),
            closed: watch::Sender::new(false),
        });
        open.insert(sandbox.id.clone(), &sandbox);
        Ok(sandbox)
    }
}

async fn with_caches(
    shared: &Shared,
    session: &Session,
    mut id: String,
    user: &str,
) -> Result<String, Failed> {
    let within = shared.config.operation_timeout;
    let garbage = || Failed::Garbage("no id".into());
    for cache in &shared.config.caches {
        let key = query::string(&cache.key);
        let query = format!("query {{ cacheVolume(key: {key}) {{ id }} }}");
        let answer = session.query(&query, SMALL_ANSWER, within).await?;
        let volume = query::string(find(&answer, "id").ok_or_else(garbage)?);
        let path = query::string(&String::from_utf8_lossy(cache.path.as_bytes()));
        let owner = owner(cache.owner.as_deref().unwrap_or(user));
        let sharing = cache.sharing.name();
        let below = format!(
            "withMountedCache(path: {path}, cache: {volume}, sharing: {sharing}{owner}) {{ id }}"
        );
        let query = query::on_container(&id, &below);
        let answer = session.query(&query, SMALL_ANSWER, within).await?;
        id = find(&answer, "id").ok_or_else(garbage)?.to_owned();
    }
    Ok(id)
}

/// The container with its workdir: the one that another sandbox began with, if it is the same and
/// the engine still has it. What is in caches may have changed since, so that they have none.
async fn prepared(
    shared: &Shared,
    session: &Session,
    id: &str,
    user: &str,
    workdir: &GuestPath,
) -> Result<(String, Env), NotCreated> {
    let key = (id.to_owned(), user.to_owned(), workdir.clone());
    let known = match shared.config.caches.is_empty() {
        true => session.prepared.get(&key),
        false => None,
    };
    if let Some((id, environment)) = known {
        let within = shared.config.operation_timeout;
        let query = query::on_container(&id, "id");
        match session.query(&query, SMALL_ANSWER, within).await {
            Ok(_) => return Ok((id, environment)),
            Err(Failed::Gone { .. }) => {}
            Err(failed) => return Err(failed.into()),
        }
    }
    let made = prepare(shared, session, id, user, workdir).await?;
    session.prepared.keep(key, made.clone());
    Ok(made)
}

/// Makes the workdir as root, and asks as the user for the home directory.
async fn prepare(
    shared: &Shared,
    session: &Session,
    id: &str,
    user: &str,
    workdir: &GuestPath,
) -> Result<(String, Env), NotCreated> {
    const OP: Operation = Operation::Create;
    const MAKE: &str = "if [ ! -d \"$path\" ]; then\n\
         mkdir -p -- \"$path\" || fail denied\n\
         if [ -n \"$owner\" ]; then chown -- \"$owner\" \"$path\" || fail denied; fi\n\
         fi\n";
    const ASK: &str = "begin; printf %s \"$HOME\" | base64; echo .; finish";
    let (making, asking) = (nonce(), nonce());
    let script = |nonce: &str| {
        Script::new(nonce)
            .set("path", workdir.as_bytes())
            .set("owner", user.as_bytes())
    };
    let below = if user.is_empty() {
        // The same user makes the workdir and is asked: one command does both.
        let both = script(&asking).files(&format!("{MAKE}{ASK}"));
        query::run(&both, &asking, "id stdout")
    } else {
        let make = script(&making).files(&format!("{MAKE}begin; finish"));
        let ask = query::run(&script(&asking).files(ASK), &asking, "id stdout");
        let ask = format!("withUser(name: {}) {{ {ask} }}", query::string(user));
        let make = query::run(&make, &making, &format!("made: stdout {ask}"));
        format!("withUser(name: \"0\") {{ {make} }}")
    };
    let below = format!("envVariables {{ name value }} {below}");
    let query = query::on_container(id, &below);
    let within = shared.config.operation_timeout;
    let answer = session.query(&query, SMALL_ANSWER, within).await?;
    let garbage = || Failed::Garbage("no id".into());
    if !user.is_empty() {
        let made = find(&answer, "made").ok_or_else(garbage)?;
        files::open(made, &making, OP, workdir)?;
    }
    let (id, stdout) = (find(&answer, "id"), find(&answer, "stdout"));
    let (id, stdout) = id.zip(stdout).ok_or_else(garbage)?;
    let mut frame = files::open(stdout, &asking, OP, workdir)?;
    let home = frame
        .bytes()
        .map_err(|problem| files::broken(problem, OP))?;
    Ok((id.to_owned(), image_environment(&home, &answer)))
}

/// The image's environment, as its configuration has it: a command of the engine sees variables of
/// the engine as well, under names that differ between its versions. The home directory is the
/// user's, which no configuration says.
fn image_environment(home: &[u8], answer: &Value) -> Env {
    let home = if home.is_empty() { b"/root" } else { home };
    let mut env = Env::new()
        .set("PATH", DEFAULT_PATH)
        .set("HOME", home)
        .set("LANG", "C.UTF-8");
    let variables = answer
        .pointer("/node/envVariables")
        .and_then(Value::as_array);
    for variable in variables.into_iter().flatten() {
        let text = |key: &str| variable.get(key).and_then(Value::as_str);
        if let (Some(name), Some(value)) = (text("name"), text("value")) {
            env = env.set(name, value);
        }
    }
    env
}
