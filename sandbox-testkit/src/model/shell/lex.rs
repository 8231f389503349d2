//! Takes a script apart into words and operators.
//!
//! Invariant: what stands in quotes is never an operator and never split.

/// A part of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Text; whether it was quoted.
    Text(Vec<u8>, bool),
    /// `$NAME`; whether it was quoted.
    Var(Vec<u8>, bool),
    /// `$(SCRIPT)`; whether it was quoted.
    Script(Vec<u8>, bool),
    /// `$((EXPRESSION))`.
    Sum(Vec<u8>),
}

/// A word before expansion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Word(pub(crate) Vec<Part>);

impl Word {
    /// The text of a word in which nothing is quoted or expanded: a keyword or a name.
    pub(crate) fn bare(&self) -> Option<&[u8]> {
        match self.0.as_slice() {
            [Part::Text(text, false)] => Some(text),
            _ => None,
        }
    }

    /// `NAME=VALUE`, if it is that.
    pub(crate) fn assignment(&self) -> Option<(Vec<u8>, Word)> {
        let Some(Part::Text(text, false)) = self.0.first() else {
            return None;
        };
        let equals = text.iter().position(|b| *b == b'=')?;
        let name = &text[..equals];
        let starts = name
            .first()
            .is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_');
        if !starts || !name.iter().all(|b| is_name(*b)) {
            return None;
        }
        let mut parts = vec![Part::Text(text[equals + 1..].to_vec(), true)];
        parts.extend_from_slice(&self.0[1..]);
        Some((name.to_vec(), Word(parts)))
    }
}

/// A token of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Word(Word),
    Op(&'static str),
    /// Descriptor and operator.
    Redirect(u8, &'static str),
}

fn is_name(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

/// The tokens of a script.
pub(crate) fn lex(script: &[u8]) -> Result<Vec<Token>, String> {
    let mut lexer = Lexer { script, at: 0 };
    let mut tokens = Vec::new();
    while let Some(token) = lexer.token()? {
        tokens.push(token);
    }
    Ok(tokens)
}

struct Lexer<'a> {
    script: &'a [u8],
    at: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &[u8] {
        &self.script[self.at..]
    }

    fn next(&mut self) -> Option<u8> {
        let byte = *self.script.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn token(&mut self) -> Result<Option<Token>, String> {
        loop {
            match self.rest() {
                [b' ' | b'\t', ..] => self.at += 1,
                [b'\\', b'\n', ..] => self.at += 2,
                [b'#', ..] => {
                    while !matches!(self.rest(), [] | [b'\n', ..]) {
                        self.at += 1;
                    }
                }
                _ => break,
            }
        }
        let digit = match self.rest() {
            [] => return Ok(None),
            [digit @ b'0'..=b'9', b'<' | b'>', ..] => Some(digit - b'0'),
            _ => None,
        };
        let ahead = &self.rest()[usize::from(digit.is_some())..];
        for (op, fd) in [(">>", 1), (">&", 1), (">", 1), ("<", 0)] {
            if ahead.starts_with(op.as_bytes()) {
                self.at += op.len() + usize::from(digit.is_some());
                return Ok(Some(Token::Redirect(digit.unwrap_or(fd), op)));
            }
        }
        for op in ["&&", "||", "&", "|", ";", "\n", "(", ")"] {
            if self.rest().starts_with(op.as_bytes()) {
                self.at += op.len();
                return Ok(Some(Token::Op(op)));
            }
        }
        self.word().map(|word| Some(Token::Word(word)))
    }

    fn word(&mut self) -> Result<Word, String> {
        let mut parts = Vec::new();
        let mut text = Vec::new();
        while let Some(byte) = self.rest().first().copied() {
            match byte {
                b' ' | b'\t' | b'\n' | b';' | b'&' | b'|' | b'(' | b')' | b'<' | b'>' => break,
                b'\'' => {
                    flush(&mut parts, &mut text);
                    self.at += 1;
                    let quoted = self.until(b'\'')?;
                    parts.push(Part::Text(quoted, true));
                }
                b'"' => {
                    flush(&mut parts, &mut text);
                    self.at += 1;
                    self.quoted(&mut parts)?;
                }
                b'\\' => {
                    flush(&mut parts, &mut text);
                    self.at += 1;
                    match self.next() {
                        Some(b'\n') | None => {}
                        Some(byte) => parts.push(Part::Text(vec![byte], true)),
                    }
                }
                b'$' => {
                    flush(&mut parts, &mut text);
                    parts.push(self.dollar(false)?);
                }
                _ => {
                    text.push(byte);
                    self.at += 1;
                }
            }
        }
        flush(&mut parts, &mut text);
        Ok(Word(parts))
    }

    fn until(&mut self, end: u8) -> Result<Vec<u8>, String> {
        let from = self.at;
        while let Some(byte) = self.next() {
            if byte == end {
                return Ok(self.script[from..self.at - 1].to_vec());
            }
        }
        Err(format!("no closing {}", end as char))
    }

    fn quoted(&mut self, parts: &mut Vec<Part>) -> Result<(), String> {
        let mut text = Vec::new();
        loop {
            match self.rest() {
                [] => return Err("no closing \"".into()),
                [b'"', ..] => {
                    self.at += 1;
                    parts.push(Part::Text(text, true));
                    return Ok(());
                }
                [b'\\', byte @ (b'"' | b'\\' | b'$' | b'`'), ..] => {
                    text.push(*byte);
                    self.at += 2;
                }
                [b'$', ..] => {
                    parts.push(Part::Text(std::mem::take(&mut text), true));
                    parts.push(self.dollar(true)?);
                }
                [byte, ..] => {
                    text.push(*byte);
                    self.at += 1;
                }
            }
        }
    }

    fn dollar(&mut self, quoted: bool) -> Result<Part, String> {
        self.at += 1;
        if self.rest().starts_with(b"((") {
            self.at += 2;
            let sum = self.nested()?;
            if self.next() != Some(b')') {
                return Err("no closing ))".into());
            }
            return Ok(Part::Sum(sum));
        }
        match self.rest() {
            [b'(', ..] => {
                self.at += 1;
                Ok(Part::Script(self.nested()?, quoted))
            }
            [b'{', ..] => {
                self.at += 1;
                Ok(Part::Var(self.until(b'}')?, quoted))
            }
            [
                byte @ (b'?' | b'$' | b'!' | b'#' | b'@' | b'*' | b'0'..=b'9'),
                ..,
            ] => {
                let name = vec![*byte];
                self.at += 1;
                Ok(Part::Var(name, quoted))
            }
            rest => {
                let length = rest.iter().take_while(|b| is_name(**b)).count();
                let name = rest[..length].to_vec();
                self.at += length;
                if name.is_empty() {
                    return Ok(Part::Text(b"$".to_vec(), true));
                }
                Ok(Part::Var(name, quoted))
            }
        }
    }

    /// Reads up to the parenthesis that closes one already read.
    fn nested(&mut self) -> Result<Vec<u8>, String> {
        let from = self.at;
        let mut depth = 1;
        while let Some(byte) = self.next() {
            match byte {
                b'(' => depth += 1,
                b')' => depth -= 1,
                b'\'' => drop(self.until(b'\'')?),
                _ => {}
            }
            if depth == 0 {
                return Ok(self.script[from..self.at - 1].to_vec());
            }
        }
        Err("no closing )".into())
    }
}

fn flush(parts: &mut Vec<Part>, text: &mut Vec<u8>) {
    if !text.is_empty() {
        parts.push(Part::Text(std::mem::take(text), false));
    }
}
