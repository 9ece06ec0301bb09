//! HTTP/2 to the PAM: what is spoken, what shares a connection, and what becomes of a request when it comes to nothing.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use portcullis::upstream::{
    Answer, AnswerBody, AnswerStream, Failure, FailureKind, Manner, Outbound, Protocol, Upstream, UpstreamLimits,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::certificates::Authority;
use crate::world::{Folder, PATIENCE, Pam, Request, World, answer, breath, valkyrie};

// ---- what is spoken ----

#[tokio::test]
async fn the_pam_gets_what_it_would_get_over_http1() {
    let pam = Speaking::start(echo).await;
    let world = pam.world(&["upstream_protocol=http2"]).await;
    let call = valkyrie::call("POST", "/players/17/transactions?provider=x&a=%20")
        .with("Content-Type", "application/json")
        .with("Connection", "keep-alive")
        .with("X-Correlation-ID", "c-1")
        .body("{}");
    let reply = world.send(&call).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "{}"));
    assert_eq!(reply.values("x-correlation-id"), ["c-1"]);
    let seen = pam.only_call();
    assert_eq!((seen.method.as_str(), seen.body.as_slice()), ("POST", &b"{}"[..]));
    assert_eq!(seen.uri, "http://pam.example/players/17/transactions?provider=x&a=%20");
    let value = |name: &str| seen.fields.get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(value("content-length").as_deref(), Some("2"));
    assert_eq!(value("x-correlation-id").as_deref(), Some("c-1"));
    assert_eq!(value("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(value("authorization"), Some(format!("Bearer {}", valkyrie::KEY)));
    assert!(value("traceparent").is_some());
    assert_eq!((value("host"), value("connection")), (None, None));
}

#[tokio::test]
async fn bodies_of_every_size_are_complete_over_every_pairing_of_versions() {
    let sizes = [0, 1, 2, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 1 << 20];
    // Held whole, and passed on as it comes.
    for held in ["limits.answer=1MiB", "limits.answer=256"] {
        for http2 in [false, true] {
            let speaking = Speaking::start(echo).await;
            let world = match http2 {
                true => speaking.world(&["limits.body=1MiB", held, "upstream_protocol=http2"]).await,
                false => World::of(VALKYRIE, &["limits.body=1MiB", held]).await,
            };
            world.pam.answer_with(|seen| answer(200, std::str::from_utf8(&seen.body).unwrap()));
            for size in sizes {
                let body = match size {
                    0 => String::new(),
                    1 => "1".to_owned(),
                    _ => format!("\"{}\"", "y".repeat(size - 2)),
                };
                let call = || {
                    let call = valkyrie::call("POST", TRANSACTIONS).with("Content-Type", "application/json");
                    call.body(body.clone())
                };
                for (caller, reply) in [(1, world.send(&call()).await), (2, world.send_h2(&call()).await)] {
                    let what = format!("{size} bytes from HTTP/{caller}, PAM over HTTP/2: {http2}, {held}");
                    assert_eq!((reply.status, reply.body.len()), (200, size), "{what}");
                    assert!(reply.body == body.as_bytes(), "{what}");
                }
            }
            if http2 {
                let calls = speaking.calls();
                assert_eq!(calls.len(), 2 * sizes.len());
                assert!(calls.iter().all(|call| call.connection == 1));
            }
        }
    }
}

#[tokio::test]
async fn alpn_decides_where_it_may() {
    for (offered, setting, spoken) in [
        (&["h2", "http/1.1"][..], "http2", Some("h2")),
        (&["h2", "http/1.1"], "auto", Some("h2")),
        (&["h2", "http/1.1"], "http1", Some("http/1.1")),
        (&["h2"], "auto", Some("h2")),
        (&["http/1.1"], "auto", Some("http/1.1")),
        (&[], "auto", Some("http/1.1")),
        (&[], "http1", Some("http/1.1")),
        // threat: H5
        (&["http/1.1"], "http2", None),
        (&[], "http2", None),
    ] {
        let authority = Authority::new("alpn");
        let folder = trusted(&authority, "alpn");
        let pam = Speaking::over_tls(server(&authority, offered), echo).await;
        let world = pam.world(&[&ca(&folder), &format!("upstream_protocol={setting}")]).await;
        let what = format!("{offered:?} {setting}");
        for _ in 0..2 {
            assert_eq!(world.send(&get()).await.status, if spoken.is_some() { 200 } else { 503 }, "{what}");
        }
        let calls = pam.calls();
        let version = if spoken == Some("h2") { "h2" } else { "http/1.1" };
        assert_eq!(calls.len(), if spoken.is_some() { 2 } else { 0 }, "{what}");
        assert!(calls.iter().all(|call| call.version == version && call.connection == 1), "{what}");
        if spoken.is_none() {
            assert_eq!(world.finish().await.last().unwrap()["reason"], "no_http2", "{what}");
        }
    }
}

#[tokio::test]
async fn a_pam_that_does_not_speak_http2_gets_no_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let pam = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut read = vec![0; 24];
        tcp.read_exact(&mut read).await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        let _ = tcp.read_to_end(&mut read).await;
        read
    });
    let failed = ask(&upstream(address, LIMITS), "/").await.unwrap_err();
    assert_eq!(failed, Failure { kind: FailureKind::NoHttp2, sent: false });
    let read = timeout(PATIENCE, pam).await.unwrap().unwrap();
    assert_eq!(frames_of(&read[24..], HEADERS), 0);
}

// ---- connections ----

