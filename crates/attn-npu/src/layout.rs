//! The objects that the kernels take, packed: `kernels/attention_tile.h` and `kernels/attention_layout.h` in Rust.
//!
//! An object holds queries in multiples of [`ROWS`] and columns in multiples of [`DIM_STEP`]. What is added is zeros: a column
//! of them changes no score and no other column, a row of them no other row.

use std::ops::{Index, IndexMut};

use attn_fixed::{BLOCK, MAX_DIM, MIN_DIM, Mask, Parameters};

/// What host and kernel agree on: changes with every change of an object.
pub const ABI: i32 = 1;

/// Every object starts on a multiple of so many bytes, and has a multiple of them.
pub const ALIGNMENT: usize = 64;

/// An object has a multiple of so many queries.
pub const ROWS: usize = 4;

/// Most queries of an object.
pub const MAX_QUERIES: usize = 64;

/// An object has a multiple of so many columns.
pub const DIM_STEP: usize = 16;

/// The causal offset of an object whose queries see all keys.
pub const NOT_CAUSAL: i32 = 1 << 30;

/// Bytes of the parameters, which start a query object and a tile.
pub const PARAMETERS_BYTES: usize = 64;

/// Offsets of the parameters, all int32.
mod parameter {
    pub(super) const ABI: usize = 0;
    pub(super) const DIM: usize = 4;
    pub(super) const QUERIES: usize = 8;
    pub(super) const KEYS: usize = 12;
    pub(super) const CAUSAL: usize = 16;
    pub(super) const SCORE_MULTIPLIER: usize = 20;
    pub(super) const SCORE_SHIFT: usize = 24;
    pub(super) const GAIN: usize = 28;
    pub(super) const GAIN_EXPONENT: usize = 32;
}

/// Offsets of a state, which ends in the accumulators.
mod state {
    use super::MAX_QUERIES;

    pub(super) const SUM: usize = 64;
    pub(super) const REFERENCE: usize = SUM + 4 * MAX_QUERIES;
    pub(super) const ACCUMULATORS: usize = REFERENCE + 4 * MAX_QUERIES;
}

/// Bytes of the queries of an object.
#[must_use]
pub const fn query_bytes(shape: Shape) -> usize {
    shape.queries * shape.dim
}

/// Bytes of a block object: its keys, and then as many of its values.
#[must_use]
pub const fn block_bytes(shape: Shape) -> usize {
    2 * BLOCK * shape.dim
}

/// Bytes of a state.
#[must_use]
pub const fn state_bytes(shape: Shape) -> usize {
    state::ACCUMULATORS + 4 * shape.queries * shape.dim
}

/// Where column `c` of query `i` lies, from the start of the queries: tiles of 4 × 8.
const fn query_at(i: usize, c: usize, dim: usize) -> usize {
    ((i / 4) * (dim / 8) + c / 8) * 32 + (i % 4) * 8 + c % 8
}

/// Where column `c` of key `j` lies, from the start of a block's keys: tiles of 8 columns × 8 keys.
const fn key_at(j: usize, c: usize) -> usize {
    ((c / 8) * 8 + j / 8) * 64 + (c % 8) * 8 + j % 8
}

/// Where column `c` of value `j` lies, from the start of a block's values: tiles of 8 values × 8 columns.
const fn value_at(j: usize, c: usize) -> usize {
    ((c / 8) * 8 + j / 8) * 64 + (j % 8) * 8 + c % 8
}

/// The shape of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    queries: usize,
    dim: usize,
}

impl Shape {
    /// For so many queries and columns, rounded up to those that are stored.
    ///
    /// # Panics
    /// No queries or more than [`MAX_QUERIES`]; a dimension outside [`MIN_DIM`]` ..= `[`MAX_DIM`].
    #[must_use]
    pub const fn new(queries: usize, dim: usize) -> Self {
        assert!(1 <= queries && queries <= MAX_QUERIES, "1 to 64 queries an object");
        assert!(MIN_DIM <= dim && dim <= MAX_DIM, "a dimension of 8 to 256");
        Self { queries: queries.next_multiple_of(ROWS), dim: dim.next_multiple_of(DIM_STEP) }
    }

    /// Queries that are stored, 4 to 64.
    #[must_use]
    pub const fn queries(self) -> usize {
        self.queries
    }

    /// Columns that are stored, 16 to 256.
    #[must_use]
    pub const fn dim(self) -> usize {
        self.dim
    }
}

/// Bytes on a multiple of [`ALIGNMENT`], in whole lines of it.
#[derive(Clone, Debug, Default)]
pub struct Buffer {
    lines: Vec<Line>,
}

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([i8; ALIGNMENT]);

impl Buffer {
    /// Makes it so many zeros; the memory is used again.
    fn zeros(&mut self, bytes: usize) {
        self.lines.clear();
        self.lines.resize(bytes.div_ceil(ALIGNMENT), Line([0; ALIGNMENT]));
    }

    fn extend(&mut self, other: &Self) {
        self.lines.extend_from_slice(&other.lines);
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.lines.len() * ALIGNMENT
    }

