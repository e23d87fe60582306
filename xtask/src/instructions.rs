//! Instructions of a tile and of a head on every backend: exact, unlike time, so that a slower kernel does not pass for noise.
//!
//! Valgrind's callgrind counts what it can emulate; it knows neither AVX-512 nor AVX-VNNI. What it cannot run, this process
//! steps through, where the CPU has it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use attn_cpu::Isa;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
use crate::step;
use crate::{packages, run::Run};

/// What was counted last: `BACKEND WORKLOAD COUNT` in each line.
const RECORD: &str = "benches/instructions.txt";

/// Counts may differ so much, in parts of 100, from those on record: another patch release of the compiler.
const PER_CENT: u64 = 3;

/// `scalar`, and the one instruction set that valgrind emulates.
const EMULATED: [&str; 2] = ["scalar", Isa::Avx2.name()];
const EMULATED_WORKLOADS: [&str; 2] = ["tile", "head"];

/// What is stepped through, a thousand times slower: of the head the first 32 queries, against all keys.
const STEPPED_WORKLOADS: [&str; 2] = ["tile", "queries"];

type Counts = BTreeMap<(String, String), u64>;

/// Backends that cannot be counted here; they are listed as skipped.
type Skipped = BTreeSet<&'static str>;

/// Compares the counts with those on record.
pub(crate) fn check(run: &mut Run) -> Result<(), String> {
    let (counts, skipped) = count(run)?;
    let mut expected = read(run)?;
    expected.retain(|(backend, _), _| !skipped.contains(backend.as_str()));
    let mut wrong = Vec::new();
    for (key @ (backend, workload), &got) in &counts {
        match expected.remove(key) {
            Some(expected) if got.abs_diff(expected) * 100 <= expected * PER_CENT => {}
            expected => {
                let expected =
                    expected.map_or_else(|| "no record".to_owned(), |count| format!("{count} ± {PER_CENT} %"));
                wrong.push(format!("{backend} {workload}: got {got} instructions, expected {expected}"));
            }
        }
    }
    wrong
        .extend(expected.keys().map(|(backend, workload)| format!("{backend} {workload}: on record, but not counted")));
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!("{}; if that is meant, `cargo xtask count` writes {RECORD}", wrong.join("; ")))
}

/// Writes the record; what cannot be counted here stays as it is.
pub(crate) fn write(run: &mut Run) -> Result<(), String> {
    let (mut counts, skipped) = count(run)?;
    let mut old = read(run)?;
    old.retain(|(backend, _), _| skipped.contains(backend.as_str()));
    counts.append(&mut old);
    let lines = counts.iter().map(|((backend, workload), count)| format!("{backend} {workload} {count}\n"));
    fs::write(record(run), lines.collect::<String>()).map_err(|error| format!("{RECORD}: {error}"))
}

fn record(run: &Run) -> PathBuf {
    run.root.join(RECORD)
}

fn read(run: &Run) -> Result<Counts, String> {
    parse(&fs::read_to_string(record(run)).map_err(|error| format!("{RECORD}: {error}"))?)
}

fn parse(text: &str) -> Result<Counts, String> {
    let line = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [backend, workload, count] => {
            let count = count.parse().map_err(|_| format!("{RECORD}: got count {count}, expected a number"))?;
            Ok(((backend.to_owned(), workload.to_owned()), count))
        }
        _ => Err(format!("{RECORD}: got `{line}`, expected BACKEND WORKLOAD COUNT")),
    };
    text.lines().map(line).collect()
}

/// Every backend that can be counted, and those that cannot.
fn count(run: &mut Run) -> Result<(Counts, Skipped), String> {
    let (mut counts, mut skipped) = (Counts::new(), Skipped::new());
    let mut skip = |run: &mut Run, backend: &'static str, why: &str| {
        run.skip(&format!("instruction counts of {backend}"), why);
        skipped.insert(backend);
    };
    let stepped = || Isa::ALL.into_iter().filter(|isa| !EMULATED.contains(&isa.name()));
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        for backend in EMULATED.into_iter().chain(stepped().map(Isa::name)) {
            skip(run, backend, "those on record are of x86-64 Linux");
        }
        return Ok((counts, skipped));
    }
    run.cargo(&["build", "--release", "--package", "attn", "--example", "instructions"])?;
    let program = run.target().join("release/examples/instructions");
    let mut add = |backend: &str, workload: &str, count: u64| {
        println!("{backend} {workload}: {count} instructions");
        counts.insert((backend.to_owned(), workload.to_owned()), count);
    };
    if packages::has(run, "valgrind", "valgrind") {
        for backend in EMULATED {
            for workload in EMULATED_WORKLOADS {
                add(backend, workload, emulated(run, &program, backend, workload)?);
            }
        }
    } else {
        for backend in EMULATED {
            skip(run, backend, "`apt-get install valgrind` failed (it needs root)");
        }
    }
    for isa in stepped() {
        if !isa.is_available() {
            skip(run, isa.name(), "this CPU does not have the instructions, nor has valgrind");
            continue;
        }
        for workload in STEPPED_WORKLOADS {
            let Some(count) = steps(run, &program, isa.name(), workload)? else {
                skip(run, isa.name(), "this process may not trace another one");
                break;
            };
            add(isa.name(), workload, count);
        }
    }
    Ok((counts, skipped))
}

/// By callgrind.
fn emulated(run: &Run, program: &Path, backend: &str, workload: &str) -> Result<u64, String> {
    let mut valgrind = run.command(
        "valgrind",
        &["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no", "--toggle-collect=*measured*"],
    );
    let output =
        valgrind.arg(program).args([backend, workload]).output().map_err(|error| format!("valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected
        .filter(|_| output.status.success())
        .ok_or_else(|| format!("{backend} {workload}: {}: {text}", output.status))
}

/// By steps; none where the system does not allow it, as in some containers.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn steps(run: &Run, program: &Path, backend: &str, workload: &str) -> Result<Option<u64>, String> {
    let mut command = run.command(&program.display().to_string(), &[backend, workload, "stop"]);
    step::count(&mut command).map_err(|error| format!("{backend} {workload}: {error}"))
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
#[expect(clippy::unnecessary_wraps, reason = "as where there is something to do")]
fn steps(_: &Run, _: &Path, _: &str, _: &str) -> Result<Option<u64>, String> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let counts = parse("avx2 tile 7\nscalar head 9\n").expect("a record");
        assert_eq!(counts[&("avx2".to_owned(), "tile".to_owned())], 7);
        assert!(parse("avx2 tile").is_err() && parse("avx2 tile x").is_err());
    }
}
