//! How a client shows who it is: the one thing that differs between the brokers.

use protocol::{
    key::{Sandbox, Secret},
    mqtt::{Auth, Connect, ReasonCode},
    possession,
};
use zeroize::Zeroizing;

/// Seconds that a client says it may be silent. Longer than any bench leaves one alone.
const KEEP_ALIVE_S: u16 = 60;
/// The authentication method of tokens.
const METHOD: &str = "ace";

/// How a client shows who it is.
#[derive(Clone)]
pub(crate) enum Credential {
    /// It does not: for brokers that are told to let everyone in.
    None,
    /// User name and password. A broker's bearer token goes the same way, as the password.
    Password { user: String, password: String },
    /// A token, and the proof that its key is the client's (MQTT 5 enhanced authentication).
    Ace {
        /// The length before the token, and the token.
        data: Vec<u8>,
        seed: Zeroizing<[u8; 32]>,
    },
}

impl Credential {
    /// A token, and the seed of the key that it names.
    pub(crate) fn ace(token: &[u8], seed: Zeroizing<[u8; 32]>) -> anyhow::Result<Self> {
        let length = u16::try_from(token.len())?;
        let data = [&length.to_be_bytes(), token].concat();
        Ok(Self::Ace { data, seed })
    }

    /// The CONNECT packet.
    pub(crate) fn connect(&self, client_id: &str) -> anyhow::Result<Vec<u8>> {
        let mut connect = Connect::new(client_id, KEEP_ALIVE_S);
        match self {
            Self::None => {}
            Self::Password { user, password } => {
                connect.user_name = Some(user);
                connect.password = Some(password.as_bytes());
            }
            Self::Ace { data, .. } => {
                connect.auth_method = Some(METHOD);
                connect.auth_data = Some(data);
            }
        }
        let mut packet = Vec::new();
        connect
            .encode(&mut packet)
            .map_err(|error| anyhow::anyhow!("encode CONNECT: {error}"))?;
        Ok(packet)
    }

    /// The answer to a challenge.
    pub(crate) fn answer(&self, challenge: &[u8]) -> anyhow::Result<Vec<u8>> {
        let Self::Ace { seed, .. } = self else {
            anyhow::bail!("the broker asks for a proof, and there is no key");
        };
        let challenge = challenge.try_into()?;
        let key = Secret::<Sandbox>::from_seed(seed);
        let proof = possession::prove(&key, &challenge, &[7; 8]);
        let mut packet = Vec::new();
        Auth::new(ReasonCode::CONTINUE_AUTHENTICATION, METHOD, Some(&proof))
            .encode(&mut packet)
            .map_err(|error| anyhow::anyhow!("encode AUTH: {error}"))?;
        Ok(packet)
    }
}
