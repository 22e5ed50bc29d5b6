//! Reading records and fetching what they need to be judged: the keys of hosts, the history of sandboxes. A broker that goes away
//! while it is followed is waited for.

use std::time::Duration;

use anyhow::Context as _;
use protocol::{
    id::{HostId, SandboxId},
    record::{Reader, Record},
};
use tokio::time::Instant;

use crate::core::incarnation::History;

use super::{
    api,
    client::{Client, Stream, is_unreachable},
    known_hosts::KnownHosts,
    verify::{Follow, Line, Need, Start, What},
};

/// How long a broker may be away while it is followed: an upgrade, a restart of its machine.
const AWAY_MAX: Duration = Duration::from_secs(10 * 60);

/// How long to wait before asking again whether it is back.
const AGAIN: Duration = Duration::from_secs(1);

/// Which records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query {
    /// The first offset.
    pub(crate) from: u64,
    /// The first offset that is not wanted any more; none for all.
    pub(crate) to: Option<u64>,
    /// Only this host's.
    pub(crate) host: Option<HostId>,
    /// Only this sandbox's.
    pub(crate) sandbox: Option<SandboxId>,
    /// Wait for new ones.
    pub(crate) follow: bool,
}

impl Query {
    fn path(&self, from: u64) -> String {
        let mut path = format!("/v1/records?from={from}&follow={}", self.follow);
        if let Some(to) = self.to {
            path.push_str(&format!("&to={to}"));
        }
        if let Some(host) = &self.host {
            path.push_str(&format!("&host={host}"));
        }
        if let Some(sandbox) = &self.sandbox {
            path.push_str(&format!("&sandbox={sandbox}"));
        }
        path
    }
}

/// Records, one after the other; a connection that breaks is made again where it broke.
#[derive(Debug)]
pub(crate) struct Records {
    client: Client,
    query: Query,
    next: u64,
    stream: Option<Stream>,
    reader: Reader,
    /// How often the broker was asked: it may be another incarnation each time.
    asked: u64,
}

impl Records {
    /// Reads what `query` asks for.
    pub(crate) fn new(client: Client, query: Query) -> Self {
        Self {
            client,
            next: query.from,
            query,
            stream: None,
            reader: Reader::default(),
            asked: 0,
        }
    }

    /// The next record; none at the end. May be dropped while it waits: nothing is lost.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Record>> {
        loop {
            if let Some(record) = self.reader.take().context("read records")? {
                self.next = record.offset.saturating_add(1);
                return Ok(Some(record));
            }
            let stream = match &mut self.stream {
                Some(stream) => stream,
                None => {
                    let path = self.query.path(self.next);
                    let stream = self.client.stream(&path).await.context("ask for records")?;
                    self.reader = Reader::default();
                    self.asked += 1;
                    self.stream.insert(stream)
                }
            };
            match stream.next().await {
                Ok(Some(piece)) => self.reader.push(&piece),
                Ok(None) => {
                    self.stream = None;
                    return self.end();
                }
                Err(error) => {
                    self.stream = None;
                    return Err(error.context("read records"));
                }
            }
        }
    }

    /// What the end of a stream means: the end of the records, or a broker that stops.
    fn end(&self) -> anyhow::Result<Option<Record>> {
        if self.reader.is_empty() && !self.query.follow {
            Ok(None)
        } else {
            Err(self.client.broke_off("its stream of records ended"))
        }
    }
}

/// Records in, verified lines out.
#[derive(Debug)]
pub(crate) struct Follower {
    client: Client,
    known_hosts: KnownHosts,
    records: Records,
    follow: Follow,
    /// Read, and not judged yet: what it needs is being fetched.
    pending: Option<Record>,
    /// To be shown before it.
    notes: Vec<Line>,
    away_since: Option<Instant>,
    /// Which offsets are of which incarnation, and since which asking; none if the broker does not say.
    history: Option<History>,
    history_of: u64,
}

impl Follower {
    /// Reads what `query` asks for.
    pub(crate) fn new(client: Client, known_hosts: KnownHosts, query: Query, start: Start) -> Self {
        Self {
            records: Records::new(client.clone(), query),
            client,
            known_hosts,
            follow: Follow::new(start),
            pending: None,
            notes: Vec::new(),
            away_since: None,
            history: None,
            history_of: 0,
        }
    }

    /// What was judged so far.
    pub(crate) fn follow(&self) -> &Follow {
        &self.follow
    }

    /// The same, to be told more.
    pub(crate) fn follow_mut(&mut self) -> &mut Follow {
        &mut self.follow
    }

