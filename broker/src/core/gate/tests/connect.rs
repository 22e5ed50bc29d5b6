//! Before there is a principal: CONNECT, the proof, and CONNACK.

use super::*;

/// Which code each CONNECT gets, if it is changed like that.
fn refused_connect<'a>(subject: &'a str, change: impl FnOnce(&mut Connect<'a>)) -> u8 {
    let mut client = Client::new();
    let said = client.connect(subject, change);
    let [Said::ConnAck(code)] = said.as_slice() else {
        panic!("{said:?}");
    };
    assert_eq!(client.ending(), Some(*code));
    *code
}

#[test]
fn silence_before_connect_ends_without_a_word_at_the_deadline() {
    let mut client = Client::new();
    assert_eq!(client.wait(4), []);
    assert!(!client.session.is_closed());
    assert_eq!(client.wait(1), []);
    assert_eq!(client.ending(), None);
}

#[test]
fn a_first_packet_that_is_not_connect_ends_without_a_word() {
    for bytes in [&[0xC0, 0][..], &[0xE0, 0], &[0xF0, 0], &[0x30, 2, 0, 0]] {
        let mut client = Client::new();
        assert_eq!(client.bytes(bytes), []);
        assert_eq!(client.ending(), None);
    }
}

#[test]
fn bytes_that_are_no_packet_end_without_a_word() {
    for bytes in [
        &[0x00, 0][..],
        &[0x30, 0xFF, 0xFF, 0xFF, 0x7F],
        &[0x16, 3, 1, 0, 0],
    ] {
        let mut client = Client::new();
        assert_eq!(client.bytes(bytes), []);
        assert_eq!(client.ending(), None);
    }
}

#[test]
fn before_the_proof_a_packet_may_take_four_kilobytes_and_after_it_sixty_four() {
    let mut client = Client::new();
    assert_eq!(client.session.packet_bytes_max(), 4 * 1024);
    assert_eq!(client.bytes(&[0x10, 0x80, 0x20]), [Said::ConnAck(0x95)]);
    let mut client = Client::online("edge-1");
    assert_eq!(client.session.packet_bytes_max(), 64 * 1024);
    assert_eq!(
        client.bytes(&[0x32, 0x80, 0x80, 0x04]),
        [Said::Disconnect(0x95)]
    );
}

// CONNECT.

#[test]
fn another_protocol_version_gets_0x84() {
    let mut client = Client::new();
    let bytes = [0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 6, 2, 0, 30, 0, 0];
    assert_eq!(client.bytes(&bytes), [Said::ConnAck(0x84)]);
    assert_eq!(client.ending(), Some(0x84));
}

#[test]
fn mqtt_3_1_1_gets_return_code_1_in_its_own_form() {
    let mut client = Client::new();
    let bytes = [
        0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 30, 0, 1, b'a',
    ];
    let frame = frame(&bytes, 4096).unwrap().unwrap();
    client.session.receive(&frame, client.now);
    assert_eq!(client.session.output(), &[0x20, 2, 0, 1]);
    assert_eq!(client.ending(), Some(0x84));
}

#[test]
fn a_malformed_connect_gets_its_code() {
    let mut client = Client::new();
    let reserved_flag = [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 5, 3, 0, 30, 0, 0, 0];
    assert_eq!(client.bytes(&reserved_flag), [Said::ConnAck(0x81)]);
}

#[test]
fn a_method_other_than_ace_or_none_gets_0x8c() {
    for method in [Some("SCRAM-SHA-256"), Some("ACE"), Some("")] {
        assert_eq!(
            refused_connect("edge-1", |connect| connect.auth_method = method),
            0x8C
        );
    }
    let none = |connect: &mut Connect<'_>| (connect.auth_method, connect.auth_data) = (None, None);
    assert_eq!(refused_connect("edge-1", none), 0x8C);
}

#[test]
fn a_user_name_or_password_gets_0x86() {
    assert_eq!(
        refused_connect("edge-1", |connect| connect.user_name = Some("x")),
        0x86
    );
    assert_eq!(
        refused_connect("edge-1", |connect| connect.password = Some(b"x")),
        0x86
    );
}

