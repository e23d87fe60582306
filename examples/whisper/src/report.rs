//! What is measured on recordings, as tables in Markdown.

use std::{
    fmt::Write as _,
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

use attn::backend::{BackendKind, Options};
use attn_ref::{Metrics, torch::Method};

use crate::{
    attention::{Attention, Integer, ScaleRule, Stage, Timed, Torch},
    calibration::Calibration,
    compare::{Agreement, Int8Inputs, OneLayer, Probe},
    error::Error,
    mel::{self, WINDOW_SAMPLES},
    model::{Encoded, LAYERS},
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
    /// How long it is.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(crate::audio::SAMPLE_RATE)
    }
}

/// The model as it is, and with its channels balanced for integers.
pub struct Models {
    /// For float attention.
    pub float: Transcriber,
    /// For integers.
    pub integer: Transcriber,
}

impl Models {
    /// Reads both; none is balanced without a calibration.
    ///
    /// # Errors
    /// As [`Transcriber::read`].
    pub fn read(folder: &Path, calibration: Option<&Calibration>) -> Result<Self, Error> {
        Ok(Self { float: Transcriber::read(folder, None)?, integer: Transcriber::read(folder, calibration)? })
    }
}

/// What float attention gives on one window.
struct Window {
    mel: tch::Tensor,
    encoded: Encoded,
    heard: Heard,
}

fn windows(float: &Transcriber, clip: &Clip) -> Result<Vec<Window>, Error> {
    let window = |samples: &[f32]| {
        let mel = mel::log_mel(samples)?;
        let encoded = float.model.encode(&mel, &mut Torch(Method::Plain))?;
        let heard = float.decode(&encoded, &mut Torch(Method::Plain))?;
        Ok(Window { mel, encoded, heard })
    };
    clip.samples.chunks(WINDOW_SAMPLES).map(window).collect()
}

/// One recording with one attention in the encoder, layer by layer, beside float attention; without its times if it has none that
/// say something.
///
/// # Errors
/// What attention says.
pub fn layers(
    models: &Models,
    clip: &Clip,
    (label, has_times): (&str, bool),
    attention: &mut dyn Attention,
) -> Result<String, Error> {
    let model = &models.integer.model;
    let windows = windows(&models.float, clip)?;
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
            let start = Instant::now();
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
        let own = if has_times { milliseconds(own) } else { "emulated".to_owned() };
        let _ = writeln!(text, "| {name} | {mean} | {max} | {cosine} | {l2} | {own} | {} |", milliseconds(float));
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
    /// Whether the text is that of float attention, with float attention in the decoder.
    is_same: bool,
    /// The same with integers in the decoder.
    is_same_in_decoder: bool,
    /// Of the decoder's attentions.
    errors: [Option<Metrics>; 2],
    /// Largest change of the log probability of a token that was said, with integers in the decoder; none where tokens differ.
    drift: Option<f64>,
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
    models: &'a Models,
    differences: String,
    different: usize,
    transcripts: usize,
}

impl Maker<'_> {
    /// One recording with one form of integers, in this model.
    fn outcome(
        &mut self,
        (clip, windows): (&Clip, &[Window]),
        (what, model): (&str, &Transcriber),
        attention: &mut dyn Attention,
    ) -> Result<Outcome, Error> {
        let mut outcome = Outcome {
            agreement: Agreement::default(),
            is_same: true,
            is_same_in_decoder: true,
            errors: [None, None],
            drift: Some(0.0),
        };
        let mut encoded = Vec::new();
        for window in windows {
            encoded.push(model.model.encode(&window.mel, attention)?);
        }
        let mut probe = Probe::new(attention);
        for (encoded, Window { encoded: expected, heard, .. }) in encoded.iter().zip(windows) {
            outcome.agreement.push(&encoded.output, &expected.output)?;
            let got = self.models.float.decode(encoded, &mut Torch(Method::Plain))?;
            outcome.is_same &= self.compare(&clip.name, what, &got, heard);
            let got = model.decode(encoded, &mut probe)?;
            outcome.is_same_in_decoder &= self.compare(&clip.name, &format!("{what}, decoder too"), &got, heard);
            let pairs = got.log_probabilities.iter().zip(&heard.log_probabilities);
            let drift = pairs.map(|(got, expected)| (got - expected).abs()).fold(0.0, f64::max);
            outcome.drift = outcome.drift.filter(|_| got.tokens == heard.tokens).map(|largest| largest.max(drift));
        }
        outcome.errors = [Stage::DecoderSelf, Stage::DecoderCross].map(|stage| probe.stage(stage));
        Ok(outcome)
    }

    /// Notes a difference.
    fn compare(&mut self, clip: &str, what: &str, got: &Heard, expected: &Heard) -> bool {
        let is_same = got.text == expected.text;
        self.transcripts += 1;
        if !is_same {
            self.different += 1;
            // The end is a token, too.
            let same = got.tokens.iter().zip(&expected.tokens).take_while(|(got, expected)| got == expected).count();
            let margin = expected.margins.get(same).copied().unwrap_or_default();
            let _ = writeln!(
                self.differences,
                "- {clip}, {what}, where float attention preferred its token by {margin:.3} nats: “{}” for “{}”",
                got.text, expected.text
            );
        }
        is_same
    }
}

