//! The faults of a remote service at every request of every operation of the control plane: what is
//! made is made once, what is said of it is true, and asking again sets it right.

use std::sync::Arc;
use std::time::Duration;

use sandbox_aca::provision::{
    Action, AppSpec, ClientId, Container, ControlPlane, EnvironmentSpec, ExecutionStatus, Ingress,
    JobSpec, OwnerAuth, PoolSpec, PrincipalId, PrincipalType, RunningStatus, SandboxGroupSpec,
    Wanted,
};
use sandbox_core::{Error, Labels, Result};
use sandbox_testkit::aca::AcaEmulator;
use sandbox_testkit::proxy::{Break, FaultProxy};

use super::{IMAGE, config, emulator, environment, plane};

/// Each row of the table that a proxy can play, as for the data plane: all of them if
/// `SANDBOX_ALL_FAULTS` is set, and otherwise the first, which leave most in doubt.
const BREAKS: &[Break] = &[
    Break::BeforeSend,
    Break::AfterSend,
    Break::MidAnswer(150),
    Break::Status(503, Some("0")),
    Break::MidRequest,
    Break::Garbage,
    Break::Endless,
    Break::Sliced,
    Break::Status(401, None),
    Break::Status(429, Some("0")),
    Break::Status(429, Some("99999")),
];

/// Number of rows of `BREAKS` that are played every time.
const ALWAYS: usize = 4;

const GUID: &str = "11111111-2222-3333-4444-555555555555";

/// A service behind a proxy, and beside it.
struct Rig {
    emulator: Arc<AcaEmulator>,
    proxy: FaultProxy,
    /// Through the proxy.
    plane: ControlPlane,
    /// Past the proxy.
    sound: ControlPlane,
}

impl Rig {
    async fn new() -> Self {
        // Absolute ones lead past the proxy.
        let emulator = emulator(|options| options.relative_links = true).await;
        let proxy = FaultProxy::start(emulator.address())
            .await
            .expect("a proxy");
        let config = config(&emulator, &proxy.endpoint());
        Self {
            plane: ControlPlane::new(config).expect("a control plane"),
            sound: plane(&emulator),
            emulator,
            proxy,
        }
    }
}

fn sound(error: &Error, what: &str) {
    let text = format!("{error} {error:?}");
    assert!(
        !text.contains("Bearer") && text.contains("can't"),
        "{what}: {text}"
    );
}

/// Does `act` for another name each time, with each request broken in each way, until none is left
/// to break; what came of it is checked past the proxy.
async fn everywhere<T>(
    act: impl AsyncFn(&Rig, &str) -> Result<T>,
    check: impl AsyncFn(&Rig, &str, Result<T>, &str),
) {
    let one = async |how: Break| {
        let rig = Rig::new().await;
        for position in 0.. {
            let what = format!("{how:?} at request {position}");
            let name = format!("r{position}");
            rig.proxy.arm_after(position, "", how);
            let done = act(&rig, &name).await;
            let fired = rig.proxy.disarm();
            if let Err(error) = &done {
                sound(error, &what);
            }
            check(&rig, &name, done, &what).await;
            if !fired {
                assert!(position > 0, "{what}: it never happened");
                break;
            }
        }
    };
    let played = match std::env::var_os("SANDBOX_ALL_FAULTS") {
        Some(_) => BREAKS,
        None => &BREAKS[..ALWAYS],
    };
    futures_util::future::join_all(played.iter().map(|how| one(*how))).await;
}

