//! The machine that something ran on, as the operating system names it.

use std::{env, fs, thread};

/// The CPU and what it has.
pub(crate) struct Machine {
    /// The CPU, with its family and model: one name is given to several generations.
    pub(crate) cpu: String,
    /// Which of the instructions it has that contestants are fast with, as the operating system names them.
    pub(crate) flags: Vec<&'static str>,
    /// Cores that this process may use.
    pub(crate) cores: usize,
    /// Operating system and architecture.
    pub(crate) os: String,
}

impl Machine {
    pub(crate) fn this() -> Self {
        // Linux alone says it in a file.
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            cpu: cpu(&cpuinfo).unwrap_or_else(|| "unknown".to_owned()),
            flags: flags(&cpuinfo),
            cores: thread::available_parallelism().map_or(1, usize::from),
            os: format!("{} {}", env::consts::OS, env::consts::ARCH),
        }
    }
}

/// What backends and peers choose their kernels by, oldest first.
const FLAGS: [&str; 8] =
    ["avx2", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"];

/// The value of the first line `key : value`.
fn field<'a>(cpuinfo: &'a str, key: &str) -> Option<&'a str> {
    let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim())
}

fn cpu(cpuinfo: &str) -> Option<String> {
    let name = field(cpuinfo, "model name")?;
    Some(match (field(cpuinfo, "cpu family"), field(cpuinfo, "model")) {
        (Some(family), Some(model)) => format!("{name} (family {family}, model {model})"),
        _ => name.to_owned(),
    })
}

fn flags(cpuinfo: &str) -> Vec<&'static str> {
    let has = |flag: &&str| field(cpuinfo, "flags").is_some_and(|flags| flags.split(' ').any(|has| has == *flag));
    FLAGS.into_iter().filter(has).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_is_named_with_its_generation_and_what_it_has() {
        let zen5 = "processor\t: 0\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx2 avx512f \
                    avx512_vnni avx_vnni\n\nprocessor\t: 1\nmodel name\t: another\n";
        assert_eq!(cpu(zen5).as_deref(), Some("AMD EPYC (family 26, model 2)"));
        assert_eq!(flags(zen5), ["avx2", "avx_vnni", "avx512f", "avx512_vnni"]);
        assert_eq!(cpu("model name : Cortex").as_deref(), Some("Cortex"));
        assert_eq!((cpu(""), flags("")), (None, vec![]));
    }
}
