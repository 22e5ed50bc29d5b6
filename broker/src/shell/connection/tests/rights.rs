//! Live links whose rights end, some of them or all.

use super::*;

#[tokio::test]
async fn a_revoked_sandboxs_link_ends_and_does_not_come_back_and_its_neighbours_go_on() {
    let world = World::new().await;
    world.submit(1, "build-7").await;
    let mut host = world.host().await;
    let mut revoked = world.sandbox("build-7").await;
    let mut neighbour = world.sandbox("build-8").await;
    let sandbox = SandboxId::new("build-7").unwrap();
    let plane = &world.gate.plane;
    plane.revoke_sandbox(&edge(), &sandbox, &PEER).unwrap();
    assert_eq!(revoked.next().await, Some(Said::Disconnect(0x98)));
    for client in [&mut host, &mut neighbour] {
        client.send(ClientPacket::PingReq).await;
        assert_eq!(client.next().await, Some(Said::Pong));
    }
    let mut again = world.dial();
    let token = world.sandbox_token("build-7");
    let said = again
        .login::<Sandbox>("edge-1/build-7", &token, SANDBOX_KEY)
        .await;
    assert_eq!(said, Said::ConnAck(0x87));
}

#[tokio::test]
async fn links_of_a_host_whose_generation_was_revoked_end_and_only_a_newer_token_opens_one() {
    let world = World::new().await;
    let (mut host, mut sandbox) = (world.host().await, world.sandbox("build-7").await);
    let plane = &world.gate.plane;
    assert!(plane.revoke_generation(&edge(), 1, &PEER).unwrap());
    // As if its token's time were over: who has a newer one is back at once.
    assert_eq!(host.next().await, Some(Said::Disconnect(0xA0)));
    assert_eq!(sandbox.next().await, Some(Said::Disconnect(0xA0)));
    let mut again = world.dial();
    let said = again
        .login::<Host>("edge-1", &world.host_token, HOST_KEY)
        .await;
    assert_eq!(said, Said::ConnAck(0x87));
    until("nobody is left", || world.gate.registry.count() == 0).await;
}

#[tokio::test]
async fn a_generation_revoked_between_a_token_and_its_proof_is_not_admitted() {
    let world = World::new().await;
    let mut client = world.dial();
    let data = token_data(&world.host_token);
    let mut connect = Connect::new("edge-1", 30);
    connect.auth_method = Some(METHOD);
    connect.auth_data = Some(&data);
    client.send(ClientPacket::Connect(connect)).await;
    let Some(Said::Auth(0x18, nonce)) = client.next().await else {
        panic!("no challenge");
    };
    // Nobody is in the registry yet, so nobody is told.
    let plane = &world.gate.plane;
    assert!(plane.revoke_generation(&edge(), 1, &PEER).unwrap());
    client
        .prove::<Host>(HOST_KEY, &nonce.try_into().unwrap())
        .await;
    assert_eq!(client.next().await, Some(Said::ConnAck(0x87)));
    until("its seat is free", || world.gate.registry.count() == 0).await;
}

#[tokio::test]
async fn a_command_whose_dispatcher_is_removed_is_not_sent_again_on_the_next_link() {
    let world = World::new().await;
    let mut host = world.host().await;
    host.subscribe().await;
    world.submit(1, "build-7").await;
    assert!(matches!(host.next().await, Some(Said::Publish(..))));
    let key = *secret::<Dispatcher>(2).public().as_bytes();
    assert!(world.gate.plane.remove_dispatcher(&key, &PEER).unwrap());
    // What else waits on its link must not go out either.
    assert_eq!(host.next().await, Some(Said::Disconnect(0xA0)));
    let mut host = world.host().await;
    host.subscribe().await;
    host.send(ClientPacket::PingReq).await;
    assert_eq!(host.next().await, Some(Said::Pong), "and no command");
}
