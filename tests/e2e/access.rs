//! Access over HTTPS: what each role may, what a token of one host sees, what is on record, and how it ends.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::Duration,
};

use broker::core::access::{About, Action, Rights, Role};
use protocol::{
    command::{self, Content, Launch, Limits, Order},
    id::{CommandId, HostId, SandboxId},
    key::{Dispatcher, Host, Secret},
};
use serde_json::{Value, json};
use tests::{
    bearer::{Answer, ask},
    docker, enroll, local, wait,
    world::World,
};
use zeroize::Zeroizing;

/// The host that tokens are limited to, and the one that they must not hear of.
const OWN: &str = "edge-own";
const OTHER: &str = "edge-other";

fn host(name: &str) -> HostId {
    HostId::new(name).unwrap()
}

/// A broker that takes access tokens, and two enrolled hosts.
struct Open {
    world: World,
    dispatcher: Secret<Dispatcher>,
}

impl Open {
    fn new() -> Self {
        let world = World::with_broker_flags(&["--allow-access"]).unwrap();
        let dispatcher = Secret::<Dispatcher>::from_seed(&Zeroizing::new([101; 32]));
        enroll::add_dispatcher(&world, &dispatcher).unwrap();
        for (name, seed) in [(OWN, 102), (OTHER, 103)] {
            let key = Secret::<Host>::from_seed(&Zeroizing::new([seed; 32]));
            enroll::enroll(&world, &host(name), &dispatcher, &key, &mut Vec::new()).unwrap();
        }
        Self { world, dispatcher }
    }

    /// Gives access; the file with the token.
    fn give(&self, name: &str, role: &str, more: &[&str]) -> PathBuf {
        let file = self.world.path(&format!("{name}.token"));
        let path = file.to_string_lossy();
        let arguments = ["access", "add", name, "--role", role, "--output", &path];
        let arguments = [&arguments, more].concat();
        self.world.outhaul_ok(&arguments).unwrap();
        file
    }

    fn token(&self, name: &str, role: &str, more: &[&str]) -> String {
        let text = fs::read_to_string(self.give(name, role, more)).unwrap();
        text.trim().to_owned()
    }

    fn ask(&self, token: &str, method: &str, path: &str, body: &[u8]) -> Answer {
        ask(&self.world, Some(token), method, path, body).unwrap()
    }

    fn launch(&self, on: &str, sandbox: &str, id: u8) -> Vec<u8> {
        let now = wait::now();
        let order = Order::Launch(Launch {
            sandbox: SandboxId::new(sandbox).unwrap(),
            image: "web:1".into(),
            arguments: vec![],
            environment: vec![],
            sources: vec![],
            limits: Limits::default(),
            content: Content::Metadata,
            isolation: None,
        });
        let command = command::Command {
            id: CommandId([id; 16]),
            host: host(on),
            issued: now,
            expires: now.plus(Duration::from_secs(600)),
            order,
        };
        command::sign(&self.dispatcher, &command)
    }

    fn audit(&self) -> Vec<(String, String, String)> {
        let audit = local::get_json(&self.world.socket(), "/v1/audit").unwrap();
        let rows = audit["rows"].as_array().unwrap().iter();
        let text = |row: &Value, field: &str| row[field].as_str().unwrap().to_owned();
        rows.map(|row| (text(row, "name"), text(row, "subject"), text(row, "actor")))
            .collect()
    }

    fn metric(&self, series: &str) -> u64 {
        let text = local::get(&self.world.socket(), "/v1/metrics").unwrap();
        let text = String::from_utf8(text).unwrap();
        let found = text.lines().find_map(|line| line.strip_prefix(series));
        found.map_or(0, |value| value.trim().parse().unwrap())
    }

