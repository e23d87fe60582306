//! What an xclbin holds: the container in which the NPU's driver is given a design.
//!
//! It is a header, a table of sections, and their data, all little-endian: the `axlf` of XRT's `xrt/detail/xclbin.h`. Two of
//! the sections are read: the kernels with their arguments, XML ([`Kernel`]), and the partition of the array with what
//! configures it ([`Partition`]). As XRT does it, the first section of a kind counts.
//!
//! Nothing in a file is trusted: every offset and size is checked, and neither time nor memory are more than in proportion to
//! the file.

mod error;
mod kernel;
mod partition;
mod xml;

use std::fmt;

pub use error::XclbinError;
pub use kernel::{AddressQualifier, Argument, Kernel};
pub use partition::{CdoGroup, CdoType, Partition, Pdi};

/// A number of the format that has a name, or not: what a later version adds is shown as a number.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident: $($value:literal),+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub u32);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match [$($value),+].get(self.0 as usize) {
                    Some(name) => f.pad(name),
                    None => f.pad(&self.0.to_string()),
                }
            }
        }

        #[cfg(feature = "serde")]
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}
use named;

/// What every file starts with.
const MAGIC: &[u8; 8] = b"xclbin2\0";

/// Bytes before the table of sections.
const HEADER: usize = 456;

/// Bytes of an entry of that table.
const ENTRY: usize = 40;

/// Offsets in the header.
mod header {
    pub(super) const LENGTH: usize = 304;
    pub(super) const TIME: usize = 312;
    pub(super) const VERSION_PATCH: usize = 328;
    pub(super) const VERSION_MAJOR: usize = 330;
    pub(super) const VERSION_MINOR: usize = 331;
    pub(super) const MODE: usize = 332;
    pub(super) const PLATFORM: usize = 352;
    pub(super) const UUID: usize = 416;
    pub(super) const SECTIONS: usize = 448;
}

/// Offsets in an entry of the table of sections.
mod entry {
    pub(super) const KIND: usize = 0;
    pub(super) const NAME: usize = 4;
    pub(super) const OFFSET: usize = 24;
    pub(super) const SIZE: usize = 32;
}

/// What a file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Xclbin {
    /// Bytes of the file.
    pub length: u64,
    /// What the driver knows it by: another one whenever it is made.
    pub uuid: Uuid,
    /// When it was made, in seconds since 1970.
    pub time: u64,
    /// Of the XRT that made it: `2.25.0`.
    pub version: String,
    /// How it is loaded: `flat` for an NPU.
    pub mode: Mode,
    /// Vendor, board, name and version of the platform; empty for an NPU.
    pub platform: String,
    /// Its sections, in the order of the table.
    pub sections: Vec<Section>,
    /// What can be run; none without a section `EMBEDDED_METADATA`.
    pub kernels: Vec<Kernel>,
    /// What it takes of an NPU; none without a section `AIE_PARTITION`.
    pub partition: Option<Partition>,
}

/// An entry of the table of sections.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Section {
    /// What it holds.
    pub kind: SectionKind,
    /// Its name, at most 16 bytes; often none.
    pub name: String,
    /// Where its data starts in the file, in bytes.
    pub offset: u64,
    /// Bytes of its data, all within the file.
    pub size: u64,
}

named! {
    /// How a file is loaded.
    Mode: "flat", "pr", "tandem-stage2", "tandem-stage2-with-pr", "hw-emu", "sw-emu", "hw-emu-pr"
}

named! {
    /// What a section holds, by the name that `xclbinutil` has for it.
    SectionKind:
        "BITSTREAM", "CLEARING_BITSTREAM", "EMBEDDED_METADATA", "FIRMWARE", "DEBUG_DATA", "SCHED_FIRMWARE", "MEM_TOPOLOGY",
        "CONNECTIVITY", "IP_LAYOUT", "DEBUG_IP_LAYOUT", "DESIGN_CHECK_POINT", "CLOCK_FREQ_TOPOLOGY", "MCS", "BMC",
        "BUILD_METADATA", "KEYVALUE_METADATA", "USER_METADATA", "DNA_CERTIFICATE", "PDI", "BITSTREAM_PARTIAL_PDI",
        "PARTITION_METADATA", "EMULATION_DATA", "SYSTEM_METADATA", "SOFT_KERNEL", "ASK_FLASH", "AIE_METADATA",
        "GROUP_TOPOLOGY", "GROUP_CONNECTIVITY", "SMARTNIC", "AIE_RESOURCES", "OVERLAY", "VENDER_METADATA", "AIE_PARTITION",
        "IP_METADATA", "AIE_RESOURCES_BIN", "AIE_TRACE_METADATA", "DTBO"
}

