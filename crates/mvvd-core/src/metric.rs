//! The distances that two vectors can have, and the similarity that each one stands for.

use std::fmt;

/// How far apart two vectors are. Always a distance: smaller is nearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Euclidean distance, `<->`.
    L2,
    /// Square of the Euclidean distance: the same order as [`Metric::L2`] without the root.
    L2Squared,
    /// Negated inner product, `<#>`.
    Dot,
    /// One minus the cosine of the angle, `<=>`, from 0 to 2. NaN where either vector has no length.
    Cosine,
    /// Sum of absolute differences, `<+>`.
    L1,
    /// Number of differing bits, `<~>`. Bit vectors only.
    Hamming,
    /// One minus shared bits over all bits, `<%>`, from 0 to 1; 1 where no bit is shared. Bit vectors only.
    Jaccard,
}

impl Metric {
    /// Every metric, in the order of the documentation.
    pub const ALL: [Self; 7] =
        [Self::L2, Self::L2Squared, Self::Dot, Self::Cosine, Self::L1, Self::Hamming, Self::Jaccard];

    /// The name in options and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::L2 => "l2",
            Self::L2Squared => "l2_squared",
            Self::Dot => "dot",
            Self::Cosine => "cosine",
            Self::L1 => "l1",
            Self::Hamming => "hamming",
            Self::Jaccard => "jaccard",
        }
    }

    /// The metric that `text` names, in any case. `euclidean` is `l2` and `manhattan` is `l1`.
    pub fn parse(text: &str) -> Option<Self> {
        const ALIASES: [(&str, Metric); 2] = [("euclidean", Metric::L2), ("manhattan", Metric::L1)];
        let names = Self::ALL.map(|metric| (metric.name(), metric));
        let found = names.iter().chain(&ALIASES).find(|(name, _)| name.eq_ignore_ascii_case(text));
        found.map(|&(_, metric)| metric)
    }

    /// Whether this metric compares bit vectors; the others compare vectors of numbers.
    pub fn is_binary(self) -> bool {
        matches!(self, Self::Hamming | Self::Jaccard)
    }

    /// The similarity that `distance` stands for; larger is nearer.
    ///
    /// `cosine` and `jaccard` give 1 - d, `dot` gives the inner product, the others 1 / (1 + d).
    pub fn similarity(self, distance: f64) -> f64 {
        match self {
            Self::Cosine | Self::Jaccard => 1.0 - distance,
            // Not `-distance`: a product of 0 must not become -0.
            Self::Dot => 0.0 - distance,
            Self::L2 | Self::L2Squared | Self::L1 | Self::Hamming => 1.0 / (1.0 + distance),
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_in_any_case() {
        for metric in Metric::ALL {
            assert_eq!(Metric::parse(metric.name()), Some(metric));
            assert_eq!(Metric::parse(&metric.name().to_uppercase()), Some(metric));
        }
        assert_eq!(Metric::parse("Euclidean"), Some(Metric::L2));
        assert_eq!(Metric::parse("manhattan"), Some(Metric::L1));
        assert_eq!(Metric::parse("chebyshev"), None);
        assert_eq!(Metric::parse(""), None);
    }

    #[test]
    fn similarity_grows_as_distance_shrinks() {
        for metric in Metric::ALL {
            assert!(metric.similarity(0.25) > metric.similarity(0.5), "{metric}");
        }
        assert_eq!(Metric::L2.similarity(0.0), 1.0);
        assert_eq!(Metric::Cosine.similarity(0.25), 0.75);
        assert_eq!(Metric::Dot.similarity(-3.0), 3.0);
        assert!(Metric::Dot.similarity(0.0).is_sign_positive());
    }
}
