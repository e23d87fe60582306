//! A picture of every layer of the encoder: what attention it pays in floats and in integers, and where their outputs differ.
//!
//! An SVG with three heat maps, of the frames with sound: the weights of one head in floats and in integers, with one scale of
//! colours, and how far the output of every head is off, frame by frame. The frames of the padding behind the sound are not
//! drawn, but computed with: what weight is on them the caption says.

use std::{
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

use attn::file;
use attn_ref::torch::Method;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use plotters::{
    coord::Shift,
    prelude::{
        BLACK, ChartBuilder, ColorMap, DrawingArea, DrawingAreaErrorKind, IntoDrawingArea, SVGBackend, Text,
        ViridisRGB, WHITE,
    },
};
use png::{BitDepth, ColorType, Compression, Encoder, Filter};
use tch::{Kind, Tensor};

use crate::{
    attention::{Attention, Integer, ScaleRule, Site, Stage, Torch},
    error::{Error, of_file},
};

/// Of one frame of the encoder.
const FRAME_SECONDS: f64 = 0.02;
/// Width and height of a picture.
const SIZE: (u32, u32) = (1660, 620);
/// Width and height of a heat map.
const MAP: (u32, u32) = (400, 400);
/// Width of the bitmap of a legend.
const LEGEND: u32 = 16;
/// The weights between which colours differ, as powers of ten.
const DECADES: Range<f32> = -5.0..0.0;
/// Colours of a heat map: with 255 of them a picture of 25 seconds takes up to 415 kB, with these 317 kB.
const COLOURS: u8 = 64;
/// Size of letters.
const LETTERS: u32 = 16;

/// Draws `layer-0.svg` and so on, a file for every layer, and gives their paths. The folder is made where it is missing.
///
/// `layers`: query, key and value, `[heads, frames, dim]`. `integer`: its output is compared with that of floats by its own rule of
/// scales; its weights are always read with dynamic scales and an output in floats, for in int8 most of them are zero.
/// `seconds`: how long the recording is; no frames after that are drawn.
///
/// # Errors
/// What attention says, for example that the backend has no output in floats; a file that cannot be written.
pub fn draw(layers: &[[Tensor; 3]], integer: &mut Integer, folder: &Path, seconds: f64) -> Result<Vec<PathBuf>, Error> {
    fs::create_dir_all(folder).map_err(of_file(folder))?;
    let write = |(layer, tensors)| {
        let path = folder.join(format!("layer-{layer}.svg"));
        let svg = Picture::new(layer, tensors, integer, seconds)?.svg();
        let svg = svg.map_err(of_file(&path))?;
        file::replace(&path, svg.as_bytes()).map_err(of_file(&path))?;
        Ok(path)
    };
    layers.iter().enumerate().map(write).collect()
}

/// What is drawn of a layer.
struct Picture {
    title: String,
    subtitle: String,
    captions: [String; 3],
    head: usize,
    /// `[queries, keys]`, with sound.
    weights: [Map; 2],
    /// `[heads, frames]`, with sound.
    errors: Map,
    seconds: f64,
}

impl Picture {
    fn new(
        layer: usize,
        [query, key, value]: &[Tensor; 3],
        integer: &mut Integer,
        seconds: f64,
    ) -> Result<Self, Error> {
        let site = Site { stage: Stage::Encoder, layer };
        let expected = Torch(Method::Plain).attend(site, query, key, value)?;
        let step = expected.f_abs()?.f_amax([1, 2], true)?.f_clamp_min(f64::from(f32::MIN_POSITIVE))?;
        let errors = integer.attend(site, query, key, value)?.f_sub(&expected)?.f_abs()?.f_div(&step)?;
        let errors = errors.f_mul_scalar(127.0)?;
        let (_, all, dim) = query.size3()?;
        let frames = ((seconds / FRAME_SECONDS).ceil() as i64).clamp(1, all);
        let sound = errors.f_narrow(1, 0, frames)?;
        let means = sound.f_mean_dim([1, 2].as_slice(), false, Kind::Float)?;
        let head = means.f_argmax(0, false)?.f_int64_value(&[])?;
        let mean = means.f_double_value(&[head])?;
        let largest = sound.f_select(0, head)?.f_max()?.f_double_value(&[])?;
        let [all_mean, all_largest] = [errors.f_mean(Kind::Float)?, errors.f_max()?];
        let (all_mean, all_largest) = (all_mean.f_double_value(&[])?, all_largest.f_double_value(&[])?);

        let [query, key] = [query, key].map(|tensor| tensor.f_narrow(0, head, 1));
        let (query, key) = (query?, key?);
        let weights = [float_weights(&query, &key)?, integer_weights(integer, site, &query, &key)?];
        let [float, whole] = weights.map(|weights| weights.f_narrow(0, 0, frames)?.f_narrow(1, 0, frames));
        let weights = [float?, whole?];
        let padding = weights.each_ref().map(|weights| weights.f_sum(Kind::Double)?.f_double_value(&[]));
        let [float_padding, integer_padding] =
            padding.map(|sum| sum.map(|sum| (1.0 - sum / frames as f64).max(0.0) * 100.0));
        let [weights, integer_weights] = weights.each_ref().map(Map::of);
        let pooled = frames as f64 / f64::from(MAP.0);
        let [of_weights, of_errors] = if pooled > 1.0 {
            [format!("{pooled:.1} × {pooled:.1} weights"), format!("{pooled:.1} frames")]
                .map(|pooled| format!("; a pixel is the largest of {pooled}"))
        } else {
            Default::default()
        };
        Ok(Self {
            title: format!(
                "Encoder layer {layer}, head {head}: mean error {mean:.3} LSB, max. {largest:.2} LSB, in the frames with sound"
            ),
            subtitle: format!(
                "{}; all heads and frames: mean {all_mean:.3} LSB, max. {all_largest:.2} LSB",
                integer.label()
            ),
            captions: [
                format!(
                    "Weights: of the head with the largest mean error; the integers' own, read with one-hot values and dynamic \
                     scales{of_weights}."
                ),
                format!(
                    "Drawn are the {frames} frames with sound. The other {} are padding, computed with but cut off: {:.1} % of \
                     these queries' weight is there in float32, {:.1} % in integers.",
                    all - frames,
                    float_padding?,
                    integer_padding?
                ),
                format!(
                    "Errors: of {dim} elements; 1 LSB is the largest magnitude of the head's float output / 127{of_errors}."
                ),
            ],
            head: head as usize,
            weights: [weights?, integer_weights?],
            errors: Map::of(&sound.f_mean_dim([2].as_slice(), false, Kind::Float)?)?,
            seconds: frames as f64 * FRAME_SECONDS,
        })
    }

    fn svg(&self) -> Result<String, DrawingAreaErrorKind<io::Error>> {
        let mut svg = String::new();
        let mut bitmaps = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            root.fill(&WHITE)?;
            let text =
                |text: &str, y: i32, size: u32| root.draw(&Text::new(text.to_owned(), (16, y), ("sans-serif", size)));
            text(&self.title, 12, 24)?;
            text(&self.subtitle, 42, LETTERS)?;
            for (line, caption) in self.captions.iter().enumerate() {
                text(caption, 554 + 20 * line as i32, LETTERS)?;
            }

            let time = 0.0..self.seconds;
            let down = self.seconds..0.0;
            let number = |number: &f64| format!("{number}");
            let share = |weight: f32| (weight.log10() - DECADES.start) / (DECADES.end - DECADES.start);
            for (x, weights, name) in [(10, &self.weights[0], "float32"), (500, &self.weights[1], "integers")] {
                let panel = Panel {
                    title: format!("Weights of head {}, {name}", self.head),
                    x: Some(("key [s]", time.clone())),
                    y: ("query [s]", down.clone()),
                    y_labels: 8,
                    y_label: &number,
                    size: MAP,
                    pixels: weights.pixels(MAP, share),
                };
                bitmaps += &panel.draw(&root, x)?;
            }
            let power = |power: &f64| {
                let sign = if *power as f32 <= DECADES.start { "≤ " } else { "" };
                format!("{sign}1e{power:.0}")
            };
            bitmaps += &Panel::legend("weight", DECADES, &power).draw(&root, 976)?;

            let heads = self.errors.rows;
            // The labels of the legend have two decimals.
            let largest = self.errors.values.iter().copied().fold(0.01, f32::max);
            let errors = Panel {
                title: "Mean error of every head and frame".to_owned(),
                x: Some(("frame [s]", time)),
                y: ("head", heads as f64 - 0.5..-0.5),
                y_labels: heads,
                y_label: &number,
                size: MAP,
                pixels: self.errors.pixels(MAP, |error| error / largest),
            };
            bitmaps += &errors.draw(&root, 1086)?;
            let lsb = |lsb: &f64| format!("{lsb:.2}");
            bitmaps += &Panel::legend("LSB", 0.0..largest, &lsb).draw(&root, 1564)?;
            root.present()?;
        }
        // Not by plotters, whose bitmaps take several times as many bytes: three a pixel, hardly compressed.
        let end = svg.rfind("</svg>").unwrap_or(svg.len());
        svg.insert_str(end, &bitmaps);
        Ok(svg)
    }
}

