//! How long a host takes from its install key to its link: the whole of enrolment, beside a client that only connects.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::Arc,
};

use anyhow::{Context as _, bail};
use protocol::{
    id::HostId,
    key::{Host, Secret},
    limits::PACKET_BYTES_MAX,
    mqtt::{ReasonCode, ServerPacket, Version, decode_server, frame},
};
use rustls::{ClientConnection, StreamOwned, pki_types::ServerName};

use super::{
    broker::{Access, Broker, PUBLISHER},
    clock,
    credential::Credential,
    enrol::enrol,
    outhaul, report,
    report::{Bound, Column, Limit, Report, Row},
    tls,
};

/// Newcomers of a round, one after the other.
const NEWCOMERS: u64 = 20;
/// What a person who starts an operator does not notice, in milliseconds.
const MS_MAX: f64 = 300.0;

const COLUMNS: [Column; 2] = [
    Column {
        title: "to its link ms",
        key: "to_its_link_ms",
        digits: 1,
    },
    Column {
        title: "of it, link ms",
        key: "link_ms",
        digits: 1,
    },
];

/// Rounds with each broker in turn. Others enrol nobody: what they show is TLS and CONNECT.
pub(crate) fn run(brokers: &[Broker], rounds: usize) -> anyhow::Result<Report> {
    let mut rows: Vec<_> = brokers
        .iter()
        .map(|broker| Row {
            broker: broker.name.clone(),
            rounds: Vec::new(),
        })
        .collect();
    for round in 0..rounds {
        for place in 0..brokers.len() {
            let at = (round + place) % brokers.len();
            let (Some(broker), Some(row)) = (brokers.get(at), rows.get_mut(at)) else {
                continue;
            };
            let first = u64::try_from(round)? * NEWCOMERS;
            let came = newcomers(broker, first)
                .with_context(|| format!("round {} with {}", round + 1, broker.name))?;
            row.rounds.push(came);
        }
    }
    let mut report = Report {
        bench: "newcomer".to_owned(),
        about: format!(
            "a host from its install key to its link: challenge, exchange, CONNECT, a TLS 1.3 connection each; others: CONNECT alone. \
             Median of {NEWCOMERS} in a round, and of {rounds} round(s)"
        ),
        columns: &COLUMNS,
        rows,
        limits: Vec::new(),
    };
    let fsync = "outhaul-fsync";
    report.limits.push(Limit {
        broker: fsync.to_owned(),
        what: "ms from the install key to the link",
        bound: Bound::Most(MS_MAX),
        value: report.median(fsync, 0),
    });
    Ok(report)
}

fn newcomers(broker: &Broker, first: u64) -> anyhow::Result<Vec<f64>> {
    let (mut whole, mut links) = (Vec::new(), Vec::new());
    for number in first..first + NEWCOMERS {
        let name = format!("newcomer-{number}");
        let seed = outhaul::seed(1_000_000 + number)?;
        let (start, credential) = match &broker.access {
            Access::Tokens(outhaul) => {
                let host = HostId::new(&name).context("name a host")?;
                let install = outhaul.add(&host)?;
                let key = Secret::<Host>::from_seed(&seed);
                let start = clock::mono();
                let token = enrol(broker.port, &broker.ca, &host, &key, &install)?;
                (start, Credential::ace(&token, seed)?)
            }
            Access::Users { password } => {
                let credential = Credential::Password {
                    user: PUBLISHER.to_owned(),
                    password: password.clone(),
                };
                (clock::mono(), credential)
            }
            Access::Open => (clock::mono(), Credential::None),
        };
        let enrolled = clock::mono();
        connect(broker, &name, &credential)?;
        let connected = clock::mono();
        whole.push((connected - start).as_secs_f64() * 1e3);
        links.push((connected - enrolled).as_secs_f64() * 1e3);
    }
    let middle = |figures: Vec<f64>| report::median(figures.into_iter()).context("nobody came");
    Ok(vec![middle(whole)?, middle(links)?])
}

/// TLS and CONNECT, up to a CONNACK that says welcome.
fn connect(broker: &Broker, client_id: &str, credential: &Credential) -> anyhow::Result<()> {
    let config = tls::client(&broker.ca, b"mqtt")?;
    let tls = ClientConnection::new(Arc::clone(&config), ServerName::try_from("localhost")?)?;
    let tcp = TcpStream::connect(("127.0.0.1", broker.port)).context("dial the broker")?;
    tcp.set_nodelay(true)?;
    let mut stream = StreamOwned::new(tls, tcp);
    stream.write_all(&credential.connect(client_id)?)?;
    let (mut input, mut space) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(packet) = frame(&input, PACKET_BYTES_MAX)? {
            let taken = packet.total_bytes();
            match decode_server(&packet, Version::V5)? {
                ServerPacket::Auth(auth) => {
                    stream.write_all(&credential.answer(auth.data.unwrap_or_default())?)?;
                }
                ServerPacket::ConnAck(connack) if connack.reason == ReasonCode::SUCCESS => {
                    return Ok(());
                }
                other => bail!("no welcome: {other:?}"),
            }
            input.drain(..taken);
            continue;
        }
        let count = stream.read(&mut space)?;
        anyhow::ensure!(count > 0, "the broker ended the connection");
        input.extend_from_slice(space.get(..count).unwrap_or_default());
    }
}
