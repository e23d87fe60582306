//! libtorch against the truth. `cargo xtask torch` runs it; without the feature there is one test that says so.

#[cfg(not(feature = "torch"))]
#[test]
#[ignore = "left to `cargo xtask torch`"]
fn float_attention_in_libtorch() {
    panic!("built without the feature `torch`");
}

#[cfg(feature = "torch")]
mod cases;

#[cfg(feature = "torch")]
mod torch {
    use super::cases::cases;
    use attn_fixed::{Mask, MaskError, Tensor};
    use attn_ref::{
        Metrics, Tolerance, TruthError, attention, tolerance,
        torch::{Method, Precision, TorchAttention, TorchError, VERSION},
    };
    use ndarray::{Array3, Axis, Slice, array, s};
    use proptest::prelude::*;

    const METHODS: [Method; 2] = [Method::Plain, Method::Fused];
    const PRECISIONS: [Precision; 3] = [Precision::F64, Precision::F32, Precision::Bf16];

    /// How far from the truth it may be.
    fn tolerance(precision: Precision, method: Method) -> Tolerance {
        match (precision, method) {
            (Precision::F64, _) => tolerance::ORACLE,
            (Precision::F32, _) => tolerance::TORCH_F32,
            (Precision::Bf16, Method::Fused) => tolerance::TORCH_BF16,
            (Precision::Bf16, Method::Plain) => tolerance::TORCH_BF16_PLAIN,
        }
    }

    /// Query, key and value.
    type Inputs = [Array3<f64>; 3];

