//! Where and with what a report was computed.

use std::{env, ffi::OsStr, fs, path::Path};

use time::UtcDateTime;

use crate::{backend::Backend, machine::Machine, suite::libtorch, text::printable};

/// Where, when and with what a validation was computed, in words.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Name of the backend and what it is: emulation says so.
    pub backend: String,
    /// What outputs are compared with.
    pub reference: String,
    /// Where queries, keys and values come from.
    pub input: String,
    /// The command line.
    pub command: String,
    /// Date and time, UTC.
    pub date: String,
    /// The CPU, as the operating system names it.
    pub cpu: String,
    /// Vector instructions that it has, of those that backends use.
    pub instructions: String,
    /// Threads that float attention and the backends with vector instructions compute on.
    pub threads: usize,
    /// Operating system.
    pub os: String,
}

impl Environment {
    /// This process on this machine; `input` is the user's file, if it is not the built-in suite.
    #[must_use]
    pub fn here(backend: &dyn Backend, input: Option<&Path>) -> Self {
        let Machine { cpu, flags, os, .. } = Machine::this();
        let built_in =
            || "the built-in suite: fixtures and seeds of this version, the same on every machine".to_owned();
        let truth = "float64 attention, by attn itself";
        let arguments: Vec<_> = env::args_os().enumerate().map(|(i, argument)| shown(i == 0, &argument)).collect();
        Self {
            backend: format!("{}: {}", backend.name(), backend.description()),
            reference: match libtorch() {
                Some(libtorch) => format!("{truth}; beside it, for information, {libtorch}"),
                None => format!("{truth}; libtorch is not built in"),
            },
            input: input.map_or_else(built_in, |path| printable(&path.display().to_string())),
            command: printable(&arguments.join(" ")),
            date: date(UtcDateTime::now()),
            cpu,
            instructions: if flags.is_empty() { "none that a backend uses".to_owned() } else { flags.join(" ") },
            threads: rayon::current_num_threads(),
            os: system(&os),
        }
    }

    /// What each entry is, and what it says, in the order of a table.
    pub(super) fn entries(&self, version: &str, libtorch: Option<&str>) -> [(&'static str, String); 11] {
        [
            ("attn", version.to_owned()),
            ("Backend", self.backend.clone()),
            ("Reference", self.reference.clone()),
            ("libtorch", libtorch.unwrap_or("not built in").to_owned()),
            ("Input", self.input.clone()),
            ("Command", self.command.clone()),
            ("Date", self.date.clone()),
            ("CPU", self.cpu.clone()),
            ("Vector instructions", self.instructions.clone()),
            ("Threads", format!("up to {}", self.threads)),
            ("Operating system", self.os.clone()),
        ]
    }
}

/// An argument as a shell takes it; of the program only its name, which is the same wherever it is installed.
fn shown(is_program: bool, argument: &OsStr) -> String {
    let name = if is_program { Path::new(argument).file_name().unwrap_or(argument) } else { argument };
    let text = name.to_string_lossy();
    let is_plain = |c: char| c.is_alphanumeric() || "-_=./:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

fn date(now: UtcDateTime) -> String {
    let (year, month, day) = (now.year(), u8::from(now.month()), now.day());
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", now.hour(), now.minute(), now.second())
}

/// The distribution and the kernel too, where the system has a file that says them.
fn system(os: &str) -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease");
    let mut text = os.to_owned();
    for more in [name.map(|name| name.trim_matches('"').to_owned()), kernel.ok()].into_iter().flatten() {
        text = text + ", " + more.trim();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_typed_again() {
        let line = ["/usr/bin/attn", "validate", "--input", "a b.npz", "it's", ""];
        let shown: Vec<_> = line.iter().enumerate().map(|(i, x)| shown(i == 0, OsStr::new(x))).collect();
        assert_eq!(shown.join(" "), r"attn validate --input 'a b.npz' 'it'\''s' ''");
    }

    #[test]
    fn dates_are_those_of_utc() {
        assert_eq!(date(UtcDateTime::UNIX_EPOCH), "1970-01-01 00:00:00 UTC");
        let leap = UtcDateTime::from_unix_timestamp(951_827_696).expect("a date");
        assert_eq!(date(leap), "2000-02-29 12:34:56 UTC");
    }
}
