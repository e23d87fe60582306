//! How long the encoder takes with each attention, and beside `CTranslate2`, which runs Whisper in production.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use npyz::WriterBuilder as _;
use tch::Tensor;

use crate::{
    attention::{Attention, Timed},
    compare::Agreement,
    error::Error,
    mel::{self, BANDS, FRAMES},
    model::{POSITIONS, WIDTH},
    report::{Clip, Models, median},
};

/// With several threads, those of libtorch wait for more work at full load for some milliseconds before they sleep; whoever computes
/// next would share the cores with them.
const SETTLE: Duration = Duration::from_millis(20);

/// One attention that is measured.
pub struct Contestant {
    /// What the table calls it.
    pub name: String,
    /// What computes the encoder's attention.
    pub attention: Box<dyn Attention>,
    /// Whether in the balanced model.
    pub is_balanced: bool,
}

/// Times of one contestant, and how its output agrees with that of the first one.
struct Row {
    name: String,
    encoder: Vec<Duration>,
    attention: Vec<Duration>,
    agreement: Agreement,
}

/// `CTranslate2`, in a process of its own that answers line by line.
pub struct Peers {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    folder: PathBuf,
}

impl Peers {
    /// Starts `peers.py` on this spectrogram; what it writes is in `folder`.
    ///
    /// # Errors
    /// Python that is not there.
    pub fn start(model: &Path, mel: &Tensor, threads: u16, folder: &Path) -> Result<Self, Error> {
        let file = folder.join("mel.npy");
        let mel = Vec::<f32>::try_from(mel.f_reshape([-1])?)?;
        let shape = [BANDS as u64, FRAMES as u64];
        let mut writer =
            npyz::WriteOptions::new().default_dtype().shape(&shape).writer(File::create(&file)?).begin_nd()?;
        writer.extend(mel)?;
        writer.finish()?;
        let mut child = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/peers.py"))
            .args(["--serve", "--threads", &threads.to_string(), "--model"])
            .args([model, Path::new("--mel"), &file, Path::new("--output"), folder])
            // It is for libtorch beside attn's threads.
            .env_remove("OMP_WAIT_POLICY")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("python3: {error}")))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            unreachable!("both are piped")
        };
        Ok(Self { child, stdin, stdout: BufReader::new(stdout), folder: folder.to_owned() })
    }

    fn ask(&mut self, line: &str) -> Result<String, Error> {
        writeln!(self.stdin, "{line}")?;
        let mut answer = String::new();
        if self.stdout.read_line(&mut answer)? == 0 {
            return Err(io::Error::other("peers.py ended: see above").into());
        }
        Ok(answer.trim_end().to_owned())
    }

    /// The time of one call.
    fn encode(&mut self, kind: &str) -> Result<Duration, Error> {
        let answer = self.ask(&format!("encode {kind}"))?;
        let milliseconds = answer.parse().ok().filter(|time: &f64| time.is_finite() && *time >= 0.0);
        let milliseconds =
            milliseconds.ok_or_else(|| io::Error::other(format!("peers.py: got {answer:?}, expected milliseconds")))?;
        Ok(Duration::from_secs_f64(milliseconds / 1e3))
    }

    /// What it gave.
    fn output(&self, kind: &str) -> Result<Tensor, Error> {
        let reader = npyz::NpyFile::new(BufReader::new(File::open(self.folder.join(format!("{kind}.npy")))?))?;
        Ok(Tensor::f_from_slice(&reader.into_vec::<f32>()?)?.f_reshape([POSITIONS as i64, WIDTH])?)
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Measures the encoder on the first window of a recording, in interleaved rounds; what others are compared with is the first
/// contestant. A table in Markdown.
///
/// # Errors
/// What attention and peers say.
pub fn bench(
    models: &Models,
    clip: &Clip,
    contestants: Vec<Contestant>,
    mut peers: Option<Peers>,
    (threads, rounds): (u16, u32),
) -> Result<String, Error> {
    let mel = mel::log_mel(&clip.samples)?;
    let mut contestants = contestants;
    let mut rows = Vec::new();
    let mut expected = None;
    // Warms up, too.
    for Contestant { name, attention, is_balanced } in &mut contestants {
        let model = if *is_balanced { &models.integer } else { &models.float };
        let output = model.model.encode(&mel, attention.as_mut())?.output;
        let expected = expected.get_or_insert_with(|| output.shallow_clone());
        let mut agreement = Agreement::default();
        agreement.push(&output, expected)?;
        rows.push(Row { name: name.clone(), encoder: Vec::new(), attention: Vec::new(), agreement });
    }
    let mut kinds = Vec::new();
    if let (Some(peers), Some(expected)) = (&mut peers, &expected) {
        for kind in peers.ask("types")?.split(' ') {
            peers.encode(kind)?;
            let mut agreement = Agreement::default();
            agreement.push(&peers.output(kind)?, expected)?;
            let name = format!("CTranslate2 {kind}");
            rows.push(Row { name, encoder: Vec::new(), attention: Vec::new(), agreement });
            kinds.push(kind.to_owned());
        }
    }
    let settle = || thread::sleep(if threads > 1 { SETTLE } else { Duration::ZERO });
    for _ in 0..rounds {
        let (ours, theirs) = rows.split_at_mut(contestants.len());
        for (Contestant { attention, is_balanced, .. }, row) in contestants.iter_mut().zip(ours) {
            let model = if *is_balanced { &models.integer } else { &models.float };
            let mut timed = Timed::new(attention.as_mut());
            settle();
            let start = Instant::now();
            model.model.encode(&mel, &mut timed)?;
            row.encoder.push(start.elapsed());
            row.attention.push(timed.times().iter().sum());
        }
        if let Some(peers) = &mut peers {
            for (kind, row) in kinds.iter().zip(theirs) {
                settle();
                row.encoder.push(peers.encode(kind)?);
            }
        }
    }
    Ok(table(&rows, threads, rounds))
}

fn table(rows: &[Row], threads: u16, rounds: u32) -> String {
    let mut text = format!("{threads} threads, medians of {rounds} interleaved rounds\n\n");
    text += "| attention | encoder | relative | attention | relative | rest | relative L2 | cosine |\n|---|---|---|---|---|---|---|---|\n";
    let first = &rows[0];
    // Of the same round: a machine that is busier for a while counts for both.
    let ratio = |times: &[Duration], first: &[Duration]| {
        let mut ratios: Vec<_> = times.iter().zip(first).map(|(a, b)| a.as_secs_f64() / b.as_secs_f64()).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    };
    for row in rows {
        let milliseconds = |times: &[Duration]| format!("{:.0} ms", 1e3 * median(times.to_vec()).as_secs_f64());
        let _ = write!(
            text,
            "| {} | {} | {:.3} |",
            row.name,
            milliseconds(&row.encoder),
            ratio(&row.encoder, &first.encoder)
        );
        if row.attention.is_empty() {
            text += " | | |";
        } else {
            let rest: Vec<_> =
                row.encoder.iter().zip(&row.attention).map(|(all, part)| all.saturating_sub(*part)).collect();
            let relative = ratio(&row.attention, &first.attention);
            let _ = write!(text, " {} | {relative:.3} | {} |", milliseconds(&row.attention), milliseconds(&rest));
        }
        let _ = writeln!(text, " {:.4} | {:.6} |", row.agreement.relative_l2(), row.agreement.cosine());
    }
    text
}
