//! What PTX is written for.

use std::fmt;

/// A PTX version and an architecture. Code of one flavour runs on that architecture; `Sm80` code
/// also on every later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flavour {
    /// `.version 7.8`, `.target sm_80`: Ampere and everything after it.
    Sm80,
    /// `.version 8.0`, `.target sm_90a`: Hopper alone.
    Sm90a,
}

impl Flavour {
    /// Every flavour, the most portable first.
    pub const ALL: [Flavour; 2] = [Flavour::Sm80, Flavour::Sm90a];

    /// The name a user gives it by, which is PTX's name of the architecture.
    pub const fn name(self) -> &'static str {
        match self {
            Flavour::Sm80 => "sm_80",
            Flavour::Sm90a => "sm_90a",
        }
    }

    /// The flavour of that name.
    pub fn from_name(name: &str) -> Option<Flavour> {
        Flavour::ALL.into_iter().find(|f| f.name() == name)
    }

    /// Major and minor number of its PTX version.
    pub const fn version(self) -> (u32, u32) {
        match self {
            Flavour::Sm80 => (7, 8),
            Flavour::Sm90a => (8, 0),
        }
    }

    /// The compute capability it is for.
    pub const fn capability(self) -> (u32, u32) {
        match self {
            Flavour::Sm80 => (8, 0),
            Flavour::Sm90a => (9, 0),
        }
    }

    /// Whether it runs on that compute capability alone, rather than on every later one.
    pub const fn is_exact(self) -> bool {
        matches!(self, Flavour::Sm90a)
    }

    /// The first CUDA whose drivers know its PTX version.
    pub const fn cuda(self) -> (u32, u32) {
        match self {
            Flavour::Sm80 => (11, 8),
            Flavour::Sm90a => (12, 0),
        }
    }

    /// The most shared memory that a block may have, in bytes.
    pub const fn max_shared(self) -> u32 {
        match self {
            Flavour::Sm80 => 163 * 1024,
            Flavour::Sm90a => 227 * 1024,
        }
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
