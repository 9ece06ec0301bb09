//! The words of a command line, as a POSIX shell and bash divide them, without running anything.

/// The words, and what was left out or taken otherwise than a shell would.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// Bytes, since `$'\xff'` is one.
    pub words: Vec<Vec<u8>>,
    /// In sentences.
    pub notes: Vec<String>,
}

/// Divides a line at blanks outside of quotes. The error says what cannot be followed.
pub fn words(line: &str) -> Result<Words, String> {
    let mut reading = Reading { rest: line, word: None, out: Words::default() };
    while let Some(one) = reading.next() {
        match one {
            ' ' | '\t' | '\n' | '\r' => reading.end(),
            '\\' => match reading.next() {
                // A line goes on behind it; captures from elsewhere have CR LF.
                Some('\n') => {}
                Some('\r') if reading.rest.starts_with('\n') => {
                    reading.next();
                }
                Some(other) => reading.push(other),
                None => {}
            },
            '\'' => {
                let inside = reading.until('\'')?;
                reading.bytes(inside.as_bytes());
            }
            '"' => reading.double()?,
            '$' if reading.rest.starts_with('\'') => {
                reading.next();
                reading.ansi()?;
            }
            '$' => reading.dollar()?,
            '`' => return Err(SUBSTITUTION.to_owned()),
            '#' if reading.word.is_none() => {
                reading.until('\n').unwrap_or_default();
            }
            '|' | ';' | '&' | '<' | '>' => {
                reading.out.notes.push(format!("what stands behind `{one}` is another command, and left out"));
                break;
            }
            other => reading.push(other),
        }
    }
    reading.end();
    Ok(reading.out)
}

const SUBSTITUTION: &str =
    "the line has a command in it (`…` or $(…)), which is not run; put what it gives in its place";

struct Reading<'a> {
    rest: &'a str,
    word: Option<Vec<u8>>,
    out: Words,
}

impl<'a> Reading<'a> {
    fn next(&mut self) -> Option<char> {
        let mut rest = self.rest.chars();
        let one = rest.next();
        self.rest = rest.as_str();
        one
    }

    fn push(&mut self, one: char) {
        self.bytes(one.encode_utf8(&mut [0; 4]).as_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.word.get_or_insert_default().extend_from_slice(bytes);
    }

    fn end(&mut self) {
        self.out.words.extend(self.word.take());
    }

    fn until(&mut self, end: char) -> Result<&'a str, String> {
        let (inside, behind) = self.rest.split_once(end).ok_or_else(|| format!("the line ends within {end}…{end}"))?;
        self.rest = behind;
        Ok(inside)
    }

    fn double(&mut self) -> Result<(), String> {
        self.bytes(b"");
        loop {
            match self.next().ok_or("the line ends within \"…\"")? {
                '"' => return Ok(()),
                '\\' => match self.next() {
                    Some('\n') => {}
                    Some(one @ ('"' | '\\' | '$' | '`')) => self.push(one),
                    Some(other) => {
                        self.push('\\');
                        self.push(other);
                    }
                    None => {}
                },
                '$' => self.dollar()?,
                '`' => return Err(SUBSTITUTION.to_owned()),
                other => self.push(other),
            }
        }
    }

    fn dollar(&mut self) -> Result<(), String> {
        if self.rest.starts_with('(') {
            return Err(SUBSTITUTION.to_owned());
        }
        let name = self.rest.trim_start_matches('{');
        let end = name.find(|one: char| !one.is_ascii_alphanumeric() && one != '_').unwrap_or(name.len());
        if let Some(name) = name.get(..end).filter(|name| !name.is_empty()) {
            self.out.notes.push(format!("the variable ${name} stands for itself; put its value in its place"));
        }
        self.push('$');
        Ok(())
    }

