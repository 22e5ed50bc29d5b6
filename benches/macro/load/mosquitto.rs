//! mosquitto as a careful owner runs it: TLS 1.3 alone, a password file, and an ACL file by which a client publishes to its own topic
//! and nowhere else. It gets our broker's certificate, so that both sign with the same kind of key.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::Context as _;
use protocol::{
    id::SandboxId,
    topic::{Topic, events_of_host},
};

use super::{
    broker::{Access, Broker, PUBLISHER, READER, free_port, host},
    process::Process,
};

/// Of the bench, on the loopback address, for as long as it runs.
const PASSWORD: &str = "bench";

/// Starts it. `keys` holds the certificate and its key, `ca` is what signed it.
pub(crate) fn start(dir: &Path, keys: &Path, ca: &Path) -> anyhow::Result<Broker> {
    let name = "mosquitto".to_owned();
    let own = dir.join(&name);
    fs::create_dir_all(&own)?;
    let password_file = own.join("passwords");
    fs::File::create(&password_file)?;
    for user in [PUBLISHER, READER] {
        let status = Command::new("mosquitto_passwd")
            .arg("-b")
            .arg(&password_file)
            .args([user, PASSWORD])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .context("run mosquitto_passwd")?;
        anyhow::ensure!(status.success(), "mosquitto_passwd failed");
    }
    let acl_file = own.join("acl");
    fs::write(&acl_file, acl()?)?;
    let port = free_port()?;
    let config = own.join("mosquitto.conf");
    fs::write(
        &config,
        format!(
            "# As root it would become another user, who cannot read this directory.\n\
             user root\n\
             per_listener_settings false\n\
             allow_anonymous false\n\
             password_file {passwords}\n\
             acl_file {acl}\n\
             persistence false\n\
             log_type error\n\
             connection_messages false\n\
             # As many unacknowledged as our gate takes, and a queue for the reader that drops nothing.\n\
             max_inflight_messages 128\n\
             max_queued_messages 0\n\
             set_tcp_nodelay true\n\
             listener {port} 127.0.0.1\n\
             tls_version tlsv1.3\n\
             cafile {ca}\n\
             certfile {keys}/server.crt\n\
             keyfile {keys}/server.key\n",
            passwords = password_file.display(),
            acl = acl_file.display(),
            ca = ca.display(),
            keys = keys.display(),
        ),
    )?;
    let mut command = Command::new("mosquitto");
    command.arg("-c").arg(&config);
    let process = Process::start(dir, &name, &mut command)?;
    let mut broker = Broker {
        name,
        port,
        ca: ca.to_owned(),
        process,
        access: Access::Users {
            password: PASSWORD.to_owned(),
        },
    };
    broker.wait_ready()?;
    Ok(broker)
}

/// A client publishes to the topic of its id; the reader reads all.
fn acl() -> anyhow::Result<String> {
    let host = host()?;
    let stand_in = SandboxId::new("client")?;
    let own = Topic::Events(host.clone(), stand_in.clone()).to_string();
    let own = own.replace(stand_in.as_str(), "%c");
    let all = events_of_host(&host);
    Ok(format!(
        "user {READER}\ntopic read {all}\n\npattern write {own}\n"
    ))
}
