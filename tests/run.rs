//! `attn run` and `attn compare`: files in, files out.

mod common;

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use attn::{
    Mask, Parameters, Scales, attend,
    backend::{BackendKind, Options},
    npz::{Output, OutputValues},
    problem::calibrated_scale,
    scratch_len,
};
use attn_ref::attention_head;
use common::{archive, assert_usage_error, attn, path_of, stderr, stdout};
use ndarray::Array2;

const ONE: [u8; 4] = 1.0_f32.to_le_bytes();

/// `rows * 8` integers in -16..16, other ones for every seed.
fn integers(rows: usize, seed: u32) -> Vec<i8> {
    (0..rows as u32 * 8).map(|i| ((i + seed).wrapping_mul(0x9E37_79B1) >> 27) as i8 - 16).collect()
}

fn bytes(integers: &[i8]) -> Vec<u8> {
    integers.iter().map(|&x| x as u8).collect()
}

/// Runs and expects success; what it printed on stderr, and the output.
#[track_caller]
fn run(input: &str, options: &[&str]) -> (String, Output) {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out.npz").display().to_string();
    let output = attn(&[&["run", "--input", input, "--output", &out], options].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(output.stdout.is_empty());
    assert_eq!(files(folder.path()), ["out.npz"], "nothing else is left behind");
    (stderr(&output).to_owned(), Output::read(Path::new(&out)).expect("what was written"))
}

/// Names of the files of a folder.
fn files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).expect("a folder").map(|file| file.expect("listed").file_name());
    let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[track_caller]
fn int8(output: &Output) -> (&[i8], &[f32]) {
    match &output.values {
        OutputValues::Int8 { values, scales } => (values, scales),
        OutputValues::Float(_) => panic!("out is float"),
    }
}

/// Six query heads of 3 queries, two key heads of 5 keys, dimension 8, a scale per head, and a mask of every head.
struct Grouped {
    query: Vec<i8>,
    key: Vec<i8>,
    value: Vec<i8>,
    mask: Vec<bool>,
}

const SCALES: [f32; 6] = [0.25, 0.5, 0.125, 1.0, 0.3, 0.01];
const KV_SCALES: [[f32; 2]; 2] = [[0.5, 0.25], [1.0, 0.07]];

impl Grouped {
    fn new() -> Self {
        let mask = (0..6 * 3 * 5).map(|i| i % 7 != 2).collect();
        Self { query: integers(18, 1), key: integers(10, 1000), value: integers(10, 2000), mask }
    }

    fn archive(&self) -> tempfile::NamedTempFile {
        let scales = |scales: &[f32]| -> Vec<u8> { scales.iter().flat_map(|scale| scale.to_le_bytes()).collect() };
        let mask: Vec<u8> = self.mask.iter().map(|&visible| u8::from(visible)).collect();
        archive(&[
            ("q", "|i1", "(2, 3, 3, 8)", &bytes(&self.query)),
            ("k", "|i1", "(2, 1, 5, 8)", &bytes(&self.key)),
            ("v", "|i1", "(2, 1, 5, 8)", &bytes(&self.value)),
            ("q_scale", "<f4", "(6,)", &scales(&SCALES)),
            ("k_scale", "<f4", "(2, 1)", &scales(&KV_SCALES[0])),
            ("v_scale", "<f4", "(2,)", &scales(&KV_SCALES[1])),
            ("mask", "|b1", "(6, 3, 5)", &mask),
        ])
    }

    /// The specification and the truth of one head, masked by the file's mask and this one.
    fn head(&self, head: usize, mask: Mask<'_>, out_scale: Option<f32>) -> (Vec<i8>, f32) {
        let cut = |tensor: &[i8], head: usize, rows: usize| tensor[head * rows * 8..][..rows * 8].to_vec();
        let (query, key, value) =
            (cut(&self.query, head, 3), cut(&self.key, head / 3, 5), cut(&self.value, head / 3, 5));
        let [key_scale, value_scale] = KV_SCALES.map(|scales| scales[head / 3]);
        let mask = mask.allowed(&self.mask[head * 15..][..15], 5);
        let float = |tensor: &[i8], scale: f32| {
            let values = tensor.iter().map(|&x| f64::from(x) * f64::from(scale)).collect();
            Array2::from_shape_vec([tensor.len() / 8, 8], values).expect("whole rows")
        };
        let (q, k, v) = (float(&query, SCALES[head]), float(&key, key_scale), float(&value, value_scale));
        let truth = attention_head(q.view(), k.view(), v.view(), 8.0_f64.sqrt().recip(), &mask).expect("finite");
        let largest = truth.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
        let out = out_scale.unwrap_or_else(|| calibrated_scale(largest, value_scale));
        let scales = Scales { query: SCALES[head], key: key_scale, value: value_scale, out };
        let parameters = Parameters::new(8, scales).expect("in range");
        let (mut scratch, mut out_values) = ([0; scratch_len(8)], vec![0; 24]);
        let inputs = attn::Inputs { query: &query, key: &key, value: &value };
        attend(&parameters, inputs, &mask, &mut scratch, &mut out_values).expect("valid");
        (out_values, out)
    }

