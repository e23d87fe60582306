//! Every tolerance that this project applies anywhere, in one table.
//!
//! A test or a report that accepts anything but equality names a constant of this module, so that a limit is stated and
//! loosened in one place only.
//!
//! | constant | applies to | limits |
//! |---|---|---|
//! | [`ACCEPTANCE`] | the acceptance data | correlation >= 0.999, MAE <= 0.76, >= 99.7 % within ±5 |
//! | [`USERS`] | the acceptance data, for comparison | correlation > 0.95, MAE < 2.0, > 95 % within ±5 |
//! | [`RAW`] | int8 values with scales of 1 | >= 99.9 % within ±1 |
//! | [`RAW_FULL_RANGE`] | the same, values in [-64, 63] | >= 99.9 % within ±1, outputs from -64 to 63 |
//! | [`TRUTH`] | everything with a truth on the same int8 inputs | >= 99.9 % within ±1, correlation loss <= 0.0002 |
//! | [`FLOATS`] | outputs in floats with a truth on the same int8 inputs | MAE <= 0.05, maximum error <= 1 |
//! | [`FLOATS_OF_FLOATS`] | the same with a truth on the floats that became int8 | correlation >= 0.9999, MAE <= 0.25 |
//! | [`ORACLE`] | one `f64` computation against another: Rust, numpy, libtorch | maximum error <= 1e-12 |
//! | [`REGENERATED`] | the committed numpy file made anew | maximum error <= 1e-13 |
//! | [`TORCH_F32`] | libtorch in `f32` against the truth | maximum error <= 5.6e-6 |
//! | [`TORCH_BF16`] | libtorch's `scaled_dot_product_attention` in `bf16` | maximum error <= 0.028 |
//! | [`TORCH_BF16_PLAIN`] | libtorch's separate operations in `bf16` | maximum error <= 0.17 |
//!
//! Errors are in output steps for int8 outputs and for those in floats instead of them ([`FLOATS`], [`FLOATS_OF_FLOATS`]: the
//! largest magnitude of the truth / 127), and in the values' own unit for libtorch's floats.

use core::fmt;

use crate::Metrics;

/// Limits on [`Metrics`]; a limit that is none is not applied. NaN and infinity are never accepted.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Tolerance {
    /// What the limits apply to.
    pub name: &'static str,
    /// Whether a figure must be better than its limit; else it may be equal to it.
    pub strict: bool,
    /// Least [`Metrics::correlation`]. A correlation that is not defined is too small.
    pub min_correlation: Option<f64>,
    /// Largest [`correlation_loss`](crate::correlation_loss).
    pub max_correlation_loss: Option<f64>,
    /// Largest [`Metrics::mae`].
    pub max_mae: Option<f64>,
    /// Largest [`Metrics::max_error`].
    pub max_error: Option<f64>,
    /// Least [`Metrics::within_1`], `0..=1`.
    pub min_within_1: Option<f64>,
    /// Least [`Metrics::within_5`], `0..=1`.
    pub min_within_5: Option<f64>,
    /// The smallest and the largest output, exactly.
    pub full_range: Option<(i8, i8)>,
}

/// No limit but that on NaN and infinity.
const NONE: Tolerance = Tolerance {
    name: "",
    strict: false,
    min_correlation: None,
    max_correlation_loss: None,
    max_mae: None,
    max_error: None,
    min_within_1: None,
    min_within_5: None,
    full_range: None,
};

/// The acceptance data (numpy `seed(42)`, three 64×64 `randn`) against float attention on the floats.
///
/// Source: the requirement on `attn validate`: "reach ≥ 0.999, ≤ 0.76, ≥ 99.7 %". Truncating the inputs to int8 alone
/// allows 0.9993, 0.73 and 99.85 %.
pub const ACCEPTANCE: Tolerance = Tolerance {
    name: "acceptance",
    min_correlation: Some(0.999),
    max_mae: Some(0.76),
    min_within_5: Some(0.997),
    ..NONE
};

