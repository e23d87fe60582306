//! Undefined behaviour of unsafe code, by Miri, which interprets it: accesses beyond an object or of what was never written, pointers
//! beside references that forbid them, races, values that a type does not have.

use crate::{
    checks::{SANITIZED, nightly},
    run::Run,
};

/// The interpreted CPU has every instruction set of attn-cpu, whatever this one has. (Miri asks for AVX-512 VL where AVX-VNNI is
/// enough.)
const FEATURES: &str = "-Ctarget-feature=+avx2,+avxvnni,+avx512bw,+avx512vnni,+avx512vl";

/// Of rayon's queues: crossbeam-epoch keeps pointers as integers, of which Miri warns; frees nothing at the end; and goes by Tree
/// Borrows, not by the older Stacked Borrows.
const RAYON: &str = "-Zmiri-permissive-provenance -Zmiri-ignore-leaks -Zmiri-tree-borrows";

/// Tests that are small enough, how many they are, and Miri's flags: they pass every unsafe block but those that are assembly or call C.
const TESTS: [(&[&str], u64, &str); 2] = [
    (&["--package", "attn-cpu", "--test", "specification", "--", "small_heads"], 1, RAYON),
    (
        &[
            "--package",
            "attn-c",
            "--package",
            "attn-npu",
            "--features",
            "attn-npu/runtime",
            "--lib",
            "--",
            "pointers",
            "a_panic_is_a_status",
            "both_sides_of_buffers",
        ],
        5,
        "",
    ),
];

/// The vector kernels, the functions for C, and the buffers of a session.
pub(crate) fn check(run: &mut Run) -> Result<(), String> {
    let Some(nightly) = nightly(run, "Miri") else { return Ok(()) };
    let install = ["component", "add", "miri", "rust-src", "--toolchain", "nightly"];
    if run.run(run.command("rustup", &install)).is_err() {
        run.skip("Miri", "it or its standard library's source is not there (`rustup component add miri rust-src`)");
        return Ok(());
    }
    let target_dir = run.root.join("target/miri").display().to_string();
    for (tests, count, flags) in TESTS {
        let miri = ["miri", "test", "--target", SANITIZED, "--target-dir", &target_dir];
        let mut command = run.command("rustup", &[&nightly[..], &miri, tests].concat());
        command.env("RUSTFLAGS", FEATURES).env("MIRIFLAGS", flags);
        run.run_tests(command, count)?;
    }
    Ok(())
}
