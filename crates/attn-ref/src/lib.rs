//! What `attn` is measured against: attention in double precision, the accuracy figures that users of the kernel
//! state, and the one table of tolerances.
//!
//! - [`attention`] and [`attention_head`]: `softmax(scale · Q Kᵀ) V` in `f64`, with grouped heads and the masks of
//!   [`attn_fixed::Mask`]. Checked against numpy. They accept any finite input and have no limit on the number of keys
//!   or the head dimension; the integer arithmetic has, and is not used here.
//! - [`Metrics`]: correlation, mean absolute error, root mean square error, shares equal, within ±1 and within ±5,
//!   maximum error, ranges, NaN and infinity; [`Accumulator`] gathers them value by value and merges, so that an
//!   overall figure comes from per-head ones without a second pass. [`Comoments`] is the correlation alone.
//! - `torch`, with the feature of that name: the same attention in libtorch, in `f64`, `f32` and `bf16`.
//! - [`tolerance`]: every limit that a test or a report of this project applies, each with its source.
//!
//! Outputs are compared in *output steps*: an `i8` as it is, a truth divided by the output scale.
//!
//! # Example
//! One head against its truth, as `attn validate` judges it: the figures against the truth rounded to `i8`, the
//! correlation against the truth itself, less what the rounding alone costs.
//!
//! ```
//! use attn_fixed::Mask;
//! use attn_ref::{Accumulator, Comoments, attention_head, correlation_loss, round_to_i8, tolerance};
//! use ndarray::array;
//!
//! let (query, key) = (array![[1.0, 0.0], [0.0, 1.0]], array![[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]]);
//! let value = array![[1.0, -1.0], [-1.0, 1.0], [0.5, 0.25]];
//! let truth = attention_head(query.view(), key.view(), value.view(), 0.5_f64.sqrt(), &Mask::new())?;
//! let scale_out = 1.0 / 127.0;
//! let got: [i8; 4] = [73, -46, -38, 64]; // what an implementation gave
//!
//! let (mut rounded, mut with_truth, mut rounding) = (Accumulator::new(), Comoments::new(), Comoments::new());
//! for (&got, &truth) in got.iter().zip(&truth) {
//!     let (got, truth) = (f64::from(got), truth / scale_out);
//!     let nearest = f64::from(round_to_i8(truth));
//!     rounded.push(got, nearest);
//!     with_truth.push(got, truth);
//!     rounding.push(nearest, truth);
//! }
//! let metrics = rounded.finish()?;
//! let loss = correlation_loss(rounding.correlation(), with_truth.correlation());
//! let violations = tolerance::TRUTH.check(&metrics, Some(loss));
//! assert!(violations.is_empty(), "{violations:?} {metrics:?}");
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # Features
//! - `serde`: `Serialize` for [`Metrics`], [`Tolerance`] and [`Violation`]. NaN is `null` in JSON.
//! - `torch`: the module `torch`. Needs libtorch to build, link and run: `cargo xtask libtorch` installs it, a `LIBTORCH` or
//!   `LIBTORCH_USE_PYTORCH=1` in the environment names another copy of the same version.
#![forbid(unsafe_code)]

mod metrics;
pub mod tolerance;
#[cfg(feature = "torch")]
pub mod torch;
mod truth;

pub use metrics::{Accumulator, Comoments, Metrics, MetricsError, correlation, correlation_loss, round_to_i8};
pub use tolerance::{Relation, Tolerance, Violation};
pub use truth::{TruthError, attention, attention_head};
