//! What holds for every input: properties of the whole arithmetic, at random and at the extremes.
//!
//! They run with overflow checks, in the `test` and `release-checked` profiles.

use attn_fixed::{
    AttentionError, BLOCK, Inputs, MAX_KEYS, Mask, MaskError, Parameters, Scales, Tensor, attend, attend_tile,
    scratch_len,
};
use proptest::{collection::vec, prelude::*, sample::select};

/// One head with everything that [`attend`] needs.
#[derive(Clone, Debug)]
struct Head {
    parameters: Parameters,
    query: Vec<i8>,
    key: Vec<i8>,
    value: Vec<i8>,
}

impl Head {
    fn inputs(&self) -> Inputs<'_> {
        Inputs { query: &self.query, key: &self.key, value: &self.value }
    }

    fn queries(&self) -> usize {
        self.query.len() / self.parameters.dim()
    }

    fn keys(&self) -> usize {
        self.key.len() / self.parameters.dim()
    }

    fn attend(&self, mask: &Mask<'_>) -> Vec<i8> {
        run(&self.parameters, self.inputs(), mask)
    }
}

fn run(parameters: &Parameters, inputs: Inputs<'_>, mask: &Mask<'_>) -> Vec<i8> {
    // Scratch memory and output start with rubbish: both must be written before they are read.
    let mut scratch = vec![i32::MIN; scratch_len(parameters.dim())];
    let mut out = vec![77; inputs.query.len()];
    attend(parameters, inputs, mask, &mut scratch, &mut out).expect("a valid head");
    out
}

/// Values at random, or of few extreme values: the sums that overflow first.
fn int8(len: usize) -> BoxedStrategy<Vec<i8>> {
    prop_oneof![
        vec(any::<i8>(), len),
        vec(select(vec![i8::MIN, i8::MAX]), len),
        vec(select(vec![i8::MIN, 0, 1]), len),
        Just(vec![i8::MIN; len]),
        Just(vec![i8::MAX; len]),
    ]
    .boxed()
}

fn scales(dim: usize) -> impl Strategy<Value = Scales> {
    let largest = 32.0 / (dim as f32).sqrt() * 0.999;
    let score = prop_oneof![Just(1e-30), Just(largest), (-20.0..0.0_f32).prop_map(move |x| largest * x.exp2())];
    let gain = prop_oneof![Just(1.0 / 65_536.0), Just(65_536.0), (-4.0..8.0_f32).prop_map(f32::exp2)];
    (score, gain).prop_map(|(query, value)| Scales { query, key: 1.0, value, out: 1.0 })
}

