//! What the freestanding program computes, and the test that says what must come out.
#![no_std]
#![forbid(unsafe_code)]

use core::{array::from_fn, hint::black_box};

use attn_fixed::{
    AttentionError, Inputs, Mask, ParameterError, Parameters, QuantiseError, Scales, attend, attend_tile, quantise,
    scratch_len,
};

/// The hash of the outputs, if they are right.
pub const EXPECTED: u64 = 0x5d91_1dfb_f096_1b0b;

const SCALES: Scales = Scales { query: 0.02, key: 0.02, value: 0.02, out: 0.01 };

/// The tensors of one head.
struct Head<const M: usize, const N: usize, const D: usize> {
    query: [[i8; D]; M],
    key: [[i8; D]; N],
    value: [[i8; D]; N],
    out: [[i8; D]; M],
}

type Tile = Head<64, 64, 64>;

/// Two blocks of keys and three more.
type Sequence = Head<QUERIES, KEYS, 40>;
const QUERIES: usize = 7;
const KEYS: usize = 131;

impl<const M: usize, const N: usize, const D: usize> Head<M, N, D> {
    /// Pseudo-random inputs (xorshift), no output.
    fn new(mut state: u32) -> Self {
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 24) as i8
        };
        let mut row = |_| from_fn(|_| next());
        Self { query: from_fn(&mut row), key: from_fn(&mut row), value: from_fn(&mut row), out: [[0; D]; M] }
    }
}

/// Query 2 sees nothing, the others most keys.
fn allowed(query: usize, key: usize) -> bool {
    query != 2 && !(query + key).is_multiple_of(5)
}

fn tile() -> Option<Tile> {
    // A function behind a pointer is compiled for every argument: a panic that only other arguments reach is seen too.
    let parameters: fn(usize, Scales) -> Result<Parameters, ParameterError> = black_box(Parameters::new);
    let mut head = Tile::new(1);
    attend_tile(&parameters(64, SCALES).ok()?, &head.query, &head.key, &head.value, &Mask::new(), &mut head.out)
        .ok()?;
    Some(head)
}

fn sequence() -> Option<Sequence> {
    type Attend = fn(&Parameters, Inputs<'_>, &Mask<'_>, &mut [i32], &mut [i8]) -> Result<(), AttentionError>;
    let attend: Attend = black_box(attend);
    let mut head = Sequence::new(2);
    let allowed: [[bool; KEYS]; QUERIES] = from_fn(|i| from_fn(|j| allowed(i, j)));
    let mask = Mask::new().valid_keys(130).causal(126).allowed(allowed.as_flattened(), KEYS);
    let inputs =
        Inputs { query: head.query.as_flattened(), key: head.key.as_flattened(), value: head.value.as_flattened() };
    let mut scratch = [0; scratch_len(40)];
    attend(&Parameters::new(40, SCALES).ok()?, inputs, &mask, &mut scratch, head.out.as_flattened_mut()).ok()?;
    Some(head)
}

/// Query, key and value in floats, which quantising rounds.
fn float_tensors() -> [[[f32; 8]; FLOAT_ROWS]; 3] {
    let Head { query, key, value, .. } = Head::<FLOAT_ROWS, FLOAT_ROWS, 8>::new(3);
    [query, key, value].map(|rows| rows.map(|row| row.map(|x| f32::from(x) / 61.0)))
}

const FLOAT_ROWS: usize = 70;