#[tokio::test]
async fn many_exchanges_share_a_connection() {
    let (release, released) = watch::channel(false);
    let pam = Speaking::start(move |call| hold(call, released.clone())).await;
    let upstream = Arc::new(upstream(pam.address, LIMITS));
    let asking = ask_many(&upstream, 50);
    pam.arrived(50).await;
    release.send(true).unwrap();
    assert!(asking.join_all().await.iter().all(Result::is_ok));
    assert_eq!(pam.connections(), 1);
    assert_eq!(ask(&upstream, "/").await.map(|answer| answer.reused), Ok(true));
}

#[tokio::test]
async fn what_the_pam_allows_side_by_side_is_kept_and_a_further_connection_opened() {
    let (release, released) = watch::channel(false);
    let mut settings = Builder::new();
    settings.max_concurrent_streams(10);
    let pam = Speaking::with(settings, None, move |call| hold(call, released.clone())).await;
    let upstream = Arc::new(upstream(pam.address, UpstreamLimits { pooled: 3, ..LIMITS }));
    let asking = ask_many(&upstream, 45);
    pam.arrived(30).await;
    release.send(true).unwrap();
    assert!(asking.join_all().await.iter().all(Result::is_ok));
    assert_eq!((pam.connections(), pam.calls().len()), (3, 45));
    assert_eq!(pam.state.peak.load(Ordering::SeqCst), 30);
}

// threat: G8
#[tokio::test]
async fn a_request_for_which_there_is_no_room_in_time_is_not_sent() {
    let (_release, released) = watch::channel(false);
    let mut settings = Builder::new();
    settings.max_concurrent_streams(1);
    let pam = Speaking::with(settings, None, move |call| hold(call, released.clone())).await;
    let upstream = Arc::new(upstream(pam.address, UpstreamLimits { pooled: 1, connect: BRIEF, ..LIMITS }));
    let mut first = ask_many(&upstream, 1);
    pam.arrived(1).await;
    let failed = ask(&upstream, "/second").await.unwrap_err();
    assert_eq!(failed, Failure { kind: FailureKind::Full, sent: false });
    assert_eq!(pam.calls().len(), 1);
    first.abort_all();
    // The place of the one that was given up is free again.
    let second = ask_many(&upstream, 1);
    pam.arrived(2).await;
    assert_eq!(pam.connections(), 1);
    drop(second);
}

