//! What is a code of product quantization, and how is a distance estimated from it?
//!
//! Jégou, Douze & Schmid 2011. The dimensions of a rotated residual r = x - c are cut into places, and each place is coded
//! by the nearest of a few words that were trained: 16, a digit of 4 bits, or 256, a byte. Words are of directions: r is
//! coded as r / |r|, so that lists of any width share them. With y the vector that the words of a code make up,
//!
//! ```text
//! <r, v>  is estimated by  f * <y, v>,   f = |r|^2 / <y, r>,
//! ```
//!
//! which is right for v = r. The error e = r - f y is at right angles to r, and <e, v> has the standard deviation |e| |v|
//! times a cosine's, which is measured when words are trained: 1 / root of the dimensions where data fills them all. From
//! there on it is as with [`rabitq`], whose y is the signs: tables of <word, q> serve every list, and sums become bounds.
//!
//! Digits are looked up by [`kernels::fastscan`], 32 rows at once (André, Kermarrec & Le Scouarnec 2015), bytes one by one.

use std::ops::Range;

use arrow::buffer::ScalarBuffer;
use mvvd_core::kernels::{self, BLOCK_ROWS, BoundScale, Bounds};
use mvvd_core::{Error, Result, VectorType};
use rayon::prelude::*;

use super::rabitq::{Factors, Products};
use super::{BitQuery, Codec, Form, Reach};
use crate::options::{Choice, OptionSpec, Options};
use crate::parts::{PartsReader, PartsWriter, corrupt};
use crate::rotate::{PADDING, Random};
use crate::space::{Point, Space};

/// Rounds in which words are trained.
const ROUNDS: usize = 10;
/// Rows by which the error's direction is measured.
const MEASURED_MAX: usize = 2048;
/// Bytes of a digit's place in a block, and of a byte's.
const DIGITS: usize = BLOCK_ROWS / 2;
const BYTES: usize = BLOCK_ROWS;

/// Codes of product quantization, for the lists of one column.
#[derive(Debug, Clone)]
pub(crate) struct Pq {
    form: Form,
    width: usize,
    places: usize,
    digits: Digits,
    /// Dimension by dimension, one of each word.
    words: ScalarBuffer<f32>,
    /// Half the squares of the words' lengths, place by place.
    halves: Vec<f32>,
    /// The standard deviation of the cosine between an error and a v.
    spread: f32,
}

/// What stands in a place of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Digits {
    Four,
    Eight,
}

impl Digits {
    fn words(self) -> usize {
        match self {
            Self::Four => 16,
            Self::Eight => 256,
        }
    }
}

/// A query as tables: for each place a number for each word.
#[derive(Debug)]
pub(crate) struct Query {
    tables: Tables,
    /// What makes an inner product of a sum.
    step: f32,
    base: f32,
    /// The standard deviation of the product's error, from rounding.
    rounding: f32,
}

#[derive(Debug)]
enum Tables {
    Four(Vec<u8>),
    Eight(Vec<u16>),
}

