//! Memory of the `attn` command that is lost when it ends, by valgrind.

use std::path::PathBuf;

use crate::run::Run;

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

/// Each ends as it should, with nothing lost and no invalid access.
pub(crate) fn check(run: &mut Run) -> Result<(), String> {
    if run.command("valgrind", &["--version"]).output().is_err() {
        let install = "apt-get update -qq && apt-get install -qq -y --no-install-recommends valgrind";
        if run.run(run.command("sh", &["-c", install])).is_err() {
            run.skip("leaks of the command", "`apt-get install valgrind` failed (it needs root)");
            return Ok(());
        }
    }
    run.cargo(&["build", "--package", "attn", "--bin", "attn"])?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| run.root.join("target"), PathBuf::from);
    let attn = target.join("debug/attn").display().to_string();
    // The threads of rayon's pool are there until the end, and what they have is reached by pointers into its middle.
    let leaks = ["--quiet", "--leak-check=full", "--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"];
    let found = format!("--error-exitcode={FOUND}");
    std::fs::create_dir_all(run.root.join("target")).map_err(|error| format!("target: {error}"))?;
    for (arguments, expected) in COMMANDS {
        let command = [&leaks[..], &[&found, &attn], arguments].concat();
        run.say(&format!("$ valgrind {}", command.join(" ")));
        let output = run.command("valgrind", &command).output().map_err(|error| format!("valgrind: {error}"))?;
        if output.status.code() != Some(expected) {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(format!("`attn {}` under valgrind: {}\n{text}", arguments.join(" "), output.status));
        }
    }
    println!("{} commands, nothing lost", COMMANDS.len());
    Ok(())
}
