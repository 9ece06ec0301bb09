//! The Valkyrie family: a bearer key or Basic, the player token in a header, the provider in the query.

use crate::world::{
    GOOD, Pam, Refusal, Request, World, answer, assert_refusals, basic, correlation_of, futures_answer, valkyrie,
};

/// Every operation, without its query.
const OPERATIONS: [(&str, &str, &str); 6] = [
    ("GET", "/players/session", ""),
    ("PUT", "/players/session", "null"),
    ("GET", "/players/player-17/balance", ""),
    ("GET", "/players/player-17/transactions", ""),
    ("POST", "/players/player-17/transactions", "{ \"transactionType\": \"WITHDRAW\", \"cashAmount\": 10.00 }"),
    ("GET", "/players/player-17/gamerounds/round-1", ""),
];

const BALANCE: &str = "/players/17/balance?provider=evolution";

fn operation((method, path, body): (&str, &str, &str), query: &str) -> Request {
    let call = valkyrie::call(method, &format!("{path}?{query}"));
    if body.is_empty() { call } else { call.with("Content-Type", "application/json").body(body) }
}

fn with_token(token: &str) -> Request {
    valkyrie::call("GET", BALANCE).replacing("X-Player-Token", token)
}

#[tokio::test]
async fn every_operation_passes_with_a_bearer_key_and_with_basic() {
    let world = World::valkyrie().await;
    let mut count = 0;
    for parts in OPERATIONS {
        let query = "providerTransactionId=t%2F1+x&provider=Red%20Tiger&providerBetRef=";
        let by_key = operation(parts, query);
        let by_password = by_key.clone().replacing("Authorization", &basic("operator", valkyrie::PASSWORD));
        for request in [by_key, by_password] {
            for over_h2 in [false, true] {
                let reply = if over_h2 { world.send_h2(&request).await } else { world.send(&request).await };
                assert_eq!((reply.status, &*reply.text()), (200, GOOD), "{parts:?}");
                count += 1;
                let requests = world.pam.requests();
                assert_eq!(requests.len(), count);
                let seen = &requests[count - 1];
                assert_eq!((&seen.method, &seen.target), (&request.method, &request.target));
                assert_eq!(seen.body, request.body);
                assert_eq!(seen.values("authorization"), request.values("authorization"));
                assert_eq!(seen.values("x-player-token"), [valkyrie::TOKEN]);
            }
        }
    }
    let lines = world.finish().await;
    let names: Vec<_> = lines.iter().step_by(4).map(|line| line["http.route"].as_str().unwrap()).collect();
    let expected = ["getSession", "refreshSession", "getBalance", "getTransactions", "addTransaction", "getGameRound"];
    assert_eq!(names, expected);
    let callers: Vec<_> = lines.iter().take(4).map(|line| line["caller"].as_str().unwrap()).collect();
    assert_eq!(callers, ["valkyrie", "valkyrie", "operator", "operator"]);
}

#[tokio::test]
async fn the_four_bytes_that_the_client_sends_to_refresh_arrive_with_their_length() {
    let world = World::valkyrie().await;
    let with_null = operation(OPERATIONS[1], "provider=evolution");
    let bare = valkyrie::call("PUT", "/players/session?provider=evolution");
    for request in [&with_null, &bare] {
        assert_eq!(world.send(request).await.status, 200);
        assert_eq!(world.send_h2(request).await.status, 200);
    }
    let lengths: Vec<_> =
        world.pam.requests().iter().map(|seen| (seen.values("content-length").join("|"), seen.body.clone())).collect();
    let null = ("4".to_owned(), b"null".to_vec());
    let empty = ("0".to_owned(), Vec::new());
    assert_eq!(lengths, [null.clone(), null, empty.clone(), empty]);
}

