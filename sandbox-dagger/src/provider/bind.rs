//! Services that every sandbox of a provider reaches by name.
//!
//! Invariant: nothing is started here; the engine starts a service for the first command that is
//! bound to it.

use crate::config::options::ServiceBinding;
use crate::sandbox::shared::Shared;
use crate::session::client::SMALL_ANSWER;
use crate::session::connect::Session;
use crate::session::failure::Failed;
use crate::session::query::{self, find};

/// The container with every service of the configuration bound to it.
pub(super) async fn with_services(
    shared: &Shared,
    session: &Session,
    mut id: String,
) -> Result<String, Failed> {
    let within = shared.config.operation_timeout;
    let garbage = || Failed::Garbage("no id".into());
    for service in &shared.config.services {
        let answer = session.query(&ask(service), SMALL_ANSWER, within).await?;
        let served = query::string(find(&answer, "id").ok_or_else(garbage)?);
        let alias = query::string(&service.alias);
        let below = format!("withServiceBinding(alias: {alias}, service: {served}) {{ id }}");
        let query = query::on_container(&id, &below);
        let answer = session.query(&query, SMALL_ANSWER, within).await?;
        id = find(&answer, "id").ok_or_else(garbage)?.to_owned();
    }
    Ok(id)
}

/// A query for the id of a service.
fn ask(service: &ServiceBinding) -> String {
    let args: Vec<_> = service.args.iter().map(|arg| query::string(arg)).collect();
    let served = match args.is_empty() {
        true => "asService(useEntrypoint: true) { id }".to_owned(),
        false => format!("asService(args: [{}]) {{ id }}", args.join(", ")),
    };
    let mut below = format!("withExposedPort(port: {}) {{ {served} }}", service.port);
    for (name, value) in service.env.iter().rev() {
        let (name, value) = (query::string(name), query::string(value));
        below = format!("withEnvVariable(name: {name}, value: {value}) {{ {below} }}");
    }
    let image = query::string(&service.image);
    format!("query {{ container {{ from(address: {image}) {{ {below} }} }} }}")
}
