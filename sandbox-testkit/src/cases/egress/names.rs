//! Names: which are answered, and that no text passes for another.
//!
//! Invariant: each thing that must fail has a twin in the same case that must work.

use sandbox_core::{EgressProtocol, EgressRule};

use super::{World, allow, cut, http, passed};
use crate::kit::{Context, Verdict, cases, ensure, ensure_eq};

cases! { "egress":
    a_name_without_a_rule_does_not_exist [Exec, EgressByName],
    a_rule_for_a_name_is_not_for_those_below_it [Exec, EgressByName],
    case_and_a_dot_at_the_end_make_no_difference [Exec, EgressByName],
    what_looks_like_an_allowed_name_is_none [Exec, EgressByName],
    numbers_are_no_names [Exec, EgressByName],
    questions_of_every_kind_are_answered_here [Exec, EgressByName],
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
