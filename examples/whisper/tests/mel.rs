//! The log-mel spectrogram against openai-whisper's: `mel.npz`, which `make_mel.py` writes and checks.

use std::{fs::File, path::Path};

use attn_ref::{Metrics, Tolerance, tolerance};
use attn_whisper::mel::{BANDS, FRAMES, WINDOW_SAMPLES, filters, log_mel};
use npyz::{Deserialize, NpyFile};
use tch::{Kind, Tensor};
use zip::ZipArchive;

/// The array `name` of the committed file, in C order.
fn fixture<T: Deserialize>(name: &str, shape: &[u64]) -> Vec<T> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mel.npz");
    let mut archive = ZipArchive::new(File::open(path).expect("the committed file")).expect("an archive");
    let npy = NpyFile::new(archive.by_name(&format!("{name}.npy")).expect("listed")).expect("readable");
    assert_eq!((npy.shape(), npy.order()), (shape, npyz::Order::C), "{name}");
    npy.into_vec().expect("values")
}

fn samples() -> Vec<f32> {
    fixture::<i16>("samples", &[WINDOW_SAMPLES as u64]).into_iter().map(|x| f32::from(x) / 32_768.0).collect()
}

fn check(got: &[f32], expected: &[f32], tolerance: Tolerance) {
    let metrics = Metrics::of(got.iter().copied(), expected.iter().copied()).expect("of the same shape");
    println!("largest difference {:e}, largest number {:e}", metrics.max_error, metrics.expected_range.1);
    assert_eq!(tolerance.check(&metrics, None), []);
}

fn values(mel: &Tensor) -> Vec<f32> {
    assert_eq!((mel.size(), mel.kind()), (vec![BANDS as i64, FRAMES as i64], Kind::Float));
    Vec::try_from(mel.reshape([-1])).expect("floats")
}

#[test]
fn mel_agrees_with_openai_whisper() {
    let got = values(&log_mel(&samples()).expect("memory"));
    let expected = fixture::<f32>("mel", &[BANDS as u64, FRAMES as u64]);
    check(&got, &expected, tolerance::MEL);
}

#[test]
fn filters_agree_with_librosa() {
    let (got, expected) = (filters(), fixture::<f32>("filters", &[BANDS as u64, 201]));
    check(&got, &expected, tolerance::MEL_FILTERS);
}

#[test]
fn silence_follows_what_is_short_and_what_is_long_is_cut() {
    let mel = |samples: &[f32]| values(&log_mel(samples).expect("memory"));
    let start = &samples()[..32_000];
    let mut padded = start.to_vec();
    padded.resize(WINDOW_SAMPLES, 0.0);
    assert_eq!(mel(start), mel(&padded));
    let longer = [samples().as_slice(), &[1.0; 1000]].concat();
    assert_eq!(mel(&longer), mel(&samples()));
    // log10(1e-10), which is also the loudest.
    assert_eq!(mel(&[]), vec![-1.5; BANDS * FRAMES]);
}

#[test]
fn the_script_has_the_tolerance() {
    let script = include_str!("make_mel.py");
    let stated = script.lines().find_map(|line| line.strip_prefix("TOLERANCE = ")).expect("a tolerance");
    let stated: f64 = stated.split_whitespace().next().expect("a number").parse().expect("a number");
    assert_eq!(Some(stated), tolerance::MEL.max_error);
}
