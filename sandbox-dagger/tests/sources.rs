//! Sources of sandboxes besides images, and the settings that a provider gives all of its
//! sandboxes.
#![cfg(target_os = "linux")]

mod support;

use std::fs;
use std::sync::atomic::{AtomicU16, Ordering};

use sandbox_core::{
    Command, ErrorKind, Execution, GuestPath, Provider as _, SandboxExt as _, SnapshotOptions,
    Source,
};
use sandbox_dagger::{
    Base, CacheMount, CacheSharing, DaggerProvider, ImageBuild, ProcessLimits, RegistryLogin,
    SecretUri, ServiceBinding, Snapshots,
};
use sandbox_testkit::dagger::{DaggerDouble, Quirks};
use support::{Outcome, Rig, cache_is_shared, config, spec};

#[tokio::test(flavor = "multi_thread")]
async fn a_dockerfile_is_built() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    let context = tempfile::tempdir()?;
    let recipe = "FROM alpine:3\nENV WHO=me\nRUN printf built >/made\nCOPY data /data/\n";
    fs::write(context.path().join("Dockerfile"), recipe)?;
    fs::write(context.path().join("data"), "brought")?;
    let config = config(&double).dockerfile(context.path());
    let sandbox = DaggerProvider::new(config)?.create(spec()).await?;
    let output = sandbox.sh("cat /made /data/data; printf %s $WHO").await?;
    assert_eq!(output.stdout.bytes, "builtbroughtme");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_on_the_host_is_named() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    let dir = tempfile::tempdir()?;
    let missing = dir.path().join("no-such");
    for config in [
        config(&double).dockerfile(dir.path()),
        config(&double).tarball(&missing),
    ] {
        let made = DaggerProvider::new(config)?.create(spec()).await;
        let Err(error) = made else {
            return Err("it should have failed".into());
        };
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("no-such") || text.contains("Dockerfile"),
            "{text}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_can_not_be_had_is_told_apart_from_one_that_is_not_there() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    for (image, kind) in [
        ("docker.io/no-such", ErrorKind::NotFound),
        ("no-network.test/image", ErrorKind::Unavailable),
    ] {
        let config = config(&double).image(image);
        let made = DaggerProvider::new(config)?.create(spec()).await;
        let Err(error) = made else {
            return Err("it should have failed".into());
        };
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.hint().is_some(), "{error:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_built_published_with_a_login_and_started_from() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    double.require_login("registry.test:5000", "acme", "s3cret");
    let files = tempfile::tempdir()?;
    fs::write(files.path().join("main"), "agent")?;
    let image = ImageBuild::new(Base::Image("alpine:3".into()))
        .run("printf tools >/tools")
        .copy(files.path(), "/opt/agent")
        .env("AGENT_HOME", "/opt/agent")
        .label("agent", "a")
        .workdir("/opt/agent")
        .entrypoint(["cat", "main"]);
    let address = "registry.test:5000/acme/agent:1";
    let nobody = DaggerProvider::new(config(&double))?;
    let refused = nobody.publish_image(&image, address).await;
    let Err(error) = refused else {
        return Err("published without a login".into());
    };
    assert!(error.to_string().contains("401"), "{error}");
    let login = RegistryLogin::new("registry.test:5000", "acme", "s3cret");
    let provider = DaggerProvider::new(config(&double).login(login))?;
    let reference = provider.publish_image(&image, address).await?;
    assert!(reference.starts_with(&format!("{address}@sha256:")));
    assert_eq!(
        double.queries_with("s3cret"),
        double.queries_with("setSecret")
    );
    let from = spec().source(Source::Image(reference.clone()));
    assert!(nobody.create(from.clone()).await.is_err());
    let sandbox = provider.create(from).await?;
    let output = sandbox.sh("cat /tools $AGENT_HOME/main").await?;
    assert_eq!(output.stdout.bytes, "toolsagent");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_fails_says_what_the_command_said() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    let provider = DaggerProvider::new(config(&double))?;
    let image =
        ImageBuild::new(Base::Image("alpine:3".into())).run("echo no such thing >&2; exit 3");
    let Err(error) = provider.publish_image(&image, "registry.test/a").await else {
        return Err("it should have failed".into());
    };
    let text = error.to_string();
    assert!(
        text.contains("no such thing") && text.contains("exit code: 3"),
        "{text}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_written_and_started_from() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    let provider = DaggerProvider::new(config(&double))?;
    let dir = tempfile::tempdir()?;
    let archive = dir.path().join("image.tar");
    let image = ImageBuild::new(Base::Image("alpine:3".into()))
        .run("printf made >/made")
        .env("WHO", "me");
    provider.export_image(&image, &archive).await?;
    let again = provider.export_image(&image, &archive).await;
    assert_eq!(
        again.map_err(|error| error.kind()),
        Err(ErrorKind::AlreadyExists)
    );
    let config = config(&double).tarball(&archive);
    let sandbox = DaggerProvider::new(config)?.create(spec()).await?;
    let output = sandbox.sh("cat /made; printf %s $WHO").await?;
    assert_eq!(output.stdout.bytes, "mademe");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_outlive_their_provider_where_that_was_asked_for() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    double.require_login("registry.test", "acme", "s3cret");
    let dir = tempfile::tempdir()?;
    for snapshots in [
        Snapshots::Tarballs(dir.path().join("kept")),
        Snapshots::Registry("registry.test/acme/snapshots".into()),
    ] {
        let login = RegistryLogin::new("registry.test", "acme", "s3cret");
        let config = config(&double).snapshots(snapshots).login(login);
        let provider = DaggerProvider::new(config.clone())?;
        let sandbox = provider.create(spec().secret("TOKEN", "hidden")).await?;
        sandbox.sh("printf kept >f; rm -f /etc/hosts").await?;
        let snapshot = sandbox.snapshot(SnapshotOptions::new()).await?;
        sandbox.close().await?;
        drop((sandbox, provider));
        let from = spec().source(Source::Snapshot(snapshot.id));
        let again = DaggerProvider::new(config)?.create(from).await?;
        let output = again
            .sh("cat f; printf %s \"$TOKEN\"; ls /etc/hosts")
            .await?;
        assert_eq!(
            output.stdout.bytes, "kept",
            "no secret, and what was removed is gone"
        );
        assert!(!output.success());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_is_shared_and_outlives_sandboxes() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    let config = config(&double).cache(CacheMount::new("npm", "/cache"));
    let provider = DaggerProvider::new(config)?;
    cache_is_shared(&provider).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_without_a_place_is_refused() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    let config = config(&double).cache(CacheMount::new("npm", GuestPath::from("cache")));
    let made = DaggerProvider::new(config)?.create(spec()).await;
    assert_eq!(
        made.map(drop).map_err(|error| error.kind()),
        Err(ErrorKind::InvalidInput)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sandboxes_run_as_the_user_that_was_asked_for() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    let with = |user: &str| DaggerProvider::new(config(&double).user(user));
    let sandbox = with("1000")?.create(spec()).await?;
    sandbox.write("f", "x").await?;
    assert_eq!(sandbox.sh("cat f").await?.stdout.bytes, "x");
    assert!(double.queries_with("withUser(name: \"1000\")") > 0);
    assert!(double.queries_with("owner: \"1000\"") > 0);
    let made = with("no-such-user")?.create(spec()).await;
    let Err(error) = made else {
        return Err("it should have failed".into());
    };
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    let command = Command::new("true").user("no-such-user");
    let Err(error) = sandbox.exec(command).await else {
        return Err("it should have failed".into());
    };
    assert_eq!(
        (error.kind(), error.execution()),
        (ErrorKind::NotFound, Some(Execution::NotStarted)),
        "{error:?}"
    );
    assert!(sandbox.sh("true").await?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_have_the_limits_that_were_asked_for() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    let limits = ProcessLimits::none().file_size(4096).open_files(32);
    let provider = DaggerProvider::new(config(&double).limits(limits))?;
    let sandbox = provider.create(spec()).await?;
    let output = sandbox.sh("ulimit -n; head -c 4096 /dev/zero >f").await?;
    assert_eq!(output.stdout.bytes, "32\n");
    assert!(output.success());
    assert!(!sandbox.sh("head -c 9000 /dev/zero >g").await?.success());
    assert_eq!(sandbox.stat("g").await?.size, 4096);
    Ok(())
}

/// A free port below those that the system gives to programs that ask for any, and another one for
/// each call: the program that is to listen on it does so later.
fn free_port() -> std::io::Result<u16> {
    static CALLS: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() % 20_000).unwrap_or(0);
    std::iter::repeat_with(|| CALLS.fetch_add(1, Ordering::Relaxed))
        .take(100)
        .map(|call| 10_000 + (own + call * 199) % 20_000)
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| std::io::Error::other("no port is free"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_reached_from_the_host_until_it_is_stopped() -> Outcome {
    let rig = Rig::new().await?;
    rig.sandbox.write("page", "hello from inside").await?;
    let port = free_port()?;
    let program = "use IO::Socket::INET; \
        my $s = IO::Socket::INET->new(LocalPort => $ARGV[0], Listen => 5, ReuseAddr => 1) or die; \
        while (my $c = $s->accept) { open(my $f, '<', 'page'); print {$c} <$f>, $ENV{TOKEN}; close $c }";
    let mut command = Command::new("perl").args(["-e", program, &port.to_string()]);
    command.env = command.env.secret("TOKEN", "s3cret");
    let id = rig.sandbox.info().id;
    let service = rig.provider.serve(&id, command, port).await?;
    // The sandbox goes on without it, and it without the sandbox.
    rig.sandbox.write("page", "changed").await?;
    rig.sandbox.close().await?;
    let address = service.address();
    let text = tokio::task::spawn_blocking(move || {
        std::io::read_to_string(std::net::TcpStream::connect(address)?)
    });
    assert_eq!(text.await??, "hello from insides3cret");
    service.stop().await?;
    assert!(std::net::TcpStream::connect(address).is_err());
    let Err(error) = rig.provider.serve(&id, Command::new("true"), port).await else {
        return Err("a closed sandbox served".into());
    };
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_ends_at_once_is_told() -> Outcome {
    let rig = Rig::new().await?;
    let id = rig.sandbox.info().id;
    let Err(error) = rig.provider.serve(&id, Command::new("false"), 65_432).await else {
        return Err("it should have failed".into());
    };
    assert!(error.to_string().contains("exited"), "{error:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sandbox_reaches_a_service_by_its_name() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    let port = free_port()?;
    let program = "use IO::Socket::INET; \
        my $s = IO::Socket::INET->new(LocalPort => $ARGV[0], Listen => 5, ReuseAddr => 1) or die; \
        while (my $c = $s->accept) { print {$c} \"$ENV{GREETING} $ENV{NAME}\"; close $c }";
    let service = ServiceBinding::new("greeter", "perl:5", port)
        .args(["perl", "-e", program, &port.to_string()])
        .env("GREETING", "good \"day\"")
        .env("NAME", "all");
    let provider = DaggerProvider::new(config(&double).service(service))?;
    let ask = format!(
        "perl -MIO::Socket::INET -e \
         'my $s = IO::Socket::INET->new(\"greeter:{port}\") or die; print <$s>'"
    );
    for _ in 0..2 {
        let sandbox = provider.create(spec()).await?;
        assert_eq!(sandbox.sh(&ask).await?.stdout.bytes, "good \"day\" all");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_by_its_uri_is_a_variable_and_never_passes_through() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), "s3cret: with a colon")?;
    let uri = format!("file://{}", file.path().display());
    let provider = DaggerProvider::new(config(&double).secret(SecretUri::new("TOKEN", &uri)))?;
    let sandbox = provider.create(spec()).await?;
    let fork = sandbox.fork_one().await?;
    for sandbox in [sandbox, fork] {
        let output = sandbox.sh("printf %s \"$TOKEN\"").await?;
        assert_eq!(output.stdout.bytes, "s3cret: with a colon");
    }
    assert_eq!(double.queries_with("s3cret"), 0);
    for (variable, uri, kind) in [
        ("A B", uri.as_str(), ErrorKind::InvalidInput),
        ("1A", uri.as_str(), ErrorKind::InvalidInput),
        ("TOKEN", "env://NO_SUCH_VARIABLE_HERE", ErrorKind::Other),
    ] {
        let provider = DaggerProvider::new(config(&double).secret(SecretUri::new(variable, uri)))?;
        let refused = provider.create(spec()).await.map(drop);
        assert_eq!(
            refused.map_err(|error| error.kind()),
            Err(kind),
            "{variable}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_is_shared_as_it_is_asked_for() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    let cache = CacheMount::new("build", "/cache").sharing(CacheSharing::Locked);
    let provider = DaggerProvider::new(config(&double).cache(cache.owner("1000")))?;
    cache_is_shared(&provider).await?;
    let asked = "sharing: LOCKED, owner: \"1000\"";
    assert_ne!(double.queries_with(asked), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_of_the_engine_can_be_asked_and_pruned() -> Outcome {
    let rig = Rig::new().await?;
    let before = rig.provider.disk_use().await?;
    rig.sandbox.sh("head -c 3000000 /dev/zero >f").await?;
    let after = rig.provider.disk_use().await?;
    assert!(after.entries > before.entries, "{before:?} {after:?}");
    assert!(
        after.bytes >= before.bytes + 3_000_000,
        "{before:?} {after:?}"
    );
    rig.provider.prune().await?;
    assert_eq!(rig.sandbox.stat("f").await?.size, 3_000_000);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_can_not_be_loaded_where_no_image_store_is() -> Outcome {
    let rig = Rig::new().await?;
    let image = ImageBuild::new(Base::Image("alpine".into())).env("A", "b");
    let Err(error) = rig.provider.load_image(&image, "acme/agent:1").await else {
        return Err("it should have failed".into());
    };
    assert!(error.to_string().contains("no image store"), "{error}");
    assert_eq!(
        rig.double
            .queries_with("exportImage(name: \"acme/agent:1\")"),
        1
    );
    Ok(())
}
