//! `cargo xtask`: the project's own commands. `cargo xtask test` does its own set-up and passes all tests.

mod browser;
mod c;
mod checks;
mod debian;
mod embedded;
mod folders;
mod fuzz;
mod generate;
mod host_model;
mod instructions;
mod kernels;
mod leaks;
mod libtorch;
mod miri;
mod npu;
mod packages;
mod release;
mod report;
mod run;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod step;
mod whisper;
mod xclbinutil;

use std::{borrow::Cow, process::ExitCode};

use run::Run;

const USAGE: &str = "usage: cargo xtask COMMAND

  test             everything below but lint, with its own set-up (what continuous integration calls)
  unit             all tests of the workspace, snapshots compared and none unreferenced
  release-checked  the arithmetic, on whole domains too, the suite and `attn validate`, optimised and with overflow checks
  sanitizer        unsafe code under AddressSanitizer and in Miri, threads under ThreadSanitizer, with a nightly compiler; no command loses memory
  features         every crate builds with every choice of its features
  release          licences, bans and sources of the dependencies; packages that build by themselves; the least compiler
  generated        generated files are what attn-fixed generates today
  instructions     a tile and a head take as many instructions as on record, counted by valgrind or step by step
  numpy            fixtures, float truth, arithmetic and archives against real numpy
  c                the libraries for C: the header, a test in C with both of them, the same from Python
  kernels          the NPU's kernels: without warnings, freestanding, and the suite's inputs under sanitizers
  xclbinutil       `attn npu inspect` against XRT's own tool, in a Debian below target/
  emulated-npu     the backend npu through XRT, on an emulated driver in that Debian: conformance, failures, a soak
  embedded         attn-fixed without any library, bit by bit on a Cortex-M4, RISC-V and PowerPC; what it costs
  torch            float attention in libtorch, which it installs; lints and documentation of those parts
  whisper-base     the real model hears the same with integers: its weights and recordings, which it gets
  report           the page of `attn validate --report` in Chromium: what it says, how it looks, on paper, and that it needs nothing
  fuzz             whatever bytes say, all backends agree with the specification, files are read or refused: a minute each
  lint             format, clippy and documentation without warnings
  npu              the same on the NPU of this machine, with the XRT, Peano and mlir-aie that it has
  whisper ARGS     transcribe recordings with Whisper-base and the attention of one's choice; --help
  recordings       make the recordings of docs/whisper.md, in target/whisper/recordings
  libtorch         install libtorch below target/, or check the one that the environment names
  generate         write the generated files
  pictures         take the pictures that a report should look like
  count            count instructions and put them on record";

type Check = fn(&mut Run) -> Result<(), String>;

const CHECKS: [(&str, Check); 17] = [
    ("unit", checks::unit),
    ("release-checked", checks::release_checked),
    ("sanitizer", checks::sanitizer),
    ("features", checks::features),
    ("release", release::check),
    ("generated", generate::check),
    ("instructions", instructions::check),
    ("numpy", checks::numpy),
    ("c", c::check),
    ("kernels", kernels::check),
    ("xclbinutil", xclbinutil::check),
    ("emulated-npu", npu::emulated),
    ("embedded", embedded::check),
    ("torch", libtorch::check),
    ("whisper-base", whisper::check),
    ("report", report::check),
    ("fuzz", fuzz::check),
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if let Some((command, arguments)) = arguments.split_first()
        && command == "whisper"
    {
        return whisper::run(arguments);
    }
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    let checks: Vec<(&'static str, Check)> = match arguments.iter().map(AsRef::as_ref).collect::<Vec<_>>()[..] {
        ["test"] => CHECKS.to_vec(),
        ["lint"] => vec![("lint", checks::lint)],
        ["npu"] => vec![("npu", npu::device)],
        ["recordings"] => vec![("recordings", whisper::recordings)],
        ["libtorch"] => vec![("libtorch", libtorch::install)],
        ["generate"] => vec![("generate", generate::write)],
        ["pictures"] => vec![("pictures", report::write)],
        ["count"] => vec![("count", instructions::write)],
        [name] if CHECKS.iter().any(|(check, _)| *check == name) => {
            CHECKS.into_iter().filter(|(check, _)| *check == name).collect()
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    let mut run = Run::new(checks.iter().map(|(name, _)| *name).collect());
    if let Some(result) = again_with_a_compiler(&mut run, &arguments) {
        return result;
    }
    for (name, check) in checks {
        run.check(name, check);
    }
    run.finish()
}

/// Runs this again once there is a C++ compiler: what was built without one, this program too, has a backend less.
fn again_with_a_compiler(run: &mut Run, arguments: &[Cow<'_, str>]) -> Option<ExitCode> {
    if packages::starts(run, "c++") || !packages::has(run, "c++", "g++") {
        return None;
    }
    for profile in ["dev", "release"] {
        run.cargo(&["clean", "--package", "attn-npu", "--profile", profile]).ok()?;
    }
    let mut again = run.command(&Run::cargo_program(), &["xtask"]);
    let status = again.args(arguments.iter().map(AsRef::as_ref)).status();
    Some(if status.is_ok_and(|status| status.success()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
