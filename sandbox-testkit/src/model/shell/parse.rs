//! The grammar of the model's shell: enough of POSIX for the kit's cases.
//!
//! Invariant: what is not understood is a syntax error, never guessed at.

use super::lex::{Token, Word};

/// A script or a part of one.
#[derive(Clone, Debug, Default)]
pub(crate) struct List(pub(crate) Vec<Step>);

/// A chain of pipelines, run in front or behind.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) first: Pipeline,
    /// Whether each further pipeline follows `&&` (or else `||`).
    pub(crate) rest: Vec<(bool, Pipeline)>,
    pub(crate) background: bool,
}

/// Commands joined by `|`.
#[derive(Clone, Debug)]
pub(crate) struct Pipeline {
    pub(crate) negated: bool,
    pub(crate) commands: Vec<Cmd>,
}

/// A command and its redirections.
#[derive(Clone, Debug)]
pub(crate) struct Cmd {
    pub(crate) body: Body,
    pub(crate) redirects: Vec<Redirect>,
}

impl Cmd {
    /// Whether it is `exec` alone, whose redirections are the shell's own from then on.
    pub(crate) fn is_bare_exec(&self) -> bool {
        matches!(&self.body, Body::Simple { words, .. }
            if words.len() == 1 && words[0].bare() == Some(b"exec"))
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    Simple {
        assignments: Vec<(Vec<u8>, Word)>,
        words: Vec<Word>,
    },
    Subshell(List),
    Group(List),
    While(List, List),
    If(Vec<(List, List)>, Option<List>),
    For(Vec<u8>, Vec<Word>, List),
}

/// `FD OP TARGET`; for `>&` the target is a descriptor.
#[derive(Clone, Debug)]
pub(crate) struct Redirect {
    pub(crate) fd: u8,
    pub(crate) op: &'static str,
    pub(crate) target: Word,
}

/// Parses a script.
pub(crate) fn parse(script: &[u8]) -> Result<List, String> {
    let mut parser = Parser {
        tokens: super::lex::lex(script)?,
        at: 0,
    };
    let list = parser.list(&[])?;
    match parser.peek() {
        None => Ok(list),
        Some(token) => Err(format!("unexpected {token:?}")),
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn op(&mut self, op: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Op(found)) if *found == op);
        self.at += usize::from(found);
        found
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        let found = self.at_keyword(keyword);
        self.at += usize::from(found);
        found
    }

    fn at_keyword(&self, keyword: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(word)) if word.bare() == Some(keyword.as_bytes()))
    }

    fn expect(&mut self, keyword: &str) -> Result<(), String> {
        if self.keyword(keyword) || self.op(keyword) {
            return Ok(());
        }
        Err(format!("expected {keyword}, found {:?}", self.peek()))
    }

    fn list(&mut self, ends: &[&str]) -> Result<List, String> {
        let mut steps = Vec::new();
        loop {
            while self.op("\n") || self.op(";") {}
            let ended = match self.peek() {
                None | Some(Token::Op(")")) => true,
                _ => ends.iter().any(|end| self.at_keyword(end)),
            };
            if ended {
                return Ok(List(steps));
            }
            let first = self.pipeline()?;
            let mut rest = Vec::new();
            loop {
                let and = self.op("&&");
                if !and && !self.op("||") {
                    break;
                }
                while self.op("\n") {}
                rest.push((and, self.pipeline()?));
            }
            let background = self.op("&");
            steps.push(Step {
                first,
                rest,
                background,
            });
            let separated = background || matches!(self.peek(), None | Some(Token::Op(_)));
            if !separated {
                return Err(format!("unexpected {:?}", self.peek()));
            }
        }
    }

    fn pipeline(&mut self) -> Result<Pipeline, String> {
        let negated = self.keyword("!");
        let mut commands = vec![self.command()?];
        while self.op("|") {
            while self.op("\n") {}
            commands.push(self.command()?);
        }
        Ok(Pipeline { negated, commands })
    }

    fn command(&mut self) -> Result<Cmd, String> {
        let body = if self.op("(") {
            let list = self.list(&[])?;
            self.expect(")")?;
            Body::Subshell(list)
        } else if self.keyword("{") {
            let list = self.list(&["}"])?;
            self.expect("}")?;
            Body::Group(list)
        } else if self.keyword("while") {
            let condition = self.list(&["do"])?;
            Body::While(condition, self.do_done()?)
        } else if self.keyword("for") {
            let name = self.word()?.bare().unwrap_or_default().to_vec();
            self.expect("in")?;
            let mut words = Vec::new();
            while let Some(Token::Word(_)) = self.peek() {
                words.push(self.word()?);
            }
            while self.op("\n") || self.op(";") {}
            Body::For(name, words, self.do_done()?)
        } else if self.keyword("if") {
            self.conditional()?
        } else {
            return self.simple();
        };
        let mut redirects = Vec::new();
        while let Some(redirect) = self.redirect()? {
            redirects.push(redirect);
        }
        Ok(Cmd { body, redirects })
    }

    fn do_done(&mut self) -> Result<List, String> {
        self.expect("do")?;
        let list = self.list(&["done"])?;
        self.expect("done")?;
        Ok(list)
    }

    fn conditional(&mut self) -> Result<Body, String> {
        let mut arms = Vec::new();
        loop {
            let condition = self.list(&["then"])?;
            self.expect("then")?;
            arms.push((condition, self.list(&["elif", "else", "fi"])?));
            if self.keyword("elif") {
                continue;
            }
            let otherwise = if self.keyword("else") {
                Some(self.list(&["fi"])?)
            } else {
                None
            };
            self.expect("fi")?;
            return Ok(Body::If(arms, otherwise));
        }
    }

    fn word(&mut self) -> Result<Word, String> {
        match self.peek() {
            Some(Token::Word(word)) => {
                let word = word.clone();
                self.at += 1;
                Ok(word)
            }
            other => Err(format!("expected a word, found {other:?}")),
        }
    }

    fn redirect(&mut self) -> Result<Option<Redirect>, String> {
        let Some(Token::Redirect(fd, op)) = self.peek() else {
            return Ok(None);
        };
        let (fd, op) = (*fd, *op);
        self.at += 1;
        let target = self.word()?;
        Ok(Some(Redirect { fd, op, target }))
    }

    fn simple(&mut self) -> Result<Cmd, String> {
        let mut assignments = Vec::new();
        let mut words: Vec<Word> = Vec::new();
        let mut redirects = Vec::new();
        loop {
            if let Some(redirect) = self.redirect()? {
                redirects.push(redirect);
                continue;
            }
            let Some(Token::Word(word)) = self.peek() else {
                break;
            };
            let word = word.clone();
            self.at += 1;
            match word.assignment() {
                Some(assignment) if words.is_empty() => assignments.push(assignment),
                _ => words.push(word),
            }
        }
        if assignments.is_empty() && words.is_empty() && redirects.is_empty() {
            return Err(format!("unexpected {:?}", self.peek()));
        }
        let body = Body::Simple { assignments, words };
        Ok(Cmd { body, redirects })
    }
}