#[tokio::test]
async fn a_goodbye_ends_what_is_under_way_well_and_nothing_else_begins() {
    let (release, released) = watch::channel(false);
    let pam = Speaking::start(move |call| hold(call, released.clone())).await;
    let upstream = Arc::new(upstream(pam.address, LIMITS));
    let first = ask_many(&upstream, 1);
    pam.arrived(1).await;
    pam.say_goodbye().await;
    // Until the goodbye is heard, a request may still be put on the connection, and the PAM takes it.
    let mut asked = 1;
    let mut later = JoinSet::new();
    while pam.connections() == 1 {
        let upstream = Arc::clone(&upstream);
        later.spawn(async move { ask(&upstream, "/").await });
        asked += 1;
        pam.arrived(asked).await;
    }
    release.send(true).unwrap();
    let answers: Vec<_> = first.join_all().await.into_iter().chain(later.join_all().await).collect();
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!((pam.calls().len(), answers.len()), (asked, asked));
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_another_opened() {
    let pam = Speaking::start(echo).await;
    let upstream = upstream(pam.address, UpstreamLimits { idle: BRIEF, ..LIMITS });
    for connection in 1..=3 {
        assert!(!ask(&upstream, "/").await.unwrap().reused);
        assert_eq!(pam.connections(), connection);
        pam.closed(connection).await;
    }
}

#[tokio::test]
async fn no_connection_outlives_its_upstream() {
    let pam = Speaking::start(echo).await;
    let upstream = upstream(pam.address, LIMITS);
    ask(&upstream, "/").await.unwrap();
    drop(upstream);
    pam.closed(1).await;
}

// threat: G4
#[tokio::test]
async fn a_connection_that_was_silent_is_asked_for_a_sign_of_life() {
    let pam = Raw::start(&[], Silence::AfterFirst, |stream, _| answered(stream, "200")).await;
    let upstream = upstream(pam.address, UpstreamLimits { connect: Duration::from_secs(2), ..LIMITS });
    assert!(!ask(&upstream, "/").await.unwrap().reused);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    // The first connection is as good as dead: nothing is trusted to it, and nothing is lost.
    assert!(!ask(&upstream, "/").await.unwrap().reused);
    assert_eq!((pam.connections(), pam.streams()), (2, 2));
}

// threat: G4
#[tokio::test]
async fn a_connection_that_does_not_answer_one_who_asks_is_trusted_by_nobody_who_waited_to_ask() {
    let pam = Raw::start(&[], Silence::AfterFirst, |stream, _| answered(stream, "200")).await;
    let limits = UpstreamLimits { connect: Duration::from_secs(2), read: Duration::from_secs(2), ..LIMITS };
    let upstream = upstream(pam.address, limits);
    ask(&upstream, "/").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let later = |millis| {
        let upstream = &upstream;
        async move {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            ask(upstream, &id()).await
        }
    };
    let (one, two, three) = tokio::join!(later(0), later(200), later(400));
    assert!([one, two, three].iter().all(Result::is_ok));
    assert_eq!(pam.streams(), 4);
}

#[tokio::test]
async fn a_connection_by_other_certificates_is_not_used_again() {
    let authority = Authority::new("rotated");
    let folder = trusted(&authority, "rotated");
    let pam = Speaking::over_tls(server(&authority, &["h2"]), echo).await;
    let world = pam.world(&[&ca(&folder), "upstream_protocol=http2"]).await;
    let expiry = r#"portcullis_certificate_expiry_timestamp_seconds{certificate="upstream_ca"}"#;
    let before = world.metric(expiry).await;
    for _ in 0..2 {
        assert_eq!(world.send(&get()).await.status, 200);
    }
    assert_eq!(pam.connections(), 1);
    folder.write("ca.pem", &format!("{}{}", authority.pem, Authority::until("next", 2999).pem));
    let renewed = async { while world.metric(expiry).await == before {} };
    timeout(PATIENCE, renewed).await.unwrap();
    assert_eq!(world.send(&get()).await.status, 200);
    assert_eq!(pam.connections(), 2);
    pam.closed(1).await;
}

// ---- one stream among others ----

// threat: G1
#[tokio::test]
async fn a_stream_that_hangs_is_reset_alone() {
    let (resets, mut reset) = watch::channel(None);
    let pam = Speaking::start(move |mut call| {
        let resets = resets.clone();
        async move {
            match call.uri.ends_with("/hang") {
                true => drop(resets.send(poll_fn(|cx| call.respond.poll_reset(cx)).await.ok())),
                false => echo(call).await,
            }
        }
    })
    .await;
    let upstream = upstream(pam.address, UpstreamLimits { read: Duration::from_millis(300), ..LIMITS });
    let beside = async {
        let mut answered = 0;
        while pam.calls().iter().all(|call| !call.uri.ends_with("/hang")) || answered < 20 {
            ask(&upstream, "/").await.unwrap();
            answered += 1;
        }
    };
    let (failed, ()) = tokio::join!(ask(&upstream, "/hang"), beside);
    assert_eq!(failed.unwrap_err(), Failure { kind: FailureKind::Timeout, sent: true });
    timeout(PATIENCE, reset.wait_for(|reset| *reset == Some(h2::Reason::CANCEL))).await.unwrap().unwrap();
    assert!(ask(&upstream, "/").await.unwrap().reused);
    assert_eq!(pam.connections(), 1);
}

// threat: G5
#[tokio::test]
async fn a_caller_that_hangs_up_does_not_abort_what_the_pam_executes() {
    let (release, released) = watch::channel(false);
    let (done, mut executed) = watch::channel(Vec::new());
    let pam = Speaking::start(move |mut call| {
        let (mut released, done) = (released.clone(), done.clone());
        async move {
            if call.uri.ends_with("other") {
                return echo(call).await;
            }
            let undisturbed = tokio::select! {
                biased;
                _ = poll_fn(|cx| call.respond.poll_reset(cx)) => false,
                _ = released.wait_for(|released| *released) => true,
            };
            done.send_modify(|done| done.push(undisturbed));
            echo(call).await;
        }
    })
    .await;
    let world = pam.world(&["upstream_protocol=http2"]).await;
    let mut caller = world.connect().await;
    caller.write(&get().bytes()).await;
    let tcp = TcpStream::connect(world.address).await.unwrap();
    let (mut client, frames) = h2::client::handshake(tcp).await.unwrap();
    let frames = tokio::spawn(frames);
    let uri = format!("http://{}/players/session?provider=x", world.address);
    let head = http::Request::get(uri).header("authorization", format!("Bearer {}", valkyrie::KEY));
    let head = head.header("x-player-token", valkyrie::TOKEN).body(()).unwrap();
    let asked = client.send_request(head, true).unwrap();
    pam.arrived(2).await;
    caller.stream.set_zero_linger().unwrap();
    drop(caller);
    drop(asked);
    // Whoever was to hear of the end has heard of it when others have been served.
    let others = || async {
        for _ in 0..5 {
            assert_eq!(world.send(&valkyrie::call("GET", "/players/session?provider=other")).await.status, 200);
        }
    };
    others().await;
    frames.abort();
    others().await;
    release.send(true).unwrap();
    let executed = timeout(PATIENCE, executed.wait_for(|executed| executed.len() == 2)).await.unwrap().unwrap();
    assert_eq!(*executed, [true, true]);
}

#[tokio::test]
async fn an_answer_that_nobody_reads_stays_with_the_pam_and_holds_up_no_other() {
    let pushed = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&pushed);
    let pam = Speaking::start(move |call| {
        let pushed = Arc::clone(&counting);
        async move {
            match call.uri.ends_with("/large") {
                true => reply(call, Bytes::from(vec![b'x'; 8 << 20]), Some(&pushed)).await,
                false => echo(call).await,
            }
        }
    })
    .await;
    let upstream = upstream(pam.address, LIMITS);
    let mut large = stream(ask(&upstream, "/large").await.unwrap());
    let first = large.next().await.unwrap().unwrap().len();
    for _ in 0..50 {
        assert!(ask(&upstream, "/").await.unwrap().reused);
    }
    let ahead = pushed.load(Ordering::SeqCst);
    assert!(ahead <= (64 << 10) + first + (16 << 10), "{ahead} bytes");
    let mut whole = first;
    while let Some(piece) = large.next().await.unwrap() {
        whole += piece.len();
    }
    assert_eq!((whole, pam.connections()), (8 << 20, 1));
}

