//! Many clients on one thread and one epoll instance.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::{
    event::{
        Timespec,
        epoll::{self, CreateFlags, EventData, EventFlags},
    },
    io::Errno,
};
use rustls::ClientConfig;
use socket2::{Domain, Socket, Type};

use super::{
    clock,
    link::{Link, Plan},
    tls,
};

/// Readiness taken at one look.
const EVENTS_MAX: usize = 1024;
/// How long one look waits.
const LOOK_WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// Where clients come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sources {
    /// All from 127.0.0.1.
    One,
    /// Each from an address of its own in 127.0.0.0/8.
    Many,
}

impl Sources {
    fn address(self, index: usize) -> Ipv4Addr {
        let index = u32::try_from(index).unwrap_or(0);
        match self {
            Self::One => Ipv4Addr::LOCALHOST,
            // From 127.1.0.1 on, the last byte never 0.
            Self::Many => Ipv4Addr::from_bits(0x7f01_0001 + index / 250 * 256 + index % 250),
        }
    }
}

/// Clients of one broker.
pub(crate) struct Fleet {
    epoll: OwnedFd,
    config: Arc<ClientConfig>,
    port: u16,
    sources: Sources,
    /// `None`: it failed.
    pub(crate) links: Vec<Option<Link>>,
    /// Why those failed that did, in the order of failing.
    pub(crate) failures: Vec<String>,
    ready: usize,
}

impl Fleet {
    /// No clients yet. They trust `ca` alone.
    pub(crate) fn new(ca: &Path, port: u16, sources: Sources) -> anyhow::Result<Self> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            config: tls::client(ca, b"mqtt")?,
            port,
            sources,
            links: Vec::new(),
            failures: Vec::new(),
            ready: 0,
        })
    }

    /// Connects all of `plans`, at most `at_once` at a time; gives up at `until`. What failed is counted, not tried again.
    pub(crate) fn connect(
        &mut self,
        plans: Vec<Plan>,
        at_once: usize,
        until: Instant,
    ) -> anyhow::Result<()> {
        let wanted = self.ready + plans.len();
        let failed_before = self.failures.len();
        let mut plans = plans.into_iter();
        loop {
            let settled = self.ready + self.failures.len() - failed_before;
            let begun = wanted - plans.len();
            let free = at_once.saturating_sub(begun - settled);
            for plan in plans.by_ref().take(free) {
                self.dial(plan)?;
            }
            if self.ready + self.failures.len() - failed_before >= wanted || clock::mono() >= until
            {
                return Ok(());
            }
            self.turn()?;
        }
    }

    fn dial(&mut self, plan: Plan) -> anyhow::Result<()> {
        let index = self.links.len();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let source = SocketAddr::from((self.sources.address(index), 0));
        socket.bind(&source.into()).context("bind a source")?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        let broker = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        match socket.connect(&broker.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error).context("dial the broker"),
        }
        let link = Link::new(TcpStream::from(socket), &self.config, plan)?;
        epoll::add(
            &self.epoll,
            &link,
            EventData::new_u64(index as u64),
            EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET,
        )?;
        self.links.push(Some(link));
        Ok(())
    }

    /// Waits a little for sockets to be ready, and lets each do what it can.
    pub(crate) fn turn(&mut self) -> anyhow::Result<()> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let spare = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&self.epoll, spare, Some(&LOOK_WAIT)) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error).context("wait for sockets"),
        }
        for event in events {
            let index = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
            let Some(slot) = self.links.get_mut(index) else {
                continue;
            };
            let Some(link) = slot else { continue };
            let was_ready = link.ready.is_some();
            match link.step() {
                Ok(()) => self.ready += usize::from(!was_ready && link.ready.is_some()),
                Err(error) => {
                    self.failures.push(format!("{error:#}"));
                    self.ready -= usize::from(was_ready);
                    *slot = None;
                }
            }
        }
        Ok(())
    }

    /// How many are connected and have what they asked for.
    pub(crate) const fn ready(&self) -> usize {
        self.ready
    }

    /// Ends with the first failure, if there was one.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        match self.failures.first() {
            Some(failure) => anyhow::bail!(
                "{} of {} clients failed, the first: {failure}",
                self.failures.len(),
                self.links.len()
            ),
            None => Ok(()),
        }
    }

    /// Lets time pass while serving the clients, each of which says every twenty seconds that it is there.
    pub(crate) fn rest(&mut self, time: Duration) -> anyhow::Result<()> {
        let until = clock::mono() + time;
        let mut ping = clock::mono();
        while clock::mono() < until {
            if clock::mono() >= ping {
                ping = clock::mono() + Duration::from_secs(20);
                for link in self.links.iter_mut().flatten() {
                    link.ping()?;
                }
            }
            self.turn()?;
        }
        Ok(())
    }
}
