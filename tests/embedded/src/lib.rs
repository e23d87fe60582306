//! What the embedded program computes, and compares with what is committed: the exponential's vector, the vector of whole
//! attentions, and the snapshots of the conformance suite.
#![no_std]
#![forbid(unsafe_code)]

use core::{fmt, hint::black_box, num::NonZero};

use attn_fixed::{
    AttentionError, Inputs, Mask, ParameterError, Parameters, QuantiseError, Scales, attend, attend_tile, exp2::exp2,
    scratch_len, types::Distance,
};

/// `EXP2`, `ATTENTIONS`, `SNAPSHOTS` and `LARGEST`; build.rs makes them.
mod expected {
    use crate::{Attention, Snapshot};
    use core::num::NonZero;

    include!(concat!(env!("OUT_DIR"), "/expected.rs"));
}
use expected::{ATTENTIONS, EXP2, LARGEST, SNAPSHOTS};

/// A line of `vectors/attention.csv`, which says how its tensors are made; the fields are its columns.
struct Attention {
    dim: NonZero<usize>,
    queries: usize,
    keys: NonZero<usize>,
    shift: u32,
    first: usize,
    sinks: usize,
    height: i8,
    query: f32,
    key: f32,
    value: f32,
    out: f32,
    valid: usize,
    causal: usize,
    runs: u32,
    fnv1a: u64,
    fnv1a_floats: u64,
}

