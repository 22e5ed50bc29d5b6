//! What the kernel was asked, read from what strace wrote: one file for each thread (`-ff`), every byte in hexadecimal (`-xx`), with the
//! time and the duration of each call. Read strictly: a line about our files that is not understood is an error, never left out.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, bail, ensure};

/// Everything that changes files, or might go around what is recorded here.
const CALLS: &str = "open,openat,openat2,creat,write,pwrite64,writev,pwritev,pwritev2,truncate,ftruncate,fallocate,\
    fsync,fdatasync,sync,syncfs,sync_file_range,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,\
    link,linkat,symlink,symlinkat,mmap,copy_file_range,sendfile,splice,vmsplice,io_uring_setup,io_setup,lseek,dup,dup2,dup3";

/// Bytes of a string that strace shows: more than any one write has (a commit of the journal is 4 MiB and one job).
const STRING_BYTES_MAX: &str = "16777216";

/// The one thing below the root that counts, besides the root itself: the broker's data directory.
pub(crate) const DATA: &str = "broker";

/// What was done, to which path below the directory that is recorded.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Opened so that it is made if it is not there.
    Open {
        path: String,
        truncate: bool,
    },
    Write {
        path: String,
        at: usize,
        bytes: Arc<[u8]>,
    },
    Resize {
        path: String,
        len: usize,
    },
    Sync {
        path: String,
    },
    Rename {
        from: String,
        to: String,
    },
    Remove {
        path: String,
    },
    MakeDirectory {
        path: String,
    },
}

/// One call that succeeded. In it from `start_ns` on, back by `end_ns`; both in nanoseconds since 1970.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    pub(crate) action: Action,
}

/// The command that starts a program under strace, which writes to files `<out>.<thread>`. The program stays our child (`-D`).
pub(crate) fn tracer(out: &str) -> Vec<String> {
    let calls = format!("trace={CALLS}");
    let words = [
        "strace",
        "-D",
        "-ff",
        "-y",
        "--seccomp-bpf",
        "--strings-in-hex=all",
        "--absolute-timestamps=format:unix,precision:ns",
        "--syscall-times=ns",
        "-s",
        STRING_BYTES_MAX,
        "-e",
        &calls,
        "-o",
        out,
    ];
    words.map(str::to_owned).to_vec()
}

/// Whether every thread's file of a trace is complete.
pub(crate) fn is_complete(directory: &Path) -> bool {
    let Ok(entries) = fs::read_dir(directory) else {
        return false;
    };
    let mut count = 0;
    for entry in entries.flatten() {
        count += 1;
        let Ok(end) = end_of(&entry.path()) else {
            return false;
        };
        if !contains(&end, b"+++ exited with") {
            return false;
        }
    }
    count > 0
}

/// The last bytes of a file.
fn end_of(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(64)))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    Ok(end)
}

/// Reads one run's trace; of `root` and what is below it.
pub(crate) fn read(directory: &Path, root: &str) -> anyhow::Result<Vec<Operation>> {
    let mut calls = Vec::new();
    for entry in fs::read_dir(directory).context("list the trace")? {
        let text = fs::read(entry?.path()).context("read the trace")?;
        for line in text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let shown = || {
                let start = line.get(..line.len().min(400)).unwrap_or_default();
                format!("read the line {}", String::from_utf8_lossy(start))
            };
            if let Some(call) = Call::parse(line).with_context(shown)? {
                calls.push(call);
            }
        }
    }
    calls.sort_by_key(|call| call.start_ns);
    let mut descriptors = Descriptors {
        root: format!("{root}/"),
        positions: BTreeMap::new(),
    };
    let mut operations = Vec::new();
    for call in &calls {
        let action = descriptors
            .action(call)
            .with_context(|| format!("understand {call:?}"))?;
        operations.extend(action.map(|action| Operation {
            start_ns: call.start_ns,
            end_ns: call.start_ns + call.took_ns,
            action,
        }));
    }
    Ok(operations)
}

