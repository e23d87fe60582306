//! Text of others, file names above all, among our own.

/// Text in which nothing reaches a terminal as a command or a new line, or turns around what is beside it.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() || matches!(char, '\u{2028}' | '\u{2029}') || is_bidi_control(char) {
            printable.extend(char.escape_debug());
        } else {
            printable.push(char);
        }
    }
    printable
}

/// Whether a character formats text of both directions: Unicode's property `Bidi_Control`.
fn is_bidi_control(char: char) -> bool {
    matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_written_out() {
        assert_eq!(printable("a\n\x1b[2J\r\u{9b}\x7f\0"), r"a\n\u{1b}[2J\r\u{9b}\u{7f}\0");
        assert_eq!(printable("a\u{2028}\u{2029}"), r"a\u{2028}\u{2029}");
        assert_eq!(printable("\u{202e}zpn.npz\u{2066}\u{200f}\u{61c}"), r"\u{202e}zpn.npz\u{2066}\u{200f}\u{61c}");
        for text in ["é ü 中 שלום عربي 👩\u{200d}🔬 '\"\\", ""] {
            assert_eq!(printable(text), text);
        }
    }
}