#[test]
fn a_will_is_refused_with_the_code_of_what_is_wrong_with_it() {
    let will = |topic: &'static str, qos, retain| Will {
        topic,
        payload: b"gone",
        qos,
        retain,
        delay_secs: 0,
        properties: MessageProperties::default(),
    };
    for (will, code) in [
        (will("v1/edge-1/reports", Qos::AtMostOnce, false), 0x87),
        (will("v1/edge-2/reports", Qos::AtLeastOnce, false), 0x87),
        (will("é/x", Qos::AtLeastOnce, false), 0x90),
        (will("v1/edge-1/reports", Qos::ExactlyOnce, false), 0x9B),
        (will("v1/edge-1/reports", Qos::ExactlyOnce, true), 0x9A),
    ] {
        assert_eq!(
            refused_connect("edge-1", |connect| connect.will = Some(will)),
            code
        );
    }
}

#[test]
fn a_client_id_that_no_token_can_name_gets_0x85() {
    let long = "a".repeat(65);
    for bad in [
        "",
        "#",
        "+",
        "a/b/c",
        "Edge",
        "$SYS",
        "__proto__",
        "a/",
        "/a",
        "é",
        &long,
    ] {
        assert_eq!(refused_connect(bad, |_| {}), 0x85, "{bad}");
    }
}

#[test]
fn a_client_id_other_than_the_tokens_subject_gets_0x85() {
    let pairs = [
        ("edge-2", "edge-1"),
        ("edge-1/b", "edge-1/a"),
        ("edge-1", "edge-1/a"),
        ("edge-1/a", "edge-1"),
    ];
    for (client_id, subject) in pairs {
        let mut client = Client::new();
        client.connect(client_id, |_| {});
        let granted = grant(subject, scope_of(subject), EXPIRES_S);
        client.session.checked(Ok(granted), NONCE);
        assert_eq!(client.said(), [Said::ConnAck(0x85)]);
        assert_eq!(client.ending(), Some(0x85));
    }
}

#[test]
fn authentication_data_that_is_not_a_length_and_its_token_gets_0x87() {
    let long = token_data(&[0; 2049]);
    for data in [&[][..], &[0], &[0, 0], &[0, 2, 1], &[0, 1, 1, 1], &long] {
        assert_eq!(
            refused_connect("edge-1", |connect| connect.auth_data = Some(data)),
            0x87
        );
    }
    assert_eq!(
        refused_connect("edge-1", |connect| connect.auth_data = None),
        0x87
    );
}

#[test]
fn a_refused_token_gets_0x87_and_a_store_that_cannot_be_read_0x88() {
    for (reason, code) in [
        (ReasonCode::NOT_AUTHORIZED, 0x87),
        (ReasonCode::SERVER_UNAVAILABLE, 0x88),
    ] {
        let mut client = Client::new();
        client.connect("edge-1", |_| {});
        client.session.checked(Err(reason), NONCE);
        assert_eq!(client.said(), [Said::ConnAck(code)]);
        assert_eq!(client.ending(), Some(code));
    }
}

#[test]
fn a_client_that_takes_too_small_packets_gets_0x95() {
    let small = NonZeroU32::new(CLIENT_PACKET_BYTES_MIN - 1);
    assert_eq!(
        refused_connect("edge-1", |connect| connect.packet_bytes_max = small),
        0x95
    );
}

#[test]
fn a_proof_with_another_key_or_nonce_or_none_gets_0x87() {
    for proof in [
        prove(&key(2), &NONCE, &[6; 8]).to_vec(),
        prove(&key(1), &[9; 8], &[6; 8]).to_vec(),
        Vec::new(),
    ] {
        let mut client = challenged("edge-1");
        assert_eq!(client.auth(0x18, &proof), [Said::ConnAck(0x87)]);
        assert_eq!(client.ending(), Some(0x87));
    }
}

#[test]
fn a_change_of_method_gets_0x8c_and_a_step_out_of_turn_0x82() {
    let proof = prove(&key(1), &NONCE, &[6; 8]);
    let mut client = challenged("edge-1");
    let other = Auth::new(ReasonCode::CONTINUE_AUTHENTICATION, "other", Some(&proof));
    assert_eq!(
        client.send(ClientPacket::Auth(other)),
        [Said::ConnAck(0x8C)]
    );
    let mut client = challenged("edge-1");
    assert_eq!(client.auth(0x19, &token_data(TOKEN)), [Said::ConnAck(0x82)]);
}