/// A line: a call, not yet understood.
struct Call {
    start_ns: u64,
    took_ns: u64,
    name: String,
    arguments: Vec<Vec<u8>>,
    /// None: it did not come back.
    result: Option<Vec<u8>>,
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = |bytes: &[u8]| {
            let bytes = unescape(bytes.get(..bytes.len().min(400)).unwrap_or_default());
            String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
        };
        let arguments: Vec<_> = self.arguments.iter().map(|one| start(one)).collect();
        let result = self.result.as_deref().map(start);
        write!(f, "{}{arguments:?} = {result:?}", self.name)
    }
}

impl Call {
    /// None: a signal, or the end of a thread.
    fn parse(line: &[u8]) -> anyhow::Result<Option<Self>> {
        let space = find(line, b" ").context("no time")?;
        let start_ns = nanoseconds(&line[..space])?;
        let rest = &line[space + 1..];
        if rest.starts_with(b"+++ ") || rest.starts_with(b"--- ") {
            return Ok(None);
        }
        let open = find(rest, b"(").context("no call")?;
        let name = String::from_utf8(rest[..open].to_vec())?;
        let (arguments, rest) = split_arguments(&rest[open + 1..])?;
        let rest = rest.trim_ascii_start();
        let Some(result) = rest.strip_prefix(b"= ") else {
            ensure!(contains(rest, b"<unfinished ...>"), "no result");
            return Ok(Some(Self {
                start_ns,
                took_ns: 0,
                name,
                arguments,
                result: None,
            }));
        };
        let took = result
            .iter()
            .rposition(|byte| *byte == b'<')
            .context("no duration")?;
        let (result, took) = (result[..took].trim_ascii_end(), &result[took + 1..]);
        let took = took.strip_suffix(b">").context("no duration")?;
        let is_back = result.first() != Some(&b'?');
        Ok(Some(Self {
            start_ns,
            took_ns: if is_back { nanoseconds(took)? } else { 0 },
            name,
            arguments,
            result: is_back.then(|| result.to_vec()),
        }))
    }

    fn argument(&self, at: usize) -> anyhow::Result<&[u8]> {
        Ok(self.arguments.get(at).context("an argument is missing")?)
    }

    fn number(&self, at: usize) -> anyhow::Result<usize> {
        number(self.argument(at)?)
    }

    fn has_failed(&self) -> bool {
        self.result
            .as_ref()
            .is_some_and(|result| result.starts_with(b"-1"))
    }
}

/// What descriptors are open on, and where they write.
struct Descriptors {
    /// With a slash at its end.
    root: String,
    /// By number, where they were opened for writing alone.
    positions: BTreeMap<usize, usize>,
}

impl Descriptors {
    /// None: it changes nothing of ours.
    fn action(&mut self, call: &Call) -> anyhow::Result<Option<Action>> {
        let name = call.name.as_str();
        ensure!(
            !matches!(name, "sync" | "io_uring_setup" | "io_setup"),
            "goes around the recording"
        );
        let paths = self.paths(call)?;
        // What is in the ballast counts for nothing: it only takes room.
        if paths.is_empty() || paths.iter().any(|path| path.ends_with("/ballast")) {
            return Ok(None);
        }
        let path = || paths.first().cloned().context("no path");
        if call.has_failed() {
            let harmless = ["open", "openat", "unlink", "unlinkat", "mkdir", "mkdirat"];
            ensure!(harmless.contains(&name), "a change has failed");
            return Ok(None);
        }
        ensure!(call.result.is_some(), "a change did not come back");
        Ok(match name {
            "open" | "openat" => self.open(call, path()?)?,
            "write" | "pwrite64" => Some(self.write(call, path()?)?),
            "ftruncate" => Some(Action::Resize {
                path: path()?,
                len: call.number(1)?,
            }),
            "fsync" | "fdatasync" => Some(Action::Sync { path: path()? }),
            "rename" => {
                ensure!(paths.len() == 2, "goes out of the recording");
                Some(Action::Rename {
                    from: path()?,
                    to: paths.get(1).cloned().context("no path")?,
                })
            }
            "unlink" | "unlinkat" => Some(Action::Remove { path: path()? }),
            "mkdir" | "mkdirat" => Some(Action::MakeDirectory { path: path()? }),
            // It promises nothing.
            "sync_file_range" => None,
            // Room, and neither size nor content.
            "fallocate" if *call.argument(1)? == *b"FALLOC_FL_KEEP_SIZE" => None,
            // Before a file is read: where it stands.
            "lseek" => {
                let descriptor = call.argument(0)?.split(|byte| *byte == b'<').next();
                let is_writer = self
                    .positions
                    .contains_key(&number(descriptor.unwrap_or_default())?);
                ensure!(!is_writer, "goes elsewhere in a file that it writes");
                None
            }
            "mmap" => {
                let is_written = contains(call.argument(2)?, b"PROT_WRITE")
                    && contains(call.argument(3)?, b"MAP_SHARED");
                // SQLite makes its index of the log anew after a crash: nothing in it counts.
                ensure!(
                    !is_written || path()?.ends_with(".db-shm"),
                    "is written through a map"
                );
                None
            }
            _ => bail!("changes files in a way that is not known here"),
        })
    }

