//! Explanations: statuses, leaves and whole calls in words, without allocation.
//!
//! Everything here is a value that implements [`Display`](core::fmt::Display).

mod call;
mod leaf;
mod value;

pub use call::CallRecord;
pub use leaf::LeafCard;
pub use value::Value;

use crate::leaf::{LeafInfo, TDG, TDH};
use crate::status::Status;

/// Which instruction a leaf number belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    /// SEAMCALL.
    Host,
    /// TDCALL.
    Guest,
}

impl Side {
    /// The leaves of this side.
    pub const fn table(self) -> &'static [LeafInfo] {
        match self {
            Self::Host => TDH,
            Self::Guest => TDG,
        }
    }

    /// Whether the number belongs to TDX Connect (module 2.0). Those leaves are known by number only.
    pub const fn is_tdx_connect(self, number: u16) -> bool {
        match self {
            Self::Host => matches!(number, 128..=140 | 150..=166),
            Self::Guest => matches!(number, 64..=72),
        }
    }

    /// What is known about a leaf number of this side.
    pub fn leaf(self, number: u16) -> Option<&'static LeafInfo> {
        self.table().iter().find(|info| info.number == number)
    }
}

/// A value of RAX on return, in one line.
pub const fn explain_status(rax: u64) -> Status {
    Status::from_raw(rax)
}

/// A leaf: what it does, its registers, and when it is allowed. `None` for a number that no module has.
pub fn explain_leaf(side: Side, number: u16) -> Option<LeafCard> {
    side.leaf(number).map(|info| LeafCard { side, info })
}
