//! What the hardware cannot do.

use std::{error::Error, fmt};

/// A limit of the hardware that a design exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DesignError {
    /// What is limited, with its unit.
    pub limit: &'static str,
    /// What the design has.
    pub got: usize,
    /// The least that is accepted.
    pub least: usize,
    /// The most that is accepted.
    pub most: usize,
    /// What to change.
    pub change: &'static str,
}

impl fmt::Display for DesignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, got, least, most, change } = self;
        write!(f, "{limit}: got {got}, expected ")?;
        match (*least, *most) {
            (0, most) => write!(f, "at most {most}")?,
            (least, usize::MAX) => write!(f, "at least {least}")?,
            (least, most) if least == most => write!(f, "{least}")?,
            (least, most) => write!(f, "{least} to {most}")?,
        }
        write!(f, "; {change}")
    }
}

impl Error for DesignError {}
