//! What is wrong with the environment, in words for the person who set it.

use std::fmt;

/// Longer values are cut in a fault's line.
const SHOWN_CHARS_MAX: usize = 120;

/// One thing that is wrong with one variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The variable's name.
    pub variable: String,
    /// What it is set to.
    pub value: String,
    /// What it should have been.
    pub expected: String,
    /// Whether nobody set it: it clashes, by its default, with something that is set.
    pub is_default: bool,
}

impl Fault {
    pub(super) fn new(variable: &str, value: &str, expected: impl Into<String>) -> Self {
        Self {
            variable: variable.to_owned(),
            value: value.to_owned(),
            expected: expected.into(),
            is_default: false,
        }
    }

    pub(super) fn of_default(mut self) -> Self {
        self.is_default = true;
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown: String = self.value.chars().take(SHOWN_CHARS_MAX).collect();
        if shown.len() < self.value.len() {
            shown.push('…');
        }
        let origin = match (self.is_default, self.value.is_empty()) {
            (true, true) => " (unset)".to_owned(),
            (true, false) => format!("={shown:?} (the default)"),
            (false, _) => format!("={shown:?}"),
        };
        write!(f, "{}{origin}: expected {}", self.variable, self.expected)
    }
}

/// Everything that is wrong with the environment: never empty, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn new(faults: Vec<Fault>) -> Self {
        assert!(!faults.is_empty(), "a refusal without a reason");
        Self(faults)
    }

    /// The faults, in the order in which they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, fault) in self.0.iter().enumerate() {
            if position > 0 {
                writeln!(f)?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
