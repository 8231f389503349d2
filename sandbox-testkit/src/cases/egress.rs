//! Egress by name: what a policy allows is reached, and nothing else, whatever a guest tries.
//!
//! Invariant: each thing that must fail has a twin in the same case that must work, and what must
//! not go out is looked for at the upstream, not in the guest.

use std::sync::Arc;
use std::time::Duration;

use sandbox_core::{
    Command, EgressLimits, EgressPolicy, EgressProtocol, EgressRule, EgressVerdict, ErrorKind,
    ForkOptions, Network, Operation, Sandbox, SandboxExt as _,
};
use sandbox_core::{Process, ProcessStdout};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};

use crate::egress::{CLIENT, Upstreams};
use crate::kit::{Context, Failed, Verdict, cases, ensure, ensure_eq, eventually, refused, sh_on};

cases! { "egress":
    a_name_without_a_rule_does_not_exist [Exec, EgressByName],
    a_rule_for_a_name_is_not_for_those_below_it [Exec, EgressByName],
    case_and_a_dot_at_the_end_make_no_difference [Exec, EgressByName],
    what_looks_like_an_allowed_name_is_none [Exec, EgressByName],
    numbers_are_no_names [Exec, EgressByName],
    questions_of_every_kind_are_answered_here [Exec, EgressByName],
    an_address_has_no_route [Exec, EgressByName],
    an_address_that_no_name_has_is_refused [Exec, EgressByName],
    udp_is_refused_at_once [Exec, EgressByName],
    another_port_is_refused [Exec, EgressByName],
    raw_tcp_needs_its_own_rule [Exec, EgressPorts],
    a_high_port_leaves_the_guests_own_servers_alone [Exec, EgressPorts],
    a_name_that_leads_to_loopback_is_not_reached [Exec, EgressByName],
    a_name_that_leads_to_a_private_address_needs_the_rule [Exec, EgressByName],
    an_address_hidden_in_another_is_judged [Exec, EgressByName],
    a_forbidden_address_beside_a_public_one_is_left_out [Exec, EgressByName],
    a_name_is_resolved_once_for_each_connection [Exec, EgressByName],
    the_tls_name_is_the_name_that_was_dialled [Exec, EgressByName],
    a_tls_name_that_can_not_be_seen_is_refused [Exec, EgressByName],
    a_first_tls_message_is_judged_whole [Exec, EgressByName],
    http_on_a_tls_port_is_refused [Exec, EgressByName],
    every_request_is_for_the_name_that_was_dialled [Exec, EgressByName],
    a_request_with_two_meanings_is_refused [Exec, EgressByName],
    what_is_smuggled_behind_a_request_does_not_pass [Exec, EgressByName],
    connect_is_no_way_out [Exec, EgressByName],
    a_redirect_leads_nowhere_by_itself [Exec, EgressByName],
    there_are_only_so_many_names [Exec, EgressByName],
    there_are_only_so_many_connections [Exec, Spawn, EgressByName],
    there_are_only_so_many_bytes [Exec, EgressByName],
    a_fork_has_sockets_and_decisions_of_its_own [Exec, Fork, EgressByName],
    a_parent_goes_on_after_a_fork [Exec, Fork, EgressByName],
    a_narrowed_policy_cuts_what_it_forbids [Exec, Spawn, EgressPorts],
    a_narrowed_policy_allows_nothing_new [Exec, EgressByName],
    decisions_are_numbered_and_given_from_any_number [Exec, EgressByName],
    nothing_of_the_service_is_in_the_guest [Exec, EgressByName],
    a_guest_at_a_fake_address_fools_itself_alone [Exec, EgressByName],
    a_policy_without_a_meaning_is_refused [EgressByName],
    a_sandbox_without_a_policy_has_no_decisions [EgressByName, NetworkOff],
    a_policy_without_rules_allows_nothing [Exec, EgressByName],
}

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

