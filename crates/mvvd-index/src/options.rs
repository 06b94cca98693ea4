//! Options of an index, as in `WITH (m = 16)`: what there is, what is allowed, what holds where nothing is said.

use std::collections::BTreeMap;

use mvvd_core::{Error, Result};

/// One option of a kind of index.
#[derive(Debug, Clone, Copy)]
pub struct OptionSpec {
    /// Its name in `WITH (…)`, lower case.
    pub name: &'static str,
    /// What values it takes.
    pub choice: Choice,
    /// One sentence for the reference.
    pub about: &'static str,
}

/// The values of an option, and the one that holds where nothing is said.
#[derive(Debug, Clone, Copy)]
pub enum Choice {
    /// A whole number in a range, both ends included.
    Number {
        /// The smallest.
        min: u64,
        /// The largest.
        max: u64,
        /// The default; none if the index works it out from the data.
        default: Option<u64>,
    },
    /// One of some names; the first is the default.
    Name(&'static [&'static str]),
}

/// Options that were given and checked: names and values as text. What is not there has its default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    given: BTreeMap<String, String>,
}

impl Options {
    /// Checks `given` (names in any case) against `specs`. Errors name the option and list what is valid.
    pub fn parse<'a>(
        kind: &str,
        specs: &[OptionSpec],
        given: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self> {
        let mut options = BTreeMap::new();
        for (name, value) in given {
            let name = name.to_ascii_lowercase();
            let Some(spec) = specs.iter().find(|spec| spec.name == name) else {
                let names: Vec<&str> = specs.iter().map(|spec| spec.name).collect();
                let error = Error::invalid(format!("an index of type {kind} has no option \"{name}\""));
                return Err(match names.is_empty() {
                    true => error.with_hint("it has no options but metric"),
                    false => error.with_hint(format!("its options are metric, {}", names.join(", "))),
                });
            };
            let value = spec.check(value)?;
            if options.insert(name.clone(), value).is_some() {
                return Err(Error::invalid(format!("option \"{name}\" is given twice")));
            }
        }
        Ok(Self { given: options })
    }

    /// The options that were given, by name.
    pub fn given(&self) -> impl Iterator<Item = (&str, &str)> {
        self.given.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// A number that was given.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.given.get(name)?.parse().ok()
    }

    /// The name that was given.
    pub fn name(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(String::as_str)
    }
}

impl OptionSpec {
    fn check(&self, value: &str) -> Result<String> {
        let name = self.name;
        match self.choice {
            Choice::Number { min, max, .. } => match value.parse::<u64>() {
                Ok(number) if (min..=max).contains(&number) => Ok(number.to_string()),
                _ => Err(Error::invalid(format!("option \"{name}\" must be between {min} and {max}, got {value}"))),
            },
            Choice::Name(names) => match names.iter().find(|known| known.eq_ignore_ascii_case(value)) {
                Some(known) => Ok((*known).to_owned()),
                None => {
                    Err(Error::invalid(format!("option \"{name}\" must be one of {}, got {value}", names.join(", "))))
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECS: [OptionSpec; 2] = [
        OptionSpec { name: "m", choice: Choice::Number { min: 4, max: 64, default: Some(16) }, about: "" },
        OptionSpec { name: "codes", choice: Choice::Name(&["rabitq", "sq8"]), about: "" },
    ];

    #[test]
    fn values_are_checked_and_named() {
        let parse = |given: &[(&str, &str)]| Options::parse("hnsw", &SPECS, given.iter().copied());
        let options = parse(&[("M", "8"), ("codes", "SQ8")]).unwrap();
        assert_eq!((options.number("m"), options.name("codes")), (Some(8), Some("sq8")));
        assert_eq!(parse(&[]).unwrap().number("m"), None);
        let message = |given: &[(&str, &str)]| parse(given).unwrap_err().to_string();
        assert_eq!(message(&[("m", "65")]), "option \"m\" must be between 4 and 64, got 65");
        assert_eq!(message(&[("m", "x")]), "option \"m\" must be between 4 and 64, got x");
        assert_eq!(message(&[("codes", "pq")]), "option \"codes\" must be one of rabitq, sq8, got pq");
        assert_eq!(message(&[("m", "8"), ("M", "9")]), "option \"m\" is given twice");
        assert_eq!(parse(&[("n", "1")]).unwrap_err().hint(), Some("its options are metric, m, codes"));
    }
}