/// A bitmap with axes.
struct Panel<'a> {
    title: String,
    /// What the axis is of, from left to right; a legend has none.
    x: Option<(&'static str, Range<f64>)>,
    /// The same from below to above.
    y: (&'static str, Range<f64>),
    y_labels: usize,
    y_label: &'a dyn Fn(&f64) -> String,
    size: (u32, u32),
    /// As numbers of colours.
    pixels: Vec<u8>,
}

impl<'a> Panel<'a> {
    /// All colours, the first one below.
    fn legend(name: &'static str, range: Range<f32>, label: &'a dyn Fn(&f64) -> String) -> Self {
        let rows = (0..MAP.1).rev().map(|row| colour(row as f32 / (MAP.1 - 1) as f32));
        Self {
            title: String::new(),
            x: None,
            y: (name, range.start.into()..range.end.into()),
            y_labels: 6,
            y_label: label,
            size: (LEGEND, MAP.1),
            pixels: rows.flat_map(|colour| [colour; LEGEND as usize]).collect(),
        }
    }

    /// Draws it at this place from the left, all but the bitmap, which is returned as an element of the SVG.
    fn draw(
        self,
        root: &DrawingArea<SVGBackend<'_>, Shift>,
        left: i32,
    ) -> Result<String, DrawingAreaErrorKind<io::Error>> {
        const TOP: i32 = 64;
        const TITLE: u32 = 36;
        const LABELS: (u32, u32) = (64, 44);
        const TICK: i32 = 6;
        let (width, height) = self.size;
        let area = root.clone().shrink((left, TOP), (width + LABELS.0, height + TITLE + LABELS.1));
        area.draw(&Text::new(self.title, (LABELS.0 as i32, 14), ("sans-serif", 18)))?;
        let mut chart = ChartBuilder::on(&area);
        chart.margin_top(TITLE).y_label_area_size(LABELS.0).x_label_area_size(LABELS.1);
        let x_labels = if self.x.is_some() { 8 } else { 0 };
        let (x_name, x) = self.x.unwrap_or(("", 0.0..1.0));
        let mut chart = chart.build_cartesian_2d(x, self.y.1)?;
        let x_label = |x: &f64| format!("{x}");
        let font = ("sans-serif", LETTERS);
        let mut mesh = chart.configure_mesh();
        mesh.disable_mesh().axis_style(BLACK).label_style(font).axis_desc_style(font).set_all_tick_mark_size(TICK);
        mesh.x_labels(x_labels).x_label_formatter(&x_label).x_desc(x_name);
        mesh.y_labels(self.y_labels).y_label_formatter(self.y_label).y_desc(self.y.0);
        mesh.draw()?;
        let (x, y) = chart.plotting_area().get_pixel_range();
        let data = BASE64_STANDARD.encode(png(self.size, &self.pixels));
        Ok(format!(
            "<image x=\"{}\" y=\"{}\" width=\"{width}\" height=\"{height}\" href=\"data:image/png;base64,{data}\"/>\n",
            x.start, y.start
        ))
    }
}

/// A matrix.
struct Map {
    rows: usize,
    columns: usize,
    values: Vec<f32>,
}

impl Map {
    fn of(tensor: &Tensor) -> Result<Self, Error> {
        let (rows, columns) = tensor.size2()?;
        let values = Vec::try_from(tensor.f_reshape([-1])?)?;
        Ok(Self { rows: rows as usize, columns: columns as usize, values })
    }

    /// Each pixel the colour of the largest of the numbers that it covers, by the share of the scale that they are at.
    fn pixels(&self, (width, height): (u32, u32), share: impl Fn(f32) -> f32) -> Vec<u8> {
        let span = |pixel: u32, pixels: u32, cells: usize| {
            let [start, end] = [pixel, pixel + 1].map(|edge| edge as usize * cells / pixels as usize);
            start..end.max(start + 1)
        };
        let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (y, x)));
        let largest = pixels.map(|(y, x)| {
            let rows = span(y, height, self.rows).map(|row| &self.values[row * self.columns..][..self.columns]);
            let columns = span(x, width, self.columns);
            rows.flat_map(|row| &row[columns.clone()]).copied().fold(f32::NEG_INFINITY, f32::max)
        });
        largest.map(|largest| colour(share(largest))).collect()
    }
}

