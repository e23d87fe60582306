//! What the algorithm asks of an instruction set.

use attn_fixed::{Head, QuantiseError};

use crate::{
    kernel::{Element, Group},
    pack::Packed,
};

/// Most rows of a vector.
pub(crate) const MAX_ROWS: usize = 16;

/// A vector instruction set, and the proof that the CPU has it: there is a value only where it has.
///
/// A vector `V` has [`ROWS`](Self::ROWS) lanes of 32 bits, one for each query row. As 16-bit lanes it holds two keys of
/// each row, in the order of [`pack_u32`](Self::pack_u32). Every method is one instruction or a few; they wrap around
/// and never panic.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// A vector.
    type V: Copy + Send + Sync;

    /// Query rows of a vector, 8 or 16.
    const ROWS: usize;

    /// Whether there are 32 vector registers, not 16.
    const MANY_REGISTERS: bool;

    /// Elements of a row that [`dot`](Self::dot) multiplies in a lane: four bytes, or two 16-bit integers.
    const DEPTH: usize;

    /// What is added to an element of a query: 128 where `dot` takes unsigned bytes.
    const BIAS: i32;

    /// The first lanes of at least [`ROWS`](Self::ROWS).
    fn load(self, from: &[i32; MAX_ROWS]) -> Self::V;
    /// Into the first lanes.
    fn store(self, v: Self::V, to: &mut [i32; MAX_ROWS]);
    fn splat(self, x: i32) -> Self::V;
    fn splat16(self, x: i16) -> Self::V;
    /// One lane, below [`ROWS`](Self::ROWS), of a vector in memory in every lane.
    fn broadcast(self, v: &Self::V, lane: usize) -> Self::V;

    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// The low 32 bits of the products.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    fn and(self, a: Self::V, b: Self::V) -> Self::V;
    fn or(self, a: Self::V, b: Self::V) -> Self::V;
    fn xor(self, a: Self::V, b: Self::V) -> Self::V;
    /// Zeros shifted in, the same count for every lane, 0 to 31.
    fn shr(self, a: Self::V, count: u32) -> Self::V;
    fn shl(self, a: Self::V, count: u32) -> Self::V;
    /// A count for each lane, 0 to 31.
    fn shlv(self, a: Self::V, counts: Self::V) -> Self::V;
    /// The sign shifted in, a count for each lane, 0 to 31.
    fn sarv(self, a: Self::V, counts: Self::V) -> Self::V;
    /// All bits set where `a > b`, none elsewhere.
    fn gt(self, a: Self::V, b: Self::V) -> Self::V;
    fn eq(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a` where the mask's bits are set, `b` elsewhere.
    fn select(self, mask: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// One bit for each lane whose sign is set.
    fn signs(self, a: Self::V) -> u32;

    /// Two vectors of 32-bit lanes as one of 16-bit lanes, saturated to 0..=65535.
    fn pack_u32(self, a: Self::V, b: Self::V) -> Self::V;
    /// Two masks as one of 16-bit lanes, in the same order.
    fn pack_mask(self, a: Self::V, b: Self::V) -> Self::V;
    fn add16(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub16(self, a: Self::V, b: Self::V) -> Self::V;
    /// The high halves of unsigned products.
    fn mulhi_u16(self, a: Self::V, b: Self::V) -> Self::V;
    /// `(a * b + 2^14) >> 15`
    fn mulhrs(self, a: Self::V, b: Self::V) -> Self::V;
    /// Zeros shifted in, one count for all lanes, 0 to 15.
    fn shl16(self, a: Self::V, count: u32) -> Self::V;
    /// `a >> (octaves >> 11)`, zeros shifted in: 0 from 15 on. `a` is not negative.
    fn shr_octaves(self, a: Self::V, octaves: Self::V) -> Self::V;
    fn gt16(self, a: Self::V, b: Self::V) -> Self::V;
    /// The two unsigned 16-bit lanes of each row added up.
    fn sum_pairs(self, a: Self::V) -> Self::V;

    /// 16-bit lanes 0..=255 of four keys, two in `a` and two in `b`, as four bytes in the lane of their row.
    fn pack_bytes(self, a: Self::V, b: Self::V) -> Self::V;
    /// The same as `4 / DEPTH` vectors for [`dot`](Self::dot), written one behind the other.
    fn store_probabilities(self, a: Self::V, b: Self::V, to: &mut [Self::V]);
    /// `sums + Σ a·b` of the `DEPTH` elements of a lane; `b` is signed.
    fn dot(self, sums: Self::V, a: Self::V, b: Self::V) -> Self::V;

    /// The next `DEPTH · ROWS` elements of a row, `DEPTH` to a lane.
    fn elements(self, from: &[i8]) -> Self::V;
    /// Lane `i` of vector `j` and lane `j` of vector `i` change places, in the first [`ROWS`](Self::ROWS) vectors.
    fn transpose(self, square: &mut [Self::V; MAX_ROWS]);
    /// Four columns of 32-bit lanes, saturated to int8, as four bytes in the lane of their row.
    fn pack_i8(self, columns: [Self::V; 4]) -> Self::V;
    /// The bits of floats that are the integers, rounded to nearest.
    fn floats(self, a: Self::V) -> Self::V;
    /// Products of floats, `ROWS` at a time.
    fn mul_floats(self, a: Self::V, b: Self::V) -> Self::V;
    /// Floats that are not NaN, infinite ones as the largest.
    fn finite(self, a: Self::V) -> Self::V;
    /// All floats of a vector, `ROWS`.
    fn store_floats(self, v: Self::V, to: &mut [f32]);
    /// All bytes of a vector, `4 · ROWS`.
    fn store_bytes(self, v: Self::V, to: &mut [i8]);
}

/// The algorithm compiled with an instruction set.
pub(crate) trait Compiled: Simd {
    /// [`Packed::pack`]
    fn pack(self, packed: &mut Packed<Self::V>, key: &[i8], value: &[i8], dim: usize);

    /// [`attend_queries`](crate::heads::attend_queries)
    fn attend<E: Element>(
        self,
        packed: &Packed<Self::V>,
        groups: &mut [Group<Self::V>; 2],
        head: Head<'_>,
        first: usize,
        out: &mut [E],
    );

    /// [`attend_rows`](crate::row::attend_rows)
    fn attend_rows<E: Element>(self, head: Head<'_>, out: &mut [E]);

    /// [`attn_fixed::quantise::largest`]
    fn largest(self, values: &[f32]) -> Result<f32, QuantiseError>;

    /// [`attn_fixed::quantise::fill`]
    fn fill(self, values: &[f32], scale: f32, quantised: &mut [i8]);
}
