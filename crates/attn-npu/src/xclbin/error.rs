//! Why a file is not read.

use std::{error::Error, fmt};

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XclbinError {
    /// It is another kind of file.
    NotAnXclbin {
        /// Its first bytes, at most 8.
        start: Vec<u8>,
    },
    /// It is cut off, or something was appended to it.
    Length {
        /// Bytes of the file.
        got: u64,
        /// Bytes that its header says it has, or that a header has.
        expected: u64,
    },
    /// A part is not where it is said to be.
    Range {
        /// What it should lie in.
        whole: &'static str,
        /// Bytes of that.
        room: u64,
        /// The part.
        part: &'static str,
        /// Where it is said to start, in bytes.
        offset: u64,
        /// Elements that it is said to have.
        count: u64,
        /// Bytes of an element.
        size: usize,
    },
    /// Parts of the partition lie one upon the other.
    Overlap {
        /// The part that was read last.
        part: &'static str,
        /// Bytes of all that was read, with it.
        got: u64,
        /// Bytes of the section.
        room: u64,
    },
    /// A name of the partition without an end.
    Name {
        /// Where it starts in the section, in bytes.
        offset: u32,
    },
    /// The kernels' XML is not as expected.
    Kernels {
        /// Where in the section, in bytes.
        offset: usize,
        /// What is there, the first characters of much.
        got: String,
        /// What should be.
        expected: &'static str,
    },
}

impl fmt::Display for XclbinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnXclbin { start } if start.is_empty() => f.write_str("the file is empty, expected an xclbin"),
            Self::NotAnXclbin { start } => {
                write!(f, "not an xclbin: it starts with \"{}\", expected \"xclbin2\\0\"", start.escape_ascii())
            }
            Self::Length { got, expected } => {
                let what = if got < expected { "it is cut off" } else { "something was appended" };
                write!(f, "{what}: got {got} bytes, expected {expected}: build or copy it again")
            }
            Self::Range { whole, room, part, offset, count, size } => write!(
                f,
                "{part}: got {count} x {size} bytes from byte {offset} on, expected them within the {room} bytes of the {whole}"
            ),
            Self::Overlap { part, got, room } => write!(
                f,
                "{part}: got {got} bytes of records up to here, expected at most the {room} of AIE_PARTITION: they overlap"
            ),
            Self::Name { offset } => {
                write!(f, "AIE_PARTITION: got a name at byte {offset} without an end, expected a zero behind it")
            }
            Self::Kernels { offset, got, expected } => {
                write!(f, "EMBEDDED_METADATA, byte {offset}: got {got:?}, expected {expected}")
            }
        }
    }
}

impl Error for XclbinError {}
