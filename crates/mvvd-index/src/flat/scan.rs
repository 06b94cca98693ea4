//! Bounds of the distances of all rows out of their codes, and the rows that may be among the nearest.
//!
//! With x^ what a code stands for, |q - x| differs from |q - x^| by at most the code's error |x - x^|, which is known for
//! each row; inner products differ by at most |q| |x - x^|. The query is coded in two bytes a dimension, so that its own
//! error hardly counts: the second product costs nothing where reading the codes takes longer than multiplying them.

use mvvd_core::kernels::{self, ByteRows};
use mvvd_core::metric::Metric;
use mvvd_core::{Ordinal, VectorKind};

use super::codes::{Codes, make_image};
use crate::exact;
use crate::filter::Filter;
use crate::kind::Cursor;
use crate::nearest::KthScore;
use crate::refine::{self, Refined};
use crate::request::{Hit, Query, Request};
use crate::vectors::Vectors;

/// Most rows that are looked at at once, and the bytes that they should not exceed: they are read twice.
const BLOCK: usize = 256;
const BLOCK_BYTES: usize = 24 << 10;
/// Lanes of a comparison.
const LANES: usize = 16;
/// Bytes of a query's value.
const PLACES: usize = 2;
/// Of fewer rows all are measured.
const CODES_WORTH: usize = 256;
/// With a filter that lets fewer than one in so many rows through, only those are looked at.
const GATHER_ONE_IN: usize = 6;
/// How far rounding to f32 in a few steps can take a number, as a share of the largest that took part.
const ROUNDING: f64 = 8.0 * f32::EPSILON as f64;

