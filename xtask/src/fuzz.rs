//! `cargo xtask fuzz`: the fuzz targets of `tests/fuzz`, with `cargo fuzz`.

use std::{fs, path::Path, process::Command};

use crate::{
    checks::{nightly, tool},
    kernels,
    run::Run,
};

/// Builds fuzz targets and runs them.
const CARGO_FUZZ: &str = "0.13.2";

/// Seconds for each target.
const SECONDS: u32 = 60;

/// A fuzz target.
struct Target {
    name: &'static str,
    /// Bytes of an input.
    length: usize,
    /// What is input as it is, beside the seeds.
    real: Option<&'static str>,
}

const TARGETS: [Target; 4] = [
    Target { name: "attention", length: 1024, real: None },
    Target { name: "npz", length: 16_384, real: Some("tests/npz") },
    Target { name: "xclbin", length: 16_384, real: Some("crates/attn-npu/tests/xclbin") },
    Target { name: "artefacts", length: 8192, real: Some("tests/npu/recorded") },
];

/// The kernels count what they cover, too, and trap where behaviour is undefined, which needs no library.
const CFLAGS: &str =
    "-fsanitize=address,undefined -fsanitize-undefined-trap-on-error -fsanitize-coverage=inline-8bit-counters,pc-table";

/// The seeds of every target, then a minute of what libFuzzer makes of them, under `AddressSanitizer`.
pub(crate) fn check(run: &mut Run) -> Result<(), String> {
    let Some(nightly) = nightly(run, "fuzz target") else { return Ok(()) };
    if !kernels::has_clang(run) {
        run.skip("fuzz target", "no Clang for libFuzzer and for the kernels' coverage (`apt-get install clang llvm`)");
        return Ok(());
    }
    let program = tool(run, "cargo-fuzz", CARGO_FUZZ)?;
    // What `cargo fuzz` builds is not locked.
    run.cargo(&["fetch", "--locked", "--manifest-path=tests/fuzz/Cargo.toml"])?;

    let target = run.root.join("target/fuzz");
    let target_dir = target.display().to_string();
    let [toolchain @ .., _] = nightly;
    let fuzz = |run: &Run, command: &str, arguments: &[&str]| -> Command {
        // Comparisons take more than half of the time where they are traced, and the mutators know the formats.
        let common = ["--fuzz-dir=tests/fuzz", "--target-dir", &target_dir, "--no-trace-compares"];
        let mut fuzz = run.command("rustup", &[&toolchain[..], &[&program, command], &common, arguments].concat());
        fuzz.env("CC", "clang").env("CXX", "clang++").env("CFLAGS", CFLAGS);
        fuzz
    };
    run.run(fuzz(run, "build", &[]))?;
    for Target { name, length, real } in TARGETS {
        // What is found is kept there.
        let corpus = target.join("corpus").join(name);
        for seeds in [Some(format!("tests/fuzz/corpus/{name}")), real.map(str::to_owned)].into_iter().flatten() {
            copy(&run.root.join(seeds), &corpus)?;
        }
        let corpus = corpus.display().to_string();
        let length = format!("-max_len={length}");
        let limits = ["-rss_limit_mb=4096", "-malloc_limit_mb=256", "-timeout=60"];
        let quiet = ["-verbosity=0", "-print_funcs=0", "-print_final_stats=1"];
        for time in ["-runs=0".to_owned(), format!("-max_total_time={SECONDS}")] {
            let flags = [&[name, &corpus, "--", &length, &time][..], &limits, &quiet].concat();
            run.run(fuzz(run, "run", &flags))?;
        }
    }
    Ok(())
}

/// Copies the files of a folder.
fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let copy = || {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let path = entry?.path();
            if let (true, Some(name)) = (path.is_file(), path.file_name()) {
                fs::copy(&path, to.join(name))?;
            }
        }
        Ok(())
    };
    copy().map_err(|error: std::io::Error| format!("{}: {error}", from.display()))
}
