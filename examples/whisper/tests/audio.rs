//! Recordings of every kind, and files that are none.

use std::{
    f64::consts::TAU,
    fs,
    path::{Path, PathBuf},
};

use attn_whisper::audio::{AudioError, AudioProblem, RATES, SAMPLE_RATE, read};
use npyz::NpyFile;
use tempfile::TempDir;
use zip::ZipArchive;

/// Largest error of a resampled tone, of amplitude 1/2. The largest seen is 2.9e-6.
const RESAMPLED_TOLERANCE: f32 = 1e-5;

/// The code of a format in a WAV header.
#[derive(Clone, Copy)]
enum Code {
    Pcm = 1,
    Float = 3,
}

/// A WAV header that promises `length` bytes of data.
fn header(code: Code, channels: u16, rate: u32, bits: u16, length: u32) -> Vec<u8> {
    let frame = u32::from(channels) * u32::from(bits) / 8;
    [
        b"RIFF".as_slice(),
        &length.saturating_add(36).to_le_bytes(),
        b"WAVEfmt ",
        &16_u32.to_le_bytes(),
        &(code as u16).to_le_bytes(),
        &channels.to_le_bytes(),
        &rate.to_le_bytes(),
        &rate.wrapping_mul(frame).to_le_bytes(),
        &(frame as u16).to_le_bytes(),
        &bits.to_le_bytes(),
        b"data",
        &length.to_le_bytes(),
    ]
    .concat()
}

