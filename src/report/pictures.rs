//! What heads look like, gathered while they are judged: small, whatever their size.

use std::cmp::Ordering;

use png::{BitDepth, ColorType, Compression, Encoder};

use crate::suite::{HeadReport, JudgedHead};

/// So many heads of a case have pictures, the worst ones; beyond that only those that fail.
const MOST_HEADS: usize = 32;

/// At most so many rows and columns of pixels has a picture of a head.
const MOST_PIXELS: usize = 128;

/// Int8 values, from this one on.
const LOWEST: f64 = -128.0;

/// Bins of values, of 4 steps each.
pub(super) const VALUE_BINS: usize = 64;

/// Bins of a density, of 2 steps each, in both directions.
const DENSITY_BINS: usize = 128;

/// Bins of an error of one step while it is counted.
const FINE: usize = 8;
/// Errors are counted up to this magnitude in bins of their own: more than int8 against int8 has.
const REACH: usize = 256;

/// Of a drawn histogram, on either side of zero.
const HISTOGRAM_BINS: usize = 32;

/// The largest errors that share a colour of a heat map; beyond the last one is one colour more.
pub(super) const LEVELS: [f64; 6] = [1.0, 2.0, 3.0, 5.0, 10.0, 30.0];

/// Colours of a heat map: below zero from -1 down, zero, above it, and what is no number. Blue and orange are told apart by
/// everybody.
pub(super) const BELOW: [[u8; 3]; 7] =
    [[158, 202, 225], [107, 174, 214], [66, 146, 198], [33, 113, 181], [8, 81, 156], [8, 48, 107], [4, 24, 60]];
pub(super) const ZERO: [u8; 3] = [245, 245, 245];
pub(super) const ABOVE: [[u8; 3]; 7] =
    [[253, 190, 133], [253, 141, 60], [241, 105, 19], [217, 72, 1], [166, 54, 3], [110, 38, 4], [60, 20, 2]];
pub(super) const NO_NUMBER: [u8; 3] = [224, 32, 160];

/// From nothing to most.
const DENSITY: [[u8; 3]; 16] = [
    [245, 245, 245],
    [168, 200, 218],
    [155, 190, 212],
    [142, 181, 206],
    [129, 171, 200],
    [117, 161, 194],
    [105, 151, 188],
    [94, 141, 181],
    [83, 131, 174],
    [73, 120, 166],
    [63, 110, 157],
    [54, 99, 147],
    [45, 87, 136],
    [36, 75, 122],
    [26, 61, 105],
    [14, 44, 82],
];

/// How bad a head is: whether it fails, its largest error and its mean one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Badness(bool, f64, f64);

impl Badness {
    pub(super) fn of(head: &HeadReport, fails: bool) -> Self {
        Self(fails, head.metrics.max_error, head.metrics.mae)
    }

    /// Less is better; what is not a number is worst.
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0).then(self.1.total_cmp(&other.1)).then(self.2.total_cmp(&other.2))
    }
}

/// The pictures of a case.
#[derive(Default)]
pub struct CasePictures {
    /// Of the worst heads, and of all that fail.
    pub(super) heads: Vec<HeadPicture>,
    /// Of all heads together.
    pub(super) all: Counts,
    /// Whether they show a truth that is truncated, where others have a rounded one.
    pub(super) is_truncated: bool,
}

impl CasePictures {
    /// Takes a picture of a head.
    pub fn add(&mut self, head: &JudgedHead<'_>) {
        self.is_truncated = head.is_truncated();
        let mut counts = Counts::default();
        let mut map = ErrorMap::new(head.elements().count() / head.dim, head.dim);
        for (i, (got, truth, expected)) in head.elements().enumerate() {
            counts.push(got, truth, expected);
            map.push(i / head.dim, i % head.dim, f64::from(got) - expected);
        }
        self.all.merge(&counts);
        let badness = Badness::of(head.report, head.fails);
        self.heads.push(HeadPicture { head: head.head, fails: head.fails, badness, map, counts: counts.drawn() });
        if self.heads.len() > MOST_HEADS {
            // Of equal ones the last.
            let least = self.heads.iter().enumerate().rev().min_by(|a, b| a.1.badness.compare(&b.1.badness));
            if let Some((least, HeadPicture { fails: false, .. })) = least {
                self.heads.remove(least);
            }
        }
    }
}

/// What one head looks like.
pub(super) struct HeadPicture {
    pub(super) head: usize,
    pub(super) fails: bool,
    pub(super) badness: Badness,
    pub(super) map: ErrorMap,
    pub(super) counts: Drawn,
}

