//! Expands words: variables, substitutions, sums, splitting. No patterns.
//!
//! Invariant: what was quoted is never split.

use super::io::{In, Out};
use super::lex::{Part, Word};
use super::pipe::pipe;
use super::run::{Flow, Sh};

impl Sh {
    /// The fields that a word becomes.
    pub(super) async fn expand(&mut self, word: &Word) -> Result<Vec<Vec<u8>>, Flow> {
        let mut fields: Vec<Vec<u8>> = Vec::new();
        let mut open = false;
        for part in &word.0 {
            let (text, quoted) = match part {
                Part::Var(name, true) if name == b"@" => {
                    for (index, arg) in self.args.iter().skip(1).enumerate() {
                        if index > 0 || !open {
                            fields.push(Vec::new());
                        }
                        open = true;
                        if let Some(field) = fields.last_mut() {
                            field.extend_from_slice(arg);
                        }
                    }
                    continue;
                }
                Part::Text(text, _) => (text.clone(), true),
                Part::Var(name, quoted) => (self.variable(name), *quoted),
                Part::Script(script, quoted) => (self.substitute(script).await?, *quoted),
                Part::Sum(sum) => (self.sum(sum), true),
            };
            if quoted {
                if !open {
                    fields.push(Vec::new());
                    open = true;
                }
                if let Some(field) = fields.last_mut() {
                    field.extend_from_slice(&text);
                }
                continue;
            }
            for byte in text {
                if byte.is_ascii_whitespace() {
                    open = false;
                    continue;
                }
                if !open {
                    fields.push(Vec::new());
                    open = true;
                }
                if let Some(field) = fields.last_mut() {
                    field.push(byte);
                }
            }
        }
        Ok(fields)
    }

    /// The word as one field.
    pub(super) async fn expand_one(&mut self, word: &Word) -> Result<Vec<u8>, Flow> {
        Ok(self.expand(word).await?.join(&b' '))
    }

    fn variable(&self, name: &[u8]) -> Vec<u8> {
        let number = |number: u64| number.to_string().into_bytes();
        match name {
            b"?" => number(self.last.into()),
            b"$" => number(self.proc.pid.into()),
            b"!" => self
                .children
                .last()
                .map_or(Vec::new(), |child| number(child.pid.into())),
            b"#" => number(self.args.len().saturating_sub(1) as u64),
            b"@" | b"*" => self.args.get(1..).unwrap_or_default().join(&b' '),
            [digit @ b'0'..=b'9'] => {
                let index = usize::from(digit - b'0');
                self.args.get(index).cloned().unwrap_or_default()
            }
            b"PWD" => self.cwd.as_bytes().to_vec(),
            _ => self
                .vars
                .get(name)
                .map_or(Vec::new(), |(value, _)| value.clone()),
        }
    }

    async fn substitute(&mut self, script: &[u8]) -> Result<Vec<u8>, Flow> {
        let (reader, writer) = pipe();
        let mut inner = self.clone();
        inner.io.stdout = Out::Pipe(writer);
        let script = script.to_vec();
        let child = self.child(
            move |sh| Box::pin(async move { sh.script(&script).await }),
            inner,
        );
        let mut text = In::Pipe(reader).read_all().await;
        self.last = Self::code(child.wait().await);
        self.children.retain(|known| known.pid != child.pid);
        while text.last() == Some(&b'\n') {
            text.pop();
        }
        Ok(text)
    }

    /// A sum of numbers and variables, from left to right: `i + 1`.
    fn sum(&self, expression: &[u8]) -> Vec<u8> {
        let mut total: i64 = 0;
        let mut sign = 1;
        let mut rest = expression;
        while let Some(byte) = rest.first() {
            let length = rest
                .iter()
                .take_while(|b| b.is_ascii_alphanumeric() || **b == b'_')
                .count();
            if length == 0 {
                match byte {
                    b'-' => sign = -1,
                    b'+' => sign = 1,
                    _ => {}
                }
                rest = &rest[1..];
                continue;
            }
            let (term, tail) = rest.split_at(length);
            let text = if term[0].is_ascii_digit() {
                term.to_vec()
            } else {
                self.variable(term)
            };
            let value: i64 = String::from_utf8_lossy(&text).parse().unwrap_or(0);
            total = total.saturating_add(value.saturating_mul(sign));
            rest = tail;
        }
        total.to_string().into_bytes()
    }
}
