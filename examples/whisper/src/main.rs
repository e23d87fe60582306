//! `cargo xtask whisper`: what was said in a recording, with the attention of one's choice.
#![forbid(unsafe_code)]

use std::{
    error::Error,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    rc::Rc,
    time::Duration,
};

use attn::backend::{BackendKind, Options};
use attn_ref::torch::{Method, set_threads};
use attn_whisper::{
    attention::{Attention, Choice, Integer, ScaleRule, Torch},
    audio,
    bench::{self, Contestant, Peers},
    calibration::{Calibration, Observer},
    capture::{self, Capture},
    mel, pictures,
    report::{self, Clip, Models},
    transcribe::Transcriber,
};
use clap::{
    Args, Parser, ValueEnum,
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
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = choices(), conflicts_with = "calibrate")]
    attention: Choice,
    /// Where the scales of integers come from; `dynamic` if not given, but `static` for `npu`, which has no output in floats.
    #[arg(long, value_name = "RULE", conflicts_with_all = ["table", "bench", "calibrate"])]
    scales: Option<Rule>,
    /// Static scales, and by how much channels differ, which is evened out in the weights for integers.
    #[arg(long, value_name = "FILE.json", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/calibration.json"))]
    calibration: PathBuf,
    /// The weights are left as they are.
    #[arg(long, conflicts_with_all = ["table", "bench", "calibrate"])]
    unbalanced: bool,
    /// The decoder's attention is computed like the encoder's, not in float32.
    #[arg(long, conflicts_with_all = ["table", "bench", "calibrate"])]
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
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/whisper/model"))]
    model: PathBuf,
    #[command(flatten)]
    mode: Mode,
    /// With --bench: `CTranslate2` too, which is installed below target/whisper/peers (250 MB).
    #[arg(long, requires = "bench")]
    peers: bool,
    /// With --bench: how often everything is measured.
    #[arg(long, value_name = "N", requires = "bench", default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

/// A rule for scales.
#[derive(Clone, Copy, ValueEnum)]
enum Rule {
    /// Those of each tensor, with an output in floats.
    Dynamic,
    /// Those of each tensor, with an output of int8, as an NPU gives it.
    DynamicInt8,
    /// Those of the calibration, for inputs and for an output of int8.
    Static,
}

/// What is done beside transcribing, or in its place.
#[derive(Args)]
#[group(multiple = false)]
struct Mode {
    /// Also prints, on stderr, how far each layer is from float attention, and the times.
    #[arg(long)]
    compare: bool,
    /// Also writes what goes into the encoder's attentions in the recording's first window: an archive of `q`, `k` and `v`, float16
    /// [layer, head, frame, channel], not scaled. For the fixture of `attn validate` with `--attention float`.
    #[arg(long, value_name = "FILE.npz")]
    capture: Option<PathBuf>,
    /// Also draws the attention of every layer of the encoder, in the recording's first window, float beside integers.
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
    /// Instead: tables in Markdown of all recordings with all rules for scales. Exit status 1 if a transcript differs from that of
    /// float attention.
    #[arg(long)]
    table: bool,
    /// Instead: measures the encoder on the recording's first window, libtorch beside integers, static ones too, and beside `CTranslate2`
    /// if --peers is given.
    #[arg(long)]
    bench: bool,
    /// Instead: calibrates on the recordings, with float attention in encoder and decoder.
    #[arg(long, value_name = "FILE.json")]
    calibrate: Option<PathBuf>,
}

fn choices() -> impl TypedValueParser<Value = Choice> {
    PossibleValuesParser::new(Choice::names()).try_map(|name| name.parse::<Choice>())
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(text) if !text.use_stderr() => text.exit(),
        Err(error) => {
            let error = error.to_string();
            let lines = error.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("Usage:"));
            return refuse(&lines.collect::<Vec<_>>().join("; "));
        }
    };
    run(&cli).unwrap_or_else(|error| refuse(&error.to_string()))
}

/// Says in one line what is wrong.
fn refuse(error: &str) -> ExitCode {
    let error = error.strip_prefix("error: ").unwrap_or(error).replace('\n', "\\n");
    let _ = writeln!(io::stderr(), "whisper: {error}");
    ExitCode::from(USAGE)
}

