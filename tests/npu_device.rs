//! The backend `npu` on a device: `cargo xtask npu` on a machine that has one, `cargo xtask emulated-npu` on the emulated driver.
//!
//! `ATTN_NPU` names the folder of the xclbins. What is injected into the emulated driver cannot be into a device.
#![cfg(any(feature = "xrt-shim", feature = "xrt"))]

mod common;

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use attn::{Heads, Inputs, Mask, Parameters, Scales, attend, scratch_len};
use attn_npu::runtime::{Binding, Options, Session, SessionError, Times};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use serde_json::Value;

/// A device has few contexts: one test at a time takes them.
static DEVICE: Mutex<()> = Mutex::new(());

/// Whether the driver is the emulated one.
fn is_emulated() -> bool {
    std::env::var_os("ATTN_EMULATOR").is_some()
}

fn xclbin(name: &str) -> PathBuf {
    let folder = std::env::var_os("ATTN_NPU").expect("ATTN_NPU names the folder of the xclbins: run `cargo xtask npu`");
    Path::new(&folder).join(format!("attn-{name}.xclbin"))
}

fn open(name: &str) -> Session {
    Session::open(&Options::new(xclbin(name))).unwrap_or_else(|error| panic!("{error}"))
}

/// Heads of numbers that look like noise.
struct Case {
    parameters: Vec<Parameters>,
    masks: Vec<Mask<'static>>,
    tensors: [Vec<i8>; 3],
}

