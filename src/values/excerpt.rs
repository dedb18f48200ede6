//! What errors quote of a text that may be long.

use std::fmt;

/// The number of characters of a text that an error quotes.
const LONGEST: usize = 100;

/// The beginning of a text, as an error quotes it: its first [`LONGEST`] characters, and whether
/// there are more.
///
/// Making it takes no longer for a long text.
#[derive(Clone, Copy)]
pub(crate) struct Excerpt<'a> {
    text: &'a str,
    is_cut: bool,
}

impl<'a> Excerpt<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        match text.char_indices().nth(LONGEST) {
            Some((end, _)) => Self { text: &text[..end], is_cut: true },
            None => Self { text, is_cut: false },
        }
    }

    /// An excerpt that was kept as its parts.
    pub(super) fn from_parts(text: &'a str, is_cut: bool) -> Self {
        Self { text, is_cut }
    }

    /// The beginning of the text.
    pub(crate) fn text(&self) -> &'a str {
        self.text
    }

    /// Whether the text goes on.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// What stands after the quoted beginning: `…` if the text goes on, otherwise nothing.
    pub(crate) fn mark(&self) -> &'static str {
        if self.is_cut { "\u{2026}" } else { "" }
    }
}

/// Without quotes.
impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, self.mark())
    }
}

/// In quotes, escaped. The mark stands after them, so that it is not taken for a part of the text.
impl fmt::Debug for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{}", self.text, self.mark())
    }
}

#[cfg(test)]
mod tests {
    use super::Excerpt;

    #[test]
    fn a_text_is_cut_between_characters_and_only_if_it_is_too_long() {
        for letter in ["a", "\u{e9}", "\u{1f980}", "\u{301}"] {
            for (count, kept, mark) in
                [(0, 0, ""), (1, 1, ""), (100, 100, ""), (101, 100, "\u{2026}")]
            {
                let text = letter.repeat(count);
                let excerpt = Excerpt::of(&text);
                assert_eq!(excerpt.to_string(), format!("{}{mark}", letter.repeat(kept)));
                assert_eq!(format!("{excerpt:?}"), format!("{:?}{mark}", letter.repeat(kept)));
            }
        }
    }
}