#[tokio::test]
async fn what_no_route_names_is_not_found() {
    let not_found = |method: &str, path: &str| {
        let target = format!("{path}?provider=evolution");
        Refusal::new(&format!("{method} {path}"), valkyrie::call(method, &target), 404, "PAM_ERR_UNDEFINED", "no_route")
    };
    let mut refusals: Vec<_> = [
        ("POST", "/players/session"),
        ("DELETE", "/players/session"),
        ("PATCH", "/players/session"),
        ("OPTIONS", "/players/session"),
        ("PUT", "/players/17/balance"),
        ("POST", "/players/17/balance"),
        ("PUT", "/players/17/transactions"),
        ("DELETE", "/players/17/transactions"),
        ("POST", "/players/17/gamerounds/r"),
        ("GET", "/players/session/"),
        ("GET", "/players/Session"),
        ("GET", "/players/17"),
        ("GET", "/players/"),
        ("GET", "/players"),
        ("GET", "/"),
        ("GET", "/players/17/gamerounds"),
        ("GET", "/players/17/gamerounds/"),
        ("GET", "/players/17/gamerounds/r/x"),
        ("GET", "/players/17/balance/x"),
        ("GET", "/pam/players/session"),
        ("GET", "/metrics"),
        ("GET", "/livez"),
        ("GET", "/readyz"),
        ("GET", "/status"),
    ]
    .map(|(method, path)| not_found(method, path))
    .into();
    let stranger = Request::new("GET", "/players/17/bonus");
    refusals.push(Refusal::new("a stranger", stranger, 404, "PAM_ERR_UNDEFINED", "no_route"));
    assert_refusals(World::valkyrie().await, valkyrie::code, refusals).await;
}

// threat: C6
#[tokio::test]
async fn head_is_no_way_around_get() {
    let world = World::valkyrie().await;
    let reply = world.send(&valkyrie::call("HEAD", BALANCE)).await;
    assert_eq!((reply.status, &*reply.text()), (404, ""));
    world.pam.assert_untouched();
}

// threat: C5
#[tokio::test]
async fn a_path_that_two_readers_could_resolve_differently_is_refused() {
    let refusals = [
        "/players/17/../session",
        "/players/./session",
        "/players//session",
        "//players/session",
        "/players/17/balance/..",
        "/players/%2e%2e/session",
        "/players/.%2E/session",
        "/players%2fsession",
        "/players%2Fsession",
        "/players/17%2fbalance",
        "/players/17%5cbalance",
        "/players/17%252fx/balance",
        "/players/17;x=1/balance",
        "/players/17%3bx/balance",
        "/players/17%00/balance",
        "/players/17%20/balance",
        "/players/%c0%af/balance",
        "/players/%zz/balance",
        "/players/17%/balance",
    ]
    .map(|path| {
        let request = valkyrie::call("GET", &format!("{path}?provider=evolution"));
        Refusal::new(path, request, 400, "PAM_ERR_UNDEFINED", "target")
    });
    assert_refusals(World::valkyrie().await, valkyrie::code, refusals.into()).await;
}

#[tokio::test]
async fn a_path_with_encoded_characters_of_an_id_arrives_as_it_was_sent() {
    let world = World::valkyrie().await;
    let target = "/players/pl%C3%A4yer%3A17/gamerounds/a-b_c~d.e:f@g?provider=evolution";
    assert_eq!(world.send(&valkyrie::call("GET", target)).await.status, 200);
    assert_eq!(world.pam.only_request().target, target);
}

#[tokio::test]
async fn every_operation_needs_one_provider() {
    let missing = |parts: (&str, &str, &str), query: &str| {
        let what = format!("{} {}?{query}", parts.0, parts.1);
        Refusal::new(&what, operation(parts, query), 400, "PAM_ERR_MISSING_PROVIDER", "parameter")
    };
    let mut refusals: Vec<_> = OPERATIONS.iter().map(|parts| missing(*parts, "x=provider")).collect();
    for query in [
        "",
        "provider",
        "provider=",
        "provider=&x=1",
        "Provider=evolution",
        "PROVIDER=evolution",
        "xprovider=evolution",
        "provider%5B%5D=evolution",
        "provider%00=evolution",
        "+provider=evolution",
        "provider=a&provider=b",
        "provider=a&provider=a",
        "provider=a&provider=",
        "provider=&provider=a",
        "provider=a&provider",
        // The PAM decodes names as well.
        "provider=a&%70rovider=b",
        "%70rovider=",
        "%70rovider=a&pro%76ider=b",
        "provider=%ff",
        "provider=%c0%af",
    ] {
        refusals.push(missing(OPERATIONS[2], query));
    }
    let no_query = valkyrie::call("GET", "/players/session");
    refusals.push(Refusal::new("no query", no_query, 400, "PAM_ERR_MISSING_PROVIDER", "parameter"));
    let in_body = valkyrie::call("POST", "/players/17/transactions").body("provider=evolution");
    refusals.push(Refusal::new("in the body", in_body, 400, "PAM_ERR_MISSING_PROVIDER", "parameter"));
    let in_header = valkyrie::call("GET", "/players/session").with("provider", "evolution");
    refusals.push(Refusal::new("in a header", in_header, 400, "PAM_ERR_MISSING_PROVIDER", "parameter"));
    assert_refusals(World::valkyrie().await, valkyrie::code, refusals).await;
}

