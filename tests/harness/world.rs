//! A broker, a host and its operator, as processes, in a directory of their own. Gone when dropped, with every container.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use anyhow::Context as _;
use protocol::{
    id::HostId,
    key::{Dispatcher, Host, Public, Secret},
};
use tempfile::TempDir;

use crate::{docker, local, programs::Programs, wait};

/// A world. Every field that tests look into is a path or a name.
#[derive(Debug)]
pub struct World {
    /// Holds everything.
    pub dir: TempDir,
    /// The host's name, different in each world.
    pub host: String,
    /// The broker's port, on `listen`.
    pub port: u16,
    /// The address that the broker listens on: the loopback, unless hosts have to come from elsewhere.
    pub listen: String,
    /// The name that hosts are told to dial; none, if nobody tells the broker.
    pub public_name: Option<String>,
    /// The engine's socket, if not the usual one.
    pub engine_socket: Option<PathBuf>,
    /// Where the broker listens, if something else listens on `port` and passes on what comes.
    pub listen_port: Option<u16>,
    /// More flags of operator and egress, from their next start on.
    pub agent_more: Vec<String>,
    /// More flags of `outhaul serve`, from its next start on.
    pub broker_flags: Vec<String>,
    broker: Option<Child>,
    operator: Option<Child>,
    egress: Option<Child>,
    /// An operator was started, so there may be containers.
    has_operated: bool,
}

/// How a broker is started that is not to be like any other.
#[derive(Clone, Copy, Debug, Default)]
pub struct BrokerTerms<'a> {
    /// What it logs, if not what it always does.
    pub log: Option<&'a str>,
    /// How many descriptors it may have, if not as many as this process.
    pub files_max: Option<u32>,
    /// How many it starts with; it may raise that itself.
    pub files_at_first: Option<u32>,
    /// More flags of `outhaul serve`.
    pub flags: &'a [&'a str],
    /// More variables of its environment.
    pub environment: &'a [(&'a str, &'a str)],
    /// How large a file it may write, in blocks of 512 bytes.
    pub file_blocks_max: Option<u32>,
    /// A program that starts it, such as a tracer, with its arguments; the process stays the broker's.
    pub under: &'a [&'a str],
}

impl World {
    /// A broker that is ready, nothing else.
    ///
    /// # Errors
    /// If it does not start.
    pub fn with_broker() -> anyhow::Result<Self> {
        Self::with_broker_flags(&[])
    }

    /// The same, with these flags of `outhaul serve`.
    ///
    /// # Errors
    /// If it does not start.
    pub fn with_broker_flags(flags: &[&str]) -> anyhow::Result<Self> {
        let mut world = Self::empty()?;
        world.broker_flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        world.start_broker()?;
        Ok(world)
    }

