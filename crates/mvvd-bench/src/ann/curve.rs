//! How many queries a second an index answers at a given recall, between the settings that were measured.

/// Recall and queries a second of one setting.
pub(crate) type Point = (f64, f64);

/// The rate at `recall`: log-linear between the two nearest settings that no other one beats in both. Where the least
/// setting finds more already, its rate. None where no setting finds so much.
pub(crate) fn rate_at(points: &[Point], recall: f64) -> Option<f64> {
    let beaten = |&(r, q): &Point| points.iter().any(|&(r2, q2)| r2 >= r && q2 >= q && (r2, q2) != (r, q));
    let mut best: Vec<Point> = points.iter().copied().filter(|point| !beaten(point)).collect();
    best.sort_by(|a, b| a.0.total_cmp(&b.0));
    let above = best.iter().position(|point| point.0 >= recall)?;
    let (to, fast) = best[above];
    let Some(&(from, faster)) = above.checked_sub(1).and_then(|below| best.get(below)) else { return Some(fast) };
    let part = (recall - from) / (to - from);
    Some((faster.ln() + (fast.ln() - faster.ln()) * part).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_lie_between_those_measured() {
        let points = [(0.8, 1000.0), (0.9, 100.0), (0.98, 10.0)];
        let close = |recall: f64, expected: f64| {
            let rate = rate_at(&points, recall).unwrap();
            assert!((rate / expected - 1.0).abs() < 1e-9, "{recall}: {rate}, expected {expected}");
        };
        close(0.9, 100.0);
        close(0.85, 100_000f64.sqrt());
        close(0.94, 1000f64.sqrt());
        close(0.98, 10.0);
        // The least setting finds more: its rate, and never a guess beyond what was measured.
        close(0.5, 1000.0);
        assert_eq!(rate_at(&points, 0.981), None);
        assert_eq!(rate_at(&[], 0.9), None);
    }

    #[test]
    fn settings_that_another_beats_do_not_count() {
        let points = [(0.85, 50.0), (0.99, 10.0), (0.9, 100.0), (0.9, 90.0), (0.95, 5.0)];
        assert_eq!(rate_at(&points, 0.9), Some(100.0));
        assert_eq!(rate_at(&points, 0.85), Some(100.0));
        let between = rate_at(&points, 0.945).unwrap();
        assert!((between / 1000f64.sqrt() - 1.0).abs() < 1e-9, "{between}");
    }
}