/// Floats out of floats, causal.
fn floats() -> Option<[[f32; 8]; FLOAT_ROWS]> {
    type Attend = fn(&Parameters, Inputs<'_>, &Mask<'_>, &mut [i32], &mut [f32]) -> Result<(), AttentionError>;
    let attend: Attend = black_box(attend);
    let quantise: fn(&[f32], &mut [i8]) -> Result<f32, QuantiseError> = black_box(quantise);
    let mut quantised = [[[0; 8]; FLOAT_ROWS]; 3];
    let mut scales = [0.0; 3];
    for ((tensor, quantised), scale) in float_tensors().iter().zip(&mut quantised).zip(&mut scales) {
        *scale = quantise(tensor.as_flattened(), quantised.as_flattened_mut()).ok()?;
    }
    let ([query, key, value], [q, k, v]) = (scales, &quantised);
    let parameters = Parameters::new(8, Scales { query, key, value, out: value }).ok()?;
    let inputs = Inputs { query: q.as_flattened(), key: k.as_flattened(), value: v.as_flattened() };
    let mut out = [[0.0; 8]; FLOAT_ROWS];
    attend(&parameters, inputs, &Mask::new().causal(0), &mut [0; scratch_len(8)], out.as_flattened_mut()).ok()?;
    Some(out)
}

/// FNV-1a of the outputs of a tile, of a masked sequence and, little-endian, of floats; `None` if an attention was refused.
pub fn outputs() -> Option<u64> {
    let (tile, sequence, floats) = (tile()?, sequence()?, floats()?);
    let bytes = tile.out.as_flattened().iter().chain(sequence.out.as_flattened()).map(|&x| x as u8);
    let bytes = bytes.chain(floats.as_flattened().iter().flat_map(|x| x.to_le_bytes()));
    Some(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)))
}

#[cfg(test)]
mod tests {
    use super::*;

    extern crate std;

    /// The outputs are float attention on the same integers, within one step; hence so is what the hash stands for.
    fn check<const M: usize, const N: usize, const D: usize>(
        head: &Head<M, N, D>,
        visible: impl Fn(usize, usize) -> bool,
    ) {
        let gain = f64::from(SCALES.value / SCALES.out);
        for (i, (query, out)) in head.query.iter().zip(&head.out).enumerate() {
            let logit = |key: &[i8; D]| {
                let score: i32 = query.iter().zip(key).map(|(&q, &k)| i32::from(q) * i32::from(k)).sum();
                f64::from(score) * f64::from(SCALES.query * SCALES.key) / (D as f64).sqrt()
            };
            let logits: [f64; N] = from_fn(|j| if visible(i, j) { logit(&head.key[j]) } else { f64::NEG_INFINITY });
            let largest = logits.into_iter().fold(f64::MIN, f64::max);
            let weights = logits.map(|logit| (logit - largest).exp());
            let sum: f64 = weights.iter().sum();
            for (x, &got) in out.iter().enumerate() {
                let exact: f64 = weights.iter().zip(&head.value).map(|(w, value)| w * f64::from(value[x])).sum();
                let exact = if sum > 0.0 { (gain * exact / sum).clamp(-128.0, 127.0) } else { 0.0 };
                assert!((exact.round() - f64::from(got)).abs() <= 1.0, "{i} {x}: {got} is not {exact}");
            }
        }
    }

    /// The outputs are float attention on the floats themselves, within what quantising them costs.
    fn check_floats(out: &[[f32; 8]; FLOAT_ROWS]) {
        let [query, key, value] = float_tensors();
        for (i, (query, out)) in query.iter().zip(out).enumerate() {
            let dot = |key: &[f32; 8]| query.iter().zip(key).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>();
            let weights: [f64; FLOAT_ROWS] =
                from_fn(|j| if j <= i { (dot(&key[j]) / 8_f64.sqrt()).exp() } else { 0.0 });
            let sum: f64 = weights.iter().sum();
            for (x, &got) in out.iter().enumerate() {
                let exact = weights.iter().zip(&value).map(|(w, value)| w * f64::from(value[x])).sum::<f64>() / sum;
                assert!((exact - f64::from(got)).abs() <= 0.05, "{i} {x}: {got} is not {exact}");
            }
        }
    }

    #[test]
    fn expected_is_the_hash_of_right_outputs() {
        check(&tile().expect("valid"), |_, _| true);
        check(&sequence().expect("valid"), |i, j| j < 130 && j <= i + 126 && allowed(i, j));
        check_floats(&floats().expect("valid"));
        assert_eq!(outputs(), Some(EXPECTED), "{:x?}", outputs());
    }
}
