//! `attn npu` as its users call it.

mod common;

use common::{attn, fixture, stdout};

/// Made by XRT's `xclbinutil`.
const STAND_IN: &str = "crates/attn-npu/tests/xclbin/stand_in.xclbin";

#[test]
fn an_xclbin_is_described() {
    let output = attn(&["npu", "inspect", &fixture(STAND_IN)]);
    assert_eq!(output.status.code(), Some(0));
    insta::assert_snapshot!(stdout(&output).replace(&fixture(STAND_IN), "stand_in.xclbin"));
}

#[test]
fn an_xclbin_is_described_in_json() {
    let output = attn(&["npu", "inspect", &fixture(STAND_IN), "--json"]);
    assert_eq!(output.status.code(), Some(0));
    insta::assert_snapshot!(stdout(&output));
}

#[test]
fn help_has_examples() {
    let output = attn(&["npu", "inspect", "--help"]);
    assert_eq!(output.status.code(), Some(0));
    for part in ["Examples:", "attn npu inspect", "Exit status", "JSON: length"] {
        assert!(stdout(&output).contains(part), "{part}: {}", stdout(&output));
    }
}