    fn open(&mut self, call: &Call, path: String) -> anyhow::Result<Option<Action>> {
        let flags = call.argument(if call.name == "open" { 1 } else { 2 })?;
        let flags: Vec<_> = flags.split(|byte| *byte == b'|').collect();
        let has = |flag: &[u8]| flags.contains(&flag);
        // It has no name, so nothing of it outlives a power cut; giving it one is a call that is not known here.
        if has(b"O_TMPFILE") {
            return Ok(None);
        }
        let unknown: [&[u8]; 4] = [b"O_APPEND", b"O_DIRECT", b"O_SYNC", b"O_DSYNC"];
        ensure!(
            !unknown.into_iter().any(has),
            "opens in a way that is not known here"
        );
        let result = call.result.as_deref().unwrap_or_default();
        let descriptor = number(
            result
                .split(|byte| *byte == b'<')
                .next()
                .unwrap_or_default(),
        )?;
        self.positions.remove(&descriptor);
        if has(b"O_WRONLY") {
            self.positions.insert(descriptor, 0);
        }
        ensure!(
            has(b"O_CREAT") || !has(b"O_TRUNC"),
            "cuts off what it opens"
        );
        Ok(has(b"O_CREAT").then(|| Action::Open {
            path,
            truncate: has(b"O_TRUNC"),
        }))
    }

    fn write(&mut self, call: &Call, path: String) -> anyhow::Result<Action> {
        let text = call.argument(1)?;
        let text = text
            .strip_prefix(b"\"")
            .and_then(|text| text.strip_suffix(b"\""))
            .context("bytes are left out")?;
        let mut bytes = unescape(text)?;
        ensure!(bytes.len() == call.number(2)?, "bytes are left out");
        let written = number(call.result.as_deref().unwrap_or_default())?;
        bytes.truncate(written);
        let at = if call.name == "pwrite64" {
            call.number(3)?
        } else {
            let descriptor = call.argument(0)?.split(|byte| *byte == b'<').next();
            let position = self
                .positions
                .get_mut(&number(descriptor.unwrap_or_default())?);
            let position = position.context("it is not known where it writes")?;
            let at = *position;
            *position += written;
            at
        };
        Ok(Action::Write {
            path,
            at,
            bytes: bytes.into(),
        })
    }

