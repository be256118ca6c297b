//! Two words decide whether a backend gets traffic: what the evidence says and what the operator says.

use serde::{Deserialize, Serialize};

/// What the evidence says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// No verdict yet; requests wait for it rather than fail.
    Probing,
    /// Good.
    Up,
    /// Accused, not yet confirmed: used only when nothing better is left.
    Suspect,
    /// Dead: gets no requests.
    Down,
}

impl Health {
    /// The word of the CLI, logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Probing => "probing",
            Health::Up => "up",
            Health::Suspect => "suspect",
            Health::Down => "down",
        }
    }
}

/// What the operator says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Admin {
    /// May get traffic.
    #[default]
    Enabled,
    /// Finishes what it has, gets nothing new (sticky clients included).
    Draining,
    /// Gets nothing, is not probed.
    Disabled,
}

impl Admin {
    /// The word of the CLI, logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Admin::Enabled => "enabled",
            Admin::Draining => "draining",
            Admin::Disabled => "disabled",
        }
    }
}

impl std::fmt::Display for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::fmt::Display for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
