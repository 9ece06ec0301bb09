//! How pages look that the commands print: in colour on a terminal, plain in a pipe.

/// What a piece of text is painted with.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub enum Paint {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Cyan,
}

impl Paint {
    /// The text in this colour; as it is where nobody sees colours.
    pub fn on(self, text: &str, coloured: bool) -> String {
        if !coloured {
            return text.to_owned();
        }
        // SGR, ECMA-48 §8.3.117.
        let code = match self {
            Paint::Bold => 1,
            Paint::Dim => 2,
            Paint::Red => 31,
            Paint::Green => 32,
            Paint::Yellow => 33,
            Paint::Cyan => 36,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Text that somebody else wrote: nothing of it steers the terminal.
pub fn safe(text: &str) -> String {
    text.chars().map(|one| if one.is_control() { '�' } else { one }).collect()
}

/// How far lines stand in below one with a mark, a blank and a title of twelve.
pub const INDENT: usize = 14;
