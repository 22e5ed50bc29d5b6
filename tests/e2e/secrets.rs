//! Everything that leaves, everything that is written and everything that can be looked at is searched for secrets.
//!
//! The programs we ship run as they are shipped, at their most talkative, with a real engine. A wiretap inside TLS stands before the broker
//! (hosts, shims, readers and the command line dial it), and what it hears is searched with the logs, the audit trail, the broker's store and
//! journal, a backup, what the engine says of containers, and the environments and arguments of every process of the machine.
//!
//! What is excepted, and nothing else: a secret that its owner presents to the broker, in the direction and the protocol in which it is
//! presented; see [`Planted::allowed`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use agent::shell::store::read_identity;
use protocol::{
    cbor,
    exchange::Proof,
    id::hex,
    install_key::InstallKey,
    key::{Dispatcher, Secret},
};
use tests::{
    docker, local,
    secrets::Secrets,
    sse::Curl,
    wait,
    wiretap::Wiretap,
    world::{World, free_port},
};

/// What of a sandbox's output may leave its host.
const MODES: [&str; 3] = ["metadata", "redacted", "full"];

/// A secret, in the forms it has, and where it may be heard or found: names of places below the evidence.
struct Planted {
    secret: Secrets,
    /// Prefixes of paths. Everything else is forbidden.
    allowed: &'static [&'static str],
    /// The search is no search if it does not find what must be there.
    expected: &'static [&'static str],
}

/// What is heard: to the broker or from it, over MQTT or HTTPS.
const MQTT_UP: &str = "heard/mqtt-up";
const MQTT_DOWN: &str = "heard/mqtt-down";
const HTTP_UP: &str = "heard/http-up";
const HTTP_DOWN: &str = "heard/http-down";
/// Where events are kept.
const JOURNAL: &str = "store/journal";
const BACKUP: &str = "backup/journal";

#[derive(Default)]
struct Plot(BTreeMap<String, Planted>);

impl Plot {
    /// One that may be nowhere.
    fn never(&mut self, name: &str, forms: &[Vec<u8>]) {
        self.add(name, forms, &[], &[]);
    }

    /// One that its owner presents.
    fn presented(&mut self, name: &str, forms: &[Vec<u8>], at: &'static [&'static str]) {
        self.add(name, forms, at, at);
    }

    fn add(
        &mut self,
        name: &str,
        forms: &[Vec<u8>],
        allowed: &'static [&'static str],
        expected: &'static [&'static str],
    ) {
        let mut secret = Secrets::default();
        secret.extend(forms);
        let planted = Planted {
            secret,
            allowed,
            expected,
        };
        let before = self.0.insert(name.to_owned(), planted);
        assert!(before.is_none(), "two secrets called {name}");
    }

    /// A key file of ours: its text, and the seed in it.
    fn key_file(&mut self, name: &str, path: &Path) {
        let text = fs::read_to_string(path).unwrap();
        self.key_text(name, &text);
    }

    fn key_text(&mut self, name: &str, text: &str) {
        let digits = text.trim().rsplit('_').next().unwrap();
        let seed: Vec<u8> = (0..digits.len() / 2)
            .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        assert_eq!(seed.len(), 32, "{name}");
        self.never(name, &[seed, digits.as_bytes().to_vec()]);
    }

    /// A key as PEM: every whole line of it.
    fn pem_file(&mut self, name: &str, path: &Path) {
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('-')).collect();
        // What comes first says which kind of key it is, and is no secret.
        let forms: Vec<_> = lines[1..]
            .iter()
            .filter(|line| line.len() >= 32)
            .map(|line| line.as_bytes().to_vec())
            .collect();
        assert!(!forms.is_empty(), "{name}");
        self.never(name, &forms);
    }

    /// Judges the evidence below `root`.
    fn judge(&self, root: &Path) {
        let mut wrong = Vec::new();
        for (name, planted) in &self.0 {
            let found = planted.secret.files_below(&[root]).unwrap();
            let places: Vec<String> = found
                .iter()
                .map(|(path, _)| {
                    path.strip_prefix(root)
                        .unwrap()
                        .to_string_lossy()
                        .into_owned()
                })
                .collect();
            let is_allowed = |place: &String| {
                planted
                    .allowed
                    .iter()
                    .any(|prefix| place.starts_with(prefix))
            };
            for place in places.iter().filter(|place| !is_allowed(place)) {
                wrong.push(format!("{name} is in {place}"));
            }
            for prefix in planted.expected {
                if !places.iter().any(|place| place.starts_with(prefix)) {
                    wrong.push(format!("{name} is not in {prefix}, where it was presented"));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    fn count(&self, name: &str, root: &Path) -> usize {
        let found = self.0[name].secret.files_below(&[root]).unwrap();
        found.iter().map(|(_, count)| count).sum()
    }
}

fn random() -> String {
    let mut bytes = [0; 24];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes))
        .unwrap();
    hex(&bytes)
}

/// A child that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every token that a sandbox was given: the operator puts a fresh one in the place of the last.
struct Tokens {
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<BTreeSet<Vec<u8>>>,
}

impl Tokens {
    fn watch(path: PathBuf) -> Self {
        let stopping = Arc::<AtomicBool>::default();
        let until = Arc::clone(&stopping);
        let thread = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !until.load(Ordering::Relaxed) {
                // The first two follow each other at once: so without a pause.
                if let Ok(token) = fs::read(&path) {
                    seen.insert(token);
                }
                std::thread::yield_now();
            }
            seen
        });
        Self { stopping, thread }
    }

    fn end(self) -> Vec<Vec<u8>> {
        self.stopping.store(true, Ordering::Relaxed);
        self.thread.join().unwrap().into_iter().collect()
    }
}

