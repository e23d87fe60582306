//! The instruction sequence of a dispatch: a header, and operations for the controller of the array.

use std::{collections::BTreeMap, error::Error, fmt};

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

/// Where a shim tile has its descriptors: words, of which the first one is a transfer's length and the second one its address.
const DESCRIPTOR: u32 = 0x1d000;

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

    /// Bytes of each argument of the design that transfers reach: a buffer is to be no smaller.
    ///
    /// # Errors
    /// As [`parse`](Self::parse); an operation that designs do not have, or that goes beyond the sequence.
    pub fn reach(bytes: &[u8]) -> Result<Vec<u64>, InstructionsError> {
        Self::parse(bytes)?;
        let words: Vec<u32> = bytes.as_chunks().0.iter().copied().map(u32::from_le_bytes).collect();
        let mut lengths = BTreeMap::new();
        let mut reach = Vec::new();
        let mut rest = &words[HEADER..];
        while let Some(&kind) = rest.first() {
            let wrong = || InstructionsError {
                what: "words of operations that designs have",
                got: (words.len() - rest.len()) as u64,
                expected: words.len() as u64,
            };
            // Where an operation says how long it is.
            let length = match kind & 255 {
                0 => rest.get(5),
                1 => rest.get(3),
                3 => rest.get(6),
                128 | 129 => rest.get(1),
                _ => None,
            };
            let length = length.map(|&bytes| bytes as usize / 4).filter(|length| (4..=rest.len()).contains(length));
            let (operation, others) = rest.split_at(length.ok_or_else(wrong)?);
            match (kind & 255, operation) {
                // A descriptor is written, by its address.
                (1, &[_, _, address, _, length, ..]) => _ = lengths.insert(address, length),
                // Its address is that of an argument, and so much.
                (129, &[_, _, _, _, _, _, address, _, argument, _, offset, ..]) => {
                    let descriptor = address.wrapping_sub(4);
                    let is_descriptor = (descriptor & 0x1ff_ffff).wrapping_sub(DESCRIPTOR) < 0x200;
                    let length =
                        lengths.get(&descriptor).filter(|_| is_descriptor && argument < 8).ok_or_else(wrong)?;
                    let argument = argument as usize;
                    reach.resize(reach.len().max(argument + 1), 0);
                    reach[argument] = reach[argument].max(u64::from(offset) + 4 * u64::from(*length));
                }
                (1 | 129, _) => return Err(wrong()),
                _ => {}
            }
            rest = others;
        }
        Ok(reach)
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
        let layer = [8 * 24 * 4160, 8 * 24 * 8192, 8 * 24 * 4096];
        for (name, operations, reach) in [("tile-core", 8, &[12_352, 4096][..]), ("whisper-base", 88, &layer)] {
            let file = format!("{}/../../tests/npu/recorded/{name}.insts.bin", env!("CARGO_MANIFEST_DIR"));
            let bytes = std::fs::read(file).expect("a recorded sequence");
            let header = Instructions::parse(&bytes).expect("a sequence");
            assert_eq!(Instructions::reach(&bytes).expect("operations of a design"), reach);
            assert_eq!(header.check(&Design::standard(name).expect("a design")), Ok(()));
            assert_eq!((header.version, header.rows, header.operations), ((0, 1), 6, operations));
        }
    }
}
