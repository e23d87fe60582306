//! The page of `attn validate --report`: that it says what the command says, and needs nothing but itself.

mod common;

use std::{collections::BTreeSet, fs, process::Command};

use common::{assert_usage_error, attn, fixture, stderr, stdout};
use serde_json::Value;

/// What one call wrote: the page, and the JSON if it was asked for.
fn validate(arguments: &[&str], status: i32) -> (String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("report.html");
    let output = attn(&[&["validate", "--report", &file.display().to_string()], arguments].concat());
    assert_eq!(output.status.code(), Some(status), "{}", stderr(&output));
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "a part of a file is left");
    (fs::read_to_string(file).expect("a report"), stdout(&output).to_owned())
}

fn heads() -> String {
    fixture("tests/report/heads.npz")
}

/// Every value of an attribute.
fn attributes<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    let start = format!(" {name}=\"");
    page.split(&start).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

/// Every figure of a row of a table, by its name.
fn figures<'a>(page: &'a str, row: &str) -> Vec<(&'a str, f64)> {
    let (_, row) = page.split_once(&format!("<tr {row}>")).unwrap_or_else(|| panic!("no row {row}"));
    let row = row.split("</tr>").next().expect("its end");
    let value = |figure: &'a str| {
        let (name, rest) = figure.split_once("\" value=\"").expect("a value");
        (name, rest.split('"').next().and_then(|value| value.parse().ok()).expect("a number"))
    };
    row.split("<data class=\"").skip(1).map(value).collect()
}

#[track_caller]
fn assert_same_figures(page: &str, report: &Value) {
    let assert_row = |row: &str, head: &Value| {
        let figures = figures(page, row);
        assert!(figures.len() >= 12, "{row}: {figures:?}");
        for (name, got) in figures {
            let expected = match name.split_once('_') {
                Some(("got" | "expected", "min")) => &head[name.replace("min", "range")][0],
                Some(("got" | "expected", "max")) => &head[name.replace("max", "range")][1],
                Some(("libtorch", name)) => &head["libtorch"][name],
                _ => &head[name],
            };
            // Written in full, but JSON is read to the last bits.
            let expected = expected.as_f64().unwrap_or_else(|| panic!("{row}: no {name}"));
            assert!((got - expected).abs() <= expected.abs() * 4.0 * f64::EPSILON, "{row}, {name}: {got} {expected}");
        }
    };
    for (c, case) in report["cases"].as_array().expect("cases").iter().enumerate() {
        assert_row(&format!("data-case=\"{c}\""), &case["overall"]);
        let heads = case["per_head"].as_array().expect("heads");
        for (h, head) in heads.iter().enumerate().filter(|_| heads.len() > 1) {
            assert_row(&format!("data-case=\"{c}\" data-head=\"{h}\""), head);
        }
    }
}

/// Nothing runs, nothing is loaded, and every link has its end in the page.
#[track_caller]
fn assert_self_contained(page: &str) {
    for forbidden in [
        "<script",
        "<link",
        "<iframe",
        "<object",
        "<embed",
        "<base",
        "@import",
        "url(",
        "javascript:",
        "http:",
        "https:",
    ] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    assert!(attributes(page, "src").is_empty());
    let identifiers: Vec<_> = attributes(page, "id");
    let different: BTreeSet<_> = identifiers.iter().collect();
    assert_eq!(identifiers.len(), different.len(), "an id is there twice");
    for link in attributes(page, "href") {
        let is_own = link.strip_prefix('#').is_some_and(|id| different.contains(&id));
        assert!(is_own || link.starts_with("data:image/png;base64,"), "{link}");
    }
    for event in ["onload", "onclick", "onerror"] {
        assert!(attributes(page, event).is_empty());
    }
}

#[test]
fn a_report_of_the_built_in_suite_has_the_figures_of_the_json_and_stays_small() {
    let (page, json) = validate(&["--json", "--backend", "auto"], 0);
    let report: Value = serde_json::from_str(&json).expect("JSON");
    assert_self_contained(&page);
    assert_same_figures(&page, &report);
    assert!(page.contains("<strong class=\"badge\">✓ PASS</strong>"));
    assert!(page.len() < 3 << 20, "{} bytes", page.len());
    // Every head has its pictures: four each, and four of every group with more than one head.
    let count = |key: &str| {
        report["cases"].as_array().expect("cases").iter().map(|case| case[key].as_u64().unwrap_or(0)).sum::<u64>()
    };
    assert_eq!(page.matches("<figure>").count() as u64, 4 * count("heads") + 4 * 4);
}

