//! The API's routes for access tokens.

use std::time::Duration;

use axum::{
    Extension,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
};
use protocol::id::AccessName;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api,
    answer::{Answer, No, created, ok},
    host::{read, read_host},
};
use crate::{
    core::access::{ACCESS_DAYS_MAX, ACCESS_MAX, Rights, Role},
    drive::{Peer, Plane},
    shell::store::{AccessRow, AddedAccess},
};

const DAY_S: u64 = 24 * 3600;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewAccess {
    name: String,
    /// `viewer`, `dispatcher` or `admin`.
    role: String,
    host: Option<String>,
    days: u64,
}

pub(super) async fn add(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    body: Bytes,
) -> Answer {
    let new: NewAccess = read(&body)?;
    let name = read_name(&new.name)?;
    let rights = Rights {
        role: Role::from_word(&new.role)
            .ok_or_else(|| No::bad("role is viewer, dispatcher or admin"))?,
        host: new.host.as_deref().map(read_host).transpose()?,
    };
    if !(1..=ACCESS_DAYS_MAX).contains(&new.days) {
        return Err(No::bad(format!(
            "an access token lasts 1 to {ACCESS_DAYS_MAX} days"
        )));
    }
    let is_on = api.plane.admitted().access;
    let life = Duration::from_secs(new.days * DAY_S);
    let named = name.clone();
    let add = move |plane: &Plane| plane.add_access(&named, rights, life, &peer);
    let made = match api.plane.blocking(add).await? {
        Ok(made) => made,
        Err(AddedAccess::Full) => {
            return Err(No::new(
                StatusCode::CONFLICT,
                "access_full",
                format!(
                    "there are {ACCESS_MAX} access tokens, as many as may be: revoke those that nobody uses"
                ),
            ));
        }
        Err(AddedAccess::Taken | AddedAccess::Added) => {
            return Err(No::new(
                StatusCode::CONFLICT,
                "access_exists",
                format!(
                    "an access token called {name} is there: revoke it first, or choose another name"
                ),
            ));
        }
    };
    created(json!({
        "name": name,
        "token": *made.token.to_text(),
        "expires_ms": made.expires.0,
        "let_in": is_on,
    }))
}

pub(super) async fn list(State(api): State<Api>) -> Answer {
    let rows = api.plane.blocking(Plane::access).await?;
    let access: Vec<Value> = rows.iter().map(access_json).collect();
    ok(json!({ "access": access }))
}

pub(super) async fn revoke(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
) -> Answer {
    let name = read_name(&name)?;
    let named = name.clone();
    let revoke = move |plane: &Plane| plane.revoke_access(&named, &peer);
    if api.plane.blocking(revoke).await? {
        return ok(json!({ "name": name }));
    }
    Err(No::new(
        StatusCode::NOT_FOUND,
        "access_unknown",
        format!("no access token is called {name}: see `outhaul access list`"),
    ))
}

/// Who asks, and what that may.
pub(super) async fn who_am_i(State(api): State<Api>, Extension(peer): Extension<Peer>) -> Answer {
    let holder = peer.holder();
    ok(json!({
        "actor": peer.actor(),
        // Who is at the socket governs the broker, by no role and without end.
        "role": holder.map(|holder| holder.rights().role.word()),
        "host": peer.only_host(),
        "expires_ms": holder.map(crate::core::access::Holder::expires_ms),
        "audience": api.plane.audience(),
    }))
}

fn read_name(text: &str) -> Result<AccessName, No> {
    AccessName::new(text).map_err(|bad| No::bad(format!("access token: {bad}")))
}

fn access_json(row: &AccessRow) -> Value {
    json!({
        "name": row.account.name,
        "role": row.account.rights.role.word(),
        "host": row.account.rights.host,
        "added_by": row.added_by,
        "added_ms": row.added_ms,
        "expires_ms": row.account.expires_ms,
    })
}
