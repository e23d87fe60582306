//! Files that follow from `attn-fixed`: written by `cargo xtask generate`, compared by `cargo xtask generated`.

use std::{fmt::Write as _, fs};

use attn_fixed::{exp2::exp2, types::Distance};

use crate::run::Run;

/// A path relative to the workspace, and what the file holds.
type File = (&'static str, fn() -> String);

/// Every generated file.
const FILES: [File; 1] = [("crates/attn-fixed/vectors/exp2.csv", exp2_vector)];

pub(crate) fn write(run: &mut Run) -> Result<(), String> {
    for (path, content) in FILES {
        fs::write(run.root.join(path), content()).map_err(|error| format!("{path}: {error}"))?;
        println!("wrote {path}");
    }
    Ok(())
}

pub(crate) fn check(run: &mut Run) -> Result<(), String> {
    for (path, content) in FILES {
        let committed = fs::read_to_string(run.root.join(path)).map_err(|error| format!("{path}: {error}"))?;
        if committed != content() {
            return Err(format!(
                "{path} is not what attn-fixed generates: run `cargo xtask generate` and look at the diff"
            ));
        }
        println!("{path} is what attn-fixed generates");
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
