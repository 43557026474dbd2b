//! One file per subcommand.

pub mod conformance;
pub mod decode;
pub mod measure;
pub mod run;
pub mod verify;