/// The users' own thresholds for the acceptance data, printed beside [`ACCEPTANCE`].
///
/// Source: the requirement on `attn validate`: "the users' thresholds (> 0.95, < 2.0, > 95 %)".
pub const USERS: Tolerance = Tolerance {
    name: "users",
    strict: true,
    min_correlation: Some(0.95),
    max_mae: Some(2.0),
    min_within_5: Some(0.95),
    ..NONE
};

/// int8 values taken as they are (all scales 1) against float attention on the same integers.
///
/// Source: the requirement on `attn validate`: "≥ 99.9 % within ±1".
pub const RAW: Tolerance = Tolerance { name: "raw integers", min_within_1: Some(0.999), ..NONE };

/// [`RAW`] for values in [-64, 63]: softmax is almost argmax there, so that the outputs reach both ends.
///
/// Source: the requirement on `attn validate`: "full output range [-64, 63]".
pub const RAW_FULL_RANGE: Tolerance =
    Tolerance { name: "raw integers, full range", full_range: Some((-64, 63)), ..RAW };

/// Whisper and the hard cases, against float attention on the same dequantised int8 inputs, rounded to int8.
///
/// Source: the requirement on `attn validate`: "in every case ≥ 99.9 % of elements within ±1 of the truth rounded
/// to int8, and a correlation with the truth within 0.0002 of what that rounding alone allows".
pub const TRUTH: Tolerance =
    Tolerance { name: "truth", min_within_1: Some(0.999), max_correlation_loss: Some(0.0002), ..NONE };

/// Whisper's heads, int8 in and floats out, against float attention on the same dequantised int8 inputs.
///
/// Source: measured on its six heads (`tests/floats.rs`, `--nocapture` prints it): MAE 0.010 to 0.034, maximum error 0.17 to
/// 0.70. Rounding to int8 alone costs 0.25 and 0.5, so that an output that was rounded on its way cannot pass.
pub const FLOATS: Tolerance = Tolerance { name: "floats", max_mae: Some(0.05), max_error: Some(1.0), ..NONE };

/// Whisper's heads, floats in and out, against float attention on the floats: what quantising the inputs costs too.
///
/// Source: what rounding exact attention to int8 would cost without any other error, MAE 0.25. Measured on the same heads: 0.09
/// to 0.19, correlation 0.99995 at least.
pub const FLOATS_OF_FLOATS: Tolerance =
    Tolerance { name: "floats of floats", min_correlation: Some(0.9999), max_mae: Some(0.25), ..NONE };

/// The output of Whisper-base's encoder with attention in integers, all forms of scales, against the same in floats.
///
/// Source: what an encoder of int8 loses that hears the same all the same: `CTranslate2`'s on this model has 0.9989 on a
/// recording (docs/whisper.md). Measured with integers in attention alone: 0.9993 at least.
pub const WHISPER_ENCODER: Tolerance = Tolerance { name: "Whisper encoder", min_correlation: Some(0.999), ..NONE };

/// Queries, keys and values of Whisper-base, `f16`, captured again, perhaps by another libtorch on another processor.
///
/// Source: rounding to `f16` of what differs in the last digits of `f32`: a step is 2⁻⁷ for magnitudes of 8 to 16, the largest there
/// are. Measured (`cargo xtask whisper-base`): one step, in 1 % of the elements.
pub const CAPTURED: Tolerance = Tolerance { name: "captured", max_error: Some(0.016), ..NONE };

/// The log-mel spectrogram of `examples/whisper`, whose values have a range of 2, against openai-whisper's.
///
/// Source: rounding in `f32`. Measured (`cargo xtask whisper-base`): 1.2 · 10⁻⁷ where both use the same FFT; numpy's is 3.3 · 10⁻⁶ from it.
pub const MEL: Tolerance = Tolerance { name: "log-mel", max_error: Some(1e-5), ..NONE };

/// The weights of its mel bands, 0.026 at most, against librosa's.
///
/// Source: rounding: librosa rounds to `f32` twice. Measured (`cargo xtask whisper-base`): 1.9 · 10⁻⁹.
pub const MEL_FILTERS: Tolerance = Tolerance { name: "mel filters", max_error: Some(1e-8), ..NONE };

