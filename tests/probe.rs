//! Runs inside a sandbox and tries what a sandbox must not be able to do. Prints what came of it, one line each.

use std::{
    env,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    time::Duration,
};

const WAIT: Duration = Duration::from_secs(3);

#[expect(clippy::print_stdout, reason = "its output is its result")]
fn main() {
    for attempt in env::args().skip(1) {
        let result = match attempt.split_once('=') {
            Some(("tcp", address)) => dial(address),
            Some(("connect", authority)) => ask_egress(authority),
            Some(("memory", pid)) => {
                std::fs::File::open(format!("/proc/{pid}/mem")).map(|_| String::from("open"))
            }
            Some(("write", path)) => std::fs::write(path, b"x").map(|()| String::from("open")),
            _ => Ok(String::from("unknown attempt")),
        };
        match result {
            Ok(said) => println!("{attempt}: {said}"),
            Err(error) => println!("{attempt}: {:?}", error.kind()),
        }
    }
}

fn dial(address: &str) -> std::io::Result<String> {
    let address: SocketAddr = address
        .parse()
        .map_err(|_| std::io::ErrorKind::InvalidInput)?;
    TcpStream::connect_timeout(&address, WAIT).map(|_| String::from("open"))
}

/// What the egress process answers to a process that is not the shim.
fn ask_egress(authority: &str) -> std::io::Result<String> {
    let mut socket = UnixStream::connect("/run/outhaul/in/egress.sock")?;
    socket.set_read_timeout(Some(WAIT))?;
    write!(
        socket,
        "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"
    )?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}
