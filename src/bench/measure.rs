//! Interleaved rounds.

use std::{
    thread,
    time::{Duration, Instant},
};

use attn_ref::{Accumulator, Metrics};

use super::{
    BenchError,
    contestant::{Contestant, REFERENCE, contestants},
    report::{Row, Rows},
    workload::{Data, Workload},
};
use crate::{
    backend::{self, BackendError, BackendKind, Isa, Unavailable},
    problem::largest_magnitude,
};

/// Shorter calls are measured several at a time, so that the clock's own time does not count.
const BATCH: Duration = Duration::from_millis(1);

/// So long each thread runs an instruction in every round.
const PEAK: Duration = Duration::from_millis(1);

/// A call that takes longer, of the specification or an NPU's kernel, is measured in the first [`FEW_ROUNDS`] only.
const LONG: Duration = Duration::from_millis(100);
const FEW_ROUNDS: usize = 3;

/// With several threads, those of libtorch (OpenMP) wait for more work at full load for 9 to 11 ms before they sleep, as
/// measured; whoever computes meanwhile would share the cores with them.
const SETTLE: Duration = Duration::from_millis(20);

/// How to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// What [`set_threads`](super::set_threads) was called with.
    pub threads: u16,
    /// Rounds, at least 1.
    pub rounds: u32,
    /// Which backends.
    pub backends: Vec<BackendKind>,
    /// What some of them need.
    pub npu: backend::Options,
}

/// What an instruction set can do at most.
#[derive(Clone, Copy, Debug)]
pub struct Peak {
    /// The instruction set.
    pub isa: Isa,
    /// Multiply-accumulates per second, on all threads together.
    pub macs_per_second: f64,
}

/// The peaks of the instruction sets that this CPU has, on all threads of the pool at once.
///
/// # Errors
/// None on a CPU that keeps the instructions that it says it has.
pub fn peaks() -> Result<Vec<Peak>, BackendError> {
    let available = Isa::ALL.into_iter().filter(|isa| isa.is_available());
    available
        .map(|isa| {
            let threads = rayon::broadcast(|_| {
                let (start, mut macs) = (Instant::now(), 0);
                while start.elapsed() < PEAK {
                    macs += attn_cpu::peak(isa).map_err(Unavailable::Cpu)?;
                }
                Ok(macs as f64 / start.elapsed().as_secs_f64())
            });
            let rates = threads.into_iter().collect::<Result<Vec<f64>, BackendError>>()?;
            Ok(Peak { isa, macs_per_second: rates.iter().sum() })
        })
        .collect()
}

/// One contestant while it is measured.
struct Entry<'a> {
    contestant: Contestant<'a>,
    /// Of the warm-up.
    accuracy: Metrics,
    /// Calls in a round.
    batch: u32,
    /// It is measured in so many rounds.
    rounds: usize,
    /// Seconds of a call, one for each round.
    times: Vec<f64>,
}

/// Measures a workload. Every contestant warms up first; the order of a round starts one place later in the next one.
///
/// # Errors
/// A backend that this CPU does not have, what a contestant says of the numbers.
pub fn measure(workload: &Workload, options: &Options) -> Result<Rows, BenchError> {
    let rounds = options.rounds.max(1) as usize;
    let data = workload.data()?;
    let settle = || {
        if options.threads > 1 {
            thread::sleep(SETTLE);
        }
    };
    let mut entries = Vec::new();
    let (contestants, left_out) = contestants(&data, &options.backends, &options.npu)?;
    for contestant in contestants {
        entries.push(warm_up(contestant, &data, rounds)?);
        settle();
    }
    let mut peaks_of_rounds = Vec::with_capacity(rounds);
    for round in 0..rounds {
        peaks_of_rounds.push(peaks()?);
        let count = entries.len();
        for i in 0..count {
            let entry = &mut entries[(round + i) % count];
            if round < entry.rounds {
                entry.measure(options.threads)?;
                settle();
            }
        }
    }
    // The median of each instruction set.
    let peaks: Vec<Peak> = (0..peaks_of_rounds[0].len())
        .map(|i| Peak {
            isa: peaks_of_rounds[0][i].isa,
            macs_per_second: median(peaks_of_rounds.iter().map(|round| round[i].macs_per_second)),
        })
        .collect();
    let reference = entries.iter().find(|entry| entry.contestant.name == REFERENCE).map(|entry| &entry.times);
    let mut rows: Vec<_> =
        entries.iter().map(|entry| entry.row(workload, options.threads, &peaks, reference)).collect();
    for (row, entry) in rows.iter_mut().zip(&mut entries) {
        row.times = entry.contestant.attention.times();
    }
    Ok(Rows { workload: workload.clone(), rows, left_out, peaks })
}