fn head(dims: Vec<usize>, keys: std::ops::Range<usize>) -> impl Strategy<Value = Head> {
    (select(dims), 1..4_usize, keys).prop_flat_map(|(dim, queries, keys)| {
        (scales(dim), int8(queries * dim), int8(keys * dim), int8(keys * dim)).prop_map(
            move |(scales, query, key, value)| Head {
                parameters: Parameters::new(dim, scales).expect("in range"),
                query,
                key,
                value,
            },
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Nothing overflows (the overflow checks would panic), and every output is between the smallest and the largest value of
    /// its column, times the gain.
    #[test]
    fn no_input_overflows(head in head(vec![8, 13, 64, 255, 256], 1..400)) {
        let dim = head.parameters.dim();
        let gain = f64::from(head.parameters.gain()) * f64::from(head.parameters.gain_exponent()).exp2();
        for row in head.attend(&Mask::new()).chunks_exact(dim) {
            for (column, &x) in row.iter().enumerate() {
                let values = head.value.iter().skip(column).step_by(dim).map(|&v| f64::from(v) * gain);
                let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), v| (v.min(low), v.max(high)));
                let allowed = low.clamp(-128.0, 127.0) - 0.6..=high.clamp(-128.0, 127.0) + 0.6;
                prop_assert!(allowed.contains(&f64::from(x)), "{} is not in {:?}", x, allowed);
            }
        }
    }

    /// `n` valid keys are keys and values cut to `n`; what lies behind has no influence.
    #[test]
    fn valid_keys_cut(head in head(vec![8, 40, 64], 1..300), share in 0.0..1.0_f64) {
        let keys = 1 + (share * (head.keys() - 1) as f64) as usize;
        let len = keys * head.parameters.dim();
        let cut = Inputs { query: &head.query, key: &head.key[..len], value: &head.value[..len] };
        let expected = run(&head.parameters, cut, &Mask::new());
        prop_assert_eq!(&head.attend(&Mask::new().valid_keys(keys)), &expected);
        let mut other = head.clone();
        other.key[len..].fill(i8::MIN);
        other.value[len..].fill(i8::MAX);
        prop_assert_eq!(&other.attend(&Mask::new().valid_keys(keys)), &expected);
        // A causal rule that hides nothing more, and the same as a boolean mask.
        prop_assert_eq!(&head.attend(&Mask::new().valid_keys(keys).causal(head.keys())), &expected);
        let allowed: Vec<bool> = (0..head.queries()).flat_map(|_| (0..head.keys()).map(|j| j < keys)).collect();
        prop_assert_eq!(&head.attend(&Mask::new().allowed(&allowed, head.keys())), &expected);
    }

    /// Row `i` of causal attention is attention over its first `i + offset + 1` keys.
    #[test]
    fn causal_rows_are_cuts(head in head(vec![8, 64], 1..200), offset in 0..200_usize) {
        let out = head.attend(&Mask::new().causal(offset));
        let dim = head.parameters.dim();
        for (i, row) in out.chunks_exact(dim).enumerate() {
            let len = (i + offset + 1).min(head.keys()) * dim;
            let query = &head.query[i * dim..][..dim];
            let cut = Inputs { query, key: &head.key[..len], value: &head.value[..len] };
            prop_assert_eq!(row, run(&head.parameters, cut, &Mask::new()));
        }
    }

    /// Keys that a boolean mask hides have no influence, and a row that sees none is zeros.
    #[test]
    fn hidden_keys_have_no_influence(head in head(vec![8, 64], 1..200), seed in vec(any::<bool>(), 600), rubbish in any::<i8>()) {
        let allowed: Vec<bool> = (0..head.queries() * head.keys())
            .map(|i| i / head.keys() != 1 && seed[i % head.keys()])
            .collect();
        let mask = Mask::new().allowed(&allowed, head.keys());
        let out = head.attend(&mask);
        let dim = head.parameters.dim();
        let mut other = head.clone();
        for (j, _) in seed.iter().take(head.keys()).enumerate().filter(|(_, seen)| !**seen) {
            other.key[j * dim..][..dim].fill(rubbish);
            other.value[j * dim..][..dim].fill(rubbish);
        }
        prop_assert_eq!(&other.attend(&mask), &out);
        for (i, row) in out.chunks_exact(dim).enumerate() {
            if i == 1 || !seed[..head.keys()].contains(&true) {
                prop_assert!(row.iter().all(|&x| x == 0));
            }
        }
    }

    /// With the values' own scale the output lies between the smallest and the largest value of its column.
    #[test]
    fn output_is_a_convex_combination(mut head in head(vec![8, 64], 1..300)) {
        let dim = head.parameters.dim();
        let scales = Scales { query: 0.03, key: 0.04, value: 0.5, out: 0.5 };
        head.parameters = Parameters::new(dim, scales).expect("in range");
        for row in head.attend(&Mask::new()).chunks_exact(dim) {
            for (column, &x) in row.iter().enumerate() {
                let values = head.value.iter().skip(column).step_by(dim);
                let (low, high) = (values.clone().min().expect("a key"), values.max().expect("a key"));
                prop_assert!((*low..=*high).contains(&x), "{} outside {}..={}", x, low, high);
            }
        }
    }

    /// The tile gives the bits of the slices.
    #[test]
    fn a_tile_is_attention_on_slices(values in vec(any::<i8>(), (5 + 70 + 70) * 24), causal in 0..80_usize, scale in 1e-4..2.0_f32) {
        let scales = Scales { query: scale, key: 1.0, value: 3.0, out: 1.0 };
        let parameters = Parameters::new(24, scales).expect("in range");
        let rows = values.as_chunks::<24>().0;
        let (query, rest) = rows.split_first_chunk::<5>().expect("rows");
        let (key, rest) = rest.split_first_chunk::<70>().expect("rows");
        let value = rest.first_chunk::<70>().expect("rows");
        let mask = Mask::new().causal(causal);
        let mut out = [[0; 24]; 5];
        attend_tile(&parameters, query, key, value, &mask, &mut out).expect("a valid tile");
        let inputs = Inputs { query: query.as_flattened(), key: key.as_flattened(), value: value.as_flattened() };
        prop_assert_eq!(out.as_flattened(), run(&parameters, inputs, &mask));
    }
}

/// The longest sequence: flat attention to 2^20 equal values is that value, and every sum on the way stays in range.
#[test]
fn the_longest_sequence_keeps_its_mean() {
    for (value, scale) in [(i8::MAX, 1e-9), (i8::MIN, 1e-9), (i8::MIN, 1.0)] {
        let parameters = Parameters::new(8, Scales { query: scale, key: 1.0, value: 1.0, out: 1.0 }).expect("in range");
        let (key, values) = (vec![i8::MAX; MAX_KEYS * 8], vec![value; MAX_KEYS * 8]);
        let inputs = Inputs { query: &[i8::MAX; 8], key: &key, value: &values };
        assert_eq!(run(&parameters, inputs, &Mask::new()), [value; 8]);
    }
}

/// A block that lies far below the reference vanishes and does not distort: 2^20 keys at 40 octaves below one sink.
#[test]
fn far_blocks_vanish() {
    let parameters = Parameters::new(8, Scales { query: 0.01, key: 1.0, value: 1.0, out: 1.0 }).expect("in range");
    for sink in [0, MAX_KEYS / 2, MAX_KEYS - 1] {
        let mut key = vec![0; MAX_KEYS * 8];
        let mut value = vec![i8::MIN; MAX_KEYS * 8];
        key[sink * 8..][..8].fill(60); // 127 · 60 · 8 · 0.01 / √8 = 215 nats
        value[sink * 8..][..8].fill(101);
        let inputs = Inputs { query: &[i8::MAX; 8], key: &key, value: &value };
        assert_eq!(run(&parameters, inputs, &Mask::new()), [101; 8], "sink at {sink}");
    }
}

/// Every wrong input is its own error, and the output stays as it was.
#[test]
fn wrong_inputs_are_typed_errors() {
    let scales = Scales { query: 0.1, key: 0.1, value: 1.0, out: 1.0 };
    let parameters = Parameters::new(8, scales).expect("in range");
    let zeros = vec![0; (MAX_KEYS + 1) * 8];
    let allowed = [true; 6];
    let (q, k) = (16, 24);
    let length = |tensor, got, expected| AttentionError::Length { tensor, got, expected };
    let cases = [
        ([0, k, k, 0, 16], Mask::new(), AttentionError::Empty { tensor: Tensor::Query }),
        ([q, 0, 0, q, 16], Mask::new(), AttentionError::Empty { tensor: Tensor::Key }),
        ([15, k, k, 15, 16], Mask::new(), AttentionError::Rows { tensor: Tensor::Query, got: 15, dim: 8 }),
        ([q, 23, 23, q, 16], Mask::new(), AttentionError::Rows { tensor: Tensor::Key, got: 23, dim: 8 }),
        ([q, k, 16, q, 16], Mask::new(), length(Tensor::Value, 16, 24)),
        ([q, k, k, 15, 16], Mask::new(), length(Tensor::Out, 15, 16)),
        ([q, k, k, q, 15], Mask::new(), AttentionError::Scratch { got: 15, expected: 16 }),
        ([q, zeros.len(), zeros.len(), q, 16], Mask::new(), AttentionError::TooManyKeys { got: MAX_KEYS + 1 }),
        ([q, k, k, q, 16], Mask::new().valid_keys(4), MaskError::ValidKeys { got: 4, keys: 3 }.into()),
        (
            [q, k, k, q, 16],
            Mask::new().allowed(&allowed[..5], 3),
            MaskError::Allowed { got: (5, 3), expected: (2, 3) }.into(),
        ),
        (
            [q, k, k, q, 16],
            Mask::new().allowed(&allowed, 2),
            MaskError::Allowed { got: (6, 2), expected: (2, 3) }.into(),
        ),
    ];
    for ([query, key, value, out, scratch], mask, expected) in cases {
        let inputs = Inputs { query: &zeros[..query], key: &zeros[..key], value: &zeros[..value] };
        let mut out = vec![77; out];
        let got = attend(&parameters, inputs, &mask, &mut vec![0; scratch], &mut out);
        assert_eq!(got, Err(expected));
        assert!(out.iter().all(|&x| x == 77), "{expected}: the output was touched");
        // Every message says what was expected.
        assert!(expected.to_string().contains("expected"), "{expected}");
    }
    let mut out = [[77; 16]; 1];
    let got = attend_tile(&parameters, &[[0; 16]], &[[0; 16]], &[[0; 16]], &Mask::new(), &mut out);
    assert_eq!((got, out), (Err(AttentionError::Dim { got: 16, expected: 8 }), [[77; 16]; 1]));
    let mut out = [[77; 8]; 1];
    let got = attend_tile(&parameters, &[[0; 8]], &[[0; 8]], &[[0; 8]], &Mask::new().valid_keys(2), &mut out);
    assert_eq!((got, out), (Err(MaskError::ValidKeys { got: 2, keys: 1 }.into()), [[77; 8]; 1]));
}

/// A row of which the mask leaves nothing is zeros, whatever stood in the output.
#[test]
fn a_row_without_keys_is_zeros() {
    let parameters = Parameters::new(8, Scales { query: 1.0, key: 1.0, value: 1.0, out: 1.0 }).expect("in range");
    let ones = [1; 8 * (BLOCK + 1)];
    let inputs = Inputs { query: &ones[..8], key: &ones, value: &ones };
    assert_eq!(run(&parameters, inputs, &Mask::new().valid_keys(0)), [0; 8]);
    assert_eq!(run(&parameters, inputs, &Mask::new().allowed(&[false; BLOCK + 1], BLOCK + 1)), [0; 8]);
}
