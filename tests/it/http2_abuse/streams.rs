//! Streams: how many there may be, and what a connection is that has no more of them.

use super::frames::*;
use crate::world::{GOOD, World, answer, valkyrie};

// threat: B10
#[tokio::test]
async fn streams_beyond_what_was_advertised_are_refused_and_the_others_served() {
    for (set, advertised) in [(&[][..], 100), (&["limits.streams=3"], 3)] {
        let world = World::of("config/valkyrie.toml", set).await;
        let release = world.pam.hold(answer(200, GOOD));
        let mut caller = Caller::to(world.address).await;
        let ours = caller.until(|frame| frame.kind == SETTINGS && frame.flags == 0).await;
        let streams = MAX_CONCURRENT_STREAMS.to_be_bytes();
        let parameter = ours.payload.chunks(6).find(|parameter| parameter[..2] == streams).unwrap();
        assert_eq!(parameter[2..], u32::to_be_bytes(advertised));
        let call = valkyrie::call("GET", SESSION);
        // As if it had not heard.
        for at in 0..advertised + 5 {
            caller.write(&super::frames::call(1 + 2 * at, &call)).await;
        }
        for at in advertised..advertised + 5 {
            assert_eq!(caller.outcome(1 + 2 * at).await, Outcome::Reset(REFUSED_STREAM));
        }
        world.pam.arrived(advertised as usize).await;
        assert_eq!(world.pam.requests().len(), advertised as usize);
        release.send(true).unwrap();
        let mut served = 0;
        while served < advertised {
            let frame = caller.read().await.unwrap();
            served += u32::from(frame.kind == HEADERS);
        }
        caller.write(&super::frames::call(999, &call)).await;
        assert_eq!(caller.outcome(999).await, Outcome::Status(200));
        assert_eq!(world.pam.requests().len(), advertised as usize + 1);
    }
}

// threat: B10
#[tokio::test]
async fn who_goes_on_beyond_what_was_advertised_is_told_to_calm_down() {
    let world = World::of("config/valkyrie.toml", &["limits.streams=3"]).await;
    let release = world.pam.hold(answer(200, GOOD));
    let call = valkyrie::call("GET", SESSION);
    let mut caller = Caller::to(world.address).await;
    let calls: Vec<u8> = (0..1000).flat_map(|at| super::frames::call(1 + 2 * at, &call)).collect();
    let _ = caller.write(&calls).await;
    let end = caller.end().await;
    assert!(matches!(end, End::Goodbye(ENHANCE_YOUR_CALM) | End::Silent), "{end:?}");
    assert!(world.pam.requests().len() <= 3);
    release.send(true).unwrap();
    world.until("portcullis_connections", 0.0).await;
    assert_serves(&world, &call).await;
}

#[tokio::test]
async fn a_caller_that_does_not_hear_a_goodbye_is_cut_off() {
    let world = World::of("config/valkyrie.toml", &["limits.streams=3", "limits.requests_per_connection=2"]).await;
    let call = valkyrie::call("GET", SESSION);
    let mut caller = Caller::to(world.address).await;
    let mut served = 0;
    // It answers no ping, so nobody can say which streams it had opened before it could have heard.
    for at in 0..100 {
        if !caller.write(&super::frames::call(1 + 2 * at, &call)).await {
            break;
        }
        match caller.outcome(1 + 2 * at).await {
            Outcome::Status(200) => served += 1,
            Outcome::Ended(_) => break,
            other => panic!("{other:?}"),
        }
    }
    // The two it may, and then as many as may cross the goodbye.
    assert!((2..=2 + 6).contains(&served), "{served} requests");
    assert_eq!(world.pam.requests().len(), served);
    world.until("portcullis_connections", 0.0).await;
    assert_serves(&world, &call).await;
}

#[tokio::test]
async fn a_connection_without_streams_left_is_done() {
    let world = World::valkyrie().await;
    let call = valkyrie::call("GET", SESSION);
    let mut caller = Caller::to(world.address).await;
    caller.write(&super::frames::call(0x7fff_ffff, &call)).await;
    assert_eq!(caller.outcome(0x7fff_ffff).await, Outcome::Status(200));
    // There is none above it, and one below it would be an old one.
    caller.write(&super::frames::call(1, &call)).await;
    assert!(matches!(caller.outcome(1).await, Outcome::Ended(_) | Outcome::Reset(_)));
    assert_eq!(world.pam.requests().len(), 1);
    assert_serves(&world, &call).await;
}

