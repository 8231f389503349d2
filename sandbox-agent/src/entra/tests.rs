//! Tokens that are right in all but one thing, against keys served on loopback.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use sandbox_core::Secret;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// Keys made for these tests; the authority has the first.
const KEY: &[u8] = include_bytes!("key1.der");
const OTHER_KEY: &[u8] = include_bytes!("key2.der");
const MODULUS: &str = "wkTvd3fxeGpNk5g0-f8Ha3qEWU8l3JQISifMWY4UXMFvqTiTQDYmiDicKOBlwCk2VoWY1bgstt9fb5Nbc0Tx_6uB_KzoxGjW6Ri-CDLgProrySGBNWrwVrWZt2x9xi4meWaj8_Y-aCeVLAhMIEISVv6LYRQ8Z1qd3V9OOWaFFLm3Wnya0NQffOQRKPb0aaWEpwfIyVNDnDuE0ChI-4BG9ZJDgepuKdZfVPLKoP4fs3iAcaOTI9N7hoWjROuJLygUmHwClPECxXNqX6DqZGHz2YMXQK0SY_mU_M6LFOCtfmhOhqrdKPuDgZUkcjB90N24ymMqoxxiByfZ_10lvchL3Q";

const TENANT: &str = "11111111-2222-3333-4444-555555555555";
const OWNER: &str = "66666666-7777-8888-9999-000000000000";

/// Serves keys and counts how often; after `answers` it is silent.
async fn authority_that(answers: usize) -> (String, Arc<AtomicUsize>) {
    let (_, go) = tokio::sync::watch::channel(());
    authority_after(go, answers).await
}

/// Serves keys once its answers are let go: when the sender is dropped.
async fn authority_after(
    go: tokio::sync::watch::Receiver<()>,
    answers: usize,
) -> (String, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            if count.fetch_add(1, Ordering::SeqCst) >= answers {
                held.push(stream);
                continue;
            }
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = go.clone().changed().await;
            let keys = json!({ "keys": [
                { "kty": "RSA", "kid": "one", "n": MODULUS, "e": "AQAB" },
                { "kty": "EC", "kid": "two" },
            ] });
            let body = keys.to_string();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (address, asked)
}