#[tokio::test]
async fn what_fits_is_held_and_one_byte_more_is_streamed() {
    let pam = Speaking::start(|call| async move {
        let length = call.uri.rsplit('/').next().unwrap().parse().unwrap();
        reply(call, Bytes::from(vec![b'x'; length]), None).await;
    })
    .await;
    let upstream = upstream(pam.address, LIMITS);
    for must_hold in [false, true] {
        let manner = Manner { must_hold, ..ANY };
        let (fits, larger) = (format!("/{}", LIMITS.held), format!("/{}", LIMITS.held + 1));
        let held = upstream.exchange(&Plain("GET", &fits), Bytes::new(), manner, Instant::now()).await.unwrap();
        assert!(matches!(held.body, AnswerBody::Whole(body) if body.len() == LIMITS.held));
        let larger = upstream.exchange(&Plain("GET", &larger), Bytes::new(), manner, Instant::now()).await;
        match must_hold {
            false => assert_eq!(drain(stream(larger.unwrap())).await.unwrap().len(), LIMITS.held + 1),
            true => assert_eq!(larger.unwrap_err(), Failure { kind: FailureKind::TooLarge, sent: true }),
        }
    }
    assert_eq!(pam.connections(), 1);
}

// ---- exchanges that come to nothing ----

// threat: G1, G2, G3, G4, F4
#[tokio::test]
async fn every_failure_says_whether_the_request_may_have_been_processed() {
    let many: Vec<(String, String)> = (0..17).map(|at| (format!("a{at}"), "1".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let long = "x".repeat(LIMITS.answer_head);
    let of = |kind, sent| Failure { kind, sent };
    let malformed = |word| of(FailureKind::Malformed(word), true);
    let closed = of(FailureKind::Closed, true);
    let unprocessed = of(FailureKind::Unprocessed, false);
    let (half, whole) = (data(1, b"hel", false), data(1, b"hello", true));
    let stated = |length: &str| head(1, "200", &[("content-length", length)], false);
    let cases: Vec<(&str, Vec<u8>, Failure)> = vec![
        ("refused", reset(1, REFUSED_STREAM), unprocessed),
        ("goaway below", goaway(0, 0), unprocessed),
        ("goaway below, for an error", goaway(0, 2), unprocessed),
        ("refused behind an interim answer", [head(1, "103", &[], false), reset(1, REFUSED_STREAM)].concat(), closed),
        ("refused behind a head", [stated("5"), reset(1, REFUSED_STREAM)].concat(), closed),
        ("goaway below behind a head", [stated("5"), goaway(0, 0)].concat(), closed),
        ("goaway at, then the end", [goaway(1, 0), END.to_vec()].concat(), closed),
        ("internal error", reset(1, 2), closed),
        ("cancel", reset(1, 8), closed),
        ("HTTP/1.1 required", reset(1, 13), closed),
        ("the end", END.to_vec(), closed),
        ("the end behind a head", [stated("5"), END.to_vec()].concat(), closed),
        ("the end in a body", [stated("5"), half.clone(), END.to_vec()].concat(), closed),
        ("the end in a body of no length", [head(1, "200", &[], false), half.clone(), END.to_vec()].concat(), closed),
        ("reset in a body", [stated("5"), half.clone(), reset(1, 0)].concat(), closed),
        ("too short", [stated("6"), whole.clone()].concat(), malformed("http2")),
        ("too long", [stated("4"), whole.clone()].concat(), malformed("http2")),
        ("no body at all", head(1, "200", &[("content-length", "5")], true), malformed("http2")),
        ("two lengths", head(1, "200", &[("content-length", "0"), ("content-length", "0")], true), malformed("length")),
        ("a list of lengths", head(1, "200", &[("content-length", "0, 0")], true), malformed("http2")),
        ("a length with a sign", head(1, "200", &[("content-length", "+0")], true), malformed("http2")),
        ("a body behind 204", [head(1, "204", &[], false), whole.clone()].concat(), malformed("length")),
        ("no status", headers(1, &literal("a", "1"), true), malformed("http2")),
        ("status 600", head(1, "600", &[], true), malformed("status_line")),
        ("status 99", head(1, "099", &[], true), malformed("http2")),
        ("connection", head(1, "200", &[("connection", "close")], true), malformed("http2")),
        ("chunked", head(1, "200", &[("transfer-encoding", "chunked")], true), malformed("http2")),
        ("capitals", head(1, "200", &[("A", "1")], true), malformed("http2")),
        ("too many fields", head(1, "200", &many, true), malformed("too_many")),
        ("too long a field", head(1, "200", &[("a", &long)], true), malformed("http2")),
        ("a switch of protocols", head(1, "101", &[], false), of(FailureKind::Unasked101, true)),
        ("interim answers", head(1, "100", &[], false).repeat(9), malformed("interim")),
        ("an interim answer that is the last", head(1, "100", &[], true), malformed("http2")),
        ("a push", frame(5, 4, 1, &[&[0, 0, 0, 2][..], &status("200")].concat()), malformed("http2")),
        ("data without a head", whole.clone(), malformed("http2")),
        ("silence", Vec::new(), of(FailureKind::Timeout, true)),
        ("silence behind a head", stated("5"), of(FailureKind::Timeout, true)),
        ("silence in a body", [stated("5"), half.clone()].concat(), of(FailureKind::Timeout, true)),
    ];
    let cases = cases.into_iter().map(|(what, bytes, expected)| async move {
        let pam = Raw::start(&[], Silence::Never, move |_, _| bytes.clone()).await;
        let upstream = upstream(pam.address, UpstreamLimits { read: Duration::from_millis(500), ..LIMITS });
        let came_to = match ask(&upstream, "/").await {
            Ok(answer) => match answer.body {
                AnswerBody::Whole(_) => None,
                AnswerBody::Stream(stream) => drain(stream).await.err(),
            },
            Err(failed) => Some(failed),
        };
        assert_eq!(came_to, Some(expected), "{what}");
        assert_eq!(pam.streams(), 1, "{what}");
    });
    futures_util::future::join_all(cases).await;
}

#[tokio::test]
async fn answers_without_a_body_and_interim_ones_are_understood() {
    for (method, bytes, expected) in [
        ("HEAD", head(1, "200", &[("content-length", "5")], true), 200),
        ("GET", head(1, "304", &[("content-length", "5")], true), 304),
        ("GET", [head(1, "204", &[], false), data(1, b"", true)].concat(), 204),
        ("GET", [head(1, "100", &[], false).repeat(8), head(1, "200", &[], true)].concat(), 200),
        // Trailers.
        ("GET", [head(1, "200", &[], false), headers(1, &literal("a", "1"), true)].concat(), 200),
    ] {
        let pam = Raw::start(&[], Silence::Never, move |_, _| bytes.clone()).await;
        let manner = Manner { head_request: method == "HEAD", ..ANY };
        let answer = upstream(pam.address, LIMITS)
            .exchange(&Plain(method, "/"), Bytes::new(), manner, Instant::now())
            .await
            .unwrap();
        assert_eq!(answer.status, expected);
        assert!(matches!(answer.body, AnswerBody::Whole(body) if body.is_empty()));
    }
}

#[tokio::test]
async fn a_body_behind_the_answer_to_head_is_malformed() {
    let bytes = [head(1, "200", &[], false), data(1, b"x", true)].concat();
    let pam = Raw::start(&[], Silence::Never, move |_, _| bytes.clone()).await;
    let manner = Manner { head_request: true, ..ANY };
    let failed =
        upstream(pam.address, LIMITS).exchange(&Plain("HEAD", "/"), Bytes::new(), manner, Instant::now()).await;
    assert_eq!(failed.unwrap_err(), Failure { kind: FailureKind::Malformed("http2"), sent: true });
}

// threat: G1
#[tokio::test]
async fn a_pam_that_takes_no_body_times_out() {
    // No window for bodies at all.
    let pam = Raw::start(&[(4, 0)], Silence::Never, |_, _| Vec::new()).await;
    let upstream = upstream(pam.address, UpstreamLimits { write: BRIEF, ..LIMITS });
    let failed =
        upstream.exchange(&Plain("POST", "/"), Bytes::from_static(b"x"), ANY, Instant::now()).await.unwrap_err();
    assert_eq!(failed, Failure { kind: FailureKind::Timeout, sent: true });
    timeout(PATIENCE, async {
        while pam.resets() != [(1, 8)] {
            breath().await
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_answer_in_front_of_the_end_of_the_request_counts() {
    let refusing = [head(1, "413", &[], false), data(1, b"no", true), reset(1, 0)].concat();
    let pam = Raw::start(&[(4, 0)], Silence::Never, move |_, _| refusing.clone()).await;
    let answer = upstream(pam.address, LIMITS)
        .exchange(&Plain("POST", "/"), Bytes::from_static(b"x"), ANY, Instant::now())
        .await;
    let answer = answer.unwrap();
    assert_eq!(answer.status, 413);
    assert!(matches!(answer.body, AnswerBody::Whole(body) if body == "no"));
}

// threat: G4
#[tokio::test]
async fn whatever_the_pam_does_a_request_reaches_it_at_most_once() {
    let pam = Raw::start(&[(3, 7)], Silence::Never, |stream, nth| match nth % 23 {
        1 => reset(stream, REFUSED_STREAM),
        2 => reset(stream, 2),
        3 => goaway(stream.saturating_sub(2), 0),
        4 => [goaway(stream, 0), answered(stream, "200")].concat(),
        5 => END.to_vec(),
        6 => head(stream, "200", &[("content-length", "9")], true),
        7 => [answered(stream, "200"), goaway(stream, 0), END.to_vec()].concat(),
        8 => Vec::new(),
        _ => answered(stream, "200"),
    })
    .await;
    let upstream = Arc::new(upstream(pam.address, UpstreamLimits { read: Duration::from_millis(500), ..LIMITS }));
    let (mut answered, mut failed) = (0, 0);
    for _ in 0..5 {
        for outcome in ask_many(&upstream, 40).join_all().await {
            match outcome {
                Ok(_) => answered += 1,
                Err(_) => failed += 1,
            }
        }
    }
    assert_eq!(answered + failed, 200);
    assert!(answered > 20 && failed > 20, "{answered} and {failed}");
    // Every id that the PAM saw, it saw once.
    let seen = pam.targets();
    let twice: Vec<_> = seen.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert!(seen.len() <= 200 && seen.len() >= answered, "{}", seen.len());
}

#[tokio::test]
async fn what_the_pam_has_not_processed_is_told_as_503_and_the_rest_as_502() {
    for (bytes, status, reason) in [
        (reset(1, REFUSED_STREAM), 503, "unprocessed"),
        (goaway(0, 0), 503, "unprocessed"),
        (reset(1, 2), 502, "closed"),
        (END.to_vec(), 502, "closed"),
    ] {
        let pam = Raw::start(&[], Silence::Never, move |_, _| bytes.clone()).await;
        let world = World::with_pam(VALKYRIE, &["upstream_protocol=http2"], Pam::at(pam.address)).await;
        assert_eq!(world.send(&get()).await.status, status);
        assert_eq!(pam.streams(), 1);
        assert_eq!(world.finish().await.last().unwrap()["reason"], reason);
    }
}

// ---- a PAM by the h2 crate ----

/// A PAM that speaks HTTP/2, and under TLS what is agreed on.
struct Speaking {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    calls: Mutex<Vec<Called>>,
    arrivals: watch::Sender<usize>,
    connections: AtomicUsize,
    closed: watch::Sender<usize>,
    goodbye: watch::Sender<usize>,
    said: watch::Sender<usize>,
    open: AtomicUsize,
    peak: AtomicUsize,
}

/// What it was asked.
#[derive(Clone)]
struct Called {
    version: &'static str,
    method: String,
    uri: String,
    fields: http::HeaderMap,
    body: Vec<u8>,
    connection: usize,
}

struct Call {
    uri: String,
    body: Vec<u8>,
    respond: SendResponse<Bytes>,
}

type Answering = Arc<dyn Fn(Call) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

impl Speaking {
    async fn start<F: Future<Output = ()> + Send + 'static>(
        answering: impl Fn(Call) -> F + Send + Sync + 'static,
    ) -> Speaking {
        Speaking::with(Builder::new(), None, answering).await
    }

    async fn over_tls<F: Future<Output = ()> + Send + 'static>(
        server: ServerConfig,
        answering: impl Fn(Call) -> F + Send + Sync + 'static,
    ) -> Speaking {
        Speaking::with(Builder::new(), Some(server), answering).await
    }

    async fn with<F: Future<Output = ()> + Send + 'static>(
        settings: Builder,
        tls: Option<ServerConfig>,
        answering: impl Fn(Call) -> F + Send + Sync + 'static,
    ) -> Speaking {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let answering: Answering = Arc::new(move |call| Box::pin(answering(call)));
        let tls = tls.map(|tls| TlsAcceptor::from(Arc::new(tls)));
        let accepting = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tcp.set_nodelay(true).unwrap();
                let (state, settings, tls) = (Arc::clone(&accepting), settings.clone(), tls.clone());
                let answering = Arc::clone(&answering);
                tokio::spawn(async move {
                    let Some(tls) = tls else { return state.http2(settings, tcp, answering).await };
                    let Ok(stream) = tls.accept(tcp).await else { return };
                    match stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                        true => state.http2(settings, stream, answering).await,
                        false => state.http1(stream).await,
                    }
                });
            }
        });
        Speaking { address, state }
    }

    async fn world(&self, set: &[&str]) -> World {
        World::with_pam(VALKYRIE, set, Pam::at(self.address)).await
    }

    fn calls(&self) -> Vec<Called> {
        self.state.calls.lock().unwrap().clone()
    }

    fn only_call(&self) -> Called {
        let calls = self.calls();
        assert_eq!(calls.len(), 1);
        calls[0].clone()
    }

    fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    async fn arrived(&self, count: usize) {
        reaches(&self.state.arrivals, count).await;
    }

    async fn closed(&self, count: usize) {
        reaches(&self.state.closed, count).await;
    }

    /// Announces the end of every connection, which goes on with what is under way.
    async fn say_goodbye(&self) {
        self.state.goodbye.send_modify(|times| *times += 1);
        reaches(&self.state.said, 1).await;
    }
}

