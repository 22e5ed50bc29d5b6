//! `outhaul login` and `logout`: which broker on the network this user talks to, whom to trust there, and with what token.

use std::{
    io::{IsTerminal as _, Read as _},
    path::PathBuf,
};

use anyhow::{Context as _, bail, ensure};
use protocol::access_token::ACCESS_TOKEN_BYTES_MAX;
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    Context,
    client::Client,
    passphrase, place,
    reach::{Reach, Remote, Url, read_ca},
};
use crate::shell::{clock, keys::read_secret};

/// The file's name in the configuration directory.
const FILE: &str = "login.toml";
/// The longest file read, in bytes: a token and some authorities.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// The longest text that may hold a token, in bytes.
const TOKEN_TEXT_BYTES_MAX: u64 = 4 * ACCESS_TOKEN_BYTES_MAX as u64;

/// Which broker a command is for, as flags and variables say.
#[derive(Debug, clap::Args)]
pub(super) struct Where {
    /// The broker's URL, to reach it over HTTPS [default: that of `outhaul login`]
    #[arg(long, global = true, env = "OUTHAUL_URL", value_name = "URL")]
    pub(super) url: Option<Url>,
    /// The authorities to trust at the URL, PEM [default: those of `outhaul login`]
    #[arg(long, global = true, env = "OUTHAUL_CAFILE", value_name = "FILE")]
    pub(super) cafile: Option<PathBuf>,
    /// A file that holds the access token to show there [default: that of `outhaul login`]
    #[arg(long, global = true, env = "OUTHAUL_TOKEN_FILE", value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
}

/// What is kept of a login.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    url: String,
    /// PEM.
    authority: String,
    token: String,
}

impl Drop for Login {
    fn drop(&mut self) {
        use zeroize::Zeroize as _;
        self.token.zeroize();
    }
}

/// Which broker: a URL, else a socket, else the login, else the socket of this user's own broker.
pub(super) fn reach(
    asked: &Where,
    socket: Option<PathBuf>,
    environment: &place::Environment,
) -> anyhow::Result<Reach> {
    if let (Some(url), Some(socket)) = (&asked.url, &socket) {
        bail!(
            "which broker? Both the URL {url} and the socket {} are named: leave one out (the variables OUTHAUL_URL and OUTHAUL_SOCKET \
             count too)",
            socket.display()
        );
    }
    if let Some(socket) = socket {
        return Ok(Reach::Socket(socket));
    }
    let login = read(environment)?;
    let Some(url) = &asked.url else {
        let Some(login) = login else {
            return Ok(Reach::Socket(environment.socket()));
        };
        let url = login.url.parse().map_err(anyhow::Error::msg)?;
        return remote(url, asked, Some(&login)).map(Reach::Https);
    };
    // What was kept is for its own broker only: no other is shown that token.
    let login = login.filter(|login| login.url == url.to_string());
    remote(url.clone(), asked, login.as_ref()).map(Reach::Https)
}

fn remote(url: Url, asked: &Where, login: Option<&Login>) -> anyhow::Result<Remote> {
    let authority = match (&asked.cafile, login) {
        (Some(path), _) => read_ca(path)?,
        (None, Some(login)) => login.authority.clone(),
        (None, None) => bail!(
            "whom to trust at {url}? Name the broker's authority with --cafile: `outhaul ca list --pem` on its machine prints it"
        ),
    };
    let token = match (&asked.token_file, login) {
        (Some(path), _) => read_token(path)?,
        (None, Some(login)) => Zeroizing::new(login.token.clone()),
        (None, None) => bail!(
            "what to show at {url}? Name a file with an access token (--token-file), or `outhaul login` first; the broker's owner makes one \
             with `outhaul access add NAME`"
        ),
    };
    Remote::new(url, authority.as_bytes(), &token)
}

fn read_token(path: &std::path::Path) -> anyhow::Result<Zeroizing<String>> {
    read_secret(path)?.with_context(|| {
        format!(
            "read access token {}: there is no such file",
            path.display()
        )
    })
}

/// Who the broker says that we are.
#[derive(Debug, Deserialize, Serialize)]
struct Told {
    actor: String,
    role: Option<String>,
    host: Option<String>,
    expires_ms: Option<u64>,
}

/// Asks the broker whether it takes the token, and keeps it.
pub(super) async fn login(context: &Context, asked: &Where) -> anyhow::Result<u8> {
    let Some(url) = asked.url.clone() else {
        bail!(
            "log in where? Name the broker: `outhaul login --url https://broker.example:8443 --cafile ca.crt`"
        );
    };
    let Some(cafile) = &asked.cafile else {
        bail!(
            "whom to trust at {url}? Name the broker's authority with --cafile: `outhaul ca list --pem` on its machine prints it"
        );
    };
    let authority = read_ca(cafile)?;
    let token = match &asked.token_file {
        Some(path) => read_token(path)?,
        None => ask_token()?,
    };
    let remote = Remote::new(url.clone(), authority.as_bytes(), &token)?;
    let client = Client::through(Reach::Https(remote));
    let told: Told = client
        .get("/v1/whoami")
        .await
        .with_context(|| format!("log in at {url}"))?;
    let path = write(
        &context.environment,
        &Login {
            url: url.to_string(),
            authority,
            token: token.trim().to_owned(),
        },
    )?;
    if context.output.is_json() {
        context
            .output
            .json(&json!({ "url": url.to_string(), "path": path, "as": told }))?;
        return Ok(0);
    }
    let role = told.role.as_deref().unwrap_or("owner");
    let host = told.host.map_or_else(
        || "on all hosts".to_owned(),
        |host| format!("on host {host}"),
    );
    let end = told.expires_ms.map_or_else(String::new, |ms| {
        let left = ms.saturating_sub(clock::unix().0);
        format!(", for {} days", left.div_ceil(86_400_000))
    });
    context.output.remark(&format!(
        "logged in at {url} as {} ({role} {host}{end}); kept in {}, which holds the token: nobody else may read it",
        told.actor,
        path.display()
    ))?;
    Ok(0)
}