#[tokio::test]
async fn a_provider_passes_wherever_it_stands_and_however_it_is_encoded() {
    let world = World::valkyrie().await;
    let queries = [
        "provider=evolution",
        "x=1&provider=evolution",
        "provider=evolution&x=provider",
        "&&provider=evolution&",
        "%70rovider=evolution",
        "provider=%65volution",
        "provider=Red%20Tiger",
        "provider=a=b",
        "provider=%C3%A4",
        "provider=x&providers=y&my-provider=z",
    ];
    for query in queries {
        let request = operation(OPERATIONS[0], query);
        assert_eq!(world.send(&request).await.status, 200, "{query}");
        assert_eq!(world.pam.requests().pop().unwrap().target, request.target);
    }
    assert_eq!(world.pam.requests().len(), queries.len());
}

#[tokio::test]
async fn a_player_token_has_32_to_40_visible_characters() {
    let not_found =
        |token: &str, reason| Refusal::new(token, with_token(token), 401, "PAM_ERR_SESSION_NOT_FOUND", reason);
    let of = |length: usize| "t".repeat(length);
    let malformed = [
        String::new(),
        of(1),
        of(31),
        of(41),
        of(43),
        of(4000),
        "-".to_owned(),
        format!("{} {}", of(16), of(16)),
        format!("{}\t{}", of(16), of(16)),
        format!("{}é", of(34)),
        format!("{}\u{2003}", of(34)),
        format!("{}, {}", of(32), of(32)),
    ];
    let mut refusals: Vec<_> = malformed.iter().map(|token| not_found(token, "token_malformed")).collect();
    let missing = valkyrie::call("GET", BALANCE).without("X-Player-Token");
    refusals.push(Refusal::new("missing", missing.clone(), 401, "PAM_ERR_SESSION_NOT_FOUND", "token_missing"));
    let elsewhere = [
        missing.clone().with("Cookie", &format!("X-Player-Token={}", valkyrie::TOKEN)),
        missing.clone().with("X-Player-Tokens", valkyrie::TOKEN),
        missing.with("XPlayerToken", valkyrie::TOKEN),
        Request { target: format!("{BALANCE}&X-Player-Token={}", valkyrie::TOKEN), ..refusals[0].request.clone() }
            .without("X-Player-Token"),
    ];
    for request in elsewhere {
        refusals.push(Refusal::new("elsewhere", request, 401, "PAM_ERR_SESSION_NOT_FOUND", "token_missing"));
    }
    assert_refusals(World::valkyrie().await, valkyrie::code, refusals).await;
}

#[tokio::test]
async fn tokens_at_the_edges_of_their_length_pass() {
    let world = World::valkyrie().await;
    for token in ["t".repeat(32), "t".repeat(40), "!\"#$%&'()*+-./:;<=>?@[]^_`{|}~01234".to_owned()] {
        assert_eq!(world.send(&with_token(&token)).await.status, 200, "{token}");
        assert_eq!(world.send_h2(&with_token(&token)).await.status, 200, "{token}");
        assert_eq!(world.pam.requests().pop().unwrap().values("x-player-token"), [&token]);
    }
}

// threat: C2
#[tokio::test]
async fn two_player_tokens_are_refused_even_when_they_are_equal() {
    let call = valkyrie::call("GET", BALANCE);
    let behind = |name: &str, token: &str| {
        let request = call.clone().with(name, token);
        Refusal::new(token, request, 401, "PAM_ERR_SESSION_NOT_FOUND", "token_repeated")
    };
    let refusals = vec![
        behind("X-Player-Token", valkyrie::TOKEN),
        behind("x-player-token", valkyrie::TOKEN),
        behind("X-PLAYER-TOKEN", &"u".repeat(36)),
        behind("X-Player-Token", ""),
        behind("X-Player-Token", "short"),
    ];
    assert_refusals(World::valkyrie().await, valkyrie::code, refusals).await;
}

