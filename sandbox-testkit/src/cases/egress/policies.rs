//! Policies over a sandbox's life: limits, forks, narrowing, decisions.
//!
//! Invariant: each thing that must fail has a twin in the same case that must work.

use std::time::Duration;

use sandbox_core::{
    EgressLimits, EgressPolicy, EgressProtocol, EgressRule, EgressVerdict, ErrorKind, ForkOptions,
    Network, Operation,
};

use super::{World, allow, ask_on, client, cut, http, lines, passed, upstream};
use crate::kit::{Context, Failed, Verdict, cases, ensure, ensure_eq, eventually, refused, sh_on};

cases! { "egress":
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
    let command = client(&["half_open", "few.test", "80", "200"]);
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
    // Where the names lead: two to public addresses, one to a private one.
    let [forbidden, private, kept] = ["a.narrow.test", "v4-10-9-8-7.narrow.test", "b.narrow.test"];
    let policy = allow([tcp(forbidden), tcp(private).private(true), tcp(kept)]);
    let world = World::new(&cx, policy).await?;
    let mut held = Vec::new();
    for name in [forbidden, private, kept] {
        let command = client(&["hold", name, "22"]);
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
        .restrict_egress(allow([tcp(private), tcp(kept)]))
        .await?;
    for (name, (_, told)) in [forbidden, private].iter().zip(&mut held) {
        ensure_eq!(
            told.next_line().await?.as_deref(),
            Some("then cut"),
            "{name}"
        );
        let denied = world.denied(name).await?;
        ensure!(
            denied.iter().any(|why| why.contains("narrowed")),
            "{name}: {denied:?}"
        );
    }
    let text = world.ask(&["lookup", forbidden]).await?;
    ensure!(text.starts_with("error"), "{text}");
    cut(&world.ask(&["raw", private, "22", "x"]).await?)?;
    upstream(&world.ask(&["raw", kept, "22", "x"]).await?)?;
    for (process, mut told) in held.drain(2..) {
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
