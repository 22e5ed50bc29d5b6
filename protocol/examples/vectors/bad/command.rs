//! Commands that are well made and are refused for what they say (`SPEC.md`, chapter 6).

use super::{MALFORMED, TOO_LONG, command as refused_command};
use crate::{
    forge::Envelope,
    item::{Item, Map, array, text, uint},
    message::{
        COMMANDS, command, launch, launch_command, limits, order, signed_command, stop,
        stop_command, texts, typ, variables,
    },
    vector::Vector,
    world::{DISPATCHER, NOW_MS},
};

const BOUNDS: &str = "out of bounds";

pub(crate) fn all() -> Vec<Vector> {
    let mut all = dates();
    all.extend(images());
    all.extend(arguments());
    all.extend(limits_of());
    all.extend(names());
    all
}

fn refused(name: &str, command: Map, reason: &str, why: &str) -> Vector {
    refused_command(name, &signed_command(command), reason, why)
}

fn bounds(name: &str, launch: Map, why: &str) -> Vector {
    refused(name, launch_command(launch), BOUNDS, why)
}

fn dates() -> Vec<Vector> {
    let dates =
        |issued: u64, expires: u64| stop_command().with(3, uint(issued)).with(4, uint(expires));
    let long = "6: expires − issued ≤ COMMAND_LIFE_MS_MAX";
    vec![
        refused(
            "command-that-expired-a-minute-ago",
            dates(NOW_MS - 90_000, NOW_MS - 60_000),
            "expired",
            "1.2: a date has passed when now ≥ it + 60 s",
        ),
        refused(
            "command-that-expired-long-ago",
            dates(0, 1),
            "expired",
            "1.2: a date has passed when now ≥ it + 60 s",
        ),
        refused(
            "command-issued-a-minute-and-a-millisecond-from-now",
            dates(NOW_MS + 60_001, NOW_MS + 90_000),
            "not valid yet",
            "1.2: a date is still to come when now + 60 s < it",
        ),
        refused(
            "command-that-lives-for-more-than-seven-days",
            dates(NOW_MS, NOW_MS + 604_800_001),
            "expired",
            long,
        ),
        refused(
            "command-that-lives-for-ever",
            dates(NOW_MS, u64::MAX),
            "expired",
            long,
        ),
        refused(
            "command-that-names-another-host",
            stop_command().with(2, text("edge-2")),
            "for another host",
            "6: host is its own; the signature is for its topic all the same",
        ),
    ]
}

fn images() -> Vec<Vector> {
    let image =
        |name: &str, image: &str, why: &str| bounds(name, launch().with(2, text(image)), why);
    let letters = "6: an image is of A-Za-z0-9._-/:@";
    let start = "6: an image starts with a letter or digit";
    vec![
        image(
            "image-without-a-name",
            "",
            "6: an image has 1 to 512 characters",
        ),
        image(
            "image-of-513-characters",
            &"a".repeat(513),
            "6: an image has 1 to 512 characters",
        ),
        image(
            "image-with-two-dots",
            "tool/../../etc",
            "6: an image holds no ..",
        ),
        image(
            "image-with-two-slashes",
            "https://registry.example",
            "6: an image holds no //",
        ),
        image("image-that-starts-with-a-slash", "/etc/passwd", start),
        image("image-that-starts-with-a-dash", "--privileged", start),
        image("image-that-starts-with-a-dot", ".tool", start),
        image("image-with-a-space", "tool 1", letters),
        image("image-with-a-newline", "tool:1\n", letters),
        image("image-with-a-nul", "tool\0", letters),
        image("image-with-a-plus", "tool:1+2", letters),
        image("image-with-a-letter-that-is-not-ascii", "tööl", letters),
    ]
}

fn arguments() -> Vec<Vector> {
    let many = |count: usize, item: Item| array(&vec![item; count]);
    let variable = |name: &str, variable: (&str, &str), why: &str| {
        bounds(name, launch().with(4, variables(&[variable])), why)
    };
    let named = "6: a variable's name is [A-Za-z_][A-Za-z0-9_]*";
    vec![
        refused(
            "launch-with-257-arguments",
            launch_command(launch().with(3, many(257, text("")))),
            TOO_LONG,
            "6: at most 256 arguments, and 11: no array has more than ARRAY_ITEMS_MAX items",
        ),
        bounds(
            "launch-with-a-nul-in-an-argument",
            launch().with(3, texts(&["make\0test"])),
            "6: no NUL",
        ),
        bounds(
            "launch-with-129-variables",
            launch().with(4, many(129, texts(&["A", ""]))),
            "6: at most 128 variables",
        ),
        bounds(
            "launch-with-17-sources",
            launch().with(5, many(17, text("s"))),
            "6: at most 16 sources",
        ),
        variable("variable-without-a-name", ("", "x"), named),
        variable(
            "variable-whose-name-starts-with-a-digit",
            ("1A", "x"),
            named,
        ),
        variable(
            "variable-with-an-equals-sign-in-its-name",
            ("A=B", "x"),
            named,
        ),
        variable("variable-with-a-dash-in-its-name", ("A-B", "x"), named),
        variable(
            "variable-with-a-letter-that-is-not-ascii-in-its-name",
            ("É", "x"),
            named,
        ),
        variable("variable-with-a-nul-in-its-name", ("A\0", "x"), named),
        variable(
            "variable-with-a-nul-in-its-value",
            ("A", "x\0"),
            "6: no NUL",
        ),
    ]
}

fn limits_of() -> Vec<Vector> {
    let why = "6: every limit is from 1 to 2⁶³ − 1";
    let mut all: Vec<_> = ["processor", "memory", "processes", "scratch-space", "life"]
        .iter()
        .zip(1..)
        .map(|(limit, label)| {
            let limits = limits().with(label, uint(0));
            bounds(
                &format!("launch-with-no-{limit}"),
                launch().with(6, limits),
                why,
            )
        })
        .collect();
    let over = limits().with(2, uint(1 << 63));
    all.push(bounds(
        "launch-with-memory-of-eight-exbibytes",
        launch().with(6, over),
        why,
    ));
    all
}

/// Ids that are none, and a command that is too long.
fn names() -> Vec<Vector> {
    let malformed = |name: &str, command: Map| {
        refused(name, command, MALFORMED, "1.2: an id is [a-z0-9-]{1,64}")
    };
    let sandbox = |id: &str| command(order(2, stop().with(1, text(id))));
    let elsewhere = Envelope::new(
        DISPATCHER,
        typ("command"),
        COMMANDS,
        stop_command().with(2, text("")),
    );
    vec![
        malformed("sandbox-without-a-name", sandbox("")),
        malformed(
            "sandbox-with-a-name-of-65-letters",
            sandbox(&"a".repeat(65)),
        ),
        malformed("sandbox-with-a-name-in-upper-case", sandbox("Build-7")),
        malformed("sandbox-with-a-slash-in-its-name", sandbox("build/7")),
        malformed("sandbox-with-dots-for-a-name", sandbox("..")),
        malformed("sandbox-with-an-underscore-in-its-name", sandbox("build_7")),
        malformed(
            "source-that-is-a-path",
            launch_command(launch().with(5, texts(&["/etc"]))),
        ),
        malformed(
            "isolation-key-without-a-letter",
            launch_command(launch().with(8, text(""))),
        ),
        refused_command(
            "command-for-no-host",
            &elsewhere.seal(),
            MALFORMED,
            "1.2: an id is [a-z0-9-]{1,64}",
        ),
    ]
}
