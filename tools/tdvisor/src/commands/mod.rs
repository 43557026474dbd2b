//! One file per subcommand.

pub mod conformance;