impl SectionKind {
    /// Kernels and their arguments, XML.
    pub const EMBEDDED_METADATA: Self = Self(2);
    /// The columns that are taken, and what configures them.
    pub const AIE_PARTITION: Self = Self(32);
}

/// Sixteen bytes, shown as `00112233-4455-6677-8899-aabbccddeeff`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if [4, 6, 8, 10].contains(&i) { "-" } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Uuid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Xclbin {
    /// Reads a whole file.
    ///
    /// # Errors
    /// It is another kind of file, it is not whole, or it contradicts itself.
    pub fn parse(file: &[u8]) -> Result<Self, XclbinError> {
        if !file.starts_with(MAGIC) {
            return Err(XclbinError::NotAnXclbin { start: file[..file.len().min(MAGIC.len())].to_vec() });
        }
        let header: &[u8; HEADER] =
            file.first_chunk().ok_or(XclbinError::Length { got: file.len() as u64, expected: HEADER as u64 })?;
        let length = u64::from_le_bytes(field(header, header::LENGTH));
        if length != file.len() as u64 {
            return Err(XclbinError::Length { got: file.len() as u64, expected: length });
        }
        let [major, minor] = [header::VERSION_MAJOR, header::VERSION_MINOR].map(|at| header[at]);
        let patch = u16::from_le_bytes(field(header, header::VERSION_PATCH));

        let count = u32::from_le_bytes(field(header, header::SECTIONS)).into();
        let (table, _) = slice("file", file, "table of sections", HEADER as u64, count, ENTRY)?.as_chunks::<ENTRY>();
        let mut sections = Vec::with_capacity(table.len());
        for bytes in table {
            let section = Section::of(bytes);
            // Of whatever kind: the file is whole.
            section.data(file)?;
            sections.push(section);
        }
        let data = |kind| sections.iter().find(|section| section.kind == kind).map(|section| section.data(file));
        let kernels = data(SectionKind::EMBEDDED_METADATA).transpose()?.map(kernel::read).transpose()?;
        let partition = data(SectionKind::AIE_PARTITION).transpose()?.map(partition::read).transpose()?;

        Ok(Self {
            length,
            uuid: Uuid(field(header, header::UUID)),
            time: u64::from_le_bytes(field(header, header::TIME)),
            version: format!("{major}.{minor}.{patch}"),
            mode: Mode(u16::from_le_bytes(field(header, header::MODE)).into()),
            platform: text(&field::<64>(header, header::PLATFORM)),
            kernels: kernels.unwrap_or_default(),
            partition,
            sections,
        })
    }
}

impl Section {
    fn of(entry: &[u8; ENTRY]) -> Self {
        Self {
            kind: SectionKind(u32::from_le_bytes(field(entry, entry::KIND))),
            name: text(&field::<16>(entry, entry::NAME)),
            offset: u64::from_le_bytes(field(entry, entry::OFFSET)),
            size: u64::from_le_bytes(field(entry, entry::SIZE)),
        }
    }

    /// Its bytes in the file.
    fn data<'a>(&self, file: &'a [u8]) -> Result<&'a [u8], XclbinError> {
        slice("file", file, "section", self.offset, self.size, 1)
    }
}

/// `N` bytes of a record that has them.
fn field<const N: usize>(record: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| record[at + i])
}

/// Text up to the first zero, of a field that may be full.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

/// `count` elements of `size` bytes from `offset` on.
fn slice<'a>(
    whole: &'static str,
    bytes: &'a [u8],
    part: &'static str,
    offset: u64,
    count: u64,
    size: usize,
) -> Result<&'a [u8], XclbinError> {
    let range = || {
        let end = count.checked_mul(size as u64)?.checked_add(offset)?;
        bytes.get(usize::try_from(offset).ok()?..usize::try_from(end).ok()?)
    };
    range().ok_or(XclbinError::Range { whole, room: bytes.len() as u64, part, offset, count, size })
}
