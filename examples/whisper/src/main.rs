//! `cargo xtask whisper`: what was said in a recording, with the attention of one's choice.
#![forbid(unsafe_code)]

use std::{
    error::Error,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use attn::backend::Options;
use attn_ref::torch::{Method, set_threads};
use attn_whisper::{
    attention::{Attention, Choice, Integer, ScaleRule, Torch},
    audio,
    report::{self, Clip},
    scales::{Calibration, StaticScales},
    transcribe::Transcriber,
};
use clap::{
    Args, Parser,
    builder::{PossibleValuesParser, TypedValueParser},
};

/// Exit status of an error.
const USAGE: u8 = 2;

/// Transcribes recordings with Whisper-base: a line each on stdout. Attention is computed by libtorch or, in integers, by attn.
#[derive(Parser)]
#[command(name = "cargo xtask whisper")]
struct Cli {
    /// Recordings: WAV, FLAC or AIFF. Windows of 30 s are transcribed one after the other.
    #[arg(required = true)]
    audio: Vec<PathBuf>,
    /// What computes the encoder's self-attention: `float` is softmax(QKᵀ)V in float32, `sdpa` libtorch's own function for it; the
    /// others are the backends of attn.
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = choices())]
    attention: Choice,
    /// Where the scales of integers come from: `dynamic` are those of each tensor, with an output in floats; `dynamic-int8` the same
    /// with an output of int8, as an NPU gives it; a file has static ones, for inputs and for an output of int8.
    #[arg(long, value_name = "dynamic|dynamic-int8|FILE", default_value = "dynamic")]
    scales: String,
    /// The decoder's attention is computed like the encoder's, not in float32.
    #[arg(long)]
    decoder: bool,
    /// Threads of libtorch and of attn; one for each core if not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// What the NPU is to run, as `attn npu build` made it.
    #[arg(long, value_name = "FILE.xclbin")]
    xclbin: Option<PathBuf>,
    /// How long a dispatch of the NPU may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// The folder of the model: model.bin, config.json, tokenizer.json.
    #[arg(long, value_name = "DIR", default_value = "target/whisper/model")]
    model: PathBuf,
    #[command(flatten)]
    mode: Mode,
}

/// What is done beside transcribing, or in its place.
#[derive(Args)]
#[group(multiple = false)]
struct Mode {
    /// Also prints, on stderr, how far each layer is from float attention, and the times.
    #[arg(long)]
    compare: bool,
    /// Instead: tables in Markdown of all recordings with all forms of scales, `--scales` naming the static ones. Exit status 1 if a
    /// transcript differs from that of float attention.
    #[arg(long)]
    table: bool,
    /// Instead: writes the static scales that the recordings need.
    #[arg(long, value_name = "FILE.json")]
    calibrate: Option<PathBuf>,
}

fn choices() -> impl TypedValueParser<Value = Choice> {
    PossibleValuesParser::new(Choice::names()).try_map(|name| name.parse::<Choice>())
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    run(&cli).unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "whisper: {}", error.to_string().replace('\n', "\\n"));
        ExitCode::from(USAGE)
    })
}

fn run(cli: &Cli) -> Result<ExitCode, Box<dyn Error>> {
    let _without_gradients = tch::no_grad_guard();
    if let Some(threads) = cli.threads {
        set_threads(threads);
        rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build_global()?;
    }
    // Before anything takes long.
    let mut attention = cli.attention()?;
    let clips = cli.audio.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let transcriber = Transcriber::read(&cli.model)?;
    let mut stdout = io::stdout();
    if cli.mode.table {
        let Choice::Integer(kind) = cli.attention else {
            return Err("--table: got floats, expected a backend of attn".into());
        };
        let ScaleRule::Static(scales) = cli.rule()? else {
            return Err(format!("--table: got --scales {}, expected a file of static scales", cli.scales).into());
        };
        let table = report::table(&transcriber, &clips, kind, &cli.options(), &scales)?;
        stdout.write_all(table.text.as_bytes())?;
        return Ok(if table.different == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    if let Some(path) = &cli.mode.calibrate {
        let mut float = Torch(Method::Plain);
        let mut calibration = Calibration::new(&mut float);
        for clip in &clips {
            transcriber.transcribe(&clip.samples, &mut calibration, None)?;
        }
        calibration.finish(clips.into_iter().map(|clip| clip.name).collect()).write(path)?;
        return Ok(ExitCode::SUCCESS);
    }
    for clip in &clips {
        let mut float = Torch(Method::Plain);
        let decoder: Option<&mut dyn Attention> = if cli.decoder { None } else { Some(&mut float) };
        let text = transcriber.transcribe(&clip.samples, attention.as_mut(), decoder)?;
        writeln!(stdout, "{text}")?;
        if cli.mode.compare {
            eprintln!("{}", report::layers(&transcriber, clip, cli.attention.name(), attention.as_mut())?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Cli {
    fn attention(&self) -> Result<Box<dyn Attention>, Box<dyn Error>> {
        Ok(match self.attention {
            Choice::Torch(method) => Box::new(Torch(method)),
            Choice::Integer(kind) => Box::new(Integer::new(kind, &self.options(), self.rule()?)?),
        })
    }

    fn options(&self) -> Options {
        Options { xclbin: self.xclbin.clone(), timeout: Some(Duration::from_secs(self.timeout)) }
    }

    fn rule(&self) -> Result<ScaleRule, Box<dyn Error>> {
        Ok(match self.scales.as_str() {
            "dynamic" => ScaleRule::Dynamic,
            "dynamic-int8" => ScaleRule::DynamicInt8,
            file => ScaleRule::Static(StaticScales::read(Path::new(file))?),
        })
    }
}

fn read(path: &Path) -> Result<Clip, Box<dyn Error>> {
    let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    Ok(Clip { name, samples: audio::read(path)? })
}
