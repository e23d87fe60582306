//! Two outputs compared, head by head.

use std::{error::Error, fmt};

use attn_ref::{Accumulator, Metrics};
use serde::Serialize;

use crate::{
    npz::{Output, OutputValues, Shape},
    problem::largest_magnitude,
    table::MetricsRow,
};

/// The metrics between two outputs.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Shape of both.
    pub shape: Vec<usize>,
    /// What one step is, in which the metrics count.
    pub step: Step,
    /// The step of each head.
    pub steps: Vec<f64>,
    /// Over all heads together.
    pub overall: Metrics,
    /// Of each head alone.
    pub per_head: Vec<Metrics>,
}

/// What one step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Step {
    /// The output scale of the first output, which is int8. The second one is rounded to it, without saturation.
    First,
    /// The output scale of the second output, as the first one is float; it is rounded to it, without saturation.
    Second,
    /// Both are float: the largest magnitude of the second one's head / 127, and nothing is rounded.
    Magnitude,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "the first's out_scale",
            Self::Second => "the second's out_scale",
            Self::Magnitude => "the second's largest magnitude of each head / 127, nothing rounded",
        })
    }
}

/// Compares an output with the one that is expected.
///
/// # Errors
/// Outputs of different shapes.
///
/// # Panics
/// An output that does not hold what its fields say: a shape with a zero, or other numbers of elements and scales.
pub fn compare(got: &Output, expected: &Output) -> Result<Comparison, CompareError> {
    if got.shape != expected.shape {
        return Err(CompareError { got: got.shape.clone(), expected: expected.shape.clone() });
    }
    let heads = got.heads();
    let (step, steps) = match (&got.values, &expected.values) {
        (OutputValues::Int8 { scales, .. }, _) => (Step::First, widen(scales)),
        (_, OutputValues::Int8 { scales, .. }) => (Step::Second, widen(scales)),
        (_, OutputValues::Float(values)) => {
            let step = |head| match largest_magnitude(head) / 127.0 {
                // All zeros, or next to it.
                0.0 => 1.0,
                step => step,
            };
            (Step::Magnitude, values.chunks_exact(values.len() / heads).map(step).collect())
        }
    };
    let mut all = Accumulator::new();
    let per_head: Vec<_> = steps
        .iter()
        .enumerate()
        .map(|(head, &size)| {
            let mut metrics = Accumulator::new();
            let [got, expected] = [got, expected].map(|output| in_steps(output, head, size, step));
            got.iter().zip(&expected).for_each(|(&got, &expected)| metrics.push(got, expected));
            all.merge(&metrics);
            metrics.finish().expect("no dimension is zero")
        })
        .collect();
    let overall = all.finish().expect("no dimension is zero");
    Ok(Comparison { shape: got.shape.clone(), step, steps, overall, per_head })
}

fn widen(scales: &[f32]) -> Vec<f64> {
    scales.iter().map(|&scale| f64::from(scale)).collect()
}

/// A head in steps of this size.
fn in_steps(output: &Output, head: usize, size: f64, step: Step) -> Vec<f64> {
    fn head_of<T>(values: &[T], heads: usize, head: usize) -> &[T] {
        let len = values.len() / heads;
        &values[head * len..][..len]
    }
    let heads = output.heads();
    let round = |x: f64| if step == Step::Magnitude { x } else { x.round_ties_even() };
    match &output.values {
        OutputValues::Float(values) => head_of(values, heads, head).iter().map(|x| round(x / size)).collect(),
        OutputValues::Int8 { values, scales } => {
            // 1 for equal scales: these integers are left as they are.
            let factor = f64::from(scales[head]) / size;
            head_of(values, heads, head).iter().map(|&x| round(f64::from(x) * factor)).collect()
        }
    }
}

impl Comparison {
    /// The heading of [`Display`](fmt::Display)'s columns.
    #[must_use]
    pub fn heading() -> String {
        format!("{:<10}{}", "", MetricsRow::HEADING)
    }
}

