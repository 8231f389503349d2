//! Sources of sandboxes besides an image that is pulled, and the places where they leave it.

use std::fs;

use sandbox_core::{Command, ErrorKind, Provider as _, SandboxExt as _, SnapshotOptions, Source};
use sandbox_dagger::{
    Base, CacheMount, DaggerConfig, DaggerProvider, ImageBuild, RegistryLogin, Snapshots,
};

use crate::config;
use crate::support::{Outcome, cache_is_shared, spec};

/// The image that everything starts from.
fn image() -> Result<String, String> {
    match config().base {
        Base::Image(image) => Ok(image),
        other => Err(format!("{other:?} is not an image")),
    }
}

/// A repository, and the login of its registry.
fn registry() -> Result<(String, RegistryLogin), Box<dyn std::error::Error + Send + Sync>> {
    let repository = std::env::var("SANDBOX_DAGGER_REGISTRY")?;
    let login = std::env::var("SANDBOX_DAGGER_LOGIN")?;
    let (user, password) = login.split_once(':').ok_or("no user:password")?;
    let host = repository.split('/').next().unwrap_or_default();
    let login = RegistryLogin::new(host, user, password);
    Ok((repository, login))
}

pub(crate) async fn a_dockerfile_is_built() -> Outcome {
    let context = tempfile::tempdir()?;
    let recipe = format!(
        "FROM {}\nENV WHO=me\nRUN printf built >/made\nCOPY data /data/\n",
        image()?
    );
    fs::write(context.path().join("Dockerfile"), recipe)?;
    fs::write(context.path().join("data"), "brought")?;
    let config = config().dockerfile(context.path());
    let provider = DaggerProvider::new(config)?;
    let sandbox = provider.create(spec()).await?;
    let output = sandbox.sh("cat /made /data/data; printf %s $WHO").await?;
    assert_eq!(output.stdout.bytes, "builtbroughtme");
    // The host's files are read anew, whatever the engine knows of them.
    fs::write(context.path().join("data"), "changed")?;
    let sandbox = provider.create(spec()).await?;
    assert_eq!(sandbox.read("/data/data").await?, "changed");
    Ok(())
}

pub(crate) async fn a_build_that_fails_says_what_the_command_said() -> Outcome {
    let provider = DaggerProvider::new(config())?;
    let image = ImageBuild::new(Base::Image(image()?)).run("echo no such thing >&2; exit 3");
    let dir = tempfile::tempdir()?;
    let archive = dir.path().join("image.tar");
    let Err(error) = provider.export_image(&image, &archive).await else {
        return Err("it should have failed".into());
    };
    let text = error.to_string();
    assert!(
        text.contains("no such thing") && text.contains("exit code: 3"),
        "{text}"
    );
    Ok(())
}

pub(crate) async fn an_archive_is_written_and_started_from() -> Outcome {
    let provider = DaggerProvider::new(config())?;
    let dir = tempfile::tempdir()?;
    let archive = dir.path().join("image.tar");
    let image = ImageBuild::new(Base::Image(image()?))
        .run("printf made >/made")
        .env("WHO", "me");
    provider.export_image(&image, &archive).await?;
    let again = provider.export_image(&image, &archive).await;
    assert_eq!(
        again.map_err(|error| error.kind()),
        Err(ErrorKind::AlreadyExists)
    );
    let config = config().tarball(&archive);
    let sandbox = DaggerProvider::new(config)?.create(spec()).await?;
    let output = sandbox.sh("cat /made; printf %s $WHO").await?;
    assert_eq!(output.stdout.bytes, "mademe");
    Ok(())
}

pub(crate) async fn an_image_is_published_with_a_login() -> Outcome {
    let (repository, login) = registry()?;
    let files = tempfile::tempdir()?;
    fs::write(files.path().join("main"), "agent")?;
    let image = ImageBuild::new(Base::Image(image()?))
        .run("printf tools >/tools")
        .copy(files.path(), "/opt/agent")
        .env("AGENT_HOME", "/opt/agent")
        .label("agent", "a")
        .workdir("/opt/agent")
        .entrypoint(["cat", "main"]);
    let address = format!("{repository}/agent:1");
    let nobody = DaggerProvider::new(config())?;
    let Err(error) = nobody.publish_image(&image, &address).await else {
        return Err("published without a login".into());
    };
    let text = format!("{error:?}");
    assert!(text.contains("401") || text.contains("authoriz"), "{text}");
    let provider = DaggerProvider::new(config().login(login))?;
    let reference = provider.publish_image(&image, &address).await?;
    assert!(
        reference.starts_with(&format!("{address}@sha256:")),
        "{reference}"
    );
    let from = spec().source(Source::Image(reference));
    let sandbox = provider.create(from).await?;
    let output = sandbox.sh("cat /tools $AGENT_HOME/main").await?;
    assert_eq!(output.stdout.bytes, "toolsagent");
    Ok(())
}