/// A head of dimension 64 with as many queries as keys.
#[derive(Clone)]
struct Snapshot {
    name: &'static str,
    /// Quantised towards zero, as the users of the tile do.
    truncated: bool,
    /// Query, key and value: `f32`, little-endian.
    tensors: [&'static [u8]; 3],
    /// The output in int8.
    int8: &'static [u8],
    /// Hash of the output in floats, where there is a snapshot of it.
    floats: Option<u64>,
}

/// All memory that is not `attend_tile`'s own; there is no allocator.
struct Memory {
    query: [i8; LARGEST],
    key: [i8; LARGEST],
    value: [i8; LARGEST],
    allowed: [bool; LARGEST],
    out: [i8; LARGEST],
    floats: [f32; LARGEST],
    scratch: [i32; scratch_len(256)],
}

impl Memory {
    const NEW: Self = Self {
        query: [0; LARGEST],
        key: [0; LARGEST],
        value: [0; LARGEST],
        allowed: [false; LARGEST],
        out: [0; LARGEST],
        floats: [0.0; LARGEST],
        scratch: [0; scratch_len(256)],
    };
}

/// How much of what was compared is equal.
#[derive(Debug, PartialEq)]
struct Count {
    equal: usize,
    total: usize,
}

impl Count {
    fn of(pairs: impl Iterator<Item = bool>) -> Self {
        pairs.fold(Self { equal: 0, total: 0 }, |Self { equal, total }, is_equal| Self {
            equal: equal + usize::from(is_equal),
            total: total + 1,
        })
    }
}

// Functions behind a pointer are compiled for every argument: a panic that only other arguments reach is seen too.

fn new() -> fn(usize, Scales) -> Result<Parameters, ParameterError> {
    black_box(Parameters::new)
}

fn quantise() -> fn(&[f32], &mut [i8]) -> Result<f32, QuantiseError> {
    black_box(attn_fixed::quantise)
}

type Attend<O> = fn(&Parameters, Inputs<'_>, &Mask<'_>, &mut [i32], &mut [O]) -> Result<(), AttentionError>;

fn attend_int8() -> Attend<i8> {
    black_box(attend)
}

fn attend_floats() -> Attend<f32> {
    black_box(attend)
}

const DIM: usize = 64;

/// Compares everything, and says in a line each how much of it is equal; whether all is.
///
/// # Errors
/// What `console` has.
pub fn compare(console: &mut impl fmt::Write) -> Result<bool, fmt::Error> {
    let mut all = true;
    let mut say = |what: &str, name: &str, unit: &str, count: Option<Count>| {
        // What was refused is not equal.
        let Count { equal, total } = count.unwrap_or(Count { equal: 0, total: 1 });
        all &= equal == total && total > 0;
        writeln!(console, "{equal} of {total} {unit} equal: {what}{name}")
    };
    say("exp2", "", "elements", Some(exponential(&EXP2)))?;
    let mut memory = Memory::NEW;
    let mut hashes = Count { equal: 0, total: 0 };
    for attention in ATTENTIONS {
        let equal = attention.hashes(&mut memory).map_or(0, |[int8, floats]| {
            usize::from(int8 == attention.fnv1a) + usize::from(floats == attention.fnv1a_floats)
        });
        hashes = Count { equal: hashes.equal + equal, total: hashes.total + 2 };
    }
    say("attention vector", "", "hashes", Some(hashes))?;
    for snapshot in SNAPSHOTS {
        say("attend, ", snapshot.name, "elements", snapshot.sequence(&mut memory))?;
        if snapshot.int8.len() == DIM * DIM {
            say("attend_tile, ", snapshot.name, "elements", snapshot.tile(&mut memory))?;
        }
        if let Some(expected) = snapshot.floats {
            let equal = snapshot.floats(&mut memory).map(|got| Count::of([got == expected].into_iter()));
            say("attend to floats, ", snapshot.name, "hashes", equal)?;
        }
    }
    Ok(all)
}

/// Every distance: the vector is one octave, from which the others follow.
fn exponential(vector: &[i16; 2048]) -> Count {
    let octaves = (0..32).flat_map(|octave| vector.iter().map(move |x| i32::from(*x) >> octave));
    Count::of(
        (0..=u16::MAX)
            .zip(octaves)
            .map(|(bits, expected)| i32::from(exp2(Distance::from_bits(black_box(bits))).to_bits()) == expected),
    )
}

fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Element `i` of tensor `tensor` of the vector of attentions.
fn number(tensor: u32, i: usize) -> i8 {
    let mut x = (i as u32 + (tensor << 24)).wrapping_mul(0x9e37_79b1);
    x = (x ^ x >> 15).wrapping_mul(0x85eb_ca77);
    ((x ^ x >> 13) >> 24) as i8
}

impl Attention {
    /// The hashes of the output in int8 and in floats; `None` if the head is refused.
    fn hashes(&self, memory: &mut Memory) -> Option<[u64; 2]> {
        let Memory { query, key, value, allowed, out, floats, scratch } = memory;
        let (dim, keys) = (self.dim.get(), self.keys.get());
        let (query_len, key_len) = (self.queries * dim, keys * dim);
        let query = query.get_mut(..query_len)?;
        let (key, value) = (key.get_mut(..key_len)?, value.get_mut(..key_len)?);
        for (tensor, shift, elements) in [(0, self.shift, &mut *query), (1, self.shift, key), (2, 0, value)] {
            for (i, x) in elements.iter_mut().enumerate() {
                *x = number(tensor, i).checked_shr(shift)?;
            }
        }
        let sink = |j| if (self.first..self.first + self.sinks).contains(&j) { self.height } else { 0 };
        query.chunks_exact_mut(dim).for_each(|row| row[0] = 127);
        key.chunks_exact_mut(dim).enumerate().for_each(|(j, row)| row[0] = sink(j));
        let allowed = allowed.get_mut(..self.queries * keys)?;
        for (i, row) in allowed.chunks_exact_mut(keys).enumerate() {
            for (j, allowed) in row.iter_mut().enumerate() {
                *allowed = (i + j).checked_shr(self.runs)? & 1 == 0;
            }
        }
        let mask = Mask::new().valid_keys(self.valid).causal(self.causal).allowed(allowed, keys);
        let scales = Scales { query: self.query, key: self.key, value: self.value, out: self.out };
        let parameters = new()(dim, scales).ok()?;
        let inputs = Inputs { query, key, value };
        let (out, floats) = (out.get_mut(..query_len)?, floats.get_mut(..query_len)?);
        attend_int8()(&parameters, inputs, &mask, scratch, out).ok()?;
        attend_floats()(&parameters, inputs, &mask, scratch, floats).ok()?;
        Some([fnv1a(out.iter().map(|&x| x as u8)), fnv1a(floats.iter().flat_map(|x| x.to_le_bytes()))])
    }
}

impl Snapshot {
    /// Quantises the head; `None` if it is refused.
    fn quantise(&self, truncated: bool, memory: &mut Memory) -> Option<Parameters> {
        let [query, key, value] = self.tensors;
        let mut tensor = |bytes: &[u8], to: &mut [i8; LARGEST]| {
            let bytes = bytes.as_chunks().0;
            let floats = memory.floats.get_mut(..bytes.len())?;
            for (x, bytes) in floats.iter_mut().zip(bytes) {
                *x = f32::from_le_bytes(*bytes);
            }
            let to = to.get_mut(..bytes.len())?;
            if truncated { Some(truncate(floats, to)) } else { quantise()(floats, to).ok() }
        };
        let query = tensor(query, &mut memory.query)?;
        let key = tensor(key, &mut memory.key)?;
        let value = tensor(value, &mut memory.value)?;
        new()(DIM, Scales { query, key, value, out: value }).ok()
    }

