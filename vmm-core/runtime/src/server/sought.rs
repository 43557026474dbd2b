//! A text that is sought in what a console prints, however that is cut.

/// A text that was not seen yet.
#[derive(Debug)]
pub(crate) struct Sought {
    /// Empty once it was seen, or if nothing is to be seen.
    text: Vec<u8>,
    /// The end of what was printed: less than the text.
    recent: Vec<u8>,
}

impl Sought {
    /// Seeks a text; nothing if it is empty.
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.as_bytes().to_vec(), recent: Vec::new() }
    }

    /// Whether the text was seen with these bytes, for the first time.
    pub(crate) fn found_in(&mut self, bytes: &[u8]) -> bool {
        if self.text.is_empty() {
            return false;
        }
        self.recent.extend(bytes);
        if self.recent.windows(self.text.len()).any(|window| window == self.text) {
            self.text.clear();
            return true;
        }
        let surplus = (self.recent.len() + 1).saturating_sub(self.text.len());
        self.recent.drain(..surplus);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str, printed: &[&str]) -> usize {
        let mut sought = Sought::new(text);
        printed.iter().filter(|bytes| sought.found_in(bytes.as_bytes())).count()
    }

    #[test]
    fn a_text_is_seen_once_however_the_console_is_cut() {
        assert_eq!(seen("ready", &["re", "ready"]), 1);
        assert_eq!(seen("ready", &["r", "e", "a", "d", "y", "!"]), 1);
        assert_eq!(seen("aab", &["aa", "aab"]), 1);
        assert_eq!(seen("ready", &["ready", "ready"]), 1);
        assert_eq!(seen("ready", &["read", "x", "y"]), 0);
        assert_eq!(seen("", &["read"]), 0);
    }
}