    /// The paths below the root that a call is about. Of descriptors strace tells them; relative paths we have none.
    fn paths(&self, call: &Call) -> anyhow::Result<Vec<String>> {
        let mut paths = Vec::new();
        let is_by_path = !matches!(
            call.name.as_str(),
            "write" | "pwrite64" | "writev" | "pwritev" | "pwritev2"
        );
        for argument in &call.arguments {
            let text = match argument.first() {
                Some(b'"') if is_by_path => argument
                    .strip_prefix(b"\"")
                    .and_then(|text| text.strip_suffix(b"\"")),
                Some(b'0'..=b'9') => {
                    let open = find(argument, b"<");
                    if argument.ends_with(b"(deleted)") {
                        continue;
                    }
                    open.and_then(|open| argument[open + 1..].strip_suffix(b">"))
                }
                _ => None,
            };
            let Some(text) = text else { continue };
            let Ok(path) = String::from_utf8(unescape(text)?) else {
                continue;
            };
            let is_named = argument.first() == Some(&b'"');
            ensure!(!is_named || path.starts_with('/'), "a relative path");
            if let Some(path) = format!("{path}/").strip_prefix(&self.root) {
                let path = path.trim_end_matches('/');
                let first = path.split('/').next().unwrap_or_default();
                if (first.is_empty() || first == DATA) && !is_socket(path) {
                    paths.push(path.to_owned());
                }
            }
        }
        Ok(paths)
    }
}

/// The local socket, and its draft. It holds nothing; that a start finds an old one in its place is the kill loop's case.
fn is_socket(path: &str) -> bool {
    let name = path.strip_prefix(DATA).unwrap_or_default();
    name == "/outhaul.sock" || name.starts_with("/.new-")
}

/// The arguments of a call, and what follows its closing bracket.
fn split_arguments(text: &[u8]) -> anyhow::Result<(Vec<Vec<u8>>, &[u8])> {
    let mut arguments = Vec::new();
    let (mut depth, mut start, mut is_quoted) = (0_usize, 0, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            _ if is_quoted => {}
            b'{' | b'[' | b'(' | b'<' => depth += 1,
            b')' | b',' if depth == 0 => {
                arguments.push(text[start..at].trim_ascii().to_vec());
                start = at + 1;
                if *byte == b')' {
                    return Ok((arguments, &text[at + 1..]));
                }
            }
            b'}' | b']' | b')' | b'>' => depth = depth.checked_sub(1).context("brackets")?,
            _ => {}
        }
    }
    ensure!(
        contains(text, b"<unfinished ...>"),
        "no end of the arguments"
    );
    Ok((arguments, &text[start..]))
}

fn unescape(text: &[u8]) -> anyhow::Result<Vec<u8>> {
    if !text.contains(&b'\\') {
        return Ok(text.to_vec());
    }
    let mut bytes = Vec::with_capacity(text.len() / 4);
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        if *byte != b'\\' {
            bytes.push(*byte);
            at += 1;
            continue;
        }
        let &[b'x', high, low] = text.get(at + 1..at + 4).context("cut short")? else {
            bail!("not hexadecimal");
        };
        bytes.push(digit(high)? << 4 | digit(low)?);
        at += 4;
    }
    Ok(bytes)
}

fn digit(byte: u8) -> anyhow::Result<u8> {
    match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => bail!("not hexadecimal"),
    }
}

fn number(text: &[u8]) -> anyhow::Result<usize> {
    let text = std::str::from_utf8(text)?.trim();
    text.parse().with_context(|| format!("no number: {text}"))
}

