//! Tests of `policy`.

use protocol::{id::SandboxId, key::Secret};

use super::*;

const WHOLE: &str = r#"
images = ["tool:1", "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "x/*"]
pull = "missing"
content = "redacted"
parallel = 2
tolerate = ["swap_limit"]
[limits]
cpus = 2
memory = "2GiB"
pids = 512
scratch = "1GiB"
life = "24h"
[sources]
project = "/srv/project"
"#;

fn policy() -> Policy {
    Policy::parse(WHOLE, "policy.toml").unwrap()
}

fn launch() -> Launch {
    Launch {
        sandbox: SandboxId::new("build-7").unwrap(),
        image: "tool:1".into(),
        arguments: vec![],
        environment: vec![],
        sources: vec![],
        limits: Limits::default(),
        content: Content::Metadata,
        isolation: None,
    }
}

fn source(name: &str) -> SourceName {
    SourceName::new(name).unwrap()
}

#[test]
fn without_a_file_nothing_runs_and_the_refusal_says_why() {
    for policy in [Policy::default(), Policy::parse("", "policy.toml").unwrap()] {
        let refusal = policy.check(&launch(), 0, None).unwrap_err();
        assert_eq!(refusal.rule, Rule::Images);
        assert_eq!(refusal.reason(), Reason::PolicyRefused);
        assert!(
            refusal.to_string().contains("until its owner lists images"),
            "{refusal}"
        );
    }
}

#[test]
fn each_rule_refuses_what_is_past_it_and_nothing_up_to_it() {
    type Change = fn(&mut Launch);
    let allowed: [Change; 6] = [
        |l| l.limits.cpu_millis = 2000,
        |l| l.limits.memory_bytes = 2 << 30,
        |l| l.limits.pids = 512,
        |l| l.limits.scratch_bytes = 1 << 30,
        |l| l.limits.life_s = 86_400,
        |l| l.sources = vec![source("project")],
    ];
    for (index, change) in allowed.iter().enumerate() {
        let mut launch = launch();
        change(&mut launch);
        assert_eq!(
            policy().check(&launch, 1, None).err(),
            None,
            "change {index}"
        );
    }
    let refused: [(Rule, Change); 8] = [
        (Rule::Images, |l| l.image = "tool:2".into()),
        (Rule::Images, |l| l.image = "no reference".into()),
        (Rule::Cpus, |l| l.limits.cpu_millis = 2001),
        (Rule::Memory, |l| l.limits.memory_bytes = (2 << 30) + 1),
        (Rule::Pids, |l| l.limits.pids = 513),
        (Rule::Scratch, |l| l.limits.scratch_bytes = (1 << 30) + 1),
        (Rule::Life, |l| l.limits.life_s = 86_401),
        (Rule::Sources, |l| l.sources = vec![source("other")]),
    ];
    for (rule, change) in refused {
        let mut launch = launch();
        change(&mut launch);
        let refusal = policy().check(&launch, 0, None).unwrap_err();
        assert_eq!(refusal.rule, rule, "{refusal}");
        assert_eq!(refusal.reason(), Reason::PolicyRefused);
    }
}

#[test]
fn a_full_host_is_busy_but_not_for_what_it_would_never_run() {
    assert_eq!(policy().check(&launch(), 1, None).err(), None);
    let full = policy().check(&launch(), 2, None).unwrap_err();
    assert_eq!((full.rule, full.reason()), (Rule::Parallel, Reason::Busy));
    let mut never = launch();
    never.image = "tool:2".into();
    assert_eq!(
        policy().check(&never, 2, None).unwrap_err().rule,
        Rule::Images
    );
}

#[test]
fn an_image_listed_by_id_is_allowed_under_any_name() {
    let mut named = launch();
    named.image = "whatever:3".into();
    let id = format!("sha256:{}", "a".repeat(64));
    assert_eq!(policy().check(&named, 0, Some(&id)).err(), None);
    assert!(policy().check(&named, 0, None).is_err());
}

#[test]
fn a_permit_never_carries_more_content_than_the_cap() {
    for asked in Content::ALL {
        for cap in Content::ALL {
            let mut launch = launch();
            launch.content = *asked;
            let policy = Policy {
                content: *cap,
                ..policy()
            };
            let permit = policy.check(&launch, 0, None).unwrap();
            assert!(permit.content <= *cap && permit.content <= *asked);
            assert!(permit.content == *cap || permit.content == *asked);
        }
    }
}

#[test]
fn a_source_named_twice_is_mounted_once_at_the_owners_path() {
    let mut launch = launch();
    launch.sources = vec![source("project"), source("project")];
    let permit = policy().check(&launch, 0, None).unwrap();
    let expected = BTreeMap::from([(source("project"), PathBuf::from("/srv/project"))]);
    assert_eq!(permit.sources, expected);
}

#[test]
fn a_bad_file_is_refused_with_its_name_and_the_key() {
    for (text, key) in [
        ("image = []", "TOML"),
        ("[limits]\ncpu = 1", "TOML"),
        ("parallel = -1", "TOML"),
        ("parallel = 0", "parallel"),
        ("images = [\"a b\"]", "images"),
        ("pull = \"always\"", "pull"),
        ("content = \"some\"", "content"),
        ("dispatchers = [\"ohh1_x\"]", "dispatchers"),
        ("tolerate = [\"root\"]", "tolerate"),
        ("[limits]\ncpus = 0", "limits.cpus"),
        ("[limits]\nmemory = \"2GB\"", "limits.memory"),
        ("[limits]\npids = 0", "limits.pids"),
        ("[limits]\nscratch = \"1\"", "limits.scratch"),
        ("[limits]\nlife = \"1\"", "limits.life"),
        ("[sources]\nA = \"/srv\"", "sources.A"),
        ("[sources]\na = \"srv\"", "sources.a"),
        ("[sources]\na = \"/srv/../etc\"", "sources.a"),
        ("[sources]\na = \"/\"", "sources.a"),
        ("[sources]\na = \"/var\"", "sources.a"),
        ("[sources]\na = \"/run/user\"", "sources.a"),
        ("[sources]\na = \"/proc/1\"", "sources.a"),
    ] {
        let error = Policy::parse(text, "policy.toml").unwrap_err();
        assert_eq!(error.key, key, "{error}");
        assert!(
            error.to_string().starts_with("read policy policy.toml: "),
            "{error}"
        );
    }
}

#[test]
fn a_source_that_holds_a_secret_is_refused() {
    let state = Path::new("/srv/project/state");
    assert_eq!(
        policy()
            .check_sources(&[Path::new("/var/lib/x")], "p")
            .err(),
        None
    );
    let error = policy()
        .check_sources(&[Path::new("/var/lib/x"), state], "p")
        .unwrap_err();
    assert_eq!(error.key, "sources.project");
    assert!(
        policy().check_sources(&[Path::new("/srv")], "p").is_err(),
        "inside a secret place"
    );
}

#[test]
fn dispatchers_are_read_from_their_text() {
    let key = Secret::<Dispatcher>::from_seed(&[7; 32].into()).public();
    let policy = Policy::parse(&format!("dispatchers = [\"{key}\"]"), "p").unwrap();
    assert_eq!(policy.dispatchers(), [key]);
}

#[test]
fn an_engine_that_lacks_what_the_owner_wants_is_refused_with_a_remedy() {
    let engine = |seccomp, degradations: &[Degradation]| EngineFacts {
        seccomp,
        degradations: degradations.iter().copied().collect(),
        ..EngineFacts::default()
    };
    let policy = policy();
    assert_eq!(policy.check_engine(&engine(true, &[])), Ok(BTreeSet::new()));
    let no_swap = engine(true, &[Degradation::SwapLimit]);
    assert_eq!(
        policy.check_engine(&no_swap),
        Ok(BTreeSet::from([Degradation::SwapLimit]))
    );
    let no_memory = engine(true, &[Degradation::SwapLimit, Degradation::MemoryLimit]);
    let refusal = policy.check_engine(&no_memory).unwrap_err();
    assert_eq!(refusal.rule, Rule::Tolerate);
    assert!(refusal.detail.contains("memory_limit"), "{refusal}");
    assert_eq!(
        policy.check_engine(&engine(false, &[])).unwrap_err().rule,
        Rule::Seccomp
    );
}
