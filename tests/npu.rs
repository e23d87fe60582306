//! `attn npu` as its users call it.

mod common;

use std::fs;

use common::{assert_usage_error, attn, fixture, stdout};

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
fn what_is_no_xclbin_is_refused_in_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let whole = fs::read(fixture(STAND_IN)).expect("a fixture");
    let mut kernel = whole.clone();
    let name = whole.windows(7).position(|bytes| bytes == b"id=\"0\" ").expect("an argument");
    kernel[name + 4] = b'\x1b';
    for (name, bytes, expected) in [
        ("empty", &[][..], "the file is empty, expected an xclbin".to_owned()),
        (
            "foreign",
            b"\x7fELF\x02\x01\x01\0\0",
            r#"starts with "\x7fELF\x02\x01\x01\x00", expected "xclbin2\0""#.to_owned(),
        ),
        ("start", &whole[..100], "cut off: got 100 bytes, expected 456".to_owned()),
        ("cut", &whole[..5000], format!("cut off: got 5000 bytes, expected {}", whole.len())),
        ("kernel", &kernel, r#"got "<arg name=\"opcode\" addressQualifier=\"0\" ", expected numbers"#.to_owned()),
    ] {
        let file = path(name);
        fs::write(&file, bytes).expect("written");
        for arguments in [&["npu", "inspect", &file][..], &["npu", "inspect", &file, "--json"]] {
            assert_usage_error(arguments, &[&format!("attn: {file}: "), &expected]);
        }
    }
    assert_usage_error(&["npu", "inspect", &path("missing")], &["missing: cannot read it: No such file"]);
    assert_usage_error(&["npu", "inspect", &path("")], &["cannot read it: Is a directory"]);
    #[cfg(target_os = "linux")]
    assert_usage_error(&["npu", "inspect", "/dev/zero"], &["got more than 268435456 bytes, expected an xclbin"]);
    assert_usage_error(&["npu", "inspect"], &["<FILE.xclbin>"]);
    assert_usage_error(&["npu", "frobnicate"], &["frobnicate"]);
}

#[test]
fn help_has_examples() {
    let output = attn(&["npu", "inspect", "--help"]);
    assert_eq!(output.status.code(), Some(0));
    for part in ["Examples:", "attn npu inspect", "Exit status", "JSON: length"] {
        assert!(stdout(&output).contains(part), "{part}: {}", stdout(&output));
    }
}
