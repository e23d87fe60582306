//! The checks of `cargo xtask test`, each with its own set-up below `target/`.

use std::{fs, path::PathBuf};

use attn_cpu::Isa;
use attn_npu::Kernel;

use crate::{leaks, miri, packages, run::Run};

/// Compares snapshots; the same version as the library `insta`.
const CARGO_INSTA: &str = "1.49.0";

/// Builds every choice of features.
const CARGO_HACK: &str = "0.6.46";

/// The member that is not built without libtorch; the check `whisper-base` has its tests and lints.
pub(crate) const NEEDS_LIBTORCH: &str = "attn-whisper";

/// What the fixtures were made with.
const NUMPY: &str = "2.4.6";

/// All tests of the workspace; a snapshot that differs or that no test names is a failure.
pub(crate) fn unit(run: &mut Run) -> Result<(), String> {
    let insta = tool(run, "cargo-insta", CARGO_INSTA)?;
    // Snapshots of a kernel that is not here have no test.
    let unreferenced =
        if Kernel::ALL.into_iter().all(|kernel| kernel.entry_points().is_ok()) { "reject" } else { "ignore" };
    let arguments =
        ["insta", "test", "--workspace", "--exclude", NEEDS_LIBTORCH, "--check", "--unreferenced", unreferenced];
    run.run(run.command(&insta, &arguments))?;
    // Their tests say so too, where nobody reads it.
    let (here, missing): (Vec<_>, Vec<_>) = Isa::ALL.into_iter().partition(|isa| isa.is_available());
    for isa in missing {
        run.skip(&format!("backend {}", isa.name()), "this CPU does not have the instructions");
    }
    let mut here: Vec<_> = here.into_iter().map(Isa::name).collect();
    for kernel in Kernel::ALL {
        match kernel.entry_points() {
            Ok(_) => here.push(kernel.name()),
            Err(error) => run.skip(&format!("backend {}", kernel.name()), &error.to_string()),
        }
    }
    println!("the conformance suite ran on the backends scalar, {}", here.join(", "));
    Ok(())
}

/// A program of cargo's in exactly this version, installed below `target/tools`.
pub(crate) fn tool(run: &mut Run, name: &str, version: &str) -> Result<String, String> {
    let tools = run.root.join("target/tools");
    let program = tools.join("bin").join(name).display().to_string();
    // Cargo's own list of what it has installed there: not every program knows --version.
    let installed = fs::read_to_string(tools.join(".crates.toml")).unwrap_or_default();
    if !installed.contains(&format!("\"{name} {version} ")) {
        let root = tools.display().to_string();
        // It starts sooner than it would be optimised.
        let install = ["install", name, "--version", version, "--locked", "--debug", "--root", &root];
        let mut install = run.command(&Run::cargo_program(), &install);
        // Built in a folder that does not stay.
        install.env_remove("CARGO_TARGET_DIR");
        run.run(install)?;
    }
    Ok(program)
}

/// Optimised code with overflow checks: functions of one argument on everything that it can be, the properties at the extremes, the
/// conformance suite, and every case of `attn validate` on the specification and on the fastest backend.
pub(crate) fn release_checked(run: &mut Run) -> Result<(), String> {
    let arithmetic = ["--package", "attn-fixed", "--package", "attn-cpu", "--package", "attn-npu"];
    let test = ["test", "--profile", "release-checked"];
    run.cargo(&[&test[..], &arithmetic, &["--tests", "--", "--include-ignored"]].concat())?;
    run.cargo(&["test", "--profile", "release-checked", "--package", "attn", "--test", "conformance"])?;
    for backend in ["scalar", "auto"] {
        run.cargo(&[
            "run",
            "--profile",
            "release-checked",
            "--package",
            "attn",
            "--",
            "validate",
            "--backend",
            backend,
        ])?;
    }
    Ok(())
}

/// Where sanitizers are run.
pub(crate) const SANITIZED: &str = "x86_64-unknown-linux-gnu";

/// How to call cargo for a sanitizer, which needs a nightly compiler; none, and listed as skipped, where there is none.
pub(crate) fn nightly(run: &mut Run, what: &str) -> Option<[&'static str; 3]> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        run.skip(what, "it is run on x86-64 Linux only");
        return None;
    }
    let nightly = ["run", "nightly", "cargo"];
    if !run.command("rustup", &[&nightly[..], &["--version"]].concat()).output().is_ok_and(|x| x.status.success()) {
        run.skip(what, "no nightly compiler (`rustup toolchain install nightly`)");
        return None;
    }
    Some(nightly)
}

/// The vector kernels' unsafe code under `AddressSanitizer`; `kernels` has that of the NPU's.
fn vector_kernels(run: &mut Run) -> Result<(), String> {
    let Some(nightly) = nightly(run, "AddressSanitizer") else { return Ok(()) };
    let target_dir = run.root.join("target/sanitizer").display().to_string();
    // The test of memory has an allocator of its own.
    let test = ["test", "--package", "attn-cpu", "--lib", "--test", "specification", "--target", SANITIZED];
    let mut command = run.command("rustup", &[&nightly[..], &test, &["--target-dir", &target_dir]].concat());
    command.env("RUSTFLAGS", "-Zsanitizer=address");
    run.run(command)
}

