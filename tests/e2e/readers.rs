//! Ordinary MQTT clients, none of them ours: they get what their token opens, and a word when it opens nothing.

use std::process::{Child, Command, Output, Stdio};

use tests::{programs, python, world::World};

/// A broker that lets readers and load tests in, and a token of each.
struct Open {
    world: World,
}

impl Open {
    fn new() -> Self {
        let world = World::with_broker_flags(&["--allow-readers", "--allow-bench"]).unwrap();
        let open = Self { world };
        open.add("load", &["--bench"]);
        open.add("siem", &[]);
        open
    }

    fn add(&self, name: &str, more: &[&str]) {
        let token = self.token_file(name);
        let arguments = [&["reader", "add", name, "--output", &token], more].concat();
        self.world.outhaul_ok(&arguments).unwrap();
    }

    fn token_file(&self, name: &str) -> String {
        let path = self.world.path(&format!("{name}.token"));
        path.to_string_lossy().into_owned()
    }

    fn token(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.token_file(name)).unwrap();
        text.trim().to_owned()
    }

    fn ca(&self) -> String {
        let path = self.world.path("broker/keys/ca.crt");
        path.to_string_lossy().into_owned()
    }

    /// `mosquitto_pub` or `mosquitto_sub` as a reader's user would call it.
    fn mosquitto(&self, program: &str, version: &str, user: &str, more: &[&str]) -> Command {
        // As the README has it: from a file, which only its owner reads, and not as an argument.
        let config = self.world.path(&format!("config-{user}"));
        std::fs::create_dir_all(&config).unwrap();
        let flags = format!("-u {user}\n-P {}\n", self.token(user));
        std::fs::write(config.join(program), flags).unwrap();
        let mut command = Command::new(program);
        command
            .env("XDG_CONFIG_HOME", &config)
            .args(["-h", "localhost", "-p", &self.world.port.to_string()])
            .args(["--cafile", &self.ca(), "-V", version])
            .args(["-q", "1"])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn publish(&self, version: &str, topic: &str, payload: &str) -> Output {
        let mut command = self.mosquitto(
            "mosquitto_pub",
            version,
            "load",
            &["-t", topic, "-m", payload],
        );
        command.output().unwrap()
    }
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

/// Waits for a client that ends by itself.
fn wait(child: Child) -> Output {
    child.wait_with_output().unwrap()
}

#[test]
fn mosquittos_clients_publish_and_hear_over_both_versions() {
    let open = Open::new();
    for version in ["mqttv311", "mqttv5"] {
        // It says what was there before it came, so nobody has to wait for its SUBACK.
        let session = ["-i", "load/1", "-c", "-t", "bench/+/x"];
        let expiry: &[&str] = if version == "mqttv5" {
            &["-x", "600"]
        } else {
            &[]
        };
        let first = [&session[..], expiry, &["-E"]].concat();
        let subscribed = open
            .mosquitto("mosquitto_sub", version, "load", &first)
            .output();
        assert!(subscribed.unwrap().status.success());
        for (topic, payload) in [
            ("bench/a/x", "one"),
            ("bench/a/y", "no"),
            ("bench/b/x", "two"),
        ] {
            let published = open.publish(version, topic, payload);
            assert!(published.status.success(), "{}", text(&published));
        }
        let again = [&session[..], expiry, &["-C", "2", "-W", "30", "-v"]].concat();
        let heard = open
            .mosquitto("mosquitto_sub", version, "load", &again)
            .output()
            .unwrap();
        assert_eq!(text(&heard), "bench/a/x one\nbench/b/x two\n", "{version}");
    }
}

#[test]
fn an_ordinary_client_that_is_refused_is_told() {
    let open = Open::new();
    for (version, password, topic) in [("mqttv311", 5, 7), ("mqttv5", 135, 0)] {
        let mut wrong = Command::new("mosquitto_pub");
        let port = open.world.port.to_string();
        wrong
            .args([
                "-h",
                "localhost",
                "-p",
                &port,
                "--cafile",
                &open.ca(),
                "-V",
                version,
            ])
            .args([
                "-u", "load", "-P", "wrong", "-t", "bench/a", "-m", "x", "-q", "1",
            ]);
        let refused = wrong.output().unwrap();
        assert_eq!(refused.status.code(), Some(password), "{}", text(&refused));
        let denied = open.publish(version, "v1/edge-1/reports", "x");
        assert_eq!(denied.status.code(), Some(topic), "{}", text(&denied));
        let is_told = ["not authorized", "connection was lost"];
        let said = text(&denied).to_lowercase();
        assert!(is_told.iter().any(|word| said.contains(word)), "{said}");
        let filter = ["-t", "#", "-C", "1", "-W", "30"];
        let denied = open
            .mosquitto("mosquitto_sub", version, "siem", &filter)
            .output()
            .unwrap();
        assert!(text(&denied).contains("denied"), "{}", text(&denied));
    }
}

#[test]
fn paho_works_as_documented_over_both_versions() {
    let open = Open::new();
    let script = programs::root().join("tests/e2e/ordinary_client.py");
    let (port, ca, token) = (
        open.world.port.to_string(),
        open.ca(),
        open.token_file("load"),
    );
    for (version, topic, expected) in [
        (
            "3.1.1",
            "bench/a/x",
            "connect=0 message=hello publish=0 qos=1 subscribe=1",
        ),
        (
            "5",
            "bench/a/x",
            "connect=0 message=hello publish=0 qos=1 subscribe=1",
        ),
        ("3.1.1", "v1/+/+/events", "connect=0 subscribe=128"),
        ("5", "v1/+/+/events", "connect=0 subscribe=135"),
    ] {
        let arguments = [&port, &ca, "load", &token, version, topic, "hello"];
        let said = python::run_file(&script, &arguments).unwrap();
        assert_eq!(text(&said).trim(), expected, "{version} {topic}");
    }
}

#[test]
fn a_reader_goes_on_where_it_was_after_the_broker_was_killed() {
    let mut open = Open::new();
    let session = ["-i", "load/1", "-c", "-x", "600", "-t", "bench/#"];
    let first = [&session[..], &["-E"]].concat();
    let subscribed = open
        .mosquitto("mosquitto_sub", "mqttv5", "load", &first)
        .output();
    assert!(subscribed.unwrap().status.success());
    for payload in ["1", "2", "3"] {
        assert!(open.publish("mqttv5", "bench/a", payload).status.success());
    }
    let two = [&session[..], &["-C", "2", "-W", "30"]].concat();
    let heard = open
        .mosquitto("mosquitto_sub", "mqttv5", "load", &two)
        .output()
        .unwrap();
    assert_eq!(text(&heard), "1\n2\n");
    // The client is gone before the broker has seen it go: that is when its place is on disk.
    tests::wait::until("every client to be seen going", || {
        let log = open.world.log("broker");
        (log.matches("disconnected who=reader").count() == 5).then_some(())
    });
    open.world.kill_broker();
    open.world.start_broker().unwrap();
    assert!(open.publish("mqttv5", "bench/a", "4").status.success());
    let rest = [&session[..], &["-C", "2", "-W", "30"]].concat();
    let heard = open
        .mosquitto("mosquitto_sub", "mqttv5", "load", &rest)
        .output()
        .unwrap();
    assert_eq!(text(&heard), "3\n4\n");
}

#[test]
fn a_reader_that_is_removed_is_cut_off_at_once() {
    let open = Open::new();
    let endless = ["-i", "siem", "-t", "v1/+/+/events", "-W", "60"];
    let reader = open
        .mosquitto("mosquitto_sub", "mqttv5", "siem", &endless)
        .spawn()
        .unwrap();
    let socket = open.world.socket();
    tests::wait::until("the reader to be there", || {
        let audit = tests::local::get(&socket, "/v1/audit").ok()?;
        String::from_utf8_lossy(&audit)
            .contains("content.read")
            .then_some(())
    });
    open.world
        .outhaul_ok(&["reader", "remove", "siem"])
        .unwrap();
    // What its exit code is, is its own affair; it ends though it wanted to stay for a minute.
    wait(reader);
    tests::wait::until("the broker to say why", || {
        let log = open.world.log("broker");
        log.contains("disconnected who=reader:siem reason=152")
            .then_some(())
    });
    let mut again = open.mosquitto("mosquitto_sub", "mqttv5", "siem", &endless);
    assert_eq!(again.output().unwrap().status.code(), Some(135));
}

/// Body and status of an HTTPS request with this bearer token.
fn metrics(open: &Open, token: Option<&str>) -> (String, String) {
    let address = format!("https://localhost:{}/metrics", open.world.port);
    let mut curl = Command::new("curl");
    let header = open.world.path("authorization");
    curl.args([
        "-sS",
        "--cacert",
        &open.ca(),
        "-w",
        "\n%{http_code}",
        &address,
    ]);
    if let Some(token) = token {
        std::fs::write(&header, format!("Authorization: Bearer {token}\n")).unwrap();
        curl.args(["-H", &format!("@{}", header.display())]);
    }
    let said = text(&curl.output().unwrap());
    let (body, status) = said.rsplit_once('\n').unwrap();
    (body.to_owned(), status.to_owned())
}

#[test]
fn metrics_are_for_a_reader_that_may_see_them_and_for_nobody_else() {
    let open = Open::new();
    open.add("grafana", &["--may", "metrics"]);
    open.world.add_host().unwrap();
    let (page, status) = metrics(&open, Some(&open.token("grafana")));
    assert_eq!(status, "200");
    for line in [
        "outhaul_ready 1\n",
        // The broker's look at itself, when it made the bundle, and this.
        "outhaul_gate_http_total 2\n",
        &format!("outhaul_host_connected{{host=\"{}\"}} 0\n", open.world.host),
        "outhaul_certificate_not_after_seconds{certificate=\"server\"} ",
        "outhaul_reader_token_not_after_seconds{reader=\"grafana\",kind=\"reader\"} ",
        "outhaul_journal_fsync_seconds_bucket{le=\"+Inf\"} ",
        "outhaul_bench_journal_records_total 0\n",
        "outhaul_router_probe_seconds 0.",
    ] {
        assert!(page.contains(line), "{line} is not in:\n{page}");
    }
    for token in [
        None,
        Some("ort1_x"),
        Some(&*open.token("siem")),
        Some(&*open.token("load")),
    ] {
        let (page, status) = metrics(&open, token);
        assert_eq!((page.as_str(), status.as_str()), ("", "401"));
    }
    let read_locally = tests::local::get(&open.world.socket(), "/v1/metrics").unwrap();
    let refused = "outhaul_gate_tokens_refused_total{why=\"unknown_reader\"} 1\n";
    assert!(String::from_utf8_lossy(&read_locally).contains(refused));
}
