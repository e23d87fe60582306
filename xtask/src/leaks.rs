//! Memory of the `attn` command that is lost when it ends, by valgrind.

use std::{
    fs,
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use crate::{packages, run::Run};

/// What valgrind ends with where it found something, and no command ends with.
const FOUND: i32 = 99;

/// The ways through the command that take memory of every kind; what comes last is refused.
const COMMANDS: [(&[&str], i32); 6] = [
    (&["run", "--input", "tests/npz/mask.npz", "--output", "target/leaks.npz"], 0),
    (&["compare", "target/leaks.npz", "target/leaks.npz"], 0),
    (&["validate", "--input", "tests/npz/float32.npz", "--backend", "auto"], 0),
    (&["doctor", "--for", "cpu"], 0),
    (&["npu", "inspect", "crates/attn-npu/tests/xclbin/stand_in.xclbin"], 0),
    (&["run", "--input", "tests/npz/bad_nan.npz", "--output", "target/leaks.npz"], 2),
];

/// Takes minutes under valgrind.
const LONG: [&str; 7] =
    ["run", "--backend", "scalar", "--input", "src/suite/data/whisper.npz", "--output", "target/leaks.npz"];

/// What it ends with after Ctrl-C.
const INTERRUPTED: i32 = 130;

/// Each ends as it should, with nothing lost and no invalid access; one is interrupted while it reads and while it computes.
pub(crate) fn check(run: &mut Run) -> Result<(), String> {
    if !packages::has(run, "valgrind", "valgrind") {
        run.skip("leaks of the command", "`apt-get install valgrind` failed (it needs root)");
        return Ok(());
    }
    run.cargo(&["build", "--package", "attn", "--bin", "attn"])?;
    let attn = run.target().join("debug/attn").display().to_string();
    // The threads of rayon's pool are there until the end, and what they have is reached by pointers into its middle.
    let leaks = ["--quiet", "--leak-check=full", "--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"];
    let found = format!("--error-exitcode={FOUND}");
    fs::create_dir_all(run.root.join("target")).map_err(|error| format!("target: {error}"))?;
    let ways = COMMANDS.iter().map(|&(arguments, status)| (arguments, status, None));
    let interrupted = [true, false].map(|reads| (&LONG[..], INTERRUPTED, Some(reads)));
    let all: Vec<_> = ways.chain(interrupted).collect();
    for &(arguments, expected, interrupt) in &all {
        let command = [&leaks[..], &[&found, &attn], arguments].concat();
        run.say(&format!("$ valgrind {}", command.join(" ")));
        let output =
            output(run.command("valgrind", &command), interrupt).map_err(|error| format!("valgrind: {error}"))?;
        if output.status.code() != Some(expected) {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(format!("`attn {}` under valgrind: {}\n{text}", arguments.join(" "), output.status));
        }
    }
    println!("{} commands, nothing lost; the last two were interrupted", all.len());
    Ok(())
}

/// Runs a command to its end, or sends it Ctrl-C's signal as soon as it reads its input, or has read it.
fn output(mut command: Command, interrupt: Option<bool>) -> std::io::Result<Output> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(while_it_reads) = interrupt {
        for is_open in [true, false] {
            while reads(&child) != is_open && child.try_wait()?.is_none() {
                thread::sleep(Duration::from_millis(1));
            }
            if while_it_reads {
                break;
            }
        }
        Command::new("sh").args(["-c", "kill -INT $0", &child.id().to_string()]).status()?;
    }
    child.wait_with_output()
}

/// Whether a process has its input open.
fn reads(child: &Child) -> bool {
    let files = fs::read_dir(format!("/proc/{}/fd", child.id())).into_iter().flatten().flatten();
    files.filter_map(|file| fs::read_link(file.path()).ok()).any(|file| file.ends_with("whisper.npz"))
}