    /// Its bytes, a line at a time.
    #[must_use]
    pub fn lines(&self) -> impl ExactSizeIterator<Item = &[i8; ALIGNMENT]> {
        self.lines.iter().map(|line| &line.0)
    }

    pub(crate) const fn as_ptr(&self) -> *const i8 {
        self.lines.as_ptr().cast()
    }

    pub(crate) const fn as_mut_ptr(&mut self) -> *mut i8 {
        self.lines.as_mut_ptr().cast()
    }

    fn set_i32(&mut self, offset: usize, value: i32) {
        for (i, byte) in value.to_le_bytes().into_iter().enumerate() {
            self[offset + i] = byte.cast_signed();
        }
    }

    fn i32(&self, offset: usize) -> i32 {
        i32::from_le_bytes([0, 1, 2, 3].map(|i| self[offset + i].cast_unsigned()))
    }
}

impl Index<usize> for Buffer {
    type Output = i8;

    fn index(&self, offset: usize) -> &i8 {
        &self.lines[offset / ALIGNMENT].0[offset % ALIGNMENT]
    }
}

impl IndexMut<usize> for Buffer {
    fn index_mut(&mut self, offset: usize) -> &mut i8 {
        &mut self.lines[offset / ALIGNMENT].0[offset % ALIGNMENT]
    }
}

/// A query object: parameters, and up to [`MAX_QUERIES`] queries of one head.
#[derive(Clone, Debug, Default)]
pub struct Query {
    pub(crate) buffer: Buffer,
    pub(crate) shape: Shape,
}

impl Query {
    /// Packs the queries `first ..` of a head, `[queries, dim]`, that attend to `keys` keys as `mask`, that of the whole head,
    /// says.
    ///
    /// # Panics
    /// A number of queries that no object has, or a mask with a boolean part.
    pub fn pack(&mut self, parameters: &Parameters, mask: &Mask<'_>, first: usize, keys: usize, query: &[i8]) {
        assert!(mask.is_prefix(), "the object says where a row's keys end, and no more");
        let shape = Shape::new(query.len() / parameters.dim(), parameters.dim());
        self.shape = shape;
        self.buffer.zeros(PARAMETERS_BYTES + query_bytes(shape));
        let valid = mask.end(usize::MAX, keys);
        let seen = mask.end(first, keys);
        for (offset, value) in [
            (parameter::ABI, ABI),
            (parameter::DIM, shape.dim as i32),
            (parameter::QUERIES, shape.queries as i32),
            (parameter::KEYS, valid as i32),
            // A causal rule that hides nothing of the first query hides nothing of the others.
            (parameter::CAUSAL, if seen == valid { NOT_CAUSAL } else { seen as i32 - 1 }),
            (parameter::SCORE_MULTIPLIER, parameters.score_multiplier().to_bits().into()),
            (parameter::SCORE_SHIFT, parameters.score_shift()),
            (parameter::GAIN, parameters.gain().to_bits().into()),
            (parameter::GAIN_EXPONENT, parameters.gain_exponent()),
        ] {
            self.buffer.set_i32(offset, value);
        }
        for (i, row) in query.chunks_exact(parameters.dim()).enumerate() {
            for (c, &x) in row.iter().enumerate() {
                self.buffer[PARAMETERS_BYTES + query_at(i, c, shape.dim)] = x;
            }
        }
    }

    /// Its bytes.
    #[must_use]
    pub const fn buffer(&self) -> &Buffer {
        &self.buffer
    }
}

/// A block object: up to [`BLOCK`] keys, and their values.
#[derive(Clone, Debug, Default)]
pub struct Block {
    pub(crate) buffer: Buffer,
    pub(crate) dim: usize,
}

impl Block {
    /// Packs keys and values, `[at most BLOCK, dim]` both.
    ///
    /// # Panics
    /// More keys, or a dimension outside [`MIN_DIM`]` ..= `[`MAX_DIM`].
    pub fn pack(&mut self, dim: usize, key: &[i8], value: &[i8]) {
        assert!(key.len() <= BLOCK * dim, "a block has 64 keys");
        let shape = Shape::new(1, dim);
        self.dim = shape.dim;
        self.buffer.zeros(block_bytes(shape));
        let rows = key.chunks_exact(dim).zip(value.chunks_exact(dim));
        for (j, (key, value)) in rows.enumerate() {
            for (c, (&k, &v)) in key.iter().zip(value).enumerate() {
                self.buffer[key_at(j, c)] = k;
                self.buffer[BLOCK * shape.dim + value_at(j, c)] = v;
            }
        }
    }

    /// Its bytes.
    #[must_use]
    pub const fn buffer(&self) -> &Buffer {
        &self.buffer
    }
}

/// A tile object: a query object with the only block behind it.
#[derive(Clone, Debug, Default)]
pub struct Tile {
    pub(crate) buffer: Buffer,
    pub(crate) shape: Shape,
}

