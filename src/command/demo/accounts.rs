//! What the PAM of the demo knows: players, their sessions and their money, and how each family asks about them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::request::{Method, Request};

/// Players, sessions, money.
pub struct Accounts {
    /// Player by session token.
    sessions: BTreeMap<String, &'static str>,
    /// Money in cents by player.
    balances: BTreeMap<&'static str, i64>,
    /// Transactions of the Valkyrie family, as they were sent.
    transactions: Vec<Value>,
    /// Player and stake in cents by transaction, for the wallet's rollback.
    debits: BTreeMap<String, (&'static str, i64)>,
    /// The last action by ticket.
    tickets: BTreeMap<String, String>,
    minted: u64,
}

/// A player and the tokens of her sessions.
pub struct Player {
    /// Who.
    pub name: &'static str,
    /// The session a Valkyrie game plays in: 32 to 40 characters.
    pub valkyrie: &'static str,
    /// The session a wallet game plays in.
    pub wallet: &'static str,
    /// What Betstack identifies her by.
    pub betstack: &'static str,
}

/// Plays through the walk.
pub const ALICE: Player = Player {
    name: "alice",
    valkyrie: "demo-session-of-alice-000000000000001",
    wallet: "demo-wallet-token-of-alice",
    betstack: "demo-player-alice",
};

/// Stays, for lines to try that work as often as one likes.
pub const CAROL: Player = Player {
    name: "carol",
    valkyrie: "demo-session-of-carol-000000000000001",
    wallet: "demo-wallet-token-of-carol",
    betstack: "demo-player-carol",
};

/// Leaves, by lines to try that work once.
pub const BOB: Player = Player {
    name: "bob",
    valkyrie: "demo-session-of-bob-00000000000000001",
    wallet: "demo-wallet-token-of-bob",
    betstack: "demo-player-bob",
};

/// The player whose requests take the PAM too long.
pub const SLEEPY: &str = "sleepy";

/// The operator's name at Betstack.
pub const OPERATOR: &str = "operator-code";

impl Accounts {
    /// Three players with 100.00 each.
    pub fn new() -> Accounts {
        let mut sessions = BTreeMap::new();
        for player in [&ALICE, &BOB, &CAROL] {
            for token in [player.valkyrie, player.wallet, player.betstack] {
                sessions.insert(token.to_owned(), player.name);
            }
        }
        Accounts {
            sessions,
            balances: BTreeMap::from([ALICE, BOB, CAROL].map(|player| (player.name, 10_000))),
            transactions: Vec::new(),
            debits: BTreeMap::new(),
            tickets: BTreeMap::new(),
            minted: 0,
        }
    }

    /// Status and body for a request of any family.
    pub fn answer(&mut self, request: &Request) -> (u16, Value) {
        let head = &request.head;
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let segments: Vec<&str> = head.target.path().split('/').skip(1).collect();
        match (head.method, segments.as_slice()) {
            (_, ["players", rest @ ..]) => {
                let token = first(request, "x-player-token");
                self.valkyrie(head.method, rest, &token, body).unwrap_or_else(|code| {
                    let status = if code == "PAM_ERR_SESSION_NOT_FOUND" { 401 } else { 200 };
                    (status, json!({ "status": "ERROR", "error": { "code": code, "message": "the demo PAM says no" } }))
                })
            }
            (Method::Post, ["api", "wallet", operation]) => {
                let mut answer = self.wallet(operation, &body);
                if let (_, Value::Object(members)) = &mut answer {
                    members.insert("request_id".to_owned(), first(request, "x-correlation-id").into());
                }
                answer
            }
            (Method::Post, ["pam"]) => self.betstack(text(&body, "/action"), &body),
            _ => (404, json!({ "message": "the demo PAM has no such path" })),
        }
    }

