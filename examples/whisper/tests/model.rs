//! The real model on real recordings. `cargo xtask whisper-base` gets both, and runs these.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    rc::Rc,
};

use attn::backend::{BackendKind, Options};
use attn_ref::{Metrics, tolerance, torch::Method};
use attn_whisper::{
    attention::{Attention, Integer, ScaleRule, Torch},
    audio,
    calibration::Calibration,
    capture::{self, Capture},
    mel,
    model::Encoded,
    report::Models,
};
use tch::Tensor;

/// What float attention hears in the recordings that continuous integration makes; none where a program speaks, whose next version may
/// do so otherwise. Two are not speech.
const HEARD: [(&str, Option<&str>); 6] = [
    (
        "novel",
        Some(
            "And Mr. John Dashwood had then leisure to consider how much there might be prudently in his power to do for them. He was \
         not an ill-disposed young man. Unless to be rather cold-hearted and rather selfish is to be ill-disposed. Had he married \
         a more amiable woman, he might have been made still more respectable than he was. He might even have been made amiable \
         himself.",
        ),
    ),
    ("cards", Some("8 of spades, 4 of close, 7 of hearts.")),
    ("go-forward", Some("Go forward 10 meters.")),
    ("synthetic-english", None),
    ("silence", Some("you")),
    ("noise", Some("")),
];

fn below_root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn recording(name: &str) -> PathBuf {
    below_root(&format!("target/whisper/recordings/{name}.wav"))
}

fn calibration() -> Calibration {
    Calibration::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("calibration.json")).expect("committed")
}

fn models() -> Models {
    Models::read(&below_root("target/whisper/model"), Some(&calibration())).expect("the model that xtask made")
}

fn spectrogram(name: &str) -> Tensor {
    mel::log_mel(&audio::read(&recording(name)).expect("a recording that xtask made")).expect("computes")
}

fn integer(kind: BackendKind, rule: ScaleRule) -> Integer {
    Integer::new(kind, &Options::default(), rule).expect("every machine has it")
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.reshape([-1])).expect("floats")
}

/// The forms of integers, on the fastest backend.
fn rules() -> [ScaleRule; 3] {
    [ScaleRule::Dynamic, ScaleRule::DynamicInt8, ScaleRule::Static(Rc::new(calibration()))]
}

fn command(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_attn-whisper")).args(arguments).output().expect("runs")
}

#[test]
#[ignore = "left to `cargo xtask whisper-base`"]
fn integers_hear_the_same_as_floats() {
    let models = models();
    let mut integers = rules().map(|rule| integer(BackendKind::Auto, rule));
    for (name, expected) in HEARD {
        let mel = spectrogram(name);
        let encode = |model: &attn_whisper::transcribe::Transcriber, attention: &mut dyn Attention| -> Encoded {
            model.model.encode(&mel, attention).expect("computes")
        };
        let mut float = Torch(Method::Plain);
        let truth = encode(&models.float, &mut float);
        let heard = models.float.decode(&truth, &mut float).expect("computes");
        assert!(expected.is_none_or(|expected| expected == heard.text), "{name}, float: {}", heard.text);
        let expected = heard.text;
        for integer in &mut integers {
            let label = integer.label();
            let encoded = encode(&models.integer, integer);
            let [got, truth] = [&encoded.output, &truth.output].map(numbers);
            let metrics = Metrics::of(got, truth).expect("of the same shape");
            println!("{name}, {label}: correlation {:.6}", metrics.correlation.unwrap_or_default());
            assert_eq!(tolerance::WHISPER_ENCODER.check(&metrics, None), [], "{name}, {label}");
            let heard = models.float.decode(&encoded, &mut float).expect("computes");
            assert_eq!(heard.text, expected, "{name}, {label}");
        }
        // In the decoder too.
        let encoded = encode(&models.integer, &mut integers[0]);
        let heard = models.integer.decode(&encoded, &mut integers[0]).expect("computes");
        assert_eq!(heard.text, expected, "{name}, decoder too");
    }
}

fn expected_text(name: &str) -> &'static str {
    HEARD.iter().find(|(of, _)| *of == name).and_then(|(_, heard)| *heard).expect("known")
}

#[test]
#[ignore = "left to `cargo xtask whisper-base`"]
fn every_backend_gives_the_same_encoder_output() {
    let models = models();
    let mel = spectrogram("cards");
    let encode = |kind, rule: &ScaleRule| {
        numbers(&models.integer.model.encode(&mel, &mut integer(kind, rule.clone())).expect("computes").output)
    };
    for rule in rules() {
        let expected = encode(BackendKind::Scalar, &rule);
        for kind in [BackendKind::Auto, BackendKind::Kernel] {
            assert!(encode(kind, &rule) == expected, "{}, {}", kind.name(), rule.name());
        }
    }
}

