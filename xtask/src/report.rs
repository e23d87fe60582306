//! The page of `attn validate --report` as a browser shows it: what it says, how it looks, on paper too, and that it needs nothing
//! but itself.

use std::{
    fs,
    io::Cursor,
    path::{Path, PathBuf},
};

use png::{BitDepth, ColorType, Encoder};
use serde_json::Value;

use crate::{browser::Browser, folders::remove, packages, run::Run};

/// Debian's packages, and a file of each.
const PACKAGES: [(&str, &str); 3] = [
    ("chromium", "/usr/bin/chromium"),
    ("fonts-dejavu-core", "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"),
    ("poppler-utils", "/usr/bin/pdftotext"),
];

/// Three heads, of which one fails.
const HEADS: &str = "tests/report/heads.npz";

/// Where the pictures are that a page should look like, a quarter as large.
const PICTURES: &str = "tests/report";
const SCALE: usize = 4;

/// A picture's name, the width of the window, and whether the system is dark.
type Look = (&'static str, u32, bool);
const LOOKS: [Look; 3] = [("light", 1280, false), ("dark", 1280, true), ("narrow", 360, false)];

/// Pictures are compared by the means of squares of so many pixels a side (of pictures a quarter as large), which another version of
/// the browser or another hinting of letters does not change much.
const SQUARE: usize = 8;
/// So much may they differ on average, and the square that differs most, of 255. Measured: 0.03 and 0.2 with one browser, with hinting
/// of letters or without; of what is broken, the least that is seen has 1.3 and 71.
const MEAN: f64 = 1.5;
const LARGEST: f64 = 24.0;
/// So much may heights differ, in parts of 100.
const HEIGHT: usize = 3;

/// Most pages of A4 that they take.
const HEADS_PAGES: usize = 4;
const SUITE_PAGES: usize = 20;

/// Where pages and pictures of this run are.
fn folder(run: &Run) -> PathBuf {
    run.root.join("target/report")
}

/// The check `report`.
pub(crate) fn check(run: &mut Run) -> Result<(), String> {
    let Some(mut browser) = prepare(run)? else { return Ok(()) };
    let folder = folder(run);
    let path = |name: &str| folder.join(name);
    // What it says, without scripts.
    let heads = pages(run, "heads", &["--input", HEADS], false)?;
    says(&mut browser, &path("heads.html"), &heads, "✗ FAIL")?;
    on_paper(run, &mut browser, "heads", HEADS_PAGES, &["FAIL: 1 of 1 case", "head 2: within_1: got", "Environment"])?;
    let suite = pages(run, "suite", &[], true)?;
    says(&mut browser, &path("suite.html"), &suite, "✓ PASS")?;
    on_paper(run, &mut browser, "suite", SUITE_PAGES, &["PASS: ", "whisper tiles", "Environment"])?;
    // How it looks.
    let page = read(&path("heads.html"))?;
    for look @ (name, ..) in LOOKS {
        let expected =
            picture(&fs::read(run.root.join(PICTURES).join(format!("{name}.png"))).map_err(|e| failed(name, &e))?)?;
        let got = looks(run, &mut browser, &page, look, name)?;
        let difference = expected.compare(&got);
        println!("{name}: {difference}");
        if !difference.is_small() {
            let beside = path(&format!("{name}-difference.png"));
            expected.difference(&got).write(&beside)?;
            let got = path(&format!("{name}.png"));
            return Err(format!(
                "a report looks different in {name}: {difference}; see {} and {}; if that is meant, `cargo xtask pictures`",
                got.display(),
                beside.display(),
            ));
        }
        // The same measure sees what is broken.
        for (what, from, to, seen_in) in BROKEN {
            let broken = page.replace(from, to);
            if broken == page {
                return Err(format!("there is no {from} in a report any more"));
            }
            if !seen_in.contains(&name) {
                continue;
            }
            let difference = expected.compare(&looks(run, &mut browser, &broken, look, "broken")?);
            println!("{name}, {what}: {difference}");
            if difference.is_small() {
                return Err(format!("{what} is not seen in {name}: {difference}"));
            }
        }
    }
    // Nothing is asked of anybody, whatever was opened.
    if let Some(url) = browser.requests.iter().find(|url| !url.starts_with("data:image/png;base64,")) {
        return Err(format!("a report asks for {url}"));
    }
    println!("{} requests, all for pictures within the page", browser.requests.len());
    Ok(())
}

/// What may not go unnoticed: what it is, what is replaced in the page and by what, and in which pictures it is seen.
const BROKEN: [(&str, &str, &str, &[&str]); 5] = [
    ("without its pictures", "data:image/png;base64,", "data:image/png;base64,AAAA", &["light", "dark", "narrow"]),
    ("without its histograms", "class=\"bars\" d=", "class=\"bars\" data-d=", &["light", "dark", "narrow"]),
    ("in the wrong scheme", "prefers-color-scheme: dark", "prefers-color-scheme: no-preference", &["dark"]),
    ("with tables that do not scroll", "overflow-x: auto", "overflow-x: visible", &["narrow"]),
    ("without a style", "<style>", "<style media=\"none\">", &["light", "dark", "narrow"]),
];

/// `cargo xtask pictures`: takes the pictures that a report should look like.
pub(crate) fn write(run: &mut Run) -> Result<(), String> {
    let mut browser = prepare(run)?.ok_or("there is no browser to take them: see above")?;
    pages(run, "heads", &["--input", HEADS], false)?;
    let page = read(&folder(run).join("heads.html"))?;
    for look @ (name, ..) in LOOKS {
        looks(run, &mut browser, &page, look, name)?.write(&run.root.join(PICTURES).join(format!("{name}.png")))?;
    }
    Ok(())
}

/// A browser; none, and listed as skipped, where there is none to be had.
fn prepare(run: &mut Run) -> Result<Option<Browser>, String> {
    let missing: Vec<_> =
        PACKAGES.iter().filter(|(_, file)| !Path::new(file).exists()).map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        let missing = missing.join(" ");
        if !packages::install(run, &missing) {
            run.skip(
                "reports in a browser",
                &format!("`apt-get install {missing}` failed (it needs Debian, and root)"),
            );
            return Ok(None);
        }
    }
    let folder = folder(run);
    let profile = folder.join("profile");
    remove(&profile)?;
    fs::create_dir_all(&profile).map_err(|error| failed("profile", &error))?;
    run.cargo(&["build", "--release", "--package", "attn", "--bin", "attn"])?;
    Browser::start(&profile).map(Some)
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> String {
    format!("{what}: {error}")
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| failed(&path.display().to_string(), &error))
}

