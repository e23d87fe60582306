//! Several heads: packed once, then attended some queries at a time.

use alloc::vec::Vec;

use attn_fixed::{BLOCK, FloatError, FloatHeads, Head, Heads, Inputs, Parameters, Scales, Tensor, quantise};

use crate::{
    kernel::{Constants, Element, Group, absorb},
    pack::{Packed, pack_rows},
    simd::{Compiled, MAX_ROWS, Simd},
};

/// Queries of a piece of work; packed keys and values stay in the cache between them.
const QUERIES: usize = 128;

/// Keys and values are not packed for so few queries.
const FEW: usize = 4;

/// The memory of an instruction set's kernel, used again by the next call.
pub(crate) struct Workspace<S: Simd> {
    simd: S,
    attention: Memory<S::V>,
    quantised: Quantised,
}

struct Memory<V> {
    /// Keys and values, a head each.
    packed: Vec<Packed<V>>,
    /// What a thread works on.
    threads: Vec<Thread<V>>,
}

/// Two groups of queries. Every thread of the pool has its own, so that it never waits for the lock.
#[cfg(feature = "std")]
type Thread<V> = std::sync::Mutex<[Group<V>; 2]>;
#[cfg(not(feature = "std"))]
type Thread<V> = [Group<V>; 2];

/// Floats as integers: query, key and value.
#[derive(Default)]
struct Quantised {
    tensors: [Vec<i8>; 3],
    /// One for each head of the tensor.
    scales: [Vec<f32>; 3],
    parameters: Vec<Parameters>,
}