impl Case {
    fn new(heads: usize, queries: usize, keys: usize, dim: usize) -> Self {
        let numbers = |salt: usize, len: usize| -> Vec<i8> {
            (0..len).map(|i| ((i + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as i8).collect()
        };
        let scales = Scales { query: 0.02, key: 0.02, value: 1.0, out: 0.4 };
        Self {
            parameters: vec![Parameters::new(dim, scales).expect("in range"); heads],
            masks: vec![Mask::new(); heads],
            tensors: [
                numbers(1, heads * queries * dim),
                numbers(2, heads * keys * dim),
                numbers(3, heads * keys * dim),
            ],
        }
    }

    fn heads(&self) -> Heads<'_> {
        let [query, key, value] = &self.tensors;
        let inputs = Inputs { query, key, value };
        Heads { parameters: &self.parameters, masks: &self.masks, kv_heads: self.parameters.len(), inputs }
    }

    fn expected(&self) -> Vec<i8> {
        let mut out = vec![0; self.tensors[0].len()];
        let len = out.len() / self.parameters.len();
        for (head, out) in out.chunks_exact_mut(len).enumerate() {
            let head = self.heads().head(head);
            let mut scratch = vec![0; scratch_len(head.parameters.dim())];
            attend(head.parameters, head.inputs, head.mask, &mut scratch, out).expect("a valid head");
        }
        out
    }
}

#[test]
fn a_session_names_what_computes() {
    let _device = DEVICE.lock();
    for &binding in Binding::ALL {
        let options = Options { binding: Some(binding), ..Options::new(xclbin("tile-core")) };
        let session = Session::open(&options).unwrap_or_else(|error| panic!("{error}"));
        let identity = session.identity().clone();
        println!("{identity}");
        assert_eq!(identity.device.contains("emulated"), is_emulated(), "{identity}");
        assert!(identity.xrt.starts_with("2.") && identity.xrt.ends_with(&format!("({})", binding.name())));
        assert!(identity.xclbin.starts_with("attn-tile-core.xclbin "), "{identity}");
        assert!(!identity.driver.is_empty() && !identity.firmware.is_empty());
    }
}

const TILES: usize = 100_000;

/// So many tiles: the same bits for ever, and neither memory nor handles more than after the first thousands.
#[test]
fn a_soak_leaves_nothing_behind() {
    let _device = DEVICE.lock();
    let mut session = open("tiles-array");
    let case = Case::new(1024, 64, 64, 64);
    let expected = case.expected();
    let mut out = vec![0; expected.len()];
    let mut used = None;
    let start = Instant::now();
    for round in 0..TILES.div_ceil(1024) {
        session.attend(case.heads(), &mut out, &|_| ()).unwrap_or_else(|error| panic!("{error}"));
        assert!(out == expected, "round {round}: other bits");
        out.fill(0);
        // What is allocated once is there by now.
        if round == 9 {
            used = Some(usage());
        }
    }
    let (before, after) = (used.expect("ten rounds"), usage());
    println!("{TILES} tiles in {:.1} s: before {before:?}, after {after:?}", start.elapsed().as_secs_f64());
    assert_eq!(after.handles, before.handles);
    assert!(after.kibibytes <= before.kibibytes + 1024, "{before:?} {after:?}");
}

/// What this process holds.
#[derive(Debug)]
struct Usage {
    kibibytes: u64,
    handles: usize,
}

fn usage() -> Usage {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("resident memory");
    let kibibytes = resident.trim().trim_end_matches(" kB").parse().expect("a number");
    Usage { kibibytes, handles: fs::read_dir("/proc/self/fd").expect("Linux").count() }
}

/// Sessions come and go; more of them than there are contexts are refused in a sentence, and the others go on.
#[test]
fn sessions_take_contexts_and_give_them_back() {
    let _device = DEVICE.lock();
    let case = Case::new(1, 64, 64, 64);
    let expected = case.expected();
    for _ in 0..20 {
        drop(open("tile-core"));
    }
    let handles = [(); 2].map(|()| {
        let mut sessions = Vec::new();
        let error = loop {
            match Session::open(&Options::new(xclbin("tile-core"))) {
                Ok(session) => sessions.push(session),
                Err(error) => break error,
            }
            assert!(sessions.len() <= 64, "the device has that many contexts?");
        };
        println!("{} sessions at once, then: {error}", sessions.len());
        assert!(matches!(error, SessionError::Contexts(_)), "{error:?}");
        for session in &mut sessions {
            let mut out = vec![0; expected.len()];
            session.attend(case.heads(), &mut out, &|_| ()).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(out, expected);
        }
        drop(sessions);
        usage().handles
    });
    // XRT opens its log at its first error.
    assert_eq!(handles[0], handles[1]);
}

#[test]
fn two_threads_take_two_sessions() {
    let _device = DEVICE.lock();
    let case = Case::new(3, 100, 300, 40);
    let expected = case.expected();
    let mut sessions: Vec<_> = (0..2).map(|_| open("npu1-1x4-d64-sequence-1x256x1536")).collect();
    std::thread::scope(|scope| {
        for session in &mut sessions {
            scope.spawn(|| {
                for _ in 0..5 {
                    let mut out = vec![0; expected.len()];
                    session.attend(case.heads(), &mut out, &|_| ()).unwrap_or_else(|error| panic!("{error}"));
                    assert_eq!(out, expected);
                }
            });
        }
    });
}

#[test]
fn dispatches_are_submitted_and_waited_for() {
    let _device = DEVICE.lock();
    let mut session = open("tiles-array");
    let cases = [Case::new(1024, 64, 64, 64), Case::new(40, 100, 7, 33)];
    let tickets = cases.each_ref().map(|case| session.submit(case.heads()).unwrap_or_else(|error| panic!("{error}")));
    assert_eq!(session.submit(cases[0].heads()).map(|_| ()), Err(SessionError::Busy));
    for (case, ticket) in cases.iter().zip(&tickets).rev() {
        let mut out = vec![0; case.tensors[0].len()];
        session.wait(ticket, &mut out).unwrap_or_else(|error| panic!("{error}"));
        assert!(out == case.expected());
    }
    let Times { dispatches, total, pack, submit, device, wait, unpack } = session.take_times();
    assert_eq!(dispatches, 2);
    assert!(total >= pack + submit + wait + unpack);
    assert!([pack, submit, device, unpack].iter().all(|&time| time > Duration::ZERO) && wait <= device);
}

/// A session that is dropped with work under way ends it first.
#[test]
fn a_session_is_dropped_while_it_works() {
    let _device = DEVICE.lock();
    let case = Case::new(1024, 64, 64, 64);
    let mut session = open("tiles-array");
    let ticket = session.submit(case.heads()).unwrap_or_else(|error| panic!("{error}"));
    drop(session);
    let mut session = open("tiles-array");
    let mut out = vec![0; case.tensors[0].len()];
    assert_eq!(session.wait(&ticket, &mut out), Err(SessionError::Ticket));
    session.attend(case.heads(), &mut out, &|_| ()).unwrap_or_else(|error| panic!("{error}"));
    assert!(out == case.expected());
}

/// Ctrl-C ends the command at once, with a dispatch under way, and without an output.
#[test]
fn an_interrupt_ends_the_command() {
    let _device = DEVICE.lock();
    if skip_on_a_device("slow dispatches") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out.npz");
    let input = common::fixture("src/suite/data/whisper.npz");
    for wait in [600, 800, 1000] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_attn"));
        command.args(["run", "--input", &input, "--out-scale", "v", "--output"]).arg(&out);
        command.args(["--backend", "npu", "--xclbin"]).arg(xclbin("npu1-1x4-d64-sequence-1x256x1536"));
        command.env("ATTN_EMULATOR_FAULT", "slow").stderr(Stdio::piped());
        let child = command.spawn().expect("a program");
        std::thread::sleep(Duration::from_millis(wait));
        signal::kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("signalled");
        let output = child.wait_with_output().expect("ended");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), output.status.signal()), (Some(130), None), "after {wait} ms: {said}");
        assert!(!out.exists());
    }
}

