//! Whoever reads stdout or stderr may stop, or never have begun; and what looks odd is no error.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::{
    archives::{ODD, good},
    commands::xclbin,
    common::{fixture, stderr},
    runner::case,
};

/// Everything that prints, in a folder that has what it needs.
const PRINTING: [&str; 12] = [
    "validate --input in.npz",
    "validate --input in.npz --json",
    "compare out.npz out.npz",
    "compare out.npz out.npz --json",
    "bench --shape 1x4x5x8 --rounds 1",
    "bench --shape 1x4x5x8 --rounds 1 --json",
    "npu build --dry-run",
    "npu inspect attn.xclbin",
    "npu inspect attn.xclbin --json",
    "doctor --for cpu",
    "doctor --for cpu --json",
    "--help",
];

fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("in.npz"), good()).expect("written");
    fs::write(folder.path().join("attn.xclbin"), xclbin()).expect("written");
    assert!(attn(folder.path(), "run --input in.npz --output out.npz").status().expect("it starts").success());
    folder
}

fn attn(folder: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attn"));
    command.args(arguments.split(' ')).current_dir(folder).stderr(Stdio::null()).stdin(Stdio::null());
    command
}

/// A pipe that nobody reads.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

#[cfg(target_os = "linux")]
fn full() -> Stdio {
    fs::File::options().write(true).open("/dev/full").expect("a device").into()
}

#[test]
fn a_closed_pipe_is_no_error() {
    let folder = folder();
    for arguments in PRINTING {
        let output =
            attn(folder.path(), arguments).stdout(unread()).stderr(Stdio::piped()).output().expect("it starts");
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""), "{arguments}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_stdout_is_one() {
    let folder = folder();
    for arguments in PRINTING {
        let output = attn(folder.path(), arguments).stdout(full()).stderr(Stdio::piped()).output().expect("it starts");
        let expected = "attn: No space left on device (os error 28)\n";
        assert_eq!((output.status.code(), stderr(&output)), (Some(2), expected), "{arguments}");
    }
}

/// Nor has anybody to listen to what is said on stderr, or to be there at all.
#[test]
fn nobody_has_to_listen() {
    let folder = folder();
    let out = folder.path().join("out.npz");
    let written = fs::read(&out).expect("written");
    let streams: &[fn() -> Stdio] = &[
        unread,
        #[cfg(target_os = "linux")]
        full,
    ];
    for stream in streams {
        fs::remove_file(&out).expect("there");
        let status =
            attn(folder.path(), "run --input in.npz --output out.npz").stdout(stream()).stderr(stream()).status();
        assert_eq!(status.expect("it starts").code(), Some(0));
        assert_eq!(fs::read(&out).expect("the output is there"), written);
        let status =
            attn(folder.path(), "run --input missing.npz --output out.npz").stdout(stream()).stderr(stream()).status();
        assert_eq!(status.expect("it starts").code(), Some(2));
        assert_eq!(attn(folder.path(), "--frobnicate").stderr(stream()).status().expect("it starts").code(), Some(2));
        let stand_in = fixture("tests/npu/stand-in");
        let mut build = attn(folder.path(), "npu build --config tile-core");
        build
            .env("PATH", format!("{stand_in}/bin:/usr/bin:/bin"))
            .env("PEANO_INSTALL_DIR", format!("{stand_in}/peano"));
        let status =
            build.env_remove("VIRTUAL_ENV").env("STAND_IN", "").stdout(Stdio::null()).stderr(stream()).status();
        assert_eq!(status.expect("it starts").code(), Some(0));
        fs::remove_dir_all(folder.path().join("npu")).expect("the products are there");
    }
    for arguments in PRINTING.into_iter().chain(["run --input in.npz --output out.npz"]) {
        let closed = ["-c", "exec \"$0\" \"$@\" <&- >&- 2>&-", env!("CARGO_BIN_EXE_attn")];
        let mut command = Command::new("sh");
        command.args(closed).args(arguments.split(' ')).current_dir(&folder);
        assert_eq!(command.status().expect("a shell").code(), Some(0), "{arguments}");
    }
    assert_eq!(fs::read(&out).expect("the output is there"), written);
}

/// Of an odd environment, and an odd archive, there is nothing to say.
#[test]
fn what_looks_odd_is_taken() {
    for (name, value) in [
        ("RAYON_NUM_THREADS", "many"),
        ("RAYON_NUM_THREADS", "-1"),
        ("RAYON_NUM_THREADS", "0"),
        ("RAYON_RS_NUM_CPUS", "60000"),
        ("TMPDIR", "/nowhere"),
        ("TMPDIR", ""),
        ("HOME", "/nowhere"),
        ("COLUMNS", "x"),
        ("COLUMNS", "0"),
        ("TERM", "\x1b[2J"),
        ("NO_COLOR", "1"),
        ("CLICOLOR_FORCE", "1"),
        ("LC_ALL", "no_SUCH"),
        ("RUST_LOG", "trace"),
    ] {
        for arguments in ["run --input in.npz --output out.npz", "validate --input in.npz"] {
            let case = case(name, arguments, "").file("in.npz", good()).environment(name, value);
            let output = case.output();
            assert_eq!(output.status.code(), Some(0), "{name}={value}: {}", stderr(&output));
            assert!(!String::from_utf8_lossy(&output.stdout).contains('\x1b'), "no colours: {name}={value}");
        }
    }
    for (name, make, options) in ODD {
        for arguments in [
            "run --input in.npz --output out.npz",
            "run --input in.npz --output out.npz --out-scale v",
            "validate --input in.npz",
        ] {
            let output = case(name, &format!("{arguments}{options}"), "").file("in.npz", make()).output();
            let is_judged = arguments.starts_with("validate") && output.status.code() == Some(1);
            assert!(is_judged || output.status.code() == Some(0), "{name}: {arguments}: {}", stderr(&output));
        }
    }
}
