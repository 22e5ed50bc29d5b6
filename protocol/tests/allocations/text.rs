//! Text that people and programs hand in: keys, ids, topics, subjects. What is refused costs nothing, or a name within it.

use protocol::{
    id::{CommandId, HostId, SandboxId, unhex},
    install_key::InstallKey,
    key::{Dispatcher, Host, Public, Secret},
    limits::ID_BYTES_MAX,
    possession::is_proven,
    reader_token::ReaderToken,
    token::Subject,
    topic::Topic,
};
use zeroize::Zeroizing;

use crate::{cost, sample::secret};

/// Good texts, each broken in every way that is below.
fn good() -> Vec<String> {
    let install_key = InstallKey::new([5; 8], Zeroizing::new([6; 32]));
    let reader_token = ReaderToken::new([5; 8], Zeroizing::new([6; 32]));
    vec![
        reader_token.to_text().to_string(),
        install_key.to_text().to_string(),
        secret::<Host>(1).public().to_string(),
        secret::<Dispatcher>(1).to_file_text().trim().to_owned(),
        "edge-1".into(),
        "v1/edge-1/commands".into(),
        "v1/edge-1/build-7/events".into(),
        "edge-1/build-7".into(),
        CommandId([7; 16]).to_string(),
        String::new(),
    ]
}

fn hostile() -> Vec<String> {
    let mut all = Vec::new();
    for good in good() {
        for filling in ["a", "_", "/", "0", "é", "\0", "ohk1_", "ort1_", "z/"] {
            let filling = filling.repeat(60_000 / filling.len());
            all.push(format!("{good}{filling}"));
            all.push(format!("{filling}{good}"));
            all.push(format!("{good}/{filling}"));
            all.push(filling);
        }
        for (end, _) in good.char_indices() {
            all.push(good[..end].to_owned());
            all.push(format!("{}é{}", &good[..end], &good[end..]));
            all.push(format!("{}\0{}", &good[..end], &good[end..]));
        }
        all.push(format!("{good}{good}"));
    }
    all
}

#[test]
fn text_that_is_no_key_no_id_and_no_topic_costs_a_name_at_the_most() {
    /// A host's and a sandbox's.
    const NAMES_BYTES_MAX: u64 = 2 * ID_BYTES_MAX as u64;
    for text in hostile() {
        let start: String = text.chars().take(40).collect();
        let free = |what: &str, read: &dyn Fn() -> bool| {
            let (taken, cost) = cost::of(read);
            assert!(taken || cost.count == 0, "{what} {start:?}: {cost:?}");
        };
        free("install key", &|| InstallKey::from_text(&text).is_ok());
        free("reader token", &|| ReaderToken::from_text(&text).is_ok());
        free("public key", &|| text.parse::<Public<Host>>().is_ok());
        free("secret key", &|| {
            Secret::<Dispatcher>::from_file_text(&text).is_ok()
        });
        free("host", &|| HostId::new(&text).is_ok());
        free("sandbox", &|| SandboxId::new(&text).is_ok());
        free("digits", &|| unhex::<16>(&text).is_some());
        let (_, cost) = cost::of(|| Topic::parse(&text));
        assert!(cost.total <= NAMES_BYTES_MAX, "topic {start:?}: {cost:?}");
        let (_, cost) = cost::of(|| Subject::parse(&text));
        assert!(cost.total <= NAMES_BYTES_MAX, "subject {start:?}: {cost:?}");
    }
}

#[test]
fn a_proof_of_possession_of_any_length_costs_nothing() {
    let holder = secret::<Host>(1).public().as_holder();
    for length in 0..200 {
        let proof = vec![7; length];
        let (proven, cost) = cost::of(|| is_proven(&holder, &[1; 8], &proof));
        assert!(!proven && cost.count == 0, "{length} bytes: {cost:?}");
    }
}