/// What hangs stays with its session: the process opens another one, and ends well.
#[test]
fn a_hang_leaves_the_process_healthy() {
    let _device = DEVICE.lock();
    if skip_on_a_device("a hang") {
        return;
    }
    let case = Case::new(1024, 64, 64, 64);
    let mut out = vec![0; case.tensors[0].len()];
    let mut session =
        Session::open(&Options { timeout: Duration::from_secs(1), ..Options::new(xclbin("tiles-array")) })
            .expect("one");
    inject(Some("hang"));
    let first = session.submit(case.heads()).expect("started");
    let second = session.submit(case.heads()).expect("started");
    let start = Instant::now();
    assert_eq!(session.wait(&first, &mut out), Err(SessionError::Hang { timeout: Duration::from_secs(1) }));
    assert_eq!(session.wait(&second, &mut out), Err(SessionError::Closed));
    drop(session);
    assert!(start.elapsed() < Duration::from_secs(3), "nothing is waited for twice");
    inject(None);
    let mut session = open("tiles-array");
    session.attend(case.heads(), &mut out, &|_| ()).unwrap_or_else(|error| panic!("{error}"));
    assert!(out == case.expected());
}

/// Sets what goes wrong from now on, in this process.
#[expect(unsafe_code, reason = "the environment, while no other thread of this program looks at it")]
fn inject(fault: Option<&str>) {
    // SAFETY: one test at a time, and the driver's thread reads it before and after, not while it is set.
    unsafe {
        match fault {
            Some(fault) => std::env::set_var("ATTN_EMULATOR_FAULT", fault),
            None => std::env::remove_var("ATTN_EMULATOR_FAULT"),
        }
    }
}

