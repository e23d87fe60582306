//! Runs a call and compares what is there before and after.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
};

use rayon::prelude::*;
use tempfile::TempDir;

/// Address space of a call, with threads for so many CPUs; of each one more; and for each byte of its files. A program that does nothing
/// takes a quarter of the first.
const MEMORY_KIB: u64 = 128 << 10;
const CPUS: u64 = 16;
const MEMORY_PER_CPU_KIB: u64 = 4 << 10;
const MEMORY_PER_BYTE: u64 = 8;

/// Longer than any call takes on a machine that is busy with other things; then it is ended by force, status 137.
const SECONDS: &str = "60";

/// Characters of a message, whatever is in the file.
const LONGEST: usize = 1600;

/// A call that is refused, in a folder of its own.
pub(crate) struct Case {
    pub(crate) name: String,
    /// What is in the folder.
    files: Vec<(OsString, Vec<u8>)>,
    /// What else is.
    make: fn(&Path) -> io::Result<()>,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, &'static str)>,
    /// How the message begins.
    message: String,
    /// What else is in it.
    part: String,
    /// How it ends, where it is long.
    end: &'static str,
}

/// A call of these arguments, separated by spaces, that is refused with a message that begins so.
pub(crate) fn case(name: impl Into<String>, arguments: &str, message: impl Into<String>) -> Case {
    Case {
        name: name.into(),
        files: Vec::new(),
        make: |_| Ok(()),
        arguments: arguments.split(' ').map(OsString::from).collect(),
        environment: Vec::new(),
        message: message.into(),
        part: String::new(),
        end: "",
    }
}

impl Case {
    /// A file of the folder.
    pub(crate) fn file(mut self, name: impl AsRef<OsStr>, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.as_ref().to_owned(), bytes.into()));
        self
    }

    /// Whatever is no plain file.
    pub(crate) fn make(self, make: fn(&Path) -> io::Result<()>) -> Self {
        Self { make, ..self }
    }

    /// One more argument, of whatever bytes.
    pub(crate) fn argument(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub(crate) fn environment(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.push((name, value));
        self
    }

    pub(crate) fn containing(self, part: &str) -> Self {
        Self { part: part.to_owned(), ..self }
    }

    pub(crate) fn end(self, end: &'static str) -> Self {
        Self { end, ..self }
    }

    /// The call in a folder of its own, without a judgement.
    pub(crate) fn output(&self) -> Output {
        self.run(self.folder().path())
    }

    fn folder(&self) -> TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, bytes) in &self.files {
            fs::write(folder.path().join(name), bytes).expect("written");
        }
        (self.make)(folder.path()).expect("made");
        folder
    }

    fn run(&self, folder: &Path) -> Output {
        let cpus = thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
        let bytes: u64 = self.files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        let kib = MEMORY_KIB + cpus.saturating_sub(CPUS) * MEMORY_PER_CPU_KIB + bytes * MEMORY_PER_BYTE / 1024;
        let script = format!("ulimit -v {kib}; exec timeout -s KILL {SECONDS} \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_attn")]).args(&self.arguments);
        // Else each thread reserves 64 MiB for what it may allocate.
        command.env("MALLOC_ARENA_MAX", "1");
        command.current_dir(folder).envs(self.environment.iter().copied()).stdin(Stdio::null());
        command.output().expect("a shell")
    }

    /// Says what is not as it should be.
    fn check(&self, replaces: bool) -> Result<(), String> {
        let folder = self.folder();
        if replaces {
            fs::write(folder.path().join("out.npz"), "what was there").expect("written");
        }
        let before = listing(folder.path());
        let output = self.run(folder.path());
        let after = listing(folder.path());
        let changed: Vec<_> = after.iter().filter(|entry| before.get(entry.0) != Some(entry.1)).collect();
        if before != after {
            return Err(format!("left behind or changed: {changed:?}, of {:?}", before.keys()));
        }
        let stderr = String::from_utf8(output.stderr).map_err(|error| format!("stderr is not text: {error}"))?;
        if output.status.code() != Some(2) {
            return Err(format!("{}, expected status 2: {stderr}", output.status));
        }
        if !output.stdout.is_empty() {
            return Err(format!("stdout: {:?}", String::from_utf8_lossy(&output.stdout)));
        }
        let line = stderr.strip_suffix('\n').unwrap_or("no end of a line");
        if line.contains(|char: char| char.is_control() || char == '\u{202e}') {
            return Err(format!("a control character, or text that is turned around: {stderr:?}"));
        }
        if line.chars().count() > LONGEST {
            return Err(format!("{} characters: {line}", line.chars().count()));
        }
        let message = line.strip_prefix("attn: ").unwrap_or_default();
        let Self { message: start, part, end, .. } = self;
        if !message.starts_with(start) || !message.contains(part) || !message.ends_with(end) {
            return Err(format!("got `{line}`, expected `attn: {start}`..`{part}`..`{end}`"));
        }
        Ok(())
    }
}

/// Makes a pipe that nobody writes, and nobody reads.
pub(crate) fn pipe(folder: &Path) -> io::Result<()> {
    let made = Command::new("mkfifo").arg(folder.join("pipe")).status()?;
    if made.success() { Ok(()) } else { Err(io::Error::other(format!("mkfifo: {made}"))) }
}

/// What is in a folder and below: of files, their bytes, or of large ones what says that nobody wrote them.
fn listing(folder: &Path) -> BTreeMap<PathBuf, (u32, u64, i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("listed")) {
        let metadata = entry.metadata().expect("there");
        if metadata.is_dir() {
            found.extend(listing(&entry.path()));
        }
        let is_small = metadata.is_file() && metadata.len() < 1 << 20;
        let bytes = if is_small { fs::read(entry.path()).expect("read") } else { Vec::new() };
        found.insert(entry.path(), (metadata.mode(), metadata.ino(), metadata.mtime_nsec(), bytes));
    }
    found
}

/// All of these calls are refused: status 2, one line on stderr that begins and ends so and has nothing in it that a terminal
/// takes for a command, nothing on stdout, every file as it was, in bounded memory and time.
pub(crate) fn refuse(cases: &[Case]) {
    let wrong = cases.par_iter().enumerate().filter_map(|(number, case)| {
        // Every second pair of calls has an output that is there already.
        let replaces =
            number % 4 >= 2 && case.arguments.windows(2).any(|pair| pair[0] == "--output" && pair[1] == "out.npz");
        case.check(replaces).err().map(|error| format!("{}: {error}", case.name))
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// Says, where xtask counts it, that something could not be tried here.
pub(crate) fn skip(what: &str, reason: &str) {
    // Not `println`, which is kept from whoever runs a test that passes.
    writeln!(io::stdout(), "\ntest {what} ... ignored, {reason}").expect("a line");
}
