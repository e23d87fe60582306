use std::{
    error::Error,
    fmt,
    io::{self, Write},
    process::ExitCode,
};

use attn::{
    BLOCK, Heads, Inputs, Mask, Parameters, Scales, attend,
    backend::{BackendKind, Isa, Options},
    scratch_len,
    suite::libtorch,
};
use attn_cpu::start_threads;
use attn_npu::{
    build::Toolchain,
    host::{self, Npu},
    runtime::{self, Session, SessionError, Step},
};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{input::NpuArguments, printable};

/// Check what a run needs: on an NPU, its device, driver, XRT and xclbin; on the CPU, the backend.
///
/// It opens a session as a run does, up to a tile on every core that is compared with the specification. A line for each check, and
/// for each problem what to do.
///
/// Exit status: 0 if a run would work, 1 if not, 2 for a usage error.
#[derive(Args)]
#[command(after_help = "\
Examples:
  attn doctor --xclbin npu/attn-whisper-base.xclbin
  attn doctor --for cpu --json

JSON: {ok, checks [{name, status (ok, problem, not needed), detail, fix}]}; a fix is null where there is nothing to do.")]
pub(super) struct Doctor {
    /// What is to run.
    #[arg(long = "for", value_enum, value_name = "npu|cpu", default_value = "npu")]
    target: Target,
    #[command(flatten)]
    npu: NpuArguments,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Target {
    Npu,
    Cpu,
}

#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Problem,
    #[serde(rename = "not needed")]
    NotNeeded,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Problem => "problem",
            Self::NotNeeded => "not needed",
        })
    }
}

#[derive(Serialize)]
struct Check {
    name: &'static str,
    status: Status,
    detail: String,
    fix: Option<String>,
}

#[derive(Serialize)]
struct Report {
    ok: bool,
    checks: Vec<Check>,
}

impl Doctor {
    pub(super) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let options = self.npu.options();
        if self.target == Target::Cpu
            && let Some(xclbin) = &options.xclbin
        {
            return Err(format!("--for cpu: got --xclbin {}, expected none, or --for npu", xclbin.display()).into());
        }
        start_threads()?;
        let mut checks = cpu();
        if self.target == Target::Npu {
            checks.extend(npu(&options));
        }
        let ok = checks.iter().all(|check| check.status != Status::Problem);
        let report = Report { ok, checks };
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, &report).map_err(io::Error::from)?;
            writeln!(out)?;
        } else {
            for Check { name, status, detail, fix } in &report.checks {
                write!(out, "{name:<12}{status:<12}{}", printable(detail))?;
                match fix {
                    Some(fix) => writeln!(out, " ({})", printable(fix))?,
                    None => writeln!(out)?,
                }
            }
        }
        Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn ok(name: &'static str, detail: impl Into<String>) -> Check {
    Check { name, status: Status::Ok, detail: detail.into(), fix: None }
}

fn problem(name: &'static str, detail: impl Into<String>, fix: Option<String>) -> Check {
    Check { name, status: Status::Problem, detail: detail.into(), fix }
}

fn not_needed(name: &'static str, detail: impl Into<String>, fix: Option<String>) -> Check {
    Check { name, status: Status::NotNeeded, detail: detail.into(), fix }
}

/// What a run on the CPU needs.
fn cpu() -> Vec<Check> {
    let isas = Isa::ALL.into_iter().filter(|isa| isa.is_available()).map(Isa::name);
    let isas: Vec<_> = isas.collect();
    let features = if isas.is_empty() { "none that a backend uses".to_owned() } else { isas.join(", ") };
    vec![ok("cpu", features), backend(), torch()]
}

