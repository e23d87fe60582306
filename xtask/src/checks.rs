//! The checks of `cargo xtask test`, each with its own set-up below `target/`.

use std::path::{Path, PathBuf};

use crate::run::Run;

/// Compares snapshots; the same version as the library `insta`.
const CARGO_INSTA: &str = "1.49.0";

/// What the fixtures were made with.
const NUMPY: &str = "2.4.6";

/// All tests of the workspace; a snapshot that differs or that no test names is a failure.
pub(crate) fn unit(run: &mut Run) -> Result<(), String> {
    let tools = run.root.join("target/tools");
    let insta = tools.join("bin/cargo-insta");
    if !has_version(run, &insta, CARGO_INSTA) {
        let root = tools.display().to_string();
        run.cargo(&["install", "cargo-insta", "--version", CARGO_INSTA, "--locked", "--root", &root])?;
    }
    let arguments = ["insta", "test", "--workspace", "--check", "--unreferenced=reject"];
    run.run(run.command(&insta.display().to_string(), &arguments))
}

fn has_version(run: &Run, program: &Path, version: &str) -> bool {
    run.command(&program.display().to_string(), &["--version"])
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim().ends_with(version))
}

/// Optimised code with overflow checks: the properties at the extremes, the conformance suite, and every case of
/// `attn validate`.
pub(crate) fn release_checked(run: &mut Run) -> Result<(), String> {
    run.cargo(&["test", "--profile", "release-checked", "--package", "attn-fixed", "--tests"])?;
    run.cargo(&["test", "--profile", "release-checked", "--package", "attn", "--test", "conformance"])?;
    run.cargo(&["run", "--profile", "release-checked", "--package", "attn", "--", "validate"])
}

/// The library without the command's dependencies, and the crates that are used alone.
pub(crate) fn features(run: &mut Run) -> Result<(), String> {
    run.cargo(&["check", "--package", "attn", "--lib", "--no-default-features"])?;
    run.cargo(&["check", "--package", "attn-ref"])?;
    run.cargo(&["check", "--package", "attn-ref", "--features", "serde"])?;
    run.cargo(&["check", "--package", "attn-fixed"])
}

/// Real numpy makes the same fixtures, the same float truth, and, from the written arithmetic, the same bits.
pub(crate) fn numpy(run: &mut Run) -> Result<(), String> {
    let python = python(run)?;
    let scripts: [&[&str]; 3] = [
        &["src/suite/data/make.py", "--check"],
        &["crates/attn-ref/tests/numpy/make.py", "--check"],
        &["tests/numpy/check.py"],
    ];
    for script in scripts {
        run.run(run.command(&python, script))?;
    }
    Ok(())
}

/// The interpreter of a virtual environment with the pinned numpy.
fn python(run: &mut Run) -> Result<String, String> {
    let venv: PathBuf = run.root.join("target/venv");
    let python = venv.join("bin/python").display().to_string();
    let pinned = format!("import numpy, sys; sys.exit(numpy.__version__ != '{NUMPY}')");
    let ready = |run: &Run| run.command(&python, &["-c", &pinned]).output().is_ok_and(|output| output.status.success());
    if !ready(run) {
        let path = venv.display().to_string();
        let create = ["-m", "venv", "--clear", &path];
        if run.run(run.command("python3", &create)).is_err() {
            // Debian splits venv from python3.
            let install = "apt-get update -qq && apt-get install -qq -y python3-venv";
            run.run(run.command("sh", &["-c", install])).map_err(|error| {
                format!("python3 with venv is needed (on Debian, as root: apt-get install python3-venv): {error}")
            })?;
            run.run(run.command("python3", &create))?;
        }
        let requirement = format!("numpy=={NUMPY}");
        run.run(run.command(&python, &["-m", "pip", "install", "--quiet", &requirement]))?;
    }
    Ok(python)
}

/// Format, lints and documentation, warnings denied.
pub(crate) fn lint(run: &mut Run) -> Result<(), String> {
    run.cargo(&["fmt", "--all", "--check"])?;
    run.cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"])?;
    run.cargo(&["clippy", "--package", "attn", "--lib", "--no-default-features", "--", "--deny", "warnings"])?;
    let mut doc = run.command("cargo", &["doc", "--workspace", "--no-deps", "--document-private-items"]);
    doc.env("RUSTDOCFLAGS", "--deny warnings");
    run.run(doc)
}

/// Links and runs `tests/freestanding` without any library.
pub(crate) fn freestanding(_run: &mut Run) -> Result<(), String> {
    Err("not there yet".to_owned())
}