impl Codec for Pq {
    const KIND: &'static str = "ivf_pq";
    const OPTIONS: &'static [OptionSpec] = &[
        OptionSpec {
            name: "pq_m",
            choice: Choice::Number { min: 1, max: 16_000, default: None },
            about: "Places of a code, at most one a dimension; by default one for 2 dimensions with 4 bits, and for 4 with 8.",
        },
        OptionSpec {
            name: "pq_bits",
            choice: Choice::Name(&["4", "8"]),
            about: "Bits of a place: 4, which are looked up 32 rows at once, or 8.",
        },
    ];
    type Query = Query;

    fn check(options: &Options, columns: &[VectorType]) -> Result<()> {
        let Some(places) = options.number("pq_m") else {
            return Ok(());
        };
        for column in columns {
            let most = column.dims.next_multiple_of(PADDING);
            if places > most as u64 {
                let message = format!("option \"pq_m\" must be between 1 and {most} for {column}, got {places}");
                return Err(Error::invalid(message));
            }
        }
        Ok(())
    }

    fn train(options: &Options, space: &Space, residuals: impl FnOnce() -> Vec<f32>, seed: u64) -> Self {
        let mut pq = Self::untrained(options, space);
        let mut units = residuals();
        units.chunks_exact_mut(pq.width).for_each(|row| {
            set_length_one(row);
        });
        let parts: Vec<Vec<f32>> = (0..pq.places)
            .into_par_iter()
            .map(|place| train_words(&units, pq.width, pq.place(place), pq.digits.words(), seed ^ place as u64))
            .collect();
        pq = pq.with_words(parts.concat().into());
        pq.spread = pq.measured_spread(&units).max(pq.spread);
        pq
    }

    fn write(&self, out: &mut PartsWriter) {
        out.number(self.spread);
        out.array(&self.words);
    }

    fn read(options: &Options, space: &Space, parts: &mut PartsReader) -> Result<Self> {
        let mut pq = Self::untrained(options, space);
        pq.spread = parts.number()?;
        if !(0.0..=1.0).contains(&pq.spread) {
            return Err(corrupt("a cosine is beyond 1"));
        }
        let words = parts.array(pq.width * pq.digits.words())?;
        Ok(pq.with_words(words))
    }

    fn memory_bytes(&self) -> usize {
        4 * (self.words.len() + self.halves.len())
    }

    fn code_bytes(&self) -> usize {
        match self.digits {
            Digits::Four => DIGITS * self.places,
            Digits::Eight => BYTES * self.places,
        }
    }

    fn factor_count(&self) -> usize {
        3 * BLOCK_ROWS
    }

    fn encode(&self, _: &Space, centre: &[f32], residual: &[f32], row: usize, codes: &mut [u8], factors: &mut [f32]) {
        let mut code = vec![0; self.places];
        self.code(residual, &mut code);
        let mut products = Products::default();
        self.each_value(&code, |d, y| {
            products.residual += residual[d] * residual[d];
            products.code += y * y;
            products.both += y * residual[d];
            products.centre += y * centre[d];
        });
        Factors::of(self.form, &products, self.spread).put(row, factors);
        match self.digits {
            Digits::Four => kernels::put_digits(codes, row, code),
            Digits::Eight => codes[row..].iter_mut().step_by(BYTES).zip(code).for_each(|(place, byte)| *place = byte),
        }
    }

    fn query(&self, point: &Point) -> Query {
        let count = self.digits.words();
        let mut numbers = vec![0.0; self.places * count];
        for (i, numbers) in numbers.chunks_exact_mut(count).enumerate() {
            kernels::word_products(&point.rotated[self.place(i)], self.words(i), numbers);
        }
        let (tables, rounded) = match self.digits {
            Digits::Four => {
                let mut tables = vec![0; numbers.len()];
                let rounded = kernels::fastscan_tables(&numbers, &mut tables);
                (Tables::Four(tables), rounded)
            }
            Digits::Eight => {
                let (tables, rounded) = round(&numbers);
                (Tables::Eight(tables), rounded)
            }
        };
        // A table's error is anywhere within half a step.
        let rounding = rounded.step * (self.places as f32 / 12.0).sqrt();
        Query { tables, step: rounded.step, base: rounded.base, rounding }
    }

    fn bounds(
        &self,
        (_, query): (&BitQuery, &Query),
        codes: &[u8],
        factors: &[f32],
        reach: Reach,
        bounds: &mut Bounds,
    ) {
        let mut sums = [0; BLOCK_ROWS];
        match &query.tables {
            Tables::Four(tables) => kernels::fastscan(codes, tables, &mut sums),
            Tables::Eight(tables) => kernels::scan_bytes(codes, tables, &mut sums),
        }
        let deviations = reach.deviations * reach.weight.abs();
        let scale = BoundScale {
            weight: reach.weight,
            step: query.step,
            base: query.base,
            // Not 0, for an infinite error.
            error: (deviations * reach.length).max(f32::MIN_POSITIVE),
            rounding: deviations * query.rounding,
        };
        kernels::add_bounds(&sums, factors.try_into().expect("three factors a row"), &scale, bounds);
    }
}

