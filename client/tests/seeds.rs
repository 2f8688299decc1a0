//! `docs/seeds.md` names only what is there: files, commands, flags and tests.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What a row says that is promised and not built.
const LATER: &str = "later";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The rows of all tables: seed, what, where, test.
fn rows() -> Vec<[String; 4]> {
    let page = fs::read_to_string(repository().join("docs/seeds.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| 0"));
    rows.map(|line| {
        let cells: Vec<String> =
            line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        cells.try_into().unwrap_or_else(|cells| panic!("four cells, not {cells:?}"))
    })
    .collect()
}

/// What stands between backticks.
fn named(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The names of all tests of the workspace: functions below `#[test]`, and those of macros that make tests.
fn tests(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            tests(&path, found);
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(&path).unwrap();
            let mut is_marked = false;
            for line in text.lines().map(str::trim) {
                is_marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
                if let Some(function) = function.filter(|_| is_marked) {
                    found.insert(function.split(['(', '<']).next().unwrap().to_owned());
                    is_marked = false;
                }
            }
        }
    }
}

#[test]
fn every_row_is_built_and_tested_or_says_when() {
    let rows = rows();
    assert!(rows.len() > 300, "only {} rows", rows.len());
    let bare: Vec<_> = rows
        .iter()
        .filter(|[_, _, place, test]| match place.starts_with(LATER) {
            true => !test.is_empty(),
            false => named(place).next().is_none() || named(test).next().is_none(),
        })
        .collect();
    assert!(bare.is_empty(), "{bare:#?}");
}

#[test]
fn every_file_and_test_of_the_page_is_there() {
    let mut known = BTreeSet::new();
    tests(&repository(), &mut known);
    let mut gone = BTreeSet::new();
    for [_, _, place, test] in rows() {
        let files =
            named(&place).filter(|name| name.contains('/') && !name.starts_with("brokerctl "));
        gone.extend(files.filter(|file| !repository().join(file).exists()).map(str::to_owned));
        gone.extend(named(&test).filter(|name| !known.contains(*name)).map(str::to_owned));
    }
    assert!(gone.is_empty(), "{gone:#?}");
}

#[test]
fn every_command_and_flag_of_the_page_is_there() {
    let mut helps: BTreeMap<String, String> = BTreeMap::new();
    for [_, _, place, _] in rows() {
        for command in named(&place).filter_map(|name| name.strip_prefix("brokerctl ")) {
            let (flags, words): (Vec<&str>, Vec<&str>) =
                command.split_whitespace().partition(|word| word.starts_with("--"));
            let help = helps.entry(words.join(" ")).or_insert_with(|| help(&words));
            let is_there = |flag: &&str| help.split([' ', '\n', ',']).any(|word| word == *flag);
            for flag in flags {
                assert!(is_there(&flag), "`brokerctl {}` has no {flag}", words.join(" "));
            }
        }
    }
}

fn help(words: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_brokerctl")).args(words).arg("--help").output().unwrap();
    assert!(output.status.success(), "there is no `brokerctl {}`", words.join(" "));
    String::from_utf8(output.stdout).unwrap()
}
