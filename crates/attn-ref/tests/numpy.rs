//! The truth and the metrics against numpy: `numpy/attention.npz`, which `numpy/make.py` writes and checks.

mod cases;

use attn_ref::{Accumulator, Metrics, attention, correlation, tolerance};
use cases::cases;
use ndarray::Array2;
use std::collections::BTreeSet;

#[test]
fn the_file_has_every_case() {
    let names = cases().into_keys().collect::<BTreeSet<_>>();
    let expected = [
        "boolean",
        "causal",
        "causal_no_offset",
        "combined",
        "extreme",
        "grouped",
        "metrics_integers",
        "metrics_offset",
        "metrics_real",
        "plain",
        "valid_keys",
    ];
    assert!(names.iter().eq(expected), "{names:?}");
}

#[test]
fn truth_agrees_with_numpy() {
    for (name, case) in cases() {
        if name.starts_with("metrics") {
            continue;
        }
        let allowed = case.allowed();
        let mask = case.mask(allowed.as_ref());
        let (query, key, value) = (case.heads("query"), case.heads("key"), case.heads("value"));
        let got = attention(query.view(), key.view(), value.view(), case.scalar("scale"), &mask).expect(&name);
        let expected = case.heads("expected");
        assert_eq!(got.dim(), expected.dim(), "{name}");
        let metrics = Metrics::of(got.iter().copied(), expected.iter().copied()).expect(&name);
        println!("{name}: maximum error {:e}", metrics.max_error);
        assert_eq!(tolerance::ORACLE.check(&metrics, None), [], "{name}");
    }
}

#[test]
fn the_boolean_case_hides_a_whole_row_and_the_largest_scores() {
    let cases = cases();
    let case = &cases["boolean"];
    let (allowed, keys) = case.allowed().expect("a boolean mask");
    let hidden: Vec<usize> =
        allowed.chunks(keys).enumerate().filter(|(_, row)| !row.contains(&true)).map(|(i, _)| i).collect();
    assert_eq!(hidden, [4]);
    for head in case.heads("expected").outer_iter() {
        assert_eq!(head.row(4).to_owned(), Array2::<f64>::zeros(head.dim()).row(4));
    }
    let (query, key) = (case.heads("query"), case.heads("key"));
    let scores = query.index_axis(ndarray::Axis(0), 0).dot(&key.index_axis(ndarray::Axis(0), 0).t());
    for row in scores.rows() {
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        assert!(row[10] >= largest && row[10] * case.scalar("scale") > 1000.0);
    }
}

#[test]
fn metrics_agree_with_numpy() {
    for (name, case) in cases() {
        if !name.starts_with("metrics") {
            continue;
        }
        let (got, expected) = (case.values("got"), case.values("reference"));
        let metrics = Metrics::of(got.iter().copied(), expected.iter().copied()).expect(&name);
        // The same by parts, and by the function of slices.
        let mut merged = Accumulator::new();
        for (got, expected) in got.chunks(97).zip(expected.chunks(97)) {
            let mut part = Accumulator::new();
            got.iter().zip(expected).for_each(|(&got, &expected)| part.push(got, expected));
            merged.merge(&part);
        }
        let merged = merged.finish().expect(&name);
        let plain = Metrics { correlation: correlation(got, expected), ..metrics };
        for metrics in [metrics, merged, plain] {
            let figures = [
                ("correlation", metrics.correlation.expect(&name)),
                ("mae", metrics.mae),
                ("rmse", metrics.rmse),
                ("equal", metrics.equal),
                ("within_1", metrics.within_1),
                ("within_5", metrics.within_5),
                ("max_error", metrics.max_error),
            ];
            let (figures, numpy): (Vec<_>, Vec<_>) =
                figures.into_iter().map(|(figure, got)| (got, case.scalar(figure))).unzip();
            let difference = Metrics::of(figures, numpy).expect(&name);
            println!("{name}: maximum difference {:e}", difference.max_error);
            assert_eq!(tolerance::ORACLE.check(&difference, None), [], "{name} {metrics:?}");
            assert_eq!(case.values("got_range"), <[f64; 2]>::from(metrics.got_range), "{name}");
            assert_eq!(case.values("expected_range"), <[f64; 2]>::from(metrics.expected_range), "{name}");
            assert_eq!((metrics.count, metrics.non_finite), (got.len() as u64, 0), "{name}");
        }
    }
}

#[test]
fn the_script_has_the_tolerance_of_the_table() {
    let script = include_str!("numpy/make.py");
    let stated = script.lines().find_map(|line| line.strip_prefix("TOLERANCE = ")).expect("a tolerance");
    let stated: f64 = stated.split_whitespace().next().expect("a number").parse().expect("a number");
    assert_eq!(Some(stated), tolerance::REGENERATED.max_error);
}