/// The first call, which is compared with the truth, and as many as it takes to know how long one takes.
fn warm_up<'a>(mut contestant: Contestant<'a>, data: &Data, rounds: usize) -> Result<Entry<'a>, BenchError> {
    contestant.attention.compute()?;
    let accuracy = accuracy(&contestant.attention.output()?, data)?;
    let mut entry = Entry { contestant, accuracy, batch: 1, rounds, times: Vec::with_capacity(rounds) };
    let mut took = entry.time()?;
    while took < BATCH {
        entry.batch *= 2;
        took = entry.time()?;
    }
    if took > LONG && !entry.contestant.threaded {
        entry.rounds = rounds.min(FEW_ROUNDS);
    }
    Ok(entry)
}

impl Entry<'_> {
    /// How long the calls of a round take.
    fn time(&mut self) -> Result<Duration, BenchError> {
        let start = Instant::now();
        for _ in 0..self.batch {
            self.contestant.attention.compute()?;
        }
        Ok(start.elapsed())
    }

    fn measure(&mut self, threads: u16) -> Result<(), BenchError> {
        if self.batch > 1 || threads > 1 {
            // Whoever was before has left its own data in the caches, and this one's threads sleep.
            self.contestant.attention.compute()?;
        }
        let seconds = self.time()?.as_secs_f64() / f64::from(self.batch);
        self.times.push(seconds);
        Ok(())
    }

    fn row(&self, workload: &Workload, threads: u16, peaks: &[Peak], reference: Option<&Vec<f64>>) -> Row {
        let seconds = median(self.times.iter().copied());
        let mac_per_s = workload.shape.macs() as f64 / seconds;
        let of = |peak: &&Peak| self.contestant.isa.is_none_or(|isa| peak.isa == isa);
        let peak = peaks.iter().filter(of).map(|peak| peak.macs_per_second).reduce(f64::max);
        Row {
            workload: workload.name.clone(),
            backend: self.contestant.name.clone(),
            threads: if self.contestant.threaded { threads } else { 1 },
            rounds: self.times.len(),
            median_ns: seconds * 1e9,
            mac_per_s,
            peak_mac_per_s: peak,
            peak_fraction: peak.map(|peak| mac_per_s / peak),
            ratio_torch_f32: reference.map(|reference| median(self.times.iter().zip(reference).map(|(a, b)| a / b))),
            max_error_lsb: self.accuracy.max_error,
            mean_error_lsb: self.accuracy.mae,
            within_1_lsb: self.accuracy.within_1,
            times: None,
        }
    }
}

/// How far an output is from the truth, each figure that of the worst head; a step is the largest magnitude of the head's
/// truth / 127. The truth is not rounded: of an int8 output, up to half a step is its own rounding.
fn accuracy(output: &[f64], data: &Data) -> Result<Metrics, BenchError> {
    let mut worst: Option<Metrics> = None;
    for (output, truth) in output.chunks_exact(output.len() / data.truth.len()).zip(&data.truth) {
        let step = largest_magnitude(truth) / 127.0;
        let mut head = Accumulator::new();
        output.iter().zip(truth).for_each(|(got, truth)| head.push(got / step, truth / step));
        let head = head.finish()?;
        worst = Some(match worst {
            None => head,
            Some(worst) => Metrics {
                max_error: worst.max_error.max(head.max_error),
                mae: worst.mae.max(head.mae),
                within_1: worst.within_1.min(head.within_1),
                ..head
            },
        });
    }
    Ok(worst.ok_or(attn_ref::MetricsError::Empty)?)
}

/// The middle one, or the mean of the two in the middle; NaN of nothing.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.get(half) {
        None => f64::NAN,
        Some(middle) if values.len() % 2 == 1 => *middle,
        Some(middle) => f64::midpoint(values[half - 1], *middle),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::of_shape;

    #[test]
    fn medians() {
        let of = |values: &[f64]| median(values.iter().copied());
        assert_eq!((of(&[3.0, 1.0, 9.0]), of(&[3.0, 1.0, 9.0, 5.0])), (3.0, 4.0));
        assert!(of(&[]).is_nan());
    }

    #[test]
    fn accuracy_is_that_of_the_worst_head() {
        let [workload, _] = &of_shape("3x4x5x8".parse().expect("a shape"))[..] else { panic!("two workloads") };
        let data = workload.data().expect("data");
        let mut output = data.truth.concat();
        let perfect = accuracy(&output, &data).expect("metrics");
        assert_eq!((perfect.max_error, perfect.mae, perfect.within_1), (0.0, 0.0, 1.0));
        let step = |head: usize| largest_magnitude(&data.truth[head]) / 127.0;
        // One element of the first head is off by three of its steps, two elements of the last one by one and a half.
        output[5] += 3.0 * step(0);
        output[64] -= 1.5 * step(2);
        output[70] += 1.5 * step(2);
        let worst = accuracy(&output, &data).expect("metrics");
        assert!((worst.max_error - 3.0).abs() < 1e-9 && (worst.mae - 3.0 / 32.0).abs() < 1e-9, "{worst:?}");
        assert_eq!((worst.count, worst.within_1), (32, 30.0 / 32.0));
    }
}
