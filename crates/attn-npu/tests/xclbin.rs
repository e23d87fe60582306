//! The reader of the container, on a file that `xclbinutil` made, on damaged ones and on hostile ones.

use attn_npu::xclbin::{Partition, SectionKind, Xclbin, XclbinError};
use proptest::prelude::*;

const STAND_IN: &[u8] = include_bytes!("xclbin/stand_in.xclbin");

fn stand_in() -> Xclbin {
    Xclbin::parse(STAND_IN).expect("a whole file")
}

/// Where the section of the partition starts.
fn partition() -> usize {
    let sections = stand_in().sections;
    sections.iter().find(|section| section.kind == SectionKind::AIE_PARTITION).expect("a partition").offset as usize
}

/// The file with other bytes at these places.
fn patched(patches: &[(usize, &[u8])]) -> Vec<u8> {
    let mut file = STAND_IN.to_vec();
    for &(at, bytes) in patches {
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }
    file
}

/// The file with other XML: a section of its own at the end, that the table points to.
fn with_kernels(xml: &[u8]) -> Vec<u8> {
    let index = stand_in().sections.iter().position(|section| section.kind == SectionKind::EMBEDDED_METADATA);
    let entry = 456 + 40 * index.expect("kernels");
    let mut file = patched(&[
        (entry + 24, &(STAND_IN.len() as u64).to_le_bytes()),
        (entry + 32, &(xml.len() as u64).to_le_bytes()),
        (304, &((STAND_IN.len() + xml.len()) as u64).to_le_bytes()),
    ]);
    file.extend_from_slice(xml);
    file
}

#[track_caller]
fn message(file: &[u8]) -> String {
    Xclbin::parse(file).expect_err("damaged").to_string()
}

#[test]
fn a_whole_file() {
    let file = stand_in();
    assert_eq!((file.length, file.version.as_str()), (STAND_IN.len() as u64, "2.25.0"));
    assert_eq!(file.sections.len(), 7);
    let [kernel] = &file.kernels[..] else { panic!("{:?}", file.kernels) };
    assert_eq!((kernel.name.as_str(), kernel.dpu_kernel_id, kernel.arguments.len()), ("MLIR_AIE", Some(0x901), 8));
    let Some(Partition { column_width: 1, start_columns, pdis }) = file.partition else {
        panic!("{:?}", file.partition)
    };
    assert_eq!(start_columns, [1, 2, 3, 4]);
    assert_eq!(
        pdis.iter().map(|pdi| pdi.size as usize).collect::<Vec<_>>(),
        [include_bytes!("xclbin/stand_in.pdi").len()]
    );
    assert_eq!(pdis[0].uuid.to_string(), "00112233-4455-6677-8899-aabbccddeeff");
}

/// Wherever it is cut: by its start it is no xclbin, and then its header says how long it should be.
#[test]
fn a_file_that_is_cut_off() {
    for length in 0..STAND_IN.len() {
        let expected = match length {
            0..8 => XclbinError::NotAnXclbin { start: STAND_IN[..length].to_vec() },
            8..456 => XclbinError::Length { got: length as u64, expected: 456 },
            _ => XclbinError::Length { got: length as u64, expected: STAND_IN.len() as u64 },
        };
        assert_eq!(Xclbin::parse(&STAND_IN[..length]), Err(expected));
    }
    let appended = [STAND_IN, b"\0"].concat();
    assert!(message(&appended).starts_with("something was appended: got "));
}

/// Sections that are cut off in a file that claims to be whole.
#[test]
fn a_file_that_ends_within_a_section() {
    let last = stand_in().sections.iter().map(|section| section.offset + section.size).max().expect("sections");
    for length in 456..STAND_IN.len() {
        let file = &patched(&[(304, &(length as u64).to_le_bytes())])[..length];
        match Xclbin::parse(file) {
            Ok(_) => assert!(length as u64 >= last),
            Err(XclbinError::Range { room, .. }) => assert_eq!(room, length as u64),
            Err(error) => panic!("{length}: {error}"),
        }
    }
}

#[test]
fn what_points_to_nowhere() {
    let at = partition();
    let pointed = |from: usize| at + u32::from_le_bytes([0, 1, 2, 3].map(|i| STAND_IN[from + i])) as usize;
    let pdi = pointed(at + 124);
    let group = pointed(pdi + 28);
    let all = u32::MAX.to_le_bytes();
    let long = [0xff; 8];
    let mut text = String::new();
    for patches in [
        // Sections: their number, an offset, a size.
        &[(448, &all[..])][..],
        &[(456 + 24, &long)],
        &[(456 + 32, &long)],
        // The partition: a section that is too short, and each of its arrays.
        &[(456 + 40 + 32, &[183, 0])],
        &[(at + 40, &all)],
        &[(at + 44, &all)],
        &[(at + 120, &all)],
        &[(at + 124, &all)],
        &[(pdi + 16, &all)],
        &[(pdi + 20, &all)],
        &[(pdi + 24, &all)],
        &[(pdi + 28, &all)],
        &[(group, &all)],
        &[(group, &[0xef, 1]), (at + 495, b"x")],
        &[(group + 16, &all)],
        &[(group + 20, &all)],
    ] {
        text += &message(&patched(patches));
        text.push('\n');
    }
    insta::assert_snapshot!(text);
}

