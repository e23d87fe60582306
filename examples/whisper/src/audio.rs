//! Reads speech recordings: WAV, AIFF and FLAC files of any rate and number of channels, to what Whisper listens to.

use core::{error::Error, fmt, ops::RangeInclusive};
use std::{
    fs::File,
    io::{self, ErrorKind, Read, Seek},
    panic,
    path::{Path, PathBuf},
};

use rubato::{Fft, FixedSync, Resampler, WindowFunction, audioadapter_buffers::direct::InterleavedSlice};
use symphonia::core::{
    codecs::audio::AudioDecoderOptions,
    errors::Error as SymphoniaError,
    formats::{FormatOptions, FormatReader, TrackType, probe::Hint},
    io::{MediaSourceStream, MediaSourceStreamOptions},
    meta::MetadataOptions,
};

/// Samples per second of what [`read`] gives.
pub const SAMPLE_RATE: u32 = 16_000;
/// Rates of recordings that [`read`] takes, in samples per second.
pub const RATES: RangeInclusive<u32> = 4_000..=384_000;

/// A recording that could not be read; printed in one line.
#[derive(Debug)]
pub struct AudioError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: AudioProblem,
}

/// What is wrong with a recording.
#[derive(Debug)]
#[non_exhaustive]
pub enum AudioProblem {
    /// The file is missing or cannot be read.
    Io(io::Error),
    /// The file is in another format, or its header is damaged.
    Format(SymphoniaError),
    /// The samples are of a kind that is not read, for example ADPCM in a WAV file.
    Codec(SymphoniaError),
    /// The sample rate is not one of [`RATES`].
    Rate {
        /// Samples per second, 0 if the header has none.
        got: u32,
    },
    /// The samples are damaged.
    Decode(SymphoniaError),
    /// The file ends before its header says, and the header is not one of a stream.
    Truncated {
        /// Samples per channel in the file.
        got: u64,
        /// Samples per channel that the header promises.
        expected: u64,
    },
    /// There is no sample, or none is left at [`SAMPLE_RATE`].
    Empty,
    /// A sample is NaN or infinite.
    NotFinite {
        /// Its index in its channel.
        index: usize,
    },
    /// The decoder panicked.
    Panic,
}

impl fmt::Display for AudioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        match &self.problem {
            AudioProblem::Io(error) => error.fmt(f),
            AudioProblem::Format(error) => write!(f, "expected a WAV, AIFF or FLAC file: {error}"),
            AudioProblem::Codec(error) => write!(f, "expected PCM or FLAC samples: {error}"),
            AudioProblem::Rate { got } => {
                let (from, to) = RATES.into_inner();
                write!(f, "sample rate: got {got} Hz, expected {from} to {to} Hz")
            }
            AudioProblem::Decode(error) => write!(f, "samples: {error}"),
            AudioProblem::Truncated { got, expected } => {
                write!(f, "the file is cut off: got {got} samples, expected the {expected} of its header")
            }
            AudioProblem::Empty => write!(f, "got no samples, expected some"),
            AudioProblem::NotFinite { index } => write!(f, "sample {index}: got NaN or infinity, expected a number"),
            AudioProblem::Panic => write!(f, "expected a WAV, AIFF or FLAC file: the decoder panicked"),
        }
    }
}

impl Error for AudioError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.problem {
            AudioProblem::Io(error) => Some(error),
            AudioProblem::Format(error) | AudioProblem::Codec(error) | AudioProblem::Decode(error) => Some(error),
            _ => None,
        }
    }
}

/// The recording at `path`: mono, at [`SAMPLE_RATE`], in [-1, 1], at least one sample.
///
/// - WAV, AIFF and AIFF-C with PCM samples (integer, float, A-law, µ-law), and FLAC, recognised by what they hold.
/// - Channels are averaged. What is louder than full scale, which floats can be, is clipped.
/// - Recordings at other rates are resampled. Their start stays the start, and `n` samples become `n · 16000 / rate`,
///   rounded.
/// - Integers of up to 24 bits, mono and at 16 kHz, are exact: 16-bit sample / 32768.
/// - A WAV header of a stream, which was written before its length was known, promises about 2 GiB or more: such a file
///   is read to its end.
///
/// # Errors
/// [`AudioError`] where the file cannot be read, is none of the above, damaged, cut off, empty or not finite.
pub fn read(path: &Path) -> Result<Vec<f32>, AudioError> {
    // symphonia 0.6.1 multiplies and shifts by whatever number of channels a WAV header has, which panics where
    // overflows are checked.
    let samples = panic::catch_unwind(|| samples(path)).unwrap_or(Err(AudioProblem::Panic));
    samples.map_err(|problem| AudioError { path: path.to_owned(), problem })
}