/// What users meet: the fault, the check of `attn doctor` that is a problem then, and the words that say why and what to do.
const FAILURES: &[(&str, &str, &str, &str)] = &[
    ("no-device", "device", "there is no NPU 0 on the PCI bus", "lspci"),
    ("no-driver", "device", "NPU 0 (0000:c6:00.1) has no driver `amdxdna`", "modprobe amdxdna"),
    ("permission", "device", "/dev/accel/accel0: permission denied", "usermod -aG render"),
    ("memlock", "device", "may lock ", "ulimit -l unlimited"),
    (
        "contexts",
        "context",
        "the driver gave no hardware context: none is free, or not so many columns",
        "xrt-smi examine",
    ),
    ("allocation:3", "buffers", "no memory for a buffer of ", "end other programs"),
    (
        "command-error",
        "self-test",
        "the dispatch failed: the instructions are not those of the xclbin",
        "attn npu inspect",
    ),
    ("hang", "self-test", "the dispatch did not end within 1 s", "dmesg"),
    ("abort", "self-test", "the driver gave the dispatch up: the design hangs", "dmesg"),
    ("timeout", "self-test", "the driver gave the dispatch up: the design hangs", "dmesg"),
    ("wrong-result", "self-test", "the NPU computes wrong results: 2 of 8192 elements", "issue 3778"),
];

fn attn(fault: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attn"));
    command.args(arguments).env("ATTN_EMULATOR_FAULT", fault);
    command.output().expect("a program")
}

fn doctor(fault: &str, xclbin: &Path) -> (Option<i32>, Value) {
    let xclbin = xclbin.display().to_string();
    let output = attn(fault, &["doctor", "--json", "--timeout", "1", "--xclbin", &xclbin]);
    (output.status.code(), serde_json::from_slice(&output.stdout).expect("JSON"))
}

fn skip_on_a_device(what: &str) -> bool {
    if !is_emulated() {
        println!("SKIPPED {what}: it is injected into the emulated driver");
    }
    !is_emulated()
}

#[test]
fn failures_are_sentences_that_help() {
    let _device = DEVICE.lock();
    if skip_on_a_device("failures of the driver") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out.npz").display().to_string();
    let input = common::fixture("src/suite/data/acceptance.npz");
    fs::write(&out, "what was there").expect("written");
    let tile = xclbin("tile-core");
    let run = ["run", "--input", &input, "--output", &out, "--backend", "npu", "--timeout", "1", "--xclbin"];
    let tile_path = tile.display().to_string();
    let run = [&run[..], &[&tile_path]].concat();
    for &(fault, check, why, fix) in FAILURES {
        let output = attn(fault, &run);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        println!("{fault}: {}", said.trim_end());
        assert_eq!(output.status.code(), Some(2), "{fault}: {said}");
        assert!(said.starts_with("attn: backend npu: ") && said.lines().count() == 1, "{fault}: {said}");
        assert!(said.contains(why) && said.contains(fix), "{fault}: {said}");
        assert_eq!(fs::read_to_string(&out).expect("there"), "what was there", "{fault}");

        let (status, report) = doctor(fault, &tile);
        assert_eq!((status, &report["ok"]), (Some(1), &Value::Bool(false)), "{fault}");
        let checks = report["checks"].as_array().expect("checks");
        let found = checks.iter().find(|found| found["name"] == check).expect("the check");
        assert_eq!(found["status"], "problem", "{fault}: {found}");
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        assert!(text("detail").contains(why) && text("fix").contains(fix), "{fault}: {found}");
        let is_no_device = |check: &Value| check["detail"].as_str().unwrap_or_default().contains("no NPU");
        assert_eq!(checks.iter().any(is_no_device), fault == "no-device", "{fault}: {report}");
    }
    // The same in the middle of the work.
    for (fault, why) in [
        ("command-error:3", "the dispatch failed: "),
        ("hang:3", "the dispatch did not end within 1 s"),
        ("abort:3", "ERT_CMD_STATE_ABORT"),
    ] {
        let output = attn(fault, &run);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{fault}: {said}");
        assert!(said.contains(why) && said.lines().count() == 1, "{fault}: {said}");
        assert_eq!(fs::read_to_string(&out).expect("there"), "what was there", "{fault}");
    }
    let counts = folder.path().join("counts");
    let mut slow = Command::new(env!("CARGO_BIN_EXE_attn"));
    slow.args(&run).env("ATTN_EMULATOR_FAULT", "slow").env("ATTN_EMULATOR_REPORT", &counts);
    let output = slow.output().expect("a program");
    let counted = fs::read_to_string(&counts).expect("what the driver counted");
    assert_eq!(counted, "emulated: 1 opened, 3 dispatches, 0 buffers and 0 contexts left\n");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.starts_with("backend npu (emulated NPU Phoenix, driver amdxdna emulated, firmware "), "{said}");
}

