//! Operations that only this service has: suspend, policies, images, resources.

use std::time::Duration;

use sandbox_aca::{
    AcaOptions, AcaSource, AcaState, EgressAction, EgressPolicy, Lifecycle, NewDiskImage, NewPort,
    VolumeKind,
};
use sandbox_core::{
    ErrorKind, Labels, Network, Provider as _, SandboxExt as _, SandboxId, SandboxSpec, Source,
};
use sandbox_testkit::aca::{AcaEmulator, Options};

use super::{sandbox, start};

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_sandbox_refuses_until_it_is_resumed() {
    let mut options = Options::default();
    options.stopping = Duration::from_millis(300);
    options.resuming = Duration::from_millis(300);
    let (emulator, provider) = start(options).await;
    let sandbox = provider
        .create(SandboxSpec::new())
        .await
        .expect("a sandbox");
    sandbox.write("kept", "here").await.expect("a file");
    let handle = provider.handle(&sandbox.info().id).expect("a handle");
    let turning = async {
        // The emulator's time moves only when it is told to.
        loop {
            emulator.advance(Duration::from_millis(100));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let work = async {
        handle.suspend().await.expect("it is suspended");
        handle.suspend().await.expect("it stays so");
        let state = handle.state().await.expect("a state");
        assert_eq!(state.state, AcaState::Stopped);
        assert_eq!(state.stopped_reason, "UserStopped");
        let error = sandbox.sh("true").await.expect_err("it does not run");
        assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
        handle.resume().await.expect("it runs");
        handle.resume().await.expect("it goes on");
        assert_eq!(sandbox.read("kept").await.expect("a file"), "here");
    };
    tokio::select! {
        () = work => {}
        () = turning => {}
    }
    sandbox.close().await.expect("it closes");
    let error = handle.state().await.expect_err("it is gone");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_set_whole_and_forks_have_them_too() {
    let (_emulator, provider, sandbox) = sandbox().await;
    let handle = provider.handle(&sandbox.info().id).expect("a handle");
    let denied = handle
        .state()
        .await
        .expect("a state")
        .egress
        .expect("a policy");
    assert_eq!(
        denied,
        EgressPolicy::deny(),
        "what a spec without network gets"
    );
    let policy = EgressPolicy::deny().rule("*.example.com", EgressAction::Allow);
    handle.set_egress(policy.clone()).await.expect("it is set");
    let life =
        Lifecycle::new(Some(Duration::from_secs(600))).suspend_after(Duration::from_secs(60));
    handle.set_lifecycle(life).await.expect("it is set");
    let child = sandbox.fork(Default::default()).await.expect("a fork");
    let child = provider.handle(&child.info().id).expect("a handle");
    assert_eq!(child.state().await.expect("a state").egress, Some(policy));
    assert!(
        handle
            .egress_decisions()
            .await
            .expect("decisions")
            .denied
            .is_empty()
    );
    let stats = handle.stats().await.expect("stats");
    assert_eq!(stats.memory.total, 2 << 30, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_committed_image_is_what_the_sandbox_was() {
    for legacy in [false, true] {
        let mut options = Options::default();
        options.legacy_commit = legacy;
        let (_emulator, provider) = start(options).await;
        let sandbox = provider
            .create(SandboxSpec::new())
            .await
            .expect("a sandbox");
        sandbox
            .write("/workspace/made", "once")
            .await
            .expect("a file");
        let handle = provider.handle(&sandbox.info().id).expect("a handle");
        let labels = Labels::from([("purpose".to_owned(), "test".to_owned())]);
        let image = handle.commit(&labels).await.expect("an image");
        let known = provider.disk_images().await.expect("images");
        assert!(
            known
                .iter()
                .any(|known| known.id == image && known.labels == labels),
            "{known:?}"
        );
        let options = AcaOptions::new().source(AcaSource::DiskImage(image.clone()));
        let made = provider
            .create_with(SandboxSpec::new(), options)
            .await
            .expect("a sandbox");
        assert_eq!(made.read("made").await.expect("a file"), "once");
        provider.delete_disk_image(&image).await.expect("it goes");
        provider
            .delete_disk_image(&image)
            .await
            .expect("it is gone");
        assert!(provider.disk_images().await.expect("images").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_volumes_and_snapshots_are_made_listed_and_deleted() {
    let (_emulator, provider, sandbox) = sandbox().await;
    let public = provider.public_disk_images().await.expect("images");
    assert!(
        public.iter().any(|image| image.id == "ubuntu"),
        "{public:?}"
    );
    let image = NewDiskImage::new("docker.io/library/debian:12").credentials("me", "hidden");
    assert!(!format!("{image:?}").contains("hidden"));
    let image = provider.create_disk_image(image).await.expect("an image");
    provider.delete_disk_image(&image).await.expect("it goes");
    let disk = VolumeKind::DataDisk("10Gi".into());
    provider
        .create_volume("data", disk)
        .await
        .expect("a volume");
    provider
        .create_volume("blobs", VolumeKind::AzureBlob)
        .await
        .expect("a volume");
    let mut names: Vec<String> = provider
        .volumes()
        .await
        .expect("volumes")
        .into_iter()
        .map(|v| v.name)
        .collect();
    names.sort();
    assert_eq!(names, ["blobs", "data"]);
    provider.delete_volume("data").await.expect("it goes");
    provider.delete_volume("data").await.expect("it is gone");
    let snapshot = sandbox
        .snapshot(Default::default())
        .await
        .expect("a snapshot");
    let listed = provider.snapshots().await.expect("snapshots");
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (&listed[0].id, &listed[0].sandbox),
        (&snapshot.id, &sandbox.info().id)
    );
    let spec = SandboxSpec::new().source(Source::Snapshot(snapshot.id.clone()));
    let options = AcaOptions::new().port(NewPort::new(80));
    let restored = provider
        .create_with(spec, options)
        .await
        .expect("a sandbox");
    let restored = provider.handle(&restored.info().id).expect("a handle");
    assert_eq!(restored.state().await.expect("a state").ports[0].port, 80);
    provider
        .delete_snapshot(&snapshot.id)
        .await
        .expect("it goes");
    provider
        .delete_snapshot(&snapshot.id)
        .await
        .expect("it is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_is_made_as_the_options_say() {
    let (emulator, provider) = start(Options::default()).await;
    let options = AcaOptions::new()
        .source(AcaSource::PublicImage("node-22".into()))
        .cpu("500m")
        .memory("1Gi")
        .egress(EgressPolicy::deny().rule("example.com", EgressAction::Allow))
        .port(NewPort::new(3000))
        .lifecycle(Lifecycle::new(None));
    let spec = SandboxSpec::new().label("run", "one");
    let made = provider
        .create_with(spec, options)
        .await
        .expect("a sandbox");
    let state = provider
        .handle(&made.info().id)
        .expect("a handle")
        .state()
        .await
        .expect("a state");
    assert_eq!(
        (state.cpu.as_str(), state.memory.as_str()),
        ("500m", "1024Mi")
    );
    assert_eq!(
        state.labels,
        Labels::from([("run".to_owned(), "one".to_owned())])
    );
    assert_eq!(state.ports[0].port, 3000);
    assert_eq!(state.egress.expect("a policy").rules.len(), 1);
    let preset = AcaOptions::new().source(AcaSource::Preset("code-interpreter".into()));
    provider
        .create_with(SandboxSpec::new(), preset.clone())
        .await
        .expect("a sandbox");
    let before = emulator.requests("");
    let image = SandboxSpec::new().source(Source::Image("ubuntu".into()));
    let open = SandboxSpec::new().network(Network::Open);
    for (spec, options) in [
        (image, preset.clone()),
        (SandboxSpec::new(), preset.cpu("500m")),
        (open, AcaOptions::new().egress(EgressPolicy::deny())),
    ] {
        let error = provider
            .create_with(spec, options)
            .await
            .expect_err("they exclude each other");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    }
    assert_eq!(emulator.requests(""), before, "something was sent");
    let error = provider
        .handle(&SandboxId::new("../x"))
        .expect_err("no identifier");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    everything_is_deleted_by_label(&emulator, &provider).await;
}

async fn everything_is_deleted_by_label(
    emulator: &AcaEmulator,
    provider: &sandbox_aca::AcaSandboxProvider,
) {
    let run = Labels::from([("run".to_owned(), "one".to_owned())]);
    let before = emulator.counts().0;
    for found in provider.list(&run).await.expect("a list") {
        provider.attach(&found.id).await.expect("it is found");
        provider.destroy(&found.id).await.expect("it goes");
    }
    assert_eq!(emulator.counts().0, before - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_the_trait_are_a_policy_where_the_version_can_tell_schemes_apart() {
    use sandbox_core::{EgressPolicy as Rules, EgressProtocol, EgressRule};
    let https = Rules::new().rule(EgressRule::exact("pypi.org"));
    let http = EgressRule::exact("pypi.org").protocol(EgressProtocol::Http);
    let both = https.clone().rule(http);
    for (version, tells) in super::VERSIONS.into_iter().zip([false, true]) {
        let (emulator, provider) = super::start_in(version, Options::default()).await;
        for (rules, taken) in [(&both, true), (&https, tells)] {
            let policy = EgressPolicy::of_rules(rules).expect(version);
            let options = AcaOptions::new().egress(policy.clone());
            let made = provider.create_with(SandboxSpec::new(), options).await;
            if !taken {
                let error = made.expect_err(version);
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
                assert!(error.to_string().contains("https alone"), "{error}");
                continue;
            }
            let sandbox = made.expect(version);
            let handle = provider.handle(&sandbox.info().id).expect(version);
            let shown = handle.state().await.expect(version).egress;
            assert_eq!(shown, Some(policy), "{version}");
            let set = handle.set_egress(EgressPolicy::of_rules(&https).expect(version));
            assert_eq!(set.await.is_ok(), tells, "{version}");
            sandbox.close().await.expect(version);
        }
        assert_eq!(emulator.counts().0, 0, "{version}: nothing was made");
    }
}
