//! Questions put to a TLS server of our own on the loopback.

use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use protocol::cbor::to_vec;

use super::*;
use crate::shell::tokio::block_on;
use crate::shell::transport::tests::{Pki, listen};

/// Asks for a challenge from a server that answers with `reply`, and says what it was sent.
fn ask_one(reply: &[u8]) -> (String, Result<Challenge, ExchangeError>) {
    block_on(async {
        let pki = Pki::new();
        let (listener, authority) = listen().await;
        let options = ExchangeOptions {
            authority,
            proxy: None,
            tls: pki.client(),
        };
        let serving = async {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut tls = pki.acceptor().accept(tcp).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                tls.read_exact(&mut byte).await.unwrap();
                head.push(byte[0]);
            }
            let _ = tls.write_all(reply).await;
            let _ = tls.close().await;
            String::from_utf8(head).unwrap()
        };
        futures_lite::future::zip(serving, challenge(&options)).await
    })
    .unwrap()
}

fn http(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[test]
fn a_question_goes_to_its_path_and_brings_its_answer() {
    let expected = Challenge {
        nonce: [3; 32].into(),
        time: UnixMillis(77),
    };
    let (head, answer) = ask_one(&http("200 OK", &to_vec(&expected)));
    assert!(
        head.starts_with("POST /v1/exchange/challenge HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(
        head.to_lowercase()
            .contains("content-type: application/cbor\r\n")
    );
    assert!(head.to_lowercase().contains("host: localhost:"));
    assert_eq!(answer.unwrap(), expected);
}

#[test]
fn every_refusal_keeps_its_reason_and_the_brokers_time() {
    for reason in Refusal::ALL {
        let body = to_vec(&Refused {
            reason: *reason,
            time: UnixMillis(5),
            generation: Some(9),
        });
        let (_, answer) = ask_one(&http("403 Forbidden", &body));
        match answer.unwrap_err() {
            ExchangeError::Refused {
                reason: was,
                time,
                known,
            } => {
                assert_eq!((was, time, known), (*reason, UnixMillis(5), Some(9)));
            }
            ExchangeError::Failed(error) => panic!("{error:#}"),
        }
    }
}

#[test]
fn what_is_no_answer_of_the_exchange_is_a_failure_that_echoes_nothing() {
    let long = vec![b'x'; EXCHANGE_BYTES_MAX + 1];
    for reply in [
        http("200 OK", b"secret words"),
        http("502 Bad Gateway", b"secret words"),
        http("200 OK", &long),
        b"secret words\r\n\r\n".to_vec(),
        vec![],
    ] {
        let (_, answer) = ask_one(&reply);
        let error = answer.unwrap_err();
        assert!(matches!(error, ExchangeError::Failed(_)));
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[test]
fn a_broker_that_is_not_there_is_a_failure_with_its_address() {
    let options = ExchangeOptions {
        authority: "localhost:1".into(),
        proxy: None,
        tls: Pki::new().client(),
    };
    let error = block_on(challenge(&options)).unwrap().unwrap_err();
    assert!(error.to_string().contains("localhost:1"), "{error}");
}
