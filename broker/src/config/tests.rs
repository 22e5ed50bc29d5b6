//! Tests of `config`.

use super::*;

const EXAMPLE: &str = include_str!("../../../deploy/broker.toml");

fn config(toml: &str) -> anyhow::Result<Config> {
    RawConfig::from_toml(toml)?.try_into()
}

/// The example with every `# key = value` and `# [section]` taken out of its comment.
fn uncommented() -> String {
    let line = |line: &str| {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let is_setting = bare.starts_with('[')
            || bare
                .split_once(" = ")
                .is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        if is_setting {
            bare.to_owned()
        } else {
            String::new()
        }
    };
    EXAMPLE.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_parses_as_it_is_and_changes_nothing() {
    let shown = |config: Config| format!("{config:?}");
    assert_eq!(shown(config(EXAMPLE).unwrap()), shown(config("").unwrap()));
}

#[test]
fn every_default_that_the_example_shows_is_the_one_that_holds() {
    // These depend on who runs it and where.
    let raw = RawConfig {
        tls: None,
        data_dir: None,
        socket: None,
        public_address: None,
        workers: None,
        ..RawConfig::from_toml(&uncommented()).unwrap()
    };
    let mut shown: Config = raw.clone().try_into().unwrap();
    assert_eq!(shown.log.take().as_deref(), Some("info"));
    assert_eq!(format!("{shown:?}"), format!("{:?}", config("").unwrap()));
    assert!(raw.listen.is_some() && raw.durability.is_some() && raw.log_format.is_some());
    assert!(raw.recovery_window_hours.is_some() && raw.install_key_hours.is_some());
    assert!(raw.disk_reserve_mib.is_some() && raw.token_life_s.is_some());
    let shown = raw.router.unwrap();
    let known = toml::Table::try_from(router::default_config()).unwrap();
    assert_eq!(
        shown.keys().collect::<Vec<_>>(),
        known.keys().collect::<Vec<_>>(),
        "all of the router's keys"
    );
}

#[test]
fn the_example_shows_every_setting() {
    let example: toml::Table = toml::from_str(&uncommented()).unwrap();
    let error = RawConfig::from_toml("nothing = 1").unwrap_err().to_string();
    let allowed: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
    assert!(allowed.len() > 5, "{error}");
    for key in allowed {
        assert!(
            example.contains_key(key),
            "{key} is not in deploy/broker.toml"
        );
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_name_its_file_and_what_is_allowed() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("broker.toml");
    std::fs::write(&path, "lisen = \"0.0.0.0:1\"\n").unwrap();
    let flags = ServeFlags {
        config: Some(path.clone()),
        ..ServeFlags::default()
    };
    let error = format!("{:#}", Config::load(flags).unwrap_err());
    for part in ["lisen", "listen", path.to_str().unwrap()] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let error = format!(
        "{:#}",
        config("[router]\nmax_conections = 1\n").unwrap_err()
    );
    assert!(
        error.contains("max_conections") && error.contains("max_connections"),
        "{error}"
    );
}

#[test]
fn there_is_a_thread_for_connections_and_no_more_than_make_sense() {
    assert_eq!(config("workers = 7\n").unwrap().workers, 7);
    let processors = std::thread::available_parallelism().unwrap().get();
    let default = config("").unwrap().workers;
    assert_eq!(default, (processors - 1).clamp(1, WORKERS_MAX));
    for wrong in [0, WORKERS_MAX + 1] {
        let error = config(&format!("workers = {wrong}\n")).unwrap_err();
        let expected = format!("workers is {wrong}; allowed is 1 to 256");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn certificates_come_whole_or_not_at_all() {
    let files =
        config("[tls]\ncertificate = \"/a.pem\"\nkey = \"/a.key\"\nauthority = \"/ca.pem\"\n");
    let files = files.unwrap().tls;
    assert_eq!(files.server.unwrap().key, Path::new("/a.key"));
    assert_eq!(files.authority.as_deref(), Some(Path::new("/ca.pem")));
    let announced = config("[tls]\nauthority = \"/ca.pem\"\n").unwrap().tls;
    assert!(announced.server.is_none() && announced.authority.is_some());
    for (toml, says) in [
        ("certificate = \"/a.pem\"", "tls.key is not"),
        ("key = \"/a.key\"", "tls.certificate is not"),
        (
            "certificate = \"/a.pem\"\nkey = \"/a.key\"",
            "tls.authority is not",
        ),
    ] {
        let error = config(&format!("[tls]\n{toml}\n")).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn flags_go_over_the_file_and_the_file_over_defaults() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("broker.toml");
    std::fs::write(
        &path,
        "durability = \"os\"\ninstall_key_hours = 2\n[tls]\nauthority = \"/below.pem\"\ncertificate = \"/c.pem\"\n\
         [router]\nmax_connections = 7\n",
    )
    .unwrap();
    let flags = ServeFlags {
        config: Some(path),
        install_key_hours: Some(3),
        tls_key: Some("/c.key".into()),
        tls_authority: Some("/above.pem".into()),
        ..ServeFlags::default()
    };
    let config = Config::load(flags).unwrap();
    assert_eq!(config.durability, Durability::Os);
    assert_eq!(
        config.tls.authority.as_deref(),
        Some(Path::new("/above.pem"))
    );
    assert!(config.tls.server.is_some(), "one half from each");
    assert_eq!(config.install_key_life, Duration::from_secs(3 * 3600));
    assert_eq!(config.recovery_window, Duration::from_secs(72 * 3600));
    let router = router::default_config();
    assert_eq!(config.router.max_connections, 7);
    assert_eq!(config.router.max_segment_size, router.max_segment_size);
}

#[test]
fn a_value_out_of_bounds_is_refused_with_the_bounds() {
    for (toml, part) in [
        ("durability = \"maybe\"", "fsync"),
        ("recovery_window_hours = 99999", "2160"),
        ("install_key_hours = 0", "1 to 168"),
        ("token_life_s = 19", "20 to 3600"),
        ("token_life_s = 3601", "20 to 3600"),
        ("disk_reserve_mib = 1", "16 to 1048576"),
        ("public_address = \"https://x\"", "public_address"),
        ("log_format = \"xml\"", "json"),
        ("proxy_protocol_from = [\"10.0.0.1/8\"]", "10.0.0.1/8"),
        ("listen = \"8443\"", "listen"),
    ] {
        let error = format!("{:#}", config(toml).unwrap_err());
        assert!(error.contains(part), "{toml}: {error}");
    }
}

#[test]
fn addresses_are_read_and_written_alike() {
    for (text, name, port) in [
        ("Broker.Example:443", "broker.example", 443),
        ("broker", "broker", 0),
        ("192.0.2.7:8443", "192.0.2.7", 8443),
        ("[2001:db8::7]:8443", "2001:db8::7", 8443),
        ("[::1]", "::1", 0),
    ] {
        assert_eq!(
            text.parse(),
            Ok(Authority {
                name: name.into(),
                port
            }),
            "{text}"
        );
    }
    for bad in [
        "", ":1", "a:0", "a:b", "a b:1", "::1", "[::1", "[::1]x", "a:1:2", "a/b:1",
    ] {
        assert_eq!(bad.parse::<Authority>(), Err(BadAuthority), "{bad}");
    }
    let six: Authority = "[::1]:9".parse().unwrap();
    assert_eq!(six.to_string().parse(), Ok(six));
}

#[test]
fn a_guessed_address_is_not_one_that_somebody_set() {
    assert!(!config("").unwrap().is_public_address_set);
    assert!(
        !config("listen = \"192.0.2.7:8443\"")
            .unwrap()
            .is_public_address_set
    );
    // What was said counts, the loopback too: who says it means one machine.
    let said = config("public_address = \"localhost\"").unwrap();
    assert!(said.is_public_address_set);
}

#[test]
fn the_default_address_is_one_that_others_can_use() {
    let of = |listen: &str| default_address(listen.parse().unwrap()).to_string();
    assert_eq!(of("127.0.0.1:1"), "localhost:1");
    assert_eq!(of("192.0.2.7:8443"), "192.0.2.7:8443");
    assert_eq!(of("0.0.0.0:8443"), format!("{}:8443", host_name()));
}
