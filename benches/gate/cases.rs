//! The requests whose cost is known: each family's, admitted and refused.

use std::hint::black_box;
use std::rc::Rc;

use portcullis::denial::Denial;
use portcullis::request::Request;
use portcullis::token::TokenDigest;

use crate::call::Call;
use crate::scene::{NOW, Scene};

/// A request that is judged again and again.
pub struct Case {
    pub name: &'static str,
    scene: Rc<Scene>,
    request: Request,
    refused: Option<Denial>,
}

impl Case {
    /// Judges the request a number of times. What a check remembers of it is forgotten each time, since nobody settles it.
    pub fn turn(&self, times: u64) {
        for _ in 0..times {
            let judged = self.scene.judge(black_box(&self.request));
            assert_eq!(black_box(judged).err(), self.refused, "{}", self.name);
        }
    }

    /// Whether a few turns of it take as long as many of others.
    pub fn is_long(&self) -> bool {
        self.request.body.len() > 4 << 10
    }
}

/// All of them. Names are what `benches/gate.toml` calls them.
pub fn cases() -> Vec<Case> {
    [valkyrie(), wallet(), betstack()].into_iter().flatten().collect()
}

fn valkyrie() -> Vec<Case> {
    let scene = Rc::new(Scene::of("config/valkyrie.toml"));
    let (platform, operator) = (0, 1);
    let balance = Call::new("GET /players/471164/balance?provider=Evolution").with("X-Player-Token", PLAYER);
    let deposit = Call::new("POST /players/471164/transactions?provider=Evolution").with("X-Player-Token", PLAYER);
    let deposit = deposit.json(TRANSACTION).authorized(&scene, platform);
    let elsewhere = Call::new("GET /players/471164/limits?provider=Evolution").authorized(&scene, platform);
    let wrong_key = balance.clone().with("Authorization", "Bearer of-no-caller-at-all");
    let case = |name, call: Call, refused| Case { name, scene: Rc::clone(&scene), request: call.sent(), refused };
    vec![
        case("valkyrie, bearer", balance.clone().authorized(&scene, platform), None),
        case("valkyrie, basic", balance.clone().authorized(&scene, operator), None),
        case("valkyrie, transaction", deposit, None),
        case("valkyrie, refused: no route", elsewhere, Some(Denial::NoRoute)),
        case("valkyrie, refused: no credential", balance.clone(), Some(Denial::CredentialMissing)),
        case("valkyrie, refused: wrong key", wrong_key, Some(Denial::CredentialWrong)),
    ]
}

fn wallet() -> Vec<Case> {
    let scene = Rc::new(Scene::of("config/wallet.toml"));
    scene.end(TokenDigest::of(DEAD.as_bytes(), &scene.gate.token_key));
    let debit = |body: &str| Call::new("POST /api/wallet/debit").json(body).authorized(&scene, 0);
    let forged = debit(&wallet_body(ALIVE)).with("X-Request-Signature", &"5a".repeat(32));
    let wrong_password = Call::new("POST /api/wallet/debit")
        .json(wallet_body(ALIVE))
        .with("Authorization", "Basic ZmFudGFzeS1nb2FsOmE=")
        .signed(&scene, 0);
    let terminate = Call::new("POST /api/wallet/terminate").json(wallet_body(ALIVE)).authorized(&scene, 0);
    let case = |name, call: Call, refused| Case { name, scene: Rc::clone(&scene), request: call.sent(), refused };
    vec![
        case("wallet, signed", debit(&wallet_body(ALIVE)).signed(&scene, 0), None),
        case("wallet, 32 KiB of bets", debit(&long_body(32 << 10)).signed(&scene, 0), None),
        case("wallet, 32 KiB of text", debit(&text_body(32 << 10)).signed(&scene, 0), None),
        case("wallet, terminate", terminate.signed(&scene, 0), None),
        case("wallet, refused: wrong password", wrong_password, Some(Denial::CredentialWrong)),
        case("wallet, refused: wrong signature", forged, Some(Denial::SignatureWrong)),
        case("wallet, refused: dead token", debit(&wallet_body(DEAD)).signed(&scene, 0), Some(Denial::TokenEnded)),
    ]
}

fn betstack() -> Vec<Case> {
    let scene = Rc::new(Scene::of("config/betstack.toml"));
    let ticket = Call::new("POST /pam").json(TICKET);
    let stamp = NOW.as_secs().to_string();
    let forged = ticket.clone().with("timestamp", &stamp).with("signature", &"5a".repeat(32));
    let case = |name, call: Call, refused| Case { name, scene: Rc::clone(&scene), request: call.sent(), refused };
    vec![
        case("betstack, signed", ticket.signed(&scene, 0), None),
        case("betstack, refused: wrong signature", forged, Some(Denial::SignatureWrong)),
    ]
}

/// The body of a wallet call, about as long as most are.
pub fn wallet_body(token: &str) -> String {
    format!(r#"{{"token":"{token}","player_id":1,"site_id":1,"provider_id":1,"game_id":"example","currency":"EUR"}}"#)
}

/// The same with so many bets that it has this length.
pub fn long_body(length: usize) -> String {
    let start = wallet_body(ALIVE);
    let start = format!("{},\"bets\":[", start.trim_end_matches('}'));
    let bet = r#"{"id":"0190a6f0","stake":250,"odds":1.85}"#;
    let count = (length - start.len()) / (bet.len() + 1);
    let bets = vec![bet; count].join(",");
    let filling = " ".repeat(length - start.len() - bets.len() - 2);
    format!("{start}{bets}{filling}]}}")
}

/// The same with a single member that long.
fn text_body(length: usize) -> String {
    let start = wallet_body(ALIVE);
    let start = format!("{},\"note\":\"", start.trim_end_matches('}'));
    format!("{start}{}\"}}", "x".repeat(length - start.len() - 2))
}

pub const PLAYER: &str = "7ca10daf12f2cac9fecf559b11f0f0c8bd21ae43";

pub const ALIVE: &str = "3dc8fe01-2018-486e-9632-35aef21028a5";

const DEAD: &str = "f3a1b7de-8c55-4c0e-9a6d-0c2f1e7d5b90";

const TRANSACTION: &str = r#"{"transactionType":"WITHDRAW","transactionId":"t-81923","providerTransactionId":"e-5512","currency":"EUR","cashAmount":2.50,"bonusAmount":0,"gameRoundRef":"round-18","isGameOver":false}"#;

const TICKET: &str = r#"{
  "action": "ticket_create",
  "data": {
    "operator": "operator-code",
    "ticket_id": "81923",
    "player_id": "471164",
    "amount": 250,
    "currency": "EUR",
    "bets": [{ "id": 1, "odds": 1.85 }, { "id": 2, "odds": 2.10 }]
  }
}"#;