async fn reaches(counter: &watch::Sender<usize>, count: usize) {
    let mut counter = counter.subscribe();
    timeout(PATIENCE, counter.wait_for(|counted| *counted >= count)).await.expect("did not happen").unwrap();
}

impl State {
    fn record(&self, called: Called) {
        self.calls.lock().unwrap().push(called);
        self.arrivals.send_modify(|arrived| *arrived += 1);
    }

    async fn http2(self: Arc<Self>, settings: Builder, io: impl AsyncRead + AsyncWrite + Unpin, answering: Answering) {
        let number = self.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let Ok(mut connection) = settings.handshake::<_, Bytes>(io).await else { return };
        let mut goodbye = self.goodbye.subscribe();
        loop {
            let accepted = tokio::select! {
                accepted = connection.accept() => accepted,
                Ok(()) = goodbye.changed() => {
                    connection.graceful_shutdown();
                    self.said.send_modify(|said| *said += 1);
                    continue;
                }
            };
            let Some(Ok((request, respond))) = accepted else { break };
            let (state, answering) = (Arc::clone(&self), Arc::clone(&answering));
            tokio::spawn(async move {
                let open = state.open.fetch_add(1, Ordering::SeqCst) + 1;
                state.peak.fetch_max(open, Ordering::SeqCst);
                let (head, mut stream) = request.into_parts();
                let mut body = Vec::new();
                while let Some(Ok(piece)) = stream.data().await {
                    stream.flow_control().release_capacity(piece.len()).unwrap();
                    body.extend_from_slice(&piece);
                }
                let (method, uri) = (head.method.to_string(), head.uri.to_string());
                let (version, connection) = ("h2", number);
                let called =
                    Called { version, method, uri: uri.clone(), fields: head.headers, body: body.clone(), connection };
                state.record(called);
                answering(Call { uri, body, respond }).await;
                state.open.fetch_sub(1, Ordering::SeqCst);
            });
        }
        self.closed.send_modify(|closed| *closed += 1);
    }

