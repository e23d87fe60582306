//! Several heads: packed once, then attended some queries at a time.

use alloc::vec::Vec;

use attn_fixed::{BLOCK, Head, Heads};

use crate::{
    kernel::{Constants, Group, absorb, finish},
    pack::{Packed, pack_rows},
    simd::{Compiled, MAX_ROWS, Simd},
};

/// Queries of a piece of work; packed keys and values stay in the cache between them.
const QUERIES: usize = 128;

/// The memory of an instruction set's kernel, used again by the next call.
pub(crate) struct Workspace<S: Simd> {
    simd: S,
    /// Keys and values, a head each.
    packed: Vec<Packed<S::V>>,
    /// What a thread works on.
    threads: Vec<Thread<S::V>>,
}

/// Two groups of queries. Every thread of the pool has its own, so that it never waits for the lock.
#[cfg(feature = "std")]
type Thread<V> = std::sync::Mutex<[Group<V>; 2]>;
#[cfg(not(feature = "std"))]
type Thread<V> = [Group<V>; 2];

/// A [`Workspace`] of any instruction set.
pub(crate) trait Kernel: Send + Sync {
    /// Attention over heads that are checked.
    fn attend(&mut self, heads: Heads<'_>, out: &mut [i8], progress: &(dyn Fn(usize) + Sync));
}

impl<S: Simd> Workspace<S> {
    pub(crate) fn new(simd: S) -> Self {
        Self { simd, packed: Vec::new(), threads: Vec::new() }
    }
}

impl<S: Compiled> Kernel for Workspace<S> {
    fn attend(&mut self, heads: Heads<'_>, out: &mut [i8], progress: &(dyn Fn(usize) + Sync)) {
        let Self { simd, packed, threads } = self;
        let simd = *simd;
        let dim = heads.parameters[0].dim();
        let group = heads.parameters.len() / heads.kv_heads;
        if packed.len() < heads.kv_heads {
            packed.resize_with(heads.kv_heads, Packed::new);
        }
        let packed = &mut packed[..heads.kv_heads];
        let pack = |(kv, packed): (usize, &mut Packed<S::V>)| {
            let inputs = heads.head(kv * group).inputs;
            simd.pack(packed, inputs.key, inputs.value, dim);
        };
        let head_len = out.len() / heads.parameters.len();
        let piece = |packed: &Packed<S::V>, thread: &mut [Group<S::V>; 2], h: usize, i: usize, out: &mut [i8]| {
            simd.attend(packed, thread, heads.head(h), i * QUERIES, out);
        };
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
            let on_thread = |h: usize, i: usize, out: &mut [i8]| {
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
pub(crate) fn attend_queries<S: Simd>(
    s: S,
    packed: &Packed<S::V>,
    pair: &mut [Group<S::V>; 2],
    Head { parameters, mask, inputs }: Head<'_>,
    first: usize,
    out: &mut [i8],
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
            finish(s, &constants, group, dim, out);
        }
    }
}