/// The number of the colour of a share; those beyond 0 and 1 are theirs.
fn colour(share: f32) -> u8 {
    (share.clamp(0.0, 1.0) * f32::from(COLOURS - 1)).round() as u8
}

/// The file of a bitmap of numbers of colours.
fn png((width, height): (u32, u32), pixels: &[u8]) -> Vec<u8> {
    let palette = (0..COLOURS).flat_map(|colour| {
        let colour = ViridisRGB.get_color(f32::from(colour) / f32::from(COLOURS - 1));
        [colour.0, colour.1, colour.2]
    });
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, width, height);
    encoder.set_color(ColorType::Indexed);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_palette(palette.collect::<Vec<_>>());
    encoder.set_compression(Compression::High);
    // After the compression, which sets one.
    encoder.set_filter(Filter::NoFilter);
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(pixels));
    written.expect("memory takes as many pixels as the bitmap has");
    file
}

/// `[m, n]` of a head, `[1, m, d]` and `[1, n, d]`.
fn float_weights(query: &Tensor, key: &Tensor) -> Result<Tensor, Error> {
    let scale = 1.0 / (query.size()[2] as f64).sqrt();
    let scores = query.f_matmul(&key.f_transpose(1, 2)?)?.f_mul_scalar(scale)?;
    Ok(scores.f_softmax(-1, None)?.f_squeeze_dim(0)?)
}

