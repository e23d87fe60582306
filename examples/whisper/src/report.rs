//! What is measured on recordings, as tables in Markdown.

use std::{fmt::Write as _, time::Duration};

use attn::backend::{BackendKind, Options};
use attn_ref::{Metrics, torch::Method};

use crate::{
    attention::{Attention, Integer, ScaleRule, Stage, Timed, Torch},
    compare::{Agreement, Int8Inputs, OneLayer, Probe},
    error::Error,
    mel::{self, WINDOW_SAMPLES},
    model::{Encoded, LAYERS},
    scales::StaticScales,
    transcribe::{Heard, Transcriber},
};

/// So often the encoder is timed; the median counts.
const RUNS: usize = 3;

/// A recording.
#[derive(Clone, Debug)]
pub struct Clip {
    /// What tables call it.
    pub name: String,
    /// Mono, 16 kHz.
    pub samples: Vec<f32>,
}

impl Clip {
    fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(crate::audio::SAMPLE_RATE)
    }
}

/// What float attention gives on one window.
struct Window {
    mel: tch::Tensor,
    encoded: Encoded,
    heard: Heard,
}

fn windows(transcriber: &Transcriber, clip: &Clip) -> Result<Vec<Window>, Error> {
    let window = |samples: &[f32]| {
        let mel = mel::log_mel(samples)?;
        let encoded = transcriber.model.encode(&mel, &mut Torch(Method::Plain))?;
        let heard = transcriber.decode(&encoded, &mut Torch(Method::Plain))?;
        Ok(Window { mel, encoded, heard })
    };
    clip.samples.chunks(WINDOW_SAMPLES).map(window).collect()
}

/// One recording with one attention in the encoder, layer by layer, beside float attention.
///
/// # Errors
/// What attention says.
pub fn layers(
    transcriber: &Transcriber,
    clip: &Clip,
    label: &str,
    attention: &mut dyn Attention,
) -> Result<String, Error> {
    let model = &transcriber.model;
    let windows = windows(transcriber, clip)?;
    let mut agreements = vec![Agreement::default(); LAYERS + 1];
    let mut probe = Probe::new(attention);
    for window in &windows {
        let encoded = model.encode(&window.mel, &mut probe)?;
        let pairs = encoded.layers.iter().zip(&window.encoded.layers);
        let output = (&encoded.output, &window.encoded.output);
        for (agreement, (got, expected)) in agreements.iter_mut().zip(pairs.chain([output])) {
            agreement.push(got, expected)?;
        }
    }
    let errors = probe.layers(Stage::Encoder);
    let times = |attention: &mut dyn Attention| {
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            let mut timed = Timed::new(attention);
            let start = std::time::Instant::now();
            windows.iter().try_for_each(|window| model.encode(&window.mel, &mut timed).map(drop))?;
            let whole = start.elapsed();
            // Those of a layer are summed over windows.
            let of = |layer| timed.times().iter().skip(layer).step_by(LAYERS).sum::<Duration>();
            runs.push((0..LAYERS).map(of).chain([timed.times().iter().sum(), whole]).collect::<Vec<_>>());
        }
        Ok::<_, Error>((0..LAYERS + 2).map(|i| median(runs.iter().map(|run| run[i]).collect())).collect::<Vec<_>>())
    };
    let (float, own) = (times(&mut Torch(Method::Plain))?, times(attention)?);

    let mut text = format!("{}, {:.1} s: {label} beside softmax(QKᵀ)V in float32\n\n", clip.name, clip.seconds());
    text +=
        "| layer | attention, mean error | max. | layer's output, cosine | relative L2 | attention | in float32 |\n";
    text += "|---|---|---|---|---|---|---|\n";
    let mut row = |name: &str, error: Option<(f64, f64)>, agreement: &Agreement, own: Duration, float: Duration| {
        let (mean, max) =
            error.map_or_else(Default::default, |(mean, max)| (format!("{mean:.3} LSB"), format!("{max:.2}")));
        let (cosine, l2) = (cosine(agreement), l2(agreement));
        let _ = writeln!(
            text,
            "| {name} | {mean} | {max} | {cosine} | {l2} | {} | {} |",
            milliseconds(own),
            milliseconds(float)
        );
    };
    for (layer, (errors, agreement)) in errors.iter().zip(&agreements).enumerate() {
        row(&layer.to_string(), Some((errors.mae, errors.max_error)), agreement, own[layer], float[layer]);
    }
    row("encoder: attention", None, &agreements[LAYERS], own[LAYERS], float[LAYERS]);
    row("encoder: all", None, &agreements[LAYERS], own[LAYERS + 1], float[LAYERS + 1]);
    Ok(text)
}

