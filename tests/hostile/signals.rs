//! Ctrl-C and other signals that ask to end, while a file is read, while something is computed, and while it is written.
#![cfg(target_os = "linux")]

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use attn::npz;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::common::{Array, archive_bytes};

const ONE: [u8; 4] = 1.0_f32.to_le_bytes();

/// What is not so by then is never.
const PATIENCE: Duration = Duration::from_mins(1);

fn start(folder: &TempDir, arguments: &str) -> Child {
    // Whoever started the tests in the background may have had them ignore signals, and who starts ignoring them goes on.
    let mut command = Command::new("env");
    command.arg("--default-signal=INT,TERM,HUP").arg(env!("CARGO_BIN_EXE_attn"));
    command.args(arguments.split(' ')).current_dir(folder).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the attn command starts")
}

/// Waits until a process is as it should be, or has ended.
fn wait_until(child: &mut Child, is_so: impl Fn(&Child) -> bool) {
    let start = Instant::now();
    while !is_so(child) && child.try_wait().expect("a child").is_none() {
        if start.elapsed() > PATIENCE {
            _ = child.kill();
            panic!("it never came so far");
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Sends a signal, and waits for the end.
fn end(mut child: Child, signal: Signal) -> Output {
    // It may have ended just now.
    kill(Pid::from_raw(child.id().cast_signed()), signal).expect("it was not waited for");
    wait_until(&mut child, |_| false);
    child.wait_with_output().expect("ended")
}

/// Whether the input is open.
fn reads(child: &Child) -> bool {
    let files = fs::read_dir(format!("/proc/{}/fd", child.id())).into_iter().flatten().flatten();
    files.filter_map(|file| fs::read_link(file.path()).ok()).any(|file| file.ends_with("in.npz"))
}

/// Whether it had the processor for half a second, far longer than reading takes, and reads no more.
fn computes(child: &Child) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    // Behind the name in brackets: user's and system's time are the fourteenth and fifteenth number of all.
    let ticks: Option<u64> = stat.rsplit_once(')').map(|(_, numbers)| {
        numbers.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
    });
    ticks >= Some(50) && !reads(child)
}

/// Names of a folder's files.
fn files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).expect("a folder").map(|file| file.expect("listed").file_name());
    let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A folder with an input of so many queries and keys, d = 64: minutes of work.
fn with_input(rows: usize) -> TempDir {
    let tensor: Vec<u8> = (0..rows as u32 * 64).map(|i| (i.wrapping_mul(0x9E37_79B1) >> 24) as u8).collect();
    let shape = format!("({rows}, 64)");
    let scales = ["q_scale", "k_scale", "v_scale"].map(|name| (name, "<f4", "()", ONE.as_slice()));
    let tensors = ["q", "k", "v"].map(|name| (name, "|i1", shape.as_str(), tensor.as_slice()));
    let arrays: Vec<Array<'_>> = tensors.into_iter().chain(scales).collect();
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("in.npz"), archive_bytes(&arrays)).expect("written");
    folder
}

/// When a signal is sent.
type When = fn(&Child) -> bool;

/// The output that was there stays. Whatever happens between two looks at the process, it still computes.
fn leaves_what_there_was(command: &str, output: &str, signals: &[(Signal, &str, When)]) {
    let folder = with_input(200_000);
    let path = folder.path().join(output);
    for &(signal, options, when) in signals {
        for before in [None, Some("what was there")] {
            if let Some(before) = before {
                fs::write(&path, before).expect("written");
            }
            let mut child = start(&folder, &format!("{command} {output}{options}"));
            wait_until(&mut child, when);
            let ended = end(child, signal);
            assert_eq!(ended.status.code(), Some(130), "{signal}{options}: {:?}", ended.status);
            assert!(ended.stderr.is_empty(), "{ended:?}");
            assert!(ended.stdout.is_empty() || command.starts_with("validate"), "{ended:?}");
            assert_eq!(fs::read_to_string(&path).ok().as_deref(), before, "{signal}{options}");
            assert_eq!(files(folder.path()), ["in.npz", output][..=usize::from(before.is_some())]);
        }
        fs::remove_file(&path).expect("there");
    }
}

#[test]
fn a_signal_before_there_is_an_output_leaves_what_there_was() {
    let signals: [(_, _, When); _] = [
        (Signal::SIGINT, "", reads),
        (Signal::SIGTERM, "", reads),
        (Signal::SIGINT, "", computes),
        (Signal::SIGTERM, "", computes),
        (Signal::SIGINT, " --out-scale v", computes),
        (Signal::SIGHUP, " --out-scale v --backend auto", computes),
    ];
    leaves_what_there_was("run --input in.npz --output", "out.npz", &signals);
}

#[test]
fn a_signal_before_there_is_a_report_leaves_what_there_was() {
    let signals: [(_, _, When); _] = [
        (Signal::SIGINT, "", reads),
        (Signal::SIGINT, "", computes),
        (Signal::SIGTERM, " --json", computes),
        (Signal::SIGHUP, " --backend auto", computes),
    ];
    leaves_what_there_was("validate --input in.npz --report", "report.html", &signals);
}

/// Others leave nothing behind, whenever they end: the signal ends them as any program.
#[test]
fn a_signal_ends_a_validation() {
    let folder = with_input(200_000);
    for (signal, options) in [(Signal::SIGINT, ""), (Signal::SIGTERM, " --json")] {
        let mut child = start(&folder, &format!("validate --input in.npz{options}"));
        wait_until(&mut child, computes);
        let output = end(child, signal);
        assert_eq!(output.status.signal(), Some(signal as i32), "{:?}", output.status);
        assert!(output.stderr.is_empty(), "{output:?}");
        // No figure, and no part of a JSON object.
        assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), if options.is_empty() { 3 } else { 0 });
        assert_eq!(files(folder.path()), ["in.npz"]);
    }
}

/// While it is written, the output is whole, or not there.
#[test]
fn a_signal_leaves_all_or_nothing() {
    let tensor = vec![7_u8; 4_000_000 * 8];
    let key = ["k", "v"].map(|name| (name, "|i1", "(1, 8)", &tensor[..8]));
    let scales = ["q_scale", "k_scale", "v_scale"].map(|name| (name, "<f4", "()", ONE.as_slice()));
    let folder = tempfile::tempdir().expect("a folder");
    let arrays = [&[("q", "|i1", "(4000000, 8)", tensor.as_slice())], &key[..], &scales[..]].concat();
    fs::write(folder.path().join("in.npz"), archive_bytes(&arrays)).expect("written");
    let out = folder.path().join("out.npz");
    // As soon as a part of the output is there, empty at first.
    let is_part = |file: fs::DirEntry| {
        file.file_name().to_string_lossy().contains(".part") && file.metadata().is_ok_and(|file| file.len() > 0)
    };
    let writes = |_: &Child| fs::read_dir(folder.path()).expect("a folder").any(|file| file.is_ok_and(is_part));
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut child = start(&folder, "run --input in.npz --output out.npz --out-scale v");
        wait_until(&mut child, writes);
        let status = end(child, signal).status.code();
        assert!(matches!(status, Some(0 | 130)), "{signal}: {status:?}");
        let left = files(folder.path());
        assert!(left == ["in.npz"] || left == ["in.npz", "out.npz"], "{signal}: {left:?}");
        if left.len() > 1 {
            assert_eq!(npz::Output::read(&out).expect("the whole output").shape, [4_000_000, 8]);
            fs::remove_file(&out).expect("removed");
        }
    }
}