/// The world, the wiretap, and what is known of secrets so far.
struct Stage {
    world: World,
    tap: Wiretap,
    plot: Plot,
    evidence: PathBuf,
}

impl Stage {
    fn new() -> Self {
        docker::ensure_image().unwrap();
        let mut world = World::empty().unwrap();
        let listens = free_port().unwrap();
        world.listen_port = Some(listens);
        let trace = ["--log", "trace"].map(str::to_owned);
        world.agent_more = trace.to_vec();
        world.broker_flags = ["--allow-access", "--allow-readers"]
            .map(str::to_owned)
            .to_vec();
        world.broker_flags.extend(trace);
        world.start_broker().unwrap();
        let tap = Wiretap::start(world.port, listens, &world.path("broker/keys")).unwrap();
        let evidence = world.path("evidence");
        for place in ["heard", "engine", "processes", "logs", "store", "backup"] {
            fs::create_dir_all(evidence.join(place)).unwrap();
        }
        Self {
            world,
            tap,
            plot: Plot::default(),
            evidence,
        }
    }

    /// A host whose policy lets everything out, with its operator.
    fn add_host(&mut self) {
        self.world.add_host().unwrap();
        let text = fs::read_to_string(self.world.path("bundle/install.key")).unwrap();
        let key = InstallKey::from_text(&text).unwrap();
        let proof = cbor::to_vec(&Proof::InstallKey((&key).into()));
        let forms = [text.trim().as_bytes().to_vec(), proof];
        self.plot.presented("the install key", &forms, &[HTTP_UP]);
        let plant = self.world.path("plant");
        fs::create_dir(&plant).unwrap();
        for mode in MODES {
            let secret = random();
            fs::write(plant.join(mode), format!("{secret}\n")).unwrap();
            let name = format!("what a command prints under {mode}");
            let forms = [secret.into_bytes()];
            if mode == "full" {
                let to = &[MQTT_UP, MQTT_DOWN, HTTP_DOWN, JOURNAL, BACKUP];
                self.plot.presented(&name, &forms, to);
            } else {
                self.plot.never(&name, &forms);
            }
        }
        let policy = format!(
            "images = [\"{}\"]\ncontent = \"full\"\n[sources]\nplant = \"{}\"\n",
            docker::IMAGE,
            plant.display()
        );
        fs::write(self.world.path("policy.toml"), policy).unwrap();
        self.world.start_egress().unwrap();
        self.world.start_operator().unwrap();
        self.world.wait_connected();
        let identity = read_identity(&self.world.path("operator")).unwrap();
        let current = identity.unwrap().current.unwrap();
        self.plot
            .key_text("the host's key", &current.key.to_file_text());
        self.plot.presented(
            "the connection token",
            &[current.token],
            &[HTTP_DOWN, MQTT_UP],
        );
    }

    fn token(&self, of: &str, arguments: &[&str]) -> String {
        let file = self.world.path(&format!("{of}.token"));
        let path = file.to_string_lossy();
        let arguments = [arguments, &["--output", &path]].concat();
        self.world.outhaul_ok(&arguments).unwrap();
        fs::read_to_string(&file).unwrap().trim().to_owned()
    }