async fn ask_on(sandbox: &dyn Sandbox, args: &[&str]) -> Verdict<String> {
    let command = Command::new("python3")
        .arg("net.py")
        .args(args.iter().copied())
        .timeout(Duration::from_secs(30));
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

async fn a_name_without_a_rule_does_not_exist(cx: Context) -> Verdict {
    let world = World::new(&cx, allow([http("a.unknown.test")])).await?;
    for name in ["b.unknown.test", "dns.google", "unknown.test"] {
        let text = world.ask(&["lookup", name]).await?;
        ensure!(text.starts_with("error gaierror"), "{name}: {text}");
        ensure_eq!(
            world.up.seen(name).resolved,
            0,
            "{name} was resolved on the host"
        );
        ensure_eq!(world.denied(name).await?.len(), 1, "records of {name}");
    }
    passed(&world.get("a.unknown.test").await?)
}

async fn a_rule_for_a_name_is_not_for_those_below_it(cx: Context) -> Verdict {
    let rules = [
        http("exact.below.test"),
        EgressRule::subdomains("sub.below.test").protocol(EgressProtocol::Http),
        EgressRule::apex_and_subdomains("both.below.test").protocol(EgressProtocol::Http),
    ];
    let world = World::new(&cx, allow(rules)).await?;
    for (name, allowed) in [
        ("exact.below.test", true),
        ("data.exact.below.test", false),
        ("sub.below.test", false),
        ("a.sub.below.test", true),
        ("a.b.sub.below.test", true),
        ("both.below.test", true),
        ("a.both.below.test", true),
        ("evilboth.below.test", false),
    ] {
        let text = world.ask(&["lookup", name]).await?;
        ensure_eq!(!text.starts_with("error"), allowed, "{name}: {text}");
    }
    passed(&world.get("a.sub.below.test").await?)
}

async fn case_and_a_dot_at_the_end_make_no_difference(cx: Context) -> Verdict {
    let world = World::new(&cx, allow([http("Case.Written.Test.")])).await?;
    let plain = world.ask(&["lookup", "case.written.test"]).await?;
    for name in ["CASE.Written.test", "case.written.test."] {
        ensure_eq!(world.ask(&["lookup", name]).await?, plain, "{name}");
        passed(&world.get(name).await?)?;
    }
    ensure!(
        world.up.seen("case.written.test").resolved >= 2,
        "asked in its canonical form"
    );
    Ok(())
}

async fn what_looks_like_an_allowed_name_is_none(cx: Context) -> Verdict {
    let world = World::new(&cx, allow([http("allowed.looks.test")])).await?;
    // By hand: resolvers refuse some of these themselves.
    for name in [
        "allowed.looks.test.evil",
        "evilallowed.looks.test",
        "allowed.looks.test%00.evil",
        "allowed.looks.test@evil",
        "allowed.looks.test\0.evil",
        "\u{e1}llowed.looks.test",
        "looks.test",
        "test",
        "",
    ] {
        let text = world.ask(&["dns", &name.replace('\0', "\u{1}")]).await?;
        ensure_eq!(text, "code 3 records 0", "{name:?}");
    }
    ensure_eq!(
        world.ask(&["dns", "allowed.looks.test"]).await?,
        "code 0 records 1",
        "the allowed name"
    );
    Ok(())
}

async fn numbers_are_no_names(cx: Context) -> Verdict {
    let world = World::new(&cx, allow([http("numbers.test")])).await?;
    for name in ["1.2.3.4%x.numbers.test", "0x7f.1", "2130706433", "127.1"] {
        ensure_eq!(
            world.ask(&["dns", name]).await?,
            "code 3 records 0",
            "{name}"
        );
    }
    for address in ["2130706433", "0x7f.1"] {
        // Programs take these for 127.0.0.1: the guest's own loopback, where no name is.
        let text = world
            .ask(&["raw", address, "80", "GET / HTTP/1.0\\r\\n\\r\\n"])
            .await?;
        cut(&text)?;
    }
    passed(&world.get("numbers.test").await?)
}

async fn questions_of_every_kind_are_answered_here(cx: Context) -> Verdict {
    let name = "kinds.test";
    let world = World::new(&cx, allow([http(name)])).await?;
    for by in ["udp", "tcp"] {
        ensure_eq!(
            world.ask(&["dns", name, "1", by]).await?,
            "code 0 records 1",
            "A by {by}"
        );
        // TXT, PTR, AAAA, SVCB, HTTPS, ANY, AXFR.
        for kind in ["16", "12", "28", "64", "65", "255", "252"] {
            let text = world.ask(&["dns", name, kind, by]).await?;
            ensure_eq!(text, "code 0 records 0", "kind {kind} by {by}");
            let text = world.ask(&["dns", "other.kinds.test", kind, by]).await?;
            ensure_eq!(
                text,
                "code 3 records 0",
                "kind {kind} of another name by {by}"
            );
        }
        ensure_eq!(
            world.ask(&["dns", "(loop)", "1", by]).await?,
            "code 1 records 0",
            "a loop"
        );
    }
    for by in ["udp", "tcp"] {
        let text = world.ask(&["dns", name, "1", by, "8.8.8.8"]).await?;
        ensure!(text.starts_with("error OSError"), "8.8.8.8 by {by}: {text}");
    }
    let text = world.ask(&["dns", name, "1", "huge"]).await?;
    ensure!(!text.starts_with("code 0"), "64 KiB: {text}");
    ensure_eq!(
        world.up.seen(name).resolved,
        0,
        "questions that reached the host's resolver"
    );
    Ok(())
}

async fn an_address_has_no_route(cx: Context) -> Verdict {
    let world = World::new(&cx, allow([http("route.test")])).await?;
    for address in [
        "93.184.216.34",
        "169.254.169.254",
        "10.0.0.1",
        "192.168.1.1",
        "203.0.113.1",
    ] {
        for port in ["80", "443"] {
            let text = world.ask(&["connect", address, port]).await?;
            ensure!(text.contains("unreachable"), "{address}:{port}: {text}");
        }
    }
    passed(&world.get("route.test").await?)
}

async fn an_address_that_no_name_has_is_refused(cx: Context) -> Verdict {
    let world = World::new(&cx, allow([http("known.test")])).await?;
    let known = world.ask(&["lookup", "known.test"]).await?;
    passed(
        &world
            .ask(&[
                "raw",
                &known,
                "80",
                "GET / HTTP/1.1\\r\\nHost: known.test\\r\\n\\r\\n",
            ])
            .await?,
    )?;
    let (network, _) = known.rsplit_once('.').unwrap_or_default();
    let unknown = format!("{network}.250");
    let request = "GET / HTTP/1.1\\r\\nHost: known.test\\r\\n\\r\\n";
    cut(&world.ask(&["raw", &unknown, "80", request]).await?)?;
    ensure_eq!(
        world.denied(&unknown).await?.len(),
        1,
        "records of {unknown}"
    );
    Ok(())
}

async fn udp_is_refused_at_once(cx: Context) -> Verdict {
    let world = World::new(&cx, allow([EgressRule::exact("quic.test")])).await?;
    let script = "import socket,time\n\
        a=socket.gethostbyname('quic.test')\n\
        s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.settimeout(5);s.connect((a,443))\n\
        t=time.time()\n\
        try:\n s.send(b'x'*1200);s.recv(10);print('answered')\n\
        except OSError as e: print(type(e).__name__,time.time()-t<1)\n";
    let output = world
        .sandbox
        .exec(Command::new("python3").args(["-c", script]))
        .await?;
    ensure_eq!(
        output.stdout.to_string_lossy(),
        "ConnectionRefusedError True\n",
        "QUIC"
    );
    upstream(&world.ask(&["hello", "quic.test", "quic.test"]).await?)
}

async fn another_port_is_refused(cx: Context) -> Verdict {
    let rules = [http("web.port.test"), EgressRule::exact("tls.port.test")];
    let world = World::new(&cx, allow(rules)).await?;
    // A port of another name's rule is listened on; one of none is not.
    cut(&world
        .ask(&["hello", "web.port.test", "web.port.test"])
        .await?)?;
    ensure_eq!(world.denied("web.port.test").await?.len(), 1, "records");
    for port in ["22", "8080", "25"] {
        let text = world.ask(&["connect", "web.port.test", port]).await?;
        ensure!(text.contains("ConnectionRefusedError"), "{port}: {text}");
    }
    world.untouched("web.port.test")?;
    passed(&world.get("web.port.test").await?)?;
    upstream(
        &world
            .ask(&["hello", "tls.port.test", "tls.port.test"])
            .await?,
    )
}

async fn raw_tcp_needs_its_own_rule(cx: Context) -> Verdict {
    let tcp = |name| EgressRule::exact(name).protocol(EgressProtocol::Tcp);
    let rules = [
        tcp("git.raw.test").port(22),
        EgressRule::exact("tls.raw.test").port(22),
    ];
    let world = World::new(&cx, allow(rules)).await?;
    upstream(
        &world
            .ask(&["raw", "git.raw.test", "22", "SSH-2.0-x\\r\\n"])
            .await?,
    )?;
    ensure_eq!(
        world.up.seen("git.raw.test").received,
        b"SSH-2.0-x\r\n",
        "what arrived"
    );
    cut(&world
        .ask(&["raw", "tls.raw.test", "22", "SSH-2.0-x\\r\\n"])
        .await?)?;
    world.untouched("tls.raw.test")
}

async fn a_high_port_leaves_the_guests_own_servers_alone(cx: Context) -> Verdict {
    let rule = EgressRule::exact("db.high.test")
        .protocol(EgressProtocol::Tcp)
        .port(5432);
    let world = World::new(&cx, allow([rule])).await?;
    upstream(&world.ask(&["raw", "db.high.test", "5432", "x"]).await?)?;
    ensure_eq!(
        world.ask(&["own", "127.0.0.1", "5432"]).await?,
        "own",
        "the guest's own server"
    );
    let text = world.ask(&["connect", "127.0.0.1", "5432"]).await?;
    ensure!(text.contains("ConnectionRefusedError"), "{text}");
    Ok(())
}

async fn a_name_that_leads_to_loopback_is_not_reached(cx: Context) -> Verdict {
    let wild = EgressRule::subdomains("loop.test")
        .protocol(EgressProtocol::Http)
        .private(true);
    let world = World::new(&cx, allow([wild])).await?;
    for first in [
        "v4-127-0-0-1",
        "v4-0-0-0-0",
        "v4-169-254-169-254",
        "v4-168-63-129-16",
        "v6---1",
    ] {
        let name = format!("{first}.loop.test");
        let text = world.get(&name).await?;
        ensure!(text.contains("HTTP/1.1 403"), "{name}: {text}");
        world.untouched(&name)?;
        let denied = world.denied(&name).await?;
        ensure!(
            denied.len() == 1 && denied[0].contains("leads to"),
            "{name}: {denied:?}"
        );
    }
    passed(&world.get("public.loop.test").await?)
}

async fn a_name_that_leads_to_a_private_address_needs_the_rule(cx: Context) -> Verdict {
    let rules = [
        EgressRule::subdomains("no.private.test").protocol(EgressProtocol::Http),
        EgressRule::subdomains("yes.private.test")
            .protocol(EgressProtocol::Http)
            .private(true),
    ];
    let world = World::new(&cx, allow(rules)).await?;
    for first in [
        "v4-10-1-2-3",
        "v4-192-168-77-9",
        "v4-172-16-9-9",
        "v4-100-64-0-9",
    ] {
        let denied = format!("{first}.no.private.test");
        let text = world.get(&denied).await?;
        ensure!(text.contains("HTTP/1.1 403"), "{denied}: {text}");
        world.untouched(&denied)?;
        passed(&world.get(&format!("{first}.yes.private.test")).await?)?;
    }
    Ok(())
}

async fn an_address_hidden_in_another_is_judged(cx: Context) -> Verdict {
    let wild = EgressRule::subdomains("hidden.test").protocol(EgressProtocol::Http);
    let world = World::new(&cx, allow([wild])).await?;
    for first in [
        "v6---ffff-7f00-1",
        "v6-64-ff9b--7f00-1",
        "v6-2002-7f00-1--5",
        "v6-64-ff9b--a9fe-a9fe",
        "v6---ffff-a00-1",
        "v6-64-ff9b-1--1",
        "v6-fe80--1",
        "v6-fd00-ec2--254",
    ] {
        let name = format!("{first}.hidden.test");
        let text = world.get(&name).await?;
        ensure!(!text.contains("HTTP/1.1 200"), "{name}: {text}");
        world.untouched(&name)?;
    }
    passed(&world.get("v6-64-ff9b--808-808.hidden.test").await?)
}

async fn a_forbidden_address_beside_a_public_one_is_left_out(cx: Context) -> Verdict {
    let world = World::new(&cx, allow([http("mixed-a.test")])).await?;
    passed(&world.get("mixed-a.test").await?)?;
    for to in world.up.seen("mixed-a.test").dialled {
        ensure!(!to.ip().is_loopback(), "loopback was dialled");
    }
    Ok(())
}

async fn a_name_is_resolved_once_for_each_connection(cx: Context) -> Verdict {
    let name = "rebind-a.test";
    let world = World::new(&cx, allow([http(name)])).await?;
    // Two requests on one connection: resolved once, and the checked address is the dialled one.
    let request = format!("GET / HTTP/1.1\\r\\nHost: {name}\\r\\n\\r\\n");
    let text = world.ask(&["raw", name, "80", &request, &request]).await?;
    ensure_eq!(text.matches("HTTP/1.1 200").count(), 2, "{text}");
    let seen = world.up.seen(name);
    ensure_eq!(seen.resolved, 1, "times resolved");
    ensure!(
        seen.dialled.len() == 1 && !seen.dialled[0].ip().is_loopback(),
        "{seen:?}"
    );
    // By the next connection it leads to loopback.
    let text = world.get(name).await?;
    ensure!(text.contains("HTTP/1.1 403"), "{text}");
    ensure_eq!(world.up.seen(name).dialled.len(), 1, "times dialled");
    Ok(())
}

async fn the_tls_name_is_the_name_that_was_dialled(cx: Context) -> Verdict {
    let rules = ["a.sni.test", "b.sni.test"].map(EgressRule::exact);
    let world = World::new(&cx, allow(rules)).await?;
    for name in ["b.sni.test", "evil.test", "sni.test", "x.a.sni.test"] {
        cut(&world.ask(&["hello", "a.sni.test", name]).await?)?;
    }
    world.untouched("a.sni.test")?;
    world.untouched("b.sni.test")?;
    ensure_eq!(world.denied("a.sni.test").await?.len(), 4, "records");
    upstream(&world.ask(&["hello", "a.sni.test", "A.SNI.test"]).await?)
}

async fn a_tls_name_that_can_not_be_seen_is_refused(cx: Context) -> Verdict {
    let world = World::new(&cx, allow([EgressRule::exact("blind.test")])).await?;
    for (name, how) in [
        ("-", "whole"),
        ("blind.test", "ech"),
        ("blind.test", "garbage"),
    ] {
        cut(&world.ask(&["hello", "blind.test", name, how]).await?)?;
    }
    world.untouched("blind.test")?;
    ensure_eq!(world.denied("blind.test").await?.len(), 3, "records");
    upstream(&world.ask(&["hello", "blind.test", "blind.test"]).await?)
}

async fn a_first_tls_message_is_judged_whole(cx: Context) -> Verdict {
    let world = World::new(&cx, allow([EgressRule::exact("whole.test")])).await?;
    for how in ["bytes", "records"] {
        upstream(
            &world
                .ask(&["hello", "whole.test", "whole.test", how])
                .await?,
        )?;
        cut(&world
            .ask(&["hello", "whole.test", "evil.test", how])
            .await?)?;
    }
    let reached = world.up.seen("whole.test").dialled.len();
    for how in ["long", "endless"] {
        cut(&world
            .ask(&["hello", "whole.test", "whole.test", how])
            .await?)?;
    }
    ensure_eq!(
        world.up.seen("whole.test").dialled.len(),
        reached,
        "times dialled"
    );
    Ok(())
}

async fn http_on_a_tls_port_is_refused(cx: Context) -> Verdict {
    let world = World::new(&cx, allow([EgressRule::exact("plain.test")])).await?;
    let request = "GET / HTTP/1.1\\r\\nHost: plain.test\\r\\n\\r\\n";
    cut(&world.ask(&["raw", "plain.test", "443", request]).await?)?;
    world.untouched("plain.test")?;
    upstream(&world.ask(&["hello", "plain.test", "plain.test"]).await?)
}

async fn every_request_is_for_the_name_that_was_dialled(cx: Context) -> Verdict {
    let world = World::new(&cx, allow([http("a.host.test"), http("b.host.test")])).await?;
    let request = |host: &str| format!("GET /secret HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n");
    for host in [
        "b.host.test",
        "evil.test",
        "a.host.test:81",
        "a.host.test@evil.test",
        "",
    ] {
        let text = world
            .ask(&["raw", "a.host.test", "80", &request(host)])
            .await?;
        ensure!(text.contains("HTTP/1.1 403"), "{host}: {text}");
    }
    world.untouched("a.host.test")?;
    // The second one of a connection is judged as the first one was.
    let (own, other) = (request("a.host.test"), request("evil.test"));
    let text = world
        .ask(&["raw", "a.host.test", "80", &own, &other])
        .await?;
    ensure!(
        text.contains("HTTP/1.1 200") && text.contains("HTTP/1.1 403"),
        "{text}"
    );
    let absolute = "GET http://evil.test/ HTTP/1.1\\r\\nHost: a.host.test\\r\\n\\r\\n";
    let text = world.ask(&["raw", "a.host.test", "80", absolute]).await?;
    ensure!(text.contains("HTTP/1.1 403"), "{text}");
    let received = String::from_utf8_lossy(&world.up.seen("a.host.test").received).into_owned();
    ensure!(!received.contains("evil"), "{received}");
    let absolute = "GET http://A.host.test:80/x HTTP/1.1\\r\\nHost: a.host.test\\r\\n\\r\\n";
    passed(&world.ask(&["raw", "a.host.test", "80", absolute]).await?)
}

async fn a_request_with_two_meanings_is_refused(cx: Context) -> Verdict {
    let name = "two.test";
    let world = World::new(&cx, allow([http(name)])).await?;
    for head in [
        "GET / HTTP/1.1\\r\\nHost: two.test\\r\\nHost: evil.test\\r\\n\\r\\n",
        "GET / HTTP/1.1\\r\\nHost: two.test\\r\\nHost: two.test\\r\\n\\r\\n",
        "GET / HTTP/1.1\\r\\n\\r\\n",
        "GET / HTTP/1.1\\r\\nHost: two.test\\r\\n folded: x\\r\\n\\r\\n",
        "GET / HTTP/1.1\\r\\nHost : two.test\\r\\n\\r\\n",
        "POST / HTTP/1.1\\r\\nHost: two.test\\r\\nContent-Length: 1\\r\\nContent-Length: 2\\r\\n\\r\\nxx",
        "POST / HTTP/1.1\\r\\nHost: two.test\\r\\nTransfer-Encoding: x\\r\\n\\r\\n",
        "POST / HTTP/1.0\\r\\nHost: two.test\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n",
        "GET https://two.test/ HTTP/1.1\\r\\nHost: two.test\\r\\n\\r\\n",
        "PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n",
        "\\x16\\x03\\x01\\x00\\x05hello",
        "GET / HTTP/1.1\\r\\nHost: two.test\\r\\nX: \\x00\\r\\n\\r\\n",
    ] {
        let text = world.ask(&["raw", name, "80", head]).await?;
        ensure!(
            !text.contains("HTTP/1.1 200") && !text.ends_with("open"),
            "{head}: {text}"
        );
    }
    world.untouched(name)?;
    passed(&world.get(name).await?)
}

async fn what_is_smuggled_behind_a_request_does_not_pass(cx: Context) -> Verdict {
    let name = "smuggle.test";
    let world = World::new(&cx, allow([http(name)])).await?;
    let inner = "GET /inner HTTP/1.1\\r\\nHost: evil.test\\r\\n\\r\\n";
    for framing in [
        "Content-Length: 80\\r\\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\\r\\nContent-Length: 80",
        "Connection: transfer-encoding\\r\\nTransfer-Encoding: chunked",
    ] {
        let head = format!(
            "POST / HTTP/1.1\\r\\nHost: {name}\\r\\n{framing}\\r\\n\\r\\n0\\r\\n\\r\\n{inner}"
        );
        world.ask(&["raw", name, "80", &head]).await?;
    }
    let body =
        format!("POST / HTTP/1.1\\r\\nHost: {name}\\r\\nContent-Length: 4\\r\\n\\r\\nbody{inner}");
    passed(&world.ask(&["raw", name, "80", &body]).await?)?;
    let received = String::from_utf8_lossy(&world.up.seen(name).received).into_owned();
    ensure!(
        !received.contains("evil.test") && !received.contains("/inner"),
        "{received}"
    );
    Ok(())
}

async fn connect_is_no_way_out(cx: Context) -> Verdict {
    let name = "relay.test";
    let world = World::new(&cx, allow([http(name)])).await?;
    for target in ["evil.test:443", "relay.test:80", "127.0.0.1:22"] {
        let head = format!("CONNECT {target} HTTP/1.1\\r\\nHost: {target}\\r\\n\\r\\n");
        let text = world.ask(&["raw", name, "80", &head]).await?;
        ensure!(text.contains("HTTP/1.1 405"), "{target}: {text}");
    }
    world.untouched(name)?;
    passed(&world.get(name).await?)
}

async fn a_redirect_leads_nowhere_by_itself(cx: Context) -> Verdict {
    let name = "redirect.test";
    let world = World::new(&cx, allow([http(name)])).await?;
    let head = format!("GET /to/evil.redirect.test/ HTTP/1.1\\r\\nHost: {name}\\r\\n\\r\\n");
    let text = world.ask(&["raw", name, "80", &head]).await?;
    ensure!(
        text.contains("302 Found") && text.to_ascii_lowercase().contains("location: http://evil"),
        "{text}"
    );
    let text = world.ask(&["lookup", "evil.redirect.test"]).await?;
    ensure!(text.starts_with("error"), "{text}");
    ensure_eq!(
        world.up.seen("evil.redirect.test").resolved,
        0,
        "times resolved"
    );
    Ok(())
}

async fn there_are_only_so_many_names(cx: Context) -> Verdict {
    let wild = EgressRule::subdomains("many.test").protocol(EgressProtocol::Http);
    let policy = allow([wild]).limits(EgressLimits::new().names(50));
    let world = World::new(&cx, policy).await?;
    let first = world.ask(&["lookup", "n0.many.test"]).await?;
    ensure_eq!(
        world.ask(&["many", "many.test", "400"]).await?,
        "50",
        "names that were answered"
    );
    ensure_eq!(
        world.ask(&["lookup", "n0.many.test"]).await?,
        first,
        "one that was there before"
    );
    passed(&world.get("n0.many.test").await?)
}

async fn there_are_only_so_many_connections(cx: Context) -> Verdict {
    let policy = allow([http("few.test")]).limits(EgressLimits::new().connections(8));
    let world = World::new(&cx, policy.clone()).await?;
    let neighbour = World::new(&cx, policy).await?;
    let command = Command::new("python3").args(["net.py", "half_open", "few.test", "80", "200"]);
    let mut process = world.sandbox.spawn(command).await?;
    let mut told = lines(&mut process)?;
    ensure_eq!(
        told.next_line().await?.as_deref(),
        Some("held"),
        "the client"
    );
    cut(&world.get("few.test").await?)?;
    let denied = world.denied("few.test").await?;
    ensure!(
        denied.iter().any(|why| why.contains("connections")),
        "{denied:?}"
    );
    world.untouched("few.test")?;
    passed(&neighbour.get("few.test").await?)?;
    // They are given back when the client has ended.
    process.kill().await?;
    process.wait().await?;
    eventually("a connection is possible again", || async {
        Ok(world.get("few.test").await?.contains("HTTP/1.1 200"))
    })
    .await
}

async fn there_are_only_so_many_bytes(cx: Context) -> Verdict {
    let policy = allow([http("bytes.test")]).limits(EgressLimits::new().bytes(20_000));
    let world = World::new(&cx, policy).await?;
    passed(&world.get("bytes.test").await?)?;
    let body = "x".repeat(60_000);
    let head = format!(
        "POST / HTTP/1.1\\r\\nHost: bytes.test\\r\\nContent-Length: 60000\\r\\n\\r\\n{body}"
    );
    cut(&world.ask(&["raw", "bytes.test", "80", &head]).await?)?;
    let received = world.up.seen("bytes.test").received.len();
    ensure!(received < 40_000, "{received} bytes arrived");
    cut(&world.get("bytes.test").await?)?;
    let denied = world.denied("bytes.test").await?;
    ensure!(
        denied.iter().any(|why| why.contains("limit on bytes")),
        "{denied:?}"
    );
    Ok(())
}

async fn a_fork_has_sockets_and_decisions_of_its_own(cx: Context) -> Verdict {
    let wild = EgressRule::subdomains("fork.test").protocol(EgressProtocol::Http);
    let world = World::new(&cx, allow([wild])).await?;
    let address = world.ask(&["lookup", "a.fork.test"]).await?;
    let child = World {
        sandbox: cx.track(world.sandbox.fork(ForkOptions::new()).await?),
        up: world.up.clone(),
    };
    ensure_eq!(
        child.ask(&["lookup", "a.fork.test"]).await?,
        address,
        "the same address"
    );
    child.ask(&["lookup", "evil.test"]).await?;
    ensure_eq!(
        child.denied("evil.test").await?.len(),
        1,
        "the child's records"
    );
    ensure_eq!(
        world.denied("evil.test").await?.len(),
        0,
        "the parent's records"
    );
    world.sandbox.close().await?;
    passed(&child.get("a.fork.test").await?)?;
    passed(&child.get("b.fork.test").await?)
}

async fn a_parent_goes_on_after_a_fork(cx: Context) -> Verdict {
    let wild = EgressRule::subdomains("parent.test").protocol(EgressProtocol::Http);
    let world = World::new(&cx, allow([wild])).await?;
    let address = world.ask(&["lookup", "a.parent.test"]).await?;
    let child = cx.fork(&*world.sandbox).await?;
    child.close().await?;
    ensure_eq!(
        world.ask(&["lookup", "a.parent.test"]).await?,
        address,
        "the same address"
    );
    passed(&world.get("a.parent.test").await?)?;
    let first = world.sandbox.egress_decisions(0).await?.decisions;
    ensure!(
        first.first().is_some_and(|first| first.number == 1),
        "the records from before"
    );
    Ok(())
}

async fn a_narrowed_policy_cuts_what_it_forbids(cx: Context) -> Verdict {
    let tcp = |name| {
        EgressRule::exact(name)
            .protocol(EgressProtocol::Tcp)
            .port(22)
    };
    let world = World::new(&cx, allow([tcp("a.narrow.test"), tcp("b.narrow.test")])).await?;
    let mut held = Vec::new();
    for name in ["a.narrow.test", "b.narrow.test"] {
        let command = Command::new("python3").args(["net.py", "hold", name, "22"]);
        let mut process = world.sandbox.spawn(command).await?;
        let mut told = lines(&mut process)?;
        ensure_eq!(
            told.next_line().await?.as_deref(),
            Some("first upstream 1"),
            "{name}"
        );
        held.push((process, told));
    }
    world
        .sandbox
        .restrict_egress(allow([tcp("b.narrow.test")]))
        .await?;
    let Some((_, cut_lines)) = held.first_mut() else {
        return Ok(());
    };
    ensure_eq!(
        cut_lines.next_line().await?.as_deref(),
        Some("then cut"),
        "the forbidden one"
    );
    let text = world.ask(&["lookup", "a.narrow.test"]).await?;
    ensure!(text.starts_with("error"), "{text}");
    upstream(&world.ask(&["raw", "b.narrow.test", "22", "x"]).await?)?;
    let denied = world.denied("a.narrow.test").await?;
    ensure!(
        denied.iter().any(|why| why.contains("narrowed")),
        "{denied:?}"
    );
    for (process, mut told) in held.drain(1..) {
        // Still there, to the end of it.
        ensure!(
            tokio::time::timeout(Duration::from_millis(50), told.next_line())
                .await
                .is_err(),
            "the allowed one was cut too"
        );
        process.kill().await?;
        process.wait().await?;
    }
    Ok(())
}

async fn a_narrowed_policy_allows_nothing_new(cx: Context) -> Verdict {
    let world = World::new(&cx, allow([http("a.new.test"), http("b.new.test")])).await?;
    world
        .sandbox
        .restrict_egress(allow([http("a.new.test"), http("c.new.test")]))
        .await?;
    for (name, allowed) in [
        ("a.new.test", true),
        ("b.new.test", false),
        ("c.new.test", false),
    ] {
        let text = world.ask(&["lookup", name]).await?;
        ensure_eq!(!text.starts_with("error"), allowed, "{name}: {text}");
    }
    let child = cx.fork(&*world.sandbox).await?;
    ensure!(
        ask_on(&*child, &["lookup", "b.new.test"])
            .await?
            .starts_with("error"),
        "in a fork"
    );
    // The next one takes its place, within the first policy.
    world
        .sandbox
        .restrict_egress(allow([http("b.new.test")]))
        .await?;
    passed(&world.get("b.new.test").await?)?;
    let wrong = world
        .sandbox
        .restrict_egress(allow([EgressRule::exact("*.test")]))
        .await;
    let error = refused(
        wrong,
        &*world.sandbox,
        Operation::RestrictEgress,
        ErrorKind::InvalidInput,
    )?;
    ensure!(error.to_string().contains("subdomains"), "{error}");
    passed(&world.get("b.new.test").await?)
}

async fn decisions_are_numbered_and_given_from_any_number(cx: Context) -> Verdict {
    let world = World::new(&cx, allow([http("told.test")])).await?;
    passed(&world.get("told.test").await?)?;
    world.ask(&["lookup", "evil.told.test"]).await?;
    let all = world.sandbox.egress_decisions(0).await?;
    ensure_eq!(all.missed, 0, "missed");
    let told: Vec<_> = all
        .decisions
        .iter()
        .map(|told| (told.number, told.host.as_str(), told.port, told.verdict))
        .collect();
    let expected = [
        (1, "told.test", Some(80), EgressVerdict::Allowed),
        (2, "evil.told.test", None, EgressVerdict::Denied),
    ];
    ensure_eq!(told, expected, "the decisions");
    ensure!(
        all.decisions.iter().all(|told| !told.reason.is_empty()),
        "reasons"
    );
    ensure!(
        all.decisions[0].address.is_some(),
        "the address that was dialled"
    );
    let later = world.sandbox.egress_decisions(1).await?;
    ensure_eq!(later.decisions, all.decisions[1..], "those after the first");
    ensure_eq!(
        world.sandbox.egress_decisions(2).await?.decisions,
        [],
        "those after the last"
    );
    world.sandbox.close().await?;
    let closed = world.sandbox.egress_decisions(0).await;
    refused(
        closed,
        &*world.sandbox,
        Operation::EgressDecisions,
        ErrorKind::Closed,
    )?;
    Ok(())
}

async fn nothing_of_the_service_is_in_the_guest(cx: Context) -> Verdict {
    let world = World::new(&cx, allow([http("service.test")])).await?;
    let script = "ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c socket; env | grep -ic proxy; \
        for p in /proc/[0-9]*; do cat $p/comm 2>/dev/null; done | sort -u | tr '\\n' ' '";
    let found = sh_on(&*world.sandbox, script)
        .await?
        .stdout
        .to_string_lossy()
        .into_owned();
    let mut lines = found.lines();
    ensure_eq!(lines.next(), Some("0"), "sockets of processes in the guest");
    ensure_eq!(lines.next(), Some("0"), "variables for a proxy");
    passed(&world.get("service.test").await?)
}

async fn a_guest_at_a_fake_address_fools_itself_alone(cx: Context) -> Verdict {
    let world = World::new(&cx, allow([http("fool.test")])).await?;
    let neighbour = World::new(&cx, allow([http("fool.test")])).await?;
    let address = world.ask(&["lookup", "fool.test"]).await?;
    ensure_eq!(
        world.ask(&["own", &address, "8443"]).await?,
        "own",
        "its own server"
    );
    let text = world.ask(&["own", &address, "80"]).await?;
    ensure!(text.starts_with("error"), "{text}");
    passed(&neighbour.get("fool.test").await?)?;
    passed(&world.get("fool.test").await?)
}

async fn a_policy_without_a_meaning_is_refused(cx: Context) -> Verdict {
    for (policy, word) in [
        (allow([EgressRule::exact("https://a.test/")]), "bare name"),
        (
            allow([http("a.test"), http("a.test").private(true)]),
            "contradict",
        ),
        (
            allow([EgressRule::subdomains("a.test").header("x-key", "hunter2")]),
            "exact names",
        ),
    ] {
        let spec = cx.fixture.spec().network(Network::Allow(policy));
        let Err(error) = cx.create(spec).await else {
            return Err(Failed::new(format_args!("accepted: {word}")));
        };
        ensure_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        let text = format!("{error:?}");
        ensure!(text.contains(word) && !text.contains("hunter2"), "{text}");
    }
    Ok(())
}

async fn a_sandbox_without_a_policy_has_no_decisions(cx: Context) -> Verdict {
    let sandbox = cx.create(cx.fixture.spec().network(Network::Off)).await?;
    let done = sandbox.egress_decisions(0).await;
    refused(
        done,
        &*sandbox,
        Operation::EgressDecisions,
        ErrorKind::InvalidInput,
    )?;
    let done = sandbox.restrict_egress(EgressPolicy::new()).await;
    refused(
        done,
        &*sandbox,
        Operation::RestrictEgress,
        ErrorKind::InvalidInput,
    )?;
    Ok(())
}

async fn a_policy_without_rules_allows_nothing(cx: Context) -> Verdict {
    let world = World::new(&cx, EgressPolicy::new()).await?;
    let text = world.ask(&["lookup", "nothing.test"]).await?;
    ensure!(text.starts_with("error"), "{text}");
    ensure_eq!(world.denied("nothing.test").await?.len(), 1, "records");
    let text = world.ask(&["connect", "1.1.1.1", "443"]).await?;
    ensure!(text.contains("unreachable"), "{text}");
    Ok(())
}