fn bytes(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

/// A WAV file of 16-bit samples.
fn wav(channels: u16, rate: u32, samples: &[i16]) -> Vec<u8> {
    [header(Code::Pcm, channels, rate, 16, 2 * samples.len() as u32), bytes(samples)].concat()
}

/// A mono WAV file of floats.
fn float_wav(rate: u32, samples: &[f32]) -> Vec<u8> {
    let data: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    [header(Code::Float, 1, rate, 32, data.len() as u32), data].concat()
}

/// `contents` read as a file.
fn read_bytes(contents: &[u8]) -> Result<Vec<f32>, AudioError> {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("clip");
    fs::write(&path, contents).expect("written");
    read(&path)
}

/// What is wrong with `contents`; its message is one line that names the file.
fn problem(contents: &[u8]) -> AudioProblem {
    let error = read_bytes(contents).expect_err("a file that cannot be read");
    let message = error.to_string();
    println!("{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.contains("clip: "), "{message}");
    error.problem
}

/// Every 16-bit sample once.
fn all_samples() -> Vec<i16> {
    (i16::MIN..=i16::MAX).collect()
}

fn floats(samples: &[i16]) -> Vec<f32> {
    samples.iter().map(|&sample| f32::from(sample) / 32_768.0).collect()
}

#[test]
fn mono_at_16_khz_is_exact() {
    let samples = all_samples();
    assert_eq!(read_bytes(&wav(1, SAMPLE_RATE, &samples)).expect("a WAV file"), floats(&samples));
    let halves: Vec<f32> = floats(&samples);
    assert_eq!(read_bytes(&float_wav(SAMPLE_RATE, &halves)).expect("a WAV file"), halves);
    // 8 bits are unsigned, with 0 in the middle.
    let narrow = [header(Code::Pcm, 1, SAMPLE_RATE, 8, 3), vec![0, 128, 192]].concat();
    assert_eq!(read_bytes(&narrow).expect("a WAV file"), [-1.0, 0.0, 0.5]);
    let wide = [header(Code::Pcm, 1, SAMPLE_RATE, 24, 6), vec![0, 0, 0x80, 1, 0, 0]].concat();
    assert_eq!(read_bytes(&wide).expect("a WAV file"), [-1.0, 1.0 / 8_388_608.0]);
}

#[test]
fn aiff_is_read() {
    let samples = [0_i16, 1, -2, 300, i16::MIN, i16::MAX];
    let data: Vec<u8> = samples.iter().flat_map(|sample| sample.to_be_bytes()).collect();
    // 16 000 as an 80-bit float: 2^13 · 1.953125.
    let rate = [0x40, 0x0c, 0xfa, 0, 0, 0, 0, 0, 0, 0];
    let file = [
        b"FORM".as_slice(),
        &(46 + data.len() as u32).to_be_bytes(),
        b"AIFFCOMM",
        &18_u32.to_be_bytes(),
        &1_u16.to_be_bytes(),
        &(samples.len() as u32).to_be_bytes(),
        &16_u16.to_be_bytes(),
        &rate,
        b"SSND",
        &(8 + data.len() as u32).to_be_bytes(),
        &[0; 8],
        &data,
    ]
    .concat();
    assert_eq!(read_bytes(&file).expect("an AIFF file"), floats(&samples));
}

/// Of the tests' folder.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

#[test]
fn flac_is_read() {
    let mut archive = ZipArchive::new(fs::File::open(fixture("mel.npz")).expect("committed")).expect("an archive");
    let npy = NpyFile::new(archive.by_name("samples.npy").expect("listed")).expect("readable");
    let samples: Vec<i16> = npy.into_vec().expect("16-bit samples");
    assert_eq!(read(&fixture("mel.flac")).expect("a FLAC file"), floats(&samples[..8000]));
    // A damaged or shortened one is an error, not fewer samples.
    let file = fs::read(fixture("mel.flac")).expect("committed");
    assert!(matches!(
        problem(&file[..file.len() / 2]),
        AudioProblem::Truncated { expected: 8000, .. } | AudioProblem::Decode(_)
    ));
    let mut damaged = file;
    let middle = damaged.len() / 2;
    damaged[middle..middle + 4].fill(0x55);
    assert!(matches!(problem(&damaged), AudioProblem::Truncated { .. } | AudioProblem::Decode(_)));
}

#[test]
fn channels_are_averaged() {
    let stereo = [100, 300, -32_768, -32_768, 32_767, 32_767, 1, 0];
    let expected = [200.0, -32_768.0, 32_767.0, 0.5].map(|sample: f32| sample / 32_768.0);
    assert_eq!(read_bytes(&wav(2, SAMPLE_RATE, &stereo)).expect("a WAV file"), expected);
    let three = [1, 1, 1, 3, 0, 0];
    assert_eq!(read_bytes(&wav(3, SAMPLE_RATE, &three)).expect("a WAV file"), [1.0 / 32_768.0; 2]);
}

#[test]
fn floats_beyond_full_scale_are_clipped() {
    let got = read_bytes(&float_wav(SAMPLE_RATE, &[-3.0, 1.5, 0.25])).expect("a WAV file");
    assert_eq!(got, [-1.0, 1.0, 0.25]);
    // Before resampling, which they would overflow, and behind it.
    let got = read_bytes(&float_wav(8_000, &[f32::MAX; 1000])).expect("a WAV file");
    assert!(got.iter().all(|sample| (0.0..=1.0).contains(sample)) && got.contains(&1.0), "{got:?}");
}

/// Half a second of a tone of `frequency` Hz at `rate`, of amplitude 1/2, faded in and out.
fn tone(frequency: f64, rate: u32) -> Vec<f32> {
    let at = |n: u32| {
        let seconds = f64::from(n) / f64::from(rate);
        let fade = (TAU * seconds).sin().powi(6);
        (0.5 * fade * (TAU * frequency * seconds + 0.3).sin()) as f32
    };
    (0..rate.div_ceil(2)).map(at).collect()
}

/// A tone is the same tone at the other rate, at the same times.
#[test]
fn other_rates_are_resampled_in_time() {
    for rate in [4_000, 8_000, 11_025, 12_000, 15_999, 16_001, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 384_000]
    {
        for frequency in [110.0, 1_500.0, 7_000.0] {
            if frequency > 0.45 * f64::from(rate) {
                continue;
            }
            let got = read_bytes(&float_wav(rate, &tone(frequency, rate))).expect("a WAV file");
            let mut expected = tone(frequency, SAMPLE_RATE);
            // Half a sample more than half a second may be more than half a sample at 16 kHz.
            expected.resize(got.len(), 0.0);
            let length = f64::from(rate.div_ceil(2)) * f64::from(SAMPLE_RATE) / f64::from(rate);
            assert_eq!(got.len(), length.round() as usize, "{rate}");
            let largest = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            println!("{rate} Hz, tone of {frequency} Hz: {largest:e}");
            assert!(largest < RESAMPLED_TOLERANCE, "{rate} Hz, tone of {frequency} Hz: {largest:e}");
        }
    }
}

/// What is above 8 kHz is gone.
#[test]
fn nothing_is_aliased() {
    for (rate, frequency) in [(22_050, 9_000.0), (44_100, 8_100.0), (48_000, 8_100.0), (48_000, 20_000.0)] {
        let got = read_bytes(&float_wav(rate, &tone(frequency, rate))).expect("a WAV file");
        let largest = got.iter().copied().map(f32::abs).fold(0.0, f32::max);
        println!("{rate} Hz, tone of {frequency} Hz: {largest:e}");
        assert!(largest < RESAMPLED_TOLERANCE, "{rate} Hz, tone of {frequency} Hz: {largest:e}");
    }
}

#[test]
fn short_recordings_are_resampled() {
    for count in 1..40 {
        let got = read_bytes(&wav(1, 8_000, &vec![1000; count])).expect("a WAV file");
        assert_eq!(got.len(), 2 * count);
        assert!(got[count].abs() > 0.01, "{got:?}");
    }
    assert!(matches!(problem(&wav(1, 48_000, &[1000])), AudioProblem::Empty));
    assert_eq!(read_bytes(&wav(1, 48_000, &[1000; 2])).expect("a WAV file").len(), 1);
}

/// espeak-ng and sox write the first pair of lengths, ffmpeg the last one.
#[test]
fn a_stream_is_read_to_its_end() {
    let samples = [5, -6, 7];
    for (riff, data) in [(0x7fff_f024, 0x7fff_f000), (0x8000_0024, 0x8000_0000), (u32::MAX, u32::MAX)] {
        let mut file = wav(1, SAMPLE_RATE, &samples);
        file[4..8].copy_from_slice(&u32::to_le_bytes(riff));
        file[40..44].copy_from_slice(&u32::to_le_bytes(data));
        assert_eq!(read_bytes(&file).expect("a WAV file"), floats(&samples), "{riff:x} {data:x}");
        assert!(matches!(problem(&file[..44]), AudioProblem::Empty));
    }
}

#[test]
fn what_is_no_recording_is_refused() {
    let missing = read(Path::new("/nowhere/clip.wav")).expect_err("no such file");
    assert!(missing.to_string().starts_with("/nowhere/clip.wav: "), "{missing}");
    assert!(matches!(missing.problem, AudioProblem::Io(_)));
    let folder = read(&std::env::temp_dir()).expect_err("a folder");
    assert!(matches!(folder.problem, AudioProblem::Io(_)), "{folder}");
    assert!(matches!(problem(b""), AudioProblem::Format(_)));
    assert!(matches!(problem(b"R"), AudioProblem::Format(_)));
    assert!(matches!(problem("This is a text.\n".repeat(9999).as_bytes()), AudioProblem::Format(_)));
    assert!(matches!(problem(&vec![0; 100_000]), AudioProblem::Format(_)));
}

#[test]
fn damaged_recordings_are_refused() {
    let samples = all_samples();
    let file = wav(1, SAMPLE_RATE, &samples);
    let truncated = problem(&file[..44 + 2001]);
    assert!(matches!(truncated, AudioProblem::Truncated { got: 1000, expected: 65_536 }), "{truncated:?}");
    assert!(matches!(problem(&file[..44]), AudioProblem::Truncated { got: 0, .. }));
    assert!(matches!(problem(&file[..30]), AudioProblem::Format(_)));
    assert!(matches!(problem(&wav(1, SAMPLE_RATE, &[])), AudioProblem::Empty));
    assert!(matches!(problem(&wav(0, SAMPLE_RATE, &samples)), AudioProblem::Format(_)));
    assert!(matches!(problem(&wav(27, SAMPLE_RATE, &samples)), AudioProblem::Format(_)));
    // The product of channels and bytes is beyond 16 bits; where overflows are not checked, that is another bad count.
    assert!(matches!(problem(&wav(40_000, SAMPLE_RATE, &[])), AudioProblem::Format(_) | AudioProblem::Panic));
    for rate in [0, RATES.start() - 1, RATES.end() + 1, u32::MAX] {
        let got = problem(&wav(1, rate, &samples));
        assert!(matches!(got, AudioProblem::Rate { got } if got == rate), "{got:?}");
    }
    // IMA ADPCM, blocks of 256 bytes with 505 samples.
    let mut adpcm = [header(Code::Pcm, 1, SAMPLE_RATE, 4, 1024), vec![0; 1024]].concat();
    adpcm.splice(32..36, [0, 1, 4, 0, 2, 0, 0xf9, 1]);
    (adpcm[4], adpcm[16], adpcm[20]) = (adpcm[4] + 4, 20, 0x11);
    let unknown = problem(&adpcm);
    assert!(matches!(unknown, AudioProblem::Codec(_)), "{unknown:?}");
    for (bad, rate) in [(f32::NAN, SAMPLE_RATE), (f32::INFINITY, 8000), (f32::NEG_INFINITY, SAMPLE_RATE)] {
        let got = problem(&float_wav(rate, &[0.0, 0.5, bad, 0.5]));
        assert!(matches!(got, AudioProblem::NotFinite { index: 2 }), "{got:?}");
    }
}

/// Whatever the bytes of a header are, there is an answer.
#[test]
fn no_header_panics() {
    let flac = fs::read(fixture("mel.flac")).expect("committed");
    for file in [wav(2, SAMPLE_RATE, &[1; 50]), float_wav(SAMPLE_RATE, &[0.5; 50]), flac] {
        for length in 0..file.len().min(120) {
            let _ = read_bytes(&file[..length]);
        }
        for position in 0..file.len().min(64) {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut damaged = file.clone();
                damaged[position] = value;
                if let Ok(samples) = read_bytes(&damaged) {
                    assert!(!samples.is_empty() && samples.iter().all(|sample| sample.abs() <= 1.0));
                }
            }
        }
    }
}