#[tokio::test]
async fn the_length_of_tokens_can_be_overridden() {
    let world = World::of("config/valkyrie.toml", &["token.length=[3, 43]"]).await;
    for (length, status) in [(2, 401), (3, 200), (43, 200), (44, 401)] {
        assert_eq!(world.send(&with_token(&"t".repeat(length))).await.status, status, "{length}");
    }
    assert_eq!(world.pam.requests().len(), 2);
}

#[tokio::test]
async fn a_base_path_stands_in_front_of_every_route() {
    let world = World::of("config/valkyrie.toml", &["base_path=/api/pam"]).await;
    for (method, path, body) in OPERATIONS {
        let request = operation((method, &format!("/api/pam{path}"), body), "provider=evolution");
        assert_eq!(world.send(&request).await.status, 200, "{path}");
        assert_eq!(world.pam.requests().pop().unwrap().target, request.target);
    }
    let refusals = ["/players/session", "/pam/players/session", "/api/pam", "/api/pam/", "/api/pamplayers/session"]
        .map(|path| {
            let request = operation(("GET", path, ""), "provider=evolution");
            Refusal::new(path, request, 404, "PAM_ERR_UNDEFINED", "no_route")
        });
    let world = World::of("config/valkyrie.toml", &["base_path=/api/pam"]).await;
    assert_refusals(world, valkyrie::code, refusals.into()).await;
}

