//! The real mosquitto, on the loopback address, with nothing but what it does by itself.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use protocol::mqtt::{ClientPacket, Connect, PINGREQ, ServerPacket, Version, decode_server, frame};
use tempfile::TempDir;
use tests::wait;

/// How long it may take to answer. It answers at once; this only ends a test that would hang.
const ANSWER_WAIT: Duration = Duration::from_secs(20);

/// A broker. Gone when dropped.
#[derive(Debug)]
pub(crate) struct Mosquitto {
    port: u16,
    process: Child,
    _dir: TempDir,
}

/// What came of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It goes on.
    Taken,
    /// It ends the connection, with this code.
    Refused(u8),
    /// It ends the connection without a word.
    Closed,
}

impl Mosquitto {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let config = dir.path().join("mosquitto.conf");
        let settings = "allow_anonymous true\npersistence false\nsys_interval 0\nlog_type none\n";
        fs::write(&config, format!("listener {port} 127.0.0.1\n{settings}")).unwrap();
        let process = Command::new(program())
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start mosquitto: tests/run.sh installs it");
        wait::until("mosquitto to listen", || {
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Self {
            port,
            process,
            _dir: dir,
        }
    }

    /// The first line of what it says of itself.
    pub(crate) fn version() -> String {
        let output = Command::new(program()).arg("-h").output();
        let output = output.expect("start mosquitto: tests/run.sh installs it");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().next().unwrap_or_default().to_owned()
    }

    /// What it makes of a CONNECT.
    pub(crate) fn ask_first(&self, version: Version, connect: &[u8]) -> Answer {
        let said = self.say(&[connect]);
        match packets(&said, version).first() {
            Some(Said::ConnAck(0)) => Answer::Taken,
            Some(Said::ConnAck(code)) => Answer::Refused(*code),
            _ => Answer::Closed,
        }
    }

    /// What it makes of a packet on a link that is up. Taken means that a ping behind it is answered.
    pub(crate) fn ask(&self, version: Version, packet: &[u8]) -> Answer {
        let mut connect = Connect::new("reader", 30);
        connect.version = version;
        let mut hello = Vec::new();
        ClientPacket::Connect(connect)
            .encode(version, &mut hello)
            .unwrap();
        let said = self.say(&[&hello, packet, &PINGREQ]);
        let said = packets(&said, version);
        assert_eq!(
            said.first(),
            Some(&Said::ConnAck(0)),
            "a plain CONNECT is taken"
        );
        match said.last() {
            Some(Said::Pong) => Answer::Taken,
            Some(Said::Disconnect(code)) => Answer::Refused(*code),
            _ => Answer::Closed,
        }
    }

    /// Sends everything, says that no more will come, and gives all that was answered: no wait for what may never come.
    fn say(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(ANSWER_WAIT)).unwrap();
        let mut said = Vec::new();
        // It may have closed before it read everything: what it said is there all the same.
        let sent = stream.write_all(&parts.concat());
        if sent.is_ok() {
            _ = stream.shutdown(Shutdown::Write);
        }
        if let Err(error) = stream.read_to_end(&mut said) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        }
        said
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

fn program() -> &'static str {
    // Debian puts it where only root looks.
    let debian = "/usr/sbin/mosquitto";
    if Path::new(debian).exists() {
        debian
    } else {
        "mosquitto"
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    ConnAck(u8),
    Disconnect(u8),
    Pong,
    Other,
}

fn packets(mut bytes: &[u8], version: Version) -> Vec<Said> {
    let mut all = Vec::new();
    while let Some(found) = frame(bytes, usize::MAX).unwrap() {
        let code = bytes.get(2).copied().unwrap_or_default();
        all.push(match (bytes[0] >> 4, decode_server(&found, version)) {
            // Its codes are compared as they are, ours or not.
            (2, _) => Said::ConnAck(bytes.get(3).copied().unwrap_or_default()),
            (14, _) => Said::Disconnect(code),
            (_, Ok(ServerPacket::PingResp)) => Said::Pong,
            _ => Said::Other,
        });
        bytes = &bytes[found.total_bytes()..];
    }
    all
}