    /// A directory and a port, and nothing that runs.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub fn empty() -> anyhow::Result<Self> {
        // Not below a world-unreadable directory: sandboxes run as another user.
        let dir = tempfile::Builder::new()
            .prefix("outhaul-e2e-")
            .tempdir_in("/var/tmp")?;
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("{error}"))?;
        set_mode(dir.path(), 0o711)?;
        fs::create_dir_all(dir.path().join("log"))?;
        Ok(Self {
            dir,
            host: format!("e2e-{}", protocol::id::hex(&random)),
            port: free_port()?,
            listen: "127.0.0.1".to_owned(),
            public_name: Some("localhost".to_owned()),
            engine_socket: None,
            listen_port: None,
            agent_more: Vec::new(),
            broker_flags: Vec::new(),
            broker: None,
            operator: None,
            egress: None,
            has_operated: false,
        })
    }

    /// A broker, a host that was added with its bundle, a policy, an operator and its egress process, connected.
    ///
    /// # Errors
    /// If any of it does not start.
    pub fn connected() -> anyhow::Result<Self> {
        docker::ensure_image()?;
        let mut world = Self::with_broker()?;
        world.add_host()?;
        world.write_policy("")?;
        world.start_egress()?;
        world.start_operator()?;
        world.wait_connected();
        Ok(world)
    }

    /// A path inside the world.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The directory that the policy lists as source `tools`: it holds the test programs.
    #[must_use]
    pub fn tools() -> &'static Path {
        &Programs::get().dir
    }

    /// Starts the broker and waits until it is ready.
    ///
    /// # Errors
    /// If it ends instead.
    pub fn start_broker(&mut self) -> anyhow::Result<()> {
        self.start_broker_with(BrokerTerms::default())
    }

    /// The same, on other terms.
    ///
    /// # Errors
    /// If it ends instead.
    pub fn start_broker_with(&mut self, terms: BrokerTerms<'_>) -> anyhow::Result<()> {
        let arguments = self.serve_arguments();
        let mut arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        arguments.extend(terms.log.iter().flat_map(|filter| ["--log", filter]));
        arguments.extend(terms.flags);
        let mut child = self.spawn("outhaul", "broker", &arguments, terms)?;
        let socket = self.socket();
        let ready = wait::until("the broker to be ready", || match child.try_wait() {
            Ok(None) => local::get(&socket, "/v1/status").is_ok().then_some(true),
            _ => Some(false),
        });
        self.broker = Some(child);
        anyhow::ensure!(ready, "the broker ended: {}", self.log("broker"));
        Ok(())
    }

    /// What the broker is started with, unless there are other terms.
    #[must_use]
    pub fn serve_arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            "serve".to_owned(),
            "--data-dir".to_owned(),
            self.path("broker").to_string_lossy().into_owned(),
            "--listen".to_owned(),
            format!("{}:{}", self.listen, self.listen_port.unwrap_or(self.port)),
        ];
        if let Some(name) = &self.public_name {
            arguments.extend([
                "--public-address".to_owned(),
                format!("{name}:{}", self.port),
            ]);
        }
        arguments.extend(self.broker_flags.iter().cloned());
        arguments
    }

    /// Makes a dispatcher key and adds the host.
    ///
    /// # Errors
    /// If the command line refuses.
    pub fn add_host(&self) -> anyhow::Result<()> {
        self.outhaul_ok(&["dispatcher", "init"])?;
        let bundle = self.path("bundle");
        self.outhaul_ok(&[
            "host",
            "add",
            &self.host,
            "--kind",
            "docker",
            "--out",
            &bundle.to_string_lossy(),
        ])?;
        Ok(())
    }

    /// Writes the policy: the image of the tests, the test programs as a source, all content; and more of the caller's.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_policy(&self, more: &str) -> anyhow::Result<()> {
        let tools = Self::tools().display();
        let text = format!(
            "images = [\"{}\"]\ncontent = \"full\"\n{more}\n[sources]\ntools = \"{tools}\"\n",
            docker::IMAGE
        );
        fs::write(self.path("policy.toml"), text).context("write the policy")
    }

    /// Starts the operator. It may take a while to connect: see [`World::wait_connected`].
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_operator(&mut self) -> anyhow::Result<()> {
        let flags = self.agent_flags();
        let policy = self.path("policy.toml").to_string_lossy().into_owned();
        let mut arguments = vec!["run"];
        arguments.extend(flags.iter().map(String::as_str));
        arguments.extend(["--policy", &policy]);
        self.operator = Some(self.spawn(
            "outhaul-agent",
            "operator",
            &arguments,
            BrokerTerms::default(),
        )?);
        self.has_operated = true;
        Ok(())
    }

    /// Starts the egress process.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_egress(&mut self) -> anyhow::Result<()> {
        let flags = self.agent_flags();
        let mut arguments = vec!["egress"];
        arguments.extend(flags.iter().map(String::as_str));
        self.egress = Some(self.spawn(
            "outhaul-agent",
            "egress",
            &arguments,
            BrokerTerms::default(),
        )?);
        Ok(())
    }

    /// The flags that operator and egress share.
    #[must_use]
    pub fn agent_flags(&self) -> Vec<String> {
        let flag = |name: &str, path: &str| {
            [
                name.to_owned(),
                self.path(path).to_string_lossy().into_owned(),
            ]
        };
        let mut flags = [
            flag("--bundle", "bundle"),
            flag("--state-dir", "operator"),
            flag("--run-dir", "run"),
        ]
        .concat();
        if let Some(socket) = &self.engine_socket {
            flags.extend([
                "--docker-socket".to_owned(),
                socket.to_string_lossy().into_owned(),
            ]);
        }
        flags.extend(self.agent_more.iter().cloned());
        flags
    }

    /// Waits until the broker shows the host as connected.
    pub fn wait_connected(&self) {
        wait::until("the operator to connect", || {
            self.is_connected().then_some(())
        });
    }

    /// Whether the broker shows the host as connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        let hosts = local::get_json(&self.socket(), "/v1/hosts").unwrap_or_default();
        let hosts = hosts
            .get("hosts")
            .and_then(|hosts| hosts.as_array())
            .cloned()
            .unwrap_or_default();
        hosts.iter().any(|host| {
            host.get("name")
                .is_some_and(|name| name == self.host.as_str())
                && host
                    .get("connected")
                    .is_some_and(|connected| connected == true)
        })
    }

    /// Ends the operator at once, as a crash would.
    pub fn kill_operator(&mut self) {
        end(&mut self.operator);
    }

    /// Ends the broker at once, as a crash would.
    pub fn kill_broker(&mut self) {
        end(&mut self.broker);
    }

    /// Ends the broker in order, as a service manager would, and waits until it is gone.
    ///
    /// # Errors
    /// If there is none, or it says that it failed.
    pub fn stop_broker(&mut self) -> anyhow::Result<()> {
        use rustix::process::{Pid, Signal, kill_process};
        let mut child = self.broker.take().context("no broker runs")?;
        kill_process(Pid::from_child(&child), Signal::TERM).context("send SIGTERM")?;
        let status = child.wait().context("wait for the broker")?;
        anyhow::ensure!(status.success(), "the broker ended: {}", self.log("broker"));
        Ok(())
    }

    /// The broker's process id.
    ///
    /// # Errors
    /// If there is no broker.
    pub fn broker_pid(&self) -> anyhow::Result<u32> {
        Ok(self.broker.as_ref().context("no broker runs")?.id())
    }

    /// Whether the broker was started and has ended by itself.
    pub fn broker_has_ended(&mut self) -> bool {
        self.broker
            .as_mut()
            .is_some_and(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// Waits until the broker has ended by itself; with what code.
    ///
    /// # Errors
    /// If there is none.
    pub fn wait_broker_end(&mut self) -> anyhow::Result<Option<i32>> {
        let mut child = self.broker.take().context("no broker runs")?;
        let status = wait::until("the broker to end", || child.try_wait().ok().flatten());
        Ok(status.code())
    }

    /// Has the broker read its files again, as `kill -HUP` does.
    ///
    /// # Errors
    /// If it does not run.
    pub fn hang_up_broker(&self) -> anyhow::Result<()> {
        use rustix::process::{Pid, Signal, kill_process};
        let child = self.broker.as_ref().context("no broker runs")?;
        kill_process(Pid::from_child(child), Signal::HUP).context("send SIGHUP")
    }

    /// The process ids of operator and egress.
    #[must_use]
    pub fn host_side_pids(&self) -> Vec<u32> {
        [&self.operator, &self.egress]
            .into_iter()
            .flatten()
            .map(Child::id)
            .collect()
    }

    /// The broker's local socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path("broker/outhaul.sock")
    }

    /// The command line, ready to run.
    #[must_use]
    pub fn outhaul(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(Programs::get().path("outhaul"));
        command
            .args(arguments)
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("OUTHAUL_SOCKET", self.socket())
            .stdin(Stdio::null());
        command
    }

    /// Runs the command line to its end.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn outhaul_output(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.outhaul(arguments).output().context("run outhaul")
    }

    /// Runs the command line, which must succeed, and gives what it prints.
    ///
    /// # Errors
    /// If it fails; with what it said.
    pub fn outhaul_ok(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.outhaul_output(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(
            output.status.success(),
            "outhaul {}: {said}\n{}",
            arguments.join(" "),
            self.log("operator")
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The user's dispatcher key.
    ///
    /// # Errors
    /// If there is none.
    pub fn dispatcher_key(&self) -> anyhow::Result<Secret<Dispatcher>> {
        let text = fs::read_to_string(self.path("config/outhaul/dispatcher.key"))
            .context("read the dispatcher key")?;
        Secret::from_file_text(&text).context("read the dispatcher key")
    }

    /// The host's current public key, as the broker has it on record.
    ///
    /// # Errors
    /// If it has none.
    pub fn host_key(&self) -> anyhow::Result<Public<Host>> {
        let keys = local::get_json(&self.socket(), &format!("/v1/hosts/{}/keys", self.host))?;
        let keys = keys
            .get("keys")
            .and_then(|keys| keys.as_array())
            .context("no keys")?;
        let newest = keys
            .iter()
            .max_by_key(|key| key.get("generation").and_then(serde_json::Value::as_u64));
        let text = newest
            .and_then(|key| key.get("key"))
            .and_then(|key| key.as_str())
            .context("no key")?;
        text.parse().context("read the host's key")
    }

    /// The host's id.
    ///
    /// # Panics
    /// Never: its name is one.
    #[must_use]
    #[expect(clippy::expect_used, reason = "made above from hexadecimal digits")]
    pub fn host_id(&self) -> HostId {
        HostId::new(&self.host).expect("a host id")
    }

    /// The log of one of the processes.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path("log").join(name)).unwrap_or_default()
    }

    fn spawn(
        &self,
        program: &str,
        log: &str,
        arguments: &[&str],
        terms: BrokerTerms<'_>,
    ) -> anyhow::Result<Child> {
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("log").join(log))?;
        let path = Programs::get().path(program);
        let limits = [
            ("-n", terms.files_max),
            ("-Sn", terms.files_at_first),
            ("-f", terms.file_blocks_max),
        ];
        let limits: Vec<_> = limits
            .into_iter()
            .filter_map(|(flag, files)| Some(format!("ulimit {flag} {}; ", files?)))
            .collect();
        let mut command = if let Some((first, rest)) = terms.under.split_first() {
            let mut under = Command::new(first);
            under.args(rest).arg(path);
            under
        } else if limits.is_empty() {
            Command::new(path)
        } else {
            // The shell makes way for the program, so the process is the same.
            let mut shell = Command::new("/bin/sh");
            let script = format!("{}exec \"$0\" \"$@\"", limits.concat());
            shell.args(["-c", &script]).arg(path);
            shell
        };
        command
            .args(arguments)
            .envs(terms.environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {program}"))
    }
}

impl Drop for World {
    #[expect(clippy::print_stderr, reason = "a failed test is read with its logs")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["broker", "operator", "egress"] {
                eprintln!("--- {name} ---\n{}", self.log(name));
            }
        }
        end(&mut self.operator);
        if self.has_operated {
            docker::remove_containers(&self.host);
        }
        end(&mut self.egress);
        end(&mut self.broker);
    }
}

fn end(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A port that nobody uses now.
///
/// # Errors
/// If the system has none.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn set_mode(path: &Path, mode: u32) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).context("set a mode")
}
