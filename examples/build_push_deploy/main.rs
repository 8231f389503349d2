//! From a tenant's workspace to a ready sandbox in Azure: build its image with Dagger, push it by
//! an exchange of Entra tokens, run it as the tenant's own app, test in it, stop, start, tear down.
//!
//! Against the doubles, with one command: `examples/build_push_deploy/with_doubles.sh`. With a
//! subscription: log in with `az login`, set what [`Place::of_azure`] reads, and run
//! `cargo run --features aca,dagger,remote --example build_push_deploy`. `docs/azure.md` says which
//! roles it needs.
//!
//! No credential gets into an image, a log or the tenant's container: the engine has a token that
//! opens one registry for three hours, the service pulls by an identity that the container does not
//! see, and the agent in the container knows its owner by a digest.

mod place;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use place::Place;
use sandbox::aca::provision::{AppSpec, Container, ControlPlane, EnvironmentSpec, Ingress, Wanted};
use sandbox::aca::{AgentAccess, AgentToken};
use sandbox::dagger::{Base, DaggerConfig, DaggerProvider, ImageBuild, RegistryLogin};
use sandbox::{Command, Sandbox, SandboxExt as _};

/// Directory of the image that has the tenant's files and the agent.
const HOME: &str = "/workspace-image";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let place = Place::from_env()?;
    let azure = ControlPlane::new(place.config.clone())?;

    let image = build_and_push(&place, &azure).await?;
    say(&format!("pushed {image}"));

    // The app is gone afterwards, whatever came of it.
    let app = azure.app("tenant-acme")?;
    let worked = deploy(&place, &azure, &image).await;
    app.delete().await?;
    azure.environment("tenants")?.delete().await?;
    say("deleted the app and its environment");
    worked
}

/// Builds the tenant's image and pushes it; gives the reference with its digest.
async fn build_and_push(place: &Place, azure: &ControlPlane) -> Result<String, Box<dyn Error>> {
    // A credential of Entra in, a token that opens this registry for three hours out. Dagger has it
    // as a secret, which is no part of an image.
    let login = azure.registry_login(&place.registry).await?;
    let login = RegistryLogin::new(login.server, login.user, login.password);
    let dagger = DaggerProvider::new(DaggerConfig::default().login(login))?;
    let workspace =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/build_push_deploy/workspace");
    let agent = agent_directory()?;
    let image = ImageBuild::new(Base::Image("python:3.13-slim".to_owned()))
        .copy(workspace, &format!("{HOME}/app"))
        .copy(agent.path(), &format!("{HOME}/bin"))
        .run(&format!("cd {HOME}/app && python3 -m compileall -q ."))
        // It says to the agent that a container is around it.
        .env("container", "oci")
        .workdir(HOME)
        .entrypoint([&*format!("{HOME}/bin/sandbox-agent"), "--backend", "plain"]);
    let address = format!("{}/tenants/acme:1", place.registry);
    Ok(dagger.publish_image(&image, &address).await?)
}

/// A directory with the agent alone: `SANDBOX_AGENT` names the program, which is best a static one.
fn agent_directory() -> Result<tempfile::TempDir, Box<dyn Error>> {
    let agent = std::env::var_os("SANDBOX_AGENT").map(PathBuf::from);
    let agent = agent.ok_or("SANDBOX_AGENT does not name the program sandbox-agent")?;
    let dir = tempfile::tempdir()?;
    std::fs::copy(agent, dir.path().join("sandbox-agent"))?;
    Ok(dir)
}

/// Runs the image as the tenant's app, and the tenant's tests in it.
async fn deploy(place: &Place, azure: &ControlPlane, image: &str) -> Result<(), Box<dyn Error>> {
    let environment = azure.environment("tenants")?;
    // The owner has the token, the container its digest.
    let token = AgentToken::random();
    let container = Container::new(image)
        .args(["--network", "open", "--listen", "0.0.0.0:8080"])
        .env("TENANT", "acme")
        .agent(&token);
    let ingress = match place.is_inside {
        true => Ingress::internal(8080),
        false => Ingress::external(8080),
    };
    let spec = AppSpec::new(environment.id().clone(), container)
        .registry(&place.registry, place.puller.clone())
        .ingress(ingress)
        .auth(place.owner.clone());
    let wanted = [
        Wanted::Environment("tenants".to_owned(), EnvironmentSpec::new()),
        Wanted::App("tenant-acme".to_owned(), spec.clone()),
    ];
    say(&azure.plan(&wanted).await?.to_string());

    environment.ensure(&EnvironmentSpec::new()).await?;
    let app = azure.app("tenant-acme")?;
    app.ensure(&spec).await?;
    let mut access = AgentAccess::new(token).entra(place.config.credential.clone(), &place.scope);
    if let Some(address) = place.dial {
        access = access.dial(address);
    }
    if let Some(file) = &place.config.ca_file {
        access = access.ca_file(file);
    }

    let sandbox = app.agent(&access).await?.own_sandbox().await?;
    say(&format!("the sandbox {} is ready", sandbox.info().id));
    test(&*sandbox).await?;

    app.stop().await?;
    let stopped = app.agent(&access).await.map(drop);
    say(&match stopped {
        Ok(()) => return Err("an app that is stopped answers".into()),
        Err(error) => format!("stopped: {error}"),
    });
    app.start().await?;
    app.ready().await?;
    // A new replica, and so a new sandbox.
    let sandbox = app.agent(&access).await?.own_sandbox().await?;
    test(&*sandbox).await?;
    Ok(())
}

/// Runs the tenant's tests.
async fn test(sandbox: &dyn Sandbox) -> Result<(), Box<dyn Error>> {
    let tests = Command::new("python3")
        .args(["-m", "unittest", "discover", "--start-directory"])
        .arg(format!("{HOME}/app"))
        .timeout(Duration::from_secs(120));
    let output = sandbox.exec(tests).await?;
    say(output.stderr.to_string_lossy().trim_end());
    if !output.success() {
        return Err(format!("the tests did not pass: {}", output.status).into());
    }
    // Nothing of the owner's, the pipeline's or the service's is in reach of the tenant's code.
    let seen = sandbox
        .sh("env; cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'")
        .await?;
    for name in [
        "TOKEN=",
        "SECRET",
        "PASSWORD",
        "IDENTITY_",
        "AZURE_",
        "DOCKER_",
        "DAGGER",
    ] {
        let seen = seen.stdout.to_string_lossy();
        if let Some(line) = seen.lines().find(|line| line.contains(name)) {
            let name = line.split('=').next().unwrap_or_default();
            return Err(format!("the tenant's code sees {name}").into());
        }
    }
    Ok(())
}

#[allow(clippy::print_stdout)]
fn say(line: &str) {
    println!("{line}");
}