/// The same of integers, which give outputs only: with values that are one at one key and zero at the others the output is the
/// weight of that key. An element of the output each: as many keys at a time as a head is wide.
fn integer_weights(integer: &mut Integer, site: Site, query: &Tensor, key: &Tensor) -> Result<Tensor, Error> {
    let (_, m, d) = query.size3()?;
    let n = key.size()[1];
    let blocks = (n + d - 1) / d;
    let one_hot = Tensor::f_eye(blocks * d, (Kind::Float, query.device()))?.f_narrow(0, 0, n)?;
    let values = one_hot.f_reshape([n, blocks, d])?.f_transpose(0, 1)?;
    let [query, key] = [query, key].map(|tensor| tensor.f_expand([blocks, -1, -1], false));
    let out = integer.attend_by(ScaleRule::Dynamic, site, &query?, &key?, &values)?;
    Ok(out.f_transpose(0, 1)?.f_reshape([m, blocks * d])?.f_narrow(1, 0, n)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use attn::backend::{BackendKind, Options};
    use png::Decoder;
    use tch::Device;

    use super::*;

    const SITE: Site = Site { stage: Stage::Encoder, layer: 0 };

    fn integer(rule: ScaleRule) -> Integer {
        Integer::new(BackendKind::Scalar, &Options::default(), rule).expect("always there")
    }

    /// Query, key and value of two heads, 70 frames and 8 dimensions; the values of the second head are 100 times as large.
    fn layer() -> [Tensor; 3] {
        let tensor = |step: f64| {
            let angles = Tensor::arange(2 * 70 * 8, (Kind::Float, Device::Cpu)) * step;
            (angles.sin() * 2.0).reshape([2, 70, 8])
        };
        let louder = Tensor::from_slice(&[1.0_f32, 100.0]).reshape([2, 1, 1]);
        [tensor(1.7), tensor(2.3), tensor(3.1) * louder]
    }

    fn floats(tensor: &Tensor) -> Vec<f32> {
        tensor.reshape([-1]).try_into().expect("floats")
    }

    /// The elements of an SVG, in order, each with its attributes as they stand.
    fn elements(svg: &str) -> Vec<(&str, &str)> {
        let (mut open, mut elements) = (Vec::new(), Vec::new());
        for tag in svg.split('<').skip(1) {
            let (tag, text) = tag.split_once('>').expect("a tag ends");
            assert!(!text.contains('>') && tag.matches('"').count() % 2 == 0, "{tag}");
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
                continue;
            }
            let (name, attributes) = tag.split_once(' ').expect("attributes");
            elements.push((name, attributes));
            if !tag.ends_with('/') {
                open.push(name);
            }
            assert!(!open.is_empty(), "one root");
        }
        assert!(open.is_empty(), "{open:?}");
        elements
    }

    fn attribute<'a>(attributes: &'a str, name: &str) -> &'a str {
        let (_, value) = attributes.split_once(&format!("{name}=\"")).expect(name);
        value.split_once('"').expect("quoted").0
    }

    #[test]
    fn a_picture_is_an_svg_with_five_bitmaps() {
        let parent = tempfile::tempdir().expect("writable");
        let folder = parent.path().join("a").join("b");
        let layers = [layer(), layer()];
        let paths = draw(&layers, &mut integer(ScaleRule::DynamicInt8), &folder, 1.0).expect("draws");
        assert_eq!(paths, ["layer-0.svg", "layer-1.svg"].map(|name| folder.join(name)));
        assert_eq!(fs::read_dir(&folder).expect("there").count(), 2);
        let svg = fs::read_to_string(&paths[1]).expect("text");
        for expected in [
            "Encoder layer 1, head ",
            "scalar, dynamic scales, int8 out; all heads and frames: ",
            "the 50 frames with sound. The other 20 are padding",
        ] {
            assert!(svg.contains(expected), "{expected}");
        }
        let elements = elements(&svg);
        assert_eq!(elements[0].0, "svg");
        let mut colours = Vec::new();
        for (_, image) in elements.into_iter().filter(|(name, _)| *name == "image") {
            let data = attribute(image, "href").strip_prefix("data:image/png;base64,").expect("a PNG");
            let data = BASE64_STANDARD.decode(data).expect("base64");
            let mut reader = Decoder::new(io::Cursor::new(data)).read_info().expect("a PNG");
            let mut pixels = vec![0; reader.output_buffer_size().expect("it fits")];
            let info = reader.next_frame(&mut pixels).expect("complete");
            assert_eq!(attribute(image, "width"), info.width.to_string());
            assert_eq!(attribute(image, "height"), info.height.to_string());
            colours.push((info.width, BTreeSet::from_iter(pixels).len()));
        }
        let [(400, float), (400, whole), (16, 64), (400, errors), (16, 64)] = colours[..] else {
            panic!("{colours:?}");
        };
        assert!(float > 20 && whole > 20 && errors > 20, "{colours:?}");
    }

    #[test]
    fn frames_are_those_of_the_recording() {
        for (seconds, frames) in [(0.0, 1), (0.02, 1), (0.021, 2), (1.4, 70), (30.0, 70)] {
            let picture = Picture::new(0, &layer(), &mut integer(ScaleRule::Dynamic), seconds).expect("computes");
            assert_eq!((picture.errors.rows, picture.errors.columns), (2, frames));
            assert!(picture.weights.iter().all(|map| (map.rows, map.columns) == (frames, frames)));
        }
    }

    #[test]
    fn errors_are_in_steps_of_each_head() {
        let [query, key, value] = &layer();
        let mut integer = integer(ScaleRule::Dynamic);
        let picture = Picture::new(0, &layer(), &mut integer, 1.0).expect("computes");
        let got = floats(&integer.attend(SITE, query, key, value).expect("computes"));
        let expected = floats(&Torch(Method::Plain).attend(SITE, query, key, value).expect("computes"));
        let mut means = [0.0; 2];
        for (head, (got, expected)) in got.chunks(560).zip(expected.chunks(560)).enumerate() {
            let step = expected.iter().fold(0.0, |largest: f32, x| largest.max(x.abs())) / 127.0;
            for (frame, (got, expected)) in got.chunks(8).zip(expected.chunks(8)).take(50).enumerate() {
                let error = got.iter().zip(expected).map(|(got, expected)| (got - expected).abs()).sum::<f32>();
                let error = error / 8.0 / step;
                assert!((picture.errors.values[head * 50 + frame] - error).abs() < 1e-4);
                means[head] += error / 50.0;
            }
        }
        let head = usize::from(means[1] > means[0]);
        let start = format!("Encoder layer 0, head {head}: mean error {:.3} LSB", means[head]);
        assert!(picture.title.starts_with(&start), "{start} {}", picture.title);
    }

    #[test]
    fn integers_have_weights() {
        let [query, key, _] = layer().map(|tensor| tensor.narrow(0, 1, 1));
        let query = query * 4.0;
        let mut integer = integer(ScaleRule::DynamicInt8);
        let label = integer.label();
        let got = integer_weights(&mut integer, SITE, &query, &key).expect("computes");
        let expected = float_weights(&query, &key).expect("computes");
        assert_eq!((got.size(), integer.label()), (expected.size(), label));
        let (got, expected) = (floats(&got), floats(&expected));
        let largest = expected.iter().copied().fold(0.0, f32::max);
        assert!(largest > 0.09, "{largest}");
        for (got, expected) in got.iter().zip(&expected) {
            assert!((got - expected).abs() < 0.01, "{got} {expected}");
        }
        for weights in got.chunks(70) {
            assert!((weights.iter().sum::<f32>() - 1.0).abs() < 0.01);
        }
    }

    #[test]
    fn a_pixel_is_the_largest_that_it_covers() {
        let map = Map { rows: 2, columns: 3, values: vec![0.0, 1.0, 0.2, 0.4, -1.0, 2.0] };
        let shares = |size| map.pixels(size, |value| value);
        let top = COLOURS - 1;
        assert_eq!(shares((1, 1)), [top]);
        assert_eq!(shares((3, 1)), [colour(0.4), top, top]);
        assert_eq!(shares((2, 2)), [0, top, colour(0.4), top]);
        let row = [[0; 2], [top; 2], [colour(0.2); 2]].concat();
        assert_eq!(shares((6, 4))[..12], [row.clone(), row].concat());
    }
}