    /// Requests without bodies, each of which is answered with nothing.
    async fn http1(self: Arc<Self>, mut io: impl AsyncRead + AsyncWrite + Unpin) {
        let number = self.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let mut read = Vec::new();
        while io.read_buf(&mut read).await.is_ok_and(|count| count > 0) {
            if read.ends_with(b"\r\n\r\n") {
                let text = String::from_utf8(std::mem::take(&mut read)).unwrap();
                let mut words = text.split(' ').map(str::to_owned);
                let (method, uri) = (words.next().unwrap(), words.next().unwrap());
                let (fields, body) = (http::HeaderMap::new(), Vec::new());
                self.record(Called { version: "http/1.1", method, uri, fields, body, connection: number });
                io.write_all(&answer(200, "{}")).await.unwrap();
                io.flush().await.unwrap();
            }
        }
    }
}

/// Answers with the body that came.
async fn echo(call: Call) {
    let body = Bytes::from(call.body.clone());
    reply(call, body, None).await;
}

/// Answers what it was asked, but not before `true` is sent.
async fn hold(call: Call, mut released: watch::Receiver<bool>) {
    if released.wait_for(|released| *released).await.is_ok() {
        echo(call).await;
    }
}

/// Sends as the windows allow, counting what has been sent.
async fn reply(mut call: Call, mut body: Bytes, pushed: Option<&AtomicUsize>) {
    let head = http::Response::builder().status(200).body(()).unwrap();
    let Ok(mut stream) = call.respond.send_response(head, body.is_empty()) else { return };
    while !body.is_empty() {
        stream.reserve_capacity(body.len().min(16 << 10));
        let Some(Ok(room)) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
        let piece = body.split_to(room.min(body.len()));
        if let Some(pushed) = pushed {
            pushed.fetch_add(piece.len(), Ordering::SeqCst);
        }
        if stream.send_data(piece, body.is_empty()).is_err() {
            return;
        }
    }
}

