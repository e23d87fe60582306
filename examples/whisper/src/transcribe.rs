//! From sound to text: windows of 30 s, each encoded and decoded greedily.

use std::{fs, path::Path};

use serde::Deserialize;
use tch::{Kind, Tensor};
use tokenizers::Tokenizer;

use crate::{
    attention::Attention,
    calibration::Calibration,
    error::{Error, of_file},
    mel::{self, WINDOW_SAMPLES},
    model::{CONTEXT, Encoded, VOCABULARY, Whisper},
    weights::Weights,
};

/// No more tokens are decoded of one window, as `openai-whisper` has it: half of the context.
const MOST_TOKENS: usize = CONTEXT / 2;
/// A window in which the model hears no speech with at least this probability is silent, if it is not sure of what it decoded: a
/// mean log probability of [`UNSURE`] or less. Both as `openai-whisper` has them.
const NO_SPEECH: f64 = 0.6;
const UNSURE: f64 = -1.0;

/// Model and vocabulary.
#[derive(Debug)]
pub struct Transcriber {
    /// The model.
    pub model: Whisper,
    tokenizer: Tokenizer,
    tokens: Tokens,
}

/// The tokens with a meaning of their own.
#[derive(Debug)]
struct Tokens {
    start: u32,
    end: u32,
    transcribe: u32,
    no_timestamps: u32,
    no_speech: u32,
    languages: Vec<u32>,
    /// Added to logits: -∞ where a token is never said, such as those of sound effects.
    never: Tensor,
    /// The same for what is not said first: a space, the end.
    never_first: Tensor,
}

/// The parts of `config.json` that are used.
#[derive(Deserialize)]
struct Config {
    lang_ids: Vec<u32>,
    suppress_ids: Vec<u32>,
    suppress_ids_begin: Vec<u32>,
}

/// What was heard in one window.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// Without leading and trailing spaces; empty for silence.
    pub text: String,
    /// The tokens, of silence too, without those that start and end.
    pub tokens: Vec<u32>,
    /// Theirs, and at the end that of the token that ended it, in nats.
    pub log_probabilities: Vec<f64>,
    /// By how much each of them was preferred to the next best one, in nats.
    pub margins: Vec<f64>,
}

impl Transcriber {
    /// Reads `model.bin`, `tokenizer.json` and `config.json` of a folder; with a calibration the model is
    /// [balanced](Whisper::balanced).
    ///
    /// # Errors
    /// A file that is missing or of another model.
    pub fn read(folder: &Path, calibration: Option<&Calibration>) -> Result<Self, Error> {
        let mut model = Whisper::new(&Weights::read(&folder.join("model.bin"))?)?;
        if let Some(calibration) = calibration {
            model = model.balanced(calibration)?;
        }
        let path = folder.join("tokenizer.json");
        let error = |what: String| Error::File { file: path.clone(), what };
        let tokenizer = Tokenizer::from_file(&path).map_err(|problem| error(problem.to_string()))?;
        let token = |text: &str| tokenizer.token_to_id(text).ok_or_else(|| error(format!("got no token {text}")));
        let config = Config::read(&folder.join("config.json"))?;
        let no_timestamps = token("<|notimestamps|>")?;
        // Timestamps are the last ones.
        let never = config.suppress_ids.iter().copied().chain(no_timestamps..VOCABULARY as u32);
        let tokens = Tokens {
            start: token("<|startoftranscript|>")?,
            end: token("<|endoftext|>")?,
            transcribe: token("<|transcribe|>")?,
            no_timestamps,
            no_speech: token("<|nospeech|>")?,
            never: minus_infinity_at(never)?,
            never_first: minus_infinity_at(config.suppress_ids_begin.into_iter())?,
            languages: config.lang_ids,
        };
        Ok(Self { model, tokenizer, tokens })
    }