/// The errors of a head, query by query and element by element; of many, the largest of each block.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ErrorMap {
    pub(super) queries: usize,
    pub(super) dim: usize,
    /// Queries of a pixel.
    pub(super) rows: usize,
    /// Elements of a pixel.
    pub(super) columns: usize,
    /// The largest magnitude, with its query and element.
    pub(super) worst: (f64, usize, usize),
    /// Which colour each pixel has, in the order of [`palette`].
    pixels: Vec<u8>,
}

impl ErrorMap {
    fn new(queries: usize, dim: usize) -> Self {
        let block = |length: usize| length.div_ceil(MOST_PIXELS).max(1);
        let (rows, columns) = (block(queries), block(dim));
        let pixels = vec![0; queries.div_ceil(rows) * dim.div_ceil(columns)];
        Self { queries, dim, rows, columns, worst: (0.0, 0, 0), pixels }
    }

    fn push(&mut self, query: usize, element: usize, error: f64) {
        let pixel = &mut self.pixels[query / self.rows * self.dim.div_ceil(self.columns) + element / self.columns];
        let colour = colour(error);
        // Of two errors of the same magnitude the first one stays.
        if magnitude(colour) > magnitude(*pixel) {
            *pixel = colour;
        }
        if error.abs() > self.worst.0 || (error.is_nan() && !self.worst.0.is_nan()) {
            self.worst = (error.abs(), query, element);
        }
    }

    pub(super) fn size(&self) -> (usize, usize) {
        (self.dim.div_ceil(self.columns), self.queries.div_ceil(self.rows))
    }

    pub(super) fn png(&self) -> Vec<u8> {
        png(self.size(), &palette(), &self.pixels)
    }
}

/// The number of levels on either side of zero.
const SIDE: u8 = LEVELS.len() as u8 + 1;

/// 0 is no error, then those above zero, those below, and what is no number.
fn colour(error: f64) -> u8 {
    if !error.is_finite() {
        return 2 * SIDE + 1;
    }
    if error == 0.0 {
        return 0;
    }
    let level = LEVELS.iter().filter(|&&most| error.abs() > most).count() as u8;
    1 + level + if error < 0.0 { SIDE } else { 0 }
}

fn magnitude(colour: u8) -> u8 {
    match colour {
        0 => 0,
        _ if colour > 2 * SIDE => SIDE + 1,
        _ => (colour - 1) % SIDE + 1,
    }
}

/// By the numbers of [`colour`].
fn palette() -> Vec<[u8; 3]> {
    [&[ZERO][..], &ABOVE, &BELOW, &[NO_NUMBER]].concat()
}

/// Counts of the elements of one head, or of many.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Counts {
    /// Of output - truth.
    errors: Vec<u64>,
    /// Errors beyond what rounding to int8 costs.
    beyond_rounding: u64,
    outputs: [u64; VALUE_BINS],
    truths: [u64; VALUE_BINS],
    /// Truth along the columns, output along the rows.
    density: Vec<u64>,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            errors: vec![0; 2 * REACH * FINE],
            beyond_rounding: 0,
            outputs: [0; VALUE_BINS],
            truths: [0; VALUE_BINS],
            density: vec![0; DENSITY_BINS * DENSITY_BINS],
        }
    }
}

/// The bin of a value; what lies beyond is in the first or the last one.
fn bin(value: f64, lowest: f64, width: f64, bins: usize) -> usize {
    // A cast saturates.
    (((value - lowest) / width).floor() as usize).min(bins - 1)
}

impl Counts {
    /// In output steps; a truth that is no number is left to the figures.
    fn push(&mut self, got: i8, truth: f64, expected: f64) {
        let got = f64::from(got);
        let value = |x| bin(x, LOWEST, 256.0 / VALUE_BINS as f64, VALUE_BINS);
        self.outputs[value(got)] += 1;
        if !truth.is_finite() {
            return;
        }
        self.truths[value(expected)] += 1;
        self.beyond_rounding += u64::from((got - truth).abs() > 0.5);
        self.errors[bin(got - truth, -(REACH as f64), 1.0 / FINE as f64, 2 * REACH * FINE)] += 1;
        // Whole numbers are in the middle of what is rounded to them.
        let [column, row] = [truth, got].map(|x| bin(x, LOWEST - 0.5, 256.0 / DENSITY_BINS as f64, DENSITY_BINS));
        self.density[row * DENSITY_BINS + column] += 1;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        let add = |ours: &mut [u64], theirs: &[u64]| ours.iter_mut().zip(theirs).for_each(|(a, b)| *a += b);
        add(&mut self.errors, &other.errors);
        self.beyond_rounding += other.beyond_rounding;
        add(&mut self.outputs, &other.outputs);
        add(&mut self.truths, &other.truths);
        add(&mut self.density, &other.density);
    }

