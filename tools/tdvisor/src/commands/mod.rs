//! One file per subcommand.

pub mod conformance;
pub mod decode;
pub mod eventlog;
pub mod measure;
pub mod quote;
pub mod run;
pub mod verify;