/// What came of one form of integers on one recording.
struct Outcome {
    /// Of the encoder's outputs.
    agreement: Agreement,
    /// Whether the text is that of float attention.
    is_same: bool,
    /// Of the attentions, in the decoder if it has integers too.
    errors: [Option<Metrics>; 2],
    /// Largest change of the log probability of a token that was said, where all tokens are the same.
    drift: f64,
}

/// Every recording with every form of integers, in the encoder, and in the decoder too, beside float attention.
pub struct Table {
    /// In Markdown.
    pub text: String,
    /// How many transcripts are not those of float attention; every one is in the text.
    pub different: usize,
}

/// A [`Table`] while it is made.
struct Maker<'a> {
    transcriber: &'a Transcriber,
    differences: String,
    different: usize,
}

impl Maker<'_> {
    /// One recording, with integers in the encoder, and in the decoder if it is `in_decoder`.
    fn outcome(
        &mut self,
        (clip, windows): (&Clip, &[Window]),
        what: &str,
        attention: &mut dyn Attention,
        in_decoder: bool,
    ) -> Result<Outcome, Error> {
        let (mut agreement, mut is_same, mut drift) = (Agreement::default(), true, 0.0_f64);
        let mut probe = Probe::new(attention);
        for Window { mel, encoded: expected, heard } in windows {
            let encoded = self.transcriber.model.encode(mel, &mut probe)?;
            agreement.push(&encoded.output, &expected.output)?;
            let got = if in_decoder {
                self.transcriber.decode(&encoded, &mut probe)?
            } else {
                self.transcriber.decode(&encoded, &mut Torch(Method::Plain))?
            };
            if got.text != heard.text {
                is_same = false;
                self.different += 1;
                let _ = writeln!(self.differences, "- {}, {what}: “{}” for “{}”", clip.name, got.text, heard.text);
            }
            if got.tokens == heard.tokens {
                let pairs = got.log_probabilities.iter().zip(&heard.log_probabilities);
                drift = pairs.fold(drift, |drift, (got, expected)| drift.max((got - expected).abs()));
            }
        }
        let errors = [Stage::DecoderSelf, Stage::DecoderCross].map(|stage| probe.stage(stage));
        Ok(Outcome { agreement, is_same, errors, drift })
    }
}

