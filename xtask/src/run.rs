//! Running commands, counting tests, and saying at the end what passed, failed and was skipped.

use std::{
    env,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

/// What would change what is built, tried or counted: a sanitizer that is off finds nothing.
const NOT_INHERITED: [&str; 6] = [
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "PROPTEST_CASES",
    "RAYON_NUM_THREADS",
    "RUSTFLAGS",
];

/// One call of `cargo xtask`.
pub(crate) struct Run {
    /// The workspace.
    pub(crate) root: PathBuf,
    summary: Vec<String>,
    /// What could not be run here, and why.
    skipped: Vec<String>,
    failed: bool,
    /// The checks of this call.
    checks: Vec<&'static str>,
    /// Tests of the check that is running.
    tests: Tests,
    /// Whether stdout is for something else.
    is_on_stderr: bool,
}

#[derive(Default)]
struct Tests {
    passed: u64,
    failed: u64,
    /// The ignored ones by name, with the reason.
    ignored: Vec<(String, String)>,
    /// What they run with, if that is worth a word.
    with: String,
}

impl Run {
    pub(crate) fn new(checks: Vec<&'static str>) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned();
        let (summary, skipped, tests) = (Vec::new(), Vec::new(), Tests::default());
        Self { root, summary, skipped, failed: false, checks, tests, is_on_stderr: false }
    }

    /// The set-up of a program that has stdout for itself.
    pub(crate) fn on_stderr() -> Self {
        Self { is_on_stderr: true, ..Self::new(Vec::new()) }
    }

    /// Says what is going on.
    pub(crate) fn say(&self, line: &str) {
        if self.is_on_stderr {
            eprintln!("{line}");
        } else {
            println!("{line}");
        }
    }

    /// Runs one check and notes its result; the others go on if it fails.
    pub(crate) fn check(&mut self, name: &str, check: fn(&mut Self) -> Result<(), String>) {
        println!("\n=== {name}");
        self.tests = Tests::default();
        let start = Instant::now();
        let result = check(self);
        let seconds = start.elapsed().as_secs();
        let tests = std::mem::take(&mut self.tests);
        let counted = tests.counted();
        for (test, reason) in &tests.ignored {
            if !left_to(reason).is_some_and(|check| self.checks.contains(&check)) {
                self.skip(&format!("{name}: test {test}"), reason);
            }
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
        self.say(&format!("SKIPPED {what}: {why}"));
        self.skipped.push(format!("SKIPPED {what}: {why}"));
    }

    /// Notes what the tests of the running check run with, for the summary.
    pub(crate) fn tests_with(&mut self, what: &str) {
        self.tests.with = format!(" with {what}");
    }

    /// A command that runs in the workspace. Cargo builds in [`target`](Self::target), whatever its configuration says.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.root).env("CARGO_TARGET_DIR", self.target());
        for name in NOT_INHERITED {
            command.env_remove(name);
        }
        command
    }

    /// Where the workspace is built.
    pub(crate) fn target(&self) -> PathBuf {
        self.root.join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
    }

    /// The `cargo` that runs this.
    pub(crate) fn cargo_program() -> String {
        env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
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
        self.say(&format!("$ {shown}"));
        let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| format!("`{shown}`: {error}"))?;
        for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
            let line = line.map_err(|error| format!("`{shown}`: {error}"))?;
            self.tests.count(&line);
            self.say(&line);
        }
        match child.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("`{shown}`: {status}")),
            Err(error) => Err(format!("`{shown}`: {error}")),
        }
    }

    /// Runs tests that are chosen by their names, of which there are so many: none would be left where they have others.
    pub(crate) fn run_tests(&mut self, command: Command, count: u64) -> Result<(), String> {
        let before = self.tests.passed;
        self.run(command)?;
        let got = self.tests.passed - before;
        if got == count { Ok(()) } else { Err(format!("got {got} tests of these names, expected {count}")) }
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
    /// `test result: ok. 21 passed; 0 failed; 0 ignored; …` and `test NAME ... ignored, REASON`
    fn count(&mut self, line: &str) {
        if let Some((name, reason)) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... ignored")) {
            let reason = reason.strip_prefix(", ").unwrap_or("no reason given");
            self.ignored.push((name.to_owned(), reason.to_owned()));
        }
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let number = |unit: &str| {
            let part = result.split(['.', ';']).find(|part| part.ends_with(unit))?;
            part.trim().split(' ').next()?.parse::<u64>().ok()
        };
        self.passed += number("passed").unwrap_or(0);
        self.failed += number("failed").unwrap_or(0);
    }

    /// For the summary; nothing if there was no test.
    fn counted(&self) -> String {
        let Self { passed, failed, ignored, with } = self;
        if passed + failed == 0 && ignored.is_empty() {
            return String::new();
        }
        format!(", {passed} tests passed{with}, {failed} failed, {} ignored", ignored.len())
    }
}