// ---- a PAM that speaks in frames of the test's own ----

struct Raw {
    address: SocketAddr,
    seen: Arc<Mutex<RawSeen>>,
}

#[derive(Default)]
struct RawSeen {
    connections: usize,
    streams: usize,
    targets: HashMap<String, usize>,
    resets: Vec<(u32, u32)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Silence {
    Never,
    /// Nothing is said any more on the first connection once it has carried a request.
    AfterFirst,
}

impl Raw {
    /// Reacts to a request with bytes, by its stream and its number among all; [`END`] closes the connection.
    async fn start(
        settings: &[(u16, u32)],
        silence: Silence,
        react: impl Fn(u32, usize) -> Vec<u8> + Send + Sync + 'static,
    ) -> Raw {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(RawSeen::default()));
        let settings: Vec<u8> =
            settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        let react = Arc::new(react);
        let seeing = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (settings, react, seen) = (settings.clone(), Arc::clone(&react), Arc::clone(&seeing));
                tokio::spawn(async move {
                    seen.lock().unwrap().connections += 1;
                    let quiet = silence == Silence::AfterFirst && seen.lock().unwrap().connections == 1;
                    let _ = raw(tcp, &settings, quiet, &*react, &seen).await;
                });
            }
        });
        Raw { address, seen }
    }

    fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }

    /// Requests that it saw.
    fn streams(&self) -> usize {
        self.seen.lock().unwrap().streams
    }

    fn resets(&self) -> Vec<(u32, u32)> {
        self.seen.lock().unwrap().resets.clone()
    }

    fn targets(&self) -> HashMap<String, usize> {
        self.seen.lock().unwrap().targets.clone()
    }
}

async fn raw(
    mut tcp: TcpStream,
    settings: &[u8],
    quiet: bool,
    react: &(dyn Fn(u32, usize) -> Vec<u8> + Send + Sync),
    seen: &Mutex<RawSeen>,
) -> std::io::Result<()> {
    let mut preface = [0; 24];
    tcp.read_exact(&mut preface).await?;
    tcp.write_all(&frame(4, 0, 0, settings)).await?;
    let mut carried = false;
    loop {
        let mut header = [0; 9];
        tcp.read_exact(&mut header).await?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let (kind, flags) = (header[3], header[4]);
        let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
        let mut payload = vec![0; length];
        tcp.read_exact(&mut payload).await?;
        if quiet && carried {
            continue;
        }
        match kind {
            HEADERS => {
                carried = true;
                let nth = {
                    let mut seen = seen.lock().unwrap();
                    seen.streams += 1;
                    *seen.targets.entry(id_of(&payload).unwrap()).or_default() += 1;
                    seen.streams
                };
                let bytes = react(stream, nth);
                let last = bytes.ends_with(END);
                tcp.write_all(bytes.strip_suffix(END).unwrap_or(&bytes)).await?;
                if last {
                    return Ok(());
                }
            }
            RST_STREAM => {
                seen.lock().unwrap().resets.push((stream, u32::from_be_bytes(payload[..4].try_into().unwrap())))
            }
            SETTINGS if flags & 1 == 0 => tcp.write_all(&frame(SETTINGS, 1, 0, &[])).await?,
            PING if flags & 1 == 0 => tcp.write_all(&frame(PING, 1, 0, &payload)).await?,
            _ => {}
        }
    }
}