    /// `$'…'`, as bash and zsh read it.
    fn ansi(&mut self) -> Result<(), String> {
        self.bytes(b"");
        loop {
            match self.next().ok_or("the line ends within $'…'")? {
                '\'' => return Ok(()),
                '\\' => match self.next().ok_or("the line ends within $'…'")? {
                    'n' => self.push('\n'),
                    'r' => self.push('\r'),
                    't' => self.push('\t'),
                    'a' => self.push('\x07'),
                    'b' => self.push('\x08'),
                    'e' | 'E' => self.push('\x1b'),
                    'f' => self.push('\x0c'),
                    'v' => self.push('\x0b'),
                    'x' => {
                        let byte = self.digits(16, 2);
                        self.bytes(&[u8::try_from(byte).unwrap_or_default()]);
                    }
                    'u' => self.character(4),
                    'U' => self.character(8),
                    first @ '0'..='7' => {
                        let more = self.digits_from(first.to_digit(8).unwrap_or_default(), 8, 2);
                        self.bytes(&[u8::try_from(more & 0xff).unwrap_or_default()]);
                    }
                    other @ ('\\' | '\'' | '"' | '?') => self.push(other),
                    other => {
                        self.push('\\');
                        self.push(other);
                    }
                },
                other => self.push(other),
            }
        }
    }

    /// A code unit; two halves of a pair, as browsers write them, are one character.
    fn character(&mut self, most: usize) {
        let first = self.digits(16, most);
        let second = self.rest.strip_prefix("\\u").filter(|_| (0xd800..0xdc00).contains(&first));
        let mut code = first;
        if let Some(low) = second.and_then(|rest| u32::from_str_radix(rest.get(..4)?, 16).ok())
            && (0xdc00..0xe000).contains(&low)
        {
            self.rest = self.rest.get(6..).unwrap_or_default();
            code = 0x10000 + ((first - 0xd800) << 10) + (low - 0xdc00);
        }
        self.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
    }

    fn digits(&mut self, radix: u32, most: usize) -> u32 {
        self.digits_from(0, radix, most)
    }

    fn digits_from(&mut self, start: u32, radix: u32, most: usize) -> u32 {
        let mut sum = start;
        for _ in 0..most {
            let Some(digit) = self.rest.chars().next().and_then(|one| one.to_digit(radix)) else { break };
            sum = sum.wrapping_mul(radix).wrapping_add(digit);
            self.next();
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_divided_as_a_shell_does() {
        let cases: [(&str, &[&[u8]]); 10] = [
            ("curl  a\tb", &[b"curl", b"a", b"b"]),
            ("a 'b c'd \"e f\"", &[b"a", b"b cd", b"e f"]),
            ("a \\\n b \\\r\n c", &[b"a", b"b", b"c"]),
            (r#"'it'\''s' "a\"b\\c\d""#, &[b"it's", br#"a"b\c\d"#]),
            (r"a\ b", &[b"a b"]),
            ("'' \"\" $''", &[b"", b"", b""]),
            (r"$'a\n\t\'\x41\101\u00e9\xff'", &[b"a\n\t'AA\xc3\xa9\xff"]),
            (r"$'\ud83d\ude00'", &["😀".as_bytes()]),
            ("a # b\nc", &[b"a", b"c"]),
            ("a#b", &[b"a#b"]),
        ];
        for (line, expected) in cases {
            assert_eq!(words(line).unwrap().words, expected, "{line}");
        }
    }

    #[test]
    fn nothing_is_run_and_nothing_is_left_out_without_a_word() {
        for line in ["a $(id)", "a `id`", "\"$(id)\"", "'a", "\"a", "$'a"] {
            assert!(words(line).is_err(), "{line}");
        }
        for (line, note) in
            [("a $TOKEN", "$TOKEN"), ("a \"${TOKEN}\"", "$TOKEN"), ("a | jq .", "`|`"), ("a & b", "`&`")]
        {
            assert!(words(line).unwrap().notes[0].contains(note), "{line}");
        }
    }
}