/// The backend that `auto` takes, on one tile against the specification.
fn backend() -> Check {
    const NAME: &str = "backend";
    let mut backend = match BackendKind::Auto.open(&Options::default()) {
        Ok(backend) => backend,
        Err(error) => return problem(NAME, error.to_string(), None),
    };
    let name = backend.name().to_owned();
    let numbers = |factor: usize| -> Vec<i8> { (0..BLOCK * BLOCK).map(|i| (i * factor % 251) as i8).collect() };
    let (query, key, value) = (numbers(7), numbers(13), numbers(29));
    let inputs = Inputs { query: &query, key: &key, value: &value };
    let parameters = Parameters::new(BLOCK, Scales { query: 0.02, key: 0.02, value: 1.0, out: 0.5 }).expect("in range");
    let (mut got, mut expected) = (vec![0; BLOCK * BLOCK], vec![0; BLOCK * BLOCK]);
    let heads = Heads { parameters: &[parameters], masks: &[Mask::new()], kv_heads: 1, inputs };
    if let Err(error) = backend.attend(heads, &mut got, &|_| ()) {
        return problem(NAME, format!("{name}: {error}"), None);
    }
    if let Err(error) = attend(&parameters, inputs, &Mask::new(), &mut vec![0; scratch_len(BLOCK)], &mut expected) {
        return problem(NAME, error.to_string(), None);
    }
    if got == expected {
        ok(NAME, format!("auto is {name}: a tile has the bits of the specification"))
    } else {
        problem(NAME, format!("auto is {name}: a tile has not the bits of the specification"), None)
    }
}

fn torch() -> Check {
    const NAME: &str = "libtorch";
    match libtorch() {
        Some(version) => ok(NAME, version),
        None => not_needed(
            NAME,
            "left out of this program: only comparisons with it need it",
            Some("`cargo xtask libtorch`, then build with `--features torch`".to_owned()),
        ),
    }
}

/// What a run on an NPU needs, and the tools that make what it runs.
fn npu(options: &Options) -> Vec<Check> {
    let mut done = Vec::new();
    let session = match &options.xclbin {
        Some(xclbin) => {
            let defaults = runtime::Options::new(xclbin);
            let timeout = options.timeout.unwrap_or(defaults.timeout);
            let options = runtime::Options { timeout, ..defaults };
            Session::open_step_by_step(&options, &mut |step, detail| done.push((step, detail.to_owned())))
        }
        // As far as it goes.
        None => Session::open_step_by_step(&runtime::Options::new(""), &mut |step, detail| {
            done.push((step, detail.to_owned()));
        }),
    };
    let works = session.is_ok();
    let mut checks = host(options, works);
    let failure = session.as_ref().err();
    let mut failed = None;
    for (number, step) in Step::ALL.into_iter().enumerate() {
        checks.push(match (done.get(number), failure, failed) {
            (Some((_, detail)), ..) => ok(name(step), detail),
            (None, _, Some(before)) => problem(name(step), format!("not tried, for {before} comes before"), None),
            (None, Some(_), None) if step == Step::Files && options.xclbin.is_none() => {
                let fix = "`attn npu build` makes one; then `attn doctor --xclbin FILE`".to_owned();
                problem(name(step), "none was given", Some(fix))
            }
            (None, Some(error), None) => problem(name(step), error.cause(), error.fix()),
            (None, None, None) => continue,
        });
        if done.get(number).is_none() {
            failed.get_or_insert(name(step));
        }
        if step == Step::Xrt && done.get(number).is_some() {
            checks.push(plugin(works));
        }
    }
    checks.push(tools());
    checks
}

const fn name(step: Step) -> &'static str {
    match step {
        Step::Xrt => "xrt",
        Step::Device => "device",
        Step::Files => "xclbin",
        Step::Context => "context",
        Step::Buffers => "buffers",
        Step::SelfTest => "self-test",
    }
}

