//! The `attn` command as its users call it: output, exit status, errors.

use std::{
    path::Path,
    process::{Command, Output},
};

fn attn(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_attn")).args(arguments).output().expect("the attn command starts")
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("UTF-8")
}

/// One line on stderr, status 2, nothing on stdout.
fn assert_usage_error(arguments: &[&str], expected: &[&str]) {
    let output = attn(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    for part in expected {
        assert!(stderr.contains(part), "{arguments:?}: {stderr:?} does not contain {part:?}");
    }
}

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name).display().to_string()
}

#[test]
fn the_built_in_suite_passes_and_says_which_backend_computed() {
    let output = attn(&["validate", "--json", "--backend", "scalar"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_str(stdout(&output)).expect("JSON");
    assert_eq!(report["backend"], "scalar");
    assert_eq!(report["passed"], true);
    let cases = report["cases"].as_array().expect("cases");
    for group in ["acceptance", "raw integers", "whisper", "hard"] {
        assert!(cases.iter().any(|case| case["group"] == group), "no case of {group}");
    }
    for case in cases {
        let (overall, tolerance) = (&case["overall"], &case["tolerance"]);
        // The figures themselves, not only the verdict.
        if case["group"] == "whisper" || case["group"] == "hard" {
            assert_eq!(tolerance["min_within_1"], 0.999);
            assert!(overall["within_1"].as_f64() >= Some(0.999), "{}", case["name"]);
            assert!(overall["correlation_loss"].as_f64() <= Some(0.0002), "{}", case["name"]);
        }
        assert_eq!(overall["non_finite"], 0);
        assert_eq!(case["per_head"].as_array().map(Vec::len), case["heads"].as_u64().map(|heads| heads as usize));
    }
}

#[test]
fn the_table_names_the_backend_and_the_users_thresholds() {
    let output = attn(&["validate", "--input", &fixture("src/suite/data/acceptance.npz")]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).starts_with("backend: scalar\n"), "{}", stdout(&output));
    assert!(stdout(&output).ends_with("backend scalar: 1 of 1 cases passed\n"), "{}", stdout(&output));
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    assert_usage_error(&["validate", "--input", "missing.npz"], &["attn: missing.npz: "]);
    let script = fixture("src/suite/data/make.py");
    assert_usage_error(&["validate", "--input", &script], &["make.py: "]);
    assert_usage_error(&["validate", "--backend", "gpu"], &["`gpu`", "scalar"]);
    assert_usage_error(&["validate", "--tolerance", "1"], &["--tolerance"]);
    assert_usage_error(&["frobnicate"], &["frobnicate"]);
    assert_usage_error(&[], &["Usage"]);
}

#[test]
fn help_has_examples() {
    let output = attn(&["validate", "--help"]);
    assert_eq!(output.status.code(), Some(0));
    for part in ["Examples:", "attn validate", "Exit status", "scalar"] {
        assert!(stdout(&output).contains(part), "{part}: {}", stdout(&output));
    }
}
