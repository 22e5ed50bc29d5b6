//! Tests of `verify-stream`.

use protocol::record::{Opening, Record};

use super::*;
use crate::cli::{
    client::Client,
    known_hosts::tests::secret,
    output::Output,
    place::Environment,
    verify::tests::{batch, batches, ended, host, launched, sandbox},
};

fn context(directory: &std::path::Path) -> Context {
    Context {
        client: Client::new(directory.join("none")),
        output: Output::new(true),
        environment: Environment::in_dir(directory),
        dispatcher_key: None,
    }
}

fn records() -> Vec<Record> {
    let sealed = batches(&["one", "two"]);
    let mut records = vec![launched()];
    records.extend(sealed.into_iter().map(batch));
    records.push(ended());
    for (record, offset) in records.iter_mut().zip(1..) {
        record.offset = offset;
    }
    records
}

fn file(records: &[Record]) -> Vec<u8> {
    let opening = Opening {
        is_part: false,
        host: host(),
        sandbox: sandbox(),
    };
    let mut bytes = opening.encode();
    bytes.extend(records.iter().flat_map(Record::encode));
    bytes
}

/// Judges `bytes` with the host's key; what it says, and its exit code.
fn verdict(bytes: &[u8]) -> (Value, u8) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, bytes).unwrap();
    let args = VerifyStreamArgs {
        host_key: Some(secret::<Host>(1).public()),
        dispatcher: Vec::new(),
        file: path.clone(),
    };
    let code = execute(&context(directory.path()), &args).unwrap();
    let mut file = Pieces {
        file: File::open(&path).unwrap(),
        reader: Reader::default(),
    };
    let opening = file.next(Reader::take_opening).unwrap().unwrap().unwrap();
    let mut check = Check::new(opening, secret::<Host>(1).public(), None);
    let fault = judge(&mut file, &mut check).unwrap();
    assert_eq!(code, u8::from(fault.is_some()));
    (as_json(&check, fault), code)
}

#[test]
fn a_good_file_is_ok_and_what_is_cut_off_is_said() {
    let (whole, code) = verdict(&file(&records()));
    assert_eq!((code, &whole["item"]), (0, &Value::Null));
    assert_eq!(whole["events"], 2);
    let bytes = file(&records());
    let (cut, code) = verdict(&bytes[..bytes.len() - 1]);
    assert_eq!(code, 1);
    assert_eq!(cut["reason"], "the file ends inside it");
    let items = records().len() as u64;
    assert_eq!(cut["item"], items, "the last one");
}

#[test]
fn a_batch_that_is_missing_is_named() {
    let mut short = records();
    short.remove(1);
    let (verdict, code) = verdict(&file(&short));
    assert_eq!((code, &verdict["item"]), (1, &json!(2)));
    assert_eq!(verdict["missing"], json!(["batches 0 to 0"]));
}

#[test]
fn strange_bytes_are_an_item_that_is_none() {
    let mut bytes = file(&records()[..1]);
    bytes.extend(b"GET / HTTP/1.1");
    let (verdict, code) = verdict(&bytes);
    assert_eq!((code, &verdict["item"]), (1, &json!(2)));
    assert_eq!(verdict["reason"], "not an item of a stream file");
}

#[test]
fn without_a_key_and_without_a_pin_nothing_is_judged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, file(&records())).unwrap();
    let args = VerifyStreamArgs {
        host_key: None,
        dispatcher: Vec::new(),
        file: path,
    };
    let error = execute(&context(directory.path()), &args).unwrap_err();
    assert!(format!("{error:#}").contains("--host-key"), "{error:#}");
}

#[test]
fn a_file_of_another_kind_is_refused_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    for bytes in [&b""[..], b"hello", &records()[0].encode()] {
        let path = directory.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        let args = VerifyStreamArgs {
            host_key: None,
            dispatcher: Vec::new(),
            file: path,
        };
        let error = execute(&context(directory.path()), &args).unwrap_err();
        assert!(
            format!("{error:#}").contains("not a stream file"),
            "{error:#}"
        );
    }
}
