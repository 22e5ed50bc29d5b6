//! Stands in for the shim and for what it starts. Static, so that it runs in an image that holds nothing else.

use std::{env, fs, io::Write, process::exit, time::Duration};

fn main() {
    // Started as the shim is: `run -- …`.
    let arguments: Vec<String> = env::args().skip(3).collect();
    match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["exit", code] => exit(code.parse().unwrap()),
        ["sleep"] => std::thread::sleep(Duration::from_secs(600)),
        ["eat"] => {
            let mut eaten = Vec::new();
            loop {
                eaten.push(vec![1_u8; 1 << 20]);
            }
        }
        ["probe"] => {
            let wrong = probe();
            let text = if wrong.is_empty() {
                "fine".to_owned()
            } else {
                wrong.join(", ")
            };
            fs::write("/run/outhaul/out/said", format!("{text}\n")).unwrap();
            exit(i32::from(!wrong.is_empty()));
        }
        _ => exit(99),
    }
}

/// Everything that is not as a sandbox's owner was promised.
fn probe() -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |what: &str, is_fine: bool| {
        if !is_fine {
            wrong.push(what.to_owned());
        }
    };
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    check("user", field("Uid:") == "10001 10001 10001 10001");
    check("group", field("Gid:") == "10001 10001 10001 10001");
    check("groups", ["", "10001"].contains(&field("Groups:").as_str()));
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        check(set, field(set).chars().all(|digit| digit == '0'));
    }
    check("no new privileges", field("NoNewPrivs:") == "1");
    check("seccomp", field("Seccomp:") == "2");
    check("first process", std::process::id() == 1);
    let can_write = |dir: &str| {
        let path = format!("{dir}/probe");
        fs::File::create(&path)
            .and_then(|mut file| file.write_all(b"x"))
            .is_ok()
    };
    for dir in [
        "/",
        "/etc",
        "/run",
        "/run/outhaul/in",
        "/sources/project",
        "/dev",
        "/sys",
        "/proc/sys/kernel",
    ] {
        check(&format!("can write {dir}"), !can_write(dir));
    }
    for dir in ["/tmp", "/workspace", "/data", "/run/outhaul/out"] {
        check(&format!("cannot write {dir}"), can_write(dir));
    }
    check(
        "source",
        fs::read_to_string("/sources/project/file").is_ok_and(|text| text == "source"),
    );
    let interfaces = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let names: Vec<&str> = interfaces
        .lines()
        .skip(2)
        .filter_map(|line| Some(line.split_once(':')?.0.trim()))
        .collect();
    check(
        "network",
        names
            .iter()
            .all(|name| ["lo", "sit0", "tunl0", "ip6tnl0"].contains(name)),
    );
    check(
        "engine socket",
        fs::metadata("/var/run/docker.sock").is_err(),
    );
    check(
        "working directory",
        env::current_dir().is_ok_and(|dir| dir.to_str() == Some("/workspace")),
    );
    for (name, value) in [
        ("HOME", "/workspace"),
        ("TMPDIR", "/tmp"),
        ("FROM_IMAGE", "1"),
        ("FROM_COMMAND", "2"),
        ("OUTHAUL_SANDBOX", "build-7"),
    ] {
        check(name, env::var(name).is_ok_and(|found| found == value));
    }
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    for (place, options) in [
        ("/tmp", &["nosuid", "nodev", "noexec", "size=1024k"][..]),
        ("/workspace", &["nosuid", "nodev", "size=1024k", "mode=700"]),
        ("/data", &["nosuid", "nodev", "noexec", "size=1024k"]),
    ] {
        let line = mounts
            .lines()
            .find(|line| line.split(' ').nth(1) == Some(place))
            .unwrap_or_default();
        for option in options {
            check(
                &format!("{place} {option}"),
                line.split([' ', ',']).any(|part| part == *option),
            );
        }
    }
    wrong
}