    /// The lines of the next record; none at the end. From the origin it may be dropped while it waits: nothing is lost.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Vec<Line>>> {
        loop {
            match self.attempt().await {
                Err(error) if self.records.query.follow && is_unreachable(&error) => {
                    match self.away_since {
                        None => {
                            self.away_since = Some(Instant::now());
                            return Ok(Some(vec![note(
                                "the broker does not answer; trying again (the sandbox is not affected)",
                            )]));
                        }
                        Some(since) if since.elapsed() < AWAY_MAX => {
                            tokio::time::sleep(AGAIN).await;
                        }
                        Some(_) => return Err(error),
                    }
                }
                other => {
                    self.away_since = None;
                    return other;
                }
            }
        }
    }

    async fn attempt(&mut self) -> anyhow::Result<Option<Vec<Line>>> {
        if self.pending.is_none() {
            self.pending = self.records.next().await?;
        }
        let Some(record) = self.pending.clone() else {
            return Ok(None);
        };
        if self.history_of != self.records.asked {
            self.history = api::history(&self.client).await?;
            self.history_of = self.records.asked;
        }
        match self.follow.need(&record) {
            Some(Need::Keys(host)) => self.fetch_keys(&host, &record).await?,
            Some(Need::History(host, sandbox)) => {
                self.fetch_history(&host, &sandbox, record.offset).await?;
            }
            None => {}
        }
        self.pending = None;
        let mut lines = std::mem::take(&mut self.notes);
        lines.extend(self.follow.read(&record));
        if let Some(history) = &self.history {
            lines.iter_mut().for_each(|line| place(line, history));
        }
        Ok(Some(lines))
    }

    async fn fetch_keys(&mut self, host: &HostId, record: &Record) -> anyhow::Result<()> {
        let listed = api::host_keys(&self.client, host).await?;
        match self.known_hosts.judge(host, &listed)? {
            Ok(None) => {}
            Ok(Some(trusted)) => {
                if trusted.is_first_sight
                    && let Some(key) = trusted.keys.first()
                {
                    self.notes.push(note(&format!(
                        "first contact with {host}: its key {} is pinned in {}",
                        super::verify::short(key),
                        self.known_hosts.path().display()
                    )));
                }
                self.follow.set_keys(host.clone(), trusted.keys);
            }
            Err(distrust) => {
                self.follow.set_keys(host.clone(), Vec::new());
                let why = format!(
                    "the keys of {host} are not believed: {distrust}. If you know why, remove [hosts.{host}.first] and [hosts.{host}.last] from {}",
                    self.known_hosts.path().display()
                );
                self.notes.push(Line {
                    offset: record.offset,
                    incarnation: 0,
                    host: Some(host.clone()),
                    ..line(What::Distrusted(why))
                });
            }
        }
        Ok(())
    }

    /// Reads what came before `until`, in silence but for what does not verify.
    async fn fetch_history(
        &mut self,
        host: &HostId,
        sandbox: &SandboxId,
        until: u64,
    ) -> anyhow::Result<()> {
        let found = api::sandbox(&self.client, host, sandbox).await?;
        let query = Query {
            from: found.first_offset.unwrap_or(0),
            to: None,
            host: Some(host.clone()),
            sandbox: Some(sandbox.clone()),
            follow: false,
        };
        let mut records = Records::new(self.client.clone(), query);
        while let Some(record) = records.next().await?
            && record.offset < until
        {
            if let Some(Need::Keys(host)) = self.follow.need(&record) {
                self.fetch_keys(&host, &record).await?;
            }
            let lines = self.follow.read(&record).into_iter();
            self.notes
                .extend(lines.filter(|line| matches!(line.what, What::Unverified(_))));
        }
        Ok(())
    }
}

/// Says whose offset a line has, and of a gap whether a restore is behind it.
fn place(line: &mut Line, history: &History) {
    let offset = line.offset;
    if matches!(line.what, What::Note(_)) {
        return;
    }
    line.incarnation = history.of(offset);
    if matches!(line.what, What::Missing(_))
        && let Some(part) = history
            .withdrawn()
            .find(|part| (part.from..part.to).contains(&offset))
    {
        line.what = What::Withdrawn(part);
    }
}

fn note(text: &str) -> Line {
    line(What::Note(text.to_owned()))
}

fn line(what: What) -> Line {
    Line {
        offset: 0,
        incarnation: 0,
        time: crate::shell::clock::unix(),
        host: None,
        sandbox: None,
        what,
    }
}

#[cfg(test)]
mod tests;