/// Heads on threads under `ThreadSanitizer`, with a standard library that has it too: without, it does not see what a mutex orders.
fn threads(run: &mut Run) -> Result<(), String> {
    let Some(nightly) = nightly(run, "ThreadSanitizer") else { return Ok(()) };
    if run.run(run.command("rustup", &["component", "add", "rust-src", "--toolchain", "nightly"])).is_err() {
        run.skip("ThreadSanitizer", "no source of nightly's standard library (`rustup component add rust-src`)");
        return Ok(());
    }
    let target_dir = run.root.join("target/threads").display().to_string();
    let test = ["test", "-Zbuild-std", "--package", "attn-cpu", "--test", "specification", "--target", SANITIZED];
    let target_dir = ["--target-dir", &target_dir, "--", "threads"];
    let mut command = run.command("rustup", &[&nightly[..], &test, &target_dir].concat());
    command.env("RUSTFLAGS", "-Zsanitizer=thread");
    run.run_tests(command, 1)
}

/// The unsafe code and the threads under sanitizers and in an interpreter, and the command's memory when it ends.
pub(crate) fn sanitizer(run: &mut Run) -> Result<(), String> {
    vector_kernels(run)?;
    threads(run)?;
    miri::check(run)?;
    leaks::check(run)
}

/// Every crate with every choice of its features; nobody builds libtorch's parts who did not ask for them. What needs XRT or libtorch
/// to build is left to the checks that install them.
pub(crate) fn features(run: &mut Run) -> Result<(), String> {
    let hack = tool(run, "cargo-hack", CARGO_HACK)?;
    let powerset = ["hack", "check", "--feature-powerset", "--exclude-features", "torch,xrt,xrt-shim"];
    let packages =
        ["attn-fixed", "attn-cpu", "attn-npu", "attn-ref", "attn", "attn-c"].map(|package| ["--package", package]);
    run.run(run.command(&hack, &[&powerset[..], packages.as_flattened()].concat()))?;
    let tree = run.command(&Run::cargo_program(), &["tree", "--package", "attn", "--prefix", "none"]).output();
    let tree = tree.map_err(|error| format!("`cargo tree`: {error}"))?;
    let has_torch = |line: &str| line.split(' ').next().is_some_and(|package| package.contains("torch"));
    match String::from_utf8_lossy(&tree.stdout).lines().find(|line| has_torch(line)) {
        None if tree.status.success() => Ok(()),
        None => Err(format!("`cargo tree`: {}", tree.status)),
        Some(line) => Err(format!("attn depends on {line} without the feature `torch`")),
    }
}

/// Real numpy makes the same fixtures, the same float truth, and, from the written arithmetic, the same bits; it and the
/// `attn` command read each other's archives.
pub(crate) fn numpy(run: &mut Run) -> Result<(), String> {
    let python = python(run)?;
    run.cargo(&["build", "--package", "attn", "--bin", "attn"])?;
    let attn = run.target().join("debug/attn").display().to_string();
    let scripts: [&[&str]; 5] = [
        &["src/suite/data/make.py", "--check"],
        &["crates/attn-ref/tests/numpy/make.py", "--check"],
        &["tests/numpy/check.py"],
        &["tests/report/make.py", "--check"],
        &["tests/numpy/interop.py", &attn],
    ];
    for script in scripts {
        run.run(run.command(&python, script))?;
    }
    Ok(())
}

/// The interpreter of a virtual environment with the pinned numpy.
pub(crate) fn python(run: &mut Run) -> Result<String, String> {
    let venv: PathBuf = run.root.join("target/venv");
    let python = venv.join("bin/python").display().to_string();
    let pinned = format!("import numpy, sys; sys.exit(numpy.__version__ != '{NUMPY}')");
    let ready = |run: &Run| run.command(&python, &["-c", &pinned]).output().is_ok_and(|output| output.status.success());
    if !ready(run) {
        let path = venv.display().to_string();
        let create = ["-m", "venv", "--clear", &path];
        if run.run(run.command("python3", &create)).is_err() {
            // Debian splits venv from python3.
            if !packages::install(run, "python3-venv") {
                return Err("python3 with venv is needed (on Debian, as root: apt-get install python3-venv)".to_owned());
            }
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
    let workspace = ["--workspace", "--exclude", NEEDS_LIBTORCH];
    run.cargo(&[&["clippy"], &workspace[..], &["--all-targets", "--", "--deny", "warnings"]].concat())?;
    run.cargo(&["clippy", "--package", "attn", "--lib", "--no-default-features", "--", "--deny", "warnings"])?;
    let doc = [&["doc"], &workspace[..], &["--no-deps", "--document-private-items"]].concat();
    let mut doc = run.command(&Run::cargo_program(), &doc);
    doc.env("RUSTDOCFLAGS", "--deny warnings");
    run.run(doc)
}