impl Pq {
    fn untrained(options: &Options, space: &Space) -> Self {
        let width = space.width();
        let digits = if options.name("pq_bits") == Some("8") { Digits::Eight } else { Digits::Four };
        let default = match digits {
            Digits::Four => width / 2,
            Digits::Eight => width / 4,
        };
        let places = options.number("pq_m").map_or(default, |places| places as usize).clamp(1, width);
        let spread = (width as f32 - 1.0).sqrt().recip();
        let (words, halves) = (Vec::new().into(), Vec::new());
        Self { form: space.form(), width, places, digits, words, halves, spread }
    }

    fn with_words(mut self, words: ScalarBuffer<f32>) -> Self {
        self.words = words;
        let count = self.digits.words();
        self.halves = vec![0.0; self.places * count];
        for place in 0..self.places {
            let words = &self.words[self.place(place).start * count..self.place(place).end * count];
            let halves = &mut self.halves[place * count..][..count];
            for of_dimension in words.chunks_exact(count) {
                halves.iter_mut().zip(of_dimension).for_each(|(half, value)| *half += 0.5 * value * value);
            }
        }
        self
    }

    /// The dimensions of a place: as many as the others have, give or take one.
    fn place(&self, i: usize) -> Range<usize> {
        i * self.width / self.places..(i + 1) * self.width / self.places
    }

    fn words(&self, place: usize) -> &[f32] {
        let (range, count) = (self.place(place), self.digits.words());
        &self.words[range.start * count..range.end * count]
    }

    /// The number of a word for each place.
    fn code(&self, residual: &[f32], code: &mut [u8]) {
        let mut unit = residual.to_vec();
        set_length_one(&mut unit);
        let count = self.digits.words();
        for (i, digit) in code.iter_mut().enumerate() {
            let halves = &self.halves[i * count..][..count];
            *digit = kernels::nearest_word(&unit[self.place(i)], self.words(i), halves) as u8;
        }
    }

    /// Calls `f` with each dimension and what the code has there.
    fn each_value(&self, code: &[u8], mut f: impl FnMut(usize, f32)) {
        let count = self.digits.words();
        for (i, &digit) in code.iter().enumerate() {
            self.place(i).for_each(|d| f(d, self.words[d * count + usize::from(digit)]));
        }
    }

    /// The root mean square of the cosines between the errors of some of `units` and others of them.
    fn measured_spread(&self, units: &[f32]) -> f32 {
        let rows = units.len() / self.width;
        let (mut code, mut y) = (vec![0; self.places], vec![0.0; self.width]);
        let (mut sum, mut count) = (0.0, 0);
        for i in 0..rows.min(MEASURED_MAX) {
            let row = |i: usize| &units[i % rows * self.width..][..self.width];
            let (r, v) = (row(i), row(i + rows / 2));
            self.code(r, &mut code);
            self.each_value(&code, |d, value| y[d] = value);
            let both = dot(r, &y);
            if both > 0.0 && i % rows != (i + rows / 2) % rows {
                let f = dot(r, r) / both;
                y.iter_mut().zip(r).for_each(|(y, r)| *y = r - f * *y);
                let squares = dot(&y, &y) * dot(v, v);
                if squares > 0.0 {
                    sum += dot(&y, v) * dot(&y, v) / squares;
                    count += 1;
                }
            }
        }
        if count == 0 { 0.0 } else { (sum / count as f32).sqrt().min(1.0) }
    }
}

