//! Protocols on a connection: TLS and HTTP are for the name that was dialled.
//!
//! Invariant: each thing that must fail has a twin in the same case that must work.

use sandbox_core::EgressRule;

use super::{World, allow, cut, http, passed, upstream};
use crate::kit::{Context, Verdict, cases, ensure, ensure_eq};

cases! { "egress":
    the_tls_name_is_the_name_that_was_dialled [Exec, EgressByName],
    a_tls_name_that_can_not_be_seen_is_refused [Exec, EgressByName],
    a_first_tls_message_is_judged_whole [Exec, EgressByName],
    http_on_a_tls_port_is_refused [Exec, EgressByName],
    every_request_is_for_the_name_that_was_dialled [Exec, EgressByName],
    a_request_with_two_meanings_is_refused [Exec, EgressByName],
    what_is_smuggled_behind_a_request_does_not_pass [Exec, EgressByName],
    connect_is_no_way_out [Exec, EgressByName],
    a_redirect_leads_nowhere_by_itself [Exec, EgressByName],
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
