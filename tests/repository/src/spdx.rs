//! Licence expressions as crates state them: SPDX's `AND`, `OR`, `WITH`, parentheses, and the `/` of old manifests.

/// Whether an expression can be satisfied by licences that are allowed. An exception is a part of its licence's name:
/// `Apache-2.0 WITH LLVM-exception` is allowed by that name only.
///
/// # Errors
/// One sentence where it is no expression.
pub fn is_allowed(expression: &str, allowed: &dyn Fn(&str) -> bool) -> Result<bool, String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words, allowed };
    let satisfied = parser.alternatives()?;
    match parser.words.first() {
        None => Ok(satisfied),
        Some(word) => Err(format!("'{word}' is one too many in '{expression}'")),
    }
}

struct Parser<'a> {
    words: &'a [&'a str],
    allowed: &'a dyn Fn(&str) -> bool,
}

impl<'a> Parser<'a> {
    fn take(&mut self, word: &str) -> bool {
        match self.words.split_first() {
            Some((first, rest)) if *first == word => {
                self.words = rest;
                true
            }
            _ => false,
        }
    }

    fn alternatives(&mut self) -> Result<bool, String> {
        let mut any = self.conjunction()?;
        while self.take("OR") {
            any |= self.conjunction()?;
        }
        Ok(any)
    }

    fn conjunction(&mut self) -> Result<bool, String> {
        let mut all = self.licence()?;
        while self.take("AND") {
            all &= self.licence()?;
        }
        Ok(all)
    }

    fn licence(&mut self) -> Result<bool, String> {
        if self.take("(") {
            let inner = self.alternatives()?;
            return if self.take(")") { Ok(inner) } else { Err("a parenthesis is not closed".into()) };
        }
        let name = self.word()?;
        if self.take("WITH") {
            let exception = self.word()?;
            return Ok((self.allowed)(&format!("{name} WITH {exception}")));
        }
        Ok((self.allowed)(name))
    }

    fn word(&mut self) -> Result<&'a str, String> {
        match self.words.split_first() {
            Some((word, rest)) if !["AND", "OR", "WITH", "(", ")"].contains(word) => {
                self.words = rest;
                Ok(word)
            }
            _ => Err("a licence's name is missing".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(expression: &str) -> Result<bool, String> {
        is_allowed(expression, &|name| ["MIT", "Apache-2.0", "Zlib", "X WITH Y"].contains(&name))
    }

    #[test]
    fn one_allowed_alternative_is_enough_and_every_part_of_a_conjunction_counts() {
        for (expression, expected) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("GPL-3.0/MIT", true),
            ("MIT AND GPL-3.0", false),
            ("MIT AND Zlib", true),
            ("(MIT OR GPL-3.0) AND GPL-3.0", false),
            ("(MIT OR GPL-3.0) AND (Zlib OR GPL-3.0)", true),
            ("GPL-3.0 AND MIT OR Zlib", true),
            ("X WITH Y", true),
            ("MIT WITH Y", false),
        ] {
            assert_eq!(judge(expression), Ok(expected), "{expression}");
        }
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for expression in ["", "MIT OR", "(MIT", "MIT MIT", "AND MIT", "MIT WITH"] {
            assert!(judge(expression).is_err(), "{expression}");
        }
    }
}
