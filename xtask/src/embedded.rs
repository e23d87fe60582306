//! `cargo xtask embedded`: `attn-fixed` without any library, on processors of other kinds, compared bit by bit with what is
//! committed; and what it costs a microcontroller, beside the table of `examples/embedded`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{packages, run::Run};

const PROGRAM: &str = "tests/embedded";
const EXAMPLE: &str = "examples/embedded";

/// The least compiler.
const LEAST: &str = env!("CARGO_PKG_RUST_VERSION");

/// Seconds after which a program hangs.
const TIMEOUT: &str = "600";

/// A processor that Debian's QEMU emulates; `tests/embedded/.cargo/config.toml` says how a program is started there.
struct Target {
    triple: &'static str,
    name: &'static str,
    emulator: &'static str,
    package: &'static str,
    /// Whether rustup's `core` is all that a program needs: where there could be a C library, it leaves `memcpy` to that.
    rustup: bool,
}

const CORTEX_M: Target = Target {
    triple: "thumbv7em-none-eabi",
    name: "Cortex-M4",
    emulator: "qemu-system-arm",
    package: "qemu-system-arm",
    rustup: true,
};

const TARGETS: [Target; 3] = [
    CORTEX_M,
    Target {
        triple: "riscv32imac-unknown-none-elf",
        name: "32-bit RISC-V",
        emulator: "qemu-riscv32",
        package: "qemu-user",
        rustup: true,
    },
    Target {
        triple: "powerpc-unknown-linux-gnu",
        name: "big-endian 32-bit PowerPC",
        emulator: "qemu-ppc",
        package: "qemu-user",
        rustup: false,
    },
];

/// Whose `core` there is for a target.
#[derive(Clone, Copy)]
enum Compiler {
    Rustup,
    /// The packages `rustc-web` and `rust-web-src`, of one version: `core` is compiled with the program.
    Debian,
}

impl Compiler {
    fn name(self) -> &'static str {
        match self {
            Self::Rustup => "rustup's",
            Self::Debian => "Debian's",
        }
    }

    fn rustc(self) -> &'static str {
        match self {
            Self::Rustup => "rustc",
            Self::Debian => "/usr/bin/rustc",
        }
    }
}

const DEBIAN_PACKAGES: &str = "rustc-web rust-web-src lld";

pub(crate) fn check(run: &mut Run) -> Result<(), String> {
    for folder in [PROGRAM, EXAMPLE] {
        run.cargo(&["fmt", "--check", "--manifest-path", &format!("{folder}/Cargo.toml")])?;
    }
    native(run)?;
    for target in &TARGETS {
        let Some(compiler) = compiler(run, target) else { continue };
        let output = output(cargo(run, PROGRAM, compiler, &["run", "--release"], target))?;
        println!("{}", bit_equal(&output, &format!("{}, emulated by QEMU", target.name))?);
        if target.triple == CORTEX_M.triple {
            costs(run, compiler)?;
        }
    }
    Ok(())
}

/// On this machine: what is unequal is seen, and, on x86-64 Linux, the program itself.
fn native(run: &mut Run) -> Result<(), String> {
    let manifest = format!("--manifest-path={PROGRAM}/Cargo.toml");
    let target_dir = format!("--target-dir={}", target_dir(run).display());
    run.cargo(&["test", "--locked", "--release", "--lib", &manifest, &target_dir])?;
    if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        let arguments = ["run", "--locked", "--release", &manifest, &target_dir];
        let output = output(run.command(&Run::cargo_program(), &arguments))?;
        println!("{}", bit_equal(&output, "this processor")?);
    } else {
        run.skip("embedded on this machine", "the program knows x86-64 Linux");
    }
    Ok(())
}