impl Tile {
    /// Puts the two behind each other.
    ///
    /// # Panics
    /// Objects of different dimensions.
    pub fn join(&mut self, query: &Query, block: &Block) {
        assert_eq!(query.shape.dim, block.dim, "one dimension");
        self.shape = query.shape;
        self.buffer.lines.clear();
        self.buffer.extend(&query.buffer);
        self.buffer.extend(&block.buffer);
    }

    /// Its bytes.
    #[must_use]
    pub const fn buffer(&self) -> &Buffer {
        &self.buffer
    }
}

/// What is kept between two blocks: sum, reference and accumulator of every row.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub(crate) buffer: Buffer,
    pub(crate) shape: Shape,
}

impl State {
    pub(crate) fn resize(&mut self, shape: Shape) {
        self.shape = shape;
        self.buffer.zeros(state_bytes(shape));
    }

    /// The sum of row `i`; 0 if it saw no key.
    ///
    /// # Panics
    /// A row that there is not.
    #[must_use]
    pub fn sum(&self, i: usize) -> i32 {
        assert!(i < self.shape.queries);
        self.buffer.i32(state::SUM + 4 * i)
    }

    /// The accumulator of row `i`, all columns that are stored.
    ///
    /// # Panics
    /// A row that there is not.
    #[must_use]
    pub fn accumulator(&self, i: usize) -> impl ExactSizeIterator<Item = i32> {
        assert!(i < self.shape.queries);
        let first = state::ACCUMULATORS + 4 * i * self.shape.dim;
        (0..self.shape.dim).map(move |c| self.buffer.i32(first + 4 * c))
    }
}

/// An output object: a row for each query that is stored.
#[derive(Clone, Debug, Default)]
pub struct Output {
    pub(crate) buffer: Buffer,
    pub(crate) shape: Shape,
}

impl Output {
    pub(crate) fn resize(&mut self, shape: Shape) {
        self.shape = shape;
        self.buffer.zeros(shape.queries * shape.dim);
    }

    /// Writes the first rows and columns, those of the head, `[queries, dim]`.
    ///
    /// # Panics
    /// More rows or columns than are stored.
    pub fn unpack(&self, dim: usize, out: &mut [i8]) {
        assert!(dim <= self.shape.dim && out.len() <= self.shape.queries * dim);
        for (i, row) in out.chunks_exact_mut(dim).enumerate() {
            for (c, x) in row.iter_mut().enumerate() {
                *x = self.buffer[i * self.shape.dim + c];
            }
        }
    }
}

#[cfg(all(test, kernel))]
mod tests {
    #![allow(unsafe_code, reason = "functions in C")]

    use super::*;

    unsafe extern "C" {
        safe fn attn_host_query_at(i: i32, c: i32, dim: i32) -> i32;
        safe fn attn_host_key_at(j: i32, c: i32) -> i32;
        safe fn attn_host_value_at(j: i32, c: i32) -> i32;
        fn attn_host_objects(queries: i32, dim: i32, out: *mut i32);
    }

    #[test]
    fn objects_are_those_of_the_header() {
        for (queries, dim) in [(1, 8), (4, 16), (13, 80), (64, 256)] {
            let shape = Shape::new(queries, dim);
            let mut got = [-1; 24];
            // SAFETY: it writes 23 numbers.
            unsafe { attn_host_objects(shape.queries as i32, shape.dim as i32, got.as_mut_ptr()) };
            let expected = [
                ABI as usize,
                ALIGNMENT,
                ROWS,
                MAX_QUERIES,
                DIM_STEP,
                NOT_CAUSAL as usize,
                PARAMETERS_BYTES,
                query_bytes(shape),
                block_bytes(shape),
                state_bytes(shape),
                PARAMETERS_BYTES,
                parameter::ABI,
                parameter::DIM,
                parameter::QUERIES,
                parameter::KEYS,
                parameter::CAUSAL,
                parameter::SCORE_MULTIPLIER,
                parameter::SCORE_SHIFT,
                parameter::GAIN,
                parameter::GAIN_EXPONENT,
                state::ACCUMULATORS,
                state::SUM,
                state::REFERENCE,
            ];
            assert_eq!(got[..23], expected.map(|x| x as i32));
            assert_eq!(got[23], -1, "23 numbers");
            for bytes in [query_bytes(shape), block_bytes(shape), state_bytes(shape)] {
                assert_eq!(bytes % ALIGNMENT, 0);
            }
        }
    }

    #[test]
    fn elements_lie_where_the_kernel_looks() {
        for dim in (DIM_STEP..=MAX_DIM).step_by(DIM_STEP) {
            for c in 0..dim {
                for i in 0..BLOCK {
                    let (i_c, c_c) = (i as i32, c as i32);
                    assert_eq!(query_at(i, c, dim) as i32, attn_host_query_at(i_c, c_c, dim as i32), "{i} {c} {dim}");
                    assert_eq!(key_at(i, c) as i32, attn_host_key_at(i_c, c_c), "{i} {c}");
                    assert_eq!(value_at(i, c) as i32, attn_host_value_at(i_c, c_c), "{i} {c}");
                }
            }
        }
    }
}
