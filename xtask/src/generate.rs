//! Files that follow from `attn-fixed`, the designs of `attn-npu` and the functions of `attn-c`: written by `cargo xtask generate`, compared by `cargo xtask generated`.

use std::{fmt::Write as _, fs, path::Path};

use attn_fixed::{
    BLOCK, MAX_DIM, MAX_KEYS, MAX_SCORE, block,
    exp2::{self, exp2},
    requantise, row,
    types::{Distance, Fraction, Power, Probability},
};

use attn_npu::design::STANDARD;
use cbindgen::{Builder, Config, DocumentationStyle, Language, RenameRule};

use crate::run::Run;

/// Every generated file: a path relative to the workspace, and what it holds.
fn files(root: &Path) -> Result<Vec<(String, String)>, String> {
    let mut files = vec![
        ("crates/attn-fixed/vectors/exp2.csv".to_owned(), exp2_vector()),
        ("kernels/attention_constants.h".to_owned(), constants()),
        ("crates/attn-c/include/attn.h".to_owned(), header(&root.join("crates/attn-c"))?),
    ];
    for (name, design) in STANDARD {
        let text = design.mlir().map_err(|error| format!("design {name}: {error}"))?;
        files.push((format!("kernels/mlir/{name}.mlir"), text));
    }
    Ok(files)
}

pub(crate) fn write(run: &mut Run) -> Result<(), String> {
    for (path, content) in files(&run.root)? {
        fs::write(run.root.join(&path), content).map_err(|error| format!("{path}: {error}"))?;
        println!("wrote {path}");
    }
    Ok(())
}

pub(crate) fn check(run: &mut Run) -> Result<(), String> {
    for (path, content) in files(&run.root)? {
        let committed = fs::read_to_string(run.root.join(&path)).map_err(|error| format!("{path}: {error}"))?;
        if committed != content {
            return Err(format!("{path} is not what is generated: run `cargo xtask generate` and look at the diff"));
        }
        println!("{path} is what is generated");
    }
    Ok(())
}

/// The exponential over one octave, and how the rest follows.
fn exp2_vector() -> String {
    let mut text = String::from(
        "# exp2 of attn-fixed, a test vector for other implementations: 255/256 * 2^-(distance / 2048) with 15 fraction bits.\n\
         # Every other distance up to 65535 follows: exp2(t) = exp2(t mod 2048) >> (t div 2048). Generated: cargo xtask generate.\n\
         distance,probability\n",
    );
    for bits in 0..2048 {
        writeln!(text, "{bits},{}", exp2(Distance::from_bits(bits)).to_bits()).expect("a string");
    }
    text
}

/// The constants of the arithmetic for the kernels in C.
fn constants() -> String {
    let [c1, c2, c3] = exp2::CUBIC;
    let parts: [(&str, &[(&str, i32)]); 6] = [
        (
            "Keys of a block, and the limits that the host has checked: columns, keys, and the magnitude of a score.",
            &[
                ("BLOCK", BLOCK as i32),
                ("MAX_DIM", MAX_DIM as i32),
                ("MAX_KEYS", MAX_KEYS as i32),
                ("MAX_SCORE", MAX_SCORE),
            ],
        ),
        (
            "exp2(t): fraction bits of t, and of the result; its largest value; the coefficients.",
            &[
                ("DISTANCE_BITS", Distance::FRAC_NBITS as i32),
                ("POWER_BITS", Power::FRAC_NBITS as i32),
                ("EXP2_ONE", exp2::ONE.to_bits().into()),
                ("EXP2_C1", c1.into()),
                ("EXP2_C2", c2.into()),
                ("EXP2_C3", c3.into()),
            ],
        ),
        (
            "Bits that a power loses to become a probability, and a fraction.",
            &[
                ("PROBABILITY_DROPPED", (Power::FRAC_NBITS - Probability::FRAC_NBITS) as i32),
                ("FRACTION_DROPPED", (Power::FRAC_NBITS - Fraction::FRAC_NBITS) as i32),
            ],
        ),
        (
            "When a block is absorbed as two.",
            &[
                ("DOMINATED_BELOW", block::DOMINATED_BELOW),
                ("ROUNDING_PARTS", block::ROUNDING_PARTS),
                ("FAR_BELOW", block::FAR_BELOW.to_bits().into()),
            ],
        ),
        (
            "Merging a block into a row.",
            &[
                ("SUM_BITS", row::SUM_BITS as i32),
                ("MERGE_SHIFT", row::MERGE_SHIFT as i32),
                ("VANISHED", row::VANISHED),
                ("NO_REFERENCE", row::NO_REFERENCE),
                ("VALUE_BITS", row::VALUE_BITS as i32),
            ],
        ),
        (
            "The end of a row. The mantissa of its sum has one bit more than MANTISSA_BITS, its reciprocal is\n * \
             floor(2^RECIPROCAL_ONE_BITS / mantissa); the others are those of crates/attn-fixed/src/requantise.rs.",
            &[
                ("MANTISSA_BITS", requantise::MANTISSA_BITS as i32),
                ("RECIPROCAL_ONE_BITS", 2 * requantise::MANTISSA_BITS as i32 + 1),
                ("MULTIPLIER_DROPPED", requantise::MULTIPLIER_DROPPED as i32),
                ("OUTPUT_BITS", requantise::OUTPUT_BITS),
                ("NARROW_SHIFT", requantise::NARROW_SHIFT),
            ],
        ),
    ];
    let mut text = String::from(
        "/* Constants of attn-fixed, the specification. Generated: cargo xtask generate. */\n\
         #ifndef ATTENTION_CONSTANTS_H\n#define ATTENTION_CONSTANTS_H\n",
    );
    for (comment, constants) in parts {
        writeln!(text, "\n/* {comment} */").expect("a string");
        for (name, value) in constants {
            let value = if *value < 0 { format!("({value})") } else { value.to_string() };
            writeln!(text, "#define ATTN_{name} {value}").expect("a string");
        }
    }
    text.push_str("\n#endif\n");
    text
}

/// The header of the functions for C, with their documentation.
fn header(package: &Path) -> Result<String, String> {
    let mut config = Config {
        language: Language::C,
        cpp_compat: true,
        header: Some("/* Scaled dot-product attention in integers. Generated: cargo xtask generate. */".to_owned()),
        include_guard: Some("ATTN_H".to_owned()),
        no_includes: true,
        sys_includes: ["stddef.h", "stdint.h"].map(str::to_owned).to_vec(),
        usize_is_size_t: true,
        documentation_style: DocumentationStyle::Doxy,
        line_length: 120,
        tab_width: 4,
        ..Config::default()
    };
    config.enumeration.rename_variants = RenameRule::QualifiedScreamingSnakeCase;
    let builder = ["status", "mask", "lib"].iter().fold(Builder::new().with_config(config), |builder, module| {
        builder.with_src(package.join(format!("src/{module}.rs")))
    });
    let mut text = Vec::new();
    builder.generate().map_err(|error| format!("attn.h: {error}"))?.write(&mut text);
    String::from_utf8(text).map_err(|error| format!("attn.h: {error}"))
}