pub(crate) async fn snapshots_in_archives_outlive_their_provider() -> Outcome {
    let dir = tempfile::tempdir()?;
    let kept = Snapshots::Tarballs(dir.path().join("kept"));
    outlives(config().snapshots(kept)).await
}

pub(crate) async fn snapshots_in_a_registry_outlive_their_provider() -> Outcome {
    let (repository, login) = registry()?;
    let kept = Snapshots::Registry(format!("{repository}/snapshots"));
    outlives(config().snapshots(kept).login(login)).await
}

async fn outlives(config: DaggerConfig) -> Outcome {
    let provider = DaggerProvider::new(config.clone())?;
    let sandbox = provider.create(spec().secret("TOKEN", "hidden")).await?;
    let made = "printf kept >f; ln -s f link; chmod 4711 f; mkdir -p /srv/d; rm -rf /etc/profile* /etc/os-release";
    assert!(sandbox.sh(made).await?.success());
    let snapshot = sandbox.snapshot(SnapshotOptions::new()).await?;
    sandbox.write("f", "later").await?;
    sandbox.close().await?;
    drop((sandbox, provider));
    let from = spec().source(Source::Snapshot(snapshot.id));
    let provider = DaggerProvider::new(config)?;
    let again = provider.create(from).await?;
    let output = again
        .sh("cat link; printf %s \"$TOKEN\"; stat -c ' %a' f; ls -d /srv/d /etc/os-release")
        .await?;
    assert_eq!(
        output.stdout.bytes, "kept 4711\n/srv/d\n",
        "no secret, and what was removed is gone"
    );
    Ok(())
}

pub(crate) async fn a_cache_is_shared_and_outlives_sandboxes() -> Outcome {
    let key = format!("sandbox-test-{}", std::process::id());
    let config = config().cache(CacheMount::new(key, "/cache"));
    let provider = DaggerProvider::new(config)?;
    cache_is_shared(&provider).await
}

pub(crate) async fn sandboxes_run_as_the_user_that_was_asked_for() -> Outcome {
    let with = |user: &str| DaggerProvider::new(config().user(user));
    let cache = CacheMount::new("sandbox-test-user", "/cache");
    let provider = DaggerProvider::new(config().user("1000").cache(cache))?;
    let sandbox = provider.create(spec()).await?;
    sandbox.write("f", "x").await?;
    let host = tempfile::tempdir()?;
    fs::write(host.path().join("brought"), "y")?;
    let options = sandbox_core::ImportOptions::new();
    sandbox
        .import_dir(host.path(), &"in".into(), options)
        .await?;
    let script = "id -u; stat -c '%u %n' . f in in/brought; cat f in/brought; \
                  printf z >/cache/mine && stat -c ' %u' /cache/mine";
    let output = sandbox.sh(script).await?;
    assert_eq!(
        output.stdout.to_string_lossy(),
        "1000\n1000 .\n1000 f\n1000 in\n1000 in/brought\nxy 1000\n",
        "{output:?}"
    );
    let command = Command::new("id").args(["-u"]).user("0");
    assert_eq!(sandbox.exec(command).await?.stdout.bytes, "0\n");
    assert_eq!(sandbox.sh("id -u").await?.stdout.bytes, "1000\n");
    let made = with("no-such-user")?.create(spec()).await;
    assert_eq!(
        made.map(drop).map_err(|error| error.kind()),
        Err(ErrorKind::NotFound)
    );
    let command = Command::new("true").user("no-such-user");
    let Err(error) = sandbox.exec(command).await else {
        return Err("it should have failed".into());
    };
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    assert!(sandbox.sh("true").await?.success());
    Ok(())
}

pub(crate) async fn an_image_that_is_missing_is_told() -> Outcome {
    let image = image()?;
    // A colon before a slash is that of a registry's port.
    let name = match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => &image,
    };
    let config = config().image(format!("{name}:no-such-tag"));
    let made = DaggerProvider::new(config)?.create(spec()).await;
    let Err(error) = made else {
        return Err("it should have failed".into());
    };
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    assert!(error.hint().is_some(), "{error:?}");
    Ok(())
}
