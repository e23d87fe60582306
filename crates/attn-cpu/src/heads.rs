//! Several heads: packed once, then attended some queries at a time.

use attn_fixed::{BLOCK, Head, Heads};

use crate::{
    Attention,
    kernel::{Constants, Group, MAX_ROWS, absorb, finish},
    pack::{Packed, lanes},
    simd::Simd,
};

/// Queries of a piece of work; packed keys and values stay in the cache between them.
const QUERIES: usize = 128;

/// What is compiled for an instruction set.
pub(crate) struct Compiled<S> {
    pub(crate) simd: S,
    pub(crate) pack: fn(S, &mut Packed, &[i8], &[i8], usize),
    /// Some queries of a head, from this one on, and where their output goes.
    pub(crate) attend: fn(S, &Packed, &mut [Group; 2], Head<'_>, usize, &mut [i8]),
}

/// Attention over heads that are checked.
pub(crate) fn attend<S: Simd + Send + Sync>(
    compiled: &Compiled<S>,
    attention: &mut Attention,
    heads: Heads<'_>,
    out: &mut [i8],
    progress: &(dyn Fn(usize) + Sync),
) {
    let dim = heads.parameters[0].dim();
    let group = heads.parameters.len() / heads.kv_heads;
    let Attention { packed, threads, .. } = attention;
    if packed.len() < heads.kv_heads {
        packed.resize_with(heads.kv_heads, Packed::default);
    }
    let packed = &mut packed[..heads.kv_heads];
    let pack = |(kv, packed): (usize, &mut Packed)| {
        let inputs = heads.head(kv * group).inputs;
        (compiled.pack)(compiled.simd, packed, inputs.key, inputs.value, dim);
    };
    let head_len = out.len() / heads.parameters.len();
    let piece = |packed: &Packed, thread: &mut [Group; 2], h: usize, i: usize, out: &mut [i8]| {
        (compiled.attend)(compiled.simd, packed, thread, heads.head(h), i * QUERIES, out);
    };
    let new = || [0, 1].map(|_| Group::new::<S>(dim));

    #[cfg(feature = "std")]
    {
        use rayon::prelude::*;
        use std::sync::PoisonError;

        let count = rayon::current_num_threads();
        threads.resize_with(count.max(threads.len()), || new().into());
        for thread in threads.iter_mut() {
            for group in thread.get_mut().unwrap_or_else(PoisonError::into_inner) {
                group.resize::<S>(dim);
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
            group.resize::<S>(dim);
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

/// Attends some queries of a head, from `first` on.
#[inline(always)]
pub(crate) fn attend_queries<S: Simd>(
    s: S,
    packed: &Packed,
    pair: &mut [Group; 2],
    Head { parameters, mask, inputs }: Head<'_>,
    first: usize,
    out: &mut [i8],
) {
    let dim = parameters.dim();
    let constants = Constants::new(parameters);
    let half = S::ROWS * dim;
    let query = &inputs.query[first * dim..][..out.len()];
    for (i, (query, out)) in query.chunks(2 * half).zip(out.chunks_mut(2 * half)).enumerate() {
        for (group, query) in pair.iter_mut().zip(query.chunks(half)) {
            group.start();
            pack_query::<S>(query, dim, &mut group.query);
        }
        let first = first + i * 2 * S::ROWS;
        let both = out.len() > half;
        // The last query sees most, but for a boolean mask.
        let end = mask.end(first + out.len() / dim - 1, packed.keys);
        for block in 0..end.div_ceil(BLOCK) {
            let from = block * BLOCK;
            let keys = (packed.keys - from).min(BLOCK);
            // The first query sees least of a mask without a boolean part.
            let masked = !mask.is_prefix() || mask.block(first, from, keys) != u64::MAX;
            for (g, group) in pair.iter_mut().enumerate() {
                group.seen = [[-1; MAX_ROWS]; 2];
                if masked {
                    for r in 0..S::ROWS {
                        let visible = mask.block(first + g * S::ROWS + r, from, keys);
                        group.seen[0][r] = visible as i32;
                        group.seen[1][r] = (visible >> 32) as i32;
                    }
                }
            }
            if both && S::GROUPS == 2 {
                absorb::<S, 2>(s, &constants, pair, packed, block, masked);
            } else {
                for group in &mut pair[..=usize::from(both)] {
                    absorb::<S, 1>(s, &constants, core::array::from_mut(group), packed, block, masked);
                }
            }
        }
        for (group, out) in pair.iter().zip(out.chunks_mut(half)) {
            finish(s, &constants, group, dim, out);
        }
    }
}

/// Rows in lanes, each element plus the bias.
#[inline(always)]
fn pack_query<S: Simd>(query: &[i8], dim: usize, to: &mut [i32]) {
    // 128 in every byte.
    let bias = if S::BIAS == 0 { 0 } else { 0x8080_8080 };
    if query.len() < S::ROWS * dim {
        // Rows that there are not have queries of zero: what was there before could make them dominated.
        to.fill(bias as i32);
    }
    for (r, row) in query.chunks_exact(dim).enumerate() {
        lanes::<S>(row, |step, lane| to[step * S::ROWS + r] = (lane ^ bias) as i32);
    }
}