/// Counts the writes of this name that have reached the service.
fn writes(rig: &Rig, name: &str) -> usize {
    let all = rig.emulator.requested("PUT /");
    all.iter()
        .filter(|line| line.ends_with(&format!("/{name}")))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_made_once_and_deleted() {
    let spec = SandboxGroupSpec::new();
    everywhere(
        async |rig, name| rig.plane.sandbox_group(name)?.ensure(&spec).await,
        async |rig, name, made, what| {
            assert!(writes(rig, name) <= 1, "{what}: {}", writes(rig, name));
            let group = rig.sound.sandbox_group(name).expect("a name");
            if made.is_ok() {
                assert!(group.show().await.expect("an answer").is_some(), "{what}");
            }
            group.ensure(&spec).await.expect("a group");
            assert_eq!(writes(rig, name), 1, "{what}");
        },
    )
    .await;
    everywhere(
        async |rig, name| {
            let made = rig.sound.sandbox_group(name)?;
            made.ensure(&spec).await?;
            rig.plane.sandbox_group(name)?.delete().await
        },
        async |rig, name, deleted, what| {
            let group = rig.sound.sandbox_group(name).expect("a name");
            let there = group.show().await.expect("an answer").is_some();
            assert!(deleted.is_err() || !there, "{what}: it is there");
            group.delete().await.expect("it goes");
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_and_a_pool_are_made_once() {
    let (environment, pool) = (EnvironmentSpec::new(), PoolSpec::python());
    everywhere(
        async |rig, name| rig.plane.environment(name)?.ensure(&environment).await,
        async |rig, name, _, what| {
            assert!(writes(rig, name) <= 1, "{what}");
            let made = rig.sound.environment(name).expect("a name");
            made.ensure(&environment).await.expect("an environment");
            assert_eq!(writes(rig, name), 1, "{what}");
        },
    )
    .await;
    let named = |name: &str| format!("pool{name}");
    everywhere(
        async |rig, name| rig.plane.session_pool(&named(name))?.ensure(&pool).await,
        async |rig, name, _, what| {
            let name = named(name);
            assert!(writes(rig, &name) <= 1, "{what}");
            let made = rig.sound.session_pool(&name).expect("a name");
            made.ensure(&pool).await.expect("a pool");
            assert_eq!(writes(rig, &name), 1, "{what}");
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_assigned_once() {
    let who = PrincipalId::new(GUID).expect("a principal");
    let kind = PrincipalType::ServicePrincipal;
    everywhere(
        async |rig, name| rig.plane.sandbox_group(name)?.grant(&who, kind).await,
        async |rig, name, assigned, what| {
            let group = rig.sound.sandbox_group(name).expect("a name");
            let all = rig
                .sound
                .role_assignments(group.id())
                .await
                .expect("a list");
            assert!(
                all.len() <= 1 && (assigned.is_err() || all.len() == 1),
                "{what}: {all:?}"
            );
            group.grant(&who, kind).await.expect("a role");
        },
    )
    .await;
}

fn guarded() -> AppSpec {
    let client = ClientId::new(GUID).expect("a client");
    let owner = PrincipalId::new(GUID).expect("a principal");
    AppSpec::new(environment(), Container::new(IMAGE))
        .ingress(Ingress::internal(80))
        .auth(OwnerAuth::principal(GUID, client, owner))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_has_one_revision_and_no_ingress_before_its_owner_is_known() {
    let spec = guarded();
    everywhere(
        async |rig, name| rig.plane.app(name)?.ensure(&spec).await,
        async |rig, name, made, what| {
            let app = rig.sound.app(name).expect("a name");
            let there = app.show().await.expect("an answer");
            let reached = there.is_some_and(|there| there.properties.fqdn().is_some());
            let asked = rig
                .emulator
                .requested(&format!("{name}/authConfigs/current"));
            assert!(!reached || !asked.is_empty(), "{what}: it is open");
            assert!(made.is_err() || reached, "{what}");
            app.ensure(&spec).await.expect("an app");
            let revisions = app.revisions().await.expect("revisions");
            assert_eq!(revisions.len(), 1, "{what}");
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_stopped_once_started_deleted_and_restarted_at_most_once() {
    let spec = AppSpec::new(environment(), Container::new(IMAGE));
    everywhere(
        async |rig, name| {
            rig.sound.app(name)?.ensure(&spec).await?;
            rig.plane.app(name)?.stop().await
        },
        async |rig, name, stopped, what| {
            let times = rig.emulator.executions(&format!("stop {name}"));
            assert!(
                times <= 1 && (stopped.is_err() || times == 1),
                "{what}: {times} times"
            );
            rig.sound
                .app(name)
                .expect("a name")
                .stop()
                .await
                .expect("it stops");
        },
    )
    .await;
    everywhere(
        async |rig, name| {
            let app = rig.sound.app(name)?;
            app.ensure(&spec).await?;
            app.stop().await?;
            rig.plane.app(name)?.start().await
        },
        async |rig, name, started, what| {
            let app = rig.sound.app(name).expect("a name");
            let shown = app.show().await.expect("an answer").expect("an app");
            let runs = shown.properties.running_status == Some(RunningStatus::Running);
            assert!(started.is_err() || runs, "{what}: {shown:?}");
            app.delete().await.expect("it goes");
        },
    )
    .await;
    everywhere(
        async |rig, name| {
            rig.sound.app(name)?.ensure(&spec).await?;
            rig.plane.app(name)?.delete().await
        },
        async |rig, name, deleted, what| {
            let app = rig.sound.app(name).expect("a name");
            let there = app.show().await.expect("an answer").is_some();
            assert!(deleted.is_err() || !there, "{what}: it is there");
            app.delete().await.expect("it goes");
        },
    )
    .await;
    everywhere(
        async |rig, name| {
            rig.sound.app(name)?.ensure(&spec).await?;
            rig.plane.app(name)?.restart().await
        },
        async |rig, name, restarted, what| {
            let times = rig.emulator.executions(&format!("restart {name}--"));
            assert!(
                times <= 1 && (restarted.is_err() || times == 1),
                "{what}: {times} times"
            );
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_a_job_runs_at_most_once_and_what_is_said_of_it_is_true() {
    let spec = JobSpec::new(environment(), Container::new(IMAGE));
    let long = Duration::from_secs(60);
    everywhere(
        async |rig, name| {
            let job = rig.sound.job(name)?;
            job.ensure(&spec).await?;
            let script = format!("echo ran-{name}; exit 5");
            let container = Container::new(IMAGE).command(["/bin/sh", "-c", &script]);
            let execution = rig.plane.job(name)?.start(&container).await?;
            execution.wait(long).await
        },
        async |rig, name, ended, what| {
            let job = rig.sound.job(name).expect("a name");
            let all = job.executions().await.expect("a list");
            assert!(all.len() <= 1, "{what}: it ran {} times", all.len());
            for (execution, _) in &all {
                // What has begun comes to its end.
                execution.wait(long).await.expect("it ends");
            }
            let ran = rig.emulator.executions(&format!("ran-{name};"));
            assert_eq!(ran, all.len(), "{what}");
            if let Ok(ended) = ended {
                assert_eq!(
                    (ended.status, ended.exit_code),
                    (ExecutionStatus::Failed, Some(5))
                );
                assert_eq!(ran, 1, "{what}");
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_is_stopped_and_its_job_deleted_or_the_error_says_so() {
    let spec = JobSpec::new(environment(), Container::new(IMAGE));
    let long = Container::new(IMAGE).command(["/bin/sleep", "1000"]);
    everywhere(
        async |rig, name| {
            let job = rig.sound.job(name)?;
            job.ensure(&spec).await?;
            job.start(&long).await?;
            for (execution, _) in rig.plane.job(name)?.executions().await? {
                execution.stop().await?;
            }
            Ok(())
        },
        async |rig, name, stopped, what| {
            let job = rig.sound.job(name).expect("a name");
            let all = job.executions().await.expect("a list");
            let [(execution, shown)] = &all[..] else {
                panic!("{what}: {all:?}");
            };
            let over = shown.status.as_ref().is_some_and(ExecutionStatus::is_final);
            assert!(stopped.is_err() || over, "{what}: {shown:?}");
            execution.stop().await.expect("it stops");
        },
    )
    .await;
    everywhere(
        async |rig, name| {
            rig.sound.job(name)?.ensure(&spec).await?;
            rig.plane.job(name)?.delete().await
        },
        async |rig, name, deleted, what| {
            let job = rig.sound.job(name).expect("a name");
            let there = job.show().await.expect("an answer").is_some();
            assert!(deleted.is_err() || !there, "{what}: it is there");
            job.delete().await.expect("it goes");
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_writes_nothing_and_is_whole_or_an_error() {
    let spec = SandboxGroupSpec::new();
    everywhere(
        async |rig, name| {
            rig.sound.sandbox_group(name)?.ensure(&spec).await?;
            let app = AppSpec::new(environment(), Container::new(IMAGE));
            let wanted = [
                Wanted::SandboxGroup(name.to_owned(), spec.clone()),
                Wanted::App(format!("{name}-new"), app),
            ];
            rig.plane.plan(&wanted).await
        },
        async |rig, name, planned, what| {
            let new = format!("{name}-new");
            assert_eq!((writes(rig, name), writes(rig, &new)), (1, 0), "{what}");
            if let Ok(plan) = planned {
                let actions: Vec<Action> = plan.lines.iter().map(|line| line.action).collect();
                assert_eq!(actions, [Action::Keep, Action::Create], "{what}");
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_takes_no_more_than_it_may_and_says_what_it_left() {
    let spec = SandboxGroupSpec::new();
    let pool = PoolSpec::python();
    // Its orphans bear a tag, and so does what lives.
    let tags = |name: &str| Labels::from([("run".to_owned(), name.to_owned())]);
    let tagged = |rig: &Rig, name: &str| {
        let config = config(&rig.emulator, &rig.emulator.endpoint());
        ControlPlane::new(config.tag("run", name)).expect("a control plane")
    };
    let lives = |name: &str| format!("{name}-lives");
    everywhere(
        async |rig, name| {
            let plane = tagged(rig, name);
            plane
                .session_pool(&format!("pool{name}"))?
                .ensure(&pool)
                .await?;
            plane.sandbox_group(name)?.ensure(&spec).await?;
            let living = plane.sandbox_group(&lives(name))?;
            living.ensure(&spec).await?;
            let living = [living.id().clone()];
            rig.plane.collect(&tags(name), &living).await
        },
        async |rig, name, collected, what| {
            let owned = rig.sound.owned(&tags(name)).await.expect("a list");
            let left: Vec<&str> = owned.iter().map(|owned| owned.id.name()).collect();
            assert!(left.contains(&lives(name).as_str()), "{what}: {left:?}");
            if let Ok(collected) = collected {
                for (_, error) in &collected.failed {
                    sound(error, what);
                }
                let told = collected.deleted.len() + collected.failed.len();
                assert_eq!(told, 2, "{what}: {collected:?}");
                for gone in &collected.deleted {
                    assert!(!left.contains(&gone.name()), "{what}: {gone:?} is there");
                }
            }
            let living = rig.sound.sandbox_group(&lives(name)).expect("a name");
            let again = rig.sound.collect(&tags(name), &[living.id().clone()]).await;
            assert!(again.expect("a collection").failed.is_empty(), "{what}");
            let owned = rig.sound.owned(&tags(name)).await.expect("a list");
            assert_eq!(owned.len(), 1, "{what}: {owned:?}");
        },
    )
    .await;
}