/// A partition of one section that describes a hundred million numbers: PDIs with the same groups of the same kernels.
#[test]
fn what_is_described_again_and_again() {
    const N: usize = 400;
    let mut section = vec![0; 184 + 96 * N];
    let pointer = |count: usize, offset: usize| [(count as u32).to_le_bytes(), (offset as u32).to_le_bytes()].concat();
    section[120..128].copy_from_slice(&pointer(N, 184));
    for pdi in section[184..].chunks_exact_mut(96) {
        // As a PDI, and as a CDO group.
        pdi[24..32].copy_from_slice(&pointer(N, 184));
        pdi[16..24].copy_from_slice(&pointer(N, 184));
    }
    let entry = 456 + 40;
    let mut file = patched(&[
        (entry + 24, &(STAND_IN.len() as u64).to_le_bytes()),
        (entry + 32, &(section.len() as u64).to_le_bytes()),
        (304, &((STAND_IN.len() + section.len()) as u64).to_le_bytes()),
    ]);
    file.extend(section);
    assert_eq!(
        message(&file),
        "CDO groups: got 76984 bytes of records up to here, expected at most the 38584 of AIE_PARTITION: they overlap"
    );
}

#[test]
fn kernels() {
    let xml =
        br#"<?xml version="1.0"?><!DOCTYPE project><!-- > <kernel name="no"> --><project><![CDATA[ > <kernel name="no">]]>
        <arg name='of nobody'/>
        <kernel language="c" name = 'a&amp;b&#x3e;&#62;' type="dpu"><extended-data dpu_kernel_id="0X1f"/>
            <arg name="x>y" id="" type='char "*"' addressQualifier="9" offset="010" size="18446744073709551615"/>
            <instance name="i"/><instance name="j"></instance>
        </kernel>
        <kernel name="empty"/>
    </project>"#;
    let kernels = Xclbin::parse(&with_kernels(&[&xml[..], b"\0\0"].concat())).expect("a whole file").kernels;
    insta::assert_debug_snapshot!(kernels);
    assert_eq!(Xclbin::parse(&with_kernels(b"")).expect("a whole file").kernels, []);
}

#[test]
fn kernels_that_are_not_as_expected() {
    let mut text = String::new();
    for xml in [
        &b"\xff"[..],
        b"<!-- ",
        b"<![CDATA[ ]>",
        b"<?xml >",
        b"<kernel name=\">\"",
        b"<kernel>",
        b"<kernel name=''>",
        b"<kernel name='a' type=''>",
        b"<kernel name='a'><kernel name='b'>",
        b"<kernel name=a>",
        b"<kernel name>",
        b"<kernel type='dpu name='a'>",
        b"<kernel name='&nbsp;'>",
        b"<kernel name='&#xd800;'>",
        b"<kernel name='&amp'>",
        b"<kernel name='a'><instance/>",
        b"<kernel name='a'><extended-data dpu_kernel_id='0x'/>",
        b"<kernel name='a'><extended-data dpu_kernel_id='+1'/>",
        b"<kernel name='a'><extended-data dpu_kernel_id='18446744073709551616'/>",
        b"<kernel name='a'><arg id='0'/>",
        b"<kernel name='a'><arg name='x'/>",
        b"<kernel name='a'><arg name='x' addressQualifier='4294967296' offset='0' size='1'/>",
        b"<kernel name='a'><arg name='x' addressQualifier='0' size='1'/>",
        b"<kernel name='a'><arg name='x' addressQualifier='0' offset='0'/>",
    ] {
        text += &message(&with_kernels(xml));
        text.push('\n');
    }
    insta::assert_snapshot!(text);
}

proptest! {
    /// Whatever some bytes are changed to, it is read or refused.
    #[test]
    fn changed_bytes(changes in prop::collection::vec((0..STAND_IN.len(), any::<u8>()), 1..8)) {
        let mut file = STAND_IN.to_vec();
        for (at, byte) in changes {
            file[at] = byte;
        }
        _ = Xclbin::parse(&file);
    }

    #[test]
    fn any_xml(xml in r#"([<>/!?'"=&; a-f0-9]|<kernel name='|<arg |-->|id="|&#x|</kernel>|\PC){0,40}"#) {
        let file = with_kernels(xml.as_bytes());
        if let Ok(xclbin) = Xclbin::parse(&file) {
            prop_assert!(xclbin.kernels.len() <= xml.len() / 9);
        }
    }
}
