//! The objects that the kernels take, packed: `kernels/attention_tile.h` and `kernels/attention_layout.h` in Rust.
//!
//! An object holds queries in multiples of [`ROWS`] and columns in multiples of [`DIM_STEP`]. What is added is zeros: a column
//! of them changes no score and no other column, a row of them no other row.

use std::{
    array::from_fn,
    ops::{Index, IndexMut},
};

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

    pub(super) const NEXT_KEY: usize = 0;
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

/// Rows and columns of what a product takes at once.
const TILE: usize = 8;

/// The tile of eight rows from `row` and eight columns from `column` on, `[TILE, TILE]`, of rows of `dim`; zeros where there are no
/// such rows or columns.
fn tile(rows: &[i8], dim: usize, row: usize, column: usize) -> [[i8; TILE]; TILE] {
    let mut tile = [[0; TILE]; TILE];
    let width = dim.saturating_sub(column).min(TILE);
    for (to, from) in tile.iter_mut().zip(rows.chunks_exact(dim).skip(row)) {
        if width == TILE {
            // Of a length that the compiler knows.
            to.copy_from_slice(&from[column..column + TILE]);
        } else {
            to[..width].copy_from_slice(&from[dim - width..]);
        }
    }
    tile
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

/// A line of an object.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Line(pub(crate) [i8; ALIGNMENT]);

impl Line {
    /// Nothing packed.
    pub const ZEROS: Self = Self([0; ALIGNMENT]);
}

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

    /// For a kernel, which reads and writes whole objects: never of an object that nothing was packed into.
    pub(crate) const fn as_ptr(&self) -> *const i8 {
        assert!(!self.lines.is_empty(), "an object");
        self.lines.as_ptr().cast()
    }

    pub(crate) const fn as_mut_ptr(&mut self) -> *mut i8 {
        assert!(!self.lines.is_empty(), "an object");
        self.lines.as_mut_ptr().cast()
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
        let shape = Shape::new(query.len() / parameters.dim(), parameters.dim());
        self.shape = shape;
        self.buffer.zeros(PARAMETERS_BYTES + query_bytes(shape));
        pack_query(&mut self.buffer.lines, shape.dim, parameters, mask, first, keys, query);
    }

    /// Its bytes.
    #[must_use]
    pub const fn buffer(&self) -> &Buffer {
        &self.buffer
    }
}

/// Packs queries, as [`Query::pack`], into the first lines of an object whose stored columns may be more. Returns the lines that
/// they took.
///
/// # Panics
/// As [`Query::pack`]; fewer columns, or too few lines.
pub fn pack_query(
    lines: &mut [Line],
    stored: usize,
    parameters: &Parameters,
    mask: &Mask<'_>,
    first: usize,
    keys: usize,
    query: &[i8],
) -> usize {
    assert!(mask.is_prefix(), "the object says where a row's keys end, and no more");
    let dim = parameters.dim();
    let shape = Shape::new(query.len() / dim, stored);
    assert!(dim <= shape.dim, "columns for all of a query");
    let valid = mask.end(usize::MAX, keys);
    let seen = mask.end(first, keys);
    // A causal rule that hides nothing of the first query hides nothing of the others.
    let causal = if seen == valid { NOT_CAUSAL } else { seen as i32 - 1 };
    let header = [
        (parameter::KEYS, valid as i32),
        (parameter::CAUSAL, causal),
        (parameter::SCORE_MULTIPLIER, parameters.score_multiplier().to_bits().into()),
        (parameter::SCORE_SHIFT, parameters.score_shift()),
        (parameter::GAIN, parameters.gain().to_bits().into()),
        (parameter::GAIN_EXPONENT, parameters.gain_exponent()),
    ];
    set_parameters(&mut lines[0], shape, &header);
    // Tiles of 4 × 8, half a line each: the columns of 4 rows, then those of the next 4.
    let tiles = shape.dim / TILE;
    let lines = &mut lines[PARAMETERS_BYTES / ALIGNMENT..];
    let used = query_bytes(shape) / ALIGNMENT;
    if query.len() == shape.queries * dim && dim.is_multiple_of(2 * TILE) && dim == shape.dim {
        // Whole lines, eight columns of a row at a time.
        let queries = query.as_chunks::<TILE>().0;
        for (rows, lines) in queries.chunks_exact(ROWS * tiles).zip(lines[..used].chunks_exact_mut(tiles / 2)) {
            for (pair, line) in lines.iter_mut().enumerate() {
                let two: [[i8; TILE]; 2 * ROWS] = from_fn(|at| rows[at % ROWS * tiles + 2 * pair + at / ROWS]);
                line.0.copy_from_slice(two.as_flattened());
            }
        }
        return PARAMETERS_BYTES / ALIGNMENT + used;
    }
    for (first, column) in (0..shape.queries).step_by(TILE).flat_map(|i| (0..tiles).map(move |c| (i, c))) {
        let eight = tile(query, dim, first, column * TILE);
        for (half, four) in eight.chunks_exact(ROWS).enumerate().take((shape.queries - first) / ROWS) {
            let at = (first / ROWS + half) * tiles + column;
            lines[at / 2].0[at % 2 * 32..][..32].copy_from_slice(four.as_flattened());
        }
    }
    PARAMETERS_BYTES / ALIGNMENT + used
}

