//! Our values as SQLite's, and back.

use crate::core::hosts::{HostState, InstallKeyState};
use crate::shell::store::HostKind;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

/// An unsigned integer. SQLite's are signed: what does not fit is refused, which no offset or time of ours reaches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Uint(pub(super) u64);

impl ToSql for Uint {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let signed = i64::try_from(self.0)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        Ok(signed.into())
    }
}

impl FromSql for Uint {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let signed = value.as_i64()?;
        u64::try_from(signed)
            .map(Self)
            .map_err(|_| FromSqlError::OutOfRange(signed))
    }
}

/// An enum that is stored as one word per variant.
macro_rules! words {
    ($type:ty { $($word:literal => $variant:path),+ $(,)? }) => {
        impl ToSql for $type {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(match self { $($variant => $word),+ }.into())
            }
        }

        impl FromSql for $type {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                match value.as_str()? {
                    $($word => Ok($variant),)+
                    _ => Err(FromSqlError::InvalidType),
                }
            }
        }
    };
}

words!(HostState {
    "new" => HostState::New,
    "enrolled" => HostState::Enrolled,
    "locked" => HostState::Locked,
    "revoked" => HostState::Revoked,
});
words!(InstallKeyState {
    "new" => InstallKeyState::New,
    "used" => InstallKeyState::Used,
    "retired" => InstallKeyState::Retired,
});
words!(HostKind {
    "docker" => HostKind::Docker,
    "kubernetes" => HostKind::Kubernetes,
});
