//! What the PAM could read otherwise than the gate did is refused.

use crate::world::{Request, World, betstack, valkyrie, wallet};

/// Some frameworks lay query parameters over the members of a JSON body.
#[tokio::test]
async fn a_parameter_beside_a_body_that_decides_is_refused() {
    let wallet_world = World::wallet().await;
    let body = wallet::body("t");
    for query in ["token=other", "x", "%74oken=other", "=", "&"] {
        let request = Request { target: format!("/api/wallet/debit?{query}"), ..wallet::signed("debit", &body) };
        for reply in [wallet_world.send(&request).await, wallet_world.send_h2(&request).await] {
            assert_eq!((reply.status, wallet::code(&reply)), (400, 400.into()), "{query}");
        }
    }
    wallet_world.pam.assert_untouched();

    let betstack_world = World::betstack().await;
    let ping = Request::new("POST", "/pam?action=ticket_win&data[ticket_id]=5").body(r#"{"action":"ping"}"#);
    let win = betstack::signed(&betstack::body("ticket_win", r#","ticket_id":"5""#));
    let win = Request { target: "/pam?action=ticket_lost".to_owned(), ..win };
    for request in [Request { target: "/pam?action=ticket_win".to_owned(), ..ping }, win] {
        let reply = betstack_world.send(&request).await;
        assert_eq!((reply.status, betstack::code(&reply)), (400, 400.into()));
    }
    betstack_world.pam.assert_untouched();

    let settling = World::of("config/valkyrie.toml", &["token.settlement=admit"]).await;
    let deposit = valkyrie::call("POST", "/players/1/transactions?provider=x&transactionType=WITHDRAW")
        .with("Content-Type", "application/json")
        .body(r#"{"transactionType":"DEPOSIT"}"#);
    let reply = settling.send(&deposit).await;
    assert_eq!((reply.status, valkyrie::code(&reply)), (400, "PAM_ERR_UNDEFINED".into()));
    settling.pam.assert_untouched();
}

#[tokio::test]
async fn a_parameter_where_no_body_is_read_passes() {
    let world = World::valkyrie().await;
    let target = "/players/1/transactions?provider=x&providerTransactionId=17";
    assert_eq!(world.send(&valkyrie::call("GET", target)).await.status, 200);
    assert_eq!(world.pam.only_request().target, target);
}

/// Half of all readers split a query at `;` too, and would find another provider.
#[tokio::test]
async fn a_semicolon_in_a_query_is_refused() {
    let world = World::valkyrie().await;
    let reply = world.send(&valkyrie::call("GET", "/players/session?a=1;provider=evil&provider=good")).await;
    assert_eq!((reply.status, valkyrie::code(&reply)), (400, "PAM_ERR_UNDEFINED".into()));
    world.pam.assert_untouched();
}

/// PHP makes one variable of `X-Player-Token`, `X_Player_Token` and `X.Player.Token`.
// threat: C3
#[tokio::test]
async fn a_header_that_folds_into_one_that_is_checked_is_refused() {
    let world = World::valkyrie().await;
    for twin in
        ["X_Player_Token", "x.player.token", "X-Player_Token", "X~Player~Token", "Content_Length", "Content.Type"]
    {
        let request = valkyrie::call("GET", "/players/session?provider=x").with(twin, valkyrie::TOKEN);
        for reply in [world.send(&request).await, world.send_h2(&request).await] {
            assert_eq!((reply.status, valkyrie::code(&reply)), (400, "PAM_ERR_UNDEFINED".into()), "{twin}");
        }
    }
    world.pam.assert_untouched();
}

/// What we stamp ourselves has no twin behind us either.
#[tokio::test]
async fn a_twin_of_what_is_stamped_is_dropped() {
    let world = World::valkyrie().await;
    let request = valkyrie::call("GET", "/players/session?provider=x")
        .with("X_Correlation_ID", "evil")
        .with("trace.parent", "kept: it folds into nothing of ours")
        .with("X.Correlation.ID", "evil");
    assert_eq!(world.send(&request).await.status, 200);
    let seen = world.pam.only_request();
    assert!(!seen.head.contains("evil"), "{}", seen.head);
    assert_eq!(seen.values("trace.parent").len(), 1);
}
