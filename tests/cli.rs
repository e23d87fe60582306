//! The `attn` command as its users call it: output, exit status, errors.

mod common;

use attn::backend::{BackendKind, Options};
use common::{archive, attn, fixture, path_of, stderr, stdout};

#[test]
fn the_built_in_suite_passes_and_says_which_backend_computed() {
    let output = attn(&["validate", "--json", "--backend", "scalar"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_str(stdout(&output)).expect("JSON");
    assert_eq!(report["backend"], "scalar");
    assert_eq!(report["passed"], true);
    assert_eq!(report["skipped"].as_array().map(Vec::len), Some(0));
    assert_eq!(report["libtorch"].is_null(), cfg!(not(feature = "torch")));
    let cases = report["cases"].as_array().expect("cases");
    for group in ["acceptance", "raw integers", "whisper tiles", "whisper heads", "hard"] {
        assert!(cases.iter().any(|case| case["group"] == group), "no case of {group}");
    }
    for case in cases {
        let (overall, tolerance) = (&case["overall"], &case["tolerance"]);
        // The figures themselves, not only the verdict.
        if case["group"] != "acceptance" && case["group"] != "raw integers" {
            assert_eq!(tolerance["min_within_1"], 0.999);
            assert!(overall["within_1"].as_f64() >= Some(0.999), "{}", case["name"]);
            assert!(overall["correlation_loss"].as_f64() <= Some(0.0002), "{}", case["name"]);
        }
        assert_eq!(overall["non_finite"], 0);
        assert_eq!(overall["libtorch"].is_null(), cfg!(not(feature = "torch")), "{}", case["name"]);
        assert_eq!(case["per_head"].as_array().map(Vec::len), case["heads"].as_u64().map(|heads| heads as usize));
    }
}

/// All cases but those with boolean masks, which are listed.
#[test]
fn the_built_in_suite_passes_on_a_kernel_of_the_npu() {
    // The conformance suite says so if there was no compiler for it.
    if BackendKind::Kernel.open(&Options::default()).is_err() {
        return;
    }
    let output = attn(&["validate", "--json", "--backend", "kernel"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: serde_json::Value = serde_json::from_str(stdout(&output)).expect("JSON");
    assert_eq!((&report["backend"], &report["passed"]), (&"kernel (host)".into(), &true.into()));
    let skipped = report["skipped"].as_array().expect("cases");
    assert!(!skipped.is_empty() && report["cases"].as_array().map(Vec::len) > Some(50));
    for case in skipped {
        let (name, reason) = (case["name"].as_str(), case["reason"].as_str());
        assert!(name.is_some_and(|name| name.starts_with("mask: boolean")), "{case}");
        assert!(reason.is_some_and(|reason| reason.contains("got a boolean mask, expected")), "{case}");
    }
}

#[test]
fn the_table_names_the_backend_and_the_users_thresholds() {
    let output = attn(&["validate", "--input", &fixture("src/suite/data/acceptance.npz")]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).starts_with("backend: scalar\nreference: libtorch "), "{}", stdout(&output));
    let left_out = stdout(&output).contains("libtorch is left out (`cargo xtask libtorch`, then build with");
    assert_eq!(left_out, cfg!(not(feature = "torch")), "{}", stdout(&output));
    assert!(stdout(&output).ends_with("backend scalar: 1 of 1 cases passed\n"), "{}", stdout(&output));
}

/// Heads of 64 x 64; the last one is what these integers cannot do: most of the weight (at 14 nats everything but
/// 1/150000) goes to eight keys of one block whose values are zero, and the output is scaled to what is left.
fn failing_after(good: usize, nats: f32) -> tempfile::NamedTempFile {
    let mut noise = 1_u32;
    let mut tensor = || -> Vec<u8> {
        let next = || {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        };
        std::iter::repeat_with(next).take(64 * 64).collect()
    };
    let (mut query, mut key, mut value) = (tensor(), tensor(), tensor());
    for row in 0..64 {
        query[row * 64] = 127;
        key[row * 64] = 0;
    }
    query.chunks_exact_mut(64).flat_map(|row| &mut row[1..]).for_each(|q| *q = (*q as i8 / 32) as u8);
    let good = [&query, &key, &value].map(|tensor| tensor.repeat(good));
    key[5 * 64..13 * 64].fill(0);
    value[5 * 64..13 * 64].fill(0);
    for sink in 5..13 {
        key[sink * 64] = 127;
    }
    // A sink scores 127 · 127 · scale / √64 = `nats`; the others' scores are small beside it.
    let scale = |x: f32| x.to_le_bytes();
    let (one, small) = (scale(1.0), scale(nats * 8.0 / (127.0 * 127.0)));
    let [query, key, value] =
        [[&good[0], &query], [&good[1], &key], [&good[2], &value]].map(|heads| heads.map(|x| &x[..]).concat());
    let shape = format!("({}, 64, 64)", query.len() / (64 * 64));
    archive(&[
        ("q", "|i1", &shape, &query),
        ("k", "|i1", &shape, &key),
        ("v", "|i1", &shape, &value),
        ("q_scale", "<f4", "()", &one),
        ("k_scale", "<f4", "()", &small),
        ("v_scale", "<f4", "()", &one),
    ])
}

#[test]
fn a_case_that_fails_is_status_1_and_says_which_figure() {
    let file = failing_after(0, 14.0);
    let path = path_of(&file);
    let output = attn(&["validate", "--input", &path]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stdout(&output).contains("\n    within_1: got 0."), "{}", stdout(&output));
    assert!(!stdout(&output).contains("head 0"), "the only head is said once: {}", stdout(&output));
    assert!(stdout(&output).ends_with("backend scalar: 0 of 1 cases passed\n"), "{}", stdout(&output));
    let output = attn(&["validate", "--json", "--input", &path]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_str(stdout(&output)).expect("JSON");
    assert_eq!((&report["passed"], &report["cases"][0]["passed"]), (&false.into(), &false.into()));
}

/// Among enough good heads, all together are within the limits.
#[test]
fn a_head_that_fails_alone_fails_its_case() {
    let file = failing_after(99, 2.5);
    let output = attn(&["validate", "--input", &path_of(&file)]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let rows = stdout(&output).lines().filter(|line| line.starts_with("    head ") && !line.contains(':'));
    assert_eq!(rows.count(), 100, "{}", stdout(&output));
    let output = attn(&["validate", "--json", "--input", &path_of(&file)]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let report: serde_json::Value = serde_json::from_str(stdout(&output)).expect("JSON");
    let violations = report["cases"][0]["violations"].as_array().expect("violations");
    let of_head = |text: &serde_json::Value| text.as_str().is_some_and(|text| text.starts_with("head 99: "));
    assert!(!violations.is_empty() && violations.iter().all(of_head), "{violations:?}");
}

#[test]
fn without_a_command_there_is_help() {
    let output = attn(&[]);
    assert_eq!(output.status.code(), Some(2));
    for command in ["validate", "run", "compare"] {
        assert!(stderr(&output).lines().any(|line| line.starts_with(&format!("  {command} "))), "{}", stderr(&output));
    }
}

#[test]
fn masks_of_the_file_and_of_the_command_line_are_validated() {
    let (tensor, mask) = ([3_u8; 4 * 8], [1_u8, 1, 0, 1]);
    let one = 1.0_f32.to_le_bytes();
    let scales = ["q_scale", "k_scale", "v_scale"].map(|name| (name, "<f4", "()", one.as_slice()));
    let tensors = ["q", "k", "v"].map(|name| (name, "|i1", "(4, 8)", tensor.as_slice()));
    let good = archive(&[&tensors[..], &scales[..], &[("mask", "|b1", "(4,)", &mask)]].concat());
    let path = good.path().display().to_string();
    let output = attn(&["validate", "--input", &path, "--causal=1", "--valid-keys", "3"]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
}

#[test]
fn help_has_examples() {
    for command in ["validate", "run", "compare"] {
        let output = attn(&[command, "--help"]);
        assert_eq!(output.status.code(), Some(0));
        for part in ["Examples:", &format!("attn {command}"), "Exit status", ".npz"] {
            assert!(stdout(&output).contains(part), "{part}: {}", stdout(&output));
        }
    }
}