/// Two `f64` computations of the same figure: the truth or the metrics against numpy, the truth against libtorch, or
/// merged against whole.
///
/// Source: rounding. Sums of at most 10⁵ products of magnitude 10² at most, relative precision 2⁻⁵³, errors adding up at
/// random: below 10⁻¹². The tests measure 10⁻¹⁵ (`--nocapture` prints it).
pub const ORACLE: Tolerance = Tolerance { name: "oracle", max_error: Some(1e-12), ..NONE };

/// The committed numpy file against the same made anew (`tests/numpy/make.py --check`), perhaps with another numpy on
/// another processor.
///
/// Source: rounding, as [`ORACLE`], at the file's small sizes.
pub const REGENERATED: Tolerance = Tolerance { name: "regenerated", max_error: Some(1e-13), ..NONE };

/// libtorch in `f32` against the truth, on values below 2 and scores of some nats.
///
/// Source: rounding. Relative precision 2⁻²⁴: 1.2 · 10⁻⁷ for the output, and as much for each nat of a score, hence of a
/// weight. In runs of 4000 random shapes the largest error was 1.4 · 10⁻⁶, a quarter of the limit:
/// `PROPTEST_CASES=4000 cargo test -p attn-ref -p attn --features attn/torch --test torch -- --nocapture` prints them.
pub const TORCH_F32: Tolerance = Tolerance { name: "libtorch f32", max_error: Some(5.6e-6), ..NONE };

/// libtorch's `scaled_dot_product_attention` in `bf16` against the truth, on values below 2 that `bf16` holds.
///
/// Source: rounding. Relative precision 2⁻⁸: 3.9 · 10⁻³ for the output, half of it at random for the weights; sums are in
/// `f32`. The same runs had 6.8 · 10⁻³ at most, a quarter of the limit.
pub const TORCH_BF16: Tolerance = Tolerance { name: "libtorch bf16", max_error: Some(2.8e-2), ..NONE };

/// libtorch's separate operations in `bf16` against the truth, on values below 2 that `bf16` holds.
///
/// Source: rounding, as [`TORCH_BF16`], but scores are rounded twice too: one of 4 nats by 1.6 · 10⁻², hence its weight.
/// The same runs had 4.2 · 10⁻² at most, a quarter of the limit.
pub const TORCH_BF16_PLAIN: Tolerance = Tolerance { name: "libtorch bf16, plain", max_error: Some(0.17), ..NONE };

/// All of them.
pub const TABLE: [Tolerance; 16] = [
    ACCEPTANCE,
    USERS,
    RAW,
    RAW_FULL_RANGE,
    TRUTH,
    FLOATS,
    FLOATS_OF_FLOATS,
    WHISPER_ENCODER,
    CAPTURED,
    MEL,
    MEL_FILTERS,
    ORACLE,
    REGENERATED,
    TORCH_F32,
    TORCH_BF16,
    TORCH_BF16_PLAIN,
];

/// How a figure has to stand to its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Relation {
    /// `>=`
    AtLeast,
    /// `<=`
    AtMost,
    /// `>`
    Above,
    /// `<`
    Below,
    /// `=`
    Equal,
}

impl Relation {
    /// Whether `got` stands so to `required`; NaN never does.
    fn holds(self, got: f64, required: f64) -> bool {
        match self {
            Self::AtLeast => got >= required,
            Self::AtMost => got <= required,
            Self::Above => got > required,
            Self::Below => got < required,
            Self::Equal => got - required == 0.0,
        }
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtLeast => ">=",
            Self::AtMost => "<=",
            Self::Above => ">",
            Self::Below => "<",
            Self::Equal => "=",
        })
    }
}

/// A figure outside its limit.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Violation {
    /// The figure: the name of a field of [`Metrics`], `got_min`, `got_max` or `correlation_loss`.
    pub figure: &'static str,
    /// Its value; none if it is not defined or was not measured.
    pub got: Option<f64>,
    /// How the value has to stand to the limit.
    pub relation: Relation,
    /// The limit.
    pub required: f64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: got ", self.figure)?;
        match self.got {
            Some(got) => write!(f, "{got}")?,
            None => f.write_str("none")?,
        }
        write!(f, ", required {} {}", self.relation, self.required)
    }
}