/// Words of the dimensions `range` of `points`, of `width` values each: dimension by dimension. Lloyd 1982.
fn train_words(points: &[f32], width: usize, range: Range<usize>, count: usize, seed: u64) -> Vec<f32> {
    let dims = range.len();
    let mut words = vec![0.0; dims * count];
    let points: Vec<f32> = points.chunks_exact(width).flat_map(|point| &point[range.clone()]).copied().collect();
    let rows = points.len() / dims;
    if rows == 0 {
        return words;
    }
    let point = |i: usize| &points[i * dims..][..dims];
    let mut random = Random::new(seed);
    let put = |words: &mut [f32], word: usize, values: &[f32]| {
        values.iter().enumerate().for_each(|(d, value)| words[d * count + word] = *value);
    };
    // One of each stretch of equal length; all of them where there are fewer, and then again.
    for word in 0..count {
        let start = word * rows / count;
        let length = ((word + 1) * rows / count - start).max(1);
        put(&mut words, word, point(start + random.below(length)));
    }
    let (mut halves, mut sums, mut sizes) = (vec![0.0; count], vec![0.0; words.len()], vec![0_u32; count]);
    for _ in 0..ROUNDS {
        halves.fill(0.0);
        for of_dimension in words.chunks_exact(count) {
            halves.iter_mut().zip(of_dimension).for_each(|(half, value)| *half += 0.5 * value * value);
        }
        sums.fill(0.0);
        sizes.fill(0);
        for point in points.chunks_exact(dims) {
            let word = kernels::nearest_word(point, &words, &halves);
            sizes[word] += 1;
            point.iter().enumerate().for_each(|(d, value)| sums[d * count + word] += value);
        }
        for (word, &size) in sizes.iter().enumerate() {
            match size {
                0 => put(&mut words, word, point(random.below(rows))),
                size => (0..dims).for_each(|d| words[d * count + word] = sums[d * count + word] / size as f32),
            }
        }
    }
    words
}

/// Rounds tables of 256 numbers as [`kernels::fastscan_tables`] does those of 16, in finer steps.
fn round(numbers: &[f32]) -> (Vec<u16>, kernels::Rounded) {
    let (places, _) = numbers.as_chunks::<256>();
    let low = |place: &[f32; 256]| place.iter().copied().fold(f32::INFINITY, f32::min);
    let high = |place: &[f32; 256]| place.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let range = places.iter().map(|place| high(place) - low(place)).fold(0.0, f32::max);
    let step = range / f32::from(u16::MAX);
    let step = if step.is_normal() && step.recip().is_finite() { step } else { 1.0 };
    let (mut tables, mut base) = (Vec::with_capacity(numbers.len()), 0.0);
    for place in places {
        let low = low(place);
        base += low;
        tables.extend(place.iter().map(|number| ((number - low) / step + 0.5) as u16));
    }
    (tables, kernels::Rounded { step, base })
}

