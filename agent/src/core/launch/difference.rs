//! What the engine made, compared with what was asked for.
//!
//! Default deny: every field that the engine reports is either what was asked for, or empty, or one of the few things in the
//! tables below that engines fill in by themselves. A field that a later engine adds is a difference as soon as it is set.

use bollard::models::ContainerInspectResponse;
use serde_json::{Map, Value};

use super::{Spec, create_body, engine::Degradation};

/// The longest value that a difference shows, in bytes.
const VALUE_BYTES_MAX: usize = 96;

/// Lists whose order says nothing.
const SETS: [&str; 5] = ["CapDrop", "SecurityOpt", "Mounts", "Ulimits", "Env"];

/// Fields whose values are nobody's business in a report.
const PRIVATE: [&str; 5] = ["Env", "Labels", "Cmd", "Entrypoint", "Args"];

/// Fields of an image that do not change what runs.
const INERT: [&str; 3] = ["OnBuild", "Shell", "ArgsEscaped"];

/// What an engine hides from every container, since before API 1.41; later ones hide more.
const MASKED: [&str; 9] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/firmware",
];

/// What an engine makes read-only in every container.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Runtimes that an engine may have as its default and that isolate at least as well as the first.
const RUNTIMES: [&str; 5] = [
    "runc",
    "io.containerd.runc.v2",
    "crun",
    "runsc",
    "io.containerd.runsc.v1",
];

/// A field in which the container is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The engine's name for it.
    pub field: String,
    /// What was asked for, as JSON; empty if nothing was, or if it is private.
    pub asked: String,
    /// What the engine made of it.
    pub made: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let or_nothing = |text: &str| {
            if text.is_empty() {
                "nothing".to_owned()
            } else {
                text.to_owned()
            }
        };
        write!(
            f,
            "{}: asked for {}, got {}",
            self.field,
            or_nothing(&self.asked),
            or_nothing(&self.made)
        )
    }
}

/// Everything in which the container differs from its specification. Empty is the only answer that lets it start.
#[must_use]
pub fn differences(spec: &Spec, made: &ContainerInspectResponse) -> Vec<Difference> {
    let body = create_body(spec);
    let mut found = Vec::new();
    let mut asked_config = object(&body);
    let asked_host = asked_config.remove("HostConfig").unwrap_or_default();
    compare(
        &mut found,
        "HostConfig",
        &asked_host,
        &value(&made.host_config),
        &spec.tolerated,
    );
    compare(
        &mut found,
        "Config",
        &Value::Object(asked_config),
        &value(&made.config),
        &spec.tolerated,
    );
    compare_rest(&mut found, spec, &body, made);
    found
}

type Tolerated = std::collections::BTreeSet<Degradation>;

/// Compares two objects, field by field, over the fields of both.
fn compare(
    found: &mut Vec<Difference>,
    part: &str,
    asked: &Value,
    made: &Value,
    tolerated: &Tolerated,
) {
    let empty = Map::new();
    let (asked, made) = (
        asked.as_object().unwrap_or(&empty),
        made.as_object().unwrap_or(&empty),
    );
    let mut fields: Vec<&String> = asked.keys().chain(made.keys()).collect();
    fields.sort_unstable();
    fields.dedup();
    for field in fields {
        let (asked, made) = (asked.get(field), made.get(field));
        let is_fine = canonical(field, asked) == canonical(field, made)
            || is_filled_in(part, field, made)
            || is_tolerated(field, made, tolerated);
        // An engine that says nothing here would put its own first process before the shim.
        let is_unsaid = field == "Init" && made != Some(&Value::Bool(false));
        if !is_fine || is_unsaid {
            push(found, &format!("{part}.{field}"), asked, made);
        }
    }
    // Required, but asked for by saying nothing.
    if part == "HostConfig" {
        for (field, least) in [
            ("MaskedPaths", &MASKED[..]),
            ("ReadonlyPaths", &READ_ONLY[..]),
        ] {
            let made = made.get(field);
            let has = |path: &&str| {
                made.and_then(Value::as_array)
                    .is_some_and(|paths| paths.iter().any(|one| one == *path))
            };
            if !least.iter().all(has) {
                push(found, &format!("{part}.{field}"), None, made);
            }
        }
    }
}

