//! What the array of the NPU is to do, and the text that tells mlir-aie.
//!
//! A [`Design`] is a few numbers. [`Design::mlir`] checks them against what the hardware has, and writes the MLIR; the standard
//! ones are committed in `kernels/mlir/`.

mod error;
mod limits;
mod text;

pub use error::DesignError;
pub use limits::Demand;
#[cfg(feature = "runtime")]
pub(crate) use limits::Rounds;

use attn_fixed::BLOCK;

/// An array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// Ryzen AI "Phoenix" and "Hawk Point", XDNA 1: 4 columns of AIE2 cores.
    Npu1,
    /// "Strix", "Krackan", XDNA 2: 8 columns of AIE2P cores. The vector kernel was written for AIE2.
    Npu2,
}

impl Device {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::Npu1, Self::Npu2];

    /// Its name in a description and in mlir-aie.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Npu1 => "npu1",
            Self::Npu2 => "npu2",
        }
    }

    /// Its columns.
    #[must_use]
    pub const fn columns(self) -> usize {
        match self {
            Self::Npu1 => 4,
            Self::Npu2 => 8,
        }
    }

    /// What its cores are compiled for.
    #[must_use]
    pub const fn target(self) -> &'static str {
        match self {
            Self::Npu1 => "aie2-none-unknown-elf",
            Self::Npu2 => "aie2p-none-unknown-elf",
        }
    }
}

/// What one dispatch computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Tiles of 64 queries and at most 64 keys, that have nothing to do with each other: so many for each core.
    Tiles {
        /// Tiles that a core gets one after the other.
        per_core: usize,
    },
    /// Whole heads: each core keeps 64 queries of a head, and the cores of a column see its keys and values pass.
    Sequence {
        /// Heads; each column takes its share of them, one at a time.
        heads: usize,
        /// Queries of a head.
        queries: usize,
        /// Keys of a head.
        keys: usize,
    },
}

/// A program of the array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Design {
    /// The array.
    pub device: Device,
    /// Columns that it takes, from the first one on.
    pub columns: usize,
    /// Cores of each column.
    pub rows: usize,
    /// Stored columns of a head, as objects have them.
    pub dim: usize,
    /// Objects of a kind that a core has room for: 2, so that one is moved while the other is computed.
    pub depth: usize,
    /// What it computes.
    pub form: Form,
}

/// The designs that are committed, by their names.
pub const STANDARD: [(&str, Design); 6] = [
    ("tile-core", Design { columns: 1, rows: 1, form: Form::Tiles { per_core: 1 }, ..ARRAY }),
    ("tile-column", Design { columns: 1, form: Form::Tiles { per_core: 1 }, ..ARRAY }),
    ("tile-array", Design { form: Form::Tiles { per_core: 1 }, ..ARRAY }),
    ("tiles-array", Design { form: Form::Tiles { per_core: 64 }, ..ARRAY }),
    (
        "sequence-core",
        Design { columns: 1, rows: 1, form: Form::Sequence { heads: 1, queries: 64, keys: 1500 }, ..ARRAY },
    ),
    ("whisper-base", Design { form: Form::Sequence { heads: 8, queries: 1500, keys: 1500 }, ..ARRAY }),
];

/// All cores of a "Phoenix", for heads of 64.
const ARRAY: Design =
    Design { device: Device::Npu1, columns: 4, rows: 4, dim: 64, depth: 2, form: Form::Tiles { per_core: 1 } };

impl Design {
    /// The standard design of this name.
    #[must_use]
    pub fn standard(name: &str) -> Option<Self> {
        STANDARD.into_iter().find(|&(standard, _)| standard == name).map(|(_, design)| design)
    }

    /// The program as mlir-aie reads it.
    ///
    /// # Errors
    /// A limit of the hardware that it exceeds.
    pub fn mlir(&self) -> Result<String, DesignError> {
        self.check()?;
        Ok(text::module(self))
    }

    /// The device that mlir-aie and the container name: the array, or a part of it.
    #[must_use]
    pub fn partition(&self) -> String {
        let (name, columns) = (self.device.name(), self.columns);
        if columns == self.device.columns() { name.to_owned() } else { format!("{name}_{columns}col") }
    }

    /// Cores.
    #[must_use]
    pub const fn cores(&self) -> usize {
        self.columns * self.rows
    }

    /// Blocks of 64 that so many queries or keys fill.
    const fn blocks(rows: usize) -> usize {
        rows.div_ceil(BLOCK)
    }
}
