//! Tags and their attributes, which is all of XML that `xclbinutil` writes.

use super::XclbinError;

/// Characters of a wrong place that are shown.
const SHOWN: usize = 40;

/// The tags of a document, one after the other; text, comments and declarations are passed over.
pub(super) struct Tags<'a> {
    document: &'a str,
    /// Where the next one is looked for.
    at: usize,
}

impl<'a> Tags<'a> {
    /// Of a section, which may be filled up with zeros.
    pub(super) fn of(section: &'a [u8]) -> Result<Self, XclbinError> {
        let end = section.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        let document = str::from_utf8(&section[..end]).map_err(|error| {
            let offset = error.valid_up_to();
            XclbinError::Kernels { offset, got: format!("byte {:#04x}", section[offset]), expected: "UTF-8" }
        })?;
        Ok(Self { document, at: 0 })
    }

    fn next_tag(&mut self) -> Result<Option<Tag<'a>>, XclbinError> {
        while let Some(start) = self.document[self.at..].find('<') {
            let offset = self.at + start;
            let rest = &self.document[offset..];
            let end = |mark: &str, expected| match rest.find(mark) {
                Some(end) => Ok(end + mark.len()),
                None => Err(error(offset, rest, expected)),
            };
            let passed = if rest.starts_with("<!--") {
                end("-->", "a comment with an end")?
            } else if rest.starts_with("<![CDATA[") {
                end("]]>", "CDATA with an end")?
            } else if rest.starts_with("<?") {
                end("?>", "a declaration with an end")?
            } else {
                let tag = Tag::of(offset, rest)?;
                self.at = offset + tag.text.len();
                if tag.name.starts_with('!') {
                    continue;
                }
                return Ok(Some(tag));
            };
            self.at = offset + passed;
        }
        self.at = self.document.len();
        Ok(None)
    }
}

impl<'a> Iterator for Tags<'a> {
    type Item = Result<Tag<'a>, XclbinError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_tag().transpose()
    }
}

/// A tag: `<name attribute="value">`, `</name>` or, empty, `<name/>`.
pub(super) struct Tag<'a> {
    offset: usize,
    /// All of it.
    text: &'a str,
    /// With a slash before it in an end tag.
    pub(super) name: &'a str,
    /// No end tag will come.
    pub(super) is_empty: bool,
    attributes: &'a str,
}

impl<'a> Tag<'a> {
    /// The tag that `text`, at `offset` in the document, starts with.
    fn of(offset: usize, text: &'a str) -> Result<Self, XclbinError> {
        let mut quote = None;
        let end = text.find(|c| {
            match quote {
                Some(open) if open == c => quote = None,
                None if c == '"' || c == '\'' => quote = Some(c),
                _ => {}
            }
            quote.is_none() && c == '>'
        });
        let end = end.ok_or_else(|| error(offset, text, "a tag with an end"))?;
        let inner = &text[1..end];
        let is_empty = inner.ends_with('/');
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        let (name, attributes) = inner.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((inner, ""));
        Ok(Self { offset, text: &text[..=end], name, is_empty, attributes })
    }

    /// An attribute as it is written; none if there is no such attribute.
    fn raw(&self, attribute: &str) -> Result<Option<&'a str>, XclbinError> {
        let mut rest = self.attributes.trim_ascii();
        while !rest.is_empty() {
            let value = rest.split_once('=').and_then(|(name, rest)| {
                let rest = rest.trim_ascii_start();
                let quote = rest.chars().next().filter(|c| ['"', '\''].contains(c))?;
                let (value, rest) = rest[1..].split_once(quote)?;
                Some((name.trim_ascii(), value, rest.trim_ascii_start()))
            });
            let Some((name, value, behind)) = value else { return Err(self.error("attributes, name=\"value\"")) };
            if name == attribute {
                return Ok(Some(value));
            }
            rest = behind;
        }
        Ok(None)
    }

    /// The text of an attribute; none if there is no such attribute.
    pub(super) fn text(&self, attribute: &str) -> Result<Option<String>, XclbinError> {
        let Some(raw) = self.raw(attribute)? else { return Ok(None) };
        let mut parts = raw.split('&');
        let mut text = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (character, rest) = part
                .split_once(';')
                .and_then(|(name, rest)| Some((character(name)?, rest)))
                .ok_or_else(|| self.error("&amp;, &lt;, &gt;, &quot;, &apos; or the number of a character"))?;
            text.push(character);
            text.push_str(rest);
        }
        Ok(Some(text))
    }

    /// The text of an attribute that has to be there.
    pub(super) fn required(&self, attribute: &str, expected: &'static str) -> Result<String, XclbinError> {
        self.text(attribute)?.filter(|text| !text.is_empty()).ok_or_else(|| self.error(expected))
    }

    /// A number as C writes it: decimal, `0x` and hexadecimal, or `0` and octal; none if there is no such attribute, or it is
    /// empty.
    pub(super) fn number(&self, attribute: &str) -> Result<Option<u64>, XclbinError> {
        let Some(raw) = self.raw(attribute)?.filter(|raw| !raw.is_empty()) else { return Ok(None) };
        let (digits, radix) = match raw.as_bytes() {
            [b'0', b'x' | b'X', ..] => (&raw[2..], 16),
            [b'0', _, ..] => (&raw[1..], 8),
            _ => (raw, 10),
        };
        // No sign.
        let is_number = digits.bytes().all(|c| c.is_ascii_hexdigit());
        let number = u64::from_str_radix(digits, radix).ok().filter(|_| is_number);
        number.map(Some).ok_or_else(|| self.error("numbers of at most 64 bits"))
    }

    /// The tag is not as expected.
    pub(super) fn error(&self, expected: &'static str) -> XclbinError {
        error(self.offset, self.text, expected)
    }
}

/// What stands between `&` and `;`.
fn character(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let number = match number.strip_prefix('x') {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => number.parse(),
            };
            char::from_u32(number.ok()?)
        }
    }
}

fn error(offset: usize, text: &str, expected: &'static str) -> XclbinError {
    XclbinError::Kernels { offset, got: text.chars().take(SHOWN).collect(), expected }
}
