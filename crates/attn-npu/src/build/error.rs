//! Why nothing was built.

use std::{
    error::Error,
    fmt, io,
    path::{Path, PathBuf},
};

use super::InstructionsError;
use crate::{design::DesignError, xclbin::XclbinError};

/// Why nothing was built.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// The hardware cannot do it.
    Design(DesignError),
    /// A tool is not there.
    Missing {
        /// Which.
        tool: String,
        /// Where it was looked for.
        looked: String,
        /// Where it is had.
        install: &'static str,
        /// The version that is pinned, if one is.
        version: Option<&'static str>,
    },
    /// A tool failed, or ended well without having made what it should.
    Tool {
        /// Which.
        tool: String,
        /// How it ended, or what is not there.
        failure: String,
        /// Everything that it said.
        log: PathBuf,
        /// The end of it.
        tail: String,
    },
    /// A signal asked to end.
    Interrupted,
    /// The instruction sequence is not one for this design.
    Instructions(InstructionsError),
    /// The container is not whole.
    Xclbin(XclbinError),
    /// The container is not for this design.
    Mismatch {
        /// What of it.
        what: &'static str,
        /// What it is.
        got: String,
        /// What it should be.
        expected: String,
    },
    /// A file or folder.
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl BuildError {
    pub(super) fn file(path: &Path) -> impl Fn(io::Error) -> Self {
        move |error| Self::File { path: path.to_owned(), error }
    }
}

impl From<DesignError> for BuildError {
    fn from(error: DesignError) -> Self {
        Self::Design(error)
    }
}

impl From<InstructionsError> for BuildError {
    fn from(error: InstructionsError) -> Self {
        Self::Instructions(error)
    }
}

impl From<XclbinError> for BuildError {
    fn from(error: XclbinError) -> Self {
        Self::Xclbin(error)
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Design(error) => write!(f, "design: {error}"),
            Self::Missing { tool, looked, install, version } => {
                write!(f, "{tool}: not found in {looked}; {install}")?;
                version.map_or(Ok(()), |version| write!(f, " (written for version {version})"))
            }
            Self::Tool { tool, failure, log, tail } if tail.is_empty() => {
                write!(f, "{tool}: {failure}; it said nothing: {}", log.display())
            }
            Self::Tool { tool, failure, log, tail } => {
                write!(f, "{tool}: {failure}; all of it: {}\n{tail}", log.display())
            }
            Self::Interrupted => f.write_str("interrupted"),
            Self::Instructions(error) => write!(f, "instructions: {error}"),
            Self::Xclbin(error) => write!(f, "xclbin: {error}"),
            Self::Mismatch { what, got, expected } => write!(f, "xclbin: {what}: got {got}, expected {expected}"),
            Self::File { path, error } => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl Error for BuildError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // They are printed themselves.
        None
    }
}
