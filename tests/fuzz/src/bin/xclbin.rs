//! Whatever a file says of itself: it is read or refused, and what is read of it is not more than it has room for.
#![no_main]

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use arbitrary::Arbitrary;
use attn_npu::xclbin::Xclbin;
use libfuzzer_sys::fuzz_target;

const STAND_IN: &[u8] = include_bytes!("../../../../crates/attn-npu/tests/xclbin/stand_in.xclbin");

/// Where a file has its length, and where its table has offset and size of `AIE_PARTITION` and `EMBEDDED_METADATA`.
const LENGTH: usize = 304;
const PARTITION: usize = 456 + 40 + 24;
const KERNELS: usize = 456 + 80 + 24;

/// A whole file with some of it changed.
#[derive(Arbitrary, Debug)]
struct Case<'a> {
    /// In place of the sections that are read.
    partition: Option<&'a [u8]>,
    kernels: Option<&'a [u8]>,
    /// Where bytes are changed, and what to.
    changes: Vec<(u16, u8)>,
    /// Bytes that are cut off.
    cut: u8,
}

impl Case<'_> {
    fn file(&self) -> Vec<u8> {
        let mut file = STAND_IN.to_vec();
        for (entry, section) in [(PARTITION, self.partition), (KERNELS, self.kernels)] {
            if let Some(section) = section {
                let place = [file.len() as u64, section.len() as u64].map(u64::to_le_bytes);
                file[entry..entry + 16].copy_from_slice(place.as_flattened());
                file.extend_from_slice(section);
            }
        }
        file.truncate(file.len() - usize::from(self.cut));
        // Else whatever is not as long as it was is refused at once.
        let length = file.len() as u64;
        file[LENGTH..LENGTH + 8].copy_from_slice(&length.to_le_bytes());
        for &(at, byte) in &self.changes {
            let at = usize::from(at) % file.len();
            file[at] = byte;
        }
        file
    }
}

/// Runs, and those whose file was read.
static RUNS: AtomicUsize = AtomicUsize::new(0);
static READ: AtomicUsize = AtomicUsize::new(0);

fuzz_target!(|case: Case<'_>| {
    // A target that is refused everything tests nothing else.
    if RUNS.fetch_add(1, Relaxed) == 10_000 {
        let read = READ.load(Relaxed);
        println!("{read} of the first 10000 files were read");
        assert!(read > 1000, "too few files are whole");
    }
    let file = case.file();
    let Ok(xclbin) = Xclbin::parse(&file) else { return };
    READ.fetch_add(1, Relaxed);
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
