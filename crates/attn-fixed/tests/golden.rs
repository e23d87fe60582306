//! The bits of whole attentions, `vectors/attention.csv`, which also says how the tensors are made.
//!
//! The expected hashes are not this crate's own: `tests/numpy/check.py` computes them independently from
//! `docs/arithmetic.md`.

use attn_fixed::{Inputs, Mask, Output, Parameters, Scales, attend, scratch_len};

/// Element `i` of tensor `tensor`.
fn number(tensor: u32, i: usize) -> i8 {
    let mut x = (i as u32 + (tensor << 24)).wrapping_mul(0x9e37_79b1);
    x = (x ^ x >> 15).wrapping_mul(0x85eb_ca77);
    ((x ^ x >> 13) >> 24) as i8
}

fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, x| (hash ^ u64::from(x)).wrapping_mul(0x0100_0000_01b3))
}

/// The hashes of the attention that a line describes, in int8 and in floats.
fn hashes(line: &str) -> [u64; 2] {
    let column: Vec<f32> = line.split(',').take(14).map(|x| x.parse().expect("a number")).collect();
    let [dim, queries, keys, shift, first, sinks] = [0, 1, 2, 3, 4, 5].map(|i| column[i] as usize);
    let [valid, causal, runs] = [11, 12, 13].map(|i| column[i] as usize);
    let mut query: Vec<i8> = (0..queries * dim).map(|i| number(0, i) >> shift).collect();
    let mut key: Vec<i8> = (0..keys * dim).map(|i| number(1, i) >> shift).collect();
    let value: Vec<i8> = (0..keys * dim).map(|i| number(2, i)).collect();
    for row in query.chunks_exact_mut(dim) {
        row[0] = 127;
    }
    for (j, row) in key.chunks_exact_mut(dim).enumerate() {
        row[0] = if (first..first + sinks).contains(&j) { column[6] as i8 } else { 0 };
    }
    let allowed: Vec<bool> = (0..queries * keys).map(|i| (i / keys + i % keys) >> runs & 1 == 0).collect();
    let masked = Mask::new().valid_keys(valid).causal(causal).allowed(&allowed, keys);
    let mask = if allowed.contains(&false) { masked } else { Mask::new() };
    let scales = Scales { query: column[7], key: column[8], value: column[9], out: column[10] };
    let parameters = Parameters::new(dim, scales).expect("in range");
    let inputs = Inputs { query: &query, key: &key, value: &value };
    let integers = run(&parameters, inputs, &mask, 77_i8);
    let floats = run(&parameters, inputs, &mask, 77.0_f32);
    [fnv1a(integers.into_iter().map(i8::cast_unsigned)), fnv1a(floats.into_iter().flat_map(f32::to_le_bytes))]
}

/// Scratch memory and output start with rubbish.
fn run<O: Output>(parameters: &Parameters, inputs: Inputs<'_>, mask: &Mask<'_>, rubbish: O) -> Vec<O> {
    let (mut scratch, mut out) = (vec![i32::MAX; scratch_len(parameters.dim())], vec![rubbish; inputs.query.len()]);
    attend(parameters, inputs, mask, &mut scratch, &mut out).expect("a valid head");
    out
}

#[test]
fn attentions_have_the_expected_bits() {
    let mut count = 0;
    let lines = include_str!("../vectors/attention.csv").lines().filter(|line| !line.starts_with('#')).skip(1);
    let wrong: Vec<String> = lines
        .inspect(|_| count += 1)
        .filter_map(|line| {
            let [integers, floats] = hashes(line);
            let got = format!(",{integers:016x},{floats:016x}");
            (!line.ends_with(&got)).then(|| format!("{line}: got {got}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(count, 15, "lines of the file");
}
