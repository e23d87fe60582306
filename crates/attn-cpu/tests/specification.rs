//! Every instruction set that this CPU has gives the bits of the specification. The conformance suite of the package `attn`
//! says so of heads and of real data; here are random shapes, scales, masks and addresses, and threads.

use attn_cpu::{Attention, Isa};
use attn_fixed::{
    BLOCK, FloatError, FloatHeads, Heads, Inputs, Mask, Output, Parameters, QuantiseError, Scales, Tensor,
    block::{DOMINATED_BELOW, distance},
    exp2::exp2,
    quantise, quantise_heads, scratch_len,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

/// Those that this CPU has; `cargo xtask unit` lists the others as skipped.
fn available() -> impl Iterator<Item = Attention> {
    Isa::ALL.into_iter().filter_map(|isa| Attention::new(isa).map_err(|error| println!("SKIPPED {error}")).ok())
}

fn int8(len: usize) -> impl Strategy<Value = Vec<i8>> {
    prop_oneof![
        4 => vec(any::<i8>(), len),
        2 => vec(-20..20_i8, len),
        1 => vec(select(vec![i8::MIN, i8::MAX]), len),
        1 => Just(vec![i8::MIN; len]),
    ]
}

/// The specification, on one head.
fn specified<O: Output + Default>(parameters: &Parameters, inputs: Inputs<'_>, mask: &Mask<'_>) -> Vec<O> {
    let mut out = vec![O::default(); inputs.query.len()];
    let mut scratch = vec![0; scratch_len(parameters.dim())];
    attn_fixed::attend(parameters, inputs, mask, &mut scratch, &mut out).expect("a valid head");
    out
}

/// The same on several.
fn specified_heads<O: Output + Default>(heads: Heads<'_>) -> Vec<O> {
    (0..heads.parameters.len())
        .map(|h| heads.head(h))
        .flat_map(|head| specified(head.parameters, head.inputs, head.mask))
        .collect()
}

/// The same of floats: each tensor quantised with its own scale.
fn specified_f32(dim: usize, [query, key, value]: [&[f32]; 3], mask: &Mask<'_>) -> Vec<f32> {
    let (mut q, mut k, mut v) = (vec![0; query.len()], vec![0; key.len()], vec![0; value.len()]);
    let value = quantise(value, &mut v).expect("finite");
    let (query, key) = (quantise(query, &mut q).expect("finite"), quantise(key, &mut k).expect("finite"));
    let parameters = Parameters::new(dim, Scales { query, key, value, out: value }).expect("in range");
    specified(&parameters, Inputs { query: &q, key: &k, value: &v }, mask)
}

fn bits(floats: &[f32]) -> Vec<u32> {
    floats.iter().map(|x| x.to_bits()).collect()
}

/// Flat to raw integers and beyond, at both ends too.
fn scales(dim: usize) -> impl Strategy<Value = Scales> {
    let largest = 32.0 / (dim as f32).sqrt() * 0.999;
    let score = prop_oneof![1 => Just(largest), 1 => Just(1e-20), 6 => (-18.0..0.0_f32).prop_map(move |x| largest * x.exp2()),
                      1 => (-40.0..-18.0_f32).prop_map(move |x| largest * x.exp2())];
    let gain = prop_oneof![1 => Just(1.0 / 65_536.0), 1 => Just(65_536.0), 6 => (-3.0..9.0_f32).prop_map(f32::exp2)];
    (score, gain).prop_map(|(query, value)| Scales { query, key: 1.0, value, out: 1.0 })
}

#[derive(Clone, Debug)]
struct Case {
    dim: usize,
    keys: usize,
    /// Query, key and value, each behind so many bytes.
    tensors: [(usize, Vec<i8>); 3],
    scales: Scales,
    valid_keys: Option<usize>,
    causal: Option<usize>,
    allowed: Option<Vec<bool>>,
}

fn case() -> impl Strategy<Value = Case> {
    let dim = prop_oneof![2 => select(vec![8, 9, 24, 64, 80, 128, 256]), 1 => 8..=256_usize];
    let queries = prop_oneof![4 => 1..20_usize, 1 => 20..80_usize];
    (dim, queries, 1..260_usize).prop_flat_map(|(dim, queries, keys)| {
        let tensor = |rows: usize| (0..64_usize).prop_flat_map(move |at| (Just(at), int8(at + rows * dim)));
        (
            [tensor(queries), tensor(keys), tensor(keys)],
            scales(dim),
            option::of(0..=keys),
            option::of(0..keys + 3),
            option::of(vec(any::<bool>(), queries * keys)),
        )
            .prop_map(move |(tensors, scales, valid_keys, causal, allowed)| Case {
                dim,
                keys,
                tensors,
                scales,
                valid_keys,
                causal,
                allowed,
            })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn random_heads(case in case()) {
        let mut mask = Mask::new();
        if let Some(keys) = case.valid_keys {
            mask = mask.valid_keys(keys);
        }
        if let Some(offset) = case.causal {
            mask = mask.causal(offset);
        }
        if let Some(allowed) = &case.allowed {
            mask = mask.allowed(allowed, case.keys);
        }
        let parameters = Parameters::new(case.dim, case.scales).expect("in range");
        let [query, key, value] = case.tensors.each_ref().map(|(at, tensor)| &tensor[*at..]);
        let inputs = Inputs { query, key, value };
        let expected: Vec<i8> = specified(&parameters, inputs, &mask);
        for mut attention in available() {
            // An output at any address, too.
            let mut out = vec![78; query.len() + case.tensors[0].0];
            let (before, got) = out.split_at_mut(case.tensors[0].0);
            let heads = Heads { parameters: &[parameters], masks: &[mask], kv_heads: 1, inputs };
            attention.attend(heads, got, &|_| ()).expect("a valid head");
            prop_assert_eq!(&*got, &expected, "{:?}", attention.isa());
            prop_assert!(before.iter().all(|&x| x == 78));
        }
    }

    /// Floats whose scales are anything from the smallest to the largest, the values' too, at any address.
    #[test]
    fn random_floats(case in case(), worth in (1e-20..1.0_f32, values_worth())) {
        let mut mask = Mask::new();
        if let Some(keys) = case.valid_keys {
            mask = mask.valid_keys(keys);
        }
        if let Some(offset) = case.causal {
            mask = mask.causal(offset);
        }
        if let Some(allowed) = &case.allowed {
            mask = mask.allowed(allowed, case.keys);
        }
        // 129 · 129 · (32 / √dim) / 127² is too steep, and less than 0.96 of it is not.
        let score = case.scales.query * 0.96 * worth.0.sqrt();
        let worths = [score, 1.0, worth.1];
        // Between the integers too: a little more of each, so that all quantisers round.
        let floats = |i: usize| -> Vec<f32> {
            case.tensors[i].1.iter().enumerate().map(|(j, &x)| (f32::from(x) + (j % 7) as f32 / 7.0) * worths[i]).collect()
        };
        let floats = [floats(0), floats(1), floats(2)];
        let [query, key, value] = [0, 1, 2].map(|i| &floats[i][case.tensors[i].0..]);
        let expected = specified_f32(case.dim, [query, key, value], &mask);
        prop_assert!(expected.iter().all(|x| x.is_finite()));
        for mut attention in available() {
            let mut out = vec![78.0; query.len() + case.tensors[0].0];
            let (before, got) = out.split_at_mut(case.tensors[0].0);
            let heads = FloatHeads { dim: case.dim, masks: &[mask], kv_heads: 1, query, key, value };
            attention.attend_f32(heads, got, &|_| ()).expect("a valid head");
            prop_assert_eq!(bits(got), bits(&expected), "{:?}", attention.isa());
            prop_assert!(before.iter().all(|x| x.to_bits() == 78.0_f32.to_bits()));
        }
    }

    /// Values of any exponent, many of them where rounding decides.
    #[test]
    fn quantising_is_the_specification(values in vec(any::<f32>().prop_filter("finite", |x| x.is_finite()), 1..200)) {
        // The scale is that of the largest magnitude: exponents near it round to something.
        let largest = values.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let near = |x: &f32| if x.abs() < largest / 300.0 { x / x.abs().max(1e-30) * (largest / 200.0) } else { *x };
        let row: Vec<f32> = values.iter().map(near).chain(values.iter().copied()).cycle().take(8 * 64).collect();
        let (query, key) = ([1e-3; 8], vec![1e-3; row.len()]);
        let expected = specified_f32(8, [&query, &key, &row], &Mask::new());
        for mut attention in available() {
            let mut got = [77.0; 8];
            let heads = FloatHeads { dim: 8, masks: &[Mask::new()], kv_heads: 1, query: &query, key: &key, value: &row };
            attention.attend_f32(heads, &mut got, &|_| ()).expect("a valid head");
            prop_assert_eq!(bits(&got), bits(&expected), "{:?}", attention.isa());
        }
    }
}

/// What one step of a value is worth: the largest and the smallest, subnormal ones too.
fn values_worth() -> impl Strategy<Value = f32> {
    prop_oneof![
        1 => Just(f32::MAX / 129.0),
        1 => Just(f32::MIN_POSITIVE),
        1 => Just(f32::from_bits(3)),
        6 => (-40.0..40.0_f32).prop_map(f32::exp2),
    ]
}

/// The specification and every instruction set, on one head.
fn assert_bits(parameters: Parameters, inputs: Inputs<'_>, mask: Mask<'_>) {
    let mut got = vec![77; inputs.query.len()];
    let expected: Vec<i8> = specified(&parameters, inputs, &mask);
    for mut attention in available() {
        let heads = Heads { parameters: &[parameters], masks: &[mask], kv_heads: 1, inputs };
        attention.attend(heads, &mut got, &|_| ()).expect("a valid head");
        assert_eq!(got, expected, "{:?}", attention.isa());
    }
}

/// The sum of a block's probabilities on either side of the bound below which far keys are absorbed apart.
#[test]
fn a_block_at_the_edge_of_being_dominated() {
    const DIM: usize = 64;
    // A key scores 20 times its first element plus its second, 1/1000 octave each.
    let mut query = [0; DIM];
    query[..2].copy_from_slice(&[20, 1]);
    let scale = (DIM as f32).sqrt() / 1000.0 / std::f32::consts::LOG2_E;
    let scales = Scales { query: scale, key: 1.0, value: 1.0, out: 0.5 };
    let parameters = Parameters::new(DIM, scales).expect("in range");
    // The difference whose power is a little above this probability: rounding errs, though not enough to matter by itself.
    let with = |probability: i16| {
        let power = |below: i32| exp2(distance(&parameters, below)).to_bits();
        (0..5000).min_by_key(|&below| (power(below) - 128 * probability - 7).abs()).expect("some")
    };
    let (thirteen, fourteen) = (with(13), with(14));
    let value: Vec<i8> = (0..BLOCK * DIM).map(|i| (i * i % 251) as i8).collect();
    for count in 12..16 {
        let mut key = vec![0; BLOCK * DIM];
        for (j, key) in key.chunks_exact_mut(DIM).enumerate() {
            let below = match j {
                40 => 0,
                _ if j < count => fourteen,
                _ => thirteen,
            };
            (key[0], key[1]) = ((127 - below / 20) as i8, (-(below % 20)) as i8);
        }
        assert_eq!(255 + 63 * 13 + 14, DOMINATED_BELOW, "14 of them are enough");
        assert_bits(parameters, Inputs { query: &query, key: &key, value: &value }, Mask::new());
    }
}

/// The exponential of every distance: each weighs a value of its own in a block that is not absorbed as two, and the output in
/// floats is not rounded to 8 bits.
#[test]
fn the_weight_of_every_distance() {
    const DIM: usize = 8;
    /// Keys of each block at distances to be tested, at changing places; the others are its maximum, and have no value.
    const TESTED: usize = 24;
    // A key scores 127 times each of its first elements and its sixth, one step of a distance each.
    const QUERY: [i8; DIM] = [127, 127, 127, 127, 127, 1, 0, 0];
    let step = (DIM as f32).sqrt() / 2048.0 / std::f32::consts::LOG2_E * (1.0 + f32::EPSILON);
    let query = QUERY.map(|x| f32::from(x) * step);
    let scales = Scales { query: quantise(&query, &mut [0; DIM]).expect("finite"), key: 1.0, value: 1.0, out: 1.0 };
    let parameters = Parameters::new(DIM, scales).expect("in range");
    let key = |score: i32| -> [f32; DIM] {
        let (mut rest, mut key) = (score, [0.0; DIM]);
        for element in &mut key[..5] {
            let whole = (rest / 127).clamp(-127, 127);
            (*element, rest) = (whole as f32, rest - 127 * whole);
        }
        assert!(rest.abs() <= 127, "beyond the reach of the first five");
        key[5] = rest as f32;
        key
    };
    let distances: Vec<u16> = (0..=u16::MAX).collect();
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    for (i, distances) in distances.chunks(TESTED).enumerate() {
        for j in 0..BLOCK {
            let tested = distances.get((j + i) % BLOCK);
            let below = tested.copied().unwrap_or(0);
            assert_eq!(distance(&parameters, below.into()).to_bits(), below);
            keys.extend(key(32_768 - i32::from(below)));
            // Eight numbers, of no two keys the same.
            values.extend((1..=DIM).map(|column| tested.map_or(0.0, |_| f32::from((j * (2 * column + 1) * 37) as i8))));
        }
    }
    let kv_heads = distances.len().div_ceil(TESTED);
    let heads = FloatHeads {
        dim: DIM,
        masks: &vec![Mask::new(); kv_heads],
        kv_heads,
        query: &query.repeat(kv_heads),
        key: &keys,
        value: &values,
    };
    let blocks = keys.chunks_exact(BLOCK * DIM).zip(values.chunks_exact(BLOCK * DIM));
    let expected: Vec<f32> = blocks.flat_map(|(k, v)| specified_f32(DIM, [&query, k, v], &Mask::new())).collect();
    for mut attention in available() {
        let mut got = vec![77.0; expected.len()];
        attention.attend_f32(heads, &mut got, &|_| ()).expect("valid heads");
        assert_eq!(bits(&got), bits(&expected), "{:?}", attention.isa());
    }
}

/// That the first query sees a whole block says nothing of the others where there is a boolean mask.
#[test]
fn a_first_query_that_sees_all() {
    let tensor = |rows: usize, step: usize| -> Vec<i8> { (0..rows * 16).map(|i| (i * step % 251) as i8).collect() };
    let (query, key, value) = (tensor(40, 3), tensor(128, 5), tensor(128, 7));
    let allowed: Vec<bool> = (0..40 * 128).map(|i| i < 128 || i % 3 == 0).collect();
    let scales = Scales { query: 0.01, key: 0.01, value: 1.0, out: 1.0 };
    let parameters = Parameters::new(16, scales).expect("in range");
    let inputs = Inputs { query: &query, key: &key, value: &value };
    assert_bits(parameters, inputs, Mask::new().allowed(&allowed, 128));
    // One row for all queries, one element for all keys of a query.
    assert_bits(parameters, inputs, Mask::new().allowed(&allowed[128..256], 128));
    assert_bits(parameters, inputs, Mask::new().allowed(&allowed[127..167], 1));
}

/// Whatever the threads and whatever was computed before.
#[test]
fn threads_and_reused_memory() {
    let numbers = |len: usize, step: u32| -> Vec<i8> {
        (0..len as u32).map(|i| (i.wrapping_mul(step).wrapping_mul(0x9E37_79B1) >> 24) as i8).collect()
    };
    for mut attention in available() {
        for threads in [3, 1, 2] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            for (heads, kv_heads, queries, keys, dim) in [(6, 2, 200, 130, 40), (1, 1, 3, 300, 9), (4, 4, 129, 64, 256)]
            {
                let (query, key) = (numbers(heads * queries * dim, 3), numbers(kv_heads * keys * dim, 5));
                let value = numbers(kv_heads * keys * dim, 7);
                let scales = Scales { query: 0.01, key: 0.02, value: 1.0, out: 0.5 };
                let parameters = vec![Parameters::new(dim, scales).expect("in range"); heads];
                let masks: Vec<_> = (0..heads).map(|h| Mask::new().causal(h * 20)).collect();
                let inputs = Inputs { query: &query, key: &key, value: &value };
                let heads = Heads { parameters: &parameters, masks: &masks, kv_heads, inputs };
                let (mut got, mut expected) = (vec![77; query.len()], vec![78; query.len()]);
                let done = std::sync::atomic::AtomicUsize::new(0);
                // Work of the pool within may bring another piece of the attention to this thread.
                let progress = |queries| {
                    _ = rayon::yield_now();
                    _ = rayon::join(|| (), || ());
                    done.fetch_add(queries, std::sync::atomic::Ordering::Relaxed);
                };
                pool.install(|| attention.attend(heads, &mut got, &progress)).expect("valid heads");
                assert_eq!(done.into_inner(), parameters.len() * queries);
                let mut scratch = vec![0; scratch_len(dim)];
                for (head, out) in heads.split(&mut expected).expect("valid heads") {
                    attn_fixed::attend(head.parameters, head.inputs, head.mask, &mut scratch, out)
                        .expect("a valid head");
                }
                assert_eq!(got, expected, "{:?}, {threads} threads, dimension {dim}", attention.isa());

                // Each head of another magnitude, so that no scale is that of another head.
                let floats = |tensor: &[i8], rows: usize| -> Vec<f32> {
                    (tensor.iter().enumerate())
                        .map(|(i, &x)| f32::from(x) * (i / (rows * dim) + 1) as f32 / 50.0)
                        .collect()
                };
                let (query, key, value) = (floats(&query, queries), floats(&key, keys), floats(&value, keys));
                let heads = FloatHeads { dim, masks: &masks, kv_heads, query: &query, key: &key, value: &value };
                let mut got = vec![77.0; query.len()];
                pool.install(|| attention.attend_f32(heads, &mut got, &|_| ())).expect("valid heads");
                let (rows, group) = (queries * dim, masks.len() / kv_heads);
                let expected: Vec<f32> = (masks.iter().enumerate())
                    .flat_map(|(h, mask)| {
                        let kv = h / group * keys * dim..(h / group + 1) * keys * dim;
                        specified_f32(dim, [&query[h * rows..][..rows], &key[kv.clone()], &value[kv]], mask)
                    })
                    .collect();
                assert_eq!(bits(&got), bits(&expected), "{:?}, {threads} threads, dimension {dim}", attention.isa());
            }
        }
    }
}

/// The mean of the largest floats is none of infinity: 127 times the scale, which is rounded up, would be.
#[test]
fn values_of_the_largest_magnitude() {
    const DIM: usize = 20;
    for keys in [1, 70] {
        let numbers: Vec<f32> = (0..keys * DIM).map(|i| (i * i % 31) as f32 / 31.0).collect();
        let value: Vec<f32> = (0..keys * DIM).map(|i| if i % 2 == 0 { f32::MAX } else { f32::MIN }).collect();
        let expected = specified_f32(DIM, [&numbers, &numbers, &value], &Mask::new());
        assert!(bits(&expected).contains(&f32::MAX.to_bits()) && expected.iter().all(|x| x.abs() >= 0.999 * f32::MAX));
        for mut attention in available() {
            let mut got = vec![77.0; keys * DIM];
            let (masks, kv_heads) = (&[Mask::new()], 1);
            let heads = FloatHeads { dim: DIM, masks, kv_heads, query: &numbers, key: &numbers, value: &value };
            attention.attend_f32(heads, &mut got, &|_| ()).expect("a valid head");
            assert_eq!(bits(&got), bits(&expected), "{:?}", attention.isa());
        }
    }
}

/// Of several, whatever thread meets which first; heads of more than one piece.
#[test]
fn the_first_float_that_is_not_finite_is_named() {
    const DIM: usize = 64;
    let len = 600 * DIM;
    for mut attention in available() {
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            for first in [0, 17_000, len + 3, 2 * len - 1] {
                let query = vec![0.5; 2 * len];
                let (mut key, mut value) = (query.clone(), query.clone());
                key[first..].iter_mut().step_by(997).for_each(|x| *x = f32::INFINITY);
                value[5] = f32::NEG_INFINITY;
                let heads = FloatHeads {
                    dim: DIM,
                    masks: &[Mask::new(); 2],
                    kv_heads: 2,
                    query: &query,
                    key: &key,
                    value: &value,
                };
                let mut out = vec![77.0; query.len()];
                let got = pool.install(|| attention.attend_f32(heads, &mut out, &|_| ()));
                let error = QuantiseError::NotFinite { index: first, got: f32::INFINITY };
                assert_eq!(got, Err(FloatError::Quantise { tensor: Tensor::Key, error }), "{threads} threads");
                assert!(out.iter().all(|x| x.to_bits() == 77.0_f32.to_bits()), "the output was touched");
            }
        }
    }
}

#[test]
fn the_fastest_instruction_set_is_the_first_that_is_there() {
    let first = Isa::ALL.into_iter().find(|isa| isa.is_available());
    assert_eq!(Isa::best(), first);
    for isa in Isa::ALL {
        match Attention::new(isa) {
            Ok(attention) => assert!(isa.is_available() && attention.isa() == isa),
            Err(error) => {
                assert!(!isa.is_available());
                assert!(error.to_string().starts_with(&format!("{}: this CPU does not have it; it has ", isa.name())));
            }
        }
    }
}

/// Every way through the kernels, on heads as small as that allows: `cargo xtask sanitizer` has an interpreter take them, too.
#[test]
fn small_heads() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("a pool");
    // Rows of more than a vector, in two groups; more than a block of keys; the same of few queries.
    for (heads, kv_heads, queries, keys, dim) in
        [(1, 1, 17, 3, 65), (2, 1, 3, 66, 17), (2, 2, 1, 3, 65), (1, 1, 1, 66, 17)]
    {
        // Few keys dominate a block.
        let numbers = |rows: usize, step: usize| -> Vec<f32> {
            (0..rows * dim).map(|i| f32::from(((i + 1).wrapping_mul(step * 0x9E37_79B1) >> 13) as i8) / 30.0).collect()
        };
        let (query, key) = (numbers(heads * queries, 3), numbers(kv_heads * keys, 5));
        let value = numbers(kv_heads * keys, 7);
        let allowed: Vec<bool> = (0..queries * keys).map(|i| i % 3 == 0).collect();
        let masks = [Mask::new().causal(keys - 1), Mask::new().valid_keys(keys - 1).allowed(&allowed, keys)];
        let masks = &masks[..heads];
        let floats = FloatHeads { dim, masks, kv_heads, query: &query, key: &key, value: &value };

        let mut tensors = [vec![0; query.len()], vec![0; key.len()], vec![0; value.len()]];
        let mut scales = [vec![0.0; heads], vec![0.0; kv_heads], vec![0.0; kv_heads]];
        for ((quantised, scales), values) in tensors.iter_mut().zip(&mut scales).zip([&query, &key, &value]) {
            quantise_heads(values, quantised, scales).expect("finite");
        }
        let parameters = (0..heads).map(|h| {
            let kv = h / (heads / kv_heads);
            let (key, value) = (scales[1][kv], scales[2][kv]);
            Parameters::new(dim, Scales { query: scales[0][h], key, value, out: value }).expect("in range")
        });
        let parameters: Vec<_> = parameters.collect();
        let inputs = Inputs { query: &tensors[0], key: &tensors[1], value: &tensors[2] };
        let integers = Heads { parameters: &parameters, masks, kv_heads, inputs };
        // One of the two is enough for each: the specification takes longest.
        if dim == 65 {
            let expected: Vec<i8> = specified_heads(integers);
            for mut attention in available() {
                let mut got = vec![77; expected.len()];
                pool.install(|| attention.attend(integers, &mut got, &|_| ())).expect("valid heads");
                assert_eq!(got, expected, "{:?}", attention.isa());
            }
        } else {
            let expected: Vec<f32> = specified_heads(integers);
            for mut attention in available() {
                let mut got = vec![77.0; expected.len()];
                pool.install(|| attention.attend_f32(floats, &mut got, &|_| ())).expect("valid heads");
                assert_eq!(bits(&got), bits(&expected), "{:?}", attention.isa());
            }
        }
    }
}
