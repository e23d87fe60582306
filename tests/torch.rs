//! The reference column of `attn validate`: libtorch.

#[cfg(feature = "torch")]
mod common;

/// What `cargo test` without the feature prints.
#[cfg(not(feature = "torch"))]
#[test]
#[ignore = "left to `cargo xtask torch`"]
fn the_column_of_libtorch() {
    panic!("built without the feature `torch`");
}

#[cfg(feature = "torch")]
mod with_libtorch {
    use attn::{
        npz::{self, Output, OutputValues, Values},
        quantise,
    };
    use attn_ref::{
        Metrics, round_to_i8,
        torch::{Method, Precision, TorchAttention},
    };
    use ndarray::{Array2, Axis};

    use super::common::{Array, archive, attn, fixture, path_of, stderr, stdout};

    fn report(arguments: &[&str]) -> serde_json::Value {
        let output = attn(&[&["validate", "--json"], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        serde_json::from_str(stdout(&output)).expect("JSON")
    }

    #[test]
    fn every_head_of_the_suite_is_compared_with_it() {
        let report = report(&[]);
        let name = "libtorch 2.13.0, scaled_dot_product_attention in f32";
        assert_eq!(report["libtorch"], name);
        let cases = report["cases"].as_array().expect("cases");
        assert!(cases.len() >= 80);
        for case in cases {
            let heads = case["per_head"].as_array().expect("heads").iter();
            for head in heads.chain([&case["overall"]]) {
                let (libtorch, name) = (&head["libtorch"], &case["name"]);
                assert_eq!(libtorch["count"], head["count"], "{name}");
                assert_eq!(libtorch["non_finite"], 0, "{name}");
                if case["group"] == "acceptance" {
                    assert!(libtorch["correlation"].as_f64() > Some(0.999) && libtorch["mae"].as_f64() < Some(0.76));
                } else {
                    // float32 and float64 round alike but for ties.
                    let limit = case["tolerance"]["min_within_1"].as_f64();
                    assert!(libtorch["within_1"].as_f64() >= limit, "{name}: {libtorch}");
                    let difference =
                        libtorch["equal"].as_f64().expect("a share") - head["equal"].as_f64().expect("one");
                    assert!(difference.abs() < 1e-3, "{name}: equal differs by {difference}");
                }
            }
        }
        let table = attn(&["validate", "--input", &fixture("src/suite/data/acceptance.npz")]);
        assert!(stdout(&table).starts_with(&format!("backend: scalar\nreference: {name}\n")), "{}", stdout(&table));
        assert_eq!(stdout(&table).matches("libtorch:").count(), 2, "a column of each table");
    }

    /// The column against libtorch itself, computed another way: the definition, in float64, of an output file.
    #[test]
    fn the_figures_are_those_of_the_output_against_libtorch() {
        let input = fixture("src/suite/data/acceptance.npz");
        let file = tempfile::NamedTempFile::new().expect("a file");
        let ran = attn(&["run", "--input", &input, "--output", &path_of(&file)]);
        assert_eq!(ran.status.code(), Some(0), "{}", stderr(&ran));
        let OutputValues::Int8 { values, scales } = Output::read(file.path()).expect("written").values else {
            panic!("out is float");
        };
        let Values::Float(floats) = npz::read(input.as_ref()).expect("a fixture").values else {
            panic!("the fixture is int8");
        };
        let dequantised = |floats: &[f32]| {
            let mut integers = vec![0; floats.len()];
            let scale = f64::from(quantise(floats, &mut integers).expect("finite"));
            let values = integers.iter().map(|&x| f64::from(x) * scale).collect();
            Array2::from_shape_vec([64, 64], values).expect("64 x 64").insert_axis(Axis(0))
        };
        let [query, key, value] = [floats.query, floats.key, floats.value].map(|floats| dequantised(&floats));
        let masks = [attn::Mask::new()];
        let attention =
            TorchAttention::new(query.view(), key.view(), value.view(), 0.125, &masks, Precision::F64).expect("valid");
        let libtorch = attention.compute(Method::Plain).and_then(|out| out.to_array()).expect("computed");
        let expected = libtorch.iter().map(|x| round_to_i8(x / f64::from(scales[0])));
        let expected = Metrics::of(values, expected).expect("64 x 64");
        let report = report(&["--input", &input]);
        let got = &report["cases"][0]["per_head"][0]["libtorch"];
        for (figure, expected) in [("mae", expected.mae), ("equal", expected.equal), ("within_1", expected.within_1)] {
            // One of 4096 elements may lie so near a tie that float32 rounds it to the other side.
            assert!((got[figure].as_f64().expect("a figure") - expected).abs() < 1.5 / 4096.0, "{figure}: {got}");
        }
    }

    /// Six heads to two, a mask for each, rows that see nothing; the values of one head are beyond float32.
    #[test]
    fn masks_groups_and_what_float32_cannot_hold() {
        let tensor = |rows: u32, seed: u32| -> Vec<u8> {
            (0..rows * 8).map(|i| ((i + seed).wrapping_mul(0x9E37_79B1) >> 25) as u8).collect()
        };
        let (query, key, value) = (tensor(18, 1), tensor(10, 1000), tensor(10, 2000));
        let mask: Vec<u8> = (0..6 * 3 * 5).map(|i| u8::from(i % 7 != 2 && i / 5 % 3 != 1)).collect();
        let one = 0.01_f32.to_le_bytes();
        let scales = |second: f32| [0.5_f32.to_le_bytes(), second.to_le_bytes()].concat();
        for (second, lost) in [(0.25, 0), (1e37, 3 * 3 * 8)] {
            let scales = scales(second);
            let arrays: [Array<'_>; 7] = [
                ("q", "|i1", "(6, 3, 8)", &query),
                ("k", "|i1", "(2, 5, 8)", &key),
                ("v", "|i1", "(2, 5, 8)", &value),
                ("q_scale", "<f4", "()", &one),
                ("k_scale", "<f4", "()", &one),
                ("v_scale", "<f4", "(2,)", &scales),
                ("mask", "|b1", "(6, 3, 5)", &mask),
            ];
            let file = archive(&arrays);
            let report = report(&["--input", &path_of(&file), "--causal=2"]);
            let libtorch = &report["cases"][0]["overall"]["libtorch"];
            assert_eq!((&libtorch["count"], &libtorch["non_finite"]), (&(6 * 3 * 8).into(), &lost.into()));
            let share = 1.0 - f64::from(lost) / f64::from(6 * 3 * 8);
            assert_eq!(libtorch["within_1"].as_f64(), Some(share), "{libtorch}");
            let table = attn(&["validate", "--input", &path_of(&file), "--causal=2"]);
            assert_eq!(stdout(&table).contains("of libtorch NaN or infinite"), lost > 0, "{}", stdout(&table));
        }
    }
}
