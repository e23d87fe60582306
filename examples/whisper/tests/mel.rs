//! The log-mel spectrogram against openai-whisper's: `mel.npz`, which `make_mel.py` writes and checks.

use std::{fs::File, path::Path};

use attn_whisper::mel::{BANDS, FRAMES, WINDOW_SAMPLES, filters, log_mel};
use npyz::{Deserialize, NpyFile};
use tch::{Kind, Tensor};
use zip::ZipArchive;

/// Largest difference from openai-whisper, whose values have a range of 2. Seen is 1.2e-7 where both use the same FFT;
/// numpy's FFT in float32 is 3.3e-6 from it.
const MEL_TOLERANCE: f64 = 1e-5;
/// Largest difference of a weight; the largest weight is 0.026. Seen is 1.9e-9: librosa rounds twice.
const FILTER_TOLERANCE: f64 = 1e-8;

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

fn largest_difference(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len());
    got.iter().zip(expected).map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs()).fold(0.0, f64::max)
}

fn values(mel: &Tensor) -> Vec<f32> {
    assert_eq!((mel.size(), mel.kind()), (vec![BANDS as i64, FRAMES as i64], Kind::Float));
    Vec::try_from(mel.reshape([-1])).expect("floats")
}

#[test]
fn mel_agrees_with_openai_whisper() {
    let got = values(&log_mel(&samples()).expect("memory"));
    let expected = fixture::<f32>("mel", &[BANDS as u64, FRAMES as u64]);
    let difference = largest_difference(&got, &expected);
    println!("largest difference {difference:e}");
    assert!(difference <= MEL_TOLERANCE, "{difference:e}");
}

#[test]
fn filters_agree_with_librosa() {
    let (got, expected) = (filters(), fixture::<f32>("filters", &[BANDS as u64, 201]));
    let difference = largest_difference(&got, &expected);
    println!("largest difference {difference:e} of {:e}", expected.iter().copied().fold(0.0, f32::max));
    assert!(difference <= FILTER_TOLERANCE, "{difference:e}");
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
    assert!(stated == MEL_TOLERANCE);
}
