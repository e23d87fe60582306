//! `attn bench` as its users call it: fields, rows, errors. How fast anything is, is nobody's test.

mod common;

use attn::{
    backend::{BackendKind, Isa, Options},
    bench::workloads,
};
use common::{attn, stderr, stdout};
use serde_json::Value;

const PEERS: [&str; 4] = ["torch-sdpa-f32", "torch-sdpa-bf16", "torch-plain-f32", "torch-plain-bf16"];

fn report(arguments: &[&str]) -> Value {
    let output = attn(&[&["bench", "--rounds", "2", "--json"], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(output.stderr.is_empty(), "{}", stderr(&output));
    serde_json::from_str(stdout(&output)).expect("JSON")
}

/// The backends of a workload's rows.
fn backends<'a>(report: &'a Value, workload: &str) -> Vec<&'a str> {
    let rows = report["results"].as_array().expect("rows");
    let rows = rows.iter().filter(|row| row["workload"] == workload);
    rows.map(|row| row["backend"].as_str().expect("a name")).collect()
}

/// What is expected of a CPU's backends.
fn expected(backends: &[&'static str]) -> Vec<&'static str> {
    let peers = PEERS.into_iter().filter(|_| cfg!(feature = "torch"));
    backends.iter().copied().chain(peers).collect()
}

fn available() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

#[test]
fn every_backend_and_peer_has_a_row_with_all_fields() {
    let report = report(&["--shape", "1x4x5x8"]);
    let names: Vec<_> = ["scalar"].into_iter().chain(available().map(Isa::name)).collect();
    for workload in ["1x4x5x8", "1x4x5x8-f32io"] {
        assert_eq!(backends(&report, workload), expected(&names));
    }
    let environment = &report["environment"];
    assert_eq!(environment["attn"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&environment["threads"], &environment["rounds"]), (&1.into(), &2.into()));
    assert_eq!(environment["libtorch"].is_null(), cfg!(not(feature = "torch")));
    assert!(environment["cores"].as_u64() >= Some(1));
    assert!(environment["cpu"].is_string() && environment["os"].is_string());
    let flags = environment["flags"].as_array().expect("flags");
    if cfg!(target_os = "linux") {
        assert_eq!(flags.contains(&"avx2".into()), available().any(|isa| isa == Isa::Avx2), "{flags:?}");
    }
    let peaks = environment["peaks"].as_object().expect("peaks");
    assert_eq!(peaks.len(), available().count());
    assert!(available().all(|isa| peaks[isa.name()].as_f64() > Some(1e8)), "{peaks:?}");

    for row in report["results"].as_array().expect("rows") {
        let number = |field: &str| row[field].as_f64().unwrap_or_else(|| panic!("{field} of {row}"));
        assert_eq!((&row["threads"], &row["rounds"]), (&1.into(), &2.into()));
        let (ns, rate) = (number("median_ns"), number("mac_per_s"));
        assert!(ns > 0.0 && (rate * ns / 1e9 / 320.0 - 1.0).abs() < 1e-9, "2 · 4 · 5 · 8 products: {row}");
        if peaks.is_empty() {
            assert!(row["peak_fraction"].is_null() && row["peak_mac_per_s"].is_null(), "{row}");
        } else {
            let share = rate / number("peak_mac_per_s");
            assert!((number("peak_fraction") / share - 1.0).abs() < 1e-9 && share < 1.0, "{row}");
        }
        if cfg!(feature = "torch") {
            assert!(number("ratio_torch_f32") > 0.0, "{row}");
        } else {
            assert!(row["ratio_torch_f32"].is_null() && row.get("ratio_torch_f32").is_some(), "{row}");
        }
        if row["backend"] == PEERS[0] {
            assert_eq!(row["ratio_torch_f32"], 1.0);
            assert!(number("max_error_lsb") < 1e-3, "{row}");
        }
        // Less than what 8 bits cost, and more than nothing for whoever has 8 bits.
        let (max, mean) = (number("max_error_lsb"), number("mean_error_lsb"));
        assert!(mean <= max && max < 3.0 && number("within_1_lsb") > 0.8, "{row}");
        assert!(mean > 0.05 || row["backend"] == PEERS[0] || row["backend"] == PEERS[2], "{row}");
    }
}

#[test]
fn backends_are_chosen_and_each_is_measured_once() {
    let report = report(&["--shape", "2x3x4x16", "--backend", "scalar", "--backend", "auto", "--backend", "scalar"]);
    let best = Isa::best().map(Isa::name);
    let names: Vec<_> = ["scalar"].into_iter().chain(best).collect();
    assert_eq!(backends(&report, "2x3x4x16"), expected(&names));
}

/// It is no contestant, and not among them unless it is asked for.
#[test]
fn a_kernel_of_the_npu_is_measured_on_demand_and_labelled_as_a_host_run() {
    if BackendKind::Kernel.open(&Options::default()).is_ok() {
        let report = report(&["--shape", "1x4x5x8", "--backend", "kernel", "--threads", "2"]);
        for workload in ["1x4x5x8", "1x4x5x8-f32io"] {
            assert_eq!(backends(&report, workload), expected(&["kernel (host)"]));
        }
        assert_eq!(report["results"][0]["threads"], 1);
    }
}

/// The same bits, so the same accuracy; and the accuracy does not depend on how many threads there are.
#[test]
fn backends_are_equally_accurate_on_any_number_of_threads() {
    for threads in ["1", "2"] {
        let report = report(&["--shape", "2x130x150x24", "--threads", threads]);
        for row in report["results"].as_array().expect("rows") {
            let peer = row["backend"].as_str().expect("a name").starts_with("torch");
            assert_eq!(row["threads"].to_string(), if row["backend"] == "scalar" { "1" } else { threads });
            let first = report["results"].as_array().and_then(|rows| {
                rows.iter().find(|first| first["workload"] == row["workload"] && first["backend"] == "scalar")
            });
            for field in ["max_error_lsb", "mean_error_lsb", "within_1_lsb"] {
                assert!(peer || row[field] == first.expect("scalar")[field], "{row}");
            }
        }
    }
}

#[test]
fn the_table_says_where_it_was_measured() {
    let output = attn(&["bench", "--shape", "1x4x5x8", "--rounds", "2", "--backend", "scalar"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let table = stdout(&output);
    let version = concat!("attn ", env!("CARGO_PKG_VERSION"));
    assert!(table.lines().take(3).any(|line| line.starts_with(version)), "{table}");
    let left_out =
        "libtorch is left out (`cargo xtask libtorch`, then build with `--features torch`), so there are no ratios";
    assert_eq!(table.contains(left_out), cfg!(not(feature = "torch")), "{table}");
    assert!(table.contains("\n1x4x5x8: 1 x 4 x 5 x 8 int8, normal numbers\n"), "{table}");
    assert!(table.contains("\n1x4x5x8-f32io: 1 x 4 x 5 x 8 float32, normal numbers\n"), "{table}");
    assert_eq!(table.matches("\n  scalar ").count(), 2, "{table}");
    assert_eq!(table.matches("\n  torch-sdpa-f32 ").count(), 2 * usize::from(cfg!(feature = "torch")), "{table}");
}

#[test]
fn the_workloads_of_the_project_are_there() {
    let names: Vec<String> = workloads().into_iter().map(|workload| workload.name).collect();
    for name in ["tile-64x64x64", "tiles64-64x64x64", "whisper-8x1500x64"] {
        assert!([name.to_owned(), format!("{name}-f32io")].iter().all(|name| names.contains(name)), "{names:?}");
    }
}
