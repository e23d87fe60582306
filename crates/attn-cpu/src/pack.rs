//! Keys and values in the order in which the kernel reads them.

use alloc::vec::Vec;

use attn_fixed::{BLOCK, MAX_DIM};

use crate::simd::{MAX_ROWS, Simd};

/// Keys and values of one head, packed.
///
/// A panel is what lies in the lanes of a vector, key by key or column by column of the values, and its vectors are the steps
/// of a product: `DEPTH` elements of each key, or of `DEPTH` keys each column.
pub(crate) struct Packed<V> {
    /// Keys of the head.
    pub(crate) keys: usize,
    /// Columns of the values.
    pub(crate) dim: usize,
    /// Vectors of a key panel.
    steps: usize,
    /// Value panels of a block.
    columns: usize,
    /// `[panels][steps]`
    key: Vec<V>,
    /// `[panels]`: what makes up for the `BIAS` that is added to every query element.
    bias: Vec<V>,
    /// `[blocks][columns][keys of a block / DEPTH]`
    value: Vec<V>,
}

impl<V: Copy> Packed<V> {
    pub(crate) fn new() -> Self {
        Self { keys: 0, dim: 0, steps: 0, columns: 0, key: Vec::new(), bias: Vec::new(), value: Vec::new() }
    }

    #[inline(always)]
    pub(crate) fn pack<S: Simd<V = V>>(&mut self, s: S, key: &[i8], value: &[i8], dim: usize) {
        let zero = s.splat(0);
        self.keys = key.len() / dim;
        self.dim = dim;
        self.steps = dim.div_ceil(S::DEPTH);
        self.columns = dim.div_ceil(S::ROWS);
        let blocks = self.keys.div_ceil(BLOCK);
        let panels = blocks * (BLOCK / S::ROWS);
        // Every vector is written: what is there already stays.
        self.key.resize(panels * self.steps, zero);
        self.bias.resize(panels, zero);
        self.value.resize(blocks * self.columns * (BLOCK / S::DEPTH), zero);

        let mut rows = key.chunks(S::ROWS * dim);
        let ones = if S::DEPTH == 4 { s.splat16(0x0101) } else { s.splat16(1) };
        for (panel, bias) in self.key.chunks_exact_mut(self.steps).zip(&mut self.bias) {
            // Behind the last key there are zeros.
            pack_rows(s, rows.next().unwrap_or(&[]), dim, zero, panel);
            *bias = zero;
            if S::BIAS != 0 {
                // Four sums, so that none waits for the one before it.
                let [mut i, mut j, mut k, mut l] = [zero; 4];
                let (quads, rest) = panel.as_chunks();
                for &[a, b, c, d] in quads {
                    (i, j) = (s.dot(i, ones, a), s.dot(j, ones, b));
                    (k, l) = (s.dot(k, ones, c), s.dot(l, ones, d));
                }
                for &a in rest {
                    i = s.dot(i, ones, a);
                }
                let sum = s.add(s.add(i, j), s.add(k, l));
                *bias = s.mul(sum, s.splat(-S::BIAS));
            }
        }
        let blocks = self.value.chunks_exact_mut(self.columns * (BLOCK / S::DEPTH));
        for (block, value) in blocks.zip(value.chunks(BLOCK * dim)) {
            for step in 0..BLOCK / S::DEPTH {
                let rows = value.get(step * S::DEPTH * dim..).unwrap_or(&[]);
                pack_values(s, rows, dim, block, step);
            }
        }
    }

    /// The key panels of a block, each with its bias.
    #[inline(always)]
    pub(crate) fn key_panels(&self, block: usize, rows: usize) -> impl Iterator<Item = (&[V], &V)> {
        let panels = BLOCK / rows;
        let keys = &self.key[block * panels * self.steps..][..panels * self.steps];
        keys.chunks_exact(self.steps).zip(&self.bias[block * panels..])
    }

    /// The value panels of a block, each of so many vectors.
    #[inline(always)]
    pub(crate) fn value_panels(&self, block: usize, steps: usize) -> impl Iterator<Item = &[V]> {
        let len = self.columns * steps;
        self.value[block * len..][..len].chunks_exact(steps)
    }
}

/// Up to `ROWS` rows of elements, one in a lane, in steps of `DEPTH` elements; zeros behind the last element of a row and in
/// lanes without one. `xor` is applied to everything.
#[inline(always)]
pub(crate) fn pack_rows<S: Simd>(s: S, rows: &[i8], dim: usize, xor: S::V, to: &mut [S::V]) {
    let chunk = S::ROWS * S::DEPTH;
    for (i, to) in to.chunks_mut(S::ROWS).enumerate() {
        let first = i * chunk;
        let mut square = [s.splat(0); MAX_ROWS];
        if first + chunk <= dim {
            for (row, lanes) in rows.chunks_exact(dim).zip(&mut square) {
                *lanes = s.elements(&row[first..]);
            }
        } else {
            for (row, lanes) in rows.chunks_exact(dim).zip(&mut square) {
                let mut rest = [0; 4 * MAX_ROWS];
                rest[..dim - first].copy_from_slice(&row[first..]);
                *lanes = s.elements(&rest);
            }
        }
        s.transpose(&mut square);
        for (to, lanes) in to.iter_mut().zip(square) {
            *to = s.xor(lanes, xor);
        }
    }
}

/// The first `DEPTH` rows of values as one step of each panel of a block.
#[inline(always)]
fn pack_values<S: Simd>(s: S, rows: &[i8], dim: usize, block: &mut [S::V], step: usize) {
    for (i, panel) in block.chunks_exact_mut(BLOCK / S::DEPTH).enumerate() {
        panel[step] = pack_columns(s, rows, dim, i * S::ROWS);
    }
}

/// `ROWS` columns from this one on, of the first `DEPTH` rows of values, or what there is of them and zeros.
#[inline(always)]
pub(crate) fn pack_columns<S: Simd>(s: S, rows: &[i8], dim: usize, first: usize) -> S::V {
    let zeros = [0; MAX_DIM];
    let mut four = [&zeros[..dim]; 4];
    for (to, row) in four[..S::DEPTH].iter_mut().zip(rows.chunks_exact(dim)) {
        *to = row;
    }
    zip_columns(s, four, dim, first)
}

/// `ROWS` columns from this one on, of `DEPTH` rows.
#[inline(always)]
pub(crate) fn zip_columns<S: Simd>(s: S, rows: [&[i8]; 4], dim: usize, first: usize) -> S::V {
    let [a, b, c, d] = [&rows[0][..dim], &rows[1][..dim], &rows[2][..dim], &rows[3][..dim]];
    let (a, b) = (columns(a, first), columns(b, first));
    let mut lanes = [0; MAX_ROWS];
    if S::DEPTH == 4 {
        let (c, d) = (columns(c, first), columns(d, first));
        for i in 0..MAX_ROWS {
            lanes[i] = i32::from_le_bytes([a[i] as u8, b[i] as u8, c[i] as u8, d[i] as u8]);
        }
    } else {
        for i in 0..MAX_ROWS {
            lanes[i] = i32::from(i16::from(a[i]) as u16) | i32::from(b[i]) << 16;
        }
    }
    s.load(&lanes)
}

/// The columns of a row from this one on, and zeros behind the last.
#[inline(always)]
fn columns(row: &[i8], first: usize) -> [i8; MAX_ROWS] {
    if first + MAX_ROWS <= row.len() {
        return *row[first..].first_chunk().expect("so many");
    }
    let mut columns = [0; MAX_ROWS];
    for (to, from) in columns.iter_mut().zip(&row[first..]) {
        *to = *from;
    }
    columns
}
