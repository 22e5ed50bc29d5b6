//! Somebody who has nothing to do with it, and must not notice: an operator with its commands, and a sandbox with its events.

use std::{net::TcpStream, path::Path, sync::Arc, time::Duration};

use protocol::{
    command::{self, Command, Content, Launch, Limits, Order},
    id::{HostId, SandboxId},
    stream::Writer,
    time::UnixMillis,
};
use rustls::ClientConfig;
use tests::{local, wait, world::World};

use crate::{
    bytes::{PING, PONG, Post, acknowledge, puback, suback, subscribe},
    site::{Credentials, command_id, dispatcher, host_id, prove},
    wire::Wire,
};

/// How long being served may take.
const SERVED_WAIT: Duration = Duration::from_secs(1);
/// How often it is tried: a machine that is busy with other tests may be late once, a gate that is held up is late each time.
const TRIES: u32 = 3;

/// See the module.
pub(crate) struct Bystander {
    operator: Wire,
    host: HostId,
    sandbox: Wire,
    topic: String,
    writer: Writer,
    round: u32,
}

impl Bystander {
    pub(crate) fn new(
        world: &World,
        config: &Arc<ClientConfig>,
        operator: &Credentials,
        sandbox: &Credentials,
    ) -> Self {
        let connect = |who: &Credentials| {
            let tcp = TcpStream::connect(("127.0.0.1", world.port)).unwrap();
            let mut wire = Wire::over(tcp, Arc::clone(config)).unwrap();
            wire.send(&who.hello().bytes());
            let (answer, _) = prove(&mut wire, who);
            assert_eq!(answer.get(3), Some(&0), "the bystander is welcome");
            wire
        };
        let mut bystander = Self {
            operator: connect(operator),
            host: host_id(&operator.subject),
            sandbox: connect(sandbox),
            topic: sandbox.topic(),
            writer: sandbox.writer(),
            round: 0,
        };
        let filter = operator.commands();
        bystander
            .operator
            .says(&subscribe(1, &[&filter]), &suback(1, &[1]));
        bystander
    }

    /// A ping, a command and an event pass within a second.
    #[track_caller]
    pub(crate) fn is_served(&mut self, socket: &Path) {
        let mut took = Vec::new();
        for _ in 0..TRIES {
            let ((), span) = wait::timed(|| self.be_served(socket));
            if span <= SERVED_WAIT {
                return;
            }
            took.push(span);
        }
        panic!("a bystander is served in {took:?}");
    }

    #[track_caller]
    fn be_served(&mut self, socket: &Path) {
        self.round += 1;
        self.operator.says(&PING, &PONG);
        let order = launch(&self.host, u32::MAX - self.round, wait::now());
        local::post(socket, "/v1/commands", "application/cbor", &order).unwrap();
        let publish = self.operator.packet();
        assert!(
            publish.first() == Some(&0x32) && publish.ends_with(&order),
            "its command comes"
        );
        self.operator.send(&acknowledge(4, packet_id(&publish)));
        let id = u16::try_from(self.round).unwrap();
        let batch = self.writer.seal(wait::now(), false);
        let post = Post::new(&self.topic, id, &batch);
        self.sandbox.says(&post.bytes(), &puback(id, 0));
    }
}

/// The packet identifier of a PUBLISH at QoS 1.
pub(crate) fn packet_id(publish: &[u8]) -> u16 {
    let at = 1 + publish[1..].iter().position(|byte| *byte < 0x80).unwrap() + 1;
    let topic_bytes = usize::from(u16::from_be_bytes([publish[at], publish[at + 1]]));
    let id = at + 2 + topic_bytes;
    u16::from_be_bytes([publish[id], publish[id + 1]])
}

/// A signed command.
pub(crate) fn launch(host: &HostId, number: u32, now: UnixMillis) -> Vec<u8> {
    let command = Command {
        id: command_id(number),
        host: host.clone(),
        issued: now,
        expires: now.plus(Duration::from_secs(600)),
        order: Order::Launch(Launch {
            sandbox: SandboxId::new(&format!("run-{number}")).unwrap(),
            image: "tool:1".into(),
            arguments: vec![],
            environment: vec![],
            sources: vec![],
            limits: Limits::default(),
            content: Content::Full,
            isolation: None,
        }),
    };
    command::sign(&dispatcher(), &command)
}