/// The check that runs what an ignored test leaves out, by the test's reason.
fn left_to(reason: &str) -> Option<&str> {
    reason.strip_prefix("left to `cargo xtask ")?.strip_suffix('`')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_counted_by_their_output() {
        let mut tests = Tests::default();
        assert_eq!(tests.counted(), "");
        for line in [
            "running 4 tests",
            "test metrics::tests::shares ... ok",
            "test float_attention_in_libtorch ... ignored, left to `cargo xtask torch`",
            "test slow ... ignored",
            "test src/lib.rs - read (line 3) - compile ... ok",
            "test result: FAILED. 21 passed; 2 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.02s",
            "test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            tests.count(line);
        }
        assert_eq!(tests.counted(), ", 25 tests passed, 2 failed, 2 ignored");
        let ignored: Vec<_> = tests.ignored.iter().map(|(name, reason)| (name.as_str(), left_to(reason))).collect();
        assert_eq!(ignored, [("float_attention_in_libtorch", Some("torch")), ("slow", None)]);
        assert_eq!(tests.ignored[1].1, "no reason given");
        let mut tests = Tests::default();
        tests.count("test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out");
        assert_eq!(tests.counted(), ", 1 tests passed, 1 failed, 0 ignored");
    }

    #[test]
    fn a_command_that_fails_fails_its_check() {
        let mut run = Run::new(vec!["version", "frobnicate"]);
        run.check("version", |run| run.cargo(&["--version"]));
        assert!(!run.failed, "{:?}", run.summary);
        run.check("frobnicate", |run| run.cargo(&["--frobnicate"]));
        assert!(run.summary[1].starts_with("FAILED  frobnicate ("), "{:?}", run.summary);
        assert!(run.summary[1].contains(" --frobnicate`: exit status: "), "{:?}", run.summary);
        assert_eq!(run.finish(), ExitCode::FAILURE);
    }

    #[test]
    fn what_is_left_to_a_check_of_the_same_call_is_not_skipped() {
        let ignored = |run: &mut Run| {
            run.tests.count("test libtorch ... ignored, left to `cargo xtask torch`");
            Ok(())
        };
        let mut run = Run::new(vec!["unit", "torch"]);
        run.check("unit", ignored);
        assert_eq!(run.skipped, [""; 0]);
        let mut run = Run::new(vec!["unit"]);
        run.check("unit", ignored);
        assert_eq!(run.skipped, ["SKIPPED unit: test libtorch: left to `cargo xtask torch`"]);
    }

    #[test]
    fn the_summary_says_what_tests_ran_with() {
        let mut run = Run::new(vec!["torch"]);
        run.check("torch", |run| {
            run.tests_with("libtorch 2.13.0");
            run.tests.count("test result: ok. 16 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
            Ok(())
        });
        assert_eq!(run.summary, ["ok      torch (0 s, 16 tests passed with libtorch 2.13.0, 0 failed, 0 ignored)"]);
    }
}