    #[track_caller]
    fn expect(&self, output: &Output, mask: Mask<'_>, out_scale: impl Fn(usize) -> Option<f32>) {
        assert_eq!(output.shape, [2, 3, 3, 8]);
        let (values, scales) = int8(output);
        for head in 0..6 {
            let (expected, scale) = self.head(head, mask, out_scale(head));
            assert_eq!(&values[head * 24..][..24], expected, "head {head}");
            assert!((scales[head] / scale - 1.0).abs() < 1e-6, "head {head}: {} {scale}", scales[head]);
        }
    }
}

#[test]
fn gives_the_bits_of_the_specification() {
    let grouped = Grouped::new();
    let file = grouped.archive();
    let path = path_of(&file);
    let (stderr, output) = run(&path, &[]);
    assert!(stderr.starts_with("backend scalar: 6 heads x 3 queries x 5 keys x 8 in "), "{stderr}");
    grouped.expect(&output, Mask::new(), |_| None);
    let (_, output) = run(&path, &["--causal", "--out-scale", "calibrated", "--backend", "scalar"]);
    grouped.expect(&output, Mask::new().causal(0), |_| None);
    let (_, output) = run(&path, &["--causal=1", "--valid-keys", "3", "--out-scale=v"]);
    grouped.expect(&output, Mask::new().causal(1).valid_keys(3), |head| Some(KV_SCALES[1][head / 3]));
    let (_, output) = run(&path, &["--out-scale", "0.02", "--valid-keys=0"]);
    grouped.expect(&output, Mask::new().valid_keys(0), |_| Some(0.02));
    assert!(int8(&output).0.iter().all(|&x| x == 0));
}

#[test]
fn a_kernel_of_the_npu_says_that_it_ran_on_the_host_and_refuses_a_boolean_mask() {
    // The conformance suite says so if there was no compiler for it.
    if BackendKind::Kernel.open(&Options::default()).is_err() {
        return;
    }
    let scale = 0.1_f32.to_le_bytes();
    let [query, key, value] = [(3, 1), (70, 1000), (70, 2000)].map(|(rows, seed)| bytes(&integers(rows, seed)));
    let file = archive(&[
        ("q", "|i1", "(3, 8)", &query),
        ("k", "|i1", "(70, 8)", &key),
        ("v", "|i1", "(70, 8)", &value),
        ("q_scale", "<f4", "()", &scale),
        ("k_scale", "<f4", "()", &scale),
        ("v_scale", "<f4", "()", &scale),
    ]);
    let path = path_of(&file);
    for options in [&[][..], &["--causal=63", "--valid-keys=66"]] {
        let (stderr, output) = run(&path, &[options, &["--backend", "kernel"]].concat());
        assert!(stderr.starts_with("backend kernel (host): 1 heads x 3 queries x 70 keys x 8 in "), "{stderr}");
        assert_eq!(int8(&output), int8(&run(&path, options).1));
    }

    let masked = Grouped::new().archive();
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out.npz").display().to_string();
    assert_usage_error(
        &["run", "--input", &path_of(&masked), "--output", &out, "--backend", "kernel"],
        &["mask of head 0: got a boolean mask, expected valid keys, causal, or both"],
    );
    assert!(files(folder.path()).is_empty());
}

#[test]
fn the_same_input_gives_the_same_bytes_and_replaces_what_was_there() {
    let file = Grouped::new().archive();
    let input = path_of(&file);
    let folder = tempfile::tempdir().expect("a folder");
    let (a, b) = (folder.path().join("a.npz"), folder.path().join("b.npz"));
    fs::write(&b, "what was there").expect("written");
    for out in [&a, &b] {
        assert!(attn(&["run", "--input", &input, "--output", &out.display().to_string()]).status.success());
    }
    assert_eq!(fs::read(&a).expect("written"), fs::read(&b).expect("written"));
}

#[test]
fn a_plain_name_is_a_file_of_the_current_folder() {
    let file = Grouped::new().archive();
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_attn"));
    command.args(["run", "--input", &path_of(&file), "--output", "out.npz"]).current_dir(folder.path());
    let output = command.output().expect("the attn command starts");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(files(folder.path()), ["out.npz"]);
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_permissions_kept() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let file = Grouped::new().archive();
    let folder = tempfile::tempdir().expect("a folder");
    let [target, link, new, dangling, shared] =
        ["target.npz", "link.npz", "new.npz", "dangling.npz", "shared.npz"].map(|name| folder.path().join(name));
    fs::write(&target, "private").expect("written");
    fs::write(&shared, "everybody's").expect("written");
    fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).expect("set");
    symlink("target.npz", &link).expect("linked");
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o666)).expect("set");
    symlink("new.npz", &dangling).expect("linked");
    for out in [&link, &dangling, &shared] {
        assert!(attn(&["run", "--input", &path_of(&file), "--output", &out.display().to_string()]).status.success());
    }
    assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&target), mode(&shared)), (0o600, 0o666));
    assert!(fs::symlink_metadata(&dangling).expect("there").is_symlink());
    let plain = folder.path().join("plain");
    fs::write(&plain, "").expect("written");
    assert_eq!(mode(&new), mode(&plain), "as any new file");
    assert_eq!(fs::read(&target).expect("written"), fs::read(&new).expect("written"));
}