impl fmt::Display for Comparison {
    /// A row for all, and one for each head if there are several.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<10}{}", "all", MetricsRow(&self.overall))?;
        if self.per_head.len() > 1 {
            for (head, metrics) in self.per_head.iter().enumerate() {
                write!(f, "\n{:<10}{}", format!("head {head}"), MetricsRow(metrics))?;
            }
        }
        Ok(())
    }
}

/// The outputs have different shapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompareError {
    /// Shape of the first.
    pub got: Vec<usize>,
    /// Shape of the second.
    pub expected: Vec<usize>,
}

impl fmt::Display for CompareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { got, expected } = self;
        write!(f, "the first out has shape {} and the second {}, expected equal shapes", Shape(got), Shape(expected))
    }
}

impl Error for CompareError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn int8(values: &[i8], scales: &[f32]) -> Output {
        let shape = vec![scales.len(), 1, values.len() / scales.len()];
        Output { shape, values: OutputValues::Int8 { values: values.to_vec(), scales: scales.to_vec() } }
    }

    fn float(heads: usize, values: &[f64]) -> Output {
        Output { shape: vec![heads, 1, values.len() / heads], values: OutputValues::Float(values.to_vec()) }
    }

    #[test]
    fn equal_scales_compare_integers() {
        let comparison = compare(&int8(&[1, -128, 7, 7], &[0.1, 0.3]), &int8(&[1, 127, 7, 5], &[0.1, 0.3]));
        let Comparison { step, steps, overall, per_head, .. } = comparison.expect("equal shapes");
        assert_eq!((step, steps), (Step::First, vec![f64::from(0.1_f32), f64::from(0.3_f32)]));
        assert_eq!((overall.equal, overall.max_error, per_head[1].max_error), (0.5, 255.0, 2.0));
    }

    #[test]
    fn what_saturates_is_seen() {
        let comparison = compare(&int8(&[127, 1], &[0.5]), &float(1, &[150.0, 0.7])).expect("equal shapes");
        assert_eq!(
            (comparison.step, comparison.overall.max_error, comparison.overall.equal),
            (Step::First, 173.0, 0.5)
        );
        let comparison = compare(&int8(&[127, 1], &[0.5]), &int8(&[100, 1], &[1.0])).expect("equal shapes");
        assert_eq!((comparison.overall.max_error, comparison.overall.equal), (73.0, 0.0));
    }

    #[test]
    fn floats_are_rounded_to_an_int8_beside_them_only() {
        let (a, b) = (float(2, &[0.9, -2.2, 0.0, 0.0]), int8(&[1, -2, 0, 3], &[1.0, 2.0]));
        let comparison = compare(&a, &b).expect("equal shapes");
        assert_eq!((comparison.step, comparison.per_head[0].equal), (Step::Second, 1.0));
        assert_eq!((comparison.per_head[1].equal, comparison.per_head[1].within_1), (0.5, 0.5));
        let comparison = compare(&float(2, &[2.0, 1.0, 0.0, 1.0]), &float(2, &[2.54, 1.0, 0.0, 0.0]));
        let Comparison { step, steps, overall, .. } = comparison.expect("equal shapes");
        assert_eq!((step, steps), (Step::Magnitude, vec![0.02, 1.0]));
        assert!((overall.max_error - 27.0).abs() < 1e-9, "{overall:?}");
    }

    #[test]
    fn two_dimensions_are_one_head() {
        let int8 = |values: &[i8]| Output {
            shape: vec![3, 2],
            values: OutputValues::Int8 { values: values.to_vec(), scales: vec![0.5] },
        };
        let comparison = compare(&int8(&[1, 2, 3, 4, 5, 6]), &int8(&[1, 2, 3, 4, 5, 9])).expect("equal shapes");
        assert_eq!((comparison.per_head.len(), comparison.overall.max_error), (1, 3.0));
    }

    #[test]
    fn shapes_must_be_equal() {
        let (a, b) = (int8(&[1, 2], &[1.0]), float(2, &[1.0, 2.0]));
        let error = compare(&a, &b).expect_err("(1, 1, 2) and (2, 1, 1)");
        let expected = "the first out has shape (1, 1, 2) and the second (2, 1, 1), expected equal shapes";
        assert_eq!(error.to_string(), expected);
    }
}
