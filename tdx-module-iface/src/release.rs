//! Releases of the module, as far as its ABI differs between them.

use core::fmt;

/// A release, in the order in which they appeared: what one brought, every later one has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Release {
    /// 1.5.01: the release that this crate's facts are of, unless an item says otherwise.
    V1_5_01,
    /// 1.5.05.
    V1_5_05,
    /// The late releases of 1.5.
    V1_5Late,
    /// 2.0.
    V2_0,
}

impl Release {
    /// Every release.
    pub const ALL: [Self; 4] = [Self::V1_5_01, Self::V1_5_05, Self::V1_5Late, Self::V2_0];

    /// Whether this release is `other` or a later one.
    pub const fn is_from(self, other: Self) -> bool {
        self as u8 >= other as u8
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_5_01 => "1.5.01",
            Self::V1_5_05 => "1.5.05",
            Self::V1_5Late => "late 1.5",
            Self::V2_0 => "2.0",
        })
    }
}