/// Long work with and without a terminal.
#[cfg(target_os = "linux")]
#[test]
fn a_bar_is_drawn_on_a_terminal_only() {
    let tensor = vec![7_u8; 60_000 * 64];
    let scales = ["q_scale", "k_scale", "v_scale"].map(|name| (name, "<f4", "()", ONE.as_slice()));
    let tensors = ["q", "k", "v"].map(|name| (name, "|i1", "(60000, 64)", tensor.as_slice()));
    let file = archive(&[&tensors[..], &scales[..]].concat());
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out.npz");
    let command = [env!("CARGO_BIN_EXE_attn"), "run", "--input", &path_of(&file), "--out-scale", "v", "--output"];
    let command = format!("exec {} {}", command.join(" "), out.display());
    let spawn = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"))
    };
    // A terminal of its own; its output ends with the work at the latest.
    let on_terminal = |command: &str| spawn("script", &["--quiet", "--flush", "--command", command, "/dev/null"]);
    let short = Grouped::new().archive();
    let output = on_terminal(&command.replace(&path_of(&file), &path_of(&short))).wait_with_output().expect("ended");
    assert!(stdout(&output).starts_with("backend scalar: 6 heads x 3 queries"), "no bar: {:?}", stdout(&output));
    fs::remove_file(&out).expect("written");
    let mut child = on_terminal(&command);
    let (mut seen, mut part) = (Vec::new(), [0; 4096]);
    let mut terminal = child.stdout.take().expect("piped");
    while !String::from_utf8_lossy(&seen).contains("/60000 queries") {
        let length = terminal.read(&mut part).expect("read");
        assert!(length > 0, "no bar in {:?}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&part[..length]);
    }
    child.kill().and_then(|()| child.wait()).expect("ended");
    let mut child = spawn("sh", &["-c", &command]);
    std::thread::sleep(Duration::from_secs(3));
    child.kill().expect("killed");
    let output = child.wait_with_output().expect("ended");
    assert_eq!((stdout(&output), stderr(&output)), ("", ""));
    assert!(files(folder.path()).is_empty(), "nothing is written before there is a result");
}

#[test]
fn outputs_are_compared_head_by_head() {
    let file = Grouped::new().archive();
    let folder = tempfile::tempdir().expect("a folder");
    let [a, b] = ["a.npz", "b.npz"].map(|name| folder.path().join(name).display().to_string());
    for (out, scale) in [(&a, "calibrated"), (&b, "v")] {
        let input = path_of(&file);
        assert!(attn(&["run", "--input", &input, "--output", out, "--out-scale", scale]).status.success());
    }
    let output = attn(&["compare", &a, &a]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).starts_with(&format!("{a} against {a}\none step: the first's out_scale\n")));
    let rows: Vec<_> = stdout(&output).lines().skip(2).collect();
    assert!(rows[0].starts_with("            corr.    MAE   RMSE    equal "), "{}", rows[0]);
    assert!(rows[1..].iter().all(|row| row.len() == rows[0].len()), "{rows:?}");
    let rows = &rows[1..];
    assert_eq!(rows.len(), 7);
    for (row, label) in rows.iter().zip(["all", "head 0", "head 1", "head 2", "head 3", "head 4", "head 5"]) {
        assert!(row.starts_with(label) && row.contains(" 100.00 % 100.00 % 100.00 %    0 "), "{row}");
    }
    let output = attn(&["compare", "--json", &a, &b]);
    assert_eq!(output.status.code(), Some(0), "different outputs are no error");
    let comparison: serde_json::Value = serde_json::from_str(stdout(&output)).expect("JSON");
    assert_eq!((&comparison["step"], &comparison["shape"]), (&"First".into(), &[2, 3, 3, 8][..].into()));
    assert_eq!(comparison["per_head"].as_array().map(Vec::len), Some(6));
    assert!(comparison["overall"]["equal"].as_f64() < Some(1.0));
    assert!(comparison["overall"]["correlation"].as_f64() > Some(0.9), "{comparison}");
}

#[test]
fn one_head_has_no_row_of_its_own() {
    let one = archive(&[("out", "|i1", "(1, 2)", &[1, 2]), ("out_scale", "<f4", "()", &ONE)]);
    let output = attn(&["compare", &path_of(&one), &path_of(&one)]);
    assert!(output.status.success());
    assert_eq!(stdout(&output).lines().count(), 4, "{}", stdout(&output));
}