#[tokio::test]
async fn a_stream_that_is_none_of_a_callers_is_none() {
    let world = World::valkyrie().await;
    let call = valkyrie::call("GET", SESSION);
    for stream in [0, 2, 0x7fff_fffe] {
        let mut caller = Caller::to(world.address).await;
        caller.write(&super::frames::call(stream, &call)).await;
        assert_eq!(caller.end().await, End::Goodbye(PROTOCOL_ERROR), "{stream}");
    }
    world.pam.assert_untouched();
}

// threat: B16
#[tokio::test]
async fn trailers_that_have_pseudo_headers_or_do_not_end_the_request_are_refused() {
    let world = World::valkyrie().await;
    let mut put = fields(&valkyrie::call("PUT", SESSION));
    put.push(("content-length".to_owned(), "4".to_owned()));
    let begun = [frame(HEADERS, END_HEADERS, 1, &block(&put)), frame(DATA, 0, 1, b"null")].concat();
    for (flags, trailers) in [
        (END_STREAM | END_HEADERS, literal(b":unknown", b"1")),
        (END_STREAM | END_HEADERS, literal(b"X-Upper", b"1")),
        (END_STREAM | END_HEADERS, literal(b"connection", b"close")),
        (END_STREAM | END_HEADERS, literal(b"x-a", b"1\r\nX-B: 2")),
        (END_HEADERS, literal(b"x-late", b"1")),
    ] {
        let mut caller = Caller::to(world.address).await;
        caller.write(&[&begun[..], &frame(HEADERS, flags, 1, &trailers)].concat()).await;
        let outcome = caller.outcome(1).await;
        let refused = match outcome {
            Outcome::Status(status) => (400..500).contains(&status),
            Outcome::Reset(_) | Outcome::Ended(_) => true,
        };
        assert!(refused, "{trailers:?}: {outcome:?}");
    }
    world.pam.assert_untouched();
}

/// The h2 crate takes pseudo-headers off trailers without a word. They change nothing: all trailers are dropped.
#[tokio::test]
async fn trailers_change_nothing() {
    let world = World::valkyrie().await;
    let mut put = fields(&valkyrie::call("PUT", SESSION));
    put.push(("content-length".to_owned(), "4".to_owned()));
    let begun = [frame(HEADERS, END_HEADERS, 1, &block(&put)), frame(DATA, 0, 1, b"null")].concat();
    for (name, value) in [(":path", "/other"), (":method", "GET"), (":authority", "other"), ("x-late", "1")] {
        let mut caller = Caller::to(world.address).await;
        let trailers = frame(HEADERS, END_STREAM | END_HEADERS, 1, &literal(name.as_bytes(), value.as_bytes()));
        caller.write(&[&begun[..], &trailers].concat()).await;
        assert_eq!(caller.outcome(1).await, Outcome::Status(200), "{name}");
        let seen = world.pam.requests().pop().unwrap();
        assert_eq!(
            (seen.method.as_str(), seen.target.as_str(), &seen.body[..]),
            ("PUT", SESSION, &b"null"[..]),
            "{name}"
        );
        assert_eq!((seen.values("host"), seen.values("x-late")), (vec!["pam.example"], vec![]), "{name}");
    }
    assert_eq!(world.pam.requests().len(), 4);
}

