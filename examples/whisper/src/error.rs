//! Why there is no transcript.

use std::{
    error, fmt, io,
    path::{Path, PathBuf},
};

use attn::{ParameterError, QuantiseError, Tensor, backend::BackendError};
use tch::TchError;

use crate::{attention::Site, audio::AudioError, weights::WeightsError};

/// Printed in one line.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The recording.
    Audio(AudioError),
    /// The weights.
    Weights(WeightsError),
    /// The tokenizer, its configuration, scales, or what was to be written.
    File {
        /// Its path.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A backend.
    Backend(BackendError),
    /// Floats asked of a backend that gives int8 only.
    FloatOutput {
        /// Its name.
        backend: String,
    },
    /// A tensor that cannot be quantised.
    Quantise {
        /// Where in the model.
        site: Site,
        /// Which one.
        tensor: Tensor,
        /// Why.
        error: QuantiseError,
    },
    /// Scales that attention does not take.
    Parameters {
        /// Where in the model.
        site: Site,
        /// Why.
        error: ParameterError,
    },
    /// A tensor that is NaN or infinite.
    NotFinite(QuantiseError),
    /// A calibration without this attention.
    NotCalibrated {
        /// Where in the model.
        site: Site,
    },
    /// libtorch, for example for want of memory.
    Torch(TchError),
    /// Another program, or a pipe.
    Io(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Audio(error) => error.fmt(f),
            Self::Weights(error) => error.fmt(f),
            Self::File { file, what } => write!(f, "{}: {what}", file.display()),
            Self::Backend(error) => error.fmt(f),
            Self::FloatOutput { backend } => {
                write!(f, "scales: got dynamic, expected dynamic-int8 or static: {backend} has no output in floats")
            }
            Self::Quantise { site, tensor, error } => write!(f, "{site}, {tensor}: {error}"),
            Self::Parameters { site, error } => write!(f, "{site}: {error}"),
            Self::NotFinite(error) => error.fmt(f),
            Self::NotCalibrated { site } => write!(f, "{site}: got no calibration of it"),
            // What follows the first line are the addresses of C++ functions.
            Self::Torch(error) => write!(f, "libtorch: {}", error.to_string().lines().next().unwrap_or_default()),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl error::Error for Error {}

impl From<AudioError> for Error {
    fn from(error: AudioError) -> Self {
        Self::Audio(error)
    }
}

impl From<WeightsError> for Error {
    fn from(error: WeightsError) -> Self {
        Self::Weights(error)
    }
}

impl From<BackendError> for Error {
    fn from(error: BackendError) -> Self {
        Self::Backend(error)
    }
}

impl From<TchError> for Error {
    fn from(error: TchError) -> Self {
        Self::Torch(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Says which file it is about.
pub(crate) fn of_file<E: fmt::Display>(file: &Path) -> impl FnOnce(E) -> Error {
    |error| Error::File { file: file.to_owned(), what: error.to_string() }
}
