//! A new token on a live link.

use super::*;

fn renewing(subject: &str, scope: Scope, expires_s: u64) -> Client {
    let mut client = subscribed(&[]);
    client.said();
    assert_eq!(client.auth(0x19, &token_data(b"a new token")), []);
    let effect = client.session.poll_effect();
    assert_eq!(effect, Some(Effect::CheckToken(b"a new token".to_vec())));
    client
        .session
        .checked(Ok(grant(subject, scope, expires_s)), [8; 8]);
    client
}

#[test]
fn a_new_token_on_a_live_link_prolongs_it() {
    let mut client = renewing("edge-1", scope_of("edge-1"), EXPIRES_S + 600);
    assert_eq!(client.said(), [Said::Auth(0x18, vec![8; 8])]);
    let said = client.auth(0x18, &prove(&key(1), &[8; 8], &[6; 8]));
    assert_eq!(said, [Said::Auth(0, vec![])]);
    for _ in 0..43 {
        assert_eq!(client.wait(29), []);
        assert_eq!(client.send(ClientPacket::PingReq), [Said::Pong]);
    }
    assert_eq!(client.wait(13), [Said::Disconnect(0xA0)]);
}

#[test]
fn during_a_renewal_the_old_token_still_holds() {
    let mut client = renewing("edge-1", scope_of("edge-1"), EXPIRES_S + 600);
    client.said();
    assert_eq!(client.publish(qos1("v1/edge-1/reports", 1)), []);
    assert!(matches!(
        client.session.poll_effect(),
        Some(Effect::Store { .. })
    ));
}

#[test]
fn a_renewal_without_proof_gets_0x87() {
    let mut client = renewing("edge-1", scope_of("edge-1"), EXPIRES_S + 600);
    client.said();
    let said = client.auth(0x18, &prove(&key(2), &[8; 8], &[6; 8]));
    assert_eq!(said, [Said::Disconnect(0x87)]);
}

#[test]
fn a_renewal_for_somebody_else_gets_0x87() {
    let mut client = renewing("edge-2", scope_of("edge-2"), EXPIRES_S + 600);
    assert_eq!(client.said(), [Said::Disconnect(0x87)]);
}

#[test]
fn a_renewal_that_is_not_finished_in_time_gets_0x87() {
    let mut client = renewing("edge-1", scope_of("edge-1"), EXPIRES_S + 600);
    client.said();
    assert_eq!(client.wait(5), [Said::Disconnect(0x87)]);
}

#[test]
fn a_refused_new_token_gets_0x87_and_a_store_that_cannot_be_read_0x89() {
    for (reason, code) in [
        (ReasonCode::NOT_AUTHORIZED, 0x87),
        (ReasonCode::SERVER_UNAVAILABLE, 0x89),
    ] {
        let mut client = Client::online("edge-1");
        client.auth(0x19, &token_data(b"a new token"));
        client.session.checked(Err(reason), NONCE);
        assert_eq!(client.said(), [Said::Disconnect(code)]);
    }
}

#[test]
fn a_proof_nobody_asked_for_gets_0x82() {
    let mut client = Client::online("edge-1");
    assert_eq!(client.auth(0x18, &[0; 72]), [Said::Disconnect(0x82)]);
}

#[test]
fn two_renewals_at_once_get_0x82() {
    let mut client = renewing("edge-1", scope_of("edge-1"), EXPIRES_S + 600);
    client.said();
    assert_eq!(
        client.auth(0x19, &token_data(TOKEN)),
        [Said::Disconnect(0x82)]
    );
}

#[test]
fn a_subscription_the_new_token_does_not_permit_ends_it() {
    let scope = Scope::one("v1/edge-1/reports".to_owned(), Permission::Pub);
    let mut client = renewing("edge-1", scope, EXPIRES_S + 600);
    client.said();
    let said = client.auth(0x18, &prove(&key(1), &[8; 8], &[6; 8]));
    assert_eq!(said, [Said::Disconnect(0x87)]);
}

#[test]
fn a_topic_the_new_token_does_not_permit_is_forgotten() {
    let mut client = Client::online("edge-1/a");
    client.publish(qos1("v1/edge-1/a/events", 1));
    let effect = client.session.poll_effect();
    client.stored(effect.as_ref(), Outcome::Stored);
    client.auth(0x19, &token_data(TOKEN));
    client.session.poll_effect();
    let narrower = grant("edge-1/a", Scope::default(), EXPIRES_S);
    client.session.checked(Ok(narrower), NONCE);
    client.said();
    assert_eq!(client.auth(0x18, &prove(&key(1), &NONCE, &[6; 8])).len(), 1);
    let said = client.publish(qos1("v1/edge-1/a/events", 1));
    assert_eq!(said, [Said::PubAck(1, 0x87)]);
}
