//! Designs: what is committed is what is written today, what each takes of the hardware, and every limit.

use std::{fmt::Write as _, fs, path::Path};

use attn_npu::design::{Demand, Design, Device, Form, STANDARD};
use proptest::prelude::*;

/// Of a core's program memory nothing is known without the compiler; everything else that a design takes.
#[test]
fn standard_designs_take() {
    let mut text = String::from(
        "What a dispatch takes. Cores have 65536 bytes, memory tiles 524288. Blocks: 64 queries with 64 keys, for each core.\n\n",
    );
    writeln!(
        text,
        "{:16}{:11}{:>6}{:>8}{:>13}{:>11}{:>11}{:>11}{:>8}",
        "", "device", "cores", "core", "memory tile", "in", "out", "in/column", "blocks"
    )
    .expect("a string");
    for (name, design) in STANDARD {
        design.check().unwrap_or_else(|error| panic!("{name}: {error}"));
        let Demand { core_bytes, memory_tile_bytes, bytes_in, bytes_out, column_bytes_in, core_blocks } =
            design.demand();
        writeln!(
            text,
            "{name:16}{:11}{:6}{core_bytes:8}{memory_tile_bytes:13}{bytes_in:11}{bytes_out:11}{column_bytes_in:11}{core_blocks:8}",
            design.partition(),
            design.cores(),
        )
        .expect("a string");
    }
    insta::assert_snapshot!(text);
}

/// One core of the next device, in the shortest form; and the text of the standard ones, which has its own files.
#[test]
fn texts() {
    for (name, design) in STANDARD {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/mlir").join(format!("{name}.mlir"));
        let committed = fs::read_to_string(&path).expect("a committed design");
        assert!(committed == design.mlir().expect("within the limits"), "{name}: `cargo xtask generate` writes it");
    }
    let design =
        Design { device: Device::Npu2, columns: 1, rows: 1, dim: 128, depth: 1, form: Form::Tiles { per_core: 3 } };
    insta::assert_snapshot!(design.mlir().expect("within the limits"));
}

#[test]
fn every_limit_is_an_error() {
    let [tiles, whisper] = ["tiles-array", "whisper-base"].map(|name| Design::standard(name).expect("standard"));
    let form = |heads, queries, keys| Form::Sequence { heads, queries, keys };
    let mut text = String::new();
    for design in [
        Design { columns: 5, ..tiles },
        Design { columns: 0, ..tiles },
        Design { rows: 5, ..tiles },
        Design { rows: 0, ..tiles },
        Design { dim: 8, ..tiles },
        Design { dim: 72, ..tiles },
        Design { dim: 272, ..tiles },
        Design { depth: 3, ..tiles },
        Design { dim: 128, ..tiles },
        Design { dim: 80, ..whisper },
        Design { form: Form::Tiles { per_core: 0 }, ..tiles },
        Design { form: Form::Tiles { per_core: usize::MAX }, ..tiles },
        Design { form: form(7, 1500, 1500), ..whisper },
        Design { form: form(2, 1500, 1500), ..whisper },
        Design { form: form(8, 0, 1500), ..whisper },
        Design { form: form(8, 1500, 0), ..whisper },
        Design { form: form(8, 1500, (1 << 20) + 1), ..whisper },
        Design { form: form(8, 64 * 4 * 64 + 1, 1500), ..whisper },
        Design { form: form(40, 64, 1 << 20), ..whisper },
        Design { form: form(usize::MAX, 1, 1), columns: 3, ..whisper },
        Design { form: form(8, usize::MAX, 1), ..whisper },
        Design { form: form(8, 1, usize::MAX), ..whisper },
    ] {
        let error = design.mlir().expect_err("too much");
        assert!(!(error.least..=error.most).contains(&error.got), "{error}");
        writeln!(text, "{error}").expect("a string");
    }
    // The last ones that are accepted.
    for design in [
        Design { rows: 1, columns: 1, ..tiles },
        Design { dim: 80, rows: 2, ..tiles },
        Design { device: Device::Npu2, columns: 8, ..whisper },
        Design { form: form(8, 64 * 4 * 64, 1 << 20), ..whisper },
        Design { depth: 1, dim: 80, ..whisper },
    ] {
        design.mlir().expect("within the limits");
    }
    insta::assert_snapshot!(text);
}

/// Those that designs have, and any.
fn number(usual: std::ops::Range<usize>) -> impl Strategy<Value = usize> {
    prop_oneof![8 => usual, 1 => any::<usize>()]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Numbers come from whoever wrote a manifest: nothing overflows, and what is accepted can be written.
    #[test]
    fn a_design_is_refused_or_can_be_written(
        (npu2, columns, rows, dim, depth) in (any::<bool>(), number(1..5), number(1..5), number(8..70), number(1..3)),
        (tiles, heads, queries, keys) in (proptest::option::of(number(1..300)), number(1..9), number(1..5000), number(1..5000)),
    ) {
        let form = match tiles {
            Some(per_core) => Form::Tiles { per_core },
            None => Form::Sequence { heads, queries, keys },
        };
        let device = if npu2 { Device::Npu2 } else { Device::Npu1 };
        for dim in [dim, 16, 64] {
            let design = Design { device, columns, rows, dim, depth, form };
            if design.check().is_ok() {
                prop_assert!(u32::try_from(design.demand().bytes_in).is_ok());
                // Those of a thousand heads are long texts.
                prop_assert!(heads > 64 || design.mlir().is_ok());
            }
        }
    }
}