    /// The command line of somebody elsewhere, who has a token and a dispatcher key.
    fn elsewhere(&self, arguments: &[&str]) -> Command {
        let mut command = self.world.outhaul(arguments);
        command
            .env_remove("OUTHAUL_SOCKET")
            .env("XDG_CONFIG_HOME", self.world.path("elsewhere"))
            .env(
                "OUTHAUL_URL",
                format!("https://localhost:{}", self.world.port),
            )
            .env("OUTHAUL_CAFILE", self.world.path("broker/keys/ca.crt"))
            .env("OUTHAUL_TOKEN_FILE", self.world.path("ada.token"))
            .env(
                "OUTHAUL_DISPATCHER_KEY",
                self.world.path("config/outhaul/dispatcher.key"),
            );
        command
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) {
        let output = self.elsewhere(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
    }

    /// A reader over MQTT, its token in a file as the README has it.
    fn mosquitto(&self, token: &str) -> Running {
        let config = self.world.path("mosquitto");
        fs::create_dir_all(&config).unwrap();
        fs::write(
            config.join("mosquitto_sub"),
            format!("-u siem\n-P {token}\n"),
        )
        .unwrap();
        let ca = self.world.path("broker/keys/ca.crt");
        let child = Command::new("mosquitto_sub")
            .env("XDG_CONFIG_HOME", &config)
            .args([
                "-h",
                "localhost",
                "-p",
                &self.world.port.to_string(),
                "--cafile",
            ])
            .arg(ca)
            .args([
                "-i",
                "siem",
                "-V",
                "mqttv5",
                "-q",
                "1",
                "-t",
                "v1/+/+/events",
            ])
            .args(["-t", "v1/+/reports"])
            .stdout(Stdio::null())
            .spawn();
        Running(child.unwrap())
    }

    fn state_of(&self, sandbox: &str) -> String {
        let path = format!("/v1/sandboxes/{}/{sandbox}", self.world.host);
        let found = local::get_json(&self.world.socket(), &path).unwrap_or_default();
        found["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Runs a sandbox whose command prints what it must not, under one content policy, and looks at everything while it does.
    fn run(&mut self, mode: &str) {
        let script = format!("cat /sources/plant/{mode}; cat /sources/plant/{mode} >&2; sleep 600");
        let host = self.world.host.clone();
        let tokens = Tokens::watch(self.world.path(&format!("run/{mode}/in/token")));
        self.ok(&[
            "run",
            "--detach",
            "--host",
            &host,
            "--name",
            mode,
            "--content",
            mode,
            "--source",
            "plant",
            docker::IMAGE,
            "--",
            "sh",
            "-c",
            &script,
        ]);
        wait::until("the sandbox to run", || {
            (self.state_of(mode) == "running").then_some(())
        });
        let mut follow = self.elsewhere(&["logs", "-f", mode]);
        let follow = follow.stdout(Stdio::null()).stderr(Stdio::null());
        let _follow = Running(follow.spawn().unwrap());
        for (number, container) in docker::containers(&host).iter().enumerate() {
            for what in ["inspect", "logs"] {
                let output = Command::new("docker")
                    .args([what, container])
                    .output()
                    .unwrap();
                let said = [output.stdout, output.stderr].concat();
                let file = format!("engine/{mode}-{number}-{what}");
                fs::write(self.evidence.join(file), said).unwrap();
            }
        }
        self.look_at_processes(mode);
        // Whatever it printed is sealed and sent when it has ended.
        self.ok(&["stop", "--grace", "1s", mode]);
        wait::until("the sandbox to have ended", || {
            docker::containers(&host).is_empty().then_some(())
        });
        self.ok(&["logs", mode]);
        // Whichever of them it presented, and all of them nowhere else.
        let name = format!("the sandbox's tokens under {mode}");
        self.plot.presented(&name, &tokens.end(), &[MQTT_UP]);
    }

    /// The environment and the arguments of every process of the machine: ours, the engine's, the sandbox's, its command's.
    fn look_at_processes(&self, mode: &str) {
        let mut seen = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let pid = entry.file_name().to_string_lossy().into_owned();
            if !pid.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            for what in ["cmdline", "environ"] {
                // One that has ended meanwhile has neither.
                let Ok(bytes) = fs::read(entry.path().join(what)) else {
                    continue;
                };
                if what == "cmdline" {
                    seen.push(String::from_utf8_lossy(&bytes).into_owned());
                }
                let file = format!("processes/{mode}-{pid}-{what}");
                fs::write(self.evidence.join(file), bytes).unwrap();
            }
        }
        let dir = self.world.dir.path().to_string_lossy().into_owned();
        for ours in [
            "outhaul\0serve",
            "outhaul-agent\0run",
            "outhaul-agent\0egress",
        ] {
            let is_it = |line: &&String| line.contains(ours) && line.contains(&dir);
            assert!(
                seen.iter().any(|line| is_it(&line)),
                "{ours:?} was looked at"
            );
        }
        let inside = format!("cat /sources/plant/{mode}");
        assert!(
            seen.iter().any(|line| line.contains(&inside)),
            "the command was looked at"
        );
    }

    /// Writes down what is left to be searched.
    fn gather(&mut self) {
        let audit = local::get(&self.world.socket(), "/v1/audit").unwrap();
        fs::write(self.evidence.join("logs/audit.json"), audit).unwrap();
        self.world.stop_broker().unwrap();
        self.world.kill_operator();
        for (number, heard) in self.tap.heard().iter().enumerate() {
            let speech = if heard.is_http() { "http" } else { "mqtt" };
            for (way, bytes) in [("up", &heard.up), ("down", &heard.down)] {
                let file = format!("heard/{speech}-{way}-{number}");
                fs::write(self.evidence.join(file), bytes).unwrap();
            }
        }
        // The egress process has no more to say than that it is there.
        for (name, word) in [
            ("broker", "TRACE"),
            ("operator", "DEBUG"),
            ("egress", "INFO"),
        ] {
            let log = self.world.log(name);
            assert!(log.contains(word), "{name} says all it can");
            fs::write(self.evidence.join("logs").join(name), log).unwrap();
        }
        // All but the keys, which are there to hold theirs.
        copy_without_keys(&self.world.path("broker"), &self.evidence.join("store"));
        copy_without_keys(&self.world.path("backup"), &self.evidence.join("backup"));
    }
}

fn copy_without_keys(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let target = to.join(&name);
        match entry.file_type().unwrap() {
            kind if kind.is_dir() && name != "keys" => copy_without_keys(&path, &target),
            kind if kind.is_file() => {
                fs::copy(&path, &target).unwrap();
            }
            _ => {}
        }
    }
}

#[test]
fn none_of_our_secrets_is_anywhere_and_a_commands_own_under_full_alone() {
    let mut stage = Stage::new();
    stage.add_host();
    let keys = stage.world.path("broker/keys");
    for entry in fs::read_dir(&keys).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        match name.as_str() {
            "issuer.key" | "audit.key" => stage.plot.key_file(&name, &entry.path()),
            _ if name.ends_with(".key") => stage.plot.pem_file(&name, &entry.path()),
            _ => {}
        }
    }
    let dispatcher: Secret<Dispatcher> = stage.world.dispatcher_key().unwrap();
    stage
        .plot
        .key_text("the dispatcher's key", &dispatcher.to_file_text());
    let siem = stage.token("siem", &["reader", "add", "siem"]);
    let forms = [siem.clone().into_bytes()];
    let presented = &[MQTT_UP, HTTP_UP];
    stage.plot.presented("a reader's token", &forms, presented);
    let ada = stage.token("ada", &["access", "add", "ada", "--role", "dispatcher"]);
    let forms = [ada.into_bytes()];
    stage.plot.presented("an access token", &forms, &[HTTP_UP]);
    let bob = stage.token("bob", &["access", "add", "bob", "--role", "admin"]);
    stage
        .plot
        .never("an access token that is not used", &[bob.into_bytes()]);
    let passphrase = random();
    let file = stage.world.path("passphrase");
    fs::write(&file, format!("{passphrase}\n")).unwrap();
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&file, closed).unwrap();
    stage
        .plot
        .never("the backup's passphrase", &[passphrase.into_bytes()]);
    let header = stage.world.path("siem.header");
    fs::write(&header, format!("Authorization: Bearer {siem}")).unwrap();
    let _events = Curl::begin(&stage.world, &header, "", None).unwrap();
    let _reader = stage.mosquitto(&siem);
    for mode in MODES {
        stage.run(mode);
    }
    let path = |name: &str| stage.world.path(name).to_string_lossy().into_owned();
    let (to, keys_to, passphrase) = (path("backup"), path("keys.sealed"), path("passphrase"));
    let backup = [
        "backup",
        "--to",
        &to,
        "--keys-to",
        &keys_to,
        "--passphrase-file",
        &passphrase,
    ];
    stage.world.outhaul_ok(&backup).unwrap();
    // What is told at last has come: the readers have all that was printed.
    wait::until("the readers to have it", || {
        let full = &stage.plot.0["what a command prints under full"].secret;
        let place = tempfile::tempdir().unwrap();
        let mut heard = Vec::new();
        for one in stage.tap.heard().iter().filter(|one| !one.is_http()) {
            heard.extend_from_slice(&one.down);
        }
        fs::write(place.path().join("down"), heard).unwrap();
        let found = full.files_below(&[place.path()]).unwrap();
        (!found.is_empty()).then_some(())
    });
    stage.gather();
    stage.plot.judge(&stage.evidence);
    // Shown to the broker that made it, once.
    let heard = stage.evidence.join("heard");
    assert_eq!(stage.plot.count("the install key", &heard), 1);
}