    /// The command line of somebody elsewhere: no socket, a home of their own.
    fn elsewhere(&self, arguments: &[&str]) -> Command {
        let mut command = self.world.outhaul(arguments);
        command
            .env_remove("OUTHAUL_SOCKET")
            .env("XDG_CONFIG_HOME", self.world.path("elsewhere"))
            .env("HOME", self.world.path("elsewhere"));
        command
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.world.port)
    }

    fn ca(&self) -> String {
        let path = self.world.path("broker/keys/ca.crt");
        path.to_string_lossy().into_owned()
    }

    fn log_in(&self, token: &std::path::Path) -> Output {
        let (url, ca) = (self.url(), self.ca());
        let token = token.to_string_lossy();
        let mut login = self.elsewhere(&[
            "login",
            "--url",
            &url,
            "--cafile",
            &ca,
            "--token-file",
            &token,
        ]);
        login.output().unwrap()
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.elsewhere(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.elsewhere(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        said(&output)
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What is asked of an action so that nothing comes of it, if it is let in: nobody is named, and no body is one.
fn harmless(action: Action, on: &str) -> String {
    action
        .path()
        .replace("{host}", on)
        .replace("{sandbox}", "nobody")
        .replace("{key}", "nobody")
        .replace("{name}", "nobody")
}

#[test]
fn over_https_each_role_may_what_the_table_gives_it_and_nothing_else() {
    let open = Open::new();
    for role in Role::ALL {
        for own in [None, Some("edge-nobody")] {
            let name = format!("{role}-{}", own.map_or("all", |_| "one"));
            let more = own.map_or_else(Vec::new, |own| vec!["--host", own]);
            let token = open.token(&name, role.word(), &more);
            let rights = Rights {
                role,
                host: own.map(host),
            };
            for action in Action::ALL {
                let is_given = rights.permit(*action);
                // These do something even if they are told nothing.
                let acts = [Action::RotateCertificates, Action::RetireCertificates];
                if is_given.is_ok() && acts.contains(action) {
                    continue;
                }
                let path = harmless(*action, "edge-nobody");
                let answer = open.ask(&token, action.method(), &path, b"");
                match is_given {
                    Ok(()) => assert!(
                        ![401, 403].contains(&answer.status),
                        "{rights:?} {action:?}: {answer:?}"
                    ),
                    Err(refusal) => {
                        assert_eq!(answer.status, 403, "{rights:?} {action:?}: {answer:?}");
                        let message = answer.json();
                        assert_eq!(message["error"]["message"], refusal.to_string());
                    }
                }
                assert!(
                    answer
                        .head
                        .to_lowercase()
                        .contains("cache-control: no-store")
                );
            }
        }
    }
    // Without a token, and with what is none, nothing is let in, and no more is said than that.
    let reader = open.world.path("siem.token");
    let path = reader.to_string_lossy();
    open.world
        .outhaul_ok(&["reader", "add", "siem", "--output", &path])
        .unwrap();
    let reader = fs::read_to_string(&reader).unwrap();
    let before = open.audit().len();
    for (token, code) in [
        (None, "token_missing"),
        (Some("oat1_x"), "token_unknown"),
        (Some(reader.trim()), "token_unknown"),
    ] {
        for action in Action::ALL {
            let path = harmless(*action, OWN);
            let answer = ask(&open.world, token, action.method(), &path, b"").unwrap();
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (401, code),
                "{action:?}"
            );
            assert!(answer.head.contains("www-authenticate: Bearer"));
        }
    }
    assert_eq!(open.audit().len(), before, "strangers buy no rows");
    let count = u64::try_from(Action::ALL.len()).unwrap();
    for (why, count) in [("no_access", count), ("unknown_access", 2 * count)] {
        let series = format!("outhaul_gate_tokens_refused_total{{why=\"{why}\"}}");
        assert_eq!(open.metric(&series), count, "{why}");
    }
}

#[test]
fn a_token_of_one_host_sees_and_touches_that_one_and_hears_of_no_other() {
    let open = Open::new();
    let own = open.token("own", "admin", &["--host", OWN]);
    let all = open.token("all", "dispatcher", &[]);
    for (number, on) in [(1, OWN), (2, OTHER)] {
        let launch = open.launch(on, &format!("build-of-{on}"), number);
        let answer = open.ask(&all, "POST", "/v1/commands", &launch);
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    let mut heard = Vec::new();
    let mut get = |path: &str| {
        let answer = open.ask(&own, "GET", path, b"");
        heard.extend_from_slice(&answer.body);
        answer
    };
    let hosts = get("/v1/hosts").json();
    assert_eq!(hosts["hosts"].as_array().unwrap().len(), 1);
    assert_eq!(hosts["hosts"][0]["name"], OWN);
    let sandboxes = get("/v1/sandboxes?all=true").json();
    assert_eq!(sandboxes["sandboxes"].as_array().unwrap().len(), 1);
    let records = get("/v1/records?from=0");
    assert!(contains(&records.body, b"build-of-edge-own"), "{records:?}");
    assert_eq!(get(&format!("/v1/hosts/{OWN}/keys")).status, 200);
    // In every list and every stream that it may have.
    for action in Action::ALL {
        if action.method() == "GET" && action.about() != About::InPath {
            get(action.path());
        }
    }
    assert!(
        !contains(&heard, OTHER.as_bytes()),
        "{}",
        String::from_utf8_lossy(&heard)
    );
    // Of a host that is there it hears what it hears of one that is not.
    for path in [
        "/v1/hosts/HOST/keys",
        "/v1/sandboxes/HOST/build-of-HOST",
        "/v1/records?host=HOST",
    ] {
        let [there, nowhere] = [OTHER, "edge-nowhere"].map(|name| {
            let answer = open.ask(&own, "GET", &path.replace("HOST", name), b"");
            (answer.status, answer.json())
        });
        assert_eq!(there, nowhere, "{path}");
        assert_eq!(there.0, 403, "{path}");
    }
    let purge = |name: &str| json!({ "host": name }).to_string().into_bytes();
    let add = |name: &str| {
        let key = open.dispatcher.public().to_string();
        let new = json!({ "name": name, "kind": "docker", "dispatchers": [key], "reissue": true });
        new.to_string().into_bytes()
    };
    let (stranger, mine) = (open.launch(OTHER, "more", 3), open.launch(OWN, "more", 4));
    for (path, body, status) in [
        ("/v1/commands", stranger, 403),
        ("/v1/commands", mine, 202),
        ("/v1/journal/purge", purge(OTHER), 403),
        ("/v1/journal/purge", purge(OWN), 200),
        ("/v1/hosts", add(OTHER), 403),
        ("/v1/hosts", add("edge-new"), 403),
        ("/v1/hosts", add(OWN), 201),
        ("/v1/hosts/edge-other/revoke", vec![], 403),
        ("/v1/hosts/%65dge-other/revoke", vec![], 403),
        ("/v1/hosts/edge-own%2F..%2Fedge-other/revoke", vec![], 403),
        ("/v1/hosts/edge-own/revoke", vec![], 200),
    ] {
        let answer = open.ask(&own, "POST", path, &body);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
    }
    let hosts = local::get_json(&open.world.socket(), "/v1/hosts").unwrap();
    let state = |name: &str| {
        let mut hosts = hosts["hosts"].as_array().unwrap().iter();
        hosts.find(|host| host["name"] == name).unwrap()["state"].clone()
    };
    assert_eq!(
        (state(OWN), state(OTHER)),
        (json!("revoked"), json!("enrolled"))
    );
}

fn contains(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn what_is_done_and_what_is_read_is_on_record_under_its_name() {
    let open = Open::new();
    let ada = open.token("ada", "admin", &[]);
    let launch = open.launch(OWN, "build-1", 1);
    assert_eq!(open.ask(&ada, "POST", "/v1/commands", &launch).status, 202);
    let key = Secret::<Dispatcher>::from_seed(&Zeroizing::new([9; 32])).public();
    let key = json!({ "key": key.to_string(), "name": "second" }).to_string();
    let added = open.ask(&ada, "POST", "/v1/dispatchers", key.as_bytes());
    assert_eq!(added.status, 201);
    let new = json!({ "name": "bob", "role": "viewer", "days": 366 }).to_string();
    let bob = open.ask(&ada, "POST", "/v1/access", new.as_bytes()).json();
    // It ends with the token that made it.
    let own = open.ask(&ada, "GET", "/v1/whoami", b"").json();
    assert_eq!(bob["expires_ms"], own["expires_ms"]);
    for _ in 0..3 {
        open.ask(&ada, "GET", &format!("/v1/records?host={OWN}"), b"");
        open.world.outhaul_ok(&["events"]).unwrap();
    }
    let revoked = open.ask(&ada, "DELETE", "/v1/access/bob", b"");
    assert_eq!(revoked.status, 200);
    let audit = open.audit();
    let me = format!("uid:{}", rustix::process::getuid().as_raw());
    let row = |name: &str, subject: &str, actor: &str| {
        (name.to_owned(), subject.to_owned(), actor.to_owned())
    };
    for expected in [
        row("access.added", "ada", &me),
        row("sandbox.launch_requested", "edge-own/build-1", "token:ada"),
        row("dispatcher.added", "second", "token:ada"),
        row("access.added", "bob", "token:ada"),
        row("content.read", OWN, "token:ada"),
        row("content.read", "*", &me),
        row("access.removed", "bob", "token:ada"),
    ] {
        let count = audit.iter().filter(|found| **found == expected).count();
        assert_eq!(count, 1, "{expected:?} in {audit:#?}");
    }
    // Neither a token nor its hash is anywhere but in its file and, as a hash, in the store.
    let stored = fs::read(open.world.path("broker/state.db")).unwrap();
    let secret = ada.split('_').nth(2).unwrap();
    assert!(!contains(&stored, secret.as_bytes()));
    assert!(!open.world.log("broker").contains(secret));
}

#[test]
fn a_stream_ends_within_seconds_of_its_token_and_whoever_asks_again_hears_why() {
    let open = Open::new();
    let file = open.give("ada", "viewer", &[]);
    assert!(open.log_in(&file).status.success());
    let mut follow = open
        .elsewhere(&["events", "--follow"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait::until("the stream to begin", || {
        let audit = open.audit();
        let is_there = |row: &(String, String, String)| row.0 == "content.read";
        audit.iter().any(is_there).then_some(())
    });
    open.world.outhaul_ok(&["access", "revoke", "ada"]).unwrap();
    let ended = || wait::until("the stream to end", || follow.try_wait().unwrap());
    let (_, took) = wait::timed(ended);
    assert!(took < Duration::from_secs(5), "{took:?}");
    let output = follow.wait_with_output().unwrap();
    assert!(!output.status.success());
    let text = said(&output);
    assert!(
        text.contains("the broker does not know this access token"),
        "{text}"
    );
}

#[test]
fn the_command_line_works_over_https_after_a_login_and_says_what_is_wrong() {
    let open = Open::new();
    let (viewer, admin) = (
        open.give("vera", "viewer", &[]),
        open.give("ada", "admin", &[]),
    );
    let output = open.log_in(&viewer);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("as token:vera (viewer on all hosts, for 30 days)"));
    let kept = open.world.path("elsewhere/outhaul/login.toml");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&kept).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    for arguments in [
        &["host", "list"][..],
        &["ps", "-a"],
        &["events", "--json"],
        &["access", "list"],
        &["reader", "list"],
        &["dispatcher", "list"],
        &["ca", "list"],
        &["journal", "show"],
    ] {
        open.ok(arguments);
    }
    assert!(open.ok(&["host", "list"]).contains(OTHER));
    // A role that does not suffice.
    let refused = open.fails(&["host", "revoke", OTHER]);
    assert!(
        refused.contains("the role viewer does not suffice, this needs admin"),
        "{refused}"
    );
    let backup = open.world.path("backup");
    let refused = open.fails(&["backup", "--to", &backup.to_string_lossy()]);
    assert!(refused.contains("the broker's own machine"), "{refused}");
    // An admin, whose token comes from standard input.
    let (url, ca) = (open.url(), open.ca());
    let mut login = open.elsewhere(&["login", "--url", &url, "--cafile", &ca]);
    login.stdin(fs::File::open(&admin).unwrap());
    assert!(login.output().unwrap().status.success());
    open.ok(&["dispatcher", "init"]);
    let out = open.world.path("new-bundle");
    let out = out.to_string_lossy();
    open.ok(&["host", "add", "edge-new", "--kind", "docker", "--out", &out]);
    assert!(open.world.path("new-bundle/install.key").exists());
    // Flags beside the login: another's token, at the same broker.
    let vera = viewer.to_string_lossy();
    let flags = ["--url", &url, "--token-file", &vera];
    let refused = open.fails(&[&flags, &["host", "revoke", OTHER][..]].concat());
    assert!(refused.contains("viewer does not suffice"), "{refused}");
    // Whom nobody trusts is told nothing, and what is wrong is said.
    let strange = World::with_broker().unwrap();
    let other_ca = strange.path("broker/keys/ca.crt");
    let other_ca = other_ca.to_string_lossy();
    let refused = open.fails(&["ps", "--url", &url, "--cafile", &other_ca]);
    assert!(
        refused.contains("leads to no authority that you trust there"),
        "{refused}"
    );
    let by_number = format!("https://127.0.0.2:{}", open.world.port);
    let refused = open.fails(&[
        "ps",
        "--url",
        &by_number,
        "--cafile",
        &ca,
        "--token-file",
        &vera,
    ]);
    assert!(
        refused.contains("no broker answers") || refused.contains("is for localhost"),
        "{refused}"
    );
    // A broker that takes no tokens.
    let url = format!("https://localhost:{}", strange.port);
    let flags = ["--url", &url, "--cafile", &other_ca, "--token-file", &vera];
    let refused = open.fails(&[&["ps"][..], &flags].concat());
    assert!(
        refused.contains("outhaul serve --allow-access"),
        "{refused}"
    );
    // After a logout it is the socket again.
    open.ok(&["logout"]);
    assert!(!kept.exists());
    let nobody = open.fails(&["ps"]);
    assert!(nobody.contains("no broker answers at"), "{nobody}");
}

/// A broker that takes access tokens, and a host with its operator; sandboxes run.
fn operated() -> World {
    docker::ensure_image().unwrap();
    let mut world = World::with_broker_flags(&["--allow-access"]).unwrap();
    world.add_host().unwrap();
    world.write_policy("").unwrap();
    world.start_egress().unwrap();
    world.start_operator().unwrap();
    world.wait_connected();
    world
}

#[test]
fn a_sandbox_is_launched_followed_and_stopped_over_https() {
    let world = operated();
    let dispatcher = Secret::<Dispatcher>::from_seed(&Zeroizing::new([101; 32]));
    let open = Open { world, dispatcher };
    let key = open.world.path("config/outhaul/dispatcher.key");
    let key = key.to_string_lossy();
    assert!(
        open.log_in(&open.give("ada", "dispatcher", &["--host", &open.world.host]))
            .status
            .success()
    );
    // Verified as over the socket: the host's keys are pinned at first sight here, too.
    let run = ["run", "--dispatcher-key", &key, "--content", "full"];
    let script = ["sh", "-c", "echo one; echo two >&2; exit 7"];
    let run_it = [&run, &["--name", "told", docker::IMAGE, "--"][..], &script].concat();
    let output = open.elsewhere(&run_it).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    assert_eq!(output.stdout, b"one\n");
    assert!(said(&output).contains("two") && said(&output).contains("is pinned in"));
    assert_eq!(open.ok(&["logs", "told"]), "one\n");
    // Ctrl-C asks the host to stop it, over HTTPS as ever.
    let sleep = ["trap 'exit 9' TERM; echo up; while :; do sleep 1; done"];
    let run_it = [
        &run,
        &["--name", "long", docker::IMAGE, "--", "sh", "-c"][..],
        &sleep,
    ]
    .concat();
    let mut child = open
        .elsewhere(&run_it)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
    assert_eq!(&first, b"up\n");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(9), "{}", said(&output));
    let actors: Vec<_> = open
        .audit()
        .into_iter()
        .filter(|row| row.0.starts_with("sandbox.") && row.0.ends_with("_requested"))
        .map(|row| row.2)
        .collect();
    assert_eq!(actors, ["token:ada"; 3]);
}