    /// What a page shows of them.
    pub(super) fn drawn(&self) -> Drawn {
        Drawn {
            errors: Histogram::of(&self.errors),
            beyond_rounding: self.beyond_rounding,
            outputs: self.outputs,
            truths: self.truths,
            density: density(&self.density),
        }
    }
}

/// Counts as a page shows them.
pub(super) struct Drawn {
    pub(super) errors: Histogram,
    /// Errors of more than ±0.5.
    pub(super) beyond_rounding: u64,
    pub(super) outputs: [u64; VALUE_BINS],
    pub(super) truths: [u64; VALUE_BINS],
    /// A PNG, the largest output at the top.
    pub(super) density: Vec<u8>,
}

/// Counts of errors, as many bins below zero as above it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Histogram {
    /// Of a bin, in steps.
    pub(super) width: f64,
    pub(super) counts: Vec<u64>,
}

impl Histogram {
    /// The finest one that holds every error, up to an even number of steps on either side.
    fn of(fine: &[u64]) -> Self {
        let middle = fine.len() / 2;
        let reach = |i: usize| if i < middle { middle - i } else { i + 1 - middle };
        let used = fine.iter().enumerate().filter(|(_, count)| **count > 0).map(|(i, _)| reach(i)).max().unwrap_or(1);
        let mut joined = 1;
        while used > joined * HISTOGRAM_BINS {
            joined *= 2;
        }
        let side = used.next_multiple_of(2 * joined.max(FINE)).min(middle);
        let counts = fine[middle - side..middle + side].chunks_exact(joined).map(|bins| bins.iter().sum());
        Self { width: joined as f64 / FINE as f64, counts: counts.collect() }
    }
}

/// Colours by the logarithm of the count: a single element is seen beside thousands.
fn density(counts: &[u64]) -> Vec<u8> {
    let most = counts.iter().copied().max().unwrap_or(0);
    let shade = |count: u64| match count {
        0 => 0,
        _ if most == 1 => DENSITY.len() as u8 - 1,
        _ => 1 + ((DENSITY.len() - 2) as f64 * (count as f64).ln() / (most as f64).ln()).round() as u8,
    };
    let rows = counts.chunks_exact(DENSITY_BINS).rev();
    let pixels: Vec<u8> = rows.flatten().map(|&count| shade(count)).collect();
    png((DENSITY_BINS, DENSITY_BINS), &DENSITY, &pixels)
}