#[test]
#[ignore = "left to `cargo xtask whisper-base`"]
fn the_fixture_of_validate_is_captured_here() {
    let models = models();
    let mut float = Torch(Method::Plain);
    let mut capture = Capture::new(&mut float);
    models.float.model.encode(&spectrogram("novel"), &mut capture).expect("computes");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("capture.npz");
    capture::write(capture.layers(), &path).expect("writable");
    let read = |path: &Path, name: &str| {
        let mut archive = zip::ZipArchive::new(fs::File::open(path).expect("there")).expect("an archive");
        let array = npyz::NpyFile::new(archive.by_name(&format!("{name}.npy")).expect("there")).expect("an array");
        let shape = array.shape().to_vec();
        (shape, array.into_vec::<half::f16>().expect("float16"))
    };
    let committed = below_root("src/suite/data/whisper.npz");
    // Of each layer the head that make.py takes.
    let script = fs::read_to_string(below_root("src/suite/data/make.py")).expect("there");
    let heads = script.lines().find_map(|line| line.strip_prefix("HEADS = [")?.strip_suffix(']')).expect("there");
    let heads: Vec<usize> = heads.split(", ").map(|head| head.parse().expect("a number")).collect();
    let len = 1500 * 64;
    for name in ["q", "k", "v"] {
        let ((shape, captured), (_, expected)) = (read(&path, name), read(&committed, name));
        assert_eq!(shape, [6, 8, 1500, 64]);
        let captured = heads.iter().enumerate().flat_map(|(layer, head)| &captured[(layer * 8 + head) * len..][..len]);
        let metrics =
            Metrics::of(captured.map(|x| x.to_f64()), expected.iter().map(|x| x.to_f64())).expect("of the same shape");
        println!("{name}: {:.2} % equal, largest difference {}", 100.0 * metrics.equal, metrics.max_error);
        assert_eq!(tolerance::CAPTURED.check(&metrics, None), [], "{name}");
    }
}

#[test]
#[ignore = "left to `cargo xtask whisper-base`"]
fn the_command_prints_a_line_for_each_recording() {
    let [novel, cards] = ["novel", "cards"].map(|name| recording(name).display().to_string());
    let output = command(&[&cards, &novel, "--scales", "static", "--threads", "2"]);
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    let expected = format!("{}\n{}\n", expected_text("cards"), expected_text("novel"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);

    let output = command(&[&cards, "--compare", "--decoder"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{}\n", expected_text("cards")));
    let report = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(report.contains("| 5 | 0.") && report.contains("| encoder: all |"), "{report}");
}

#[test]
fn what_is_wrong_is_said_in_a_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = folder.path().join("text.wav");
    fs::write(&text, "no recording").expect("writable");
    let sound = folder.path().join("sound.wav");
    // 1 sample, 16 kHz, 16 bits.
    let header = b"RIFF\x26\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data\x02\0\0\0\0\0";
    fs::write(&sound, header).expect("writable");
    let [text, sound, folder] = [&text, &sound, &folder.path().to_owned()].map(|path| path.display().to_string());
    for (arguments, expected) in [
        (&["no.wav"][..], "whisper: no.wav: No such file"),
        (&[&text], "text.wav: "),
        (&[&sound, "--model", &folder, "--attention", "sdpa"], "model.bin: No such file"),
        (&[&sound, "--calibration", "no.json"], "whisper: no.json: No such file"),
        (&[&sound, "--calibration", &text], "text.wav: no calibration: expected ident"),
        (&[&sound, "--attention", "npu"], "xclbin"),
        (&[&sound, "--attention", "float", "--scales", "static"], "--scales: got --attention float"),
        (
            &[&sound, "--attention", "foo"],
            "invalid value 'foo' for '--attention <NAME>'; [possible values: float, sdpa,",
        ),
        (&[], "the following required arguments were not provided"),
        (&[&sound, &sound, "--bench"], "got 2 recordings, expected 1"),
        (&[&sound, "--capture", "x.npz"], "--capture: got --attention auto, expected float or sdpa"),
        (&[&sound, "--table", "--decoder"], "cannot be used with"),
        // Static scales are of balanced tensors.
        (&[&sound, "--table", "--unbalanced"], "cannot be used with"),
        (&[&sound, "--calibrate", "x.json", "--attention", "auto"], "cannot be used with"),
        (&[&sound, "--unbalanced", "--scales", "static"], "--unbalanced: got --scales static"),
        (&[&sound, "--attention", "float", "--table"], "got --attention float, expected a backend of attn"),
    ] {
        let output = command(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}: {error}");
        assert!(error.contains(expected) && error.lines().count() == 1, "{arguments:?}: {error}");
    }
}
