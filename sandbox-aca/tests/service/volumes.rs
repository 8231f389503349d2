//! Volumes: what is on one is seen by every sandbox that has it, and outlives all of them.

use std::sync::Arc;

use sandbox_aca::{AcaOptions, AcaSandboxProvider, VolumeKind, VolumeMount};
use sandbox_core::{ErrorKind, Result, Sandbox, SandboxExt as _, SandboxSpec};
use sandbox_testkit::aca::Options;

use super::start;

async fn with(provider: &AcaSandboxProvider, mount: VolumeMount) -> Result<Arc<dyn Sandbox>> {
    let options = AcaOptions::new().volume(mount);
    provider.create_with(SandboxSpec::new(), options).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_shared_and_outlives_its_sandboxes() {
    let (_emulator, provider) = start(Options::default()).await;
    let disk = VolumeKind::DataDisk("1Gi".into());
    provider
        .create_volume("data", disk.clone())
        .await
        .expect("a volume");
    let first = with(&provider, VolumeMount::new("data", "/data")).await;
    let first = first.expect("a sandbox");
    let reader = with(
        &provider,
        VolumeMount::new("data", "/mnt/in").read_only(true),
    )
    .await;
    let reader = reader.expect("a sandbox");
    first.write("/data/d/f", "shared").await.expect("a file");
    assert_eq!(
        reader.read("/mnt/in/d/f").await.expect("it is seen"),
        "shared"
    );
    let refused = reader.sh("echo x > /mnt/in/d/f").await.expect("it runs");
    assert!(!refused.success(), "it was written");
    // A fork has the same files, and the volume is none of them: both have it.
    let fork = first.fork(Default::default()).await.expect("a fork");
    first.write("/data/late", "later").await.expect("a file");
    assert_eq!(fork.read("/data/late").await.expect("it is seen"), "later");
    let error = provider.delete_volume("data").await.expect_err("in use");
    assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
    for sandbox in [first, reader, fork] {
        sandbox.close().await.expect("it closes");
    }
    // Made again it is the one that is there.
    provider
        .create_volume("data", disk)
        .await
        .expect("a volume");
    let next = with(&provider, VolumeMount::new("data", "/data")).await;
    let next = next.expect("a sandbox");
    assert_eq!(next.read("/data/d/f").await.expect("it is there"), "shared");
    next.close().await.expect("it closes");
    provider.delete_volume("data").await.expect("it goes");
    let error = with(&provider, VolumeMount::new("data", "/data")).await;
    let error = error.expect_err("there is none");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_added_later_is_said_to_be_what_the_emulator_can_not() {
    let (_emulator, provider) = start(Options::default()).await;
    provider
        .create_volume("v", VolumeKind::AzureBlob)
        .await
        .expect("a volume");
    let sandbox = with(&provider, VolumeMount::new("v", "/v")).await;
    let sandbox = sandbox.expect("a sandbox");
    let handle = provider.handle(&sandbox.info().id).expect("a handle");
    let error = handle.add_volume(VolumeMount::new("v", "/w")).await;
    let error = error.expect_err("the emulator says so");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    let error = handle
        .add_volume(VolumeMount::new("v", "/w").read_only(true))
        .await;
    let error = error.expect_err("the wire has no word for it");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    sandbox.close().await.expect("it closes");
}