/// At most 16 colours, four bits a pixel.
fn png((width, height): (usize, usize), palette: &[[u8; 3]], pixels: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(ColorType::Indexed);
    encoder.set_depth(BitDepth::Four);
    encoder.set_palette(palette.concat());
    encoder.set_compression(Compression::High);
    let rows = pixels.chunks_exact(width);
    let packed: Vec<u8> =
        rows.flat_map(|row| row.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).unwrap_or(&0))).collect();
    let mut writer = encoder.write_header().expect("a vector takes every byte");
    writer.write_image_data(&packed).expect("as many pixels as the header says");
    writer.finish().expect("a vector takes every byte");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Width, height and the numbers of the colours.
    fn decode(bytes: &[u8]) -> (usize, usize, Vec<u8>) {
        let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
        decoder.set_transformations(png::Transformations::IDENTITY);
        let mut reader = decoder.read_info().expect("a PNG");
        let mut packed = vec![0; reader.output_buffer_size().expect("small")];
        let info = reader.next_frame(&mut packed).expect("pixels");
        let (width, height) = (info.width as usize, info.height as usize);
        let rows = packed.chunks_exact(info.line_size);
        let pixels = rows.flat_map(|row| row.iter().flat_map(|byte| [byte >> 4, byte & 15]).take(width)).collect();
        (width, height, pixels)
    }

    #[test]
    fn colours_are_by_magnitude_and_sign() {
        let errors = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 30.0, 31.0, 255.0];
        assert_eq!(errors.map(colour), [0, 1, 2, 3, 4, 4, 5, 6, 7, 7]);
        assert_eq!(errors.map(|x| colour(-x)), [0, 8, 9, 10, 11, 11, 12, 13, 14, 14]);
        assert_eq!([f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(colour), [15; 3]);
        assert_eq!(palette().len(), 16);
        assert_eq!((palette()[1], palette()[8], palette()[15]), (ABOVE[0], BELOW[0], NO_NUMBER));
        assert_eq!([0, 1, 7, 8, 14, 15].map(magnitude), [0, 1, 7, 1, 7, 8]);
    }

    #[test]
    fn an_error_among_many_queries_does_not_vanish() {
        let mut map = ErrorMap::new(1500, 256);
        assert_eq!((map.rows, map.columns, map.size()), (12, 2, (128, 125)));
        for query in 0..1500 {
            for element in 0..256 {
                map.push(query, element, f64::from(u8::from(query % 2 == 0)));
            }
        }
        map.push(1499, 255, -7.0);
        map.push(1498, 254, 1.0);
        assert_eq!(map.worst, (7.0, 1499, 255));
        let (width, height, pixels) = decode(&map.png());
        assert_eq!((width, height, pixels[0], pixels[128 * 125 - 1]), (128, 125, 1, colour(-7.0)));
        map.push(0, 0, f64::NAN);
        assert_eq!((map.pixels[0], map.worst.0.is_nan()), (15, true));
    }

    #[test]
    fn a_small_head_has_a_pixel_an_element() {
        let mut map = ErrorMap::new(3, 9);
        map.push(2, 0, 2.0);
        let mut expected = vec![0; 27];
        expected[18] = 2;
        assert_eq!(decode(&map.png()), (9, 3, expected));
    }

    #[test]
    fn no_error_is_outside_its_histogram() {
        for (largest, width, bins) in [(0.49, 0.125, 32), (1.5, 0.125, 32), (4.1, 0.25, 48), (255.0, 8.0, 64)] {
            let mut counts = Counts::default();
            for error in [0.0, largest, -largest] {
                counts.push(0, -error, 0.0);
            }
            let histogram = Histogram::of(&counts.errors);
            assert_eq!((histogram.width, histogram.counts.len()), (width, bins), "{largest}");
            assert_eq!(histogram.counts.iter().sum::<u64>(), 3);
            let reach = width * bins as f64 / 2.0;
            let at = ((largest + reach) / width) as usize;
            assert_eq!((histogram.counts[at], histogram.counts[bins / 2]), (1, 1), "{largest}");
        }
        // Beyond what int8 can be off by.
        let mut counts = Counts::default();
        counts.push(127, -1e9, -128.0);
        assert_eq!(Histogram::of(&counts.errors).counts.last(), Some(&1));
    }

    #[test]
    fn values_are_where_they_belong() {
        let mut counts = Counts::default();
        for (got, truth) in [(-128, -128.4), (127, 127.3), (0, 0.4), (0, 0.4)] {
            counts.push(got, truth, truth.round());
        }
        counts.push(5, f64::NAN, f64::NAN);
        assert_eq!((counts.outputs[0], counts.outputs[63], counts.outputs[32], counts.outputs[33]), (1, 1, 2, 1));
        assert_eq!((counts.truths[0], counts.truths[63], counts.truths.iter().sum()), (1, 1, 4));
        let (width, height, pixels) = decode(&counts.drawn().density);
        assert_eq!((width, height), (128, 128));
        // Bottom left, top right, and the middle, twice as dense.
        assert_eq!((pixels[127 * 128], pixels[127], pixels[63 * 128 + 64]), (1, 1, 15));
        assert_eq!(pixels.iter().filter(|&&pixel| pixel > 0).count(), 3);
    }

    #[test]
    fn counts_add_up() {
        let [mut one, mut other, mut both] = [(); 3].map(|()| Counts::default());
        one.push(1, 1.2, 1.0);
        other.push(-3, 4.0, 4.0);
        both.push(1, 1.2, 1.0);
        both.push(-3, 4.0, 4.0);
        one.merge(&other);
        assert_eq!(one, both);
    }

    #[test]
    fn what_fails_is_worst_and_then_the_largest_error() {
        let order =
            [Badness(false, 1.0, 0.5), Badness(false, 2.0, 0.1), Badness(true, 1.0, 0.2), Badness(true, 1.0, 0.3)];
        for pair in order.windows(2) {
            assert_eq!(pair[0].compare(&pair[1]), Ordering::Less, "{pair:?}");
        }
        assert_eq!(Badness(false, f64::NAN, 0.0).compare(&order[1]), Ordering::Greater);
    }
}
