//! The instruction sequence of a dispatch: a header, and operations for the controller of the array.

use std::{error::Error, fmt};

use crate::design::{Design, Device};

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instructions {
    /// Version of the format.
    pub version: (u8, u8),
    /// Generation of the array.
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

    /// The name of the device that it is for, if that is known.
    #[must_use]
    pub fn device(&self) -> Option<&'static str> {
        Device::ALL.into_iter().find(|&device| generation(device) == self.generation).map(Device::name)
    }

    /// Whether it is for a design's device and columns.
    ///
    /// # Errors
    /// Another device, or another number of columns than that of the design's part of it.
    pub fn check(&self, design: &Design) -> Result<(), InstructionsError> {
        let wrong = |what, got: u8, expected: usize| {
            Err(InstructionsError { what, got: got.into(), expected: expected as u64 })
        };
        let expected = generation(design.device);
        if self.generation != expected {
            return wrong("generation of the array", self.generation, expected.into());
        }
        if usize::from(self.columns) != design.columns {
            return wrong("columns", self.columns, design.columns);
        }
        Ok(())
    }
}

/// The number that a header has for an array.
const fn generation(device: Device) -> u8 {
    match device {
        Device::Npu1 => 3,
        Device::Npu2 => 4,
    }
}

impl fmt::Display for InstructionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, got, expected } = self;
        write!(f, "{what}: got {got}, expected {expected}")
    }
}

impl Error for InstructionsError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sequence with this header and nothing else of use.
    fn sequence(generation: u8, columns: u8, operations: u8, size: u8, bytes: usize) -> Vec<u8> {
        let mut sequence = vec![0, 1, generation, 6, columns, 1, 0, 0, operations, 0, 0, 0, size, 0, 0, 0];
        sequence.resize(bytes, 0);
        sequence
    }

    #[test]
    fn what_is_wrong_is_said() {
        let design = Design::standard("tile-core").expect("a design");
        for (sequence, expected) in [
            (vec![], "words of the header: got 0, expected 4"),
            (sequence(3, 1, 1, 12, 12), "words of the header: got 3, expected 4"),
            (sequence(3, 1, 1, 20, 21), "bytes, a multiple of 4: got 21, expected 24"),
            (sequence(3, 1, 1, 20, 24), "bytes of the file that the header announces: got 24, expected 20"),
            (sequence(3, 1, 0, 20, 20), "operations, at least: got 0, expected 1"),
            (sequence(4, 1, 1, 20, 20), "generation of the array: got 4, expected 3"),
            (sequence(3, 0, 1, 20, 20), "columns: got 0, expected 1"),
            (sequence(3, 4, 1, 20, 20), "columns: got 4, expected 1"),
        ] {
            let error = Instructions::parse(&sequence).and_then(|header| header.check(&design)).expect_err(expected);
            assert_eq!(error.to_string(), expected);
        }
        let header = Instructions::parse(&sequence(3, 1, 1, 20, 20)).expect("a sequence");
        assert_eq!(header.check(&design), Ok(()));
        assert_eq!(header.device(), Some("npu1"));
    }

    #[test]
    fn recorded_ones_are_for_their_designs() {
        for (name, operations) in [("tile-core", 8), ("whisper-base", 88)] {
            let file = format!("{}/../../tests/npu/recorded/{name}.insts.bin", env!("CARGO_MANIFEST_DIR"));
            let header = Instructions::parse(&std::fs::read(file).expect("a recorded sequence")).expect("a sequence");
            assert_eq!(header.check(&Design::standard(name).expect("a design")), Ok(()));
            assert_eq!((header.version, header.rows, header.operations), ((0, 1), 6, operations));
        }
    }
}
