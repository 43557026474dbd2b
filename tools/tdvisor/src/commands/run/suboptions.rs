//! Options whose value has options of its own: `VALUE[,KEY[=TEXT]]...`.
//!
//! A comma that belongs to the value or a text is written twice, as QEMU has it.

/// A value, and the options behind it in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suboptions {
    /// What comes first.
    pub value: String,
    /// What follows.
    pub options: Vec<Suboption>,
}

/// A word behind a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suboption {
    /// What comes before the `=`, or all of it.
    pub key: String,
    /// What comes after the `=`.
    pub text: Option<String>,
}

impl Suboptions {
    /// Takes an option apart.
    ///
    /// # Errors
    /// There is no value, a word is empty, or a key comes twice.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut words = vec![String::new()];
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            if character == ',' && characters.next_if_eq(&',').is_none() {
                words.push(String::new());
            } else if let Some(word) = words.last_mut() {
                word.push(character);
            }
        }
        if words.iter().any(String::is_empty) {
            return Err("a word is missing at a comma (a comma in a name is written twice)".to_owned());
        }
        let mut words = words.into_iter();
        let value = words.next().unwrap_or_default();
        let mut options: Vec<Suboption> = Vec::new();
        for word in words {
            let (key, text) = match word.split_once('=') {
                Some((key, text)) => (key.to_owned(), Some(text.to_owned())),
                None => (word, None),
            };
            if options.iter().any(|option| option.key == key) {
                return Err(format!("'{key}' is there twice"));
            }
            options.push(Suboption { key, text });
        }
        Ok(Self { value, options })
    }
}

impl Suboption {
    /// What to say of an option that nobody knows.
    pub fn unknown(&self, known: &str) -> String {
        format!("'{}' is not known here: {known}", self.key)
    }

    /// The text of the suboption.
    ///
    /// # Errors
    /// It has none.
    pub fn text(&self) -> Result<&str, String> {
        self.text
            .as_deref()
            .filter(|text| !text.is_empty())
            .ok_or(format!("'{}' needs a value: {0}=…", self.key))
    }

    /// Checks that it has no text.
    ///
    /// # Errors
    /// It has one.
    pub fn bare(&self) -> Result<(), String> {
        self.text.is_none().then_some(()).ok_or(format!("'{}' has no value", self.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(key: &str, text: Option<&str>) -> Suboption {
        Suboption { key: key.to_owned(), text: text.map(str::to_owned) }
    }

    #[test]
    fn a_value_and_its_options_are_told_apart() {
        let all = Suboptions::parse("a,,b=c.img,ro,serial=x=y").unwrap();
        assert_eq!(all.value, "a,b=c.img");
        assert_eq!(all.options, [option("ro", None), option("serial", Some("x=y"))]);
        for bad in ["", ",ro", "a,", "a,ro,ro", "a,serial=1,serial=2"] {
            assert!(Suboptions::parse(bad).is_err(), "{bad:?}");
        }
    }
}
