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
    /// Counts the tokens of the Valkyrie family.
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
            minted: 1,
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
                let fresh = format!("demo-session-of-{player}-{:0>width$}", self.minted, width = 20 - player.len());
                self.sessions.remove(token);
                self.sessions.insert(fresh.clone(), player);
                ("session", session(player, &fresh))
            }
            (Method::Get, [_, "balance"]) => ("balance", self.amounts(player)),
            (Method::Get, [_, "transactions"]) => ("transactions", json!(self.transactions)),
            (Method::Post, [_, "transactions"]) => {
                let amount = cents(&body, "/cashAmount");
                let change = if text(&body, "/transactionType").ends_with("WITHDRAW") { -amount } else { amount };
                if amount < 0 {
                    return Err("PAM_ERR_NEGATIVE_STAKE");
                }
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
            _ if amount < 0 => None,
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::request::{Head, HeadLimits};

    fn ask(accounts: &mut Accounts, line: &str, token: &str, body: &str) -> (u16, Value) {
        let head = format!("{line} HTTP/1.1\r\nHost: pam\r\nX-Player-Token: {token}\r\n\r\n");
        let limits = HeadLimits { bytes: 1024, fields: 8, target: 256 };
        let head = Head::scan(Bytes::from(head), &limits).unwrap();
        accounts.answer(&Request { head, body: Bytes::from(body.to_owned()) })
    }

    #[test]
    fn tokens_of_valkyrie_have_the_length_its_dialect_wants() {
        let mut accounts = Accounts::new();
        for player in [ALICE, BOB, CAROL] {
            let (_, answer) = ask(&mut accounts, "PUT /players/session", player.valkyrie, "");
            let fresh = text(&answer, "/session/token");
            assert_eq!([player.valkyrie.len(), fresh.len()], [37, 37], "{answer}");
            assert_ne!(player.valkyrie, fresh);
        }
    }

    #[test]
    fn a_refresh_moves_the_session_to_another_token() {
        let mut accounts = Accounts::new();
        let (_, answer) = ask(&mut accounts, "PUT /players/session", ALICE.valkyrie, "");
        assert_eq!(ask(&mut accounts, "GET /players/session", ALICE.valkyrie, "").0, 401);
        assert_eq!(ask(&mut accounts, "GET /players/session", text(&answer, "/session/token"), "").0, 200);
    }

    #[test]
    fn a_bet_and_a_win_move_money_and_are_found_again() {
        let mut accounts = Accounts::new();
        let mut book = |kind: &str, amount: f64| {
            let body = json!({ "transactionType": kind, "cashAmount": amount, "providerRoundId": "round-1" });
            ask(&mut accounts, "POST /players/alice/transactions", ALICE.valkyrie, &body.to_string()).1
        };
        assert_eq!(book("WITHDRAW", 30.0).pointer("/transactionResult/balance/cashAmount"), Some(&json!(70.0)));
        assert_eq!(book("DEPOSIT", 0.5).pointer("/transactionResult/balance/cashAmount"), Some(&json!(70.5)));
        assert_eq!(text(&book("WITHDRAW", 70.51), "/error/code"), "PAM_ERR_CASH_OVERDRAFT");
        assert_eq!(text(&book("WITHDRAW", -1.0), "/error/code"), "PAM_ERR_NEGATIVE_STAKE");
        let mut found = |path: &str| ask(&mut accounts, path, ALICE.valkyrie, "").1;
        assert_eq!(found("GET /players/alice/transactions").pointer("/transactions/2"), None);
        assert_eq!(found("GET /players/alice/transactions").pointer("/transactions/1/cashAmount"), Some(&json!(0.5)));
        assert_eq!(text(&found("GET /players/alice/gamerounds/round-1"), "/status"), "OK");
        assert_eq!(text(&found("GET /players/alice/gamerounds/round-2"), "/error/code"), "PAM_ERR_ROUND_NOT_FOUND");
        assert_eq!(text(&found("GET /players/bob/balance"), "/error/code"), "PAM_ERR_PLAYER_NOT_FOUND");
    }

    #[test]
    fn a_rollback_gives_a_stake_back_once() {
        let mut accounts = Accounts::new();
        let mut wallet = |operation: &str| {
            let body = json!({ "token": ALICE.wallet, "transaction_id": "bet-1", "amount": 5.0 }).to_string();
            let (status, answer) = ask(&mut accounts, &format!("POST /api/wallet/{operation}"), "", &body);
            (status, answer.pointer("/balance").and_then(Value::as_f64))
        };
        assert_eq!(wallet("authenticate"), (200, Some(100.0)));
        assert_eq!(wallet("debit"), (200, Some(95.0)));
        assert_eq!(wallet("rollback"), (200, Some(100.0)));
        assert_eq!(wallet("rollback"), (400, None));
        assert_eq!(wallet("credit"), (200, Some(105.0)));
        assert_eq!(wallet("terminate"), (200, Some(105.0)));
        assert_eq!(wallet("balance"), (401, None));
    }

    #[test]
    fn a_ticket_is_known_after_it_was_created() {
        let mut accounts = Accounts::new();
        let mut betstack = |action: &str| {
            let body = json!({ "action": action, "data": { "operator": OPERATOR, "ticket_id": "1" } }).to_string();
            ask(&mut accounts, "POST /pam", "", &body).0
        };
        assert_eq!(betstack("ping"), 200);
        assert_eq!(betstack("identify"), 400);
        assert_eq!(betstack("ticket_win"), 400);
        assert_eq!(betstack("ticket_create"), 200);
        assert_eq!(betstack("ticket_win"), 200);
    }
}