#[test]
fn an_emulated_device_has_no_times() {
    let _device = DEVICE.lock();
    let tile = xclbin("tile-core").display().to_string();
    let bench = ["bench", "--shape", "1x64x64x64", "--rounds", "1", "--backend", "npu", "--xclbin", &tile];
    let output = common::attn(&bench);
    if is_emulated() {
        assert_eq!((output.status.code(), common::stdout(&output).lines().count()), (Some(2), 0));
        assert!(common::stderr(&output).contains("an emulated device has no times"), "{}", common::stderr(&output));
    } else {
        assert!(common::stdout(&output).contains(" dispatches, "), "{}", common::stdout(&output));
    }
}

#[test]
fn the_files_are_checked() {
    let _device = DEVICE.lock();
    let folder = tempfile::tempdir().expect("a folder");
    let name = "attn-tile-core";
    let source = xclbin("tile-core");
    let copy = |change: &dyn Fn(&str, Vec<u8>) -> Vec<u8>| {
        for suffix in ["xclbin", "insts.bin", "json"] {
            let content = fs::read(source.with_file_name(format!("{name}.{suffix}"))).expect("built");
            fs::write(folder.path().join(format!("{name}.{suffix}")), change(suffix, content)).expect("written");
        }
        Session::open(&Options::new(folder.path().join(format!("{name}.xclbin")))).map(|_| ())
    };
    copy(&|_, content| content).expect("a copy");
    for (suffix, change, expected) in CHANGES {
        let changed = |of: &str, content| if of == *suffix { change(content) } else { content };
        let error = copy(&changed).expect_err(expected).to_string();
        assert!(error.contains(expected) && error.contains("`attn npu build`"), "{error}");
    }
    let error = Session::open(&Options::new(folder.path().join("none.xclbin"))).err().expect("none").to_string();
    assert!(error.contains("No such file") && error.contains("`attn npu build`"), "{error}");
    let error = Session::open(&Options { device: 7, ..Options::new(source) }).err().expect("none").to_string();
    assert!(error.starts_with("there is no NPU 7"), "{error}");
}

/// The end of a file's name, what happens to the file, and what is said of it.
type Change = (&'static str, fn(Vec<u8>) -> Vec<u8>, &'static str);

const CHANGES: &[Change] = &[
    ("xclbin", |content| content[..3000].to_vec(), "xclbin: "),
    ("insts.bin", |content| content[..100].to_vec(), "not as built: insts.bin: got "),
    ("insts.bin", |content| [&content[..90], &[7], &content[91..]].concat(), "not as built: insts.bin: got "),
    ("json", |_| Vec::new(), "no manifest of this version: "),
    ("json", |text| replaced(text, "\"abi\": 1", "\"abi\": 7"), "version of the objects (abi): got 7, expected 1"),
    ("json", |text| replaced(text, "\"dim\": 64", "\"dim\": 80000"), "no manifest of this version: design: "),
    (
        "json",
        |text| replaced(text, "\"device\": \"npu1\"", "\"device\": \"npu9\""),
        "device: got `npu9`, expected npu1 or npu2",
    ),
    (
        "json",
        |text| replaced(text, "\"tiles\": 1", "\"tiles\": 7"),
        "bytes that the instructions move: got [12352, 4096]",
    ),
];