/// Packs an object of the fewest rows, none of which sees a key: nothing to do for a kernel. Returns the lines that it took.
///
/// # Panics
/// A number of columns that no object has, or too few lines.
pub fn pack_no_query(lines: &mut [Line], stored: usize) -> usize {
    let shape = Shape::new(ROWS, stored);
    let used = (PARAMETERS_BYTES + query_bytes(shape)) / ALIGNMENT;
    lines[..used].fill(Line::ZEROS);
    // The least that there are: a multiplier of 0 comes with a shift of 24 only, and the vector kernel takes its reciprocal before it
    // looks at rows.
    let least = 1 << 15;
    let header = [(parameter::CAUSAL, NOT_CAUSAL), (parameter::SCORE_MULTIPLIER, least), (parameter::GAIN, least)];
    set_parameters(&mut lines[0], shape, &header);
    used
}

/// Writes the parameters; what is not among these is 0.
fn set_parameters(line: &mut Line, shape: Shape, header: &[(usize, i32)]) {
    line.0.fill(0);
    let object =
        [(parameter::ABI, ABI), (parameter::DIM, shape.dim as i32), (parameter::QUERIES, shape.queries as i32)];
    for (offset, value) in object.iter().chain(header) {
        line.0[*offset..][..4].copy_from_slice(&value.to_le_bytes().map(u8::cast_signed));
    }
}

/// Objects as a device finds them.
#[cfg(test)]
pub(crate) mod found {
    use super::{
        BLOCK, Block, Buffer, Line, PARAMETERS_BYTES, Query, Shape, Tile, block_bytes, parameter, query_bytes,
    };

    fn buffer(lines: &[Line], bytes: usize) -> Buffer {
        Buffer { lines: lines[..bytes / super::ALIGNMENT].to_vec() }
    }

    fn shape(lines: &[Line]) -> Shape {
        let header = Buffer { lines: lines[..1].to_vec() };
        let number = |offset| header.i32(offset) as usize;
        let shape = Shape::new(number(parameter::QUERIES), number(parameter::DIM));
        assert_eq!((shape.queries, shape.dim), (number(parameter::QUERIES), number(parameter::DIM)));
        shape
    }

    pub(crate) fn query(lines: &[Line]) -> Query {
        let shape = shape(lines);
        Query { buffer: buffer(lines, PARAMETERS_BYTES + query_bytes(shape)), shape }
    }

    pub(crate) fn block(lines: &[Line], dim: usize) -> Block {
        Block { buffer: buffer(lines, block_bytes(Shape::new(BLOCK, dim))), dim }
    }

    pub(crate) fn tile(lines: &[Line]) -> Tile {
        let shape = shape(lines);
        Tile { buffer: buffer(lines, PARAMETERS_BYTES + query_bytes(shape) + block_bytes(shape)), shape }
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
        pack_block(&mut self.buffer.lines, shape.dim, dim, key, value);
    }