#[test]
fn what_fails_is_said_first_and_is_unfolded() {
    let (page, json) = validate(&["--input", &heads(), "--json"], 1);
    let report: Value = serde_json::from_str(&json).expect("JSON");
    assert_self_contained(&page);
    assert_same_figures(&page, &report);
    let violations = report["cases"][0]["violations"].as_array().expect("violations");
    let header = page.split("</header>").next().expect("a header");
    assert!(header.contains("<strong class=\"badge\">✗ FAIL</strong>: 1 of 1 case"), "{header}");
    for violation in violations {
        let violation = violation.as_str().expect("a text").replace('<', "&lt;").replace('>', "&gt;");
        assert!(header.contains(&violation), "{violation}");
    }
    // The third head fails: its pictures come first, open, and the others are folded.
    let order: Vec<_> = page.split("<details class=\"").skip(2).filter_map(|rest| rest.split('>').next()).collect();
    assert_eq!(
        order,
        ["head fail\" id=\"case-0-head-2\" open", "head\" id=\"case-0-head-0\"", "head\" id=\"case-0-head-1\""]
    );
    assert_eq!(page.matches("✗ <data class=\"within_1\"").count(), 3, "head 2 in two tables, and all heads together");
}

#[cfg(unix)]
#[test]
fn names_are_text() {
    let folder = tempfile::tempdir().expect("a folder");
    let name = "<script>alert(1)</script> & \"'q\x1b[2J\u{202e}zpn.npz";
    // A slash ends a name.
    let file = folder.path().join(name.replace('/', "\\"));
    fs::copy(heads(), &file).expect("a name of any letters");
    let (page, _) = validate(&["--input", &file.display().to_string()], 1);
    assert_self_contained(&page);
    assert!(page.contains("&lt;script&gt;alert(1)&lt;\\script&gt; &amp; &quot;"), "{page}");
    // Nothing of it is a command, nor turns the text around.
    assert!(!page.contains(['\x1b', '\u{202e}']), "{page}");
    let (_, environment) = page.split_once("<section id=\"environment\">").expect("where it was computed");
    assert_eq!(environment.matches(r"\u{1b}[2J\u{202e}zpn.npz").count(), 2, "the input and the command: {environment}");
}

#[test]
fn emulation_is_never_shown_as_hardware() {
    for (backend, label) in [
        ("kernel", "kernel (host): the NPU's kernel in portable C, run on this CPU: no NPU computed this"),
        ("scalar", "scalar: the specification itself"),
    ] {
        let kind: attn::backend::BackendKind = backend.parse().expect("a backend");
        if let Err(error) = kind.open(&attn::backend::Options::default()) {
            // `cargo xtask unit` lists it, too.
            println!("SKIPPED {error}");
            continue;
        }
        let (page, _) = validate(&["--input", &heads(), "--backend", backend], 1);
        assert!(page.contains(&format!("<dt>Backend</dt><dd>{label}")), "{backend}");
    }
}

#[test]
fn a_report_does_not_change_what_is_printed() {
    let (_, with) = validate(&["--input", &heads()], 1);
    assert_eq!(with, stdout(&attn(&["validate", "--input", &heads()])));
}

/// Before anything is computed, and without touching what is there.
#[test]
fn a_report_that_cannot_be_written_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    assert_usage_error(
        &["validate", "--input", &heads(), "--report", &path("no/report.html")],
        &["report.html: cannot write it: ", "expected a path in a folder that can be written"],
    );
    assert_usage_error(&["validate", "--report", &path("")], &["is a folder, a pipe or a device"]);
    assert_usage_error(&["validate", "--input", "missing.npz", "--report", &path("r.html")], &["missing.npz: "]);
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

/// A disk that is full in the middle of it.
#[cfg(target_os = "linux")]
#[test]
fn a_report_is_whole_or_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("report.html");
    fs::write(&file, "what was there").expect("written");
    let script = "ulimit -f 8; trap '' XFSZ; exec \"$0\" validate --input \"$1\" --report \"$2\"";
    let arguments = ["-c", script, env!("CARGO_BIN_EXE_attn"), &heads(), &file.display().to_string()];
    let output = Command::new("sh").args(arguments).output().expect("a shell");
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("report.html: cannot write it: File too large"), "{}", stderr(&output));
    assert_eq!(fs::read_to_string(&file).expect("a file"), "what was there");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
}

/// Whoever closes stdout, as `head` does, has asked for the report all the same, and the status is its verdict.
#[test]
fn a_closed_stdout_costs_neither_report_nor_verdict() {
    for (input, status, verdict) in [(heads(), 1, "✗ FAIL"), (fixture("tests/npz/float32.npz"), 0, "✓ PASS")] {
        for json in [&[][..], &["--json"]] {
            let folder = tempfile::tempdir().expect("a folder");
            let file = folder.path().join("report.html");
            let (reader, closed) = std::io::pipe().expect("a pipe");
            drop(reader);
            let mut command = Command::new(env!("CARGO_BIN_EXE_attn"));
            command.args(["validate", "--input", &input, "--report"]).arg(&file).args(json).stdout(closed);
            let output = command.output().expect("the attn command starts");
            assert_eq!((output.status.code(), stderr(&output)), (Some(status), ""));
            let page = fs::read_to_string(file).expect("a report");
            assert!(page.contains(&format!("<strong class=\"badge\">{verdict}</strong>")), "{page}");
        }
    }
}
