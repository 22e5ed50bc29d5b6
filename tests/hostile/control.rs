//! Cases 68 to 74: acknowledgements, pings and goodbyes.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Socket, Type};

use crate::{
    bystander::packet_id,
    bytes::{PING, PONG, acknowledge, disconnect, packet, suback, subscribe},
    site::run,
    wire::{Came, Wire},
};

const NOT_A_PACKET: &str = "not a packet";

// A PUBACK for nothing is no news: it changes nothing, and clients that were restarted send some.
#[test]
fn case_68_an_acknowledgement_of_nothing_changes_nothing() {
    run(|site| {
        let host = site.host();
        let mut wire = site.subscribed(&host.hello().with(vec![0x21, 0, 1]));
        for id in [1, 2, 65_535] {
            wire.send(&acknowledge(4, id));
        }
        wire.lives();
        // Nor was the window widened by it.
        let commands = [site.command(), site.command()];
        let publish = wire.packet();
        assert!(publish.ends_with(&commands[0]));
        wire.send(&acknowledge(4, packet_id(&publish).wrapping_add(9)));
        wire.says(&PING, &PONG);
        for kind in [5, 6, 7] {
            let why = "a step of QoS 2";
            site.sandbox_is_ended(&acknowledge(kind, 1), 0x82, why);
        }
        site.sandbox_is_ended(&acknowledge(4, 0), 0x82, NOT_A_PACKET);
    });
}

#[test]
fn case_69_acknowledgements_may_come_in_any_order() {
    run(|site| {
        let host = site.host();
        let mut wire = site.subscribed(&host.hello().with(vec![0x21, 0, 3]));
        for _ in 0..3 {
            let _ = site.command();
        }
        let ids: Vec<_> = (0..3).map(|_| packet_id(&wire.packet())).collect();
        for at in [2, 0, 1] {
            wire.send(&acknowledge(4, ids[at]));
        }
        // Twice is as good as once.
        wire.send(&acknowledge(4, ids[0]));
        let commands = [site.command(), site.command(), site.command()];
        for command in commands {
            assert!(wire.packet().ends_with(&command));
        }
    });
}

#[test]
fn case_70_a_packet_that_only_a_broker_sends_is_a_protocol_error() {
    run(|site| {
        for bytes in [
            [0x20, 3, 0, 0, 0].to_vec(),
            suback(1, &[1]),
            packet(0xB0, &[0, 1, 0, 0]),
            PONG.to_vec(),
        ] {
            site.sandbox_is_ended(&bytes, 0x82, NOT_A_PACKET);
        }
    });
}

#[test]
fn case_71_a_type_or_flags_that_do_not_exist_are_malformed() {
    run(|site| {
        for bytes in [
            [0x00, 0].as_slice(),
            &[0x0F, 0],
            &[0xC1, 0],
            &[0xC2, 0],
            &[0xE1, 0],
            &[0xF1, 0],
            &[0x41, 2, 0, 1],
            &[0x60, 2, 0, 1],
            &[0x80, 0],
            &[0xA0, 0],
            // PINGREQ with a body, and with a length that is not in its shortest form.
            &[0xC0, 1, 0],
            &[0xC0, 0x80, 0],
            // A DISCONNECT with bytes behind it.
            &[0xE0, 3, 0, 0, 0],
        ] {
            site.sandbox_is_ended(bytes, 0x81, NOT_A_PACKET);
        }
    });
}

#[test]
fn case_72_a_goodbye_cannot_leave_a_will_or_a_session_behind() {
    run(|site| {
        for bytes in [
            [0xE0, 0].as_slice(),
            &[0xE0, 1, 0x04],
            &[0xE0, 2, 0x04, 0],
            // A session expiry of zero is what it has.
            &[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 0],
        ] {
            let who = site.sandbox();
            let mut wire = site.online(&who);
            wire.send(bytes);
            wire.ends(&[]);
        }
        let raised = [0xE0, 7, 0, 5, 0x11, 0, 0, 0, 1];
        site.sandbox_is_ended(&raised, 0x82, "raises its session expiry");
        // A reason that only a broker gives.
        site.sandbox_is_ended(&[0xE0, 2, 0x8E, 0], 0x82, NOT_A_PACKET);
    });
}

#[test]
fn case_73_a_host_that_does_not_take_its_commands_is_sent_them_again_later() {
    const WINDOW: u8 = 8;
    run(|site| {
        let host = site.host();
        let hello = host.hello().with(vec![0x21, 0, WINDOW]);
        let mut wire = site.subscribed(&hello);
        // A window on its way, a window that waits, and one too many.
        let commands: Vec<_> = (0..=2 * WINDOW).map(|_| site.command()).collect();
        for command in &commands[..usize::from(WINDOW)] {
            assert!(wire.packet().ends_with(command));
        }
        wire.ends(&disconnect(0x97));
        site.ended(0x97, "does not take its commands");
        let mut wire = site.online(&host);
        wire.says(&subscribe(1, &[&host.commands()]), &suback(1, &[1]));
        for command in &commands {
            let publish = wire.packet();
            assert!(publish.ends_with(command), "in order, and none missing");
            wire.send(&acknowledge(4, packet_id(&publish)));
        }
        wire.lives();
    });
}

#[test]
fn case_74_a_client_that_reads_nothing_is_not_read_either() {
    /// What a socket may take in on both sides before it is full: pings past that were read by nobody.
    const BUFFERED_BYTES_MAX: usize = 16 << 20;
    run(|site| {
        let who = site.sandbox();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // Small buffers, so that it is not megabytes of pings until they are full.
        socket.set_recv_buffer_size(4_096).unwrap();
        socket.set_send_buffer_size(4_096).unwrap();
        let gate = SocketAddr::from((Ipv4Addr::LOCALHOST, site.world.port));
        socket.connect(&gate.into()).unwrap();
        let mut wire = Wire::over(socket.into(), site.config()).unwrap();
        assert_eq!(site.greet_over(&mut wire, &who.hello(), &who)[3], 0);
        let pings = PING.repeat(8 * 1024);
        let mut sent = 0;
        while wire.try_send(&pings).is_ok() {
            sent += pings.len();
            assert!(
                sent < BUFFERED_BYTES_MAX,
                "all is read, whatever is not taken"
            );
        }
        site.is_well();
        // Once it reads again all is well: every ping has its answer.
        let mut answered = 0;
        while answered < sent {
            assert_eq!(wire.packet(), PONG);
            answered += PONG.len();
        }
        while wire.look(Duration::from_millis(200)) == Came::Bytes {}
        site.memory_growth_max = 4 << 20;
    });
}
