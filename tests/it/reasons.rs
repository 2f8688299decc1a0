//! `docs/errors.md` says what the broker says.

use std::{collections::BTreeSet, fs};

use broker::service::REASONS;
use broker_proto::FailureClass;
use broker_tests::repository;

/// The rows of the table whose first column is called `first`, as their cells.
fn table(first: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(repository().join("docs/errors.md")).unwrap();
    let cells = |line: &str| -> Vec<String> {
        let inside = line.trim().trim_start_matches('|').trim_end_matches('|');
        inside.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let begins = |line: &&str| !(line.starts_with('|') && cells(line)[0] == first);
    let rows = text.lines().skip_while(begins).skip(2).take_while(|line| line.starts_with('|'));
    rows.map(cells).collect()
}

#[test]
fn every_reason_is_documented_with_its_code_and_whether_a_retry_helps() {
    let documented: BTreeSet<(String, String, String)> = table("reason")
        .into_iter()
        .map(|row| (plain(&row[0]), plain(&row[1]), row[2].clone()))
        .collect();
    let said: BTreeSet<(String, String, String)> = REASONS
        .iter()
        .map(|reason| {
            let retry = if reason.retry_helps { "yes" } else { "no" };
            (reason.name.to_owned(), code(reason.code), retry.to_owned())
        })
        .collect();

    let missing: Vec<_> = said.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&said).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "missing {missing:?}, unknown {unknown:?}");
}

#[test]
fn every_class_is_documented_once() {
    let rows = table("class");
    let mut documented: Vec<String> =
        rows.iter().flat_map(|row| row[0].split(", ").map(plain)).collect();
    documented.sort();
    let mut classes = FailureClass::ALL.map(|class| class.as_str().to_owned());
    classes.sort();
    assert_eq!(documented, classes);
}

fn plain(cell: &str) -> String {
    cell.trim_matches('`').to_owned()
}

/// `InvalidArgument` as gRPC's documents write it.
fn code(code: tonic::Code) -> String {
    let mut words = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push('_');
        }
        words.extend(letter.to_uppercase());
    }
    words
}
