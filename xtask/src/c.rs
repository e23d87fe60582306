//! `cargo xtask c`: the libraries of `attn-c` as C and Python see them.

use std::{fs, path::Path, process::Command};

use crate::{
    checks::{self, SANITIZED, nightly},
    packages,
    run::Run,
};

const PAGE: &str = "crates/attn-c/README.md";
const TEST: &str = "crates/attn-c/tests/attn.c";
const HEADER: &str = "crates/attn-c/include/attn.h";
const VECTORS: &str = "crates/attn-fixed/vectors/attention.csv";

/// Warnings of the header and of what includes it.
const WARNINGS: [&str; 5] = ["-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic"];

/// Flags of gcc for what is not Rust. Debian's clang comes without the libraries of its sanitizers.
const SANITIZERS: [&str; 1] = ["-fsanitize=address,undefined"];

/// The header in C and C++, the tests with the shared and the static library, the page's examples, Python.
pub(crate) fn check(run: &mut Run) -> Result<(), String> {
    if !cfg!(target_os = "linux") {
        run.skip("C", "the libraries are linked on Linux only");
        return Ok(());
    }
    let target = run.target();
    let folder = run.root.join("target/c");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let page = fs::read_to_string(run.root.join(PAGE)).map_err(|error| format!("{PAGE}: {error}"))?;
    let example = folder.join("example.c");
    write(&example, block(&page, "c")?)?;

    let system = native_libraries(run)?;
    if !page.contains(&system) {
        return Err(format!("{PAGE}: the static library needs {system}"));
    }
    let libraries = target.join("release");
    let runtime_path = format!("-Wl,-rpath,{}", libraries.display());
    let shared = ["-L", &path(&libraries), "-lattn", "-lm", "-lpthread", &runtime_path].map(str::to_owned);
    let statically = with_static(&libraries.join("libattn.a"), &system);
    let compilers = compilers(run);
    for compiler in &compilers {
        let languages: &[_] = if compiler.ends_with("++") { &["-xc++", "-std=c++11"] } else { &["-xc", "-std=c99"] };
        run.run(run.command(compiler, &[&WARNINGS[..], languages, &["-fsyntax-only", HEADER]].concat()))?;
    }
    for compiler in compilers.iter().filter(|compiler| !compiler.ends_with("++")) {
        let flags: &[&str] = if *compiler == "gcc" { &SANITIZERS } else { &[] };
        for (name, link) in [("shared", &shared[..]), ("static", &statically)] {
            let program = folder.join(format!("test-{compiler}-{name}"));
            let mut test = compile(run, compiler, Path::new(TEST), &program, flags, link)?;
            test.arg(VECTORS);
            run.run(test)?;
            let program = folder.join(format!("example-{compiler}-{name}"));
            let example = compile(run, compiler, &example, &program, flags, link)?;
            run.run(example)?;
        }
    }
    if compilers.contains(&"gcc") {
        sanitized(run, &folder, &system)?;
    }
    python(run, &folder, &libraries.join("libattn.so"), block(&page, "python")?)
}

/// Builds the libraries; what the static one needs of the system.
fn native_libraries(run: &mut Run) -> Result<String, String> {
    let build = [
        "rustc",
        "--color",
        "never",
        "--release",
        "--package",
        "attn-c",
        "--lib",
        "--",
        "--print",
        "native-static-libs",
    ];
    let output =
        run.command(&Run::cargo_program(), &build).output().map_err(|error| format!("`cargo rustc`: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let libraries = said.lines().find_map(|line| line.strip_prefix("note: native-static-libs: "));
    match libraries {
        Some(libraries) if output.status.success() => Ok(libraries.trim().to_owned()),
        _ => Err(format!("`cargo {}`: {}\n{said}", build.join(" "), output.status)),
    }
}

/// The arguments that link a static library with what it needs.
fn with_static(library: &Path, system: &str) -> Vec<String> {
    std::iter::once(path(library)).chain(system.split(' ').map(str::to_owned)).collect()
}

/// The compilers for C and C++ that are here, or can be installed.
fn compilers(run: &mut Run) -> Vec<&'static str> {
    const PACKAGES: &str = "gcc g++ clang";
    let mut here = Vec::new();
    for compiler in ["gcc", "clang", "g++", "clang++"] {
        if packages::has(run, compiler, PACKAGES) {
            here.push(compiler);
        } else {
            run.skip(&format!("C with {compiler}"), &format!("`apt-get install {PACKAGES}` failed (it needs root)"));
        }
    }
    here
}

/// Compiles a program of one file, and is the command that runs it.
fn compile(
    run: &mut Run,
    compiler: &str,
    source: &Path,
    program: &Path,
    flags: &[&str],
    link: &[String],
) -> Result<Command, String> {
    // Threads are POSIX's.
    let language = ["-std=c99", "-D_XOPEN_SOURCE=600", "-g", "-Icrates/attn-c/include"];
    let mut command = run.command(compiler, &[&WARNINGS[..], &language, flags].concat());
    command.arg(source).args(link).arg("-o").arg(program);
    run.run(command)?;
    Ok(run.command(&path(program), &[]))
}

/// The test with a library that is under `AddressSanitizer` itself, and has the backend `npu`.
fn sanitized(run: &mut Run, folder: &Path, system: &str) -> Result<(), String> {
    let Some(nightly) = nightly(run, "libattn.a under AddressSanitizer") else { return Ok(()) };
    let target_dir = run.root.join("target/sanitizer");
    let build = ["build", "--package", "attn-c", "--features", "npu", "--target", SANITIZED, "--target-dir"];
    let mut command = run.command("rustup", &[&nightly[..], &build, &[&path(&target_dir)]].concat());
    command.env("RUSTFLAGS", "-Zsanitizer=address");
    run.run(command)?;
    let link = with_static(&target_dir.join(SANITIZED).join("debug/libattn.a"), system);
    let mut test = compile(run, "gcc", Path::new(TEST), &folder.join("test-sanitized"), &SANITIZERS, &link)?;
    test.args([VECTORS, "npu"]);
    run.run(test)
}

/// The library from Python: the bits, the acceptance test, the page's example.
fn python(run: &mut Run, folder: &Path, library: &Path, example: &str) -> Result<(), String> {
    let python = checks::python(run)?;
    let library = path(library);
    run.run(run.command(&python, &["tests/numpy/in_process.py", &library]))?;
    run.run(run.command(&python, &["examples/python/acceptance.py", "--library", &library]))?;
    if !run.command(&python, &["-c", "import torch"]).output().is_ok_and(|output| output.status.success()) {
        let why =
            "torch in Python takes several GB; the float64 truth was compared with (`pip install torch` to have both)";
        run.skip("acceptance test against torch", why);
    }
    let script = folder.join("example.py");
    write(&script, example)?;
    let mut command = run.command(&python, &[&path(&script)]);
    command.env("ATTN_LIBRARY", library).env("PYTHONPATH", run.root.join("examples/python"));
    run.run(command)
}

/// The only block of this language on a page.
fn block<'a>(page: &'a str, language: &str) -> Result<&'a str, String> {
    let blocks: Vec<_> = page.split(&format!("\n```{language}\n")).skip(1).collect();
    match blocks[..] {
        [block] => Ok(block.split("```").next().unwrap_or_default()),
        _ => Err(format!("{PAGE}: got {} blocks of {language}, expected one", blocks.len())),
    }
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

fn path(path: &Path) -> String {
    path.display().to_string()
}
