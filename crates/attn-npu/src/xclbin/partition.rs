//! The section `AIE_PARTITION`: the columns that a design takes, and what configures them.
//!
//! It is a record, and behind it arrays and names that it points to by offsets in the section.

use super::{Uuid, XclbinError, field, named, slice};

/// Bytes of the section's first record.
const RECORD: usize = 184;

/// Bytes of a PDI's record.
const PDI: usize = 96;

/// Bytes of a CDO group's record.
const GROUP: usize = 96;

/// Offsets in the section's first record.
mod record {
    pub(super) const COLUMN_WIDTH: usize = 32;
    pub(super) const START_COLUMNS: usize = 40;
    pub(super) const PDIS: usize = 120;
}

/// Offsets in a PDI's record.
mod pdi {
    pub(super) const UUID: usize = 0;
    pub(super) const IMAGE: usize = 16;
    pub(super) const GROUPS: usize = 24;
}

/// Offsets in a CDO group's record.
mod group {
    pub(super) const NAME: usize = 0;
    pub(super) const KIND: usize = 4;
    pub(super) const PDI_ID: usize = 8;
    pub(super) const KERNEL_IDS: usize = 16;
}

/// A part of the array.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Partition {
    /// Columns that it takes.
    pub column_width: u16,
    /// Columns that it may start at: the driver chooses.
    pub start_columns: Vec<u16>,
    /// What configures it.
    pub pdis: Vec<Pdi>,
}

/// A programmable device image: what the firmware loads into the array.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Pdi {
    /// What it is known by.
    pub uuid: Uuid,
    /// Bytes of its image, all within the section.
    pub size: u32,
    /// What of it belongs to which kernel.
    pub cdo_groups: Vec<CdoGroup>,
}

/// Configuration data objects that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct CdoGroup {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub kind: CdoType,
    /// The number of the PDI.
    pub pdi_id: u64,
    /// The `dpu_kernel_id` of each kernel that it configures the array for.
    pub dpu_kernel_ids: Vec<u64>,
}

named! {
    /// What a CDO group is for.
    CdoType: "unknown", "primary", "lite", "pre-post"
}

pub(super) fn read(section: &[u8]) -> Result<Partition, XclbinError> {
    let mut records = Records { section, read: 0 };
    let [record] = records.at::<RECORD>("AIE_PARTITION", 0, 1)? else { unreachable!("one was asked for") };
    let start_columns = records.array("start columns", record, record::START_COLUMNS)?;
    let mut pdis = Vec::new();
    for record in records.array::<PDI>("PDIs", record, record::PDIS)? {
        let [size, offset] = size_and_offset(record, pdi::IMAGE);
        slice("section AIE_PARTITION", section, "image of a PDI", offset.into(), size.into(), 1)?;
        let mut cdo_groups = Vec::new();
        for record in records.array::<GROUP>("CDO groups", record, pdi::GROUPS)? {
            let kernel_ids = records.array("kernel numbers of a CDO group", record, group::KERNEL_IDS)?;
            cdo_groups.push(CdoGroup {
                name: records.name(u32::from_le_bytes(field(record, group::NAME)))?,
                kind: CdoType(record[group::KIND].into()),
                pdi_id: u64::from_le_bytes(field(record, group::PDI_ID)),
                dpu_kernel_ids: kernel_ids.iter().map(|&id| u64::from_le_bytes(id)).collect(),
            });
        }
        pdis.push(Pdi { uuid: Uuid(field(record, pdi::UUID)), size, cdo_groups });
    }
    Ok(Partition {
        column_width: u16::from_le_bytes(field(record, record::COLUMN_WIDTH)),
        start_columns: start_columns.iter().map(|&column| u16::from_le_bytes(column)).collect(),
        pdis,
    })
}

/// Reads what records point to. Each has its own bytes, else a short section could describe more than fits into memory: a
/// hundred PDIs with the same hundred groups of the same thousand numbers.
struct Records<'a> {
    section: &'a [u8],
    /// Bytes that were read.
    read: usize,
}

impl<'a> Records<'a> {
    /// The array that `record` has the number of elements and the offset of.
    fn array<const N: usize>(
        &mut self,
        part: &'static str,
        record: &[u8],
        at: usize,
    ) -> Result<&'a [[u8; N]], XclbinError> {
        let [count, offset] = size_and_offset(record, at);
        self.at(part, offset, count)
    }

    fn at<const N: usize>(
        &mut self,
        part: &'static str,
        offset: u32,
        count: u32,
    ) -> Result<&'a [[u8; N]], XclbinError> {
        let bytes = slice("section AIE_PARTITION", self.section, part, offset.into(), count.into(), N)?;
        self.count(part, bytes.len())?;
        Ok(bytes.as_chunks().0)
    }

    /// A name, which ends in a zero.
    fn name(&mut self, offset: u32) -> Result<String, XclbinError> {
        // Not longer than what is left to read, so that names are not looked through again and again.
        let rest = self.section.get(offset as usize..).unwrap_or_default();
        let rest = &rest[..rest.len().min(self.section.len() - self.read)];
        let end = rest.iter().position(|&byte| byte == 0).ok_or(XclbinError::Name { offset })?;
        self.count("name", end + 1)?;
        Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
    }

    fn count(&mut self, part: &'static str, bytes: usize) -> Result<(), XclbinError> {
        self.read += bytes;
        if self.read <= self.section.len() {
            return Ok(());
        }
        Err(XclbinError::Overlap { part, got: self.read as u64, room: self.section.len() as u64 })
    }
}

fn size_and_offset(record: &[u8], at: usize) -> [u32; 2] {
    [at, at + 4].map(|at| u32::from_le_bytes(field(record, at)))
}
