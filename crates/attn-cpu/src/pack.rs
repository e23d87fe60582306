//! Keys and values in the order in which the kernel reads them.

use alloc::vec::Vec;

use attn_fixed::{BLOCK, MAX_DIM};

use crate::simd::Simd;

/// Keys, or columns of values, that are multiplied at a time.
pub(crate) const PANEL: usize = 8;

/// Keys and values of one head, packed.
///
/// A panel is `[steps][PANEL]` of lanes: `DEPTH` elements of a key, or of `DEPTH` keys the same column.
#[derive(Default)]
pub(crate) struct Packed {
    /// Keys of the head.
    pub(crate) keys: usize,
    /// Steps of a key panel.
    steps: usize,
    /// Steps of a value panel.
    value_steps: usize,
    /// Value panels of a block.
    columns: usize,
    key: Vec<[u32; PANEL]>,
    /// What makes up for the `BIAS` that is added to every query element.
    bias: Vec<[i32; PANEL]>,
    value: Vec<[u32; PANEL]>,
}

impl Packed {
    #[inline(always)]
    pub(crate) fn pack<S: Simd>(&mut self, key: &[i8], value: &[i8], dim: usize) {
        let keys = key.len() / dim;
        let blocks = keys.div_ceil(BLOCK);
        self.keys = keys;
        self.steps = dim.div_ceil(S::DEPTH);
        self.value_steps = BLOCK / S::DEPTH;
        self.columns = dim.div_ceil(PANEL);
        let panels = blocks * (BLOCK / PANEL);
        self.key.clear();
        self.key.resize(panels * self.steps, [0; PANEL]);
        self.bias.clear();
        self.bias.resize(panels, [0; PANEL]);
        for (j, key) in key.chunks_exact(dim).enumerate() {
            let panel = &mut self.key[j / PANEL * self.steps..][..self.steps];
            lanes::<S>(key, |step, lane| panel[step][j % PANEL] = lane);
            self.bias[j / PANEL][j % PANEL] = -S::BIAS * key.iter().map(|&x| i32::from(x)).sum::<i32>();
        }
        let zeros = [0; MAX_DIM];
        let mut columns = [0; MAX_DIM];
        self.value.clear();
        self.value.resize(blocks * self.columns * self.value_steps, [0; PANEL]);
        for (lane, rows) in value.chunks(S::DEPTH * dim).enumerate() {
            let (block, step) = (lane / self.value_steps, lane % self.value_steps);
            // Behind the last key there are zeros.
            let mut keys = [&zeros[..dim]; 4];
            for (key, row) in keys.iter_mut().zip(rows.chunks_exact(dim)) {
                *key = row;
            }
            let [a, b, c, d] = keys;
            if S::DEPTH == 4 {
                for ((((to, &a), &b), &c), &d) in columns.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                    *to = u32::from_le_bytes([a as u8, b as u8, c as u8, d as u8]);
                }
            } else {
                for ((to, &a), &b) in columns.iter_mut().zip(a).zip(b) {
                    *to = words(a, b);
                }
            }
            for (p, columns) in columns[..self.columns * PANEL].as_chunks().0.iter().enumerate() {
                self.value[(block * self.columns + p) * self.value_steps + step] = *columns;
            }
        }
    }

    /// The key panels of a block, each with its bias.
    #[inline(always)]
    pub(crate) fn key_panels(&self, block: usize) -> impl Iterator<Item = (&[[u32; PANEL]], &[i32; PANEL])> {
        let panels = BLOCK / PANEL;
        let keys = &self.key[block * panels * self.steps..][..panels * self.steps];
        keys.chunks_exact(self.steps).zip(&self.bias[block * panels..])
    }

    /// The value panels of a block.
    #[inline(always)]
    pub(crate) fn value_panels(&self, block: usize) -> impl Iterator<Item = &[[u32; PANEL]]> {
        let len = self.columns * self.value_steps;
        self.value[block * len..][..len].chunks_exact(self.value_steps)
    }
}

/// `DEPTH` elements a lane, zeros behind the last one.
#[inline(always)]
pub(crate) fn lanes<S: Simd>(row: &[i8], mut to: impl FnMut(usize, u32)) {
    let steps = row.len() / S::DEPTH;
    if S::DEPTH == 4 {
        for (step, &[a, b, c, d]) in row.as_chunks().0.iter().enumerate() {
            to(step, u32::from_le_bytes([a as u8, b as u8, c as u8, d as u8]));
        }
    } else {
        for (step, &[a, b]) in row.as_chunks().0.iter().enumerate() {
            to(step, words(a, b));
        }
    }
    let rest = &row[steps * S::DEPTH..];
    if !rest.is_empty() {
        let x = |i: usize| rest.get(i).map_or(0, |&x| x);
        let lane = if S::DEPTH == 4 {
            u32::from_le_bytes([x(0) as u8, x(1) as u8, x(2) as u8, x(3) as u8])
        } else {
            words(x(0), x(1))
        };
        to(steps, lane);
    }
}

/// Two 16-bit integers.
#[inline(always)]
fn words(a: i8, b: i8) -> u32 {
    u32::from(i16::from(a) as u16) | u32::from(i16::from(b) as u16) << 16
}
