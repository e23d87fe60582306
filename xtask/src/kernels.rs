//! `cargo xtask kernels`: what the NPU's compiler will ask of the kernels' source, asked of the compilers that are here; and
//! the suite's inputs under sanitizers.

use crate::{
    checks::{SANITIZED, nightly},
    host_model, packages,
    run::Run,
};

/// Sources of one language, relative to `kernels/`.
struct Language {
    sources: &'static [&'static str],
    /// With GCC, and with Clang.
    compilers: [&'static str; 2],
    flags: &'static [&'static str],
}

const LANGUAGES: [Language; 2] = [
    Language { sources: &["attention_tile.c", "host_functions.c"], compilers: ["gcc", "clang"], flags: &["-std=c11"] },
    Language {
        sources: &["aie2/attention_tile.cc", "host_model/model.cc"],
        compilers: ["g++", "clang++"],
        flags: &["-std=c++20", "-fno-exceptions", "-fno-rtti", "-Ikernels/host_model"],
    },
];

const FLAGS: [&str; 6] = ["-O2", "-ffreestanding", "-Wall", "-Wextra", "-Werror", "-Wconversion"];

/// Targets of 32 bits without an operating system: one that counts leading zeros itself, one that does not.
const BARE_METAL: [[&str; 2]; 2] =
    [["--target=thumbv7em-none-eabi", "-mcpu=cortex-m4"], ["--target=riscv32-none-elf", "-march=rv32imc"]];

/// Sections that somebody has to fill before the program starts.
const LOADED: [&str; 6] = [".data", ".bss", ".tdata", ".tbss", ".init_array", ".ctors"];

pub(crate) fn check(run: &mut Run) -> Result<(), String> {
    let target = run.root.join("target/kernels");
    std::fs::create_dir_all(&target).map_err(|error| format!("{}: {error}", target.display()))?;
    let object = target.join("kernel.o").display().to_string();
    let has_clang = has_clang(run);

    for Language { sources, compilers, flags } in LANGUAGES {
        for source in sources.iter().map(|source| format!("kernels/{source}")) {
            for compiler in compilers {
                if run.command(compiler, &["--version"]).output().is_err() {
                    run.skip(&format!("{source} with {compiler}"), "no such compiler");
                    continue;
                }
                run.run(run.command(compiler, &[&FLAGS, flags, &["-c", &source, "-o", &object][..]].concat()))?;
            }
        }
    }
    for compiler in ["g++", "clang++"] {
        if run.command(compiler, &["--version"]).output().is_ok() {
            host_model::check(run, compiler)?;
        } else {
            run.skip(&format!("tests of the host model with {compiler}"), "no such compiler");
        }
    }
    if has_clang {
        for target in BARE_METAL {
            let source = ["-std=c11", "-c", "kernels/attention_tile.c", "-o", &object];
            run.run(run.command("clang", &[&FLAGS[..], &target, &source].concat()))?;
            needs_nothing(run, &object)?;
        }
    }
    sanitizers(run, has_clang)
}

/// Whether Clang and LLVM's tools are here, or can be installed.
pub(crate) fn has_clang(run: &mut Run) -> bool {
    let is_here = ["clang", "llvm-nm"].iter().all(|tool| packages::has(run, tool, "clang llvm"));
    if !is_here {
        run.skip("kernels for bare metal", "`apt-get install clang llvm` failed (it needs root)");
    }
    is_here
}

/// An object that is linked with nothing, and that nobody has to load: no undefined symbol, no data that can be written.
fn needs_nothing(run: &Run, object: &str) -> Result<(), String> {
    let output = |tool: &str, arguments: &[&str]| {
        let output = run.command(tool, arguments).output().map_err(|error| format!("`{tool}`: {error}"))?;
        if !output.status.success() {
            return Err(format!("`{tool}`: {}", String::from_utf8_lossy(&output.stderr)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let undefined = output("llvm-nm", &["--undefined-only", "--just-symbol-name", object])?;
    if !undefined.trim().is_empty() {
        return Err(format!("undefined symbols: {}", undefined.split_whitespace().collect::<Vec<_>>().join(", ")));
    }
    // `.text 2224 0`
    let sections = output("llvm-size", &["-A", object])?;
    let sections = sections.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.parse::<u64>().ok()?))
    });
    let sections: Vec<_> = sections.collect();
    let is = |name: &str, kind: &str| name == kind || name.strip_prefix(kind).is_some_and(|rest| rest.starts_with('.'));
    let bytes = |kind: &str| sections.iter().filter(|(name, _)| is(name, kind)).map(|(_, bytes)| bytes).sum::<u64>();
    if let Some(kind) = LOADED.into_iter().find(|kind| bytes(kind) > 0) {
        return Err(format!("{} bytes in {kind}, which need a loader", bytes(kind)));
    }
    println!(
        "no undefined symbol, no writable data; {} bytes of code, {} of constants",
        bytes(".text"),
        bytes(".rodata")
    );
    Ok(())
}

/// The unit tests and the suite on the kernels: the kernels under `AddressSanitizer` and the trapping form of
/// `UndefinedBehaviorSanitizer`, which needs no library, everything else under `AddressSanitizer`.
fn sanitizers(run: &mut Run, has_clang: bool) -> Result<(), String> {
    let Some(nightly) = nightly(run, "kernels under sanitizers") else { return Ok(()) };
    let target_dir = run.root.join("target/sanitizer").display().to_string();
    let options = ["--target", SANITIZED, "--target-dir", &target_dir];
    let flags = "-fsanitize=address,undefined -fsanitize-undefined-trap-on-error";
    for test in
        [&["test", "--package", "attn-npu", "--lib"][..], &["test", "--package", "attn", "--test", "conformance"]]
    {
        let is_suite = test.contains(&"attn");
        let filter: &[&str] = if is_suite { &["--", "kernel::", "aie2_model::"] } else { &[] };
        let mut command = run.command("rustup", &[&nightly[..], test, &options, filter].concat());
        command.env("RUSTFLAGS", "-Zsanitizer=address").env("CFLAGS", flags).env("CXXFLAGS", flags);
        if has_clang {
            // The type of a function that is called through a pointer would need the library of C++.
            command.env("CC", "clang").env("CXX", "clang++").env("CXXFLAGS", format!("{flags} -fno-sanitize=function"));
        }
        if is_suite { run.run_tests(command, 16)? } else { run.run(command)? }
    }
    Ok(())
}