/// Divides by the length; zeros where there is none that f32 can hold.
fn set_length_one(vector: &mut [f32]) {
    let length = dot(vector, vector).sqrt();
    match length > 0.0 && length.is_finite() {
        true => vector.iter_mut().for_each(|value| *value /= length),
        false => vector.fill(0.0),
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    -kernels::distance_f32(mvvd_core::metric::Metric::Dot, a, b) as f32
}

#[cfg(test)]
mod tests {
    use mvvd_core::ErrorKind;
    use mvvd_core::metric::Metric;

    use super::*;
    use crate::vectors::Vectors;

    const KINDS: [&[(&str, &str)]; 5] = [
        &[],
        &[("pq_bits", "8")],
        // Places of unequal width.
        &[("pq_m", "7")],
        &[("pq_m", "30"), ("pq_bits", "8")],
        &[("pq_m", "1")],
    ];

    fn options(given: &[(&str, &str)]) -> Options {
        Options::parse("ivf_pq", Pq::OPTIONS, given.iter().copied()).unwrap()
    }

    /// Rows around a centre that lie along a few directions, and a little beside them.
    struct Source {
        random: Random,
        centre: Vec<f32>,
        directions: Vec<Vec<f32>>,
    }

    impl Source {
        fn new(dims: usize, seed: u64) -> Self {
            let mut random = Random::new(seed);
            let mut vector = || -> Vec<f32> { (0..dims).map(|_| random.float() + random.float()).collect() };
            let centre = vector();
            let directions = (0..dims / 2).map(|_| vector()).collect();
            Self { random, centre, directions }
        }

        fn row(&mut self) -> Vec<f32> {
            let mut row: Vec<f32> = self.centre.iter().map(|c| c + 0.3 * self.random.float()).collect();
            for direction in &self.directions {
                let along = 0.3 * (self.random.float() + self.random.float() + self.random.float());
                row.iter_mut().zip(direction).for_each(|(value, d)| *value += along * d);
            }
            row
        }
    }

    /// A codec of rows, and bounds beside exact distances: the share within bounds, their bias and mean width, both as
    /// shares of the distance.
    fn check(metric: Metric, dims: usize, given: &[(&str, &str)]) -> (f64, f64, f64) {
        let mut source = Source::new(dims, dims as u64);
        let rows: Vec<Vec<f32>> = (0..1500).map(|_| source.row()).collect();
        let all = rows.concat();
        let vectors = Vectors::of_f32(&all, dims);
        let space = Space::new(metric, &vectors, &[0], 3);
        let rotated = |ordinal: u32| {
            let mut out = vec![0.0; space.width()];
            space.row(&vectors, ordinal, &mut Vec::new(), &mut out);
            out
        };
        let mut centre = vec![0.0; space.width()];
        (0..1500).for_each(|i| centre.iter_mut().zip(rotated(i)).for_each(|(sum, x)| *sum += x / 1500.0));
        let residual = |ordinal| -> Vec<f32> { rotated(ordinal).iter().zip(&centre).map(|(x, c)| x - c).collect() };
        let pq = Pq::train(&options(given), &space, || (0..1500).flat_map(residual).collect(), 4);
        let (mut codes, mut factors) = (vec![0; pq.code_bytes()], vec![f32::NAN; pq.factor_count()]);
        (0..32).for_each(|i| pq.encode(&space, &centre, &residual(i), i as usize, &mut codes, &mut factors));
        let (mut inside, mut bias, mut width, mut count) = (0.0, 0.0, 0.0, 0.0);
        for _ in 0..40 {
            let query = source.row();
            let point = space.query(&query).unwrap();
            let (prepared, bits) = (pq.query(&point), BitQuery::default());
            let form = if metric == Metric::Dot { Metric::Dot } else { Metric::L2Squared };
            let to_centre = kernels::distance_f32(form, &point.rotated, &centre) as f32;
            let length =
                if metric == Metric::Dot { dot(&point.rotated, &point.rotated).sqrt() } else { to_centre.sqrt() };
            for weight in [1.0, -0.5] {
                let reach = Reach { weight, deviations: 1.9, length };
                let mut bounds = Bounds::of(weight * (to_centre + point.offset));
                pq.bounds((&bits, &prepared), &codes, &factors, reach, &mut bounds);
                for (i, row) in rows[..32].iter().enumerate() {
                    let exact = weight * kernels::distance_f32(form, &query, row) as f32;
                    let (low, high) = (bounds.low[i], bounds.high[i]);
                    assert!(low <= high);
                    let size = f64::from(length * length);
                    inside += f64::from(u8::from((low..=high).contains(&exact)));
                    bias += f64::from((low + high) / 2.0 - exact) / size;
                    width += f64::from((high - low) / weight.abs()) / size;
                    count += 1.0;
                }
            }
        }
        (inside / count, bias / count, width / count)
    }

    #[test]
    fn estimates_are_near_and_bounds_hold() {
        for metric in [Metric::L2Squared, Metric::Dot] {
            for dims in [40, 64, 130] {
                for given in KINDS {
                    let (inside, bias, _) = check(metric, dims, given);
                    assert!(inside > 0.9, "{metric} {dims} {given:?}: {inside} within bounds");
                    assert!(bias.abs() < 0.05, "{metric} {dims} {given:?}: bias {bias}");
                }
                let width = |given: &[(&str, &str)]| check(metric, dims, given).2;
                assert!(width(&[("pq_m", "32")]) < width(&[("pq_m", "16")]), "more places tell more");
                let eight = [("pq_m", "16"), ("pq_bits", "8")];
                assert!(width(&eight) < width(&[("pq_m", "16")]), "more bits tell more");
            }
        }
    }

    #[test]
    fn a_code_of_vectors_without_a_direction_is_harmless() {
        let rows = [[0.0; 8], [1e25; 8], [f32::MAX; 8], [1e-30; 8], [1.0; 8]].concat();
        let vectors = Vectors::of_f32(&rows, 8);
        for given in [&[][..], &[("pq_bits", "8")]] {
            let space = Space::new(Metric::L2, &vectors, &[0], 1);
            for residuals in [vec![], vec![0.0; 64], vec![f32::INFINITY; 64], vec![1.0; 128]] {
                let pq = Pq::train(&options(given), &space, || residuals, 1);
                let mut row = vec![0.0; 64];
                let (mut codes, mut factors) = (vec![0; pq.code_bytes()], vec![f32::NAN; pq.factor_count()]);
                for i in 0..5 {
                    space.row(&vectors, i as u32, &mut Vec::new(), &mut row);
                    pq.encode(&space, &[0.0; 64], &row, i, &mut codes, &mut factors);
                }
                let point = space.query(&[2.0; 8]).unwrap();
                let mut bounds = Bounds::of(32.0);
                let reach = Reach { weight: 1.0, deviations: 1.9, length: 32_f32.sqrt() };
                pq.bounds((&BitQuery::default(), &pq.query(&point)), &codes, &factors, reach, &mut bounds);
                assert!(bounds.low[0] <= 32.0 && bounds.low[4] <= 8.1, "{:?}", &bounds.low[..5]);
                assert!(bounds.low[..5].iter().all(|low| !low.is_nan()) && bounds.low[5].is_nan());
            }
        }
    }

    #[test]
    fn what_was_written_is_read_or_refused() {
        let rows: Vec<f32> = (0..600).map(|i| ((i * 7919) % 1009) as f32 / 1009.0).collect();
        let vectors = Vectors::of_f32(&rows, 6);
        let space = Space::new(Metric::Cosine, &vectors, &[0, 1, 2], 1);
        for given in KINDS {
            let given = options(given);
            let residuals = || (0..6400).map(|i| ((i * 31) % 97) as f32 - 48.0).collect();
            let pq = Pq::train(&given, &space, residuals, 1);
            let written = |pq: &Pq| {
                let mut parts = PartsWriter::default();
                pq.write(&mut parts);
                parts.finish()
            };
            let bytes = written(&pq);
            assert_eq!(bytes, written(&Pq::train(&given, &space, residuals, 1)), "decided by the seed");
            let read = |bytes: &[u8]| {
                let mut parts = PartsReader::new(arrow::buffer::Buffer::from_slice_ref(bytes)).unwrap();
                Pq::read(&given, &space, &mut parts)
            };
            assert_eq!(written(&read(&bytes).unwrap()), bytes);
            assert_eq!(read(&bytes[..bytes.len() - 1]).unwrap_err().kind(), ErrorKind::Corrupt);
            let mut damaged = bytes.clone();
            damaged[..4].copy_from_slice(&f32::NAN.to_le_bytes());
            assert_eq!(read(&damaged).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn options_fit_the_columns() {
        let types = [25, 70].map(|dims| VectorType { kind: mvvd_core::VectorKind::Dense, dims });
        assert!(Pq::check(&options(&[("pq_m", "64")]), &types).is_ok());
        let error = Pq::check(&options(&[("pq_m", "65")]), &types).unwrap_err();
        assert_eq!(error.to_string(), "option \"pq_m\" must be between 1 and 64 for VECTOR(25), got 65");
        let bits = Options::parse("ivf_pq", Pq::OPTIONS, [("pq_bits", "6")]);
        assert_eq!(bits.unwrap_err().to_string(), "option \"pq_bits\" must be one of 4, 8, got 6");
    }
}