impl Tolerance {
    /// The figures outside their limits; none when the output is accepted.
    ///
    /// `correlation_loss` is [`correlation_loss`](crate::correlation_loss) where it was measured; where this tolerance
    /// limits it and it was not, that is a violation.
    #[must_use]
    pub fn check(&self, metrics: &Metrics, correlation_loss: Option<f64>) -> Vec<Violation> {
        let (least, most) =
            if self.strict { (Relation::Above, Relation::Below) } else { (Relation::AtLeast, Relation::AtMost) };
        let equal = Relation::Equal;
        let range = self.full_range.map(|(min, max)| (f64::from(min), f64::from(max)));
        [
            ("non_finite", Some(metrics.non_finite as f64), equal, Some(0.0)),
            ("correlation", metrics.correlation, least, self.min_correlation),
            ("correlation_loss", correlation_loss, most, self.max_correlation_loss),
            ("mae", Some(metrics.mae), most, self.max_mae),
            ("max_error", Some(metrics.max_error), most, self.max_error),
            ("within_1", Some(metrics.within_1), least, self.min_within_1),
            ("within_5", Some(metrics.within_5), least, self.min_within_5),
            ("got_min", Some(metrics.got_range.0), equal, range.map(|r| r.0)),
            ("got_max", Some(metrics.got_range.1), equal, range.map(|r| r.1)),
        ]
        .into_iter()
        .filter_map(|(figure, got, relation, limit)| {
            let required = limit?;
            let accepted = got.is_some_and(|got| relation.holds(got, required));
            (!accepted).then_some(Violation { figure, got, relation, required })
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Figures without a flaw.
    const PERFECT: Metrics = Metrics {
        count: 4096,
        non_finite: 0,
        correlation: Some(1.0),
        mae: 0.0,
        rmse: 0.0,
        equal: 1.0,
        within_1: 1.0,
        within_5: 1.0,
        max_error: 0.0,
        got_range: (-64.0, 63.0),
        expected_range: (-64.0, 63.0),
    };

    fn figures(tolerance: &Tolerance, metrics: &Metrics, loss: Option<f64>) -> Vec<&'static str> {
        tolerance.check(metrics, loss).iter().map(|violation| violation.figure).collect()
    }

    #[test]
    fn the_documented_limits_are_the_limits() {
        let stated = [
            Tolerance { min_correlation: Some(0.999), max_mae: Some(0.76), min_within_5: Some(0.997), ..NONE },
            Tolerance {
                strict: true,
                min_correlation: Some(0.95),
                max_mae: Some(2.0),
                min_within_5: Some(0.95),
                ..NONE
            },
            Tolerance { min_within_1: Some(0.999), ..NONE },
            Tolerance { min_within_1: Some(0.999), full_range: Some((-64, 63)), ..NONE },
            Tolerance { min_within_1: Some(0.999), max_correlation_loss: Some(0.0002), ..NONE },
            Tolerance { max_mae: Some(0.05), max_error: Some(1.0), ..NONE },
            Tolerance { min_correlation: Some(0.9999), max_mae: Some(0.25), ..NONE },
            Tolerance { min_correlation: Some(0.999), ..NONE },
            Tolerance { max_error: Some(0.016), ..NONE },
            Tolerance { max_error: Some(1e-5), ..NONE },
            Tolerance { max_error: Some(1e-8), ..NONE },
            Tolerance { max_error: Some(1e-12), ..NONE },
            Tolerance { max_error: Some(1e-13), ..NONE },
            Tolerance { max_error: Some(5.6e-6), ..NONE },
            Tolerance { max_error: Some(2.8e-2), ..NONE },
            Tolerance { max_error: Some(0.17), ..NONE },
        ];
        assert_eq!(TABLE.map(|tolerance| Tolerance { name: "", ..tolerance }), stated);
        let names: BTreeSet<_> = TABLE.iter().map(|tolerance| tolerance.name).collect();
        assert_eq!(names.len(), TABLE.len(), "names are distinct");
    }

    #[test]
    fn perfect_figures_violate_nothing() {
        for tolerance in TABLE {
            assert_eq!(tolerance.check(&PERFECT, Some(0.0)), [], "{}", tolerance.name);
        }
    }

    #[test]
    fn each_limit_is_applied_to_its_figure() {
        let all = Tolerance {
            min_correlation: Some(0.9),
            max_correlation_loss: Some(0.1),
            max_mae: Some(1.0),
            max_error: Some(3.0),
            min_within_1: Some(0.8),
            min_within_5: Some(0.9),
            full_range: Some((-64, 63)),
            ..NONE
        };
        let at_limit =
            Metrics { correlation: Some(0.9), mae: 1.0, max_error: 3.0, within_1: 0.8, within_5: 0.9, ..PERFECT };
        assert_eq!(all.check(&at_limit, Some(0.1)), []);
        let strict = Tolerance { strict: true, ..all };
        let limited = ["correlation", "correlation_loss", "mae", "max_error", "within_1", "within_5"];
        assert_eq!(figures(&strict, &at_limit, Some(0.1)), limited);

        for (figure, worse) in [
            ("non_finite", Metrics { non_finite: 1, ..at_limit }),
            ("correlation", Metrics { correlation: Some(0.9_f64.next_down()), ..at_limit }),
            ("correlation", Metrics { correlation: None, ..at_limit }),
            ("mae", Metrics { mae: 1.0_f64.next_up(), ..at_limit }),
            ("mae", Metrics { mae: f64::NAN, ..at_limit }),
            ("max_error", Metrics { max_error: 3.0_f64.next_up(), ..at_limit }),
            ("max_error", Metrics { max_error: f64::NAN, ..at_limit }),
            ("within_1", Metrics { within_1: 0.8_f64.next_down(), ..at_limit }),
            ("within_5", Metrics { within_5: 0.9_f64.next_down(), ..at_limit }),
            ("got_min", Metrics { got_range: (-63.0, 63.0), ..at_limit }),
            ("got_min", Metrics { got_range: (-65.0, 63.0), ..at_limit }),
            ("got_max", Metrics { got_range: (-64.0, 62.0), ..at_limit }),
            ("got_max", Metrics { got_range: (-64.0, f64::NAN), ..at_limit }),
        ] {
            assert_eq!(figures(&all, &worse, Some(0.1)), [figure]);
        }
        assert_eq!(figures(&all, &at_limit, Some(0.1_f64.next_up())), ["correlation_loss"]);
        assert_eq!(figures(&all, &at_limit, None), ["correlation_loss"], "not measured is not accepted");
        let none = Metrics { non_finite: 3, ..at_limit };
        assert_eq!(figures(&NONE, &none, None), ["non_finite"], "whatever the tolerance");
    }

    #[test]
    fn a_violation_states_figure_got_and_required() {
        let worse = Metrics { correlation: None, mae: 2.5, ..PERFECT };
        let printed: Vec<String> = ACCEPTANCE.check(&worse, None).iter().map(Violation::to_string).collect();
        assert_eq!(printed, ["correlation: got none, required >= 0.999", "mae: got 2.5, required <= 0.76"]);
        let printed: Vec<String> = USERS.check(&worse, None).iter().map(Violation::to_string).collect();
        assert_eq!(printed, ["correlation: got none, required > 0.95", "mae: got 2.5, required < 2"]);
        let narrow = Metrics { got_range: (-60.0, 63.0), ..PERFECT };
        let printed = RAW_FULL_RANGE.check(&narrow, None)[0].to_string();
        assert_eq!(printed, "got_min: got -60, required = -64");
    }

    #[test]
    #[cfg(feature = "serde")]
    fn reports_serialise() {
        fn serialises<T: serde::Serialize>() {}
        serialises::<Metrics>();
        serialises::<Tolerance>();
        serialises::<Violation>();
    }
}
