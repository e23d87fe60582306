//! `attend_tile`: the compiler knows the shape, and the scratch memory is on the stack.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use core::{array::from_fn, hint::black_box};

use attn_embedded_example::end;
use attn_fixed::{Mask, Parameters, Scales, attend_tile};
use cortex_m_rt::entry;

type Tensor = [[i8; 64]; 64];

/// `None` if an input is refused.
fn attention(query: &Tensor, key: &Tensor, value: &Tensor) -> Option<Tensor> {
    // What an integer stands for: those of quantised floats are nearer to 0.02.
    let scales = Scales { query: 1.0, key: 1.0, value: 0.02, out: 0.02 };
    let parameters = Parameters::new(64, scales).ok()?;
    let mut out = [[0; 64]; 64];
    attend_tile(&parameters, query, key, value, &Mask::new(), &mut out).ok()?;
    Some(out)
}

#[entry]
fn main() -> ! {
    // Each query is equal to one key and has nothing of the others; attention looks up its value.
    let key: Tensor = from_fn(|i| from_fn(|x| if i == x { 127 } else { 0 }));
    let value: Tensor = from_fn(|i| from_fn(|x| (3 * i + x) as i8));
    let (key, value) = black_box((&key, &value));
    end(attention(key, key, value) == Some(*value))
}
