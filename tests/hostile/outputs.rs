//! Outputs that cannot be written: what was there stays, and nothing else.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::{Command, Output},
};

use crate::{
    archives::{NO_FILE, good},
    common::{fixture, stderr, stdout},
    runner::{Case, case, pipe, refuse, skip},
};

pub(crate) fn cases() -> Vec<Case> {
    let long = "x".repeat(300);
    let mut outs: Vec<(&str, &str, &str)> = vec![
        ("a folder", ".", NO_FILE),
        ("the folder above", "..", NO_FILE),
        ("a folder that is not there", "new/", NO_FILE),
        ("in a folder that is not there", "none/out.npz", "cannot write it: No such file or directory"),
        ("below a file", "in.npz/out.npz", "cannot write it: Not a directory"),
        ("a file that may not be written", "text", "cannot write it: permission denied"),
        ("a name that is too long", &long, "cannot write it: File name too long"),
        ("a pipe", "pipe", NO_FILE),
        ("a link to itself", "loop", "cannot write it: Too many levels of symbolic links"),
        ("a link to nowhere", "nowhere", "cannot write it: No such file or directory"),
        ("nothing", "/dev/null", NO_FILE),
    ];
    if cfg!(target_os = "linux") {
        outs.push(("a full device", "/dev/full", NO_FILE));
        outs.push(("in a file system without files", "/proc/out.npz", "cannot write it: "));
    }
    let refused = outs.into_iter().flat_map(|(name, out, message)| {
        // Before the scale is looked at, too, which is refused otherwise.
        ["", " --out-scale 1e-9"].map(|scale| {
            let arguments = format!("run --input in.npz --output {out}{scale}");
            let case = case(format!("output: {name}{scale}"), &arguments, format!("{out}: {message}"));
            case.file("in.npz", good()).make(|folder| {
                let text = folder.join("text");
                fs::write(&text, "text")?;
                fs::set_permissions(&text, fs::Permissions::from_mode(0o444))?;
                symlink("loop", folder.join("loop"))?;
                symlink("none/out.npz", folder.join("nowhere"))?;
                pipe(folder)
            })
        })
    });
    let named =
        case("output: a name of a terminal's commands", "run --input in.npz --output", r"\u{1b}[2J\n/out.npz: ");
    refused.chain([named.file("in.npz", good()).argument("\x1b[2J\n/out.npz")]).chain(inputs()).collect()
}

/// Outputs that would take the place of what is read.
fn inputs() -> Vec<Case> {
    let npu = "--backend npu --xclbin attn.xclbin";
    let mut calls = Vec::new();
    for (command, option) in [("run", "--output"), ("validate", "--report")] {
        for (input, output) in
            [("in.npz", "in.npz"), ("in.npz", "./in.npz"), ("in.npz", "link"), ("link", "in.npz"), ("in.npz", "hard")]
        {
            calls.push((format!("{command} --input {input} {option} {output}"), output, input));
        }
        for read in ["attn.xclbin", "attn.insts.bin", "attn.json"] {
            calls.push((format!("{command} --input in.npz {npu} {option} {read}"), read, read));
        }
    }
    calls.push((format!("validate {npu} --report attn.json"), "attn.json", "attn.json"));
    let refused = calls.into_iter().map(|(arguments, output, input)| {
        let message = format!("{output}: got the input {input}, expected another file");
        let case = case(format!("output: {arguments}"), &arguments, message);
        case.file("in.npz", good()).make(|folder| {
            symlink("in.npz", folder.join("link"))?;
            fs::hard_link(folder.join("in.npz"), folder.join("hard"))?;
            ["attn.xclbin", "attn.insts.bin", "attn.json"].iter().try_for_each(|name| fs::write(folder.join(name), "x"))
        })
    });
    refused.collect()
}

#[test]
fn outputs_that_cannot_be_written() {
    refuse(&cases());
}

/// The file is made where the last one of them says.
#[test]
fn links_to_what_is_not_there_yet_stay_links() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    fs::write(path("in.npz"), good()).expect("written");
    fs::create_dir(path("below")).expect("made");
    let links = [("first", "below/second"), ("below/second", "../third"), ("third", "out")];
    for (link, to) in links {
        symlink(to, path(link)).expect("made");
    }
    for arguments in ["run --input in.npz --output first", "validate --input in.npz --report first"] {
        let mut attn = Command::new(env!("CARGO_BIN_EXE_attn"));
        let output = attn.args(arguments.split(' ')).current_dir(&folder).output().expect("it starts");
        assert_eq!(output.status.code(), Some(0), "{arguments}: {}", stderr(&output));
        for (link, to) in links {
            assert_eq!(fs::read_link(path(link)).ok().as_deref(), Some(Path::new(to)), "{arguments}: {link}");
        }
        assert!(fs::symlink_metadata(path("out")).is_ok_and(|out| out.is_file()), "{arguments}");
        fs::remove_file(path("out")).expect("there");
        // And no part of it is left.
        assert_eq!([".", "below"].map(|name| fs::read_dir(path(name)).expect("a folder").count()), [4, 1]);
    }
}