/// The compiler for a target whose emulator is here; none, and listed as skipped, where one of the two cannot be had.
fn compiler(run: &mut Run, target: &Target) -> Option<Compiler> {
    let what = format!("embedded on {}", target.name);
    if !packages::has(run, target.emulator, target.package) {
        run.skip(&what, &format!("`apt-get install {}` failed (it needs root)", target.package));
        return None;
    }
    if target.rustup && run.run(run.command("rustup", &["target", "add", target.triple])).is_ok() {
        return Some(Compiler::Rustup);
    }
    let is_here = |run: &Run| {
        packages::starts(run, "ld.lld")
            && is_new_enough(run)
            && Path::new("/usr/lib/rustlib/src/rust/library/core/Cargo.toml").exists()
    };
    if is_here(run) || (packages::install(run, DEBIAN_PACKAGES) && is_here(run)) {
        return Some(Compiler::Debian);
    }
    let rustup = if target.rustup { format!("`rustup target add {}` and ", target.triple) } else { String::new() };
    run.skip(
        &what,
        &format!(
            "{rustup}`apt-get install {DEBIAN_PACKAGES}` failed, or got no rustc {LEAST} (it needs root, and Debian bookworm with its \
             security updates)"
        ),
    );
    None
}

/// Whether Debian's compiler is one for this workspace.
fn is_new_enough(run: &Run) -> bool {
    let output = run.command(Compiler::Debian.rustc(), &["--version"]).output();
    let version = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let minor = |version: &str| version.split('.').nth(1)?.parse::<u32>().ok();
    minor(&version) >= minor(LEAST)
}

fn target_dir(run: &Run) -> PathBuf {
    run.root.join("target/embedded")
}

/// `cargo` in a folder that has a configuration of its own.
fn cargo(run: &Run, folder: &str, compiler: Compiler, arguments: &[&str], target: &Target) -> Command {
    let mut command = run.command("timeout", &[TIMEOUT, &Run::cargo_program()]);
    command.args(arguments).current_dir(run.root.join(folder));
    command.args(["--locked", "--target", target.triple, "--target-dir"]).arg(target_dir(run));
    if let Compiler::Debian = compiler {
        let linker = format!("CARGO_TARGET_{}_LINKER", target.triple.to_uppercase().replace('-', "_"));
        command.args(["-Zbuild-std=core", "-Zbuild-std-features=compiler-builtins-mem"]);
        command.env("RUSTC", compiler.rustc()).env("RUSTC_BOOTSTRAP", "1").env(linker, "ld.lld");
    }
    command
}

/// What a command prints; shown, too.
fn output(mut command: Command) -> Result<String, String> {
    let shown = format!("{command:?}");
    println!("$ {shown}");
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("`{shown}`: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    print!("{text}");
    if output.status.success() { Ok(text) } else { Err(format!("`{shown}`: {}", output.status)) }
}

/// What the program has counted, line by line: `4096 of 4096 elements equal: attend, acceptance`. An error unless all is equal.
fn bit_equal(output: &str, place: &str) -> Result<String, String> {
    let mut totals = BTreeMap::new();
    for line in output.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let &[equal, "of", total, unit, "equal:", ..] = &words[..] else { return Err(format!("{place}: {line}")) };
        match (equal.parse::<u64>(), total.parse::<u64>()) {
            (Ok(equal), Ok(total)) if equal == total && total > 0 => *totals.entry(unit).or_insert(0) += total,
            _ => return Err(format!("not bit-equal on {place}: {line}")),
        }
    }
    if totals.is_empty() {
        return Err(format!("nothing was compared on {place}"));
    }
    let totals: Vec<_> = totals.into_iter().map(|(unit, total)| format!("{total} {unit}")).collect();
    Ok(format!("bit-equal on {place}: {}", totals.join(", ")))
}

