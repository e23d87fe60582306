//! Whisper-base whose attention `attn` computes, or libtorch: to see on the real model that it hears the same.
#![forbid(unsafe_code)]

pub mod attention;
pub mod audio;
pub mod bench;
pub mod calibration;
pub mod capture;
pub mod compare;
pub mod error;
pub mod mel;
pub mod model;
pub mod pictures;
pub mod report;
pub mod transcribe;
pub mod weights;