/// A [`Workspace`] of any instruction set.
pub(crate) trait Kernel: Send + Sync {
    /// Attention over heads that are checked.
    fn attend(&mut self, heads: Heads<'_>, out: &mut [i8], progress: &(dyn Fn(usize) + Sync));

    /// Attention over heads whose shapes are checked.
    fn attend_f32(
        &mut self,
        heads: FloatHeads<'_>,
        out: &mut [f32],
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<(), FloatError>;
}

impl<S: Simd> Workspace<S> {
    pub(crate) fn new(simd: S) -> Self {
        Self { simd, attention: Memory { packed: Vec::new(), threads: Vec::new() }, quantised: Quantised::default() }
    }
}

impl<S: Compiled> Kernel for Workspace<S> {
    fn attend(&mut self, heads: Heads<'_>, out: &mut [i8], progress: &(dyn Fn(usize) + Sync)) {
        self.attention.attend(self.simd, heads, out, progress);
    }

    fn attend_f32(
        &mut self,
        heads: FloatHeads<'_>,
        out: &mut [f32],
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<(), FloatError> {
        let heads = self.quantised.quantise(self.simd, heads)?;
        self.attention.attend(self.simd, heads, out, progress);
        Ok(())
    }
}

impl Quantised {
    fn quantise<'a, S: Compiled>(&'a mut self, simd: S, heads: FloatHeads<'a>) -> Result<Heads<'a>, FloatError> {
        let Self { tensors, scales, parameters } = self;
        let floats = heads.tensors();
        for ((_, values, count), (tensor, scales)) in floats.into_iter().zip(tensors.iter_mut().zip(&mut *scales)) {
            tensor.resize(values.len(), 0);
            scales.resize(count, 0.0);
        }
        #[cfg(feature = "std")]
        let result = if rayon::current_num_threads() == 1 {
            one_by_one(simd, floats, tensors, scales)
        } else {
            on_all_threads(simd, floats, tensors, scales)
        };
        #[cfg(not(feature = "std"))]
        let result = one_by_one(simd, floats, tensors, scales);
        // What a thread met need not be the first of its kind.
        result.map_err(|error| heads.not_finite().unwrap_or(error))?;

        let [query, key, value] = &*scales;
        let group = query.len() / heads.kv_heads;
        parameters.clear();
        for (h, &query) in query.iter().enumerate() {
            let (key, value) = (key[h / group], value[h / group]);
            // An output in floats has no scale: any will do.
            parameters.push(Parameters::new(heads.dim, Scales { query, key, value, out: value })?);
        }
        let [query, key, value] = &*tensors;
        let inputs = Inputs { query, key, value };
        Ok(Heads { parameters, masks: heads.masks, kv_heads: heads.kv_heads, inputs })
    }
}

/// Quantises tensors, `[heads, rows, dim]`, a head at a time.
fn one_by_one<S: Compiled>(
    simd: S,
    floats: [(Tensor, &[f32], usize); 3],
    tensors: &mut [Vec<i8>; 3],
    scales: &mut [Vec<f32>; 3],
) -> Result<(), FloatError> {
    for ((tensor, values, count), (quantised, scales)) in floats.into_iter().zip(tensors.iter_mut().zip(scales)) {
        let len = values.len() / count;
        let heads = values.chunks_exact(len).zip(quantised.chunks_exact_mut(len));
        for ((values, quantised), scale) in heads.zip(scales) {
            let largest = simd.largest(values).map_err(|error| FloatError::Quantise { tensor, error })?;
            *scale = quantise::scale_of(largest);
            simd.fill(values, *scale, quantised);
        }
    }
    Ok(())
}

/// The same, every head in pieces.
#[cfg(feature = "std")]
fn on_all_threads<S: Compiled>(
    simd: S,
    floats: [(Tensor, &[f32], usize); 3],
    tensors: &mut [Vec<i8>; 3],
    scales: &mut [Vec<f32>; 3],
) -> Result<(), FloatError> {
    use rayon::prelude::*;

    /// Elements: 64 kB of floats, some microseconds of work.
    const PIECE: usize = 1 << 14;

    let tensors = floats.into_par_iter().zip(tensors.par_iter_mut().zip(scales));
    tensors.try_for_each(|((tensor, values, count), (quantised, scales))| {
        let len = values.len() / count;
        let heads = values.par_chunks_exact(len).zip(quantised.par_chunks_exact_mut(len));
        heads.zip(scales).try_for_each(|((values, quantised), scale)| {
            let pieces = values.par_chunks(PIECE).map(|values| simd.largest(values));
            let largest = pieces.try_reduce(|| 0.0, |a, b| Ok(a.max(b)));
            *scale = quantise::scale_of(largest.map_err(|error| FloatError::Quantise { tensor, error })?);
            let pieces = values.par_chunks(PIECE).zip(quantised.par_chunks_mut(PIECE));
            pieces.for_each(|(values, quantised)| simd.fill(values, *scale, quantised));
            Ok(())
        })
    })
}

impl<V: Copy + Send + Sync> Memory<V> {
    fn attend<S: Compiled<V = V>, E: Element>(
        &mut self,
        simd: S,
        heads: Heads<'_>,
        out: &mut [E],
        progress: &(dyn Fn(usize) + Sync),
    ) {
        let Self { packed, threads } = self;
        let dim = heads.parameters[0].dim();
        let group = heads.parameters.len() / heads.kv_heads;
        if packed.len() < heads.kv_heads {
            packed.resize_with(heads.kv_heads, Packed::new);
        }
        let packed = &mut packed[..heads.kv_heads];
        let pack = |(kv, packed): (usize, &mut Packed<V>)| {
            let inputs = heads.head(kv * group).inputs;
            simd.pack(packed, inputs.key, inputs.value, dim);
        };
        let head_len = out.len() / heads.parameters.len();
        let piece = |packed: &Packed<V>, thread: &mut [Group<V>; 2], h: usize, i: usize, out: &mut [E]| {
            simd.attend(packed, thread, heads.head(h), i * QUERIES, out);
        };
        if group * head_len <= FEW * dim {
            let one = |(h, out): (usize, &mut [E])| {
                simd.attend_rows(heads.head(h), out);
                progress(out.len() / dim);
            };
            #[cfg(feature = "std")]
            if rayon::current_num_threads() > 1 {
                use rayon::prelude::*;
                out.par_chunks_exact_mut(head_len).enumerate().for_each(one);
                return;
            }
            out.chunks_exact_mut(head_len).enumerate().for_each(one);
            return;
        }
        let new = || [0, 1].map(|_| Group::new(simd));

        #[cfg(feature = "std")]
        {
            use rayon::prelude::*;
            use std::sync::PoisonError;

            let count = rayon::current_num_threads();
            threads.resize_with(count.max(threads.len()), || new().into());
            for thread in threads.iter_mut() {
                for group in thread.get_mut().unwrap_or_else(PoisonError::into_inner) {
                    group.resize(simd, dim);
                }
            }
            if count == 1 {
                packed.iter_mut().enumerate().for_each(pack);
            } else {
                packed.par_iter_mut().enumerate().for_each(pack);
            }
            let packed = &*packed;
            let on_thread = |h: usize, i: usize, out: &mut [E]| {
                let thread = &threads[rayon::current_thread_index().unwrap_or(0)];
                piece(&packed[h / group], &mut thread.lock().unwrap_or_else(PoisonError::into_inner), h, i, out);
                // Not under the lock: it may wait for the pool, which may then give this thread another piece.
                progress(out.len() / dim);
            };
            // One thread does the work itself, without the way into the pool.
            if count == 1 {
                for (h, out) in out.chunks_exact_mut(head_len).enumerate() {
                    for (i, out) in out.chunks_mut(QUERIES * dim).enumerate() {
                        on_thread(h, i, out);
                    }
                }
            } else {
                out.par_chunks_exact_mut(head_len).enumerate().for_each(|(h, out)| {
                    out.par_chunks_mut(QUERIES * dim).enumerate().for_each(|(i, out)| on_thread(h, i, out));
                });
            }
        }
        #[cfg(not(feature = "std"))]
        {
            threads.resize_with(1, new);
            let thread = &mut threads[0];
            for group in &mut *thread {
                group.resize(simd, dim);
            }
            packed.iter_mut().enumerate().for_each(pack);
            for (h, out) in out.chunks_exact_mut(head_len).enumerate() {
                for (i, out) in out.chunks_mut(QUERIES * dim).enumerate() {
                    piece(&packed[h / group], thread, h, i, out);
                    progress(out.len() / dim);
                }
            }
        }
    }
}

/// Attends some queries of a head, from `first` on.
#[inline(always)]
pub(crate) fn attend_queries<S: Simd, E: Element>(
    s: S,
    packed: &Packed<S::V>,
    pair: &mut [Group<S::V>; 2],
    Head { parameters, mask, inputs }: Head<'_>,
    first: usize,
    out: &mut [E],
) {
    let dim = parameters.dim();
    let constants = Constants::new(parameters);
    let half = S::ROWS * dim;
    // 128 in every byte.
    let bias = s.splat(if S::BIAS == 0 { 0 } else { 0x8080_8080_u32 as i32 });
    let query = &inputs.query[first * dim..][..out.len()];
    for (i, (query, out)) in query.chunks(2 * half).zip(out.chunks_mut(2 * half)).enumerate() {
        let groups = &mut pair[..out.len().div_ceil(half)];
        for (group, query) in groups.iter_mut().zip(query.chunks(half)) {
            group.start(s);
            // Rows that there are not have queries of zero: what was there before could make them dominated.
            pack_rows(s, query, dim, bias, &mut group.query);
        }
        let first = first + i * 2 * S::ROWS;
        // The last query sees most, but for a boolean mask.
        let end = mask.end(first + out.len() / dim - 1, packed.keys);
        for block in 0..end.div_ceil(BLOCK) {
            let from = block * BLOCK;
            let keys = (packed.keys - from).min(BLOCK);
            // The first query sees least of a mask without a boolean part.
            let masked = constants.is_steep() || !mask.is_prefix() || mask.block(first, from, keys) != u64::MAX;
            if masked {
                for (g, group) in groups.iter_mut().enumerate() {
                    let mut seen = [[0; MAX_ROWS]; 2];
                    for r in 0..S::ROWS {
                        let visible = mask.block(first + g * S::ROWS + r, from, keys);
                        seen[0][r] = visible as i32;
                        seen[1][r] = (visible >> 32) as i32;
                    }
                    group.seen = [s.load(&seen[0]), s.load(&seen[1])];
                }
            }
            absorb(s, &constants, groups, packed, block, masked);
        }
        for (group, out) in groups.iter().zip(out.chunks_mut(half)) {
            E::write_rows(s, &constants, group, dim, out);
        }
    }
}
