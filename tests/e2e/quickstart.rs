//! The README's first command, as a user runs it.

use std::{fs, process::Command};

use tests::{
    docker,
    programs::{Programs, root},
};

#[test]
fn the_quickstart_works_twice_and_leaves_nothing_behind() {
    let dir = tempfile::Builder::new()
        .prefix("outhaul-quickstart-")
        .tempdir_in("/var/tmp")
        .unwrap();
    let place = dir.path().join("here");
    // This repository, in a directory that others may read: a checkout under test may lie in one that they may not.
    let repo = dir.path().join("repo");
    let cloned = Command::new("git")
        .args(["clone", "--quiet", "--no-hardlinks"])
        .args([&root(), &repo])
        .status()
        .unwrap();
    assert!(cloned.success());
    for _ in 0..2 {
        let output = Command::new(root().join("deploy/quickstart.sh"))
            .args(["--bin", &Programs::get().dir.to_string_lossy()])
            .args(["--repo", &repo.to_string_lossy()])
            .env("OUTHAUL_QUICKSTART_DIR", &place)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}\n{errors}");
        assert!(
            said.contains("# Report on project") && said.contains("objects: sound"),
            "{said}"
        );
        assert!(said.contains("finished"), "{said}");
        assert!(!place.exists(), "its directory is gone");
        assert!(
            docker::containers("quickstart").is_empty(),
            "its containers are gone"
        );
        assert!(
            docker::docker(&["image", "inspect", "outhaul-quickstart:1"]).is_err(),
            "its image is gone"
        );
        assert_eq!(
            processes_in(&place.to_string_lossy()),
            Vec::<String>::new(),
            "its processes are gone"
        );
    }
}

/// The command lines of processes that name a path.
fn processes_in(path: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read_to_string(entry.path().join("cmdline"))
            .unwrap_or_default()
            .replace('\0', " ");
        if line.contains(path) {
            found.push(line);
        }
    }
    found
}