#[test]
fn nothing_but_auth_and_disconnect_may_come_before_connack() {
    for packet in [
        ClientPacket::PingReq,
        ClientPacket::Publish(qos1("v1/edge-1/reports", 1)),
        ClientPacket::Connect(Connect::new("edge-1", 30)),
    ] {
        let mut client = challenged("edge-1");
        assert_eq!(client.send(packet), [Said::ConnAck(0x82)]);
        assert_eq!(client.ending(), Some(0x82));
    }
    let mut client = challenged("edge-1");
    let goodbye = Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
    assert_eq!(client.send(ClientPacket::Disconnect(goodbye)), []);
    assert_eq!(client.ending(), None);
}

#[test]
fn the_deadline_covers_the_proof_too() {
    let mut client = Client::new();
    client.wait(3);
    client.connect("edge-1", |_| {});
    let granted = grant("edge-1", scope_of("edge-1"), EXPIRES_S);
    client.session.checked(Ok(granted), NONCE);
    client.said();
    assert_eq!(client.wait(2), []);
    while let Some(effect) = client.session.poll_effect() {
        if let Effect::Close(ending) = effect {
            assert_eq!(ending.reason, None);
            return;
        }
    }
    panic!("not closed");
}

#[test]
fn a_token_that_ends_before_admission_gets_0x87() {
    let mut client = challenged("edge-1");
    client.auth(0x18, &prove(&key(1), &NONCE, &[6; 8]));
    client.now.unix = UnixMillis((EXPIRES_S + 60) * 1000);
    client.session.admitted(None, client.now);
    assert_eq!(client.said(), [Said::ConnAck(0x87)]);
}

fn connack_of(change: impl FnOnce(&mut Connect<'_>), look: impl FnOnce(&ConnAck<'_>)) {
    let (_, bytes) = Client::online_as("edge-1", change);
    let frame = frame(&bytes, usize::MAX).unwrap().unwrap();
    assert_eq!(frame.total_bytes(), bytes.len());
    let ServerPacket::ConnAck(connack) = decode_server(&frame, Version::V5).unwrap() else {
        panic!("not a CONNACK");
    };
    look(&connack);
}

#[test]
fn connack_says_what_we_do_not_do() {
    connack_of(
        |_| {},
        |connack| {
            assert_eq!(connack.reason, ReasonCode::SUCCESS);
            assert!(!connack.session_present);
            assert_eq!(connack.qos_max, Some(Qos::AtLeastOnce));
            assert_eq!(connack.retain_available, Some(false));
            assert_eq!(connack.wildcard_available, Some(false));
            assert_eq!(connack.subscription_id_available, Some(false));
            assert_eq!(connack.shared_available, Some(false));
            assert_eq!(connack.topic_alias_max, None);
            assert_eq!(connack.receive_maximum, NonZeroU16::new(128));
            assert_eq!(connack.packet_bytes_max, NonZeroU32::new(65_536));
            assert_eq!(connack.session_expiry_secs, Some(0));
            assert_eq!(connack.auth_method, Some("ace"));
            let time = UNIX.0.to_string();
            let said: Vec<_> = connack.user_properties.iter().collect();
            assert_eq!(
                said,
                [("durability", "fsync"), ("server-time", time.as_str())]
            );
        },
    );
}

#[test]
fn no_session_is_kept_whatever_the_client_asks() {
    connack_of(
        |connect| (connect.clean_start, connect.session_expiry_secs) = (false, u32::MAX),
        |connack| {
            assert!(!connack.session_present);
            assert_eq!(connack.session_expiry_secs, Some(0));
        },
    );
}

#[test]
fn keep_alive_is_the_clients_up_to_60_and_else_60() {
    for (asked, got) in [(0, 60), (1, 1), (30, 30), (60, 60), (61, 60), (65_535, 60)] {
        connack_of(
            |connect| connect.keep_alive_secs = asked,
            |connack| assert_eq!(connack.server_keep_alive_secs, Some(got)),
        );
    }
}
