use crate::world::{World, wallet};

#[tokio::test]
async fn a_signed_call_reaches_the_pam_and_its_answer_comes_back() {
    let world = World::wallet().await;
    let body = r#"{"token":"3dc8fe01","player_id":1}"#;
    let reply = world.send(&wallet::signed("debit", body)).await;
    assert_eq!(reply.status, 200);
    let seen = world.pam.only_request();
    assert_eq!(seen.body, body.as_bytes());
    assert_eq!(seen.values("x-correlation-id").len(), 1);
}

#[tokio::test]
async fn the_same_over_http2() {
    let world = World::wallet().await;
    let reply = world.send_h2(&wallet::signed("debit", r#"{"token":"3dc8fe01"}"#)).await;
    assert_eq!(reply.status, 200);
    assert_eq!(world.pam.requests().len(), 1);
}