#[tokio::test]
async fn every_reply_has_its_length_however_the_pam_framed_its_answer() {
    let framings: [(&str, &[u8]); 5] = [
        ("a length", b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"status\":\"OK\"}"),
        (
            "chunks",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{\"status\"\r\n6\r\n:\"OK\"}\r\n0\r\n\r\n",
        ),
        ("until close", b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"status\":\"OK\"}"),
        ("HTTP/1.0 until close", b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n{\"status\":\"OK\"}"),
        (
            "a 1xx in front",
            b"HTTP/1.1 103 X\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"status\":\"OK\"}",
        ),
    ];
    for (framing, said) in framings {
        let world = World::valkyrie().await;
        world.pam.answer_with(|_| said.to_vec());
        for parts in OPERATIONS {
            let request = operation(parts, "provider=evolution");
            for reply in [world.send(&request).await, world.send_h2(&request).await] {
                assert_eq!((reply.status, &*reply.text()), (200, GOOD), "{framing} {parts:?}");
                assert_eq!(reply.values("content-length"), ["15"], "{framing} {parts:?}");
                assert_eq!(reply.values("transfer-encoding").len(), 0, "{framing} {parts:?}");
                assert_eq!(reply.values("x-correlation-id").len(), 1, "{framing} {parts:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_answer_with_a_length_keeps_it_also_when_it_is_too_large_to_be_held() {
    let world = World::of("config/valkyrie.toml", &["limits.answer=300"]).await;
    let body = format!("{{\"x\":\"{}\"}}", "x".repeat(100_000));
    let said = answer(200, &body);
    world.pam.answer_with(move |_| said.clone());
    for reply in
        [world.send(&valkyrie::call("GET", BALANCE)).await, world.send_h2(&valkyrie::call("GET", BALANCE)).await]
    {
        assert_eq!(reply.values("content-length"), [body.len().to_string()]);
        assert_eq!(reply.text(), body);
    }
}

#[tokio::test]
async fn the_pams_words_reach_the_caller_as_they_are() {
    let world = World::valkyrie().await;
    let body = r#"{"status":"ERROR","error":{"code":"PAM_ERR_CASH_OVERDRAFT","message":"no money"}}"#;
    for status in [200, 201, 400, 401, 403, 404, 409, 500, 502, 503] {
        world.pam.answer_with(move |_| answer(status, body));
        for parts in OPERATIONS {
            let reply = world.send(&operation(parts, "provider=evolution")).await;
            assert_eq!((reply.status, &*reply.text()), (status, body), "{parts:?}");
        }
    }
}

#[tokio::test]
async fn a_pam_that_never_answers_is_a_timeout_in_the_familys_words() {
    let world = World::of("config/valkyrie.toml", &["timeouts.total=100ms"]).await;
    world.pam.answer_async(|_| futures_answer::of(std::future::pending()));
    let request = valkyrie::call("GET", BALANCE).with("X-Correlation-ID", "late-1");
    let reply = world.send(&request).await;
    assert_eq!((reply.status, valkyrie::code(&reply)), (504, "PAM_ERR_TIMEOUT".into()));
    assert_eq!(correlation_of(&reply), "late-1");
    let reply = world.send_h2(&request).await;
    assert_eq!((reply.status, valkyrie::code(&reply)), (504, "PAM_ERR_TIMEOUT".into()));
    assert_eq!(world.pam.requests().len(), 2);
}

#[tokio::test]
async fn trouble_with_the_pam_is_undefined_and_never_a_matter_of_the_session() {
    let world = World::valkyrie().await;
    world.pam.answer_in_turn(vec![None, Some(b"garbage\r\n\r\n".to_vec()), Some(b"HTTP/1.1 101 X\r\n\r\n".to_vec())]);
    for _ in 0..3 {
        let reply = world.send(&valkyrie::call("GET", BALANCE)).await;
        assert_eq!((reply.status, valkyrie::code(&reply)), (502, "PAM_ERR_UNDEFINED".into()));
    }
    assert_eq!(world.pam.requests().len(), 3);
    let mut pam = Pam::start().await;
    // Nobody listens there.
    pam.address = "127.0.0.1:1".parse().unwrap();
    let world = World::with_pam("config/valkyrie.toml", &[], pam).await;
    let reply = world.send(&valkyrie::call("GET", BALANCE)).await;
    assert_eq!((reply.status, valkyrie::code(&reply)), (503, "PAM_ERR_UNDEFINED".into()));
}

#[tokio::test]
async fn a_dash_is_no_correlation_id() {
    let world = World::valkyrie().await;
    for dashes in [1, 2] {
        let mut request = valkyrie::call("GET", BALANCE);
        for _ in 0..dashes {
            request = request.with("X-Correlation-ID", "-");
        }
        let reply = world.send(&request).await;
        let seen = world.pam.requests().pop().unwrap();
        let ids = seen.values("x-correlation-id");
        assert_eq!(ids.len(), 1);
        let minted = uuid::Uuid::parse_str(ids[0]).unwrap();
        assert_eq!(minted.get_version_num(), 7);
        assert_eq!(reply.values("x-correlation-id"), ids);
    }
}

#[tokio::test]
async fn a_correlation_id_is_adopted_sent_once_and_echoed_once() {
    let world = World::valkyrie().await;
    world.pam.answer_with(|_| b"HTTP/1.1 200 OK\r\nX-Correlation-ID: the-pams\r\nContent-Length: 0\r\n\r\n".to_vec());
    let request = valkyrie::call("GET", BALANCE).with("x-correlation-id", "round-4711");
    for reply in [world.send(&request).await, world.send_h2(&request).await] {
        assert_eq!(reply.values("x-correlation-id"), ["round-4711"]);
    }
    for seen in world.pam.requests() {
        assert_eq!(seen.values("x-correlation-id"), ["round-4711"]);
        assert_eq!(seen.values("traceparent").len(), 1);
    }
    let refused = world.send(&request.without("Authorization")).await;
    assert_eq!((refused.status, correlation_of(&refused)), (401, "round-4711".to_owned()));
}

#[tokio::test]
async fn a_body_that_no_check_reads_passes_as_it_is() {
    let world = World::valkyrie().await;
    let call = valkyrie::call("POST", "/players/17/transactions?provider=evolution");
    // Strict: no check looks into it, so nothing could be read in two ways.
    let gzip = call.clone().with("Content-Encoding", "gzip").body(&b"\x1f\x8b\x08\0\xff\xfe"[..]);
    let spaced = call.with("Content-Type", "text/plain").body("not { JSON");
    for request in [gzip, spaced] {
        assert_eq!(world.send(&request).await.status, 200);
        assert_eq!(world.pam.requests().pop().unwrap().body, request.body);
    }
}
