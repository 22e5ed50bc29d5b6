//! Stock rumqttd, the whole broker with its own listener: what our gate is put in front of. It knows no permissions, so everyone is let
//! in. `cargo install rumqttd --version 0.20.0 --root target/tools` makes the program.

use std::{fs, path::Path, process::Command};

use super::{
    broker::{Access, Broker, free_port},
    process::Process,
};

/// Starts `program`. `keys` holds the certificate and its key, `ca` is what signed it.
pub(crate) fn start(program: &Path, dir: &Path, keys: &Path, ca: &Path) -> anyhow::Result<Broker> {
    let name = "rumqttd".to_owned();
    let port = free_port()?;
    let config = dir.join("rumqttd.toml");
    fs::write(
        &config,
        format!(
            "id = 0\n\
             [router]\n\
             id = 0\n\
             max_connections = 20000\n\
             max_outgoing_packet_count = 200\n\
             max_segment_size = 104857600\n\
             max_segment_count = 10\n\
             [v5.1]\n\
             name = \"bench\"\n\
             listen = \"127.0.0.1:{port}\"\n\
             next_connection_delay_ms = 0\n\
             [v5.1.tls]\n\
             certpath = \"{keys}/server.crt\"\n\
             keypath = \"{keys}/server.key\"\n\
             [v5.1.connections]\n\
             connection_timeout_ms = 60000\n\
             max_payload_size = 65536\n\
             max_inflight_count = 128\n\
             dynamic_filters = true\n",
            keys = keys.display(),
        ),
    )?;
    let mut command = Command::new(program);
    command.arg("--config").arg(&config);
    let process = Process::start(dir, &name, &mut command)?;
    let mut broker = Broker {
        name,
        port,
        ca: ca.to_owned(),
        process,
        access: Access::Open,
    };
    broker.wait_ready()?;
    Ok(broker)
}