async fn authority() -> (String, Arc<AtomicUsize>) {
    authority_that(usize::MAX).await
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn claims(authority: &str) -> Value {
    json!({
        "iss": format!("{authority}/{TENANT}/v2.0"),
        "aud": "api://agent",
        "oid": OWNER,
        "tid": TENANT,
        "nbf": now() - 10,
        "exp": now() + 600,
    })
}

fn signed(claims: &Value, key: &[u8], kid: &str) -> String {
    let mut header = Header::new(Algorithm::RS256);
    header.kid = Some(kid.into());
    encode(&header, claims, &EncodingKey::from_rsa_der(key)).unwrap()
}

fn access(authority: &str) -> EntraAccess {
    let owner = Entra {
        authority: authority.into(),
        tenant: TENANT.into(),
        audience: "api://agent".into(),
        object: OWNER.into(),
    };
    EntraAccess::new(owner).unwrap()
}

#[tokio::test]
async fn the_owner_is_admitted_and_whatever_differs_is_not() {
    let (authority, asked) = authority().await;
    let access = access(&authority);
    let good = signed(&claims(&authority), KEY, "one");
    assert!(access.check(&good).await.is_some());
    let mut v1 = claims(&authority);
    v1["iss"] = format!("https://sts.windows.net/{TENANT}/").into();
    assert!(access.check(&signed(&v1, KEY, "one")).await.is_some());
    for (claim, value) in [
        ("oid", json!("77777777-7777-8888-9999-000000000000")),
        ("tid", json!("22222222-2222-3333-4444-555555555555")),
        ("aud", json!("api://other")),
        ("iss", json!("https://evil.example/v2.0")),
        ("exp", json!(now() - 600)),
        ("nbf", json!(now() + 600)),
        ("oid", Value::Null),
        ("exp", Value::Null),
        ("aud", Value::Null),
    ] {
        let mut wrong = claims(&authority);
        match value {
            Value::Null => drop(wrong.as_object_mut().unwrap().remove(claim)),
            value => wrong[claim] = value,
        }
        let token = signed(&wrong, KEY, "one");
        assert!(access.check(&token).await.is_none(), "{claim}");
    }
    // Another key under the known name, an unknown name, no signature, another algorithm.
    let claims = claims(&authority);
    assert!(
        access
            .check(&signed(&claims, OTHER_KEY, "one"))
            .await
            .is_none()
    );
    assert!(access.check(&signed(&claims, KEY, "three")).await.is_none());
    let (body, _) = good.rsplit_once('.').unwrap();
    assert!(access.check(&format!("{body}.")).await.is_none());
    let header = Header {
        kid: Some("one".into()),
        ..Header::new(Algorithm::HS256)
    };
    let confused = EncodingKey::from_secret(MODULUS.as_bytes());
    let confused = encode(&header, &claims, &confused).unwrap();
    assert!(access.check(&confused).await.is_none());
    for garbage in ["", ".", "..", "a.b.c", "\u{0}"] {
        assert!(access.check(garbage).await.is_none());
    }
    // Tokens with unknown names do not make it fetch again and again.
    for name in 0..50 {
        let token = signed(&claims, KEY, &name.to_string());
        assert!(access.check(&token).await.is_none());
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_token_whose_key_is_known_does_not_wait_for_a_fetch() {
    let (authority, asked) = authority_that(1).await;
    let access = Arc::new(access(&authority));
    let good = signed(&claims(&authority), KEY, "one");
    assert!(access.check(&good).await.is_some());
    // Long enough ago for another try, which a stranger's token brings about.
    access.keys().tried = None;
    let stranger = signed(&claims(&authority), OTHER_KEY, "three");
    let fetching = tokio::spawn({
        let access = Arc::clone(&access);
        async move { access.check(&stranger).await }
    });
    while asked.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    let mut checked = std::pin::pin!(access.check(&good));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(checked.as_mut().poll(&mut context).is_ready());
    fetching.abort();
}

#[tokio::test]
async fn a_stranger_who_hangs_up_does_not_keep_the_owner_out() {
    let (go, wait) = tokio::sync::watch::channel(());
    let (authority, asked) = authority_after(wait, usize::MAX).await;
    let access = Arc::new(access(&authority));
    let stranger = signed(&claims(&authority), OTHER_KEY, "three");
    let fetching = tokio::spawn({
        let access = Arc::clone(&access);
        async move { access.check(&stranger).await }
    });
    while asked.load(Ordering::SeqCst) < 1 {
        tokio::task::yield_now().await;
    }
    fetching.abort();
    assert!(fetching.await.unwrap_err().is_cancelled());
    drop(go);
    let good = signed(&claims(&authority), KEY, "one");
    assert!(access.check(&good).await.is_some());
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn without_keys_there_is_no_access() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let authority = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let access = access(&authority);
    let good = signed(&claims(&authority), KEY, "one");
    let caller_has = Secret::from(good.clone());
    assert!(access.check(&good).await.is_none());
    assert!(!format!("{access:?} {caller_has:?}").contains(&good));
}

#[test]
fn an_authority_in_the_clear_and_strange_identifiers_are_refused() {
    let owner = |authority: &str, tenant: &str, object: &str| Entra {
        authority: authority.into(),
        tenant: tenant.into(),
        audience: "a".into(),
        object: object.into(),
    };
    let login = "https://login.example";
    assert!(EntraAccess::new(owner(login, TENANT, OWNER)).is_ok());
    for wrong in [
        owner("http://login.example", TENANT, OWNER),
        owner("login.example", TENANT, OWNER),
        owner(login, "", OWNER),
        owner(login, "../common", OWNER),
        owner(login, TENANT, ""),
        owner(login, TENANT, "a b"),
    ] {
        assert!(EntraAccess::new(wrong).is_err());
    }
}