fn samples(path: &Path) -> Result<Vec<f32>, AudioProblem> {
    let mut file = File::open(path).map_err(AudioProblem::Io)?;
    let streamed = is_streamed(&mut file).map_err(AudioProblem::Io)?;
    let source = MediaSourceStream::new(Box::new(file), MediaSourceStreamOptions::default());
    let format = symphonia::default::get_probe()
        .probe(&Hint::default(), source, FormatOptions::default(), MetadataOptions::default())
        .map_err(AudioProblem::Format)?;
    let (mut samples, rate) = decode(format, streamed)?;
    if let Some(index) = samples.iter().position(|sample| !sample.is_finite()) {
        return Err(AudioProblem::NotFinite { index });
    }
    clip(&mut samples);
    if rate != SAMPLE_RATE {
        samples = resample(&samples, rate);
        // A low-pass filter overshoots.
        clip(&mut samples);
    }
    if samples.is_empty() {
        return Err(AudioProblem::Empty);
    }
    Ok(samples)
}

fn clip(samples: &mut [f32]) {
    for sample in samples {
        *sample = sample.clamp(-1.0, 1.0);
    }
}

/// Whether it is a WAV file whose header was written before the length was known: it promises about 2 GiB or more, and
/// less follows.
fn is_streamed(file: &mut File) -> io::Result<bool> {
    let mut start = Vec::new();
    file.by_ref().take(8).read_to_end(&mut start)?;
    file.rewind()?;
    let length = file.metadata()?.len();
    Ok(match start.as_slice() {
        &[b'R', b'I', b'F', b'F', a, b, c, d] => {
            let promised = u32::from_le_bytes([a, b, c, d]);
            promised >= 0x7fff_0000 && u64::from(promised) > length
        }
        _ => false,
    })
}

/// The average of all channels, and samples per second.
fn decode(mut format: Box<dyn FormatReader>, streamed: bool) -> Result<(Vec<f32>, u32), AudioProblem> {
    let no_track = || AudioProblem::Format(SymphoniaError::Unsupported("no audio track"));
    let track = format.first_track(TrackType::Audio).ok_or_else(no_track)?;
    let (id, promised) = (track.id, track.num_frames);
    let parameters = track.codec_params.as_ref().and_then(|parameters| parameters.audio()).ok_or_else(no_track)?;
    let rate = parameters.sample_rate.unwrap_or(0);
    if !RATES.contains(&rate) {
        return Err(AudioProblem::Rate { got: rate });
    }
    let mut decoder = symphonia::default::get_codecs()
        .make_audio_decoder(parameters, &AudioDecoderOptions::default())
        .map_err(AudioProblem::Codec)?;

    let (mut samples, mut interleaved) = (Vec::new(), Vec::<f32>::new());
    loop {
        let packet = match format.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => break,
            // Whether the end came too early is for the count to say.
            Err(SymphoniaError::IoError(error)) if error.kind() == ErrorKind::UnexpectedEof => break,
            Err(SymphoniaError::IoError(error)) => return Err(AudioProblem::Io(error)),
            Err(error) => return Err(AudioProblem::Decode(error)),
        };
        if packet.track_id != id {
            continue;
        }
        let decoded = decoder.decode(&packet).map_err(AudioProblem::Decode)?;
        decoded.copy_to_vec_interleaved(&mut interleaved);
        let channels = decoded.num_planes().max(1);
        samples.extend(interleaved.chunks_exact(channels).map(|frame| {
            let sum: f64 = frame.iter().copied().map(f64::from).sum();
            (sum / channels as f64) as f32
        }));
    }
    let got = samples.len() as u64;
    match promised {
        Some(expected) if got < expected && !streamed => Err(AudioProblem::Truncated { got, expected }),
        _ => Ok((samples, rate)),
    }
}

/// `samples`, in [-1, 1], from `rate` to [`SAMPLE_RATE`], by a windowed sinc of [`SINC`] samples or more.
fn resample(samples: &[f32], rate: u32) -> Vec<f32> {
    let length = (samples.len() as u64 * u64::from(SAMPLE_RATE) + u64::from(rate) / 2) / u64::from(rate);
    if length == 0 {
        return Vec::new();
    }
    let common = gcd(rate, SAMPLE_RATE);
    let slower = (rate.min(SAMPLE_RATE) / common) as usize;
    // The smallest block that is a whole number of samples at both rates, and even, for the delay is half of it.
    let block = 2 * (SAMPLE_RATE / common) as usize;
    let chunk = block * SINC.div_ceil(2 * slower);
    let window = WindowFunction::BlackmanHarris2;
    let (from, to) = (rate as usize, SAMPLE_RATE as usize);
    let mut resampler =
        Fft::new_custom(from, to, chunk, 1, 1, window, FixedSync::Output).expect("rates and sizes are positive");
    let input = InterleavedSlice::new(samples, 1, samples.len()).expect("one channel of all samples");
    let resampled = resampler.process_all(&input, samples.len(), None).expect("buffers of the sizes asked for");
    let mut resampled = resampled.take_data();
    // It rounds up.
    resampled.truncate(length as usize);
    resampled
}

/// Length of the filter, in samples at the slower rate: of a recording that has more, it passes all up to 7.6 kHz and
/// nothing from 8 kHz on.
const SINC: usize = 512;

const fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
