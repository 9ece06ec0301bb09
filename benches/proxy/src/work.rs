//! What is asked for, again and again: the requests, and what they must come to.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// One kind of request.
pub struct Work {
    /// As the table calls it.
    pub name: &'static str,
    /// The API family.
    pub family: &'static str,
    pub method: &'static str,
    pub path: &'static str,
    pub fields: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// How it is sent.
    pub wire: Wire,
    /// Whoever checks refuses it.
    pub refused: bool,
    /// At most, of the CPU time of the bare proxy, and of the better of HAProxy and nginx.
    pub aims: (f64, f64),
}

/// How a request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Http1,
    /// With prior knowledge.
    Http2,
    Http2Tls,
}

pub const API_TOKEN: &str = "4f9d2c7e8a1b43f0a6d5e9c8b7a61234";
pub const PASSWORD: &str = "correct-horse-battery-staple";
pub const KEY: &str = "0123456789abcdef0123456789abcdef";
const TOKEN: &str = "7b2f1c94-3d5e-4a6b-8c9d-0e1f2a3b4c5d";

/// All of it, in the order of the table.
pub fn all() -> Vec<Work> {
    let bearer = valkyrie("Valkyrie, bearer", format!("Bearer {API_TOKEN}"));
    let basic = valkyrie("Valkyrie, Basic", format!("Basic {}", base64(&format!("operator:{PASSWORD}"))));
    let small = wallet_body(0);
    let large = wallet_body((32 << 10) - small.len());
    let betstack = Work {
        name: "Betstack, timestamp and HMAC over the compacted body",
        family: "betstack",
        method: "POST",
        path: "/pam",
        fields: Vec::new(),
        // Every message is another one: peers/betstack.lua makes them.
        body: Vec::new(),
        wire: Wire::Http1,
        refused: false,
        aims: (0.65, 0.75),
    };
    let mut wrong = wallet("wallet, wrong signature", &small, (0.33, 1.0));
    wrong.refused = true;
    for (name, value) in &mut wrong.fields {
        if *name == "X-Request-Signature" {
            *value = "0".repeat(64);
        }
    }
    vec![
        bearer,
        basic,
        small_wallet(),
        betstack,
        wrong,
        wallet("wallet, 32 KiB", &large, (1.7, 1.0)),
        Work { wire: Wire::Http2, ..wallet("wallet, HTTP/2 in the clear", &small, (0.80, 1.0)) },
        Work { wire: Wire::Http2Tls, ..wallet("wallet, HTTP/2 over TLS 1.3", &small, (0.80, 1.0)) },
    ]
}

/// The usual one.
pub fn small_wallet() -> Work {
    wallet("wallet, Basic and HMAC over 115 bytes", &wallet_body(0), (0.60, 0.70))
}

/// Basic credentials of the family's caller.
pub fn basic(family: &str) -> String {
    let user = if family == "valkyrie" { "operator" } else { "fantasy-goal" };
    base64(&format!("{user}:{PASSWORD}"))
}

pub fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

fn valkyrie(name: &'static str, credential: String) -> Work {
    Work {
        name,
        family: "valkyrie",
        method: "GET",
        path: "/players/10293/balance?provider=example",
        fields: vec![("Authorization", credential), ("X-Player-Token", TOKEN.to_owned())],
        body: Vec::new(),
        wire: Wire::Http1,
        refused: false,
        aims: (0.70, 0.90),
    }
}

fn wallet(name: &'static str, body: &[u8], aims: (f64, f64)) -> Work {
    Work {
        name,
        family: "wallet",
        method: "POST",
        path: "/api/wallet/debit",
        fields: vec![
            ("Authorization", format!("Basic {}", base64(&format!("fantasy-goal:{PASSWORD}")))),
            ("X-Request-Signature", signature(body)),
            ("Content-Type", "application/json".to_owned()),
        ],
        body: body.to_vec(),
        wire: Wire::Http1,
        refused: false,
        aims,
    }
}

fn wallet_body(more: usize) -> Vec<u8> {
    let mut note = "x".repeat(more);
    if more > 0 {
        note.truncate(more - r#","note":"""#.len());
        note = format!(r#","note":"{note}""#);
    }
    format!(r#"{{"token":"{TOKEN}","player_id":10293,"site_id":1,"provider_id":1,"game_id":"example","amount":12.50,"currency":"EUR"{note}}}"#)
        .into_bytes()
}

fn signature(body: &[u8]) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()) else { return String::new() };
    mac.update(body);
    let mut out = String::new();
    for byte in mac.finalize().into_bytes() {
        let _ = write!(out, "{byte:02x}");
    }
    out
}