    /// `attend`; `None` if the head is refused.
    fn sequence(&self, memory: &mut Memory) -> Option<Count> {
        let parameters = self.quantise(self.truncated, memory)?;
        let Memory { query, key, value, out, scratch, .. } = memory;
        let len = self.int8.len();
        let inputs = Inputs { query: query.get(..len)?, key: key.get(..len)?, value: value.get(..len)? };
        let out = out.get_mut(..len)?;
        attend_int8()(&parameters, inputs, &Mask::new(), scratch, out).ok()?;
        Some(self.count(out))
    }

    /// `attend_tile`, of a snapshot of 64 × 64; `None` if the head is refused.
    fn tile(&self, memory: &mut Memory) -> Option<Count> {
        let parameters = self.quantise(self.truncated, memory)?;
        let Memory { query, key, value, out, .. } = memory;
        let out = out.as_chunks_mut().0.first_chunk_mut()?;
        let [query, key, value] = [query, key, value].map(|tensor| tensor.as_chunks().0.first_chunk::<DIM>());
        attend_tile::<DIM, DIM, DIM>(&parameters, query?, key?, value?, &Mask::new(), out).ok()?;
        Some(self.count(out.as_flattened()))
    }

    fn count(&self, out: &[i8]) -> Count {
        Count::of(out.iter().zip(self.int8).map(|(got, expected)| *got as u8 == *expected))
    }

    /// The hash of the output in floats; `None` if the head is refused.
    fn floats(&self, memory: &mut Memory) -> Option<u64> {
        let parameters = self.quantise(false, memory)?;
        let Memory { query, key, value, floats, scratch, .. } = memory;
        let len = self.int8.len();
        let inputs = Inputs { query: query.get(..len)?, key: key.get(..len)?, value: value.get(..len)? };
        let out = floats.get_mut(..len)?;
        attend_floats()(&parameters, inputs, &Mask::new(), scratch, out).ok()?;
        Some(fnv1a(out.iter().flat_map(|x| x.to_le_bytes())))
    }
}

/// Towards zero; the scale.
fn truncate(floats: &[f32], to: &mut [i8]) -> f32 {
    let largest = floats.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    for (x, float) in to.iter_mut().zip(floats) {
        *x = (float * 127.0 / largest) as i8;
    }
    largest / 127.0
}

#[cfg(test)]
mod tests {
    use super::*;

    extern crate std;

    /// With so much stack: there is more memory on it than a test has.
    fn on_a_large_stack(test: fn()) {
        std::thread::Builder::new().stack_size(1 << 24).spawn(test).expect("a thread").join().expect("no panic");
    }

    #[test]
    fn a_single_wrong_element_is_seen() {
        let mut vector = EXP2;
        vector[1000] ^= 1;
        assert!(exponential(&vector).equal < 1 << 16);
        on_a_large_stack(|| {
            let mut memory = Memory::NEW;
            let mut tile = SNAPSHOTS[0].clone();
            for expected in [4096, 4095] {
                let count = Some(Count { equal: expected, total: 4096 });
                assert_eq!(tile.sequence(&mut memory), count);
                assert_eq!(tile.tile(&mut memory), count);
                let mut int8 = tile.int8.to_vec();
                int8[4000] ^= 1;
                tile.int8 = int8.leak();
            }
        });
    }
}
