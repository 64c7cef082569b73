//! Text → [`Ast`]. `sqlparser`'s MySQL tokens, and MySQL's own grammar above them: the parser of that crate binds
//! `XOR`, `NOT`, `!`, `||`, `&` and `^` as standard SQL does, which gives other answers than MySQL.
//!
//! What is refused is refused here, with a reason, before any table is known.

use super::collate::Collation;
use super::decimal::{Decimal, PRECISION_MAX, SCALE_MAX};
use super::functions::{Function, REFUSED};
use super::temporal::{Unit, parse_date_text, parse_datetime_text, parse_time_text};
use base::value::{Date, DateTime};
use sqlparser::dialect::MySqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

/// Parentheses, calls and operators inside each other; deeper would want a deeper stack.
const DEPTH_MAX: usize = 64;
/// Words and signs of one expression.
const TOKENS_MAX: usize = 4000;

/// Why a text is no expression of ours, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub message: String,
    pub hint: String,
}

impl Refusal {
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Ast {
    Null,
    Bool(bool),
    Int(u64),
    Decimal(Decimal),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Date(Date),
    Time(i64, u8),
    DateTime(DateTime, u8),
    Column(String),
    Neg(Box<Ast>),
    Not(Box<Ast>),
    BitNot(Box<Ast>),
    /// Operands of a chain of one operator, in order.
    Logic(Logic, Vec<Ast>),
    Arithmetic(Arithmetic, Box<Ast>, Box<Ast>),
    Bits(Bits, Box<Ast>, Box<Ast>),
    Compare(Compare, Box<Ast>, Box<Ast>),
    Is {
        value: Box<Ast>,
        truth: Truth,
        negated: bool,
    },
    In {
        value: Box<Ast>,
        list: Vec<Ast>,
        negated: bool,
    },
    Between {
        value: Box<Ast>,
        low: Box<Ast>,
        high: Box<Ast>,
        negated: bool,
    },
    Like {
        value: Box<Ast>,
        pattern: Box<Ast>,
        escape: Option<char>,
        negated: bool,
    },
    Case {
        operand: Option<Box<Ast>>,
        arms: Vec<(Ast, Ast)>,
        otherwise: Option<Box<Ast>>,
    },
    Cast(Box<Ast>, CastTo),
    Collate(Box<Ast>, Collation),
    Call(Function, Vec<Ast>),
    AddInterval {
        value: Box<Ast>,
        amount: Box<Ast>,
        unit: Unit,
        negative: bool,
    },
    Trim {
        value: Box<Ast>,
        what: Option<Box<Ast>>,
        leading: bool,
        trailing: bool,
    },
    /// `->` and `->>`.
    JsonPath {
        value: Box<Ast>,
        path: String,
        unquote: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logic {
    And,
    Or,
    Xor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    Plus,
    Minus,
    Times,
    Divide,
    WholeDivide,
    Modulo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    And,
    Or,
    Xor,
    Left,
    Right,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    NullSafeEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    Null,
    True,
    False,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CastTo {
    Signed,
    Unsigned,
    Char(Option<u32>),
    Binary,
    Decimal(u8, u8),
    Double,
    Date,
    DateTime(u8),
}

pub fn parse(text: &str) -> Result<Ast, Refusal> {
    let tokens = Tokenizer::new(&MySqlDialect {}, text).tokenize().map_err(|error| {
        Refusal::new(error.to_string(), "quote text as 'text' and odd column names as `name`")
    })?;
    let tokens: Vec<Token> = tokens.into_iter().filter(|t| !matches!(t, Token::Whitespace(_))).collect();
    if tokens.len() > TOKENS_MAX {
        return Err(Refusal::new("the expression is too long", "split it over several steps"));
    }
    let mut parser = Parser { tokens, at: 0, depth: 0 };
    let ast = parser.expression()?;
    match parser.peek() {
        Token::EOF => Ok(ast),
        other => Err(unexpected(other)),
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

fn unexpected(token: &Token) -> Refusal {
    let message = match token {
        Token::EOF => "the expression ends too early".to_owned(),
        Token::Placeholder(_) | Token::Question => "a placeholder has no value here".to_owned(),
        Token::AtSign | Token::AtAt => {
            "variables are not supported: a row must not depend on a session".to_owned()
        }
        other => format!("`{other}` is not expected here"),
    };
    Refusal::new(message, "write one MySQL expression over the row's columns, for example status <> 'draft'")
}

impl Parser {
    fn peek(&self) -> &Token {
        self.ahead(0)
    }

    fn ahead(&self, count: usize) -> &Token {
        self.tokens.get(self.at + count).unwrap_or(&Token::EOF)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn take(&mut self, token: &Token) -> bool {
        let same = self.peek() == token;
        self.at += usize::from(same);
        same
    }

    fn expect(&mut self, token: &Token) -> Result<(), Refusal> {
        if self.take(token) { Ok(()) } else { Err(unexpected(self.peek())) }
    }

    fn word_at(&self, count: usize) -> Option<&str> {
        match self.ahead(count) {
            Token::Word(word) if word.quote_style.is_none() => Some(&word.value),
            _ => None,
        }
    }

    fn is_word(&self, word: &str) -> bool {
        self.word_at(0).is_some_and(|w| w.eq_ignore_ascii_case(word))
    }

    fn take_word(&mut self, word: &str) -> bool {
        let same = self.is_word(word);
        self.at += usize::from(same);
        same
    }

    fn expect_word(&mut self, word: &str) -> Result<(), Refusal> {
        if self.take_word(word) {
            return Ok(());
        }
        Err(Refusal::new(format!("{word} is expected before `{}`", self.peek()), "complete the expression"))
    }

    /// Counts nesting, so that neither reading, evaluating nor dropping can exhaust the stack.
    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, Refusal>) -> Result<T, Refusal> {
        if self.depth >= DEPTH_MAX {
            return Err(Refusal::new("the expression is nested too deeply", "split it over several steps"));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn expression(&mut self) -> Result<Ast, Refusal> {
        self.nested(|p| {
            p.chain(
                Logic::Or,
                |p| p.take_word("or") || p.take(&Token::StringConcat),
                |p| {
                    p.chain(
                        Logic::Xor,
                        |p| p.take_word("xor"),
                        |p| {
                            p.chain(
                                Logic::And,
                                |p| p.take_word("and") || p.take(&Token::Overlap),
                                Self::negation,
                            )
                        },
                    )
                },
            )
        })
    }

    fn chain(
        &mut self,
        logic: Logic,
        joined: impl Fn(&mut Self) -> bool,
        operand: impl Fn(&mut Self) -> Result<Ast, Refusal>,
    ) -> Result<Ast, Refusal> {
        let first = operand(self)?;
        if !joined(self) {
            return Ok(first);
        }
        let mut all = vec![first, operand(self)?];
        while joined(self) {
            all.push(operand(self)?);
        }
        Ok(Ast::Logic(logic, all))
    }

    fn negation(&mut self) -> Result<Ast, Refusal> {
        if self.take_word("not") {
            return self.nested(|p| Ok(Ast::Not(Box::new(p.negation()?))));
        }
        let value = self.comparison()?;
        if !self.take_word("is") {
            return Ok(value);
        }
        let negated = self.take_word("not");
        let truth = if self.take_word("true") {
            Truth::True
        } else if self.take_word("false") {
            Truth::False
        } else {
            self.expect_word("unknown")?;
            Truth::Null
        };
        Ok(Ast::Is { value: Box::new(value), truth, negated })
    }

    fn comparison(&mut self) -> Result<Ast, Refusal> {
        let mut left = self.predicate()?;
        let depth = self.depth;
        loop {
            let compare = match self.peek() {
                Token::Eq => Compare::Equal,
                Token::Neq => Compare::NotEqual,
                Token::Lt => Compare::Less,
                Token::LtEq => Compare::LessEqual,
                Token::Gt => Compare::Greater,
                Token::GtEq => Compare::GreaterEqual,
                Token::Spaceship => Compare::NullSafeEqual,
                _ if self.is_null_test() => {
                    self.at += 1;
                    let negated = self.take_word("not");
                    self.expect_word("null")?;
                    left = Ast::Is { value: Box::new(left), truth: Truth::Null, negated };
                    self.deeper()?;
                    continue;
                }
                _ => break,
            };
            self.at += 1;
            if self.is_word("all") || self.is_word("any") || self.is_word("some") {
                return Err(subquery());
            }
            let right = self.predicate()?;
            left = Ast::Compare(compare, Box::new(left), Box::new(right));
            self.deeper()?;
        }
        self.depth = depth;
        Ok(left)
    }

    fn is_null_test(&self) -> bool {
        let word = |at: usize, word: &str| self.word_at(at).is_some_and(|w| w.eq_ignore_ascii_case(word));
        word(0, "is") && (word(1, "null") || word(1, "not") && word(2, "null"))
    }

    /// A chain of operators nests to the left, without recursion here.
    fn deeper(&mut self) -> Result<(), Refusal> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Refusal::new("the expression is nested too deeply", "split it over several steps"));
        }
        Ok(())
    }

    fn predicate(&mut self) -> Result<Ast, Refusal> {
        let value = self.bits(0)?;
        let negated = self.is_word("not")
            && self.word_at(1).is_some_and(|w| {
                ["in", "between", "like", "regexp", "rlike"].iter().any(|k| w.eq_ignore_ascii_case(k))
            });
        self.at += usize::from(negated);
        if self.take_word("in") {
            self.expect(&Token::LParen)?;
            if self.is_word("select") || self.is_word("with") {
                return Err(subquery());
            }
            let list = self.list()?;
            return Ok(Ast::In { value: Box::new(value), list, negated });
        }
        if self.take_word("between") {
            let low = self.bits(0)?;
            self.expect_word("and")?;
            let high = self.nested(Self::predicate)?;
            let (value, low, high) = (Box::new(value), Box::new(low), Box::new(high));
            return Ok(Ast::Between { value, low, high, negated });
        }
        if self.take_word("like") {
            let pattern = self.unary()?;
            let escape = if self.take_word("escape") { self.escape()? } else { Some('\\') };
            return Ok(Ast::Like { value: Box::new(value), pattern: Box::new(pattern), escape, negated });
        }
        for word in ["regexp", "rlike", "sounds", "member"] {
            if self.is_word(word) && !matches!(self.ahead(1), Token::LParen) {
                let message = format!("{} is not supported", word.to_uppercase());
                return Err(Refusal::new(message, "LIKE, IN and the text functions are"));
            }
        }
        Ok(value)
    }

    fn escape(&mut self) -> Result<Option<char>, Refusal> {
        let (Token::SingleQuotedString(text) | Token::DoubleQuotedString(text)) = self.next() else {
            return Err(Refusal::new("ESCAPE wants one character", "for example ESCAPE '|'"));
        };
        let mut chars = text.chars();
        match (chars.next(), chars.next()) {
            (first, None) => Ok(first),
            _ => Err(Refusal::new("ESCAPE wants one character", "for example ESCAPE '|'")),
        }
    }

    /// `)` ends it, and is taken.
    fn list(&mut self) -> Result<Vec<Ast>, Refusal> {
        let mut all = Vec::new();
        if self.take(&Token::RParen) {
            return Ok(all);
        }
        loop {
            all.push(self.expression()?);
            if !self.take(&Token::Comma) {
                break;
            }
        }
        self.expect(&Token::RParen)?;
        Ok(all)
    }

    /// Operators that bind tighter than comparisons, by level: `|` 0, `&` 1, shifts 2, sums 3, products 4, `^` 5.
    fn bits(&mut self, level_min: u8) -> Result<Ast, Refusal> {
        enum Operator {
            Bits(Bits),
            Arithmetic(Arithmetic),
        }
        let depth = self.depth;
        let mut left = self.unary()?;
        loop {
            let word = |word: &str| self.is_word(word);
            let (level, operator) = match self.peek() {
                Token::Pipe => (0, Operator::Bits(Bits::Or)),
                Token::Ampersand => (1, Operator::Bits(Bits::And)),
                Token::ShiftLeft => (2, Operator::Bits(Bits::Left)),
                Token::ShiftRight => (2, Operator::Bits(Bits::Right)),
                Token::Plus => (3, Operator::Arithmetic(Arithmetic::Plus)),
                Token::Minus => (3, Operator::Arithmetic(Arithmetic::Minus)),
                Token::Mul => (4, Operator::Arithmetic(Arithmetic::Times)),
                Token::Div => (4, Operator::Arithmetic(Arithmetic::Divide)),
                Token::Mod => (4, Operator::Arithmetic(Arithmetic::Modulo)),
                _ if word("div") => (4, Operator::Arithmetic(Arithmetic::WholeDivide)),
                _ if word("mod") => (4, Operator::Arithmetic(Arithmetic::Modulo)),
                Token::Caret => (5, Operator::Bits(Bits::Xor)),
                _ => break,
            };
            if level < level_min {
                break;
            }
            self.at += 1;
            let interval = self.is_word("interval") && !matches!(self.ahead(1), Token::LParen);
            left = match operator {
                Operator::Arithmetic(sign @ (Arithmetic::Plus | Arithmetic::Minus)) if interval => {
                    let (amount, unit) = self.interval()?;
                    let (value, amount) = (Box::new(left), Box::new(amount));
                    Ast::AddInterval { value, amount, unit, negative: sign == Arithmetic::Minus }
                }
                Operator::Arithmetic(operator) => {
                    let right = self.bits(level + 1)?;
                    Ast::Arithmetic(operator, Box::new(left), Box::new(right))
                }
                Operator::Bits(operator) => {
                    let right = self.bits(level + 1)?;
                    Ast::Bits(operator, Box::new(left), Box::new(right))
                }
            };
            self.deeper()?;
        }
        self.depth = depth;
        Ok(left)
    }

    fn interval(&mut self) -> Result<(Ast, Unit), Refusal> {
        self.expect_word("interval")?;
        let amount = self.expression()?;
        let Token::Word(word) = self.next() else {
            return Err(Refusal::new("INTERVAL wants a unit", "for example INTERVAL 1 DAY"));
        };
        let unit = Unit::named(&word.value).ok_or_else(|| {
            Refusal::new(
                format!("the interval unit {} is not supported", word.value.to_uppercase()),
                "use MICROSECOND, SECOND, MINUTE, HOUR, DAY, WEEK, MONTH, QUARTER or YEAR",
            )
        })?;
        Ok((amount, unit))
    }

    fn unary(&mut self) -> Result<Ast, Refusal> {
        match self.peek() {
            Token::Minus => {
                self.at += 1;
                self.nested(|p| Ok(Ast::Neg(Box::new(p.unary()?))))
            }
            Token::Plus => {
                self.at += 1;
                self.nested(Self::unary)
            }
            Token::Tilde => {
                self.at += 1;
                self.nested(|p| Ok(Ast::BitNot(Box::new(p.unary()?))))
            }
            Token::ExclamationMark => {
                self.at += 1;
                self.nested(|p| Ok(Ast::Not(Box::new(p.unary()?))))
            }
            Token::DoubleExclamationMark => {
                self.at += 1;
                self.nested(|p| Ok(Ast::Not(Box::new(Ast::Not(Box::new(p.unary()?))))))
            }
            _ if self.is_word("binary") && !matches!(self.ahead(1), Token::EOF | Token::Eq) => {
                self.at += 1;
                self.nested(|p| Ok(Ast::Cast(Box::new(p.unary()?), CastTo::Binary)))
            }
            _ => self.collated(),
        }
    }

    fn collated(&mut self) -> Result<Ast, Refusal> {
        let mut value = self.primary()?;
        while self.take_word("collate") {
            let (Token::Word(sqlparser::tokenizer::Word { value: name, .. })
            | Token::SingleQuotedString(name)) = self.next()
            else {
                return Err(Refusal::new("COLLATE wants a name", "for example COLLATE utf8mb4_bin"));
            };
            let collation = Collation::named(&name).ok_or_else(|| {
                Refusal::new(
                    format!("the collation {name} is not supported"),
                    "utf8mb4_0900_ai_ci, utf8mb4_general_ci, utf8mb4_unicode_ci and utf8mb4_bin are",
                )
            })?;
            value = Ast::Collate(Box::new(value), collation);
            self.deeper()?;
        }
        Ok(value)
    }

    fn primary(&mut self) -> Result<Ast, Refusal> {
        match self.next() {
            Token::Number(text, _) => number(&text),
            Token::SingleQuotedString(text) | Token::DoubleQuotedString(text) => {
                let mut all = text;
                while let Token::SingleQuotedString(more) | Token::DoubleQuotedString(more) = self.peek() {
                    all.push_str(more);
                    self.at += 1;
                }
                Ok(Ast::Text(all))
            }
            Token::NationalStringLiteral(text) => Ok(Ast::Text(text)),
            Token::HexStringLiteral(text) => hex_bytes(&text),
            Token::SingleQuotedByteStringLiteral(_) => {
                Err(Refusal::new("bit literals are not supported", "write the number"))
            }
            Token::LParen => {
                if self.is_word("select") || self.is_word("with") {
                    return Err(subquery());
                }
                let inner = self.expression()?;
                if matches!(self.peek(), Token::Comma) {
                    return Err(Refusal::new("row values are not supported", "compare column by column"));
                }
                self.expect(&Token::RParen)?;
                Ok(inner)
            }
            Token::Word(word) if word.quote_style.is_some() => self.column(word.value),
            Token::Word(word) if word.value.starts_with('@') => Err(unexpected(&Token::AtSign)),
            Token::Word(word) => self.word(word.value),
            other => Err(unexpected(&other)),
        }
    }

    fn column(&mut self, name: String) -> Result<Ast, Refusal> {
        if matches!(self.peek(), Token::Period) {
            return Err(Refusal::new(
                format!("`{name}.` names a table"),
                "name columns alone: the row is of one table",
            ));
        }
        let mut value = Ast::Column(name);
        if matches!(self.peek(), Token::Arrow | Token::LongArrow) {
            let unquote = matches!(self.next(), Token::LongArrow);
            let (Token::SingleQuotedString(path) | Token::DoubleQuotedString(path)) = self.next() else {
                return Err(Refusal::new("-> wants a path in quotes", "for example doc->>'$.name'"));
            };
            value = Ast::JsonPath { value: Box::new(value), path, unquote };
        }
        Ok(value)
    }

    fn word(&mut self, word: String) -> Result<Ast, Refusal> {
        let lower = word.to_lowercase();
        match (lower.as_str(), self.peek()) {
            ("null", _) => return Ok(Ast::Null),
            ("true", _) => return Ok(Ast::Bool(true)),
            ("false", _) => return Ok(Ast::Bool(false)),
            ("case", _) => return self.case(),
            ("date" | "time" | "timestamp", Token::SingleQuotedString(_)) => {
                return self.temporal_literal(&lower);
            }
            ("exists" | "select", _) => return Err(subquery()),
            ("interval", _) => {
                return Err(Refusal::new("INTERVAL stands after + or - only", "write day + INTERVAL 1 DAY"));
            }
            (
                "current_timestamp" | "current_date" | "current_time" | "localtime" | "localtimestamp"
                | "utc_date" | "utc_time" | "utc_timestamp",
                _,
            ) => return Err(refused_function(&lower)),
            (_, Token::SingleQuotedString(_)) if lower.starts_with('_') => {
                return Err(Refusal::new(format!("the introducer {word} is not supported"), "text is UTF-8"));
            }
            (_, Token::LParen) => {}
            _ => return self.column(word),
        }
        self.at += 1;
        match lower.as_str() {
            "cast" => self.cast(true),
            "convert" => self.cast(false),
            "trim" => self.trim(),
            "substring" | "substr" | "mid" => self.substring(),
            "position" => self.position(),
            "extract" => self.extract(),
            "date_add" | "adddate" | "date_sub" | "subdate" => {
                self.date_add(lower.ends_with("sub") || lower == "subdate")
            }
            _ => self.call(&lower),
        }
    }

    fn call(&mut self, name: &str) -> Result<Ast, Refusal> {
        let Some((function, least, most)) = Function::named(name) else { return Err(refused_function(name)) };
        if self.is_word("distinct") || matches!(self.peek(), Token::Mul) {
            return Err(refused_function("count"));
        }
        let arguments = self.list()?;
        if self.is_word("over") {
            return Err(Refusal::new("window functions are not supported", "an expression sees one row"));
        }
        if arguments.len() < least || arguments.len() > most {
            let wanted = match most {
                usize::MAX => format!("at least {least}"),
                _ if least == most => least.to_string(),
                _ => format!("{least} to {most}"),
            };
            return Err(Refusal::new(
                format!("{} takes {wanted} arguments, not {}", name.to_uppercase(), arguments.len()),
                "see the list of functions",
            ));
        }
        Ok(Ast::Call(function, arguments))
    }

    fn case(&mut self) -> Result<Ast, Refusal> {
        let operand = if self.is_word("when") { None } else { Some(Box::new(self.expression()?)) };
        let mut arms = Vec::new();
        while self.take_word("when") {
            let when = self.expression()?;
            self.expect_word("then")?;
            arms.push((when, self.expression()?));
        }
        if arms.is_empty() {
            self.expect_word("when")?;
        }
        let otherwise = if self.take_word("else") { Some(Box::new(self.expression()?)) } else { None };
        self.expect_word("end")?;
        Ok(Ast::Case { operand, arms, otherwise })
    }

    fn temporal_literal(&mut self, kind: &str) -> Result<Ast, Refusal> {
        let Token::SingleQuotedString(text) = self.next() else { return Err(unexpected(self.peek())) };
        let literal = match kind {
            "date" => parse_date_text(&text).map(Ast::Date),
            "time" => parse_time_text(&text).map(|(micros, fsp)| Ast::Time(micros, fsp)),
            _ => parse_datetime_text(&text).map(|(value, fsp)| Ast::DateTime(value, fsp)),
        };
        literal.ok_or_else(|| {
            Refusal::new(
                format!("'{text}' is not a {kind}"),
                "write '2026-01-02 03:04:05', with what the type has",
            )
        })
    }

    /// `CAST(x AS t)` and `CONVERT(x, t)`, behind the parenthesis.
    fn cast(&mut self, with_as: bool) -> Result<Ast, Refusal> {
        let value = self.expression()?;
        if with_as {
            self.expect_word("as")?;
        } else {
            if self.is_word("using") {
                return Err(Refusal::new("CONVERT … USING is not supported", "text is UTF-8"));
            }
            self.expect(&Token::Comma)?;
        }
        let to = self.cast_type()?;
        self.expect(&Token::RParen)?;
        Ok(Ast::Cast(Box::new(value), to))
    }

    fn cast_type(&mut self) -> Result<CastTo, Refusal> {
        let Token::Word(word) = self.next() else { return Err(unexpected(self.peek())) };
        let name = word.value.to_lowercase();
        let sizes = self.sizes()?;
        let size = |at: usize, most: u32| sizes.get(at).copied().unwrap_or(0).min(most + 1);
        let too_wide = || Refusal::new(format!("{} is too wide", word.value), "MySQL refuses it too");
        let to = match name.as_str() {
            "signed" | "unsigned" => {
                let _ = self.take_word("integer") || self.take_word("int");
                if name == "signed" { CastTo::Signed } else { CastTo::Unsigned }
            }
            "char" => CastTo::Char(sizes.first().copied()),
            "binary" if sizes.is_empty() => CastTo::Binary,
            "double" => {
                let _ = self.take_word("precision");
                CastTo::Double
            }
            "real" => CastTo::Double,
            "date" => CastTo::Date,
            "datetime" if size(0, 6) <= 6 => CastTo::DateTime(size(0, 6) as u8),
            "decimal" => {
                let precision = if sizes.is_empty() || sizes[0] == 0 { 10 } else { size(0, PRECISION_MAX) };
                let scale = size(1, SCALE_MAX);
                if precision > PRECISION_MAX || scale > SCALE_MAX || scale > precision {
                    return Err(too_wide());
                }
                CastTo::Decimal(precision as u8, scale as u8)
            }
            _ => {
                return Err(Refusal::new(
                    format!("CAST to {} is not supported", word.value.to_uppercase()),
                    "SIGNED, UNSIGNED, CHAR, BINARY, DECIMAL(p,s), DOUBLE, DATE and DATETIME are",
                ));
            }
        };
        if self.is_word("character") || self.is_word("charset") || self.is_word("array") {
            return Err(Refusal::new("CAST with a character set is not supported", "text is UTF-8"));
        }
        Ok(to)
    }

    /// `(10,2)` behind a type.
    fn sizes(&mut self) -> Result<Vec<u32>, Refusal> {
        let mut sizes = Vec::new();
        if self.take(&Token::LParen) {
            loop {
                let Token::Number(text, _) = self.next() else { return Err(unexpected(self.peek())) };
                sizes.push(text.parse().unwrap_or(u32::MAX));
                if !self.take(&Token::Comma) {
                    break;
                }
            }
            self.expect(&Token::RParen)?;
        }
        Ok(sizes)
    }

    fn trim(&mut self) -> Result<Ast, Refusal> {
        let (leading, trailing, sided) = if self.take_word("leading") {
            (true, false, true)
        } else if self.take_word("trailing") {
            (false, true, true)
        } else {
            (true, true, self.take_word("both"))
        };
        if sided && self.take_word("from") {
            let value = Box::new(self.expression()?);
            self.expect(&Token::RParen)?;
            return Ok(Ast::Trim { value, what: None, leading, trailing });
        }
        let first = Box::new(self.expression()?);
        let (value, what) =
            if self.take_word("from") { (Box::new(self.expression()?), Some(first)) } else { (first, None) };
        self.expect(&Token::RParen)?;
        Ok(Ast::Trim { value, what, leading, trailing })
    }

    fn substring(&mut self) -> Result<Ast, Refusal> {
        let mut arguments = vec![self.expression()?];
        let words = self.take_word("from");
        if !words {
            self.expect(&Token::Comma)?;
        }
        arguments.push(self.expression()?);
        if (words && self.take_word("for")) || (!words && self.take(&Token::Comma)) {
            arguments.push(self.expression()?);
        }
        self.expect(&Token::RParen)?;
        Ok(Ast::Call(Function::Substring, arguments))
    }

    fn position(&mut self) -> Result<Ast, Refusal> {
        let needle = self.bits(0)?;
        self.expect_word("in")?;
        let text = self.expression()?;
        self.expect(&Token::RParen)?;
        Ok(Ast::Call(Function::Locate, vec![needle, text]))
    }

    fn extract(&mut self) -> Result<Ast, Refusal> {
        let Token::Word(word) = self.next() else { return Err(unexpected(self.peek())) };
        let name = word.value.to_lowercase();
        let known = ["year", "quarter", "month", "day", "hour", "minute", "second", "microsecond"];
        let function = known.contains(&name.as_str()).then(|| Function::named(&name)).flatten();
        let Some((function, ..)) = function else {
            return Err(Refusal::new(
                format!("EXTRACT of {} is not supported", word.value.to_uppercase()),
                "YEAR, QUARTER, MONTH, DAY, HOUR, MINUTE, SECOND and MICROSECOND are",
            ));
        };
        self.expect_word("from")?;
        let value = self.expression()?;
        self.expect(&Token::RParen)?;
        Ok(Ast::Call(function, vec![value]))
    }

    fn date_add(&mut self, negative: bool) -> Result<Ast, Refusal> {
        let value = Box::new(self.expression()?);
        self.expect(&Token::Comma)?;
        if !self.is_word("interval") {
            return Err(Refusal::new("an INTERVAL is expected", "for example DATE_ADD(day, INTERVAL 1 DAY)"));
        }
        let (amount, unit) = self.interval()?;
        self.expect(&Token::RParen)?;
        Ok(Ast::AddInterval { value, amount: Box::new(amount), unit, negative })
    }
}

fn number(text: &str) -> Result<Ast, Refusal> {
    let wrong = || Refusal::new(format!("`{text}` is not a number"), "write 12, 1.50 or 1e3");
    if text.contains(['e', 'E']) {
        let value: f64 = text.parse().map_err(|_| wrong())?;
        return if value.is_finite() { Ok(Ast::Double(value)) } else { Err(wrong()) };
    }
    if let Ok(value) = text.parse() {
        return Ok(Ast::Int(value));
    }
    let value = Decimal::parse(text).ok_or_else(wrong)?;
    if value.scale() > SCALE_MAX || !value.fits(PRECISION_MAX) {
        return Err(Refusal::new(
            format!("the number {text} is too long"),
            "a DECIMAL has 65 digits, 30 of them a fraction",
        ));
    }
    Ok(Ast::Decimal(value))
}

fn hex_bytes(text: &str) -> Result<Ast, Refusal> {
    let padded = if text.len() % 2 == 1 { format!("0{text}") } else { text.to_owned() };
    let byte = |at: usize| padded.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = (0..padded.len()).step_by(2).map(byte).collect();
    bytes
        .map(Ast::Bytes)
        .ok_or_else(|| Refusal::new(format!("x'{text}' is not hexadecimal"), "write x'4142'"))
}

fn subquery() -> Refusal {
    Refusal::new("subqueries are not supported", "an expression sees one row; join in a model instead")
}

fn refused_function(name: &str) -> Refusal {
    let upper = name.to_uppercase();
    match REFUSED.iter().find(|(names, ..)| names.contains(&name)) {
        Some((_, reason, hint)) => Refusal::new(format!("{upper} is not supported: {reason}"), *hint),
        None => Refusal::new(
            format!("there is no function {upper} here"),
            "docs/concepts/expressions.md lists the functions",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> String {
        fn show(ast: &Ast) -> String {
            match ast {
                Ast::Column(name) => name.clone(),
                Ast::Int(v) => v.to_string(),
                Ast::Neg(a) => format!("-{}", show(a)),
                Ast::Not(a) => format!("(not {})", show(a)),
                Ast::Logic(logic, all) => {
                    format!("({logic:?} {})", all.iter().map(show).collect::<Vec<_>>().join(" "))
                }
                Ast::Arithmetic(op, a, b) => format!("({op:?} {} {})", show(a), show(b)),
                Ast::Bits(op, a, b) => format!("(bit{op:?} {} {})", show(a), show(b)),
                Ast::Compare(op, a, b) => format!("({op:?} {} {})", show(a), show(b)),
                Ast::Is { value, truth, negated } => format!("(is {} {truth:?} {negated})", show(value)),
                other => format!("{other:?}"),
            }
        }
        show(&parse(text).unwrap())
    }

    #[test]
    fn operators_bind_as_mysqls_grammar_says() {
        assert_eq!(shape("a or b xor c and not d = 1"), "(Or a (Xor b (And c (not (Equal d 1)))))");
        assert_eq!(shape("a || b && c"), "(Or a (And b c))");
        assert_eq!(shape("!a + 1"), "(Plus (not a) 1)");
        assert_eq!(shape("a & 1 = 1"), "(Equal (bitAnd a 1) 1)");
        assert_eq!(shape("-2 ^ 2 * 3"), "(Times (bitXor -2 2) 3)");
        assert_eq!(shape("a - b - c"), "(Minus (Minus a b) c)");
        assert_eq!(shape("a = b is null"), "(is (Equal a b) Null false)");
        assert_eq!(shape("a + b div 2 mod 3"), "(Plus a (Modulo (WholeDivide b 2) 3))");
    }

    #[test]
    fn what_is_not_supported_is_refused_with_a_reason() {
        for (text, part) in [
            ("a in (select 1)", "subqueries"),
            ("exists (select 1)", "subqueries"),
            ("(select 1)", "subqueries"),
            ("sum(a)", "one row"),
            ("count(*)", "one row"),
            ("now()", "replay"),
            ("current_timestamp", "replay"),
            ("rand()", "replay"),
            ("uuid()", "replay"),
            ("frobnicate(a)", "no function"),
            ("@x", "variables"),
            ("@@sql_mode", "variables"),
            ("a regexp 'x'", "REGEXP"),
            ("t.a", "names a table"),
            ("a +", "ends too early"),
            ("a b", "not expected"),
            ("left(a)", "takes 2"),
            ("?", "placeholder"),
            ("cast(a as json)", "CAST to JSON"),
            ("date '2026-02-30'", "is not a date"),
            ("a + interval 1 day_hour", "unit"),
            ("'abc", "nterminated"),
        ] {
            let refusal = parse(text).expect_err(text);
            assert!(refusal.message.contains(part), "{text}: {refusal:?}");
            assert!(!refusal.hint.is_empty());
        }
        assert!(parse(&"(".repeat(5000)).is_err());
        assert!(parse(&format!("1{}", "+1".repeat(1500))).is_err());
        assert!(parse(&format!("a{}", " or a".repeat(1500))).is_ok());
    }
}