/// Its output has 576 000 bytes.
const LARGE: &str = "src/suite/data/whisper.npz";

/// Writes a large output in a folder, whatever the shell does before; stdout has then what is in the folder.
fn write(program: &str, arguments: &[&str], before: &str, folder: &Path) -> Output {
    let script = format!(
        "out=$1; {before}\n\"$0\" run --input \"$2\" --output \"$out/out.npz\" --out-scale v; status=$?
         ls -A \"$out\"; cat \"$out\"/*; exit $status"
    );
    let mut command = Command::new(program);
    command.args(arguments).args(["sh", "-c", &script, env!("CARGO_BIN_EXE_attn")]).arg(folder).arg(fixture(LARGE));
    command.output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

#[track_caller]
fn assert_refused(output: &Output, left: &str, expected: &str) {
    let text = stderr(output).lines().filter(|line| !line.starts_with("cat: ")).collect::<Vec<_>>().join("\n");
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.starts_with("attn: ") && text.contains(expected) && text.lines().count() == 1, "{text}");
    assert_eq!(stdout(output), left);
}

/// Who may do everything.
#[cfg(target_os = "linux")]
fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|this| std::os::unix::fs::MetadataExt::uid(&this) == 0)
}

const BEFORE: &str = "printf before > \"$out/out.npz\";";
const LEFT: &str = "out.npz\nbefore";

/// A limit of the size of files, which every user can set.
#[test]
fn a_file_that_must_not_grow_leaves_no_half() {
    // 64 blocks of 512 or 1024 bytes.
    let limit = "ulimit -f 64; trap '' XFSZ;";
    let folder = tempfile::tempdir().expect("a folder");
    let expected =
        "out.npz: cannot write it: File too large (os error 27): expected a path in a folder that can be written";
    assert_refused(&write("env", &[], limit, folder.path()), "", expected);
    assert_refused(&write("env", &[], &format!("{BEFORE} {limit}"), folder.path()), LEFT, expected);
}

/// A file system of its own, which takes a mount namespace.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_no_half_file() {
    let mut arguments = vec!["--mount"];
    if !is_root() {
        arguments.extend(["--user", "--map-root-user"]);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mounted = |options: &str| format!("mount -t tmpfs -o {options} none \"$out\" || exit 77;");
    let full = mounted("size=128k");
    let expected =
        "out.npz: cannot write it: No space left on device (os error 28): expected a path in a folder that can be";
    let output = write("unshare", &arguments, &full, folder.path());
    if output.status.code() == Some(77) || stderr(&output).starts_with("unshare: ") {
        return skip(
            "a_full_disk_leaves_no_half_file",
            "a mount namespace cannot be entered, as root or in a user namespace",
        );
    }
    assert_refused(&output, "", expected);
    assert_refused(&write("unshare", &arguments, &format!("{full} {BEFORE}"), folder.path()), LEFT, expected);
    let read_only = format!("{} {BEFORE} mount -o remount,ro \"$out\" || exit 77;", mounted("size=1m"));
    let expected =
        "out.npz: cannot write it: Read-only file system (os error 30): expected a path in a folder that can be";
    assert_refused(&write("unshare", &arguments, &read_only, folder.path()), LEFT, expected);
}

/// Root without its privileges is like anybody else.
#[cfg(target_os = "linux")]
#[test]
fn what_one_may_not_do_is_refused() {
    let plain = ["--bounding-set=-dac_override,-dac_read_search,-fowner"];
    let (program, arguments) = if is_root() { ("setpriv", &plain[..]) } else { ("env", &[][..]) };
    let works = Command::new(program).args(arguments).arg("true").output();
    if !works.is_ok_and(|output| output.status.success()) {
        return skip("what_one_may_not_do_is_refused", "`setpriv` cannot give up the privileges of root");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let read_only = format!("{BEFORE} chmod 555 \"$out\";");
    let output = write(program, arguments, &read_only, folder.path());
    assert_refused(&output, LEFT, "out.npz: cannot write it: Permission denied (os error 13): expected a path");
    let input = folder.path().join("in.npz");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("set");
    fs::write(&input, good()).expect("written");
    fs::set_permissions(&input, fs::Permissions::from_mode(0o000)).expect("set");
    for command in [&["validate", "--input"][..], &["compare", "in.npz"], &["npu", "inspect"]] {
        let mut attn = Command::new(program);
        attn.args(arguments).arg(env!("CARGO_BIN_EXE_attn")).args(command).arg("in.npz").current_dir(&folder);
        let output = attn.output().expect("it starts");
        assert_refused(&output, "", "in.npz: cannot read it: Permission denied (os error 13)");
    }
}