    /// Transcribes mono sound of 16 kHz: a window of 30 s after the other, joined by spaces.
    ///
    /// # Errors
    /// What attention says.
    pub fn transcribe(
        &self,
        samples: &[f32],
        encoder: &mut dyn Attention,
        decoder: Option<&mut dyn Attention>,
    ) -> Result<String, Error> {
        let mut decoder = decoder;
        let mut texts = Vec::new();
        for window in samples.chunks(WINDOW_SAMPLES) {
            let encoded = self.model.encode(&mel::log_mel(window)?, encoder)?;
            let heard = match &mut decoder {
                Some(decoder) => self.decode(&encoded, *decoder)?,
                None => self.decode(&encoded, encoder)?,
            };
            if !heard.text.is_empty() {
                texts.push(heard.text);
            }
        }
        Ok(texts.join(" "))
    }

    /// Decodes what the encoder gave: always the likeliest token, without timestamps, in the language that is likeliest.
    ///
    /// # Errors
    /// What attention says.
    pub fn decode(&self, encoded: &Encoded, attention: &mut dyn Attention) -> Result<Heard, Error> {
        let tokens = &self.tokens;
        let mut decoder = self.model.decoder(encoded)?;
        let first = decoder.step(tokens.start, attention)?;
        let no_speech = first.f_softmax(0, None)?.f_double_value(&[tokens.no_speech.into()])?;
        let languages: Vec<i64> = tokens.languages.iter().map(|&token| token.into()).collect();
        let likeliest = first.f_index_select(0, &Tensor::f_from_slice(&languages)?)?.f_argmax(0, false)?;
        let language = tokens.languages[likeliest.f_int64_value(&[])? as usize];
        let _ = decoder.step(language, attention)?;
        let _ = decoder.step(tokens.transcribe, attention)?;
        let mut logits = decoder.step(tokens.no_timestamps, attention)?.f_add(&tokens.never_first)?;
        let (mut said, mut log_probabilities, mut margins) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            logits = logits.f_add(&tokens.never)?;
            let (best, tokens_of_best) = logits.f_log_softmax(0, Kind::Float)?.f_topk(2, 0, true, true)?;
            let token = tokens_of_best.f_int64_value(&[0])?;
            let [first, second] = [0, 1].map(|i| best.f_double_value(&[i]));
            let (first, second) = (first?, second?);
            log_probabilities.push(first);
            margins.push(first - second);
            let token = token as u32;
            if token == tokens.end || said.len() == MOST_TOKENS {
                break;
            }
            said.push(token);
            logits = decoder.step(token, attention)?;
        }
        let mean = log_probabilities.iter().sum::<f64>() / log_probabilities.len() as f64;
        let is_silent = no_speech > NO_SPEECH && mean <= UNSURE;
        let text = if is_silent { String::new() } else { self.text(&said)? };
        Ok(Heard { text, tokens: said, log_probabilities, margins })
    }

    fn text(&self, tokens: &[u32]) -> Result<String, Error> {
        let text = self.tokenizer.decode(tokens, true);
        let text = text.map_err(of_file(Path::new("tokenizer.json")))?;
        // A transcript is one line.
        Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

impl Config {
    fn read(path: &Path) -> Result<Self, Error> {
        let error = |what: String| Error::File { file: path.to_owned(), what };
        let text = fs::read_to_string(path).map_err(|io| error(io.to_string()))?;
        let config: Self = serde_json::from_str(&text).map_err(|json| error(json.to_string()))?;
        let ids = config.lang_ids.iter().chain(&config.suppress_ids).chain(&config.suppress_ids_begin);
        if let Some(id) = ids.copied().find(|&id| id as usize >= VOCABULARY) {
            return Err(error(format!("got a token {id}, expected at most {}", VOCABULARY - 1)));
        }
        if config.lang_ids.is_empty() {
            return Err(error("got no lang_ids".to_owned()));
        }
        Ok(config)
    }
}

/// `[vocabulary]`, zeros but there.
fn minus_infinity_at(ids: impl Iterator<Item = u32>) -> Result<Tensor, Error> {
    let mut values = vec![0.0_f32; VOCABULARY];
    ids.for_each(|id| values[id as usize] = f32::NEG_INFINITY);
    Ok(Tensor::f_from_slice(&values)?)
}