/// What inspect says outside the two objects that were sent.
fn compare_rest(
    found: &mut Vec<Difference>,
    spec: &Spec,
    body: &bollard::models::ContainerCreateBody,
    made: &ContainerInspectResponse,
) {
    let entrypoint = body
        .entrypoint
        .iter()
        .flatten()
        .chain(body.cmd.iter().flatten());
    let argv: Vec<&str> = entrypoint.map(String::as_str).collect();
    let (path, arguments) = argv.split_first().unwrap_or((&"", &[]));
    let network = made.network_settings.as_ref();
    let ports = network.and_then(|network| network.ports.as_ref());
    let mut networks = value(&network.and_then(|network| network.networks.as_ref()));
    if let Some(networks) = networks.as_object_mut() {
        networks.remove("none");
    }
    let rows = [
        ("Image", Value::from(spec.image_id()), value(&made.image)),
        ("Path", Value::from(*path), value(&made.path)),
        ("Args", Value::from(arguments), value(&made.args)),
        ("Mounts", mount_points(body), made_mount_points(made)),
        ("ExecIDs", Value::Null, value(&made.exec_ids)),
        ("NetworkSettings.Ports", Value::Null, value(&ports)),
        ("NetworkSettings.Networks", Value::Null, networks),
    ];
    for (field, asked, made) in &rows {
        if canonical(field, Some(asked)) != canonical(field, Some(made)) {
            push(found, field, Some(asked), Some(made));
        }
    }
    let profile = made.app_armor_profile.as_deref().unwrap_or_default();
    if !["", "docker-default"].contains(&profile) {
        push(found, "AppArmorProfile", None, Some(&Value::from(profile)));
    }
}

/// The mounts that inspect should show.
fn mount_points(body: &bollard::models::ContainerCreateBody) -> Value {
    let mounts = body
        .host_config
        .iter()
        .flat_map(|config| config.mounts.iter().flatten());
    mounts
        .map(|mount| {
            let (source, target) = (mount.source.as_deref(), mount.target.as_deref());
            mount_point(
                "bind",
                source,
                target,
                mount.read_only == Some(false),
                "rprivate",
            )
        })
        .collect()
}

/// The mounts that inspect shows. Engines differ in whether they list temporary file systems here; those are compared in
/// `HostConfig.Tmpfs`.
fn made_mount_points(made: &ContainerInspectResponse) -> Value {
    let is_listed_elsewhere = |mount: &&bollard::models::MountPoint| {
        let target = mount.destination.as_deref().unwrap_or_default();
        let tmpfs = made
            .host_config
            .as_ref()
            .and_then(|config| config.tmpfs.as_ref());
        mount.typ.as_deref() == Some("tmpfs")
            && tmpfs.is_some_and(|tmpfs| tmpfs.contains_key(target))
    };
    let mounts = made
        .mounts
        .iter()
        .flatten()
        .filter(|mount| !is_listed_elsewhere(mount));
    mounts
        .map(|mount| {
            let (source, target) = (mount.source.as_deref(), mount.destination.as_deref());
            let (typ, propagation) = (mount.typ.as_deref(), mount.propagation.as_deref());
            let writable = mount.rw != Some(false);
            mount_point(
                typ.unwrap_or_default(),
                source,
                target,
                writable,
                propagation.unwrap_or_default(),
            )
        })
        .collect()
}

fn mount_point(
    typ: &str,
    source: Option<&str>,
    target: Option<&str>,
    writable: bool,
    propagation: &str,
) -> Value {
    let mode = if writable { "rw" } else { "ro" };
    let (source, target) = (source.unwrap_or_default(), target.unwrap_or_default());
    Value::from(format!("{typ} {source} {target} {mode} {propagation}"))
}