/// Runs the example, and measures what it costs: the rows of its README for this compiler, within a twentieth.
fn costs(run: &mut Run, compiler: Compiler) -> Result<(), String> {
    let version = run.command(compiler.rustc(), &["--version"]).output().map_err(|error| format!("rustc: {error}"))?;
    let version = String::from_utf8_lossy(&version.stdout).split(' ').nth(1).unwrap_or_default().to_owned();
    let label = format!("| {} {version} |", compiler.name());
    let mut table = String::new();
    for level in ["3", "\"s\""] {
        let level_option = format!("profile.release.opt-level={level}");
        let start = |program| {
            let arguments = ["run", "--release", "--config", &level_option, "--bin", program];
            output(cargo(run, EXAMPLE, compiler, &arguments, &CORTEX_M))
        };
        let said = start("stack")?;
        let bytes = |what: &str| {
            let bytes = said.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(": ")?.parse::<u64>().ok());
            bytes.ok_or_else(|| format!("the program `stack` does not tell the {what}"))
        };
        let scratch = bytes("scratch memory")?;
        for (program, function, place) in
            [("tile", "attend_tile", "on that stack"), ("sequence", "attend", "the caller's")]
        {
            start(program)?;
            let [text, rodata] = sections(run, program)?;
            let stack = bytes(&format!("stack of {function}"))?;
            writeln!(table, "{label} {level} | `{function}` | {text} | {rodata} | {stack} | {scratch} {place} |")
                .expect("a string");
        }
    }
    println!(
        "| compiler | `opt-level` | d = 64 | `.text` | `.rodata` | stack | scratch memory |\n|---|---|---|---|---|---|---|\n{table}"
    );
    let path = format!("{EXAMPLE}/README.md");
    let committed = fs::read_to_string(run.root.join(&path)).map_err(|error| format!("{path}: {error}"))?;
    let committed: Vec<_> = committed.lines().filter(|line| line.starts_with(&label)).collect();
    if committed.is_empty() {
        run.skip(&format!("comparison with the table of {path}"), &format!("it has no rows {label}"));
    } else if is_near(&committed.join("\n"), table.trim_end()) {
        println!("the table of {path} is right within a twentieth");
    } else {
        return Err(format!("{path}: the rows above are measured, and its own are off by more than a twentieth"));
    }
    Ok(())
}

/// Bytes of code and of constants of a program of the example.
fn sections(run: &Run, program: &str) -> Result<[u64; 2], String> {
    let path = target_dir(run).join(CORTEX_M.triple).join("release").join(program).display().to_string();
    let output =
        run.command("size", &["-A", &path]).output().map_err(|error| format!("`size` of binutils: {error}"))?;
    let sizes = String::from_utf8_lossy(&output.stdout).into_owned();
    // `.text 2224 0`
    let bytes = |section: &str| {
        let mut lines = sizes.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        lines.find_map(|line| if line.first() == Some(&section) { line.get(1)?.parse().ok() } else { None })
    };
    match [bytes(".text"), bytes(".rodata")] {
        [Some(text), Some(rodata)] => Ok([text, rodata]),
        _ => Err(format!("`size -A {path}`: {sizes}")),
    }
}

/// Whether two tables differ by no more than a twentieth in their numbers, and not at all in anything else.
fn is_near(committed: &str, measured: &str) -> bool {
    let words = |table: &str| table.split([' ', '\n']).map(str::to_owned).collect::<Vec<_>>();
    let (committed, measured) = (words(committed), words(measured));
    committed.len() == measured.len()
        && committed.iter().zip(&measured).all(|(committed, measured)| {
            match (committed.parse::<u64>(), measured.parse::<u64>()) {
                (Ok(committed), Ok(measured)) => committed.abs_diff(measured) * 20 <= committed,
                _ => committed == measured,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_counted_equal_is_bit_equal() {
        let right = "2 of 2 elements equal: exp2\n1 of 1 hashes equal: floats\n3 of 3 elements equal: attend, x\n";
        assert_eq!(bit_equal(right, "M4").as_deref(), Ok("bit-equal on M4: 5 elements, 1 hashes"));
        for wrong in ["", "2 of 3 elements equal: exp2", "0 of 0 elements equal: exp2", "no attention"] {
            bit_equal(wrong, "M4").expect_err(wrong);
            bit_equal(&format!("{right}{wrong}\n"), "M4")
                .map_or_else(|_| (), |text| assert!(wrong.is_empty(), "{text}"));
        }
    }

    #[test]
    fn a_table_is_right_within_a_twentieth() {
        let table = "| `a` | 3 | 1000 |\n| `b` | 3 | 20 |";
        assert!(is_near(table, table));
        assert!(is_near(table, "| `a` | 3 | 1050 |\n| `b` | 3 | 19 |"));
        for other in
            ["| `a` | 3 | 1051 |\n| `b` | 3 | 20 |", "| `a` | 3 | 1000 |", "| `c` | 3 | 1000 |\n| `b` | 3 | 20 |", ""]
        {
            assert!(!is_near(table, other), "{other}");
        }
    }
}
