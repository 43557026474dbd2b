//! The inspector: a saved run, or a TD that is paused, as one HTML page that needs neither a network nor a program beside a browser.
//!
//! For a guest-physical address it shows the mirror's entry, the Secure EPT's and the PAMT's beside each other with the
//! differing bits marked, and below them every call that touched the address; the address space as a map; a lane of exits for
//! each vCPU; and how the TD ended, with what that means.
//!
//! [`trace_events()`] is the same run as a time line for Perfetto, [`folded()`] where a guest spends its instructions.
//!
//! The page is three files in `src/page`, written by hand, and the run's data as JSON (`data`, version [`SCHEMA`]). What is
//! shown is what host and module know: where pages are and who owns them, never what is in them.

#![forbid(unsafe_code)]

mod about;
mod calls;
mod data;
mod folded;
mod trace_events;
mod tracks;

use serde_json::Value;
use tdvisor_runtime::inspect::Inspection;

pub use about::About;
pub use data::entry;
pub use folded::{Symbols, folded};
pub use trace_events::trace_events;

/// The version of the data in the page. It changes when a field goes away or means something else.
pub const SCHEMA: u32 = 1;

/// The page.
pub fn page(inspection: &Inspection, about: &About) -> String {
    include_str!("page/inspector.html")
        .replace("@CSS@", include_str!("page/inspector.css"))
        .replace("@SCRIPT@", include_str!("page/inspector.js"))
        .replace("@DATA@", &embedded(&data::data(inspection, about)))
}

/// JSON that cannot end the element it stands in.
fn embedded(data: &Value) -> String {
    data.to_string().replace('<', "\\u003c")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_a_guest_ends_the_element_that_holds_the_data() {
        let text = embedded(&serde_json::json!({"text": "</script><script>alert(1)</script>"}));
        assert!(!text.contains('<'), "{text}");
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap()["text"],
            "</script><script>alert(1)</script>"
        );
    }

    #[test]
    fn the_page_asks_nobody_for_anything() {
        let page = include_str!("page/inspector.html");
        assert!(page.contains("default-src 'none'"));
        for file in [page, include_str!("page/inspector.js"), include_str!("page/inspector.css")] {
            for word in ["http:", "https:", "src=", "@import", "fetch(", "XMLHttpRequest", "url("] {
                assert!(!file.contains(word), "{word}");
            }
        }
    }
}
