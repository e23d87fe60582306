//! Whatever a file says of itself: it is read or refused, and what is read of it is not more than it has room for.
#![no_main]

use attn_fuzz::{Valid, mutate, replace};
use attn_npu::xclbin::{SectionKind, Xclbin};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

/// Where a file has its length, and where its table of sections begins; where an entry of it has offset and size.
const LENGTH: usize = 304;
const TABLE: usize = 456;
const ENTRY: usize = 40;
const PLACE: usize = 24;

static VALID: Valid = Valid::new();

fuzz_target!(|file: &[u8]| {
    VALID.run();
    let Ok(xclbin) = Xclbin::parse(file) else { return };
    VALID.valid();
    assert_eq!(xclbin.length, file.len() as u64);
    for section in &xclbin.sections {
        assert!(section.offset + section.size <= xclbin.length);
    }
    // The shortest of each: `<kernel name="a"/>`, `<arg name="a"addressQualifier="0"offset="0"size="1">`.
    let arguments = xclbin.kernels.iter().map(|kernel| kernel.arguments.len()).sum::<usize>();
    assert!(18 * xclbin.kernels.len() + 50 * arguments <= file.len());
    let groups = xclbin.partition.iter().flat_map(|partition| &partition.pdis).flat_map(|pdi| &pdi.cdo_groups);
    // What is not UTF-8 has become three bytes.
    let bytes = groups.map(|group| 96 + group.name.len() / 3 + 8 * group.dpu_kernel_ids.len()).sum::<usize>();
    assert!(bytes <= file.len());
});

// Mostly a section that is read, which may become longer or shorter, else any bytes; and mostly the file says how long it is, else
// it is refused at once.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut rng = fastrand::Rng::with_seed(seed.into());
    let kind = *rng.choice(&[SectionKind::AIE_PARTITION, SectionKind::EMBEDDED_METADATA]).expect("two");
    let other = if rng.u8(..4) > 0 { with_section(&data[..size], kind) } else { None };
    let size = other
        .and_then(|file| replace(&mut data[..max_size], &file))
        .unwrap_or_else(|| fuzzer_mutate(data, size, max_size));
    if rng.u8(..16) > 0
        && let Some(length) = data[..size].get_mut(LENGTH..LENGTH + 8)
    {
        length.copy_from_slice(&(size as u64).to_le_bytes());
    }
    size
});

/// The file with this section changed and moved to its end.
fn with_section(file: &[u8], kind: SectionKind) -> Option<Vec<u8>> {
    let xclbin = Xclbin::parse(file).ok()?;
    let number = xclbin.sections.iter().position(|section| section.kind == kind)?;
    let section = &xclbin.sections[number];
    let (start, end) = (section.offset as usize, (section.offset + section.size) as usize);
    let mut content = file[start..end].to_vec();
    mutate(&mut content, 128);
    // In place of itself where it is the last one.
    let start = if end == file.len() { start } else { file.len() };
    let mut file = file[..start].to_vec();
    let place = [start as u64, content.len() as u64].map(u64::to_le_bytes);
    file.extend(content);
    let at = TABLE + number * ENTRY + PLACE;
    file.get_mut(at..at + 16)?.copy_from_slice(place.as_flattened());
    Some(file)
}
