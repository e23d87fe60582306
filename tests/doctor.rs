//! `attn doctor`, on whatever machine this is.

mod common;

use common::{attn, stdout};
use serde_json::Value;

fn report(arguments: &[&str]) -> (Option<i32>, Value) {
    let output = attn(&[&["doctor", "--json"], arguments].concat());
    (output.status.code(), serde_json::from_slice(&output.stdout).expect("JSON"))
}

/// `ok` and the exit status say whether there is a problem, and each problem what to do, or what comes first.
fn assert_consistent((status, report): &(Option<i32>, Value)) -> Vec<String> {
    let checks = report["checks"].as_array().expect("checks");
    let problems: Vec<_> = checks.iter().filter(|check| check["status"] == "problem").collect();
    assert_eq!(report["ok"], problems.is_empty());
    assert_eq!(*status, Some(i32::from(!problems.is_empty())));
    for check in checks {
        let text = |field: &str| check[field].as_str().unwrap_or_default();
        assert!(["ok", "problem", "not needed"].contains(&text("status")), "{check}");
        assert!(!text("name").is_empty() && !text("detail").is_empty(), "{check}");
        assert!(check["fix"].is_null() || !text("fix").is_empty(), "{check}");
        assert_eq!(check.as_object().map(serde_json::Map::len), Some(4), "{check}");
    }
    for problem in problems {
        let waits = problem["detail"].as_str().is_some_and(|detail| detail.starts_with("not tried, for "));
        assert!(waits || !problem["fix"].is_null(), "{problem}");
    }
    checks.iter().map(|check| check["name"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_cpu_works() {
    let report = report(&["--for", "cpu"]);
    assert_eq!(assert_consistent(&report), ["cpu", "backend", "libtorch"]);
    assert_eq!(report.0, Some(0));
    let text = attn(&["doctor", "--for", "cpu"]);
    assert_eq!(text.status.code(), Some(0));
    assert_eq!(stdout(&text).lines().count(), 3);
    assert!(
        stdout(&text).lines().all(|line| line.contains(" ok ") || line.contains(" not needed ")),
        "{}",
        stdout(&text)
    );
}

#[test]
fn every_step_of_a_run_is_a_check() {
    let report = report(&[]);
    let names = assert_consistent(&report);
    for name in ["cpu", "npu", "driver", "xrt", "device", "xclbin", "context", "buffers", "self-test", "compilers"] {
        assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
    }
    // No xclbin was given.
    assert_eq!(report.0, Some(1));
    let text = attn(&["doctor"]);
    assert_eq!(stdout(&text).lines().count(), names.len());
}

#[cfg(not(any(feature = "xrt-shim", feature = "xrt")))]
#[test]
fn a_program_without_xrt_says_so() {
    let (_, report) = report(&["--xclbin", "missing.xclbin"]);
    let xrt = report["checks"].as_array().and_then(|checks| checks.iter().find(|check| check["name"] == "xrt"));
    let xrt = xrt.expect("a check");
    assert_eq!(xrt["detail"], "this program was built without XRT");
    assert!(xrt["fix"].as_str().is_some_and(|fix| fix.contains("--features xrt-shim")), "{xrt}");
}
