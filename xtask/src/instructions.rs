//! Instructions of a tile and of a whole head, on every backend that valgrind's callgrind can run: exact, unlike time, so that
//! a slower kernel does not pass for noise.

use std::{collections::BTreeMap, fs, path::PathBuf};

use attn_cpu::Isa;

use crate::run::Run;

/// What was counted last: `BACKEND WORKLOAD COUNT` in each line.
const RECORD: &str = "benches/instructions.txt";

/// Counts may differ so much, in parts of 100, from those on record: another patch release of the compiler.
const PER_CENT: u64 = 3;

/// `scalar`, and the one instruction set that valgrind emulates: it knows neither AVX-512 nor AVX-VNNI.
const BACKENDS: [&str; 2] = ["scalar", Isa::Avx2.name()];
const WORKLOADS: [&str; 2] = ["tile", "head"];

type Counts = BTreeMap<(String, String), u64>;

/// Compares the counts with those on record.
pub(crate) fn check(run: &mut Run) -> Result<(), String> {
    let Some(counts) = count(run)? else { return Ok(()) };
    let path = record(run);
    let text = fs::read_to_string(&path).map_err(|error| format!("{RECORD}: {error}"))?;
    let mut expected = parse(&text)?;
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

/// Writes the record.
pub(crate) fn write(run: &mut Run) -> Result<(), String> {
    let Some(counts) = count(run)? else { return Err("nothing was counted".to_owned()) };
    let lines = counts.iter().map(|((backend, workload), count)| format!("{backend} {workload} {count}\n"));
    fs::write(record(run), lines.collect::<String>()).map_err(|error| format!("{RECORD}: {error}"))
}

fn record(run: &Run) -> PathBuf {
    run.root.join(RECORD)
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

/// None where nothing can be counted.
fn count(run: &mut Run) -> Result<Option<Counts>, String> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        run.skip("instruction counts", "those on record are of x86-64 Linux");
        return Ok(None);
    }
    if run.command("valgrind", &["--version"]).output().is_err() {
        let install = "apt-get update -qq && apt-get install -qq -y --no-install-recommends valgrind";
        if run.run(run.command("sh", &["-c", install])).is_err() {
            run.skip("instruction counts", "`apt-get install valgrind` failed (it needs root)");
            return Ok(None);
        }
    }
    for isa in Isa::ALL.into_iter().filter(|isa| !BACKENDS.contains(&isa.name())) {
        run.skip(&format!("instruction counts of {}", isa.name()), "valgrind does not have the instructions");
    }
    run.cargo(&["build", "--release", "--package", "attn", "--example", "instructions"])?;
    let program = run.root.join("target/release/examples/instructions").display().to_string();
    let mut counts = Counts::new();
    for backend in BACKENDS {
        for workload in WORKLOADS {
            let arguments = [
                "--tool=callgrind",
                "--callgrind-out-file=/dev/null",
                "--collect-atstart=no",
                "--toggle-collect=*measured*",
                &program,
                backend,
                workload,
            ];
            let output = run.command("valgrind", &arguments).output().map_err(|error| format!("valgrind: {error}"))?;
            let text = String::from_utf8_lossy(&output.stderr);
            let collected = text.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
            let Some(count) = collected.filter(|_| output.status.success()) else {
                return Err(format!("{backend} {workload}: {}: {text}", output.status));
            };
            println!("{backend} {workload}: {count} instructions");
            counts.insert((backend.to_owned(), workload.to_owned()), count);
        }
    }
    Ok(Some(counts))
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
