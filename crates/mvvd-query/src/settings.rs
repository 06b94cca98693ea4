//! What a session can `SET`: names, defaults, ranges, and how they travel to the planner.

use std::any::Any;

use datafusion::common::config::{ConfigEntry, ConfigExtension, ExtensionOptions};
use mvvd_core::{Error, Result};

/// The settings of one session. Plain values; units stand in the names.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Candidates that a graph search keeps; none leaves it to `recall_target`.
    pub ef_search: Option<u64>,
    /// Lists that a search over lists visits; none leaves it to `recall_target`.
    pub nprobe: Option<u64>,
    /// Answer every query exactly.
    pub exact: bool,
    /// Let indexes answer; `false` makes the same SQL its own oracle.
    pub use_index: bool,
    /// Share of the true top k that an approximate answer aims at.
    pub recall_target: f64,
    /// Only indexes of this kind answer: what a search function asks for. Not to be set by users.
    pub(crate) index_kind: Option<&'static str>,
    /// The statement changes the rows that it finds, or keeps them elsewhere. Not to be set by users.
    pub(crate) keeps_rows: bool,
    /// Run `ORDER BY … LIMIT k` over a table as one operator; `false` sorts all rows instead.
    pub use_topk: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ef_search: None,
            nprobe: None,
            exact: false,
            use_index: true,
            recall_target: 0.95,
            index_kind: None,
            keeps_rows: false,
            use_topk: true,
        }
    }
}

/// One setting as users see it.
#[derive(Debug)]
pub struct Setting {
    /// Name without the `mvvd.` before it.
    pub name: &'static str,
    /// What it does.
    pub description: &'static str,
    get: fn(&Settings) -> String,
    set: fn(&mut Settings, &str) -> Result<(), &'static str>,
}

/// All settings, in order of their names.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "ef_search",
        description: "candidates that a graph search keeps, 1 to 100000, or auto, which follows recall_target; more is \
                      slower and finds more",
        get: |s| or_auto(s.ef_search),
        set: |s, text| effort(text).map(|v| s.ef_search = v).ok_or(EFFORT),
    },
    Setting {
        name: "exact",
        description: "answer every query exactly, whatever indexes there are",
        get: |s| s.exact.to_string(),
        set: |s, text| boolean(text).map(|v| s.exact = v).ok_or("true or false"),
    },
    Setting {
        name: "nprobe",
        description: "lists that a search over lists visits, 1 to 100000, or auto, which follows recall_target; more is \
                      slower and finds more",
        get: |s| or_auto(s.nprobe),
        set: |s, text| effort(text).map(|v| s.nprobe = v).ok_or(EFFORT),
    },
    Setting {
        name: "recall_target",
        description: "share of the true top k that an approximate answer aims at, above 0 and at most 1",
        get: |s| s.recall_target.to_string(),
        set: |s, text| {
            let value = text.parse().ok().filter(|v| *v > 0.0 && *v <= 1.0);
            value.map(|v| s.recall_target = v).ok_or("a number above 0 and at most 1")
        },
    },
    Setting {
        name: "use_index",
        description: "let indexes answer; false makes the same statement scan every row",
        get: |s| s.use_index.to_string(),
        set: |s, text| boolean(text).map(|v| s.use_index = v).ok_or("true or false"),
    },
    Setting {
        name: "use_topk",
        description: "run ORDER BY with LIMIT over a table as one operator; false sorts all rows instead",
        get: |s| s.use_topk.to_string(),
        set: |s, text| boolean(text).map(|v| s.use_topk = v).ok_or("true or false"),
    },
];

impl Settings {
    /// The value of a setting as text.
    pub fn get(&self, name: &str) -> Result<String> {
        Ok((setting(name)?.get)(self))
    }

    /// Changes a setting; a value out of range is an error that names the range.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let setting = setting(name)?;
        (setting.set)(self, value)
            .map_err(|range| Error::invalid(format!("mvvd.{} must be {range}, got \"{value}\"", setting.name)))
    }

    /// Back to the default.
    pub fn reset(&mut self, name: &str) -> Result<()> {
        let default = Self::default().get(name)?;
        self.set(name, &default)
    }
}

fn setting(name: &str) -> Result<&'static Setting> {
    SETTINGS.iter().find(|s| s.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
        let names: Vec<String> = SETTINGS.iter().map(|s| format!("mvvd.{}", s.name)).collect();
        Error::not_found(format!("setting \"mvvd.{name}\" does not exist"))
            .with_hint(format!("the settings are {}", names.join(", ")))
    })
}

const EFFORT_MAX: u64 = 100_000;
const EFFORT: &str = "a whole number from 1 to 100000, or auto";
const AUTO: &str = "auto";

/// A number, or none for `auto`.
fn effort(text: &str) -> Option<Option<u64>> {
    if text.eq_ignore_ascii_case(AUTO) {
        return Some(None);
    }
    text.parse().ok().filter(|v| (1..=EFFORT_MAX).contains(v)).map(Some)
}

fn or_auto(value: Option<u64>) -> String {
    value.map_or_else(|| AUTO.to_owned(), |v| v.to_string())
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Some(true),
        "false" | "off" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// Carries the settings inside DataFusion's configuration, where rules and functions can see them.
impl ConfigExtension for Settings {
    const PREFIX: &'static str = "mvvd";
}

impl ExtensionOptions for Settings {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, value: &str) -> datafusion::common::Result<()> {
        Settings::set(self, key, value).map_err(crate::error::to_df)
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        SETTINGS
            .iter()
            .map(|s| ConfigEntry {
                key: format!("mvvd.{}", s.name),
                value: Some((s.get)(self)),
                description: s.description,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_and_reset() {
        let mut s = Settings::default();
        s.set("ef_search", "200").unwrap();
        s.set("EXACT", "on").unwrap();
        assert_eq!((s.ef_search, s.exact), (Some(200), true));
        s.set("nprobe", "7").unwrap();
        s.set("nprobe", "AUTO").unwrap();
        assert_eq!(s.nprobe, None);
        assert!(s.set("nprobe", "0").is_err());
        assert_eq!(
            s.set("recall_target", "1.5").unwrap_err().to_string(),
            "mvvd.recall_target must be a number above 0 and at most 1, got \"1.5\""
        );
        assert!(s.set("recall_target", "NaN").is_err());
        assert!(s.set("nothing", "1").unwrap_err().hint().unwrap().contains("mvvd.ef_search"));
        s.reset("ef_search").unwrap();
        s.reset("exact").unwrap();
        assert_eq!(s, Settings::default());
    }
}
