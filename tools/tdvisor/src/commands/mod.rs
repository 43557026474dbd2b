//! One file per subcommand.

pub mod conformance;
pub mod measure;
pub mod verify;
