//! `cargo xtask c`: the libraries of `attn-c` as C and Python see them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    checks::{self, SANITIZED, nightly},
    run::Run,
};

const PAGE: &str = "crates/attn-c/README.md";
const TEST: &str = "crates/attn-c/tests/attn.c";
const HEADER: &str = "crates/attn-c/include/attn.h";
const VECTORS: &str = "crates/attn-fixed/vectors/attention.csv";

/// Warnings of the header and of what includes it.
const WARNINGS: [&str; 5] = ["-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic"];

/// Compilers for C and C++, which may be clang's only where it is.
const COMPILERS: [[&str; 2]; 2] = [["gcc", "g++"], ["clang", "clang++"]];

/// Flags of the compiler for what is not Rust.
const SANITIZERS: &str = "-fsanitize=address,undefined";

/// The header in C and C++, the tests with the shared and the static library, the page's examples, Python.
pub(crate) fn check(run: &mut Run) -> Result<(), String> {
    if !cfg!(target_os = "linux") {
        run.skip("C", "the libraries are linked on Linux only");
        return Ok(());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| run.root.join("target"), PathBuf::from);
    let folder = run.root.join("target/c");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let page = fs::read_to_string(run.root.join(PAGE)).map_err(|error| format!("{PAGE}: {error}"))?;
    let example = folder.join("example.c");
    write(&example, block(&page, "c")?)?;

    let system = native_libraries(run)?;
    if !page.contains(&system) {
        return Err(format!("{PAGE}: the static library needs {system}"));
    }
    let system: Vec<_> = system.split(' ').collect();
    let libraries = target.join("release");
    let shared = ["-L", &path(&libraries), "-lattn", "-lm", "-lpthread", &format!("-Wl,-rpath,{}", path(&libraries))]
        .map(str::to_owned);
    let statically =
        [&[path(&libraries.join("libattn.a"))][..], &system.iter().map(ToString::to_string).collect::<Vec<_>>()]
            .concat();
    for [c, cpp] in COMPILERS {
        if [c, cpp].iter().any(|compiler| run.command(compiler, &["--version"]).output().is_err()) {
            run.skip(&format!("C with {c}"), "no such compiler");
            continue;
        }
        for (compiler, language) in [(c, ["-xc", "-std=c99"]), (c, ["-xc", "-std=c11"]), (cpp, ["-xc++", "-std=c++11"])]
        {
            run.run(run.command(compiler, &[&WARNINGS[..], &language, &["-fsyntax-only", HEADER]].concat()))?;
        }
        for (name, link) in [("shared", &shared[..]), ("static", &statically)] {
            let program =
                compile(run, c, Path::new(TEST), &folder.join(format!("test-{c}-{name}")), &[SANITIZERS], link)?;
            run.run(run.command(&program, &[VECTORS]))?;
            let program = compile(run, c, &example, &folder.join(format!("example-{c}-{name}")), &[], link)?;
            run.run(run.command(&program, &[]))?;
        }
    }
    sanitized(run, &folder, &system)?;
    python(run, &folder, &libraries.join("libattn.so"), block(&page, "python")?)
}

/// Builds the libraries; what the static one needs of the system.
fn native_libraries(run: &mut Run) -> Result<String, String> {
    let build = ["rustc", "--release", "--package", "attn-c", "--lib", "--", "--print", "native-static-libs"];
    let output =
        run.command(&Run::cargo_program(), &build).output().map_err(|error| format!("`cargo rustc`: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let libraries = said.lines().find_map(|line| line.strip_prefix("note: native-static-libs: "));
    match libraries {
        Some(libraries) if output.status.success() => Ok(libraries.trim().to_owned()),
        _ => Err(format!("`cargo {}`: {}\n{said}", build.join(" "), output.status)),
    }
}

/// A program of one file.
fn compile(
    run: &mut Run,
    compiler: &str,
    source: &Path,
    program: &Path,
    flags: &[&str],
    link: &[String],
) -> Result<String, String> {
    // Threads of POSIX, beside plain C.
    let language = ["-std=c99", "-D_XOPEN_SOURCE=600", "-g", "-Icrates/attn-c/include"];
    let mut command: Command = run.command(compiler, &[&WARNINGS[..], &language, flags].concat());
    command.arg(source).args(link).arg("-o").arg(program);
    run.run(command)?;
    Ok(path(program))
}

/// The tests on a static library under `AddressSanitizer`, with the backend `npu`.
fn sanitized(run: &mut Run, folder: &Path, system: &[&str]) -> Result<(), String> {
    let Some(nightly) = nightly(run, "C under AddressSanitizer") else { return Ok(()) };
    if run.command("clang", &["--version"]).output().is_err() {
        run.skip("C under AddressSanitizer", "no clang, whose sanitizer is Rust's");
        return Ok(());
    }
    let target_dir = run.root.join("target/sanitizer");
    let build = ["build", "--package", "attn-c", "--features", "npu", "--target", SANITIZED, "--target-dir"];
    let mut command = run.command("rustup", &[&nightly[..], &build, &[&path(&target_dir)]].concat());
    command.env("RUSTFLAGS", "-Zsanitizer=address");
    run.run(command)?;
    let library = path(&target_dir.join(SANITIZED).join("debug/libattn.a"));
    let link: Vec<_> = std::iter::once(library.as_str()).chain(system.iter().copied()).map(str::to_owned).collect();
    let program = compile(run, "clang", Path::new(TEST), &folder.join("test-sanitized"), &[SANITIZERS], &link)?;
    run.run(run.command(&program, &[VECTORS, "npu"]))
}

/// The library from Python: the bits, the acceptance test, the page's example.
fn python(run: &mut Run, folder: &Path, library: &Path, example: &str) -> Result<(), String> {
    let python = checks::python(run)?;
    let library = path(library);
    run.run(run.command(&python, &["tests/numpy/in_process.py", &library]))?;
    run.run(run.command(&python, &["examples/python/acceptance.py", "--library", &library]))?;
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
