//! Brute force, and what must hold of every answer beside it.

use mvvd_index::{Filter, Hit, Request, Term, VectorIndex, Vectors};

/// All rows that can be found, nearest first.
pub(crate) fn truth(columns: &[Vectors<'_>], rows: usize, terms: &[Term], filter: Option<&Filter>) -> Vec<Hit> {
    let found = |ordinal: u32| {
        filter.is_none_or(|filter| filter.has(ordinal))
            && terms.iter().all(|term| columns[term.column].is_valid(ordinal))
    };
    let mut hits: Vec<Hit> = (0..rows as u32)
        .filter(|&ordinal| found(ordinal))
        .map(|ordinal| Hit { distance: score(columns, terms, ordinal), ordinal })
        .filter(|hit| !hit.distance.is_nan())
        .collect();
    hits.sort();
    hits
}

fn score(columns: &[Vectors<'_>], terms: &[Term], ordinal: u32) -> f64 {
    let mut terms = terms.iter().map(|term| {
        let mut distance = [0.0];
        columns[term.column].distances(term.metric, &term.query, &[ordinal], &mut distance);
        f64::from(term.weight) * distance[0]
    });
    let first = terms.next().unwrap();
    terms.fold(first, |sum, distance| sum + distance)
}

/// Whether `a` is as near as `b`, or all but.
pub(crate) fn as_near(a: f64, b: f64) -> bool {
    a <= b + 1e-12 * b.abs()
}

/// Checks an answer against the rows that can be found, `truth`: as many rows as there are, up to k, none twice, with
/// their exact distances, in order. The share of the nearest that it has.
#[track_caller]
pub(crate) fn check(what: &str, hits: &[Hit], columns: &[Vectors<'_>], request: &Request<'_>, truth: &[Hit]) -> f64 {
    let count = request.k.min(truth.len());
    assert_eq!(hits.len(), count, "{what}: number of rows of {} that can be found, k = {}", truth.len(), request.k);
    check_hits(what, hits, columns, request);
    let Some(last) = truth[..count].last() else { return 1.0 };
    hits.iter().filter(|hit| as_near(hit.distance, last.distance)).count() as f64 / count as f64
}

/// Checks that rows may be found, that none is there twice, that distances are exact, and the order.
#[track_caller]
pub(crate) fn check_hits(what: &str, hits: &[Hit], columns: &[Vectors<'_>], request: &Request<'_>) {
    assert!(hits.is_sorted(), "{what}: hits are not in order");
    let mut ordinals: Vec<u32> = hits.iter().map(|hit| hit.ordinal).collect();
    ordinals.sort_unstable();
    ordinals.dedup();
    assert_eq!(ordinals.len(), hits.len(), "{what}: a row is there twice");
    for hit in hits {
        assert!(
            request.filter.is_none_or(|filter| filter.has(hit.ordinal)),
            "{what}: row {} is filtered out",
            hit.ordinal
        );
        let valid = request.terms.iter().all(|term| columns[term.column].is_valid(hit.ordinal));
        assert!(valid, "{what}: row {} is NULL", hit.ordinal);
        let distance = score(columns, request.terms, hit.ordinal);
        assert_eq!(
            hit.distance.to_bits(),
            distance.to_bits(),
            "{what}: distance of row {}: {} is not {distance}",
            hit.ordinal,
            hit.distance
        );
        assert!(!distance.is_nan(), "{what}: distance of row {}", hit.ordinal);
    }
}

/// All rows of a cursor, in calls of different sizes, each checked.
#[track_caller]
pub(crate) fn drain(what: &str, index: &dyn VectorIndex, columns: &[Vectors<'_>], request: &Request<'_>) -> Vec<Hit> {
    let mut cursor = index.cursor(columns, request).unwrap();
    let mut all = Vec::new();
    for count in [1, 10, 3, 64].into_iter().cycle() {
        let hits = cursor.next(count).unwrap();
        assert!(hits.len() <= count, "{what}: {} rows of a cursor that was asked for {count}", hits.len());
        check_hits(what, &hits, columns, request);
        if hits.is_empty() {
            break;
        }
        all.extend(hits);
    }
    assert!(cursor.next(5).unwrap().is_empty(), "{what}: a cursor that was at its end went on");
    all
}