    /// Deterministic multiples of 1/64 in [-2, 2), other ones for every seed: they are exact in every precision.
    fn values(shape: [usize; 3], seed: u64) -> Array3<f64> {
        let mut state = seed;
        Array3::from_shape_simple_fn(shape, || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f64::from((state >> 56) as u8 as i8) / 64.0
        })
    }

    fn inputs([heads, kv_heads, m, n, d]: [usize; 5]) -> Inputs {
        [values([heads, m, d], 1), values([kv_heads, n, d], 2), values([kv_heads, n, d], 3)]
    }

    fn scale(d: usize) -> f64 {
        (d as f64).sqrt().recip()
    }

    /// libtorch's answer.
    fn torch(
        [query, key, value]: &Inputs,
        scale: f64,
        masks: &[Mask<'_>],
        precision: Precision,
        method: Method,
    ) -> Result<Array3<f64>, TorchError> {
        let prepared = TorchAttention::new(query.view(), key.view(), value.view(), scale, masks, precision)?;
        prepared.compute(method)?.to_array()
    }

    /// The truth, one mask for all heads or one for each.
    fn truth([query, key, value]: &Inputs, scale: f64, masks: &[Mask<'_>]) -> Array3<f64> {
        let all = |mask| attention(query.view(), key.view(), value.view(), scale, mask).expect("inputs that fit");
        if let [mask] = masks {
            return all(mask);
        }
        let mut out = Array3::zeros(query.raw_dim());
        for (head, mask) in masks.iter().enumerate() {
            out.index_axis_mut(Axis(0), head).assign(&all(mask).index_axis(Axis(0), head));
        }
        out
    }

    fn assert_close(name: &str, got: &Array3<f64>, expected: &Array3<f64>, tolerance: &Tolerance) {
        assert_eq!(got.dim(), expected.dim(), "{name}");
        let metrics = Metrics::of(got.iter().copied(), expected.iter().copied()).expect("elements");
        println!("{name}: maximum error {:e}", metrics.max_error);
        assert_eq!(tolerance.check(&metrics, None), [], "{name}");
    }

    /// Every precision and method within its tolerance of the truth.
    fn assert_true(name: &str, inputs: &Inputs, scale: f64, masks: &[Mask<'_>]) {
        let expected = truth(inputs, scale, masks);
        for precision in PRECISIONS {
            for method in METHODS {
                let name = format!("{precision} {method} {name}");
                let got = torch(inputs, scale, masks, precision, method).expect(&name);
                assert_close(&name, &got, &expected, &tolerance(precision, method));
            }
        }
    }

    #[test]
    fn the_version_is_the_pinned_one() {
        assert_eq!(VERSION, attn_libtorch::required());
    }

    #[test]
    fn every_shape() {
        // Ragged numbers of queries and keys, one of each, the ends of the head dimension, and more keys than the fused
        // kernel takes at a time.
        for shape in [
            [1, 1, 1, 1, 8],
            [2, 2, 1, 77, 64],
            [2, 2, 77, 1, 64],
            [3, 3, 64, 64, 64],
            [1, 1, 65, 127, 8],
            [2, 2, 33, 50, 80],
            [1, 1, 17, 129, 256],
            [1, 1, 70, 1500, 64],
            [4, 4, 7, 5, 3],
        ] {
            let [.., d] = shape;
            assert_true(&format!("{shape:?}"), &inputs(shape), scale(d), &[Mask::new()]);
        }
    }

    #[test]
    fn every_mask() {
        let (m, n) = (37, 90);
        let allowed: Vec<bool> = (0..m * n).map(|i| i % 5 != 2 && i / n != m / 2).collect();
        let allowed = |mask: Mask<'static>| -> Mask<'_> { mask.allowed(&allowed, n) };
        for shape in [[2, 2, m, n, 64], [6, 2, m, n, 32]] {
            let [.., d] = shape;
            let inputs = inputs(shape);
            for mask in [
                Mask::new().valid_keys(0),
                Mask::new().valid_keys(1),
                Mask::new().valid_keys(n),
                Mask::new().valid_keys(65),
                Mask::new().causal(0),
                Mask::new().causal(n - m),
                Mask::new().causal(n),
                allowed(Mask::new()),
                allowed(Mask::new().valid_keys(70)),
                allowed(Mask::new().causal(20)),
                Mask::new().causal(20).valid_keys(30),
                allowed(Mask::new().causal(20).valid_keys(30)),
            ] {
                let hidden = (0..m * n).filter(|i| !mask.visible(i / n, i % n)).count();
                assert_true(&format!("{shape:?}, {hidden} hidden"), &inputs, scale(d), &[mask]);
            }
        }
    }

    #[test]
    fn keys_that_are_hidden_a_whole_block_long() {
        // The fused kernel takes some hundred keys at a time: here it meets blocks without a visible key, first and last.
        let shape @ [.., m, n, d] = [2, 1, 70, 2000, 64];
        let allowed: Vec<bool> = (0..m * n)
            .map(|i| match i / n {
                0..20 => i % n >= 1900,
                20..40 => i % n < 3,
                40..60 => (1000..1001).contains(&(i % n)),
                _ => false,
            })
            .collect();
        assert_true("whole blocks", &inputs(shape), scale(d), &[Mask::new().allowed(&allowed, n)]);
    }

    #[test]
    fn a_row_without_visible_keys_is_zeros() {
        let shape @ [heads, _, m, n, d] = [4, 2, 5, 6, 16];
        let allowed: Vec<bool> = (0..m * n).map(|i| i / n != 3).collect();
        let mask = Mask::new().allowed(&allowed, n);
        for precision in PRECISIONS {
            for method in METHODS {
                let got = torch(&inputs(shape), scale(d), &[mask], precision, method).unwrap();
                for row in 0..m {
                    let zeros = got.index_axis(Axis(1), row).iter().filter(|&&x| x == 0.0).count();
                    assert_eq!(zeros == heads * d, row == 3, "{precision} {method} {row}");
                }
                let nothing = torch(&inputs(shape), scale(d), &[Mask::new().valid_keys(0)], precision, method);
                assert_eq!(nothing.unwrap(), Array3::<f64>::zeros((heads, m, d)), "{precision} {method}");
            }
        }
    }

    #[test]
    fn grouped_heads_are_key_heads_repeated() {
        for shape in [[8, 1, 9, 20, 32], [6, 2, 33, 40, 64], [6, 3, 1, 70, 64]] {
            let [heads, kv_heads, .., d] = shape;
            let grouped = inputs(shape);
            let mask = Mask::new().causal(3);
            assert_true(&format!("{shape:?}"), &grouped, scale(d), &[mask]);

            let repeat = |x: &Array3<f64>| {
                let indices: Vec<_> = (0..heads).map(|head| head / (heads / kv_heads)).collect();
                x.select(Axis(0), &indices)
            };
            let [query, key, value] = &grouped;
            let repeated = [query.clone(), repeat(key), repeat(value)];
            for method in METHODS {
                let run = |inputs| torch(inputs, scale(d), &[mask], Precision::F64, method).unwrap();
                assert_close(&format!("repeated {shape:?}"), &run(&grouped), &run(&repeated), &tolerance::ORACLE);
            }
        }
    }

    #[test]
    fn a_batch_is_more_heads_each_with_the_mask_of_its_entry() {
        // [batch, heads, m, d] with valid lengths for each entry, also with grouped heads.
        let (m, n, d) = (20, 30, 64);
        let valid = [30, 0, 7];
        let batch = valid.len();
        for (heads, kv_heads) in [(2, 2), (4, 2)] {
            let flat = inputs([batch * heads, batch * kv_heads, m, n, d]);
            let masks: Vec<_> = (0..batch * heads).map(|head| Mask::new().valid_keys(valid[head / heads])).collect();
            assert_true(&format!("batch of {heads} heads"), &flat, scale(d), &masks);

            for precision in PRECISIONS {
                for method in METHODS {
                    let got = torch(&flat, scale(d), &masks, precision, method).unwrap();
                    for (entry, &valid) in valid.iter().enumerate() {
                        let of = |x: &Array3<f64>, heads: usize| {
                            x.slice_axis(Axis(0), Slice::from(entry * heads..(entry + 1) * heads)).to_owned()
                        };
                        let [query, key, value] = &flat;
                        let inputs = [of(query, heads), of(key, kv_heads), of(value, kv_heads)];
                        let mask = Mask::new().valid_keys(valid);
                        let alone = torch(&inputs, scale(d), &[mask], precision, method).unwrap();
                        let name = format!("{precision} {method} entry {entry}");
                        assert_close(&name, &of(&got, heads), &alone, &tolerance(precision, method));
                    }
                }
            }
        }
    }

    #[test]
    fn scores_of_thousands_of_nats() {
        // Multiples of 4096 from -16384 to 12288: exact in every precision, no exponential of them is finite. Every
        // eighth key has the same score, so the result is an average of equals.
        let (m, n, d) = (9, 40, 8);
        let mut query = Array3::zeros((1, m, d));
        let mut key = Array3::zeros((1, n, d));
        query.slice_mut(s![.., .., 0]).fill(64.0);
        key.indexed_iter_mut().filter(|((_, _, column), _)| *column == 0).for_each(|((_, j, _), x)| {
            *x = 64.0 * ((j % 8) as f64 - 4.0);
        });
        let inputs = [query, key, values([1, n, d], 3)];
        assert_true("extreme", &inputs, 1.0, &[Mask::new()]);
        // The largest scores hidden: the maximum is that of visible keys.
        let allowed: Vec<bool> = (0..m * n).map(|i| i % n % 8 < 2).collect();
        let mask = Mask::new().allowed(&allowed, n);
        assert_true("extreme, largest hidden", &inputs, 1.0, &[mask]);
        assert_true("extreme, negative scale", &inputs, -1.0, &[mask]);
    }

    #[test]
    fn a_single_key_gives_its_value() {
        let inputs = inputs([2, 2, 5, 1, 64]);
        let expected =
            inputs[2].broadcast([5, 2, 1, 64]).unwrap().index_axis(Axis(2), 0).permuted_axes([1, 0, 2]).to_owned();
        for precision in PRECISIONS {
            for method in METHODS {
                assert_eq!(
                    torch(&inputs, 0.125, &[Mask::new()], precision, method).unwrap(),
                    expected,
                    "{precision} {method}"
                );
            }
        }
    }

    #[test]
    fn strides_do_not_matter() {
        let [query, key, value] = inputs([3, 3, 7, 6, 8]);
        // [rows, heads, dim] in memory, as projections give it.
        let by_row = |x: &Array3<f64>| x.view().permuted_axes([1, 0, 2]).as_standard_layout().into_owned();
        let (q, k, v) = (by_row(&query), by_row(&key), by_row(&value));
        let heads_first = [1, 0, 2];
        let strided = TorchAttention::new(
            q.view().permuted_axes(heads_first),
            k.view().permuted_axes(heads_first),
            v.view().permuted_axes(heads_first),
            0.5,
            &[Mask::new()],
            Precision::F64,
        );
        let got = strided.unwrap().compute(Method::Plain).unwrap().to_array().unwrap();
        let expected = torch(&[query, key, value], 0.5, &[Mask::new()], Precision::F64, Method::Plain);
        assert_eq!(got, expected.unwrap());
    }

    #[test]
    fn double_precision_agrees_with_numpy() {
        for (name, case) in cases() {
            if name.starts_with("metrics") {
                continue;
            }
            let allowed = case.allowed();
            let mask = case.mask(allowed.as_ref());
            let inputs = ["query", "key", "value"].map(|part| case.heads(part));
            for method in METHODS {
                let name = format!("{name} {method}");
                let got = torch(&inputs, case.scalar("scale"), &[mask], Precision::F64, method).expect(&name);
                assert_close(&name, &got, &case.heads("expected"), &tolerance::ORACLE);
            }
        }
    }

    #[test]
    fn precisions_and_methods_differ() {
        let inputs = inputs([1, 1, 16, 64, 64]);
        let expected = truth(&inputs, scale(64), &[Mask::new()]);
        let [plain, fused] = METHODS.map(|method| {
            PRECISIONS.map(|precision| {
                let got = torch(&inputs, scale(64), &[Mask::new()], precision, method).unwrap();
                Metrics::of(got.iter().copied(), expected.iter().copied()).unwrap().max_error
            })
        });
        for errors in [plain, fused] {
            assert!(errors[0] * 1e3 < errors[1] && errors[1] * 1e3 < errors[2], "{errors:?}");
        }
        // Scores are rounded to bf16 by separate operations only.
        assert!(plain[2] > 1.5 * fused[2], "{plain:?} {fused:?}");
    }

    /// Why the inputs are refused.
    fn refusal([query, key, value]: [&Array3<f64>; 3], scale: f64, masks: &[Mask<'_>]) -> TorchError {
        TorchAttention::new(query.view(), key.view(), value.view(), scale, masks, Precision::F32).unwrap_err()
    }

    /// Why the truth refuses them too.
    fn refused(inputs: [&Array3<f64>; 3], scale: f64, masks: &[Mask<'_>]) -> TruthError {
        match refusal(inputs, scale, masks) {
            TorchError::Truth(error) => error,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn wrong_inputs_are_named() {
        let ones = |shape| Array3::<f64>::ones(shape);
        let (q, k) = (&ones([4, 3, 8]), &ones([2, 5, 8]));
        let all = [Mask::new()];

        let got = [4, 0, 8];
        assert_eq!(refused([&ones(got), k, k], 1.0, &all), TruthError::Empty { tensor: Tensor::Query, got });
        let (got, expected) = ([2, 4, 8], [2, 5, 8]);
        let error = TruthError::Shape { tensor: Tensor::Value, got, expected };
        assert_eq!(refused([q, k, &ones(got)], 1.0, &all), error);
        let three = &ones([3, 5, 8]);
        assert_eq!(refused([q, three, three], 1.0, &all), TruthError::Heads { got: 4, kv_heads: 3 });
        let got = f64::INFINITY;
        assert_eq!(refused([q, k, k], got, &all), TruthError::Scale { got });
        let mut bad = k.clone();
        bad[[1, 4, 2]] = got;
        let error = TruthError::NotFinite { tensor: Tensor::Key, index: [1, 4, 2], got };
        assert_eq!(refused([q, &bad, k], 1.0, &all), error);
        // Every mask is looked at.
        let masks = [all[0], all[0], all[0], Mask::new().valid_keys(6)];
        let error = refusal([q, k, k], 1.0, &masks);
        assert_eq!(error.to_string(), "valid keys: got 6, expected at most 5");
        assert!(std::error::Error::source(&error).is_some());
        let error = TruthError::Mask(MaskError::ValidKeys { got: 6, keys: 5 });
        assert_eq!(refused([q, k, k], 1.0, &masks), error);

        for got in [0, 2, 5] {
            let error = refusal([q, k, k], 1.0, &vec![Mask::new(); got]);
            assert!(matches!(error, TorchError::Masks { got: number, heads: 4 } if number == got), "{error}");
            let expected = format!("masks: got {got}, expected 1 or one for each of the 4 query heads");
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn what_the_precision_cannot_hold_is_an_error() {
        let one = |x| array![[[x]]];
        let run = |query, key, value, scale, precision, method| {
            torch(&[one(query), one(key), one(value)], scale, &[Mask::new()], precision, method)
        };
        for method in METHODS {
            for precision in [Precision::F32, Precision::Bf16] {
                // Scores, or what they are made of, that are finite in double precision only. The fused kernel takes a
                // score of -infinity for a hidden key.
                for (query, key, scale) in [
                    (-1e20, 1e20, 1.0),
                    (1e30, 1e30, 1e-60),
                    (1.0, 1e10, 1e30),
                    (1e300, 1e-300, 1.0),
                    (1e-300, 1e300, 1.0),
                ] {
                    let error = run(query, key, 1.0, scale, precision, method).unwrap_err();
                    assert!(matches!(error, TorchError::Range { .. }), "{error}");
                }
                assert_eq!(run(-1e18, 1e18, 1.0, 1.0, precision, method).unwrap(), one(1.0));
                let error = run(1.0, 1.0, 1e300, 1.0, precision, method).unwrap_err();
                let expected = TruthError::Overflow { index: [0, 0, 0] };
                assert!(matches!(error, TorchError::Truth(error) if error == expected), "{error}");
            }
            assert_eq!(run(-1e20, 1e20, 1e300, 1.0, Precision::F64, method).unwrap(), one(1e300));
            let error = run(-1e200, 1e200, 1.0, 1.0, Precision::F64, method).unwrap_err();
            assert_eq!(error.to_string(), "scores: got up to inf, expected at most 1.7976931348623157e308 in f64");
        }
    }

    #[test]
    fn what_libtorch_says_is_one_line() {
        let thrown = tch::Tensor::f_from_slice(&[1.0]).unwrap().f_reshape([2]).unwrap_err();
        assert!(thrown.to_string().lines().count() > 1, "{thrown}");
        let error = TorchError::from(thrown);
        let expected = "libtorch: Internal torch error: shape '[2]' is invalid for input of size 1";
        assert_eq!(error.to_string(), expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn whatever_the_shape_and_mask(
            (group, kv_heads, m, n, d) in (1..4_usize, 1..4_usize, 1..80_usize, 1..160_usize, 1..=256_usize),
            valid in proptest::option::of(0..160_usize),
            causal in proptest::option::of(0..160_usize),
            period in proptest::option::of(1..9_usize),
        ) {
            let allowed: Vec<bool> = (0..m * n).map(|i| period.is_none_or(|period| i / period % 3 == 0)).collect();
            let mut mask = Mask::new();
            if let Some(valid) = valid {
                mask = mask.valid_keys(valid.min(n));
            }
            if let Some(offset) = causal {
                mask = mask.causal(offset);
            }
            if period.is_some() {
                mask = mask.allowed(&allowed, n);
            }
            let shape = [group * kv_heads, kv_heads, m, n, d];
            assert_true(&format!("{shape:?} {valid:?} {causal:?} {period:?}"), &inputs(shape), scale(d), &[mask]);
        }
    }
}
