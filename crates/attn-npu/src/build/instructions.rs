//! The instruction sequence of a dispatch: a header, and operations for the controller of the array.

use std::{error::Error, fmt};

use crate::design::{Design, Device};

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instructions {
    /// Version of the format.
    pub version: (u8, u8),
    /// Generation of the array: 3 for npu1, 4 for npu2.
    pub generation: u8,
    /// Rows of the array.
    pub rows: u8,
    /// Columns that it is for.
    pub columns: u8,
    /// Operations.
    pub operations: u32,
    /// Bytes, header and all.
    pub bytes: u32,
}

/// What is wrong with an instruction sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstructionsError {
    /// Of what.
    pub what: &'static str,
    /// What it is.
    pub got: u64,
    /// What it should be.
    pub expected: u64,
}

/// Words of the header.
const HEADER: usize = 4;

impl Instructions {
    /// Reads the header and compares it with the length of the file.
    ///
    /// # Errors
    /// A length that is no multiple of 4 or less than the header's, or another one than the header says; no operations.
    pub fn parse(bytes: &[u8]) -> Result<Self, InstructionsError> {
        let wrong = |what, got: usize, expected: usize| {
            Err(InstructionsError { what, got: got as u64, expected: expected as u64 })
        };
        let (words, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return wrong("bytes, a multiple of 4", bytes.len(), bytes.len().next_multiple_of(4));
        }
        let &[first, second, operations, size, ..] = words else {
            return wrong("words of the header", words.len(), HEADER);
        };
        let (operations, size) = (u32::from_le_bytes(operations), u32::from_le_bytes(size));
        if size as usize != bytes.len() {
            return wrong("bytes of the file that the header announces", bytes.len(), size as usize);
        }
        if operations == 0 {
            return wrong("operations, at least", 0, 1);
        }
        let [major, minor, generation, rows] = first;
        let columns = second[0];
        Ok(Self { version: (major, minor), generation, rows, columns, operations, bytes: size })
    }

    /// Whether it is for a design's device and columns.
    ///
    /// # Errors
    /// Another device, or fewer columns than the design takes.
    pub fn check(&self, design: &Design) -> Result<(), InstructionsError> {
        let generation = match design.device {
            Device::Npu1 => 3,
            Device::Npu2 => 4,
        };
        let wrong = |what, got: u8, expected: usize| {
            Err(InstructionsError { what, got: got.into(), expected: expected as u64 })
        };
        if self.generation != generation {
            return wrong("generation of the array", self.generation, generation.into());
        }
        if usize::from(self.columns) < design.columns {
            return wrong("columns", self.columns, design.columns);
        }
        Ok(())
    }
}

impl fmt::Display for InstructionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, got, expected } = self;
        write!(f, "{what}: got {got}, expected {expected}")
    }
}

impl Error for InstructionsError {}