// threat: B12
// threat: B16
#[tokio::test]
async fn what_has_no_meaning_in_http2_is_an_error_of_the_protocol() {
    let world = World::valkyrie().await;
    let good = fields(&valkyrie::call("GET", SESSION));
    for (name, value) in [
        ("connection", "close"),
        ("connection", "keep-alive"),
        ("connection", "x-player-token"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, deflate"),
    ] {
        let mut caller = Caller::to(world.address).await;
        let block = [block(&good), literal(name.as_bytes(), value.as_bytes())].concat();
        caller.write(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)).await;
        assert_eq!(caller.outcome(1).await, Outcome::Reset(PROTOCOL_ERROR), "{name}: {value}");
    }
    // Extended CONNECT was not offered (RFC 8441 §3).
    for protocol in ["websocket", "connect-udp", ""] {
        let mut connect = good.clone();
        connect[0].1 = "CONNECT".to_owned();
        connect.insert(1, (":protocol".to_owned(), protocol.to_owned()));
        let mut caller = Caller::to(world.address).await;
        caller.write(&frame(HEADERS, END_HEADERS, 1, &block(&connect))).await;
        assert_eq!(caller.outcome(1).await, Outcome::Reset(PROTOCOL_ERROR), "{protocol}");
    }
    world.pam.assert_untouched();
    // The one value that has a meaning goes no further than here.
    let mut caller = Caller::to(world.address).await;
    let block = [block(&good), literal(b"te", b"trailers")].concat();
    caller.write(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)).await;
    assert_eq!(caller.outcome(1).await, Outcome::Status(200));
    assert!(world.pam.only_request().values("te").is_empty());
}

// threat: B14
// threat: B15
#[tokio::test]
async fn a_head_that_says_things_twice_or_late_or_not_at_all_is_refused() {
    let world = World::valkyrie().await;
    let good = fields(&valkyrie::call("GET", SESSION));
    let without = |name: &str| good.iter().filter(|(other, _)| other != name).cloned().collect::<Vec<_>>();
    let changed = |name: &str, value: &str| {
        let changed =
            good.iter().map(|(other, old)| (other.clone(), if other == name { value } else { old }.to_owned()));
        changed.collect::<Vec<_>>()
    };
    let with = |name: &str, value: &str| [&good[..], &[(name.to_owned(), value.to_owned())]].concat();
    let late = |name: &str| [without(name), good.iter().filter(|(other, _)| other == name).cloned().collect()].concat();
    let first = |name: &str, value: &str| [&[(name.to_owned(), value.to_owned())], &good[..]].concat();
    let mut rows = Vec::new();
    for name in [":method", ":scheme", ":path", ":authority"] {
        rows.extend([(format!("no {name}"), without(name)), (format!("{name} late"), late(name))]);
        let twice = good.iter().find(|(other, _)| other == name).unwrap().1.clone();
        rows.push((format!("{name} twice"), first(name, &twice)));
    }
    for (name, value) in [(":unknown", "1"), (":status", "200"), (":", "1"), (":Path", "/")] {
        rows.push((name.to_owned(), first(name, value)));
    }
    for path in ["players/session", "*", "http://pam.example/players/session", "", "?provider=x", "//pam.example/x"] {
        rows.push((format!(":path {path:?}"), changed(":path", path)));
    }
    for authority in ["other.example", "user@pam.example", "a, b", "pam.example/x", "pam example", ""] {
        let fields = [changed(":authority", authority), vec![("host".to_owned(), "pam.example".to_owned())]].concat();
        rows.push((format!(":authority {authority:?} with a host"), fields));
    }
    for authority in ["user@pam.example", "user:pass@pam.example", "a, b", "a,b", "pam.example#x", "pam.example?x"] {
        rows.push((format!(":authority {authority:?}"), changed(":authority", authority)));
    }
    rows.push((
        "two hosts".to_owned(),
        [with("host", "pam.example"), vec![("host".to_owned(), "pam.example".to_owned())]].concat(),
    ));
    for (name, fields) in rows {
        let mut caller = Caller::to(world.address).await;
        caller.write(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&fields))).await;
        let outcome = caller.outcome(1).await;
        let refused = matches!(
            outcome,
            Outcome::Status(400 | 404 | 405)
                | Outcome::Reset(PROTOCOL_ERROR)
                | Outcome::Ended(End::Goodbye(PROTOCOL_ERROR))
        );
        assert!(refused, "{name}: {outcome:?}");
    }
    world.pam.assert_untouched();
    // An equal host says nothing else.
    let mut caller = Caller::to(world.address).await;
    caller.write(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&with("host", "pam.example")))).await;
    assert_eq!(caller.outcome(1).await, Outcome::Status(200));
}

const SESSION: &str = "/players/session?provider=x";
