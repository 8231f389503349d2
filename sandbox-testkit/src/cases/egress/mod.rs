//! Egress by name: what a policy allows is reached, and nothing else, whatever a guest tries.
//!
//! Invariant: each thing that must fail has a twin in the same case that must work, and what must
//! not go out is looked for at the upstream, not in the guest.

pub(super) mod connections;
pub(super) mod names;
pub(super) mod policies;
pub(super) mod protocols;

use std::sync::Arc;
use std::time::Duration;

use sandbox_core::{
    Command, EgressPolicy, EgressProtocol, EgressRule, EgressVerdict, Network, Process,
    ProcessStdout, Sandbox, SandboxExt as _,
};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};

use crate::egress::{CLIENT, Upstreams};
use crate::kit::{Context, Failed, Verdict, ensure};

/// A sandbox with a policy, and the hosts behind it.
struct World {
    sandbox: Arc<dyn Sandbox>,
    up: Arc<Upstreams>,
}

impl World {
    async fn new(cx: &Context, policy: EgressPolicy) -> Verdict<Self> {
        let up = cx
            .fixture
            .upstreams()
            .ok_or_else(|| Failed::new("the fixture has no upstreams: see `Fixture::upstreams`"))?;
        let spec = cx.fixture.spec().network(Network::Allow(policy));
        let sandbox = cx.create(spec).await?;
        sandbox.write("net.py", CLIENT).await?;
        Ok(Self { sandbox, up })
    }

    /// Returns what the client prints.
    async fn ask(&self, args: &[&str]) -> Verdict<String> {
        ask_on(&*self.sandbox, args).await
    }

    /// Nothing of a name went out: not a packet.
    fn untouched(&self, name: &str) -> Verdict {
        let seen = self.up.seen(name);
        ensure!(
            seen.dialled.is_empty() && seen.received.is_empty(),
            "{name} was reached: {seen:?}"
        );
        Ok(())
    }

    /// The reasons of what was denied for a host, one for each record.
    async fn denied(&self, host: &str) -> Verdict<Vec<String>> {
        let all = self.sandbox.egress_decisions(0).await?.decisions;
        let denied = all
            .into_iter()
            .filter(|decision| decision.verdict == EgressVerdict::Denied && decision.host == host);
        Ok(denied.map(|decision| decision.reason).collect())
    }

    /// One HTTP request for `/`, as the client sends it.
    async fn get(&self, name: &str) -> Verdict<String> {
        let head = format!("GET / HTTP/1.1\\r\\nHost: {name}\\r\\nConnection: close\\r\\n\\r\\n");
        self.ask(&["raw", name, "80", &head]).await
    }
}

/// The client with these arguments. Python reads no settings and packages of the guest's, which would
/// take half of its time.
fn client(args: &[&str]) -> Command {
    Command::new("python3")
        .args(["-I", "-S", "net.py"])
        .args(args.iter().copied())
}

async fn ask_on(sandbox: &dyn Sandbox, args: &[&str]) -> Verdict<String> {
    let command = client(args).timeout(Duration::from_secs(30));
    let output = sandbox.exec(command).await?;
    ensure!(
        output.status.success(),
        "the client failed: {}",
        output.stderr.to_string_lossy()
    );
    Ok(output
        .stdout
        .to_string_lossy()
        .trim_end_matches('\n')
        .to_owned())
}

/// The lines of a process's output, as they come.
fn lines(process: &mut Process) -> Verdict<Lines<BufReader<ProcessStdout>>> {
    let stdout = process.stdout.take();
    let stdout = stdout.ok_or_else(|| Failed::new("the process has no output"))?;
    Ok(BufReader::new(stdout).lines())
}

fn http(name: &str) -> EgressRule {
    EgressRule::exact(name).protocol(EgressProtocol::Http)
}

fn allow(rules: impl IntoIterator<Item = EgressRule>) -> EgressPolicy {
    rules
        .into_iter()
        .fold(EgressPolicy::new(), EgressPolicy::rule)
}

fn passed(text: &str) -> Verdict {
    ensure!(
        text.contains("HTTP/1.1 200"),
        "should have been answered: {text}"
    );
    Ok(())
}

fn upstream(text: &str) -> Verdict {
    ensure!(
        text.contains("upstream "),
        "should have been answered: {text}"
    );
    Ok(())
}

fn cut(text: &str) -> Verdict {
    let went_on =
        text.contains("upstream") || text.contains("HTTP/1.1 200") || text.ends_with("open");
    ensure!(!went_on, "should have been cut: {text}");
    Ok(())
}
