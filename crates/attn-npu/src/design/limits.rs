//! What the hardware has, and what a design takes of it.

use attn_fixed::{BLOCK, MAX_KEYS};

use super::{Design, DesignError, Form};
use crate::layout::{DIM_STEP, MAX_QUERIES, PARAMETERS_BYTES, Shape, block_bytes, query_bytes, state_bytes};

/// Cores of a column, in rows 2 to 5; below them are the memory tile and the shim tile.
pub(super) const CORES_OF_A_COLUMN: usize = 4;

/// Data memory of a core.
const CORE_BYTES: usize = 65_536;

/// Buffer descriptors and locks of a core, of each.
const CORE_DESCRIPTORS: usize = 16;

/// Memory of a memory tile.
const MEMORY_TILE_BYTES: usize = 512 * 1024;

/// Channels of a memory tile, in each direction.
const MEMORY_TILE_CHANNELS: usize = 6;

/// Buffer descriptors of a memory tile.
const MEMORY_TILE_DESCRIPTORS: usize = 48;

/// Buffer descriptors of a shim tile: transfers of a column that are not waited for yet.
const SHIM_DESCRIPTORS: usize = 16;

/// Times that a transfer can be repeated; one more is accepted by the tools, and wraps.
const REPEATS: usize = 64;

/// Heads of a dispatch, more than anybody attends at once: the design writes half a KiB of each.
const MOST_HEADS: usize = 1 << 16;

/// Bytes that the host hands over in one dispatch: a transfer's place in an argument has 32 bits.
const DISPATCH_BYTES: usize = u32::MAX as usize;

/// Words of 32 bits that one transfer can have: its length has 32 bits in bytes.
const TRANSFER_WORDS: usize = 1 << 30;

/// The vector kernel's stack: what it declares (`kernels/README.md`: about 9 KiB for a tile of d = 64, 6 KiB for a sequence, and more for
/// larger dimensions), and half as much again for what the compiler spills, an accumulator at a time. Beyond it are buffers.
pub(super) const fn stack_bytes(design: &Design) -> usize {
    match design.form {
        Form::Tiles { .. } => 10_240 + 96 * design.dim,
        Form::Sequence { .. } => 9_216 + 48 * design.dim,
    }
}

/// The vector kernel's constants, which the linker puts behind the stack.
const CONSTANT_BYTES: usize = 2048;

/// Bytes of the objects of a design.
#[derive(Clone, Copy, Debug)]
pub(super) struct Objects {
    /// Parameters, queries, keys and values; or parameters and queries.
    pub(super) input: usize,
    /// A block of keys and values, of a sequence.
    pub(super) block: usize,
    pub(super) output: usize,
    /// Of a sequence.
    pub(super) state: usize,
}

impl Objects {
    pub(super) const fn of(design: &Design) -> Self {
        let shape = Shape::new(MAX_QUERIES, design.dim);
        let (query, block) = (PARAMETERS_BYTES + query_bytes(shape), block_bytes(shape));
        let output = MAX_QUERIES * design.dim;
        match design.form {
            Form::Tiles { .. } => Self { input: query + block, block: 0, output, state: 0 },
            Form::Sequence { .. } => Self { input: query, block, output, state: state_bytes(shape) },
        }
    }
}

/// The rounds of a sequence design.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rounds {
    /// Heads of a column.
    pub(crate) heads: usize,
    /// Times that a column sees the keys of a head: each time for as many query objects as it has cores.
    pub(crate) passes: usize,
    /// Blocks of a pass.
    pub(crate) blocks: usize,
}

impl Rounds {
    pub(crate) const fn of(design: &Design, heads: usize, queries: usize, keys: usize) -> Self {
        Self {
            heads: heads / design.columns,
            passes: Design::blocks(queries).div_ceil(design.rows),
            blocks: Design::blocks(keys),
        }
    }
}

/// What a dispatch takes of the hardware, as far as it follows from the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Stack, constants and buffers of a core, of 65 536.
    pub core_bytes: usize,
    /// Buffers of a memory tile, of 524 288; 0 where it is not used.
    pub memory_tile_bytes: usize,
    /// What the host hands over, for all columns.
    pub bytes_in: usize,
    /// What it gets back.
    pub bytes_out: usize,
    /// What passes a column's channels into the array, which is more where keys are seen several times.
    pub column_bytes_in: usize,
    /// Blocks of 64 keys that each core attends with 64 queries.
    pub core_blocks: usize,
}

/// Transfers of a head that a column has under way: queries, keys and values, outputs.
pub(super) const TRANSFERS_OF_A_HEAD: usize = 3;