/// What engines fill in by themselves.
fn is_filled_in(part: &str, field: &str, made: Option<&Value>) -> bool {
    let Some(made) = made else { return false };
    let one_of = |known: &[&str]| made.as_str().is_some_and(|made| known.contains(&made));
    match (part, field) {
        ("HostConfig", "Runtime") => one_of(&RUNTIMES),
        ("HostConfig", "Isolation") => one_of(&["default"]),
        ("HostConfig", "MemorySwappiness") => made == -1,
        // Compared with the least that must be there.
        ("HostConfig", "MaskedPaths" | "ReadonlyPaths") => true,
        ("Config", field) => INERT.contains(&field),
        _ => false,
    }
}

/// What an engine with a known shortcoming makes of a limit: nothing, or "no limit".
fn is_tolerated(field: &str, made: Option<&Value>, tolerated: &Tolerated) -> bool {
    let lacks = |degradation| tolerated.contains(&degradation);
    let is_lacking = match field {
        "MemorySwap" => lacks(Degradation::SwapLimit) || lacks(Degradation::MemoryLimit),
        "Memory" => lacks(Degradation::MemoryLimit),
        "PidsLimit" => lacks(Degradation::PidsLimit),
        "NanoCpus" => lacks(Degradation::CpuLimit),
        "CpuShares" => lacks(Degradation::CpuShares),
        _ => false,
    };
    is_lacking && made.is_none_or(|made| is_empty(made) || *made == -1)
}

/// A form in which saying nothing, null, false, zero and an empty list are the same, and sets have one order.
fn canonical(field: &str, value: Option<&Value>) -> Value {
    let Some(value) = value.filter(|value| !is_empty(value)) else {
        return Value::Null;
    };
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(name, value)| (name.clone(), canonical_in_map(field, name, value)))
            .filter(|(_, value)| !value.is_null())
            .collect(),
        Value::Array(list) => {
            let mut list: Vec<Value> = list
                .iter()
                .map(|value| canonical("", Some(value)))
                .collect();
            if SETS.contains(&field) {
                list.sort_by_key(Value::to_string);
            }
            Value::Array(list)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// Maps from names to things keep their empty things: `{"/data": {}}` declares a volume.
fn canonical_in_map(field: &str, name: &str, value: &Value) -> Value {
    const NAMED: [&str; 5] = ["Volumes", "ExposedPorts", "Labels", "Tmpfs", "PortBindings"];
    if NAMED.contains(&field) {
        value.clone()
    } else {
        canonical(name, Some(value))
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        // A list of nothing, such as a console of size [0, 0].
        Value::Array(list) => list.iter().all(|value| value.is_null() || *value == 0),
        Value::Object(map) => map.is_empty(),
    }
}

fn push(found: &mut Vec<Difference>, field: &str, asked: Option<&Value>, made: Option<&Value>) {
    let last = field.rsplit('.').next().unwrap_or(field);
    let is_private = PRIVATE.contains(&last);
    let show = |value: Option<&Value>| match value {
        None => String::new(),
        Some(_) if is_private => "a value that is not shown".to_owned(),
        Some(value) => cut(&value.to_string()),
    };
    let difference = Difference {
        field: field.to_owned(),
        asked: show(asked),
        made: show(made),
    };
    if !found.contains(&difference) {
        found.push(difference);
    }
}

/// Cuts at a character.
fn cut(text: &str) -> String {
    let mut end = text.len().min(VALUE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

fn object(body: &bollard::models::ContainerCreateBody) -> Map<String, Value> {
    match value(body) {
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    }
}

/// The engine's types always have a JSON form; should one not, `Null` differs from whatever was expected.
fn value(part: &impl serde::Serialize) -> Value {
    serde_json::to_value(part).unwrap_or_default()
}
