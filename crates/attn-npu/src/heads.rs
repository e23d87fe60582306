//! Several heads: packed into objects, attended, unpacked.

use attn_fixed::{BLOCK, Head, Heads, Inputs, Mask, Output as _, Parameters};

use crate::{
    NpuError, UnsupportedMask,
    kernel::{EntryPoints, Kernel, Unavailable},
    layout::{Block, MAX_QUERIES, Output, Query, State, Tile},
};

/// Attention with one kernel on this CPU, one thread, with the memory that it uses from call to call.
pub struct Attention {
    kernel: Kernel,
    entry_points: EntryPoints,
    /// Keys and values of one head.
    blocks: Vec<Block>,
    objects: Objects,
}

/// Up to [`MAX_QUERIES`] queries of one head, and what becomes of them.
#[derive(Default)]
struct Objects {
    query: Query,
    tile: Tile,
    state: State,
    out: Output,
}

/// Checks that the kernels take these masks: none has a boolean part.
///
/// # Errors
/// The first one that has.
pub fn check_masks(masks: &[Mask<'_>]) -> Result<(), UnsupportedMask> {
    match masks.iter().position(|mask| !mask.is_prefix()) {
        Some(head) => Err(UnsupportedMask { head }),
        None => Ok(()),
    }
}

impl Attention {
    /// Attention with this kernel.
    ///
    /// # Errors
    /// It was not compiled when this crate was.
    pub fn new(kernel: Kernel) -> Result<Self, Unavailable> {
        let entry_points = kernel.entry_points()?;
        Ok(Self { kernel, entry_points, blocks: Vec::new(), objects: Objects::default() })
    }

    /// The kernel.
    #[must_use]
    pub const fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Writes `out`, `[heads, queries, dim]`. `progress` is called with a number of queries that were done.
    ///
    /// # Errors
    /// As [`Heads::check`], or a mask with a boolean part; `out` is then untouched.
    pub fn attend(&mut self, heads: Heads<'_>, out: &mut [i8], progress: &dyn Fn(usize)) -> Result<(), NpuError> {
        self.attend_heads(heads, out, progress)
    }

    /// The same in floats: what the kernel accumulated is divided here, as [`attn_fixed::Output`] specifies it.
    ///
    /// # Errors
    /// As [`attend`](Self::attend).
    pub fn attend_f32(&mut self, heads: Heads<'_>, out: &mut [f32], progress: &dyn Fn(usize)) -> Result<(), NpuError> {
        self.attend_heads(heads, out, progress)
    }

    fn attend_heads<E: Element>(
        &mut self,
        heads: Heads<'_>,
        out: &mut [E],
        progress: &dyn Fn(usize),
    ) -> Result<(), NpuError> {
        heads.check(out.len())?;
        check_masks(heads.masks)?;
        let Self { entry_points, blocks, objects, .. } = self;
        let dim = heads.parameters[0].dim();
        let (group, head_len) = (heads.parameters.len() / heads.kv_heads, out.len() / heads.parameters.len());
        for (h, out) in out.chunks_exact_mut(head_len).enumerate() {
            let Head { parameters, mask, inputs: Inputs { query, key, value } } = heads.head(h);
            let keys = key.len() / dim;
            if h.is_multiple_of(group) {
                blocks.resize_with(keys.div_ceil(BLOCK), Block::default);
                let inputs = key.chunks(BLOCK * dim).zip(value.chunks(BLOCK * dim));
                for (block, (key, value)) in blocks.iter_mut().zip(inputs) {
                    block.pack(dim, key, value);
                }
            }
            let pieces = query.chunks(MAX_QUERIES * dim).zip(out.chunks_mut(MAX_QUERIES * dim));
            for (piece, (query, out)) in pieces.enumerate() {
                let (first, queries) = (piece * MAX_QUERIES, out.len() / dim);
                objects.query.pack(parameters, mask, first, keys, query);
                // The last query sees most.
                let seen = mask.end(first + queries - 1, keys).div_ceil(BLOCK);
                E::attend(entry_points, objects, blocks, seen, parameters, out);
                progress(queries);
            }
        }
        Ok(())
    }
}

impl Objects {
    /// Attends the packed queries a block at a time: the state is then that of the whole sequence.
    fn absorb(&mut self, entry_points: &EntryPoints, blocks: &[Block]) {
        entry_points.start(&self.query, &mut self.state);
        for block in blocks {
            entry_points.absorb(&self.query, block, &mut self.state);
        }
    }
}

/// An element of the output.
trait Element: Sized {
    /// Attends the packed queries to the first `seen` blocks of their head; the others are hidden from all of them. Writes
    /// `out`, `[queries, dim]`.
    fn attend(
        entry_points: &EntryPoints,
        objects: &mut Objects,
        blocks: &[Block],
        seen: usize,
        parameters: &Parameters,
        out: &mut [Self],
    );
}

/// All of it in the kernel: a head of one block is a tile.
impl Element for i8 {
    fn attend(
        entry_points: &EntryPoints,
        objects: &mut Objects,
        blocks: &[Block],
        seen: usize,
        parameters: &Parameters,
        out: &mut [Self],
    ) {
        if let [block] = blocks {
            objects.tile.join(&objects.query, block);
            entry_points.tile(&objects.tile, &mut objects.out);
        } else {
            objects.absorb(entry_points, &blocks[..seen]);
            entry_points.finish(&objects.query, &objects.state, &mut objects.out);
        }
        objects.out.unpack(parameters.dim(), out);
    }
}

impl Element for f32 {
    fn attend(
        entry_points: &EntryPoints,
        objects: &mut Objects,
        blocks: &[Block],
        seen: usize,
        parameters: &Parameters,
        out: &mut [Self],
    ) {
        objects.absorb(entry_points, &blocks[..seen]);
        for (i, out) in out.chunks_exact_mut(parameters.dim()).enumerate() {
            let accumulator: Vec<i32> = objects.state.accumulator(i).collect();
            Self::finish(parameters, &accumulator, objects.state.sum(i), out);
        }
    }
}
