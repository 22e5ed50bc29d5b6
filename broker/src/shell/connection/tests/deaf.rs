//! A client that does not take what is sent to it.

use super::*;

/// What the pipe holds.
const PIPE_BYTES: usize = 64;

/// What one look brought: nothing, news, or the end and why.
fn looked(connection: &mut Connection<DuplexStream, ()>) -> Option<&'static str> {
    let mut context = Context::from_waker(std::task::Waker::noop());
    match connection.look(&mut context) {
        Poll::Pending => None,
        Poll::Ready(Look::News) => Some("news"),
        Poll::Ready(Look::Broken(why)) => Some(why),
    }
}

#[tokio::test]
async fn a_client_that_takes_no_bytes_is_given_up_and_one_that_takes_some_is_not() {
    let world = World::new().await;
    let (mut near, far) = tokio::io::duplex(PIPE_BYTES);
    let began = clock::mono();
    let until = began + 2 * WRITE_WAIT;
    let mut connection = Connection::new(world.gate.clone(), far, until, ());
    connection.session.output().extend([7; 3 * PIPE_BYTES]);
    assert_eq!(looked(&mut connection), Some("news"), "the pipe is full");
    let first = connection.write_until.unwrap();
    assert!(first >= began + WRITE_WAIT && first <= clock::mono() + WRITE_WAIT);
    assert_eq!(looked(&mut connection), None);
    assert_eq!(connection.write_until, Some(first), "no byte was taken");
    // A byte is a sign of life.
    near.read_u8().await.unwrap();
    assert_eq!(looked(&mut connection), Some("news"));
    assert!(connection.write_until.unwrap() > first);
    // All that it was given, and nothing is waited for.
    let mut all = [0; 3 * PIPE_BYTES - 1];
    let (mut reading, mut got) = (all.as_mut_slice(), 0);
    while !connection.session.output().is_empty() {
        got += near.read(reading).await.unwrap();
        reading = all.get_mut(got..).unwrap();
        looked(&mut connection);
    }
    assert_eq!(connection.write_until, None);
    // Its time is over.
    connection.session.output().extend([7; 3 * PIPE_BYTES]);
    while looked(&mut connection).is_some() {}
    connection.write_until = Some(clock::mono());
    let look = poll_fn(|context| connection.look(context));
    let look = timeout(DEADLINE, look).await.unwrap();
    assert!(matches!(look, Look::Broken("the client takes no bytes")));
}
