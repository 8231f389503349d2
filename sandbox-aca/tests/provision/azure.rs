//! Against Azure, by a subscription's settings: everything is made, used and deleted, and bears the
//! run's tag.

use std::time::Duration;

use sandbox_aca::provision::{
    AppSpec, Container, ControlPlane, ControlPlaneConfig, EnvironmentSpec, ExecutionStatus,
    JobSpec, LogOptions, PoolSpec, SandboxGroupSpec, Size, Wanted,
};
use sandbox_core::Labels;

fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: see docs/azure.md"))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a subscription: see docs/azure.md"]
async fn everything_is_made_used_and_deleted() {
    assert!(setting("SANDBOX_REQUIRE").contains("aca"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("a time").as_secs();
    let run = std::env::var("SANDBOX_AZURE_RUN").unwrap_or_else(|_| format!("r{now}"));
    println!("run={run}");
    let config = ControlPlaneConfig::new(
        setting("SANDBOX_AZURE_SUBSCRIPTION"),
        setting("SANDBOX_AZURE_RESOURCE_GROUP"),
        setting("SANDBOX_AZURE_LOCATION"),
        "sandbox-tests",
    );
    let plane = ControlPlane::new(config.tag("run", &run)).expect("a control plane");
    let tags = Labels::from([("run".to_owned(), run.clone())]);
    let done = used(&plane, &run).await;
    let collected = plane.collect(&tags, &[]).await.expect("a collection");
    println!("{collected:?}");
    assert!(collected.failed.is_empty());
    done.expect("all of it works");
}

async fn used(plane: &ControlPlane, run: &str) -> sandbox_core::Result<()> {
    let image = setting("SANDBOX_AZURE_IMAGE");
    let shell = |script: &str| {
        let container = Container::new(&image).command(["/bin/sh", "-c", script]);
        container.size(Size::quarters(1).expect("a size"))
    };
    let environment = plane.environment(&format!("{run}-env"))?;
    let app_spec = AppSpec::new(environment.id().clone(), shell("echo up; sleep 3600"));
    let wanted = [
        Wanted::Environment(environment.id().name().into(), EnvironmentSpec::new()),
        Wanted::App(format!("{run}-app"), app_spec.clone()),
    ];
    println!("{}", plane.plan(&wanted).await?);
    println!("{:?}", plane.quotas().await?);
    environment.ensure(&EnvironmentSpec::new()).await?;
    let group = plane.sandbox_group(&format!("{run}-group"))?;
    group.ensure(&SandboxGroupSpec::new()).await?;
    println!("{}", group.config().await?.endpoint);
    let pool = plane.session_pool(&format!("{run}pool"))?;
    let made = pool
        .ensure(&PoolSpec::shell().sessions(5).mcp(true))
        .await?;
    assert!(made.properties.mcp_endpoint().is_some());
    let app = plane.app(&format!("{run}-app"))?;
    app.ensure(&app_spec).await?;
    let line = app.logs(LogOptions::new()).await?.line().await?;
    println!("{line:?}");
    app.stop().await?;
    app.start().await?;
    app.ready().await?;
    let job = plane.job(&format!("{run}-job"))?;
    let spec = JobSpec::new(environment.id().clone(), shell("true"));
    job.ensure(&spec).await?;
    let execution = job.start(&shell("exit 3")).await?;
    let ended = execution.wait(Duration::from_secs(600)).await?;
    assert_eq!(
        (ended.status, ended.exit_code),
        (ExecutionStatus::Failed, Some(3))
    );
    Ok(())
}