/// Seconds with nine decimals.
fn nanoseconds(text: &[u8]) -> anyhow::Result<u64> {
    let text = std::str::from_utf8(text)?;
    let (seconds, rest) = text.split_once('.').context("no time")?;
    ensure!(rest.len() == 9, "not nanoseconds");
    Ok(seconds.parse::<u64>()? * 1_000_000_000 + rest.parse::<u64>()?)
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len())
        .position(|window| window == wanted)
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    find(text, wanted).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> String {
        text.bytes().map(|byte| format!("\\x{byte:02x}")).collect()
    }

    fn read_lines(lines: &[String]) -> anyhow::Result<Vec<Operation>> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("t.1"), lines.concat()).unwrap();
        read(directory.path(), "/r")
    }

    fn line(start: u32, call: &str) -> String {
        format!("5.{start:09} {call} <0.000000007>\n")
    }

    #[test]
    fn calls_are_read_with_their_bytes_their_place_and_their_times() {
        let (file, other) = (hex("/r/broker/f"), hex("/elsewhere"));
        let nameless = hex("/r/broker/#7");
        let operations = read_lines(&[
            line(1, &format!("openat(AT_FDCWD<{}>, \"{file}\", O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC, 0600) = 3<{file}>", hex("/"))),
            line(2, &format!("write(3<{file}>, \"\\x61\\x00\", 2) = 2")),
            line(3, &format!("write(3<{file}>, \"\\x62\\x63\", 2) = 1")),
            line(4, &format!("pwrite64(3<{file}>, \"\\xff\", 1, 4096) = 1")),
            line(5, &format!("write(4<{other}>, \"\\x62\", 1) = 1")),
            line(6, &format!("fdatasync(3<{file}>) = 0")),
            line(7, &format!("rename(\"{file}\", \"{}\") = 0", hex("/r/broker/g"))),
            line(8, &format!("unlink(\"{file}\") = -1 ENOENT (No such file or directory)")),
            line(9, &format!("fsync(5<{}>) = 0", hex("/r"))),
            line(10, &format!("openat(AT_FDCWD<{}>, \"{}\", O_RDWR|O_TMPFILE, 0666) = 6<{nameless}>(deleted)", hex("/"), hex("/r/broker"))),
            line(11, &format!("fallocate(6<{nameless}>(deleted), FALLOC_FL_KEEP_SIZE, 0, 1) = 0")),
            "6.000000000 +++ exited with 0 +++\n".to_owned(),
        ])
        .unwrap();
        let shown: Vec<_> = operations
            .iter()
            .map(|one| format!("{:?}", one.action))
            .collect();
        assert_eq!(
            shown,
            [
                r#"Open { path: "broker/f", truncate: true }"#,
                r#"Write { path: "broker/f", at: 0, bytes: [97, 0] }"#,
                r#"Write { path: "broker/f", at: 2, bytes: [98] }"#,
                r#"Write { path: "broker/f", at: 4096, bytes: [255] }"#,
                r#"Sync { path: "broker/f" }"#,
                r#"Rename { from: "broker/f", to: "broker/g" }"#,
                r#"Sync { path: "" }"#,
            ]
        );
        assert_eq!(operations[1].start_ns, 5_000_000_002);
        assert_eq!(operations[1].end_ns, 5_000_000_009);
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let file = hex("/r/broker/f");
        for call in [
            format!("write(3<{file}>, \"\\x61\"..., 2) = 2"),
            format!("write(3<{file}>, \"\\x61\", 2) = 2"),
            format!("write(9<{file}>, \"\\x61\", 1) = 1"),
            format!("writev(3<{file}>, [{{iov_base=\"\\x61\", iov_len=1}}], 1) = 1"),
            format!("fdatasync(3<{file}>) = -1 EIO (Input/output error)"),
            format!("fallocate(3<{file}>, 0, 0, 4096) = 0"),
            format!(
                "copy_file_range(8<{}>, NULL, 3<{file}>, NULL, 5, 0) = 5",
                hex("/x")
            ),
            format!(
                "mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, 3<{file}>, 0) = 0x7f5e2e6d9000"
            ),
            format!(
                "openat(AT_FDCWD<{file}>, \"{file}\", O_RDWR|O_CREAT|O_DSYNC, 0600) = 3<{file}>"
            ),
            format!(
                "linkat(AT_FDCWD<{file}>, \"/proc/self/fd/6\", AT_FDCWD<{file}>, \"{file}\", AT_SYMLINK_FOLLOW) = 0"
            ),
            "io_uring_setup(8, {flags=0}) = 5".to_owned(),
            format!("something new about {file}"),
        ] {
            assert!(read_lines(&[line(1, &call)]).is_err(), "{call}");
        }
        let call = format!(
            "mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, 3<{}>, 0) = 0x7f5e2e6d9000",
            hex("/r/broker/state.db-shm")
        );
        assert!(read_lines(&[line(1, &call)]).unwrap().is_empty());
    }
}