fn replaced(content: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(content).expect("JSON");
    assert!(text.contains(from), "{text}");
    text.replace(from, to).into_bytes()
}

/// What happens to the operations of a sequence, and what is said of it.
type Break = (fn(&mut Vec<Vec<u32>>), &'static str);

/// Of a design whose columns have three heads each, and wait for the first one before they start the last one. On a device most of
/// these would be noticed sometimes, or by the next dispatch.
const BREAKS: &[Break] = &[
    // Nothing is broken: the tests themselves work.
    (|_| (), "backend npu (emulated "),
    (|operations| drop(operations.remove(FIRST_WAIT)), "descriptor 0 is written before its transfer of `in`"),
    (|operations| drop(operations.pop()), "at the end, column 1 has 1 transfers of `in`"),
    (|operations| operations.extend_from_within(operations.len() - 1..), "a real column would wait for ever"),
    (|operations| operations[..=FIRST_WAIT].rotate_right(1), "`in` has 0 bytes for an object of 5184"),
    (
        |operations| last(operations, PATCH)[10] += 4096,
        "bytes that the instructions move: got [186624, 307200, 188416]",
    ),
    (|operations| operations[FIRST_OUT][10] += 64, "the NPU computes wrong results"),
    (|operations| operations[FIRST_OUT][8] = 0, "the NPU computes wrong results"),
    (|operations| operations[0][4] -= 4, "an object is none for this kernel"),
    (|operations| operations[5][4] -= 0x10000, "`block` has 0 bytes for an object of 10240"),
];

/// Behind the transfers of two heads on two columns, of ten operations each.
const FIRST_WAIT: usize = 40;

/// What gives the first output its address.
const FIRST_OUT: usize = 7;

/// What gives a transfer its address.
const PATCH: u32 = 129;

fn last(operations: &mut [Vec<u32>], kind: u32) -> &mut Vec<u32> {
    operations.iter_mut().rfind(|operation| operation[0] == kind).expect("one of them")
}

/// The operations of a sequence; a sequence of operations.
fn operations(words: &[u32]) -> Vec<Vec<u32>> {
    let mut rest = &words[4..];
    let mut operations = Vec::new();
    while let Some(&kind) = rest.first() {
        let length = match kind {
            0 => rest[5],
            1 => rest[3],
            3 => rest[6],
            _ => rest[1],
        };
        let (operation, others) = rest.split_at(length as usize / 4);
        operations.push(operation.to_vec());
        rest = others;
    }
    operations
}

fn sequence(header: &[u32], operations: &[Vec<u32>]) -> Vec<u8> {
    let words = operations.concat();
    let counts = [operations.len(), 4 * (4 + words.len())].map(|count| u32::try_from(count).expect("few"));
    [&header[..2], &counts, &words].concat().iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// The emulated array finds what a sequence leaves to chance: what the others did not leave.
#[test]
fn broken_sequences_are_found() {
    let _device = DEVICE.lock();
    if skip_on_a_device("broken instruction sequences") {
        return;
    }
    let design = "--columns 2 --rows 3 --dim 80 --depth 1 --heads 6 --queries 200 --keys 300".split(' ');
    let name = "attn-npu1-2x3-d80-sequence-6x200x300-depth1";
    let built = xclbin("tile-core").with_file_name(format!("{name}.insts.bin"));
    let content = fs::read(built).expect("built");
    let words: Vec<_> = content.as_chunks().0.iter().copied().map(u32::from_le_bytes).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("insts.bin");
    let file_name = file.display().to_string();
    let out = folder.path().join("npu").display().to_string();
    let input = common::fixture("src/suite/data/acceptance.npz");
    let output = folder.path().join("out.npz").display().to_string();
    for (number, (change, said)) in BREAKS.iter().enumerate() {
        let mut operations = operations(&words);
        change(&mut operations);
        fs::write(&file, sequence(&words, &operations)).expect("written");
        let mut build = Command::new(env!("CARGO_BIN_EXE_attn"));
        build.args(["npu", "build", "--out", &out]).args(design.clone()).env("STAND_IN_INSTRUCTIONS", &file_name);
        let built = build.output().expect("a program");
        assert!(built.status.success(), "{number}: {}", String::from_utf8_lossy(&built.stderr));
        let xclbin = format!("{out}/{name}.xclbin");
        let run = ["run", "--input", &input, "--output", &output, "--backend", "npu", "--timeout", "1", "--xclbin"];
        let result = attn("", &[&run[..], &[&xclbin]].concat());
        let stderr = String::from_utf8_lossy(&result.stderr);
        println!("{number}: {}", stderr.trim_end());
        assert_eq!(result.status.success(), number == 0, "{number}: {stderr}");
        assert!(stderr.contains(said), "{number}: {stderr}");
        fs::remove_dir_all(&out).expect("made");
    }
}

/// A process leaves nothing to the driver to clean up, however it ends; but for what hangs, which it must not touch.
#[test]
fn nothing_is_left_in_the_driver() {
    let _device = DEVICE.lock();
    if skip_on_a_device("counts of the driver") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let report = folder.path().join("report");
    let xclbin = xclbin("tile-array").display().to_string();
    for (fault, left) in [
        ("", "0 buffers and 0 contexts"),
        ("contexts", "0 buffers and 0 contexts"),
        ("allocation:5", "0 buffers and 0 contexts"),
        ("command-error:3", "0 buffers and 0 contexts"),
        ("abort", "0 buffers and 0 contexts"),
        ("wrong-result", "0 buffers and 0 contexts"),
        ("hang:3", "9 buffers and 1 contexts"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_attn"));
        command.args(["validate", "--backend", "npu", "--timeout", "1", "--xclbin", &xclbin]);
        command.env("ATTN_EMULATOR_FAULT", fault).env("ATTN_EMULATOR_REPORT", &report);
        let output = command.output().expect("a program");
        assert_eq!(output.status.success(), fault.is_empty(), "{fault}");
        let said = fs::read_to_string(&report).expect("a report");
        assert!(said.starts_with("emulated: 1 opened, ") && said.contains(left), "{fault}: {said}");
        fs::remove_file(&report).expect("there");
    }
}

/// XRT without its plug-in, and what is no XRT.
#[test]
fn what_is_installed_of_xrt_is_said() {
    let _device = DEVICE.lock();
    if skip_on_a_device("another XRT") {
        return;
    }
    // XRT looks for its parts where Debian has them, from where it is itself.
    let folder = tempfile::tempdir().expect("a folder");
    let libraries = folder.path().join("lib/x86_64-linux-gnu");
    fs::create_dir_all(&libraries).expect("made");
    let attn = || {
        let tile = xclbin("tile-core").display().to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_attn"));
        command.args(["validate", "--backend", "npu", "--xclbin", &tile]).env("LD_LIBRARY_PATH", &libraries);
        let output = command.output().expect("a program");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        said
    };
    for library in ["libxrt_coreutil.so.2", "libxrt_core.so.2"] {
        fs::copy(Path::new("/usr/lib/x86_64-linux-gnu").join(library), libraries.join(library)).expect("Debian's XRT");
    }
    let said = attn();
    assert!(said.contains("its plug-in is missing") && said.contains("apt-get install libxrt-npu2"), "{said}");
    // The crate `xrt` is linked with it: the program does not start then.
    if cfg!(feature = "xrt") {
        return;
    }
    fs::write(libraries.join("libxrt_coreutil.so.2"), "no library").expect("written");
    let said = attn();
    assert!(said.contains("XRT is not installed, or not whole") && said.contains("apt-get install libxrt2"), "{said}");
}
