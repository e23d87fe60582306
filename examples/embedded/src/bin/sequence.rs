//! `attend`: sequences of any length, in slices; the scratch memory is the caller's.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use core::{array::from_fn, hint::black_box};

use attn_embedded_example::end;
use attn_fixed::{Inputs, Mask, Parameters, Scales, attend, scratch_len};
use cortex_m_rt::entry;

/// `[rows, 64]` in and out; `None` if an input is refused.
fn attention(inputs: Inputs<'_>, out: &mut [i8]) -> Option<()> {
    // What an integer stands for: those of quantised floats are nearer to 0.02.
    let scales = Scales { query: 1.0, key: 1.0, value: 0.02, out: 0.02 };
    let parameters = Parameters::new(64, scales).ok()?;
    let mut scratch = [0; scratch_len(64)];
    attend(&parameters, inputs, &Mask::new(), &mut scratch, out).ok()
}

#[entry]
fn main() -> ! {
    // Each query is equal to one key and has nothing of the others; attention looks up its value.
    let key: [[i8; 64]; 64] = from_fn(|i| from_fn(|x| if i == x { 127 } else { 0 }));
    let value: [[i8; 64]; 64] = from_fn(|i| from_fn(|x| (3 * i + x) as i8));
    let (key, value) = black_box((key.as_flattened(), value.as_flattened()));
    let mut out = [0; 64 * 64];
    let done = attention(Inputs { query: key, key, value }, &mut out);
    end(done.is_some() && out == *value)
}