/// Writes a report, and gives the same as JSON.
fn pages(run: &mut Run, name: &str, arguments: &[&str], passes: bool) -> Result<Value, String> {
    let page = folder(run).join(format!("{name}.html")).display().to_string();
    let attn = run.target().join("release/attn").display().to_string();
    let mut command = run.command(&attn, &["validate", "--json", "--report", &page]);
    let output = command.args(arguments).output().map_err(|error| failed(&attn, &error))?;
    if output.status.success() != passes {
        return Err(format!("attn validate: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed("attn validate --json", &error))
}

/// What the browser made of a page: its verdict, and every figure of the JSON, in the order of the page's tables.
fn says(browser: &mut Browser, page: &Path, report: &Value, verdict: &str) -> Result<(), String> {
    browser.look(1280, false)?;
    browser.open(page)?;
    let dom = browser.dom()?;
    let name = page.display();
    if !dom.contains(&format!("<strong class=\"badge\">{verdict}</strong>")) {
        return Err(format!("{name} does not say {verdict}"));
    }
    let cases = report["cases"].as_array().ok_or("the JSON has no cases")?;
    let mut figures = 0;
    for (c, case) in cases.iter().enumerate() {
        let heads = case["per_head"].as_array().filter(|heads| heads.len() > 1);
        let heads = heads
            .into_iter()
            .flatten()
            .enumerate()
            .map(|(h, head)| (format!("data-case=\"{c}\" data-head=\"{h}\">"), head));
        for (row, head) in [(format!("data-case=\"{c}\">"), &case["overall"])].into_iter().chain(heads) {
            let row = dom.split_once(&row).and_then(|(_, row)| row.split_once("</tr>"));
            let (row, _) = row.ok_or_else(|| format!("{name} has no row of case {c}"))?;
            for figure in
                ["correlation", "correlation_loss", "mae", "rmse", "equal", "within_1", "within_5", "max_error"]
            {
                let value = row
                    .split_once(&format!("<data class=\"{figure}\" value=\""))
                    .and_then(|(_, x)| x.split('"').next());
                let got = value.and_then(|value| value.parse::<f64>().ok());
                // Both are written in full, but JSON is read to the last bits.
                if !got
                    .zip(head[figure].as_f64())
                    .map_or(got.is_none() && head[figure].is_null(), |(a, b)| (a - b).abs() <= a.abs() * 1e-15)
                {
                    return Err(format!("{name}: {figure} of case {c}: got {got:?}, expected {}", head[figure]));
                }
                figures += 1;
            }
        }
    }
    println!("{name}: {figures} figures are those of the JSON");
    // Nothing is wider than the narrowest window.
    for (look, width, is_dark) in LOOKS {
        browser.look(width, is_dark)?;
        let (got, height) = browser.size()?;
        println!("{name}: {got} x {height} in {look}");
        if got > width {
            return Err(format!("{name} is {got} wide in a window of {width}"));
        }
    }
    Ok(())
}

/// A page as it is printed, where the system is dark: so many pages at most, light, with these texts.
fn on_paper(run: &mut Run, browser: &mut Browser, name: &str, most: usize, texts: &[&str]) -> Result<(), String> {
    browser.look(1280, true)?;
    let folder = folder(run);
    let pdf = folder.join(format!("{name}.pdf")).display().to_string();
    fs::write(&pdf, browser.print()?).map_err(|error| failed(&pdf, &error))?;
    let said = |program: &str, arguments: &[&str]| {
        let output = run.command(program, arguments).output().map_err(|error| failed(program, &error))?;
        if output.status.success() { Ok(output.stdout) } else { Err(format!("{program} {pdf}: {}", output.status)) }
    };
    let text = String::from_utf8_lossy(&said("pdftotext", &["-layout", &pdf, "-"])?)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let pages = String::from_utf8_lossy(&said("pdfinfo", &[&pdf])?)
        .lines()
        .find_map(|line| line.strip_prefix("Pages:")?.trim().parse::<usize>().ok())
        .ok_or_else(|| format!("pdfinfo does not say how many pages {pdf} has"))?;
    println!("{pdf}: {pages} pages");
    if pages > most {
        return Err(format!("{pdf} has {pages} pages, expected at most {most}"));
    }
    if let Some(missing) = texts.iter().find(|part| !text.contains(**part)) {
        return Err(format!("{pdf} does not say `{missing}`"));
    }
    let first = folder.join(format!("{name}-page")).display().to_string();
    said("pdftoppm", &["-r", "30", "-f", "1", "-l", "1", "-singlefile", "-png", &pdf, &first])?;
    let paper = picture(&fs::read(format!("{first}.png")).map_err(|error| failed(&first, &error))?)?;
    let mean = paper.pixels.iter().flatten().sum::<f64>() / (paper.pixels.len() * 3) as f64;
    if mean < 200.0 { Err(format!("{pdf} is dark: {mean:.0} of 255 on average")) } else { Ok(()) }
}

/// A picture of a page, a quarter as large: without the environment, which is another one elsewhere, and in letters that Debian has.
fn looks(
    run: &Run,
    browser: &mut Browser,
    page: &str,
    (_, width, is_dark): Look,
    name: &str,
) -> Result<Picture, String> {
    let (before, environment) = page.split_once("<section id=\"environment\">").ok_or("a report has no environment")?;
    let (_, after) = environment.split_once("</section>").ok_or("a report has no end of its environment")?;
    let page = [before, after].concat().replace("system-ui, ", "");
    let path = folder(run).join("looks.html");
    fs::write(&path, page).map_err(|error| failed("looks.html", &error))?;
    browser.look(width, is_dark)?;
    browser.open(&path)?;
    let png = browser.screenshot()?;
    let path = folder(run).join(format!("{name}.png"));
    fs::write(&path, &png).map_err(|error| failed(name, &error))?;
    Ok(picture(&png)?.shrunk(SCALE))
}

/// Red, green and blue, `0..=255`.
#[derive(Clone)]
struct Picture {
    width: usize,
    pixels: Vec<[f64; 3]>,
}

/// How far two pictures are from each other.
struct Difference {
    mean: f64,
    largest: f64,
    /// In parts of 100.
    height: usize,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { mean, largest, height } = self;
        write!(
            f,
            "{mean:.2} on average (at most {MEAN}), {largest:.1} in the worst square (at most {LARGEST}), {height} % of height (at most \
             {HEIGHT} %)"
        )
    }
}

impl Difference {
    fn is_small(&self) -> bool {
        self.mean <= MEAN && self.largest <= LARGEST && self.height <= HEIGHT
    }
}

fn picture(png: &[u8]) -> Result<Picture, String> {
    let mut decoder = png::Decoder::new(Cursor::new(png));
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(|error| failed("PNG", &error))?;
    let mut bytes = vec![0; reader.output_buffer_size().ok_or("PNG: too large")?];
    let info = reader.next_frame(&mut bytes).map_err(|error| failed("PNG", &error))?;
    let channels = info.color_type.samples();
    let pixel =
        |bytes: &[u8]| if channels < 3 { [f64::from(bytes[0]); 3] } else { [0, 1, 2].map(|c| f64::from(bytes[c])) };
    let pixels = bytes[..info.buffer_size()].chunks_exact(channels).map(pixel).collect();
    Ok(Picture { width: info.width as usize, pixels })
}

impl Picture {
    fn height(&self) -> usize {
        self.pixels.len() / self.width
    }

    /// The means of squares of so many pixels a side; what is left over at the right and at the bottom is cut off.
    fn shrunk(&self, side: usize) -> Self {
        let (width, height) = ((self.width / side).max(1), (self.height() / side).max(1));
        let mean = |row: usize, column: usize| {
            let rows = (row * side..(row + 1) * side).take_while(|&row| row < self.height());
            let pixels = rows.flat_map(|row| &self.pixels[row * self.width + column * side..][..side.min(self.width)]);
            let (sum, count) =
                pixels.fold(([0.0; 3], 0.0), |(sum, count), pixel| ([0, 1, 2].map(|c| sum[c] + pixel[c]), count + 1.0));
            sum.map(|sum| sum / count)
        };
        let pixels = (0..width * height).map(|i| mean(i / width, i % width)).collect();
        Self { width, pixels }
    }

    /// Where both have pixels, they are put above each other.
    fn compare(&self, other: &Self) -> Difference {
        let [a, b] = [self, other].map(|picture| picture.shrunk(SQUARE));
        let difference = a.difference(&b);
        let squares: Vec<f64> = difference.pixels.iter().map(|pixel| pixel.iter().sum::<f64>() / 3.0).collect();
        let mean = squares.iter().sum::<f64>() / squares.len() as f64;
        let largest = squares.into_iter().fold(if self.width == other.width { 0.0 } else { 255.0 }, f64::max);
        let height = self.height().abs_diff(other.height()) * 100 / self.height();
        Difference { mean, largest, height }
    }

    /// Of what both have.
    fn difference(&self, other: &Self) -> Self {
        let width = self.width.min(other.width);
        let rows = self.pixels.chunks_exact(self.width).zip(other.pixels.chunks_exact(other.width));
        let pixels =
            rows.flat_map(|(a, b)| a.iter().zip(b).take(width).map(|(a, b)| [0, 1, 2].map(|c| f64::abs(a[c] - b[c]))));
        Self { width, pixels: pixels.collect() }
    }

    fn write(&self, path: &Path) -> Result<(), String> {
        let file = fs::File::create(path).map_err(|error| failed(&path.display().to_string(), &error))?;
        let mut encoder = Encoder::new(file, self.width as u32, self.height() as u32);
        encoder.set_color(ColorType::Rgb);
        encoder.set_depth(BitDepth::Eight);
        encoder.set_compression(png::Compression::High);
        let bytes: Vec<u8> = self.pixels.iter().flatten().map(|x| x.round() as u8).collect();
        let mut writer = encoder.write_header().map_err(|error| failed("PNG", &error))?;
        writer.write_image_data(&bytes).map_err(|error| failed("PNG", &error))?;
        writer.finish().map_err(|error| failed("PNG", &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(width: usize, height: usize, value: f64) -> Picture {
        Picture { width, pixels: vec![[value; 3]; width * height] }
    }

    #[test]
    fn small_differences_are_small() {
        let one = grey(320, 200, 200.0);
        assert!(one.compare(&one).is_small());
        let mut letters = one.clone();
        letters.pixels.iter_mut().step_by(7).for_each(|pixel| *pixel = [195.0; 3]);
        assert!(one.compare(&letters).is_small());
        let mut missing = one.clone();
        for row in 50..100 {
            missing.pixels[row * 320 + 40..][..50].fill([255.0; 3]);
        }
        assert!(!one.compare(&missing).is_small());
        assert!(!one.compare(&grey(320, 200, 198.0)).is_small());
        assert!(!one.compare(&grey(320, 220, 200.0)).is_small());
        assert!(!one.compare(&grey(328, 200, 200.0)).is_small());
    }

    #[test]
    fn a_square_is_the_mean_of_its_pixels() {
        let picture = Picture { width: 3, pixels: (0..9).map(|i| [f64::from(i), 0.0, 9.0]).collect() };
        assert_eq!(picture.shrunk(2).pixels, [[2.0, 0.0, 9.0]]);
        assert_eq!((picture.shrunk(4).pixels.len(), picture.shrunk(1).pixels), (1, picture.pixels));
    }
}