/// The `k` nearest rows.
pub(super) fn search(codes: &Codes, columns: &[Vectors<'_>], request: &Request<'_>) -> Vec<Hit> {
    let few = request.filter.map_or(codes.rows, Filter::count) < CODES_WORTH.max(request.k.saturating_mul(2));
    let candidates = if few { None } else { candidates(codes, &columns[0], request) };
    match candidates {
        Some(candidates) => refine::nearest(columns, request, refine::by_bound(candidates)),
        None => exact::search(columns, codes.rows, request),
    }
}

/// The rows that may be among the `k` nearest, each with a bound of its distance; none if the query has no bounds.
pub(super) fn candidates(codes: &Codes, column: &Vectors<'_>, request: &Request<'_>) -> Option<Vec<Hit>> {
    let scan = Scan::new(codes, request)?;
    let mut best = KthScore::new(request.k);
    let mut candidates = Vec::new();
    scan.each_block(request.filter, |block| {
        scan.collect(block, &mut best, |ordinal| may_be_found(request, column, ordinal), &mut candidates);
    });
    let limit = -best.least();
    candidates.retain(|&(_, low)| low <= limit);
    Some(scan.to_hits(&candidates))
}

/// All rows in their order.
pub(super) fn cursor<'a>(codes: &Codes, columns: &'a [Vectors<'a>], request: &'a Request<'a>) -> Box<dyn Cursor + 'a> {
    let Some(scan) = Scan::new(codes, request) else {
        return Box::new(exact::cursor(columns, codes.rows, request));
    };
    let mut all = Vec::new();
    // Of no rows at all there is no best.
    let mut best = KthScore::new(0);
    scan.each_block(request.filter, |block| {
        scan.collect(block, &mut best, |ordinal| may_be_found(request, &columns[0], ordinal), &mut all);
    });
    Box::new(Refined::new(columns, request, refine::by_bound(scan.to_hits(&all))))
}

/// What the codes say of the distances of the rows at `ordinals`, which ascend; NaN for NULL, and where the query has no
/// bounds.
pub(super) fn estimates(codes: &Codes, column: &Vectors<'_>, request: &Request<'_>, ordinals: &[Ordinal]) -> Vec<f64> {
    let mut estimates = vec![f64::NAN; ordinals.len()];
    let Some(scan) = Scan::new(codes, request) else { return estimates };
    let known = ordinals.partition_point(|&ordinal| (ordinal as usize) < codes.rows);
    let filter = Filter::of_ordinals(codes.rows, ordinals[..known].iter().copied());
    let mut at = 0;
    scan.each_block(Some(&filter), |block| {
        for i in 0..block.steps.len() {
            let ordinal = match block.rows {
                Rows::From(start) => (start + i) as Ordinal,
                Rows::At(ordinals) => ordinals[i],
            };
            if ordinals.get(at) == Some(&ordinal) {
                if column.is_valid(ordinal) {
                    let (low, high) = scan.bounds(block, i);
                    estimates[at] = scan.distance((low + high) / 2.0);
                }
                at += 1;
            }
        }
    });
    estimates
}

fn may_be_found(request: &Request<'_>, column: &Vectors<'_>, ordinal: Ordinal) -> bool {
    column.is_valid(ordinal) && request.filter.is_none_or(|filter| filter.has(ordinal))
}

/// A query over codes.
struct Scan<'a> {
    codes: &'a Codes,
    metric: Metric,
    weight: f64,
    query: Coded,
    form: Form,
}

/// A query in two bytes a dimension.
struct Coded {
    bytes: [Vec<i8>; PLACES],
    steps: [f32; PLACES],
    /// 128 times the sum of the bytes: what the stored codes have too much.
    excess: [i32; PLACES],
    /// The length of what the bytes stand for, and how far from that the query is.
    length: f64,
    error: f64,
}

/// How bounds follow from the inner products of codes.
enum Form {
    /// Of distances from the query.
    Distance {
        /// The square of the query's length from the centre.
        square: f32,
        /// The query's error.
        error: f32,
        /// How far a squared distance may be off, for each square of a length that it is made of.
        share: f32,
        /// The same at any lengths.
        fixed: f32,
    },
    /// Of negated inner products.
    Product {
        /// The inner product of query and centre.
        centre: f32,
        /// How far a product may be off, by the row's error.
        by_error: f32,
        /// The same by the length of its code.
        by_length: f32,
        /// The same at any row.
        fixed: f32,
    },
}

/// Some rows, with what is known of them.
struct Block<'b> {
    rows: Rows<'b>,
    products: [&'b [i32]; PLACES],
    steps: &'b [f32],
    lengths: &'b [f32],
    errors: &'b [f32],
}

enum Rows<'b> {
    From(usize),
    At(&'b [Ordinal]),
}

impl<'a> Scan<'a> {
    /// None if the query is too long or too short for bounds to hold.
    fn new(codes: &'a Codes, request: &Request<'_>) -> Option<Self> {
        let term = &request.terms[0];
        let Query::Dense(query) = &term.query else {
            panic!("{} vectors are not searched with {:?}", VectorKind::Dense.name(), term.query);
        };
        let mut image = query.to_vec();
        if !make_image(term.metric, &mut image) {
            return None;
        }
        // By how much the sums of the exact kernels can be off, as a share.
        let kernels = (codes.dims / 16 + 8) as f64 * f64::from(f32::EPSILON);
        let coded;
        let form = if term.metric == Metric::Dot {
            coded = Coded::of(image.iter().map(|&x| f64::from(x)).collect());
            let product: f64 = image.iter().zip(&codes.centre[..]).map(|(&q, &c)| f64::from(q) * f64::from(c)).sum();
            let centre = codes.centre.iter().map(|&c| f64::from(c) * f64::from(c)).sum::<f64>().sqrt();
            let length = coded.length + coded.error;
            Form::Product {
                centre: product as f32,
                by_error: up(length * (1.0 + kernels)),
                by_length: up(coded.error + length * (kernels + ROUNDING)),
                fixed: up(length * centre * (kernels + ROUNDING)),
            }
        } else {
            coded =
                Coded::of(image.iter().zip(&codes.centre[..]).map(|(&x, &c)| f64::from(x) - f64::from(c)).collect());
            Form::Distance {
                square: (coded.length * coded.length) as f32,
                error: up(coded.error),
                share: up(2.0 * kernels + ROUNDING),
                fixed: if term.metric == Metric::Cosine { up(4.0 * (kernels + ROUNDING)) } else { f32::MIN_POSITIVE },
            }
        };
        Some(Self { codes, metric: term.metric, weight: f64::from(term.weight), query: coded, form })
    }

    /// Tells `found` the rows that `filter` lets through, in blocks, and perhaps others among them.
    fn each_block(&self, filter: Option<&Filter>, mut found: impl FnMut(&Block<'_>)) {
        let codes = self.codes;
        let bytes = ByteRows::dense(&codes.codes, codes.dims);
        let most = (BLOCK_BYTES / codes.dims).clamp(LANES, BLOCK);
        let mut products = [[0; BLOCK]; PLACES];
        if let Some(filter) = filter.filter(|filter| filter.count() < codes.rows / GATHER_ONE_IN) {
            let mut ordinals = filter.ordinals().take_while(|&ordinal| (ordinal as usize) < codes.rows).peekable();
            let mut batch: Vec<Ordinal> = Vec::with_capacity(most);
            let mut told = [[0.0; BLOCK]; 3];
            while ordinals.peek().is_some() {
                batch.clear();
                batch.extend(ordinals.by_ref().take(most));
                for (query, products) in self.query.bytes.iter().zip(&mut products) {
                    kernels::byte_dots_at(query, bytes, &batch, &mut products[..batch.len()]);
                }
                for (told, all) in told.iter_mut().zip([&codes.steps, &codes.lengths, &codes.errors]) {
                    told.iter_mut().zip(&batch).for_each(|(told, &ordinal)| *told = all[ordinal as usize]);
                }
                found(&Block {
                    rows: Rows::At(&batch),
                    products: products.each_ref().map(|products| &products[..batch.len()]),
                    steps: &told[0][..batch.len()],
                    lengths: &told[1][..batch.len()],
                    errors: &told[2][..batch.len()],
                });
            }
            return;
        }
        for start in (0..codes.rows).step_by(most) {
            let rows = start..(start + most).min(codes.rows);
            let bytes = ByteRows { start: start * codes.dims, ..bytes };
            for (query, products) in self.query.bytes.iter().zip(&mut products) {
                kernels::byte_dots(query, bytes, &mut products[..rows.len()]);
            }
            found(&Block {
                rows: Rows::From(start),
                products: products.each_ref().map(|products| &products[..rows.len()]),
                steps: &codes.steps[rows.clone()],
                lengths: &codes.lengths[rows.clone()],
                errors: &codes.errors[rows],
            });
        }
    }

    /// Takes the rows of a block that may be among the best, each with a bound from below of its distance, in the space
    /// or as a negated product.
    fn collect(
        &self,
        block: &Block<'_>,
        best: &mut KthScore,
        may_be_found: impl Fn(Ordinal) -> bool,
        candidates: &mut Vec<(Ordinal, f32)>,
    ) {
        let mut margins = [0.0; BLOCK];
        let count = block.steps.len();
        self.margins(block, -best.least(), &mut margins[..count]);
        for (i, lanes) in margins[..count].chunks(LANES).enumerate() {
            if lanes.iter().fold(0, |within, &margin| within + u32::from(margin >= 0.0)) == 0 {
                continue;
            }
            for (j, &margin) in lanes.iter().enumerate() {
                let i = i * LANES + j;
                let ordinal = match block.rows {
                    Rows::From(start) => (start + i) as Ordinal,
                    Rows::At(ordinals) => ordinals[i],
                };
                if margin < 0.0 || !may_be_found(ordinal) {
                    continue;
                }
                let (low, high) = self.bounds(block, i);
                if low <= -best.least() {
                    best.push(-high);
                    candidates.push((ordinal, low));
                }
            }
        }
    }

    /// The inner product of query and row `i`, both from the centre or from the origin.
    #[inline(always)]
    fn product(&self, block: &Block<'_>, i: usize) -> f32 {
        let Coded { steps, excess, .. } = &self.query;
        let coarse = (block.products[0][i] - excess[0]) as f32 * steps[0];
        let fine = (block.products[1][i] - excess[1]) as f32 * steps[1];
        (coarse + fine) * block.steps[i]
    }

    /// Not negative for rows that may be within `limit`.
    fn margins(&self, block: &Block<'_>, limit: f32, margins: &mut [f32]) {
        match self.form {
            Form::Distance { square, error, share, fixed } => {
                for (i, margin) in margins.iter_mut().enumerate() {
                    let squares = square + block.lengths[i] * block.lengths[i];
                    let farthest = limit + error + block.errors[i];
                    let off = fixed + share * squares;
                    *margin = farthest * farthest + off - (squares - 2.0 * self.product(block, i));
                }
            }
            Form::Product { centre, by_error, by_length, fixed } => {
                for (i, margin) in margins.iter_mut().enumerate() {
                    let off = fixed + by_length * block.lengths[i] + by_error * block.errors[i];
                    *margin = limit + off + centre + self.product(block, i);
                }
            }
        }
    }

    /// Between what the distance or negated product of row `i` is.
    fn bounds(&self, block: &Block<'_>, i: usize) -> (f32, f32) {
        match self.form {
            Form::Distance { square, error, share, fixed } => {
                let squares = square + block.lengths[i] * block.lengths[i];
                let (middle, off) = (squares - 2.0 * self.product(block, i), fixed + share * squares);
                let error = error + block.errors[i];
                ((middle - off).max(0.0).sqrt() - error, (middle + off).max(0.0).sqrt() + error)
            }
            Form::Product { centre, by_error, by_length, fixed } => {
                let off = fixed + by_length * block.lengths[i] + by_error * block.errors[i];
                let middle = -(centre + self.product(block, i));
                (middle - off, middle + off)
            }
        }
    }

    /// The weighted distance of rows that are so far apart in the space, or have this negated product.
    fn distance(&self, found: f32) -> f64 {
        let found = f64::from(found);
        let square = found.max(0.0) * found.max(0.0);
        self.weight
            * match self.metric {
                Metric::Dot => found,
                Metric::L2Squared => square,
                Metric::Cosine => square / 2.0,
                _ => found.max(0.0),
            }
    }

    fn to_hits(&self, candidates: &[(Ordinal, f32)]) -> Vec<Hit> {
        candidates.iter().map(|&(ordinal, low)| Hit { distance: self.distance(low), ordinal }).collect()
    }
}

impl Coded {
    fn of(mut rest: Vec<f64>) -> Self {
        let mut coded =
            Self { bytes: Default::default(), steps: [0.0; PLACES], excess: [0; PLACES], length: 0.0, error: 0.0 };
        let query = rest.clone();
        for place in 0..PLACES {
            let largest = rest.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
            let step = (largest / 127.0) as f32;
            if step < f32::MIN_POSITIVE {
                coded.bytes[place] = vec![0; rest.len()];
                continue;
            }
            let unit = |x: f64| (x / f64::from(step)).round().clamp(-127.0, 127.0);
            coded.bytes[place] = rest.iter().map(|&x| unit(x) as i8).collect();
            coded.steps[place] = step;
            coded.excess[place] = 128 * coded.bytes[place].iter().map(|&byte| i32::from(byte)).sum::<i32>();
            rest.iter_mut().for_each(|x| *x -= f64::from(step) * unit(*x));
        }
        let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
        coded.error = squares(&mut rest.iter().copied());
        coded.length = squares(&mut query.iter().zip(&rest).map(|(x, rest)| x - rest));
        coded
    }
}

/// As f32, not less.
fn up(x: f64) -> f32 {
    (x * (1.0 + 2.0 * f64::from(f32::EPSILON))) as f32 + f32::MIN_POSITIVE
}