/// What the kernel says. Where a session works, nothing of it is a problem.
fn host(options: &Options, works: bool) -> Vec<Check> {
    let judge = |name, is_good: bool, detail: String, fix: Option<&str>| {
        if is_good || works { ok(name, detail) } else { problem(name, detail, fix.map(str::to_owned)) }
    };
    let mut checks = Vec::new();
    let npu = match host::npus() {
        Ok(npus) => npus.into_iter().next(),
        Err(error) => {
            checks.push(problem("npu", format!("the PCI bus cannot be seen: {error}"), None));
            None
        }
    };
    let driver = host::driver_version();
    let loaded = driver.as_ref().map(|version| format!("{} {version}", host::DRIVER));
    let kernel = host::kernel_version().unwrap_or_else(|| "of unknown version".to_owned());
    let fix = "Linux 6.14 or later has it: `sudo modprobe amdxdna`, and look at `sudo dmesg`";
    let detail = loaded.clone().unwrap_or_else(|| format!("{} is not loaded", host::DRIVER));
    checks.push(judge("driver", loaded.is_some(), format!("{detail}, Linux {kernel}"), Some(fix)));
    let Some(Npu { address, id, name, firmware, node, has_iommu, .. }) = npu else {
        let fix = Some("`lspci -d 1022:` lists what there is");
        checks.insert(0, judge("npu", false, "none on the PCI bus".to_owned(), fix));
        return checks;
    };
    let name = name.unwrap_or_else(|| format!("a device {id:#06x} without a driver"));
    checks.insert(0, ok("npu", format!("{name} at {address}")));
    checks.push(match node {
        None => judge("node", false, "there is no /dev/accel/accel0".to_owned(), Some(fix)),
        Some(node) => {
            let refused = host::try_open(&node).err();
            let fix = refused.as_ref().and_then(host::Refused::fix);
            let detail = refused.map_or_else(|| "can be opened".to_owned(), |refused| refused.to_string());
            judge(
                "node",
                fix.is_none() && detail == "can be opened",
                format!("{}: {detail}", node.display()),
                fix.as_deref(),
            )
        }
    });
    let fix = "switch it on in the firmware's set-up (AMD IOMMU), and boot without `amd_iommu=off`";
    let detail = if has_iommu { "on" } else { "off: the driver shares its address space through it" };
    checks.push(judge("iommu", has_iommu, detail.to_owned(), Some(fix)));
    let needed = options.xclbin.as_ref().and_then(|path| runtime::Artefacts::read(path).ok());
    let needed = needed.map_or(host::CONTEXT_BYTES, |artefacts| runtime::locked_bytes(&artefacts.design)) / 1024;
    let limit = host::memlock_limit().map(|limit| limit / 1024);
    let detail = limit.map_or_else(|| "no limit".to_owned(), |limit| format!("{limit} KiB, {needed} KiB are needed"));
    let fix = SessionError::MEMLOCK_FIX;
    checks.push(judge("memlock", host::may_lock_all() || limit.is_none_or(|limit| limit >= needed), detail, Some(fix)));
    checks.push(judge("firmware", firmware.is_some(), firmware.unwrap_or_else(|| "unknown".to_owned()), None));
    checks
}

/// XRT's part for NPUs, which it looks for when it is asked for a device.
fn plugin(works: bool) -> Check {
    const NAME: &str = "xrt plug-in";
    match host::version_of_library("libxrt_driver_xdna") {
        Some(version) => ok(NAME, version),
        None if works => ok(NAME, "of unknown version"),
        None => problem(NAME, "XRT did not load it", Some("on Debian: `apt-get install libxrt-npu2`".to_owned())),
    }
}

/// What makes an xclbin, which does not need to be this machine.
fn tools() -> Check {
    const NAME: &str = "compilers";
    match Toolchain::find() {
        Ok(Toolchain { peano_version, aiecc_version, xclbinutil_version, .. }) => {
            ok(NAME, format!("Peano {peano_version}, aiecc {aiecc_version}, xclbinutil {xclbinutil_version}"))
        }
        Err(error) => not_needed(NAME, format!("to run what was built; to build: {error}"), None),
    }
}
