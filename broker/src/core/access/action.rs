//! Everything that the control plane's API does, and what it takes: the one table of its routes.
//!
//! Routes are made from it (`shell/local/route.rs`), so there is none that it does not have.

use super::Role;

/// What something is about, for a token that is limited to one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// No host: nothing in it tells one from another.
    NoHost,
    /// A list, which is cut down to the one host.
    Listed,
    /// The host that the path names first.
    InPath,
    /// A host that the query, the body or a signed command names: whoever reads that asks again.
    Named,
    /// All of them: not for a token of one host.
    AllHosts,
}

macro_rules! actions {
    ($($(#[$meta:meta])* $name:ident: $method:ident $path:literal, $role:expr, $about:ident;)*) => {
        /// One thing that the API does.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Action {
            $($(#[$meta])* $name,)*
        }

        impl Action {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The method that asks for it.
            #[must_use]
            pub const fn method(self) -> &'static str {
                match self { $(Self::$name => stringify!($method),)* }
            }

            /// The path, with the names of its parts in braces.
            #[must_use]
            pub const fn path(self) -> &'static str {
                match self { $(Self::$name => $path,)* }
            }

            /// The least role that may; none if it needs the broker's machine.
            #[must_use]
            pub const fn role(self) -> Option<Role> {
                match self { $(Self::$name => $role,)* }
            }

            /// What it is about.
            #[must_use]
            pub const fn about(self) -> About {
                match self { $(Self::$name => About::$about,)* }
            }
        }
    };
}

const VIEWER: Option<Role> = Some(Role::Viewer);
const DISPATCHER: Option<Role> = Some(Role::Dispatcher);
const ADMIN: Option<Role> = Some(Role::Admin);
/// The socket's owner alone: what is read or written are files of the broker's machine.
const MACHINE: Option<Role> = None;

actions! {
    /// The hosts.
    ListHosts: GET "/v1/hosts", VIEWER, Listed;
    /// A host, or a new bundle for one: its install key is in the answer.
    AddHost: POST "/v1/hosts", ADMIN, Named;
    /// A fresh bundle for a host: its install key is in the answer.
    FetchBundle: POST "/v1/hosts/{host}/bundle", ADMIN, InPath;
    /// A host, looked at closely.
    ShowHost: GET "/v1/hosts/{host}", VIEWER, InPath;
    /// What people call a host.
    LabelHost: POST "/v1/hosts/{host}/label", ADMIN, InPath;
    /// Takes a host out of the lists, for good.
    RemoveHost: POST "/v1/hosts/{host}/remove", ADMIN, InPath;
    /// Voids the keys of a host up to one of them.
    RevokeGeneration: POST "/v1/hosts/{host}/revoke-generation", ADMIN, InPath;
    /// Voids the unused install key of a host.
    RevokeInstallKey: POST "/v1/hosts/{host}/revoke-install-key", ADMIN, InPath;
    /// The keys that a host had.
    ListHostKeys: GET "/v1/hosts/{host}/keys", VIEWER, InPath;
    /// Unlocks a host.
    UnlockHost: POST "/v1/hosts/{host}/unlock", ADMIN, InPath;
    /// Takes a host's rights away.
    RevokeHost: POST "/v1/hosts/{host}/revoke", ADMIN, InPath;
    /// The dispatchers: keys and names, of no host.
    ListDispatchers: GET "/v1/dispatchers", VIEWER, NoHost;
    /// A dispatcher, whose commands are relayed to every host.
    AddDispatcher: POST "/v1/dispatchers", ADMIN, AllHosts;
    /// Hands in what a dispatcher signed about keys: hosts judge it.
    AddStatement: POST "/v1/dispatchers/statements", DISPATCHER, AllHosts;
    /// Takes a dispatcher's right away.
    RemoveDispatcher: DELETE "/v1/dispatchers/{key}", ADMIN, AllHosts;
    /// The readers, and which hosts they are of.
    ListReaders: GET "/v1/readers", VIEWER, AllHosts;
    /// A reader: its token is in the answer.
    AddReader: POST "/v1/readers", ADMIN, AllHosts;
    /// Takes a reader's rights away.
    RemoveReader: DELETE "/v1/readers/{name}", ADMIN, AllHosts;
    /// The access tokens, and which hosts they are for.
    ListAccess: GET "/v1/access", VIEWER, AllHosts;
    /// An access token, which is in the answer.
    AddAccess: POST "/v1/access", ADMIN, AllHosts;
    /// Takes an access token away.
    RevokeAccess: DELETE "/v1/access/{name}", ADMIN, AllHosts;
    /// Who asks.
    WhoAmI: GET "/v1/whoami", VIEWER, NoHost;
    /// The certificates: public.
    ListCertificates: GET "/v1/certificates", VIEWER, NoHost;
    /// A new authority.
    RotateCertificates: POST "/v1/certificates/rotate", ADMIN, AllHosts;
    /// Lets go of the authorities before it.
    RetireCertificates: POST "/v1/certificates/retire", ADMIN, AllHosts;
    /// The long-lived keys: public halves and ages.
    ListKeys: GET "/v1/keys", VIEWER, NoHost;
    /// A new key for connection tokens, beside the old one on the broker's disk.
    RotateIssuer: POST "/v1/keys/issuer/rotate", MACHINE, AllHosts;
    /// What the journal keeps, host by host.
    ShowJournal: GET "/v1/journal", VIEWER, AllHosts;
    /// Takes what sandboxes said out of the journal.
    PurgeJournal: POST "/v1/journal/purge", ADMIN, Named;
    /// Hands in a command that a dispatcher's key signed.
    SubmitCommand: POST "/v1/commands", DISPATCHER, Named;
    /// The sandboxes.
    ListSandboxes: GET "/v1/sandboxes", VIEWER, Listed;
    /// One sandbox.
    ShowSandbox: GET "/v1/sandboxes/{host}/{sandbox}", VIEWER, InPath;
    /// Cuts a sandbox off.
    RevokeSandbox: POST "/v1/sandboxes/{host}/{sandbox}/revoke", ADMIN, InPath;
    /// The journal's records: what hosts, sandboxes and dispatchers said.
    ReadRecords: GET "/v1/records", VIEWER, Named;
    /// Which offsets are of which incarnation.
    ListIncarnations: GET "/v1/incarnations", VIEWER, NoHost;
    /// Begins a backup, which copies the broker's files.
    BeginBackup: POST "/v1/backups", MACHINE, AllHosts;
    /// How far the journal's files may be copied.
    ShowExtents: GET "/v1/backups/extents", MACHINE, AllHosts;
    /// Where a time stands in the journal.
    FindOffset: GET "/v1/offset", VIEWER, NoHost;
    /// The audit trail: a part of it could not be verified.
    ListAudit: GET "/v1/audit", VIEWER, AllHosts;
    /// Which keys sign the audit trail: public.
    ListAuditKeys: GET "/v1/audit/keys", VIEWER, NoHost;
    /// The newest signed checkpoint, signed now if rows came since.
    SignCheckpoint: POST "/v1/audit/checkpoint", VIEWER, AllHosts;
    /// What was signed of the audit trail.
    ListCheckpoints: GET "/v1/audit/checkpoints", VIEWER, AllHosts;
    /// The values that rows commit to and do not show.
    ListOpenings: GET "/v1/audit/openings", VIEWER, AllHosts;
    /// What hosts cosigned of the audit trail.
    ListWitnesses: GET "/v1/audit/witnesses", VIEWER, AllHosts;
    /// That a row is in the audit trail.
    ProveRow: GET "/v1/audit/proof/{seq}", VIEWER, AllHosts;
    /// A new key for the audit trail, beside the old one on the broker's disk.
    RotateAuditKey: POST "/v1/audit/rotate-key", MACHINE, AllHosts;
    /// The broker, as it describes itself.
    ShowStatus: GET "/v1/status", VIEWER, NoHost;
    /// The broker's metrics.
    ShowMetrics: GET "/v1/metrics", VIEWER, AllHosts;
}
