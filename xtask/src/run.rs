//! Running commands, counting tests, and saying at the end what passed, failed and was skipped.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

/// One call of `cargo xtask`.
pub(crate) struct Run {
    /// The workspace.
    pub(crate) root: PathBuf,
    summary: Vec<String>,
    /// What could not be run here, and why.
    skipped: Vec<String>,
    failed: bool,
    /// Tests of the check that is running.
    tests: Tests,
}

#[derive(Default)]
struct Tests {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Run {
    pub(crate) fn new() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned();
        Self { root, summary: Vec::new(), skipped: Vec::new(), failed: false, tests: Tests::default() }
    }

    /// Runs one check and notes its result; the others go on if it fails.
    pub(crate) fn check(&mut self, name: &str, check: fn(&mut Self) -> Result<(), String>) {
        println!("\n=== {name}");
        self.tests = Tests::default();
        let start = Instant::now();
        let result = check(self);
        let seconds = start.elapsed().as_secs();
        let Tests { passed, failed, ignored } = self.tests;
        let counted = if passed + failed + ignored == 0 {
            String::new()
        } else {
            format!(", {passed} tests passed, {failed} failed, {ignored} ignored")
        };
        if ignored > 0 {
            self.skip(name, &format!("{ignored} tests are marked as ignored"));
        }
        match result {
            Ok(()) => self.summary.push(format!("ok      {name} ({seconds} s{counted})")),
            Err(error) => {
                self.failed = true;
                self.summary.push(format!("FAILED  {name} ({seconds} s{counted}): {error}"));
            }
        }
    }

    /// Notes what could not be run; it is printed at the end and counted.
    pub(crate) fn skip(&mut self, what: &str, why: &str) {
        println!("SKIPPED {what}: {why}");
        self.skipped.push(format!("SKIPPED {what}: {why}"));
    }

    /// A command that runs in the workspace.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.root);
        command
    }

    /// The `cargo` that runs this.
    pub(crate) fn cargo_program() -> String {
        std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
    }

    /// `cargo` with these arguments.
    pub(crate) fn cargo(&mut self, arguments: &[&str]) -> Result<(), String> {
        let command = self.command(&Self::cargo_program(), arguments);
        self.run(command)
    }

    /// Runs a command, shows its output and counts the tests in it.
    pub(crate) fn run(&mut self, mut command: Command) -> Result<(), String> {
        let shown = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|part| part.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ");
        println!("$ {shown}");
        let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| format!("`{shown}`: {error}"))?;
        for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
            let line = line.map_err(|error| format!("`{shown}`: {error}"))?;
            self.tests.count(&line);
            println!("{line}");
        }
        match child.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("`{shown}`: {status}")),
            Err(error) => Err(format!("`{shown}`: {error}")),
        }
    }

    /// Prints the summary.
    pub(crate) fn finish(self) -> ExitCode {
        println!("\n=== summary");
        for line in self.summary.iter().chain(&self.skipped) {
            println!("{line}");
        }
        println!("{} skipped", self.skipped.len());
        if self.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

impl Tests {
    /// `test result: ok. 21 passed; 0 failed; 0 ignored; …`
    fn count(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let number = |unit: &str| {
            let part = result.split(['.', ';']).find(|part| part.ends_with(unit))?;
            part.trim().split(' ').next()?.parse::<u64>().ok()
        };
        self.passed += number("passed").unwrap_or(0);
        self.failed += number("failed").unwrap_or(0);
        self.ignored += number("ignored").unwrap_or(0);
    }
}
