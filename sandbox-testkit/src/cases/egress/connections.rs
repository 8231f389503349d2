//! Connections: addresses, ports, and where a name may lead.
//!
//! Invariant: each thing that must fail has a twin in the same case that must work.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use sandbox_core::{Command, EgressProtocol, EgressRule};

use super::{World, allow, cut, http, passed, upstream};
use crate::kit::{Context, Verdict, cases, ensure, ensure_eq};

cases! { "egress":
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
    let loops = [
        "v4-127-0-0-1",
        "v4-0-0-0-0",
        "v4-169-254-169-254",
        "v4-168-63-129-16",
        "v6---1",
    ];
    // In its network, whose other addresses the rule allows.
    let own = address_of_this_host().map(|own| format!("v4-{}", own.to_string().replace('.', "-")));
    for first in loops.into_iter().chain(own.as_deref()) {
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

/// The address that others of this host's network know it by, if it has a network. Nothing is sent.
fn address_of_this_host() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Of a network that is for documentation (RFC 5737).
    socket.connect((Ipv4Addr::new(203, 0, 113, 9), 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(own) if !own.is_loopback() => Some(own),
        _ => None,
    }
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
