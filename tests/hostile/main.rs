//! What the `attn` command does with input that is wrong, on purpose or not: a table of calls that it must refuse, what it may
//! take although it looks odd, closed pipes, full disks and signals.
#![cfg(unix)]

#[path = "../common/mod.rs"]
mod common;

mod archives;
mod commands;
mod outputs;
mod runner;
mod signals;
mod streams;

/// The whole table, so that no part of it is lost.
#[test]
fn the_table_is_long() {
    let cases = archives::cases().into_iter().chain(commands::cases()).chain(outputs::cases());
    let mut names: Vec<_> = cases.map(|case| case.name).collect();
    let count = names.len();
    assert!(count >= 250, "{count}");
    names.sort();
    let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).collect();
    assert!(twice.is_empty(), "{twice:?}");
}