    /// Its bytes.
    #[must_use]
    pub const fn buffer(&self) -> &Buffer {
        &self.buffer
    }
}

/// Eight keys each.
const GROUPS_OF_A_BLOCK: usize = BLOCK / TILE;

/// Packs keys and values, as [`Block::pack`], into the first lines of an object whose stored columns may be more.
///
/// # Panics
/// As [`Block::pack`]; fewer columns, or too few lines.
pub fn pack_block(lines: &mut [Line], stored: usize, dim: usize, key: &[i8], value: &[i8]) {
    assert!(key.len() <= BLOCK * dim && dim <= stored, "a block has 64 keys, and columns for all of a key");
    // Tiles of 8 × 8, a line each: all keys of 8 columns, then those of the next 8. Those of keys are transposed.
    let (key_lines, rest) = lines.split_at_mut(BLOCK * stored / ALIGNMENT);
    let value_lines = &mut rest[..key_lines.len()];
    if key.len() == BLOCK * dim && dim.is_multiple_of(TILE) {
        // Eight rows at a time, each part written where it stays: what is put together elsewhere would be read as wholes too soon
        // after it was written in parts.
        let columns = dim / TILE;
        let (once, twice) = (&mut [0; TILE * MAX_DIM][..TILE * dim], &mut [0; TILE * MAX_DIM][..TILE * dim]);
        for (group, keys) in key.chunks_exact(TILE * dim).enumerate() {
            riffle(keys, once);
            riffle(once, twice);
            riffle(twice, once);
            let lines = key_lines[group..].iter_mut().step_by(GROUPS_OF_A_BLOCK);
            for (line, columns) in lines.zip(once.as_chunks().0) {
                line.0 = *columns;
            }
        }
        for (group, values) in value.chunks_exact(TILE * dim).enumerate() {
            let rows: [&[[i8; TILE]]; TILE] = from_fn(|i| values[i * dim..][..dim].as_chunks().0);
            for column in 0..columns {
                let line = value_lines[column * GROUPS_OF_A_BLOCK + group].0.as_chunks_mut().0;
                for (to, row) in line.iter_mut().zip(rows) {
                    *to = row[column];
                }
            }
        }
        key_lines[columns * GROUPS_OF_A_BLOCK..].fill(Line::ZEROS);
        value_lines[columns * GROUPS_OF_A_BLOCK..].fill(Line::ZEROS);
        return;
    }
    for (at, (key_line, value_line)) in key_lines.iter_mut().zip(value_lines).enumerate() {
        let (column, row) = (at / GROUPS_OF_A_BLOCK * TILE, at % GROUPS_OF_A_BLOCK * TILE);
        *key_line = Line(transposed(tile(key, dim, row, column)));
        value_line.0.copy_from_slice(tile(value, dim, row, column).as_flattened());
    }
}

/// The elements of the first half and those of the second one in turn: three times, and eight rows became columns. Compilers make
/// vectors of this; of the transposition itself in numbers of 64 bits they make worse ones than none.
#[inline(never)]
fn riffle(from: &[i8], to: &mut [i8]) {
    const STEP: usize = 16;
    let (first, second) = from.split_at(from.len() / 2);
    let halves = first.as_chunks::<STEP>().0.iter().zip(second.as_chunks::<STEP>().0);
    for (to, (first, second)) in to.as_chunks_mut().0.as_chunks_mut::<STEP>().0.iter_mut().zip(halves) {
        for ((to, first), second) in to.iter_mut().zip(first).zip(second) {
            *to = [*first, *second];
        }
    }
}

