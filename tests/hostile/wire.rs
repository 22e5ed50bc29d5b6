//! A TLS connection of somebody who may mean harm: writes what it is told, and says exactly what came back.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    sync::Arc,
    time::Duration,
};

use protocol::mqtt::frame;
use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};

use crate::bytes::{PING, PONG};

/// How long an answer or an end may take: longer than every deadline of the gate that a case waits for.
pub(crate) const ANSWER_WAIT: Duration = Duration::from_secs(20);
/// How long writing may take before the broker counts as not reading.
const WRITE_WAIT: Duration = Duration::from_millis(500);
/// More than any packet has.
const PACKET_BYTES_MAX: usize = 1 << 20;

/// See the module.
pub(crate) struct Wire {
    stream: StreamOwned<ClientConnection, TcpStream>,
    unread: Vec<u8>,
}

/// What a look at the socket brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    Bytes,
    /// Nothing, for as long as was waited.
    Nothing,
    /// The end, orderly or not.
    End,
}

impl Wire {
    /// TLS over `tcp`; the handshake is done when this returns.
    pub(crate) fn over(tcp: TcpStream, config: Arc<ClientConfig>) -> std::io::Result<Self> {
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(ANSWER_WAIT))?;
        tcp.set_write_timeout(Some(WRITE_WAIT))?;
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(config, name).map_err(std::io::Error::other)?;
        let mut stream = StreamOwned::new(tls, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self {
            stream,
            unread: Vec::new(),
        })
    }

    /// Writes. That the broker has ended the connection meanwhile is no error here: what it said shows at the next look.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.try_send(bytes);
    }

    /// Writes, or says why not.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Lets writing take as long as an answer: the broker will read, some time.
    pub(crate) fn be_patient(&mut self) {
        self.stream
            .sock
            .set_write_timeout(Some(ANSWER_WAIT))
            .unwrap();
    }

    /// Writes below TLS.
    pub(crate) fn send_naked(&mut self, bytes: &[u8]) {
        self.stream.sock.write_all(bytes).unwrap();
    }

    /// Says that nothing more will be written, in TLS and in TCP.
    pub(crate) fn finish(&mut self) {
        self.stream.conn.send_close_notify();
        self.stream.flush().unwrap();
        self.stream.sock.shutdown(Shutdown::Write).unwrap();
    }

    /// Ends TCP and says nothing in TLS.
    pub(crate) fn cut(self) {
        self.stream.sock.shutdown(Shutdown::Both).unwrap();
    }

    /// What came and was not taken.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// Takes what came.
    pub(crate) fn forget(&mut self) {
        self.unread.clear();
    }

    /// Looks at the socket. It only reads: what could not be written is not tried again.
    pub(crate) fn look(&mut self, wait: Duration) -> Came {
        let StreamOwned { conn, sock } = &mut self.stream;
        sock.set_read_timeout(Some(wait)).unwrap();
        let mut part = [0; 16 * 1024];
        loop {
            match conn.reader().read(&mut part) {
                Ok(0) => return Came::End,
                Ok(count) => {
                    self.unread.extend_from_slice(&part[..count]);
                    return Came::Bytes;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Came::End,
            }
            match conn.read_tls(sock) {
                // Whether that was orderly, the next look into the connection says.
                Ok(_) => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Came::Nothing;
                }
                Err(_) => return Came::End,
            }
            if conn.process_new_packets().is_err() {
                return Came::End;
            }
        }
    }

    /// The next packet, within `wait` of silence; `None` if none comes.
    pub(crate) fn packet_within(&mut self, wait: Duration) -> Option<Vec<u8>> {
        loop {
            if let Some(frame) = frame(&self.unread, PACKET_BYTES_MAX).unwrap() {
                let rest = self.unread.split_off(frame.total_bytes());
                return Some(std::mem::replace(&mut self.unread, rest));
            }
            if self.look(wait) != Came::Bytes {
                return None;
            }
        }
    }

    /// The next packet, which must come.
    #[track_caller]
    pub(crate) fn packet(&mut self) -> Vec<u8> {
        self.packet_within(ANSWER_WAIT).expect("a packet")
    }

    /// The next bytes must be these.
    #[track_caller]
    pub(crate) fn expect(&mut self, expected: &[u8]) {
        while self.unread.len() < expected.len() && self.look(ANSWER_WAIT) == Came::Bytes {}
        let came = &self.unread[..expected.len().min(self.unread.len())];
        assert_eq!(shown(came), shown(expected));
        self.unread.drain(..expected.len());
    }

    /// Sends, and expects.
    #[track_caller]
    pub(crate) fn says(&mut self, bytes: &[u8], expected: &[u8]) {
        self.send(bytes);
        self.expect(expected);
    }

    /// These bytes must come, then the end, and nothing else.
    #[track_caller]
    pub(crate) fn ends(mut self, expected: &[u8]) {
        let came = loop {
            match self.look(ANSWER_WAIT) {
                Came::Bytes => {}
                came => break came,
            }
        };
        assert_eq!(shown(&self.unread), shown(expected));
        assert_eq!(came, Came::End, "the broker keeps the connection");
    }

    /// The connection lives: what was sent before is settled, and a ping is answered.
    #[track_caller]
    pub(crate) fn lives(&mut self) {
        self.says(&PING, &PONG);
    }
}

/// Bytes for a person; of many, the first and how many there are.
pub(crate) fn shown(bytes: &[u8]) -> String {
    const SHOWN_BYTES: usize = 64;
    let digits: Vec<_> = bytes
        .iter()
        .take(SHOWN_BYTES)
        .map(|byte| format!("{byte:02X}"))
        .collect();
    format!("{} ({} bytes)", digits.join(" "), bytes.len())
}

/// Waits until the peer has ended a plain TCP connection, having said exactly `expected`.
#[track_caller]
pub(crate) fn plain_ends(mut tcp: &TcpStream, expected: &[u8]) {
    tcp.set_read_timeout(Some(ANSWER_WAIT)).unwrap();
    let mut came = Vec::new();
    let end = tcp.read_to_end(&mut came);
    if let Err(error) = end {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
    assert_eq!(shown(&came), shown(expected));
}