/// From standard input, or typed at the terminal without being shown.
fn ask_token() -> anyhow::Result<Zeroizing<String>> {
    let mut stdin = std::io::stdin();
    if stdin.is_terminal() {
        return passphrase::ask("Access token: ");
    }
    let mut text = Zeroizing::new(String::new());
    let mut bounded = std::io::Read::by_ref(&mut stdin).take(TOKEN_TEXT_BYTES_MAX);
    bounded
        .read_to_string(&mut text)
        .context("read the access token from standard input")?;
    Ok(text)
}

/// Forgets the login. The token stays good until it ends or is revoked.
pub(super) fn logout(context: &Context) -> anyhow::Result<u8> {
    let path = context.environment.config_dir()?.join(FILE);
    match std::fs::remove_file(&path) {
        Ok(()) => context.output.remark(&format!(
            "removed {}; its token is good until it ends, or its broker's owner revokes it (`outhaul access revoke NAME`)",
            path.display()
        ))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            context.output.remark("you were not logged in anywhere")?;
        }
        Err(error) => {
            return Err(error).with_context(|| format!("remove {}", path.display()));
        }
    }
    Ok(0)
}

fn read(environment: &place::Environment) -> anyhow::Result<Option<Login>> {
    // Without a home there is no login.
    let Ok(directory) = environment.config_dir() else {
        return Ok(None);
    };
    let path = directory.join(FILE);
    if !place::is_taken(&path) {
        return Ok(None);
    }
    let context = || format!("read {} (`outhaul logout` removes it)", path.display());
    let length = path.metadata().with_context(context)?.len();
    ensure!(length <= FILE_BYTES_MAX, "{}: too long", context());
    let text = read_secret(&path)
        .with_context(context)?
        .unwrap_or_default();
    // Nothing of what is in it may be in the error.
    let login =
        toml::from_str(&text).map_err(|_| anyhow::anyhow!("{}: it is damaged", context()))?;
    Ok(Some(login))
}

fn write(environment: &place::Environment, login: &Login) -> anyhow::Result<PathBuf> {
    let directory = environment.config_dir()?;
    place::make_private_dir(&directory)?;
    let path = directory.join(FILE);
    let text = Zeroizing::new(toml::to_string(login).context("encode login")?);
    // Two commands at once each have a draft of their own; the last one counts.
    let draft = directory.join(format!("{FILE}.{}", std::process::id()));
    let written = place::write_new(&draft, 0o600, text.as_bytes())
        .and_then(|()| {
            std::fs::rename(&draft, &path).with_context(|| format!("replace {}", path.display()))
        })
        .and_then(|()| place::sync_dir(&directory));
    if written.is_err() {
        // What is left is no login.
        let _ = std::fs::remove_file(&draft);
    }
    written.map(|()| path)
}

/// How long until a token ends, for a list.
pub(super) fn ends(expires_ms: u64, now_ms: u64) -> String {
    if expires_ms <= now_ms {
        "ended".to_owned()
    } else {
        format!("in {} days", (expires_ms - now_ms).div_ceil(86_400_000))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn nothing() -> Where {
        Where {
            url: None,
            cafile: None,
            token_file: None,
        }
    }

    fn kept() -> Login {
        Login {
            url: "https://broker.example:8443".to_owned(),
            authority: "not looked at here".to_owned(),
            token: "oat1_secret".to_owned(),
        }
    }

    #[test]
    fn a_login_is_kept_for_its_owner_alone_and_read_back() {
        let place = tempfile::tempdir().unwrap();
        let environment = place::Environment::in_dir(place.path());
        assert!(read(&environment).unwrap().is_none());
        for _ in 0..2 {
            let path = write(&environment, &kept()).unwrap();
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(read(&environment).unwrap().unwrap().token, "oat1_secret");
    }

    #[test]
    fn a_damaged_login_is_an_error_that_shows_nothing_of_it() {
        let place = tempfile::tempdir().unwrap();
        let environment = place::Environment::in_dir(place.path());
        let path = write(&environment, &kept()).unwrap();
        std::fs::write(&path, "token = oat1_secret").unwrap();
        let Err(error) = read(&environment) else {
            panic!("it was read");
        };
        let text = format!("{error:#}");
        assert!(
            text.contains("outhaul logout") && !text.contains("oat1"),
            "{text}"
        );
    }

    #[test]
    fn a_kept_token_is_shown_to_its_own_broker_only() {
        let place = tempfile::tempdir().unwrap();
        let environment = place::Environment::in_dir(place.path());
        write(&environment, &kept()).unwrap();
        let other = Where {
            url: "https://other.example:8443".parse().ok(),
            ..nothing()
        };
        let error = reach(&other, None, &environment).unwrap_err().to_string();
        assert!(error.contains("--cafile"), "{error}");
        let socket = PathBuf::from("/s");
        let both = reach(&other, Some(socket.clone()), &environment).unwrap_err();
        assert!(both.to_string().contains("which broker?"), "{both}");
        let named = reach(&nothing(), Some(socket.clone()), &environment).unwrap();
        assert!(matches!(named, Reach::Socket(path) if path == socket));
    }
}