impl Design {
    /// What a dispatch takes of the hardware; of a design that [`check`](Self::check) accepts.
    #[must_use]
    pub const fn demand(&self) -> Demand {
        let &Self { columns, rows, depth, form, .. } = self;
        let Objects { input, block, output, state } = Objects::of(self);
        let core_bytes = stack_bytes(self) + CONSTANT_BYTES + depth * (input + block + output) + state;
        let memory_tile_bytes = if rows > 1 { depth * (rows * (input + output) + block) } else { 0 };
        match form {
            Form::Tiles { per_core } => {
                let tiles = per_core.saturating_mul(rows);
                Demand {
                    core_bytes,
                    memory_tile_bytes,
                    bytes_in: tiles.saturating_mul(columns * input),
                    bytes_out: tiles.saturating_mul(columns * output),
                    column_bytes_in: tiles.saturating_mul(input),
                    core_blocks: per_core,
                }
            }
            Form::Sequence { heads, queries, keys } => {
                let Rounds { heads: per_column, passes, blocks } = Rounds::of(self, heads, queries, keys);
                let (query_bytes, block_bytes) = (passes * rows * input, blocks * block);
                Demand {
                    core_bytes,
                    memory_tile_bytes,
                    bytes_in: heads.saturating_mul(query_bytes + block_bytes),
                    bytes_out: heads.saturating_mul(passes * rows * output),
                    column_bytes_in: per_column.saturating_mul(query_bytes + passes * block_bytes),
                    core_blocks: per_column.saturating_mul(passes * blocks),
                }
            }
        }
    }

    /// Checks the design against every limit of the hardware that is known.
    ///
    /// # Errors
    /// The first limit that it exceeds.
    pub fn check(&self) -> Result<(), DesignError> {
        let within = |limit, got, least, most, change| {
            if (least..=most).contains(&got) { Ok(()) } else { Err(DesignError { limit, got, least, most, change }) }
        };
        let &Self { device, columns, rows, dim, depth, form } = self;
        within("columns", columns, 1, device.columns(), "take another device or fewer columns")?;
        within("cores of a column", rows, 1, CORES_OF_A_COLUMN, "a column has four")?;
        within("stored columns of a head", dim, DIM_STEP, attn_fixed::MAX_DIM, "the kernel takes no other")?;
        if !dim.is_multiple_of(DIM_STEP) {
            let next = dim.next_multiple_of(DIM_STEP);
            let limit = "stored columns of a head, a multiple of 16";
            return Err(DesignError { limit, got: dim, least: next, most: next, change: "round it up" });
        }
        within("objects of a kind in a core", depth, 1, 2, "2 move one while the other is computed")?;
        // Before anything is multiplied with them.
        if let Form::Sequence { heads, queries, keys } = form {
            within("heads", heads, columns, MOST_HEADS, "each column takes a head")?;
            within("queries", queries, 1, MAX_KEYS, "split them over dispatches")?;
            within("keys", keys, 1, MAX_KEYS, "the kernel takes no more")?;
        }

        let objects = Objects::of(self);
        let demand = self.demand();
        let change = "take fewer objects of a kind, or a smaller dimension";
        within("bytes of a core's stack, constants and buffers", demand.core_bytes, 0, CORE_BYTES, change)?;
        // Two locks for each kind of object, one descriptor for each object.
        let kinds = if objects.block == 0 { 2 } else { 3 };
        within("buffer descriptors of a core", kinds * depth, 0, CORE_DESCRIPTORS, change)?;
        within("locks of a core", 2 * kinds, 0, CORE_DESCRIPTORS, change)?;
        if rows > 1 {
            within("bytes of a memory tile", demand.memory_tile_bytes, 0, MEMORY_TILE_BYTES, change)?;
            // Queries or tiles are split, blocks are passed on as they are, outputs are joined.
            let (in_channels, out_channels) = (kinds - 1 + rows, rows + kinds - 1);
            within(
                "channels of a memory tile",
                in_channels.max(out_channels),
                0,
                MEMORY_TILE_CHANNELS,
                "take fewer cores",
            )?;
            let descriptors = depth * (2 * (rows + rows) + 2 * (kinds - 2));
            within("buffer descriptors of a memory tile", descriptors, 0, MEMORY_TILE_DESCRIPTORS, change)?;
        }

        match form {
            Form::Tiles { per_core } => {
                within("tiles of a core", per_core, 1, usize::MAX, "a dispatch computes something")?;
                let words = per_core.saturating_mul(rows * objects.input / 4);
                within("32-bit words of a transfer", words, 1, TRANSFER_WORDS, "take fewer tiles")?;
                within("bytes of a dispatch", demand.bytes_in, 0, DISPATCH_BYTES, "take fewer tiles")?;
            }
            Form::Sequence { heads, queries, keys } => {
                if !heads.is_multiple_of(columns) {
                    let (limit, most) = ("heads, a multiple of the columns", heads.next_multiple_of(columns));
                    return Err(DesignError { limit, got: heads, least: most, most, change: "take other columns" });
                }
                let rounds = Rounds::of(self, heads, queries, keys);
                let change = "take more cores of a column, or split the queries over dispatches";
                within("passes of a head's keys", rounds.passes, 1, REPEATS, change)?;
                let words = (rounds.passes * rows * objects.input).max(rounds.blocks * objects.block) / 4;
                within("32-bit words of a transfer", words, 1, TRANSFER_WORDS, "split the sequence over dispatches")?;
                within("bytes of a dispatch", demand.bytes_in, 0, DISPATCH_BYTES, "take fewer heads")?;
                within("buffer descriptors of a shim tile", 2 * TRANSFERS_OF_A_HEAD, 0, SHIM_DESCRIPTORS, "")?;
            }
        }
        const { assert!(BLOCK == MAX_QUERIES, "an object has as many queries as a block has keys") };
        Ok(())
    }
}
