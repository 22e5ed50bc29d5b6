//! One client's flood is another's short wait.

use super::*;

/// More than any buffer between, so that the flood is still under way when the other is answered.
const FLOOD_PINGS: usize = 512 * 1024;
const PINGREQ: [u8; 2] = [0xc0, 0];

/// Everything runs on one thread, and each step in one order: what is counted here is the same each time.
#[tokio::test]
async fn a_client_that_floods_has_one_quantum_and_then_it_is_anothers_turn() {
    let world = World::new().await;
    let (near, far) = tokio::io::duplex(4 * 1024 * 1024);
    tokio::spawn(
        world
            .gate
            .clone()
            .serve(far, clock::mono() + STRANGER_WAIT, ()),
    );
    let mut flood = Client::new(near);
    world.login_sandbox(&mut flood, "flood").await;
    let mut other = world.sandbox("other").await;
    let pings = PINGREQ.repeat(FLOOD_PINGS);
    flood.stream.write_all(&pings).await.unwrap();
    other.send(ClientPacket::PingReq).await;
    assert_eq!(other.next().await, Some(Said::Pong));
    // What the flood has been answered by now, without giving it another turn.
    let mut answered = vec![0; pings.len()];
    let mut buffer = ReadBuf::new(&mut answered);
    let mut context = Context::from_waker(std::task::Waker::noop());
    let _ = Pin::new(&mut flood.stream).poll_read(&mut context, &mut buffer);
    let quanta = buffer.filled().len().div_ceil(QUANTUM_BYTES);
    assert!(quanta <= 2, "{quanta} quanta before the other's turn");
}
