//! The table of cases in README.md and the tests are the same: each row has a test, and each test a row.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use tests::programs::root;

/// The cases that the issue lists; those above came later.
const LISTED: u32 = 80;

/// Every test that is named for a case, by its number: the files they are in.
fn tests_in(folder: &str) -> BTreeMap<u32, BTreeSet<String>> {
    let mut found: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    let mut pending = vec![root().join(folder)];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(fs::read_dir(path).unwrap().map(|one| one.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path
                .strip_prefix(root())
                .unwrap()
                .to_string_lossy()
                .into_owned();
            for line in fs::read_to_string(&path).unwrap().lines() {
                let line = line.trim_start().trim_start_matches("async ");
                let number = line
                    .strip_prefix("fn case_")
                    .and_then(|rest| rest.split('_').next());
                if let Some(number) = number.and_then(|number| number.parse().ok()) {
                    found.entry(number).or_default().insert(name.clone());
                }
            }
        }
    }
    found
}

#[test]
fn every_case_has_a_row_and_every_row_its_test() {
    let mut tests = tests_in("tests/hostile");
    tests.extend(tests_in("broker/src"));
    let text = fs::read_to_string(root().join("tests/hostile/README.md")).unwrap();
    let mut rows = BTreeMap::new();
    for row in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let Ok(number) = cells[0].parse::<u32>() else {
            continue;
        };
        assert!(
            cells.len() == 4 && cells.iter().all(|cell| !cell.is_empty()),
            "{row}"
        );
        let place = cells[3].trim_matches('`');
        let place = if place.contains('/') {
            place.to_owned()
        } else {
            format!("tests/hostile/{place}")
        };
        let before = rows.insert(number, BTreeSet::from([place]));
        assert!(before.is_none(), "two rows of {number}");
    }
    assert_eq!(rows, tests);
    let numbers: Vec<_> = rows.into_keys().collect();
    assert!(numbers.len() > LISTED as usize);
    assert!(
        (1..)
            .zip(&numbers)
            .all(|(expected, number)| expected == *number),
        "{numbers:?}"
    );
}