/// The value of Authorization, as it is encoded: number 23 of the static table, never indexed.
fn id_of(payload: &[u8]) -> Option<String> {
    let name = payload.windows(2).position(|pair| pair == b"\x1f\x08")?;
    let length = usize::from(payload.get(name + 2)? & 0x7f);
    Some(payload.get(name + 3..name + 3 + length)?.escape_ascii().to_string())
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;

const REFUSED_STREAM: u32 = 7;

/// In place of bytes: the connection is closed.
const END: &[u8] = b"(the end)";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// In as many frames as needed.
fn headers(stream: u32, block: &[u8], end: bool) -> Vec<u8> {
    let pieces: Vec<&[u8]> = block.chunks(16 << 10).collect();
    let mut out = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let last = if at + 1 == pieces.len() { 4 } else { 0 };
        out.extend(match at {
            0 => frame(HEADERS, last | u8::from(end), stream, piece),
            _ => frame(9, last, stream, piece),
        });
    }
    out
}

fn head(stream: u32, code: &str, fields: &[(&str, &str)], end: bool) -> Vec<u8> {
    let fields = fields.iter().flat_map(|(name, value)| literal(name, value));
    headers(stream, &status(code).into_iter().chain(fields).collect::<Vec<_>>(), end)
}

fn answered(stream: u32, code: &str) -> Vec<u8> {
    head(stream, code, &[], true)
}

fn data(stream: u32, bytes: &[u8], end: bool) -> Vec<u8> {
    frame(0, u8::from(end), stream, bytes)
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(7, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

/// A status in HPACK, not indexed: its name is number 8 of the static table.
fn status(code: &str) -> Vec<u8> {
    [&[8, 3], code.as_bytes()].concat()
}

fn literal(name: &str, value: &str) -> Vec<u8> {
    [&[0][..], &integer(name.len()), name.as_bytes(), &integer(value.len()), value.as_bytes()].concat()
}

/// With a prefix of seven bits (RFC 7541 §5.1).
fn integer(number: usize) -> Vec<u8> {
    if number < 127 {
        return vec![number as u8];
    }
    let mut rest = number - 127;
    let mut out = vec![127];
    while rest >= 128 {
        out.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    out.push(rest as u8);
    out
}

/// How many frames of a kind there are.
fn frames_of(mut bytes: &[u8], kind: u8) -> usize {
    let mut count = 0;
    while let [a, b, c, found, _, _, _, _, _, rest @ ..] = bytes {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        count += usize::from(*found == kind);
        bytes = rest.get(length..).unwrap_or_default();
    }
    count
}

// ---- the tests' side ----

fn upstream(address: SocketAddr, limits: UpstreamLimits) -> Upstream {
    Upstream::new(address.to_string(), limits).speaking(Protocol::Http2)
}

async fn ask(upstream: &Upstream, target: &str) -> Result<Answer, Failure> {
    upstream.exchange(&Plain("GET", target), Bytes::new(), ANY, Instant::now()).await
}

/// So many at the same time, each with an id of its own.
fn ask_many(upstream: &Arc<Upstream>, count: usize) -> JoinSet<Result<Answer, Failure>> {
    let mut asking = JoinSet::new();
    for _ in 0..count {
        let upstream = Arc::clone(upstream);
        asking.spawn(async move { ask(&upstream, &id()).await });
    }
    asking
}

/// A target that no other request has. Of letters whose Huffman codes never look like the start of a field.
fn id() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let next = NEXT.fetch_add(1, Ordering::SeqCst);
    let letters = (0..6).map(|place| char::from(b"aceiost"[next / 7_usize.pow(place) % 7]));
    std::iter::once('/').chain(letters).collect()
}

fn stream(answer: Answer) -> AnswerStream {
    match answer.body {
        AnswerBody::Stream(stream) => stream,
        AnswerBody::Whole(body) => panic!("{} bytes were held", body.len()),
    }
}

async fn drain(mut stream: AnswerStream) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(piece) = stream.next().await? {
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// A method and a target, which stands in Authorization too: there HPACK never shortens it.
struct Plain<'p>(&'p str, &'p str);

impl Outbound for Plain<'_> {
    fn method(&self) -> &str {
        self.0
    }

    fn target(&self) -> &str {
        self.1
    }

    fn fields(&self, put: &mut impl FnMut(&[u8], &[u8])) {
        put(b"Host", b"pam");
        put(b"Authorization", self.1.as_bytes());
    }
}

/// An authority whose certificate is `ca.pem` in a folder.
fn trusted(authority: &Authority, name: &str) -> Folder {
    let folder = Folder::new(&format!("pam-http2-{name}"));
    folder.write("ca.pem", &authority.pem);
    folder
}

fn ca(folder: &Folder) -> String {
    format!("upstream_tls.ca={}", folder.path().join("ca.pem").display())
}

fn server(authority: &Authority, alpn: &[&str]) -> ServerConfig {
    let mut server = authority.issue(&["127.0.0.1"]).server(None);
    server.alpn_protocols = alpn.iter().map(|version| version.as_bytes().to_vec()).collect();
    server
}

fn get() -> Request {
    valkyrie::call("GET", "/players/session?provider=x")
}

const VALKYRIE: &str = "config/valkyrie.toml";

const TRANSACTIONS: &str = "/players/17/transactions?provider=x";

const ANY: Manner = Manner { head_request: false, must_hold: false };

/// For what is meant to run out.
const BRIEF: Duration = Duration::from_millis(200);

const LIMITS: UpstreamLimits = UpstreamLimits {
    connect: PATIENCE,
    write: PATIENCE,
    read: PATIENCE,
    total: PATIENCE,
    idle: PATIENCE,
    pooled: 4,
    answer_head: 4096,
    answer_fields: 16,
    held: 64,
};