fn run(cli: &Cli) -> Result<ExitCode, Box<dyn Error>> {
    let _without_gradients = tch::no_grad_guard();
    if let Some(threads) = cli.threads {
        set_threads(threads);
        rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build_global()?;
    }
    let clips = cli.audio.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    if let Some(path) = &cli.mode.calibrate {
        calibrate(&Transcriber::read(&cli.model, None)?, clips, path)?;
        return Ok(ExitCode::SUCCESS);
    }
    let name = cli.attention.name();
    if (cli.mode.bench || cli.mode.capture.is_some() || cli.mode.pictures.is_some()) && clips.len() > 1 {
        return Err(format!("got {} recordings, expected 1 with --bench, --capture and --pictures", clips.len()).into());
    }
    let kind = match cli.attention {
        Choice::Integer(_) if cli.mode.capture.is_some() => {
            return Err(format!("--capture: got --attention {name}, expected float or sdpa").into());
        }
        Choice::Integer(kind) => kind,
        Choice::Torch(_) if cli.scales.is_some() || cli.unbalanced || cli.xclbin.is_some() => {
            let option = match (cli.unbalanced, &cli.xclbin) {
                (true, _) => "--unbalanced",
                (false, Some(_)) => "--xclbin",
                (false, None) => "--scales",
            };
            return Err(format!("{option}: got --attention {name}, expected a backend of attn").into());
        }
        Choice::Torch(_) if cli.mode.table || cli.mode.bench || cli.mode.pictures.is_some() => {
            return Err(format!("got --attention {name}, expected a backend of attn").into());
        }
        Choice::Torch(method) => {
            let models = Models::read(&cli.model, None)?;
            return transcribe(cli, &models, &clips, (name, true), &mut Torch(method)).map(|()| ExitCode::SUCCESS);
        }
    };
    let options = Options { xclbin: cli.xclbin.clone(), timeout: Some(Duration::from_secs(cli.timeout)) };
    let calibration = Rc::new(Calibration::read(&cli.calibration)?);
    let default = if kind == BackendKind::Npu { Rule::Static } else { Rule::Dynamic };
    let rule = match cli.scales.unwrap_or(default) {
        Rule::Dynamic => ScaleRule::Dynamic,
        Rule::DynamicInt8 => ScaleRule::DynamicInt8,
        Rule::Static if cli.unbalanced => {
            return Err(
                "--unbalanced: got --scales static, expected dynamic ones: static ones are of balanced tensors".into(),
            );
        }
        Rule::Static => ScaleRule::Static(Rc::clone(&calibration)),
    };
    // What is missing is said before anything takes long.
    let mut integer = Integer::new(kind, &options, rule)?;
    let models = Models::read(&cli.model, (!cli.unbalanced).then_some(&calibration))?;
    if cli.mode.table {
        let table = report::table(&models, &clips, kind, &options, calibration)?;
        io::stdout().write_all(table.text.as_bytes())?;
        return Ok(if table.different == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    if cli.mode.bench {
        if integer.is_emulated() {
            return Err("--bench: got an emulated device, whose times say nothing".into());
        }
        bench(cli, &models, &clips[0], (kind, &options), &calibration)?;
        return Ok(ExitCode::SUCCESS);
    }
    let label = integer.label();
    let has_times = !integer.is_emulated();
    transcribe(cli, &models, &clips, (&label, has_times), &mut integer)?;
    let saturated = integer.take_saturated();
    if cli.mode.compare && saturated > 0.0 {
        writeln!(io::stderr(), "{:.4} % of what was quantised exceeded its static scale", 100.0 * saturated)?;
    }
    if let Some(folder) = &cli.mode.pictures {
        let mut float = Torch(Method::Plain);
        let mut capture = Capture::new(&mut float);
        models.integer.model.encode(&mel::log_mel(&clips[0].samples)?, &mut capture)?;
        pictures::draw(capture.layers(), &mut integer, folder, clips[0].seconds())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a line for each recording.
fn transcribe(
    cli: &Cli,
    models: &Models,
    clips: &[Clip],
    label: (&str, bool),
    attention: &mut dyn Attention,
) -> Result<(), Box<dyn Error>> {
    for clip in clips {
        let mut capture = Capture::new(attention);
        let mut float = Torch(Method::Plain);
        let decoder: Option<&mut dyn Attention> = if cli.decoder { None } else { Some(&mut float) };
        let text = models.integer.transcribe(&clip.samples, &mut capture, decoder)?;
        writeln!(io::stdout(), "{text}")?;
        if let Some(path) = &cli.mode.capture {
            capture::write(capture.layers(), path)?;
        }
        if cli.mode.compare {
            writeln!(io::stderr(), "{}", report::layers(models, clip, label, attention)?)?;
        }
    }
    Ok(())
}

/// Prints how long the encoder takes.
fn bench(
    cli: &Cli,
    models: &Models,
    clip: &Clip,
    (kind, options): (BackendKind, &Options),
    calibration: &Rc<Calibration>,
) -> Result<(), Box<dyn Error>> {
    let threads = cli.threads.unwrap_or_else(|| rayon::current_num_threads() as u16);
    set_threads(threads);
    let mut contestants: Vec<_> = [Method::Fused, Method::Plain]
        .map(|method| Contestant {
            name: format!("libtorch `{}`", Choice::Torch(method).name()),
            attention: Box::new(Torch(method)),
            is_balanced: false,
        })
        .into();
    for rule in [ScaleRule::Dynamic, ScaleRule::Static(Rc::clone(calibration))] {
        let integer = Integer::new(kind, options, rule)?;
        contestants.push(Contestant { name: integer.label(), attention: Box::new(integer), is_balanced: true });
    }
    let folder = tempfile::tempdir()?;
    let mel = mel::log_mel(&clip.samples)?;
    let peers = cli.peers.then(|| Peers::start(&cli.model, &mel, threads, folder.path())).transpose()?;
    let table = bench::bench(models, clip, contestants, peers, (threads, cli.rounds))?;
    Ok(io::stdout().write_all(table.as_bytes())?)
}

fn calibrate(transcriber: &Transcriber, clips: Vec<Clip>, path: &Path) -> Result<(), Box<dyn Error>> {
    let mut float = Torch(Method::Plain);
    let mut observer = Observer::new(&mut float);
    for clip in &clips {
        transcriber.transcribe(&clip.samples, &mut observer, None)?;
    }
    Ok(observer.finish(clips.into_iter().map(|clip| clip.name).collect()).write(path)?)
}

fn read(path: &Path) -> Result<Clip, Box<dyn Error>> {
    let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    Ok(Clip { name, samples: audio::read(path)? })
}
