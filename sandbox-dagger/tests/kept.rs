//! Sessions over the engine double: kept, reused, suspended, limited, told as lost.
#![cfg(target_os = "linux")]

mod support;

use std::sync::Arc;

use sandbox_core::{Network, SandboxExt as _, SandboxSpec};
use sandbox_dagger::DaggerProvider;
use sandbox_sessions::{
    ErrorKind, Filter, Limits, SessionOptions, Sessions, SessionsConfig, ShutdownOptions, Status,
    Wait,
};
use sandbox_testkit::dagger::{DaggerDouble, Quirks};
use support::{Outcome, config};

fn spec() -> SandboxSpec {
    SandboxSpec::new().network(Network::OffWherePossible)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_kept_limited_suspended_and_told_as_lost_after_a_restart() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    let place = tempfile::tempdir()?;
    let kept = SessionsConfig::new()
        .journal(place.path())
        .limits(Limits::new().per_tenant(1));
    let provider = Arc::new(DaggerProvider::new(config(&double))?);
    let sessions = Sessions::open(provider, kept.clone()).await?;
    let session = sessions.get_or_create("acme", "build", spec()).await?;
    session.sandbox().write("f", "one").await?;
    let mut watch = sessions.watch(Filter::new());
    assert!(!session.sandbox().sh("exit 3").await?.success());
    assert_eq!(session.status(), Status::Error);
    let mut seen = Vec::new();
    while seen.last() != Some(&Status::Error) {
        seen.extend(watch.next().await.map(|info| info.status));
    }
    assert!(seen.contains(&Status::Working), "{seen:?}");

    let never = SessionOptions::new().wait(Wait::Never);
    let full = sessions.get_or_create_with("acme", "other", spec(), never);
    let full = full.await.err().ok_or("a place beyond the limit")?;
    assert_eq!(full.kind(), ErrorKind::Full);
    session.suspend().await?;
    assert_eq!(session.status(), Status::Suspended);
    let again = sessions.get("acme", "build").await?;
    assert_eq!(again.sandbox().read("f").await?, "one");
    let fork = sessions.get_or_create("other", "k", spec()).await?;
    assert!(!fork.sandbox().exists("f").await?);

    sessions.shutdown(ShutdownOptions::new().keep(true)).await?;
    drop((session, again, fork, watch, sessions));
    // Nothing outlives a session with an engine: the journal names what is lost.
    let provider = Arc::new(DaggerProvider::new(config(&double))?);
    let (sessions, opened) = Sessions::open_with_report(provider, kept).await?;
    assert_eq!(opened.lost.len(), 2, "{opened:?}");
    assert_eq!(sessions.stats().places, 0);
    let anew = sessions.get_or_create("acme", "build", spec()).await?;
    assert!(!anew.sandbox().exists("f").await?);
    sessions.shutdown(ShutdownOptions::new()).await?;
    // The snapshot of a provider whose sandboxes were to stay, which the next program would remove.
    let own = format!("sandbox-dagger-{}-", std::process::id());
    for entry in std::fs::read_dir(std::env::temp_dir())?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&own) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