/// Makes the table of a backend.
///
/// # Errors
/// What attention says; a backend that is not there.
pub fn table(
    transcriber: &Transcriber,
    clips: &[Clip],
    kind: BackendKind,
    options: &Options,
    scales: &StaticScales,
) -> Result<Table, Error> {
    let rules = [ScaleRule::Dynamic, ScaleRule::DynamicInt8, ScaleRule::Static(scales.clone())];
    let mut integers =
        rules.into_iter().map(|rule| Integer::new(kind, options, rule)).collect::<Result<Vec<_>, _>>()?;
    let mut maker = Maker { transcriber, differences: String::new(), different: 0 };
    let [mut encoder, mut decoder, mut texts] = [const { String::new() }; 3];
    let mut by_layer = [Agreement::default(); LAYERS];
    for clip in clips {
        let windows = windows(transcriber, clip)?;
        let clip_and_windows = (clip, &windows[..]);
        let (mut in_encoder, mut in_both) = (Vec::new(), Vec::new());
        let mut saturated = 0;
        for integer in &mut integers {
            let label = integer.label();
            in_encoder.push(maker.outcome(clip_and_windows, &label, integer, false)?);
            saturated = integer.take_saturated();
            in_both.push(maker.outcome(clip_and_windows, &format!("decoder too, {label}"), integer, true)?);
        }
        // Query, key and value of every layer are as large as its output.
        let elements = windows.iter().map(|window| 3 * LAYERS * window.encoded.output.numel()).sum::<usize>();
        let floor = maker.outcome(clip_and_windows, "exact attention on int8", &mut Int8Inputs, false)?;
        for (layer, agreement) in by_layer.iter_mut().enumerate() {
            for window in &windows {
                let mut one = OneLayer { layer, attention: &mut integers[0] };
                agreement.push(&transcriber.model.encode(&window.mel, &mut one)?.output, &window.encoded.output)?;
            }
        }

        let _ = write!(encoder, "| {} | {:.1} | {} |", clip.name, clip.seconds(), cosine(&in_encoder[0].agreement));
        for outcome in in_encoder.iter().chain([&floor]) {
            let _ = write!(encoder, " {}{} |", l2(&outcome.agreement), if outcome.is_same { "" } else { " **≠**" });
        }
        let _ = writeln!(encoder, " {:.4} % |", 100.0 * saturated as f64 / elements as f64);

        let tokens: usize = windows.iter().map(|window| window.heard.tokens.len()).sum();
        let _ = write!(decoder, "| {} | {tokens} |", clip.name);
        for outcome in &in_both {
            let _ = write!(decoder, " {} |", if outcome.is_same { "yes" } else { "**no**" });
            for errors in outcome.errors.iter().flatten() {
                let _ = write!(decoder, " {:.2} / {:.1} |", errors.mae, errors.max_error);
            }
            let _ = write!(decoder, " {:.3} |", outcome.drift);
        }
        decoder += "\n";
        let heard: Vec<_> = windows.iter().map(|window| window.heard.text.as_str()).collect();
        let _ = writeln!(texts, "| {} | {} |", clip.name, heard.join(" "));
    }

    let by_layer = by_layer.iter().map(l2).collect::<Vec<_>>().join(" | ");
    let Maker { differences, different, .. } = maker;
    let text = format!(
        "Backend `{}`. Static scales are calibrated on: {}.\n\n\
         Self-attention of the encoder in integers, all else in float32. Relative L2 of the encoder's output, marked where the text \
         differs:\n\n\
         | recording | s | dynamic: cosine | dynamic | dynamic, int8 out | static | exact attention on int8 | static: saturated |\n\
         |---|---|---|---|---|---|---|---|\n{encoder}\n\
         The same of all recordings together, with the integers (dynamic) in one layer only:\n\n\
         | layer 0 | 1 | 2 | 3 | 4 | 5 |\n|---|---|---|---|---|---|\n| {by_layer} |\n\n\
         Self- and cross-attention of the decoder in integers too: whether the text is the same, errors of the two attentions in LSB \
         (mean / max.), and the largest change of a token's log probability:\n\n\
         | recording | tokens | dynamic | self | cross | log p | dynamic, int8 out | self | cross | log p | static | self | cross | log p |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n{decoder}\n\
         What float attention hears:\n\n| recording | text |\n|---|---|\n{texts}\n\
         {different} transcripts of windows differ from those of float attention.\n{differences}",
        integers[0].backend_name(),
        scales.calibrated_on.join(", "),
    );
    Ok(Table { text, different })
}

fn cosine(agreement: &Agreement) -> String {
    format!("{:.6}", agreement.cosine())
}

fn l2(agreement: &Agreement) -> String {
    format!("{:.4}", agreement.relative_l2())
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", 1e3 * time.as_secs_f64())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