/// Makes the table of a backend.
///
/// # Errors
/// What attention says; a backend that is not there.
pub fn table(
    models: &Models,
    clips: &[Clip],
    kind: BackendKind,
    options: &Options,
    calibration: Rc<Calibration>,
) -> Result<Table, Error> {
    let open = |rule| Integer::new(kind, options, rule);
    let recordings = calibration.recordings.join(", ");
    let mut dynamic = open(ScaleRule::Dynamic)?;
    let (mut int8, mut fixed) = (open(ScaleRule::DynamicInt8)?, open(ScaleRule::Static(calibration))?);
    let mut maker = Maker { models, differences: String::new(), different: 0, transcripts: 0 };
    let [mut encoder, mut decoder, mut texts] = [const { String::new() }; 3];
    let mut by_layer = [Agreement::default(); LAYERS];
    let Models { float, integer } = models;
    for clip in clips {
        let windows = windows(float, clip)?;
        let mut outcome = |what: &str, model, attention: &mut dyn Attention| {
            maker.outcome((clip, &windows), (what, model), attention)
        };
        let balanced = [
            outcome("dynamic", integer, &mut dynamic)?,
            outcome("dynamic, int8 out", integer, &mut int8)?,
            outcome("static", integer, &mut fixed)?,
        ];
        let unbalanced = outcome("dynamic, channels not balanced", float, &mut dynamic)?;
        let floor = outcome("float attention on int8", integer, &mut Int8Inputs)?;
        for (layer, agreement) in by_layer.iter_mut().enumerate() {
            for window in &windows {
                let mut one = OneLayer { layer, attention: &mut dynamic };
                agreement.push(&integer.model.encode(&window.mel, &mut one)?.output, &window.encoded.output)?;
            }
        }

        let _ = write!(encoder, "| {} | {:.1} | {} |", clip.name, clip.seconds(), cosine(&balanced[0].agreement));
        for outcome in balanced.iter().chain([&unbalanced, &floor]) {
            let _ = write!(encoder, " {}{} |", l2(&outcome.agreement), if outcome.is_same { "" } else { " **≠**" });
        }
        encoder += "\n";
        let tokens: usize = windows.iter().map(|window| window.heard.tokens.len()).sum();
        let _ = write!(decoder, "| {} | {tokens} |", clip.name);
        for outcome in &balanced {
            let _ = write!(decoder, " {} |", if outcome.is_same_in_decoder { "yes" } else { "**no**" });
            for errors in outcome.errors.iter().flatten() {
                let _ = write!(decoder, " {:.2} / {:.1} |", errors.mae, errors.max_error);
            }
            let drift = outcome.drift.map_or("–".to_owned(), |drift| format!("{drift:.3}"));
            let _ = write!(decoder, " {drift} |");
        }
        decoder += "\n";
        let heard: Vec<_> = windows.iter().map(|window| window.heard.text.as_str()).collect();
        let _ = writeln!(texts, "| {} | {} |", clip.name, heard.join(" "));
    }

    let by_layer = by_layer.iter().map(l2).collect::<Vec<_>>().join(" | ");
    let Maker { differences, different, transcripts, .. } = maker;
    let text = format!(
        "Backend `{}`. Calibrated on: {recordings}.\n\n\
         Self-attention of the encoder in integers, all else in float32. Relative L2 of the encoder's output, marked where the text \
         differs:\n\n\
         | recording | s | dynamic: cosine | dynamic | dynamic, int8 out | static | dynamic, not balanced | float attention on int8 |\n\
         |---|---|---|---|---|---|---|---|\n{encoder}\n\
         The same of all recordings together, with the integers (dynamic) in one layer only:\n\n\
         | layer 0 | 1 | 2 | 3 | 4 | 5 |\n|---|---|---|---|---|---|\n| {by_layer} |\n\n\
         Self- and cross-attention of the decoder in integers too: whether the text is the same, errors of the two attentions in LSB \
         (mean / max.), and the largest change of a token's log probability:\n\n\
         | recording | tokens | dynamic | self | cross | log p | dynamic, int8 out | self | cross | log p | static | self | cross | log p |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n{decoder}\n\
         What float attention hears:\n\n| recording | text |\n|---|---|\n{texts}\n\
         {different} of {transcripts} transcripts of windows differ from those of float attention.\n{differences}",
        dynamic.backend_name(),
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

/// The middle one.
pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
