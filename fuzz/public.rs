//! Fuzz targets on the public API: paths, archives, specs, URIs of providers. Called by the tests
//! (`tests/fuzz.rs`), and callable by a fuzzer.

use std::io::Read as _;

use sandbox::{
    Command, EgressPolicy, EgressRule, GuestPath, Network, Operation, Registry, SandboxSpec,
    Settings, async_trait,
};

const OP: Operation = Operation::ReadFile;

/// Joining, taking apart and resolving paths: a resolved one is absolute, plain and below the root.
pub(crate) fn path(bytes: &[u8]) {
    let mut halves = bytes.splitn(2, |byte| *byte == b'\n');
    let workdir = GuestPath::from("/").join(GuestPath::new(halves.next().unwrap_or_default()));
    let path = GuestPath::new(halves.next().unwrap_or_default());
    assert_eq!(path.file_name(), path.components().next_back());
    // Every parent is shorter: who goes up arrives.
    let mut up = Some(path.clone());
    while let Some(at) = up {
        up = at.parent();
        let shorter = up
            .as_ref()
            .is_none_or(|up| up.as_bytes().len() < at.as_bytes().len());
        assert!(shorter, "{at:?}");
    }
    let Ok(workdir) = workdir.resolve(&GuestPath::root(), OP) else {
        return;
    };
    let Ok(resolved) = path.resolve(&workdir, OP) else {
        return;
    };
    assert!(
        resolved.is_absolute() && resolved.as_bytes().len() <= 4095,
        "{resolved:?}"
    );
    let plain = |part: &[u8]| part != b"." && part != b".." && !part.contains(&0);
    assert!(resolved.components().all(plain), "{resolved:?}");
    let parts: Vec<&[u8]> = resolved.components().collect();
    assert_eq!(resolved.as_bytes(), [b"/", &*parts.join(&b'/')].concat());
    // It stays what it is, from anywhere, also joined to where it was taken from.
    assert_eq!(resolved.resolve(&workdir, OP).ok(), Some(resolved.clone()));
    assert_eq!(
        workdir.join(path).resolve(&GuestPath::root(), OP).ok(),
        Some(resolved.clone())
    );
    if let Some(rest) = resolved.strip_prefix(&workdir) {
        assert!(!rest.is_absolute());
        let back = if rest.as_bytes().is_empty() {
            workdir
        } else {
            workdir.join(rest)
        };
        assert_eq!(back, resolved);
    }
}

/// An archive from a sandbox: names are plain, content is no more than there is.
pub(crate) fn archive(bytes: &[u8]) {
    let mut left = 1_u64 << 24;
    let read = sandbox_transfer::read_archive(bytes, |entry| {
        let parts = entry.path.split(|byte| *byte == b'/');
        let plain = |part: &[u8]| part != b"." && part != b".." && !part.contains(&0);
        assert!(entry.path.is_empty() || parts.clone().all(|part| !part.is_empty() && plain(part)));
        assert!(entry.attributes.mode <= 0o777);
        // A sparse file may be any number of zeros.
        let mut content = entry.content.take(left);
        left -= std::io::copy(&mut content, &mut std::io::sink()).unwrap_or_default();
        Ok(())
    });
    if let Err(error) = read {
        assert!(!error.to_string().is_empty());
    }
}

/// A specification, its policy of egress and a command, of these texts.
pub(crate) fn spec(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines().cycle().take(64);
    let mut line = || lines.next().unwrap_or_default();
    let mut policy = EgressPolicy::new();
    for _ in 0..3 {
        policy = policy
            .rule(
                EgressRule::exact(line())
                    .header(line(), line())
                    .upstream(line()),
            )
            .rule(EgressRule::subdomains(line()).port(bytes.len() as u16))
            .rule(EgressRule::apex_and_subdomains(line()));
    }
    let valid = policy.validate(OP).is_ok();
    for name in [line(), "example.org", "a.example.org."] {
        let ports = [0, 80, 443, bytes.len() as u16];
        let allowed = ports
            .iter()
            .any(|port| policy.rule_for(name, *port).is_some());
        // What is allowed is answered for.
        assert!(!(valid && allowed) || policy.knows(name), "{name:?}");
    }
    let spec = SandboxSpec::new()
        .workdir(line())
        .env(line(), line())
        .label(line(), line())
        .network(Network::Allow(policy));
    let _ = spec.validate();
    let command = Command::new(line())
        .arg(line())
        .cwd(line())
        .env(line(), line());
    let _ = command.validate(Operation::Exec);
    let _ = format!("{command:?}");
}

struct Connector;

#[async_trait]
impl sandbox::Connector for Connector {
    fn settings(&self) -> &[&str] {
        &["a", "dir"]
    }

    fn takes_address(&self) -> bool {
        true
    }

    async fn connect(
        &self,
        settings: Settings,
    ) -> sandbox::Result<std::sync::Arc<dyn sandbox::Provider>> {
        if let Some(dir) = settings.path("dir")? {
            assert!(dir.is_absolute());
        }
        assert!(!settings.address().contains('?'));
        let _ = settings.value("a");
        Err(settings.invalid("nothing is connected"))
    }
}

/// The URI of a provider, and a chain of them: whatever is wrong with it is told.
pub(crate) fn uri(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let registry = Registry::empty().register("x", Connector);
    let Ok(registry) = registry else { return };
    for uri in [text.clone().into_owned(), format!("x:{text}")] {
        let error = ready(registry.connect(&uri)).map(drop);
        assert!(error.is_err_and(|error| error.kind() == sandbox::ErrorKind::InvalidInput));
        assert!(ready(registry.connect_chain(&uri)).is_err());
    }
}

/// The result of a future that waits for nothing.
fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}
