//! The truth and the metrics against numpy: `numpy/attention.npz`, which `numpy/make.py` writes and checks.

use attn_fixed::Mask;
use attn_ref::{Accumulator, Metrics, attention, correlation, tolerance};
use ndarray::{Array2, Array3};
use npyz::{Deserialize, NpyFile};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::Path,
};
use zip::ZipArchive;

/// The parts of one case by name; int64 scalars and bool arrays become `f64`.
#[derive(Default)]
struct Case(BTreeMap<String, (Vec<usize>, Vec<f64>)>);

impl Case {
    fn values(&self, part: &str) -> &[f64] {
        &self.0[part].1
    }

    fn scalar(&self, part: &str) -> f64 {
        let [value] = *self.values(part) else {
            panic!("{part} is not a scalar");
        };
        value
    }

    fn heads(&self, part: &str) -> Array3<f64> {
        let (shape, values) = &self.0[part];
        let shape: [usize; 3] = shape.as_slice().try_into().expect("[heads, rows, dim]");
        Array3::from_shape_vec(shape, values.clone()).expect("as many values as the shape has")
    }

    fn integer(&self, part: &str) -> Option<usize> {
        self.0.contains_key(part).then(|| self.scalar(part) as usize)
    }

    /// The boolean mask and the number of keys in its rows.
    fn allowed(&self) -> Option<(Vec<bool>, usize)> {
        let (shape, values) = self.0.get("allowed")?;
        Some((values.iter().map(|&x| x > 0.0).collect(), shape[1]))
    }
}

/// The cases of the committed file by name.
fn cases() -> BTreeMap<String, Case> {
    fn read<T: Deserialize>(npy: NpyFile<impl std::io::Read>) -> Vec<T> {
        npy.into_vec().expect("values")
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/numpy/attention.npz");
    let mut archive = ZipArchive::new(File::open(path).expect("the committed file")).expect("an archive");
    let names: Vec<String> = archive.file_names().map(|name| name.expect("a name").into_owned()).collect();
    let mut cases = BTreeMap::<String, Case>::new();
    for name in names {
        let npy = NpyFile::new(archive.by_name(&name).expect("listed")).expect("readable");
        let name = name.strip_suffix(".npy").expect("an array");
        assert_eq!(npy.order(), npyz::Order::C, "{name}");
        let shape = npy.shape().iter().map(|&length| length as usize).collect();
        let values = match npy.dtype().descr().as_str() {
            "'<f8'" => read(npy),
            "'<i8'" => read::<i64>(npy).into_iter().map(|x| x as f64).collect(),
            "'|b1'" => read::<bool>(npy).into_iter().map(|x| f64::from(u8::from(x))).collect(),
            other => panic!("{name}: unexpected type {other}"),
        };
        let (case, part) = name.split_once('.').expect("CASE.PART");
        cases.entry(case.to_owned()).or_default().0.insert(part.to_owned(), (shape, values));
    }
    cases
}

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
        let mut mask = Mask::new();
        if let Some(keys) = case.integer("valid_keys") {
            mask = mask.valid_keys(keys);
        }
        if let Some(offset) = case.integer("causal") {
            mask = mask.causal(offset);
        }
        if let Some((allowed, keys)) = &allowed {
            mask = mask.allowed(allowed, *keys);
        }
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
