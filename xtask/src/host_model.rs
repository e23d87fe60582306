//! The host model of the NPU's core: what it says of each function, which rules it enforces, and what must not compile.

use std::fs;

use crate::run::Run;

/// Ends with the first one that is not there.
const MOST: u32 = 100;

/// With one C++ compiler; its objects go to `target/kernels`.
pub(crate) fn check(run: &mut Run, compiler: &str) -> Result<(), String> {
    const FLAGS: [&str; 8] = [
        "-std=c++20",
        "-fno-exceptions",
        "-fno-rtti",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wconversion",
        "-Ikernels/host_model",
    ];
    let program = run.root.join("target/kernels/host_model_test").display().to_string();
    let sources = ["kernels/host_model/test.cc", "kernels/host_model/model.cc", "-o", &program];
    run.run(run.command(compiler, &[&FLAGS[..], &sources].concat()))?;
    run.run(run.command(&program, &[]))?;

    // Each rule ends the program with its own message; the program says where the list ends.
    let mut rules = 0;
    for rule in (1..MOST).map(|rule| rule.to_string()) {
        let output = run.command(&program, &[&rule]).output().map_err(|error| format!("{program}: {error}"))?;
        if output.status.code() == Some(3) {
            break;
        }
        let text = String::from_utf8_lossy(&output.stderr);
        if output.status.success() || !text.contains("the host model of AIE2: ") {
            return Err(format!("the host model let rule {rule} be broken: {}: {text}", output.status));
        }
        rules += 1;
    }

    let source = "kernels/host_model/rejected.cc";
    let text = fs::read_to_string(run.root.join(source)).map_err(|error| format!("{source}: {error}"))?;
    let cases = text.lines().filter(|line| line.starts_with("#elif CASE == ")).count();
    for case in 0..=cases {
        let define = format!("-DCASE={case}");
        // Unused variables are not what it is about.
        let arguments = [&FLAGS[..3], &FLAGS[7..], &["-w", "-fsyntax-only", &define, source]].concat();
        let output = run.command(compiler, &arguments).output().map_err(|error| format!("{compiler}: {error}"))?;
        if output.status.success() != (case == 0) {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{source}, case {case} with {compiler}: {}: {text}", output.status));
        }
    }
    println!("{compiler}: the host model ends a program at {rules} broken rules, and rejects {cases} misuses");
    if rules == 0 || cases == 0 { Err("the host model's tests are not there".to_owned()) } else { Ok(()) }
}