    /// The Valkyrie PAM API, or one of its error codes.
    fn valkyrie(
        &mut self,
        method: Method,
        path: &[&str],
        token: &str,
        body: Value,
    ) -> Result<(u16, Value), &'static str> {
        let player = *self.sessions.get(token).ok_or("PAM_ERR_SESSION_NOT_FOUND")?;
        if let [named, _, ..] = path
            && *named != player
        {
            return Err("PAM_ERR_PLAYER_NOT_FOUND");
        }
        let (name, entity) = match (method, path) {
            (Method::Get, ["session"]) => ("session", session(player, token)),
            (Method::Put, ["session"]) => {
                self.minted += 1;
                let fresh = format!("demo-session-of-{player}-{:0>width$}", self.minted + 1, width = 20 - player.len());
                self.sessions.remove(token);
                self.sessions.insert(fresh.clone(), player);
                ("session", session(player, &fresh))
            }
            (Method::Get, [_, "balance"]) => ("balance", self.amounts(player)),
            (Method::Get, [_, "transactions"]) => ("transactions", json!(self.transactions)),
            (Method::Post, [_, "transactions"]) => {
                let amount = cents(&body, "/cashAmount");
                let change = if text(&body, "/transactionType").ends_with("WITHDRAW") { -amount } else { amount };
                self.change(player, change).ok_or("PAM_ERR_CASH_OVERDRAFT")?;
                self.transactions.push(body);
                let id = self.transactions.len().to_string();
                ("transactionResult", json!({ "transactionId": id, "balance": self.amounts(player) }))
            }
            (Method::Get, [_, "gamerounds", round]) => {
                let known = self.transactions.iter().any(|one| text(one, "/providerRoundId") == *round);
                known.then_some(()).ok_or("PAM_ERR_ROUND_NOT_FOUND")?;
                ("gameround", json!({ "providerRoundId": round }))
            }
            _ => return Err("PAM_ERR_UNDEFINED"),
        };
        Ok((200, json!({ "status": "OK", name: entity })))
    }

    /// The seamless wallet.
    fn wallet(&mut self, operation: &str, body: &Value) -> (u16, Value) {
        let no = |status: u16, message: &str| (status, json!({ "status": false, "code": status, "message": message }));
        let token = text(body, "/token");
        let Some(&player) = self.sessions.get(token) else { return no(401, "unknown token") };
        let id = text(body, "/transaction_id").to_owned();
        let amount = cents(body, "/amount");
        let done = match operation {
            "authenticate" | "balance" => Some(()),
            "debit" => self.change(player, -amount).map(|()| {
                self.debits.insert(id, (player, amount));
            }),
            "credit" => self.change(player, amount),
            "rollback" => self.debits.remove(&id).and_then(|(player, amount)| self.change(player, amount)),
            "terminate" => self.sessions.remove(token).map(drop),
            _ => return no(404, "no such operation"),
        };
        let Some(()) = done else { return no(400, "not enough money, or no such transaction") };
        let balance = money(self.balance(player));
        (200, json!({ "status": true, "code": 1, "message": "", "token": token, "balance": balance }))
    }

    /// The Betstack PAM platform.
    fn betstack(&mut self, action: &str, body: &Value) -> (u16, Value) {
        let no = |code: u16, message: &str| (400, json!({ "code": code, "message": message }));
        let ticket = text(body, "/data/ticket_id");
        match action {
            "ping" => (200, json!({})),
            "identify" => match self.sessions.get(text(body, "/data/token")) {
                Some(&player) => {
                    let balance = self.balance(player);
                    (200, json!({ "player_id": player, "lang": "en", "balance": balance, "currency": "EUR" }))
                }
                None => no(101, "User not found"),
            },
            "ticket_create" | "ticket_reserve" => {
                self.tickets.insert(ticket.to_owned(), action.to_owned());
                (200, json!({}))
            }
            _ => match self.tickets.get_mut(ticket) {
                Some(last) => {
                    action.clone_into(last);
                    (200, json!({}))
                }
                None => no(102, "Ticket not found"),
            },
        }
    }

    /// Nothing happens, and `None`, when there is not enough.
    fn change(&mut self, player: &'static str, cents: i64) -> Option<()> {
        let balance = self.balances.entry(player).or_default();
        *balance = balance.checked_add(cents).filter(|balance| *balance >= 0)?;
        Some(())
    }

    fn balance(&self, player: &str) -> i64 {
        self.balances.get(player).copied().unwrap_or(0)
    }

    fn amounts(&self, player: &str) -> Value {
        json!({ "cashAmount": money(self.balance(player)), "bonusAmount": 0, "promoAmount": 0 })
    }
}

fn session(player: &str, token: &str) -> Value {
    json!({ "playerId": player, "token": token, "currency": "EUR", "country": "SE", "language": "SV" })
}

fn first(request: &Request, field: &str) -> String {
    let value = request.head.fields.all(field).next().unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

fn text<'a>(body: &'a Value, pointer: &str) -> &'a str {
    body.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The families write money as a decimal number.
fn cents(body: &Value, pointer: &str) -> i64 {
    let amount = body.pointer(pointer).and_then(Value::as_f64).unwrap_or_default();
    (amount * 100.0).round() as i64
}

fn money(cents: i64) -> f64 {
    cents as f64 / 100.0
}
