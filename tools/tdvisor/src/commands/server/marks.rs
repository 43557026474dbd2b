//! Where a server stood when its console first said a text.

use clap::builder::NonEmptyStringValueParser;
use tdvisor_runtime::server::Marks;

/// Options for marks.
#[derive(Debug, clap::Args)]
pub struct MarkArgs {
    /// Say in the summary how many instructions the host and its TDs had executed when the console first said this text. May
    /// be given several times.
    #[arg(long = "mark", value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    marks: Vec<String>,
}

impl MarkArgs {
    /// The marks, none of them reached.
    pub fn marks(&self) -> Marks {
        Marks::at(self.marks.iter().cloned())
    }
}