/// A tile of 8 × 8 by its columns: in numbers of 64 bits, halves are swapped, then quarters, then bytes.
fn transposed(rows: [[i8; TILE]; TILE]) -> [i8; TILE * TILE] {
    let mut rows = rows.map(|row| u64::from_le_bytes(row.map(i8::cast_unsigned)));
    let mut swap = |distance: usize, mask: u64| {
        let bits = 8 * distance;
        for first in (0..TILE).filter(|row| row & distance == 0) {
            let second = first + distance;
            let moved = ((rows[first] >> bits) ^ rows[second]) & mask;
            rows[first] ^= moved << bits;
            rows[second] ^= moved;
        }
    };
    swap(4, 0x0000_0000_ffff_ffff);
    swap(2, 0x0000_ffff_0000_ffff);
    swap(1, 0x00ff_00ff_00ff_00ff);
    let columns = rows.map(|row| row.to_le_bytes().map(u8::cast_signed));
    let mut line = [0; TILE * TILE];
    line.copy_from_slice(columns.as_flattened());
    line
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

    /// Keys that were absorbed, a multiple of [`BLOCK`].
    pub(crate) fn next_key(&self) -> i32 {
        self.buffer.i32(state::NEXT_KEY)
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

    #[cfg(test)]
    pub(crate) fn lines(&self) -> &[Line] {
        &self.buffer.lines
    }

    /// Writes the first rows and columns, those of the head, `[queries, dim]`.
    ///
    /// # Panics
    /// More rows or columns than are stored.
    pub fn unpack(&self, dim: usize, out: &mut [i8]) {
        unpack(&self.buffer.lines, self.shape.dim, dim, out);
    }
}

/// Writes the first rows and columns of an output object, those of the head, `[queries, dim]`.
///
/// # Panics
/// More columns than are stored, or too few lines.
pub fn unpack(lines: &[Line], stored: usize, dim: usize, out: &mut [i8]) {
    assert!(dim <= stored, "columns of the object");
    for (i, mut row) in out.chunks_exact_mut(dim).enumerate() {
        // The parts of a row that lie in one line.
        let mut at = i * stored;
        while !row.is_empty() {
            let part = &lines[at / ALIGNMENT].0[at % ALIGNMENT..];
            let (now, rest) = row.split_at_mut(part.len().min(row.len()));
            now.copy_from_slice(&part[..now.len()]);
            at += now.len();
            row = rest;
        }
    }
}

#[cfg(all(test, kernel))]
mod tests {
    #![allow(unsafe_code, reason = "functions in C")]

    use attn_fixed::Scales;

    use super::*;
    use crate::kernel::Kernel;

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
            let mut got = [-1; 25];
            // SAFETY: it writes 24 numbers.
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
                state::NEXT_KEY,
                state::SUM,
                state::REFERENCE,
            ];
            assert_eq!(got[..24], expected.map(|x| x as i32));
            assert_eq!(got[24], -1, "24 numbers");
            for bytes in [query_bytes(shape), block_bytes(shape), state_bytes(shape)] {
                assert_eq!(bytes % ALIGNMENT, 0);
            }
        }
    }

    /// Numbers that tell rows and columns apart, in every shape that an object has, and one that is not a multiple of anything.
    #[test]
    fn elements_lie_where_the_kernel_looks() {
        let number = |i: usize, c: usize, salt: usize| (i * 37 + c * 11 + i * c % 5 + salt) as i8;
        for dim in (8..=MAX_DIM).step_by(8).chain([9, 23, 255]) {
            let parameters =
                Parameters::new(dim, Scales { query: 0.01, key: 0.01, value: 1.0, out: 1.0 }).expect("in range");
            for rows in [1, 4, 13, 60, 64] {
                let [query, key, value] = [1, 2, 3]
                    .map(|salt| (0..rows * dim).map(|at| number(at / dim, at % dim, salt)).collect::<Vec<_>>());
                let (mut queries, mut block) = (Query::default(), Block::default());
                queries.pack(&parameters, &Mask::new(), 0, rows, &query);
                block.pack(dim, &key, &value);
                let Shape { queries: stored_queries, dim: stored } = queries.shape;
                for (i, c) in (0..BLOCK).flat_map(|i| (0..stored).map(move |c| (i, c))) {
                    let expected = |salt| if i < rows && c < dim { number(i, c, salt) } else { 0 };
                    let (i_c, c_c) = (i as i32, c as i32);
                    if i < stored_queries {
                        let at = PARAMETERS_BYTES + attn_host_query_at(i_c, c_c, stored as i32) as usize;
                        assert_eq!(queries.buffer[at], expected(1), "query {i} {c} of {rows} {dim}");
                    }
                    let at = attn_host_key_at(i_c, c_c) as usize;
                    assert_eq!(block.buffer[at], expected(2), "key {i} {c} of {rows} {dim}");
                    let at = BLOCK * stored + attn_host_value_at(i_c, c_c) as usize;
                    assert_eq!(block.buffer[at], expected(3), "value {i} {c} of {rows} {dim}");
                }
            }
        }
    }

    /// Heads in objects of more columns and rows than they have, over memory with something else in it.
    #[test]
    fn kernels_attend_what_is_stored_with_more_columns() {
        let number = |at: usize| ((at * 2_654_435_761) >> 7) as i8;
        for (dim, stored) in [(40, 64), (23, 64), (8, 16), (64, 64), (64, 256), (80, 96)] {
            let scales = Scales { query: 0.02, key: 0.02, value: 1.0, out: 0.5 };
            let parameters = Parameters::new(dim, scales).expect("in range");
            let masks = [Mask::new(), Mask::new().causal(2), Mask::new().valid_keys(5)];
            for (rows, keys, mask) in [1, 13, 60, 64]
                .into_iter()
                .flat_map(|rows| [5, 28, 64, 100].map(|keys| (rows, keys)))
                .flat_map(|(rows, keys)| masks.map(|mask| (rows, keys, mask)))
            {
                let tensor = |rows: usize, salt: usize| (0..rows * dim).map(|at| number(at + salt)).collect::<Vec<_>>();
                let (query, key, value) = (tensor(rows, 1), tensor(keys, 7777), tensor(keys, 99_999));
                let mut expected = vec![0; rows * dim];
                let mut scratch = vec![0; attn_fixed::scratch_len(dim)];
                let inputs = attn_fixed::Inputs { query: &query, key: &key, value: &value };
                attn_fixed::attend(&parameters, inputs, &mask, &mut scratch, &mut expected).expect("in range");

                let mut lines = vec![Line([0x55; ALIGNMENT]); (PARAMETERS_BYTES + 3 * BLOCK * stored) / ALIGNMENT];
                let behind = pack_query(&mut lines, stored, &parameters, &mask, 0, keys, &query);
                for kernel in Kernel::ALL {
                    let Ok(kernel) = kernel.entry_points() else { continue };
                    let mut out = Output::default();
                    let check = |out: &Output, form| {
                        let mut got = vec![0x55; expected.len()];
                        unpack(out.lines(), stored, dim, &mut got);
                        assert_eq!(got, expected, "{form}: {rows} {keys} {dim} {stored} {mask:?} {kernel:?}");
                    };
                    let (query, mut state) = (found::query(&lines), State::default());
                    kernel.start(&query, &mut state);
                    for (key, value) in key.chunks(BLOCK * dim).zip(value.chunks(BLOCK * dim)) {
                        pack_block(&mut lines[behind..], stored, dim, key, value);
                        kernel.absorb(&query, &found::block(&lines[behind..], stored), &mut state);
                    }
                    kernel.finish(&query, &state, &mut out);
                    check(&out, "sequence");
                    if keys <= BLOCK {
                        kernel.tile(&found::tile(&lines), &mut out);
                        check(&out, "tile");
                    }
                }
            }
        }
    }

    /// Both forms, with what was there before behind the parameters.
    #[test]
    fn kernels_find_nothing_to_do_in_empty_objects() {
        for stored in [16, 64, 256] {
            let mut lines = vec![Line([0x55; ALIGNMENT]); (PARAMETERS_BYTES + 3 * BLOCK * stored) / ALIGNMENT];
            let behind = pack_no_query(&mut lines, stored);
            for kernel in Kernel::ALL {
                let Ok(kernel) = kernel.entry_points() else { continue };
                let (query, mut state, mut out) = (found::query(&lines), State::default(), Output::default());
                kernel.tile(&found::tile(&lines), &mut out);
                assert!((0..ROWS * stored).all(|at| out.buffer[at] == 0));
                kernel.start(&query, &mut state);
                kernel.absorb(&query, &found::block(&lines[behind..], stored), &mut state);
                kernel.finish(&query, &state, &mut out);
                assert!((0..ROWS * stored).all(|at| out.buffer[at] == 0));
            }
        }
    }
}
