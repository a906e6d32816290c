//! As much of CEL as our rules use: enough to hear what they say, with an error for everything else.

use std::time::Duration;

use serde_json::Value;

/// What a part of a rule comes to.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
enum Term {
    Truth(bool),
    Number(i64),
    Text(String),
    Time(Duration),
    /// A map, a list or a fraction, with which no rule of ours computes.
    Tree,
}

/// Whether the rule holds for `this`, or why it has no answer.
pub(crate) fn holds(rule: &str, this: &Value) -> Result<bool, String> {
    let mut reader = Reader { rest: rule, this };
    let term = reader.choice()?;
    match (reader.peek(), term) {
        ("", Term::Truth(truth)) => Ok(truth),
        (rest, term) => Err(format!("{term:?} and `{rest}` are left of `{rule}`")),
    }
}

struct Reader<'a> {
    rest: &'a str,
    this: &'a Value,
}

impl<'a> Reader<'a> {
    fn peek(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        self.rest
    }

    fn takes(&mut self, sign: &str) -> bool {
        let rest = self.peek().strip_prefix(sign);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn must(&mut self, sign: &str) -> Result<(), String> {
        self.takes(sign).then_some(()).ok_or_else(|| format!("no `{sign}` at `{}`", self.rest))
    }

    fn word(&mut self) -> &'a str {
        let rest = self.peek();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        self.rest = &rest[end..];
        &rest[..end]
    }

    /// `a ? b : c`. What is not chosen may have no answer.
    fn choice(&mut self) -> Result<Term, String> {
        let first = self.either();
        if !self.takes("?") {
            return first;
        }
        let (then, _) = (self.choice(), self.must(":")?);
        let other = self.choice();
        if truth(first?)? { then } else { other }
    }

    /// `a || b`: true where either is, whatever the other says.
    fn either(&mut self) -> Result<Term, String> {
        let mut so_far = self.both();
        while self.takes("||") {
            let next = self.both();
            so_far = match (so_far, next) {
                (Ok(Term::Truth(true)), _) | (_, Ok(Term::Truth(true))) => Ok(Term::Truth(true)),
                (left, right) => left.and(right),
            };
        }
        so_far
    }

    /// `a && b`: false where either is, whatever the other says.
    fn both(&mut self) -> Result<Term, String> {
        let mut so_far = self.relation();
        while self.takes("&&") {
            let next = self.relation();
            so_far = match (so_far, next) {
                (Ok(Term::Truth(false)), _) | (_, Ok(Term::Truth(false))) => Ok(Term::Truth(false)),
                (left, right) => left.and(right),
            };
        }
        so_far
    }

    fn relation(&mut self) -> Result<Term, String> {
        let left = self.sum();
        let sign = ["==", "!=", "<=", ">="].into_iter().find(|sign| self.takes(sign));
        let Some(sign) = sign else { return left };
        let right = self.sum();
        let (left, right) = (left?, right?);
        if std::mem::discriminant(&left) != std::mem::discriminant(&right) {
            return Err(format!("{left:?} and {right:?} cannot be compared"));
        }
        Ok(Term::Truth(match sign {
            "==" => left == right,
            "!=" => left != right,
            "<=" => left <= right,
            _ => left >= right,
        }))
    }

    fn sum(&mut self) -> Result<Term, String> {
        let mut so_far = self.one();
        while self.takes("+") {
            so_far = match (so_far, self.one()) {
                (Ok(Term::Number(a)), Ok(Term::Number(b))) => Ok(Term::Number(a + b)),
                (a, b) => Err(format!("{a:?} and {b:?} cannot be added")),
            };
        }
        so_far
    }

    fn one(&mut self) -> Result<Term, String> {
        if self.takes("!") {
            return self.one().and_then(truth).map(|truth| Term::Truth(!truth));
        }
        if self.takes("(") {
            let inner = self.choice();
            self.must(")")?;
            return inner;
        }
        if self.takes("'") {
            let end = self.rest.find('\'').ok_or("a text without an end")?;
            let text = self.rest[..end].to_owned();
            self.rest = &self.rest[end + 1..];
            return Ok(Term::Text(text));
        }
        match self.word() {
            "self" => self.member().and_then(|found| found.ok_or_else(|| "no such key".into())),
            "has" => {
                self.must("(")?;
                self.must("self")?;
                let found = self.member();
                self.must(")")?;
                found.map(|found| Term::Truth(found.is_some()))
            }
            name @ ("int" | "duration") => {
                self.must("(")?;
                let inner = self.choice();
                self.must(")")?;
                called(name, inner?)
            }
            word => word.parse().map(Term::Number).map_err(|_| format!("what is `{word}`?")),
        }
    }

    /// `.a.b` of `self`; an error where something before the last is missing.
    fn member(&mut self) -> Result<Option<Term>, String> {
        let mut found = Ok(Some(self.this));
        while self.takes(".") {
            let key = self.word();
            found = found.and_then(|of: Option<&Value>| {
                of.map(|of| of.get(key)).ok_or_else(|| format!("nothing has a `{key}`"))
            });
        }
        Ok(found?.map(|value| match value {
            Value::Bool(truth) => Term::Truth(*truth),
            Value::String(text) => Term::Text(text.clone()),
            Value::Number(number) => number.as_i64().map_or(Term::Tree, Term::Number),
            Value::Null | Value::Array(_) | Value::Object(_) => Term::Tree,
        }))
    }
}

fn truth(term: Term) -> Result<bool, String> {
    match term {
        Term::Truth(truth) => Ok(truth),
        other => Err(format!("{other:?} is neither true nor false")),
    }
}

fn called(name: &str, term: Term) -> Result<Term, String> {
    match (name, term) {
        ("int", Term::Number(number)) => Ok(Term::Number(number)),
        ("int", Term::Text(text)) => {
            text.parse().map(Term::Number).map_err(|_| format!("`{text}` is no number"))
        }
        ("duration", Term::Text(text)) => {
            time(&text).map(Term::Time).ok_or_else(|| format!("`{text}` is no time"))
        }
        (name, term) => Err(format!("there is no {name} of {term:?}")),
    }
}

fn time(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (digits, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, after) =
            after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        let milliseconds = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1000,
            "ms" => 1,
            _ => return None,
        };
        let number: u64 = digits.parse().ok()?;
        total = total.checked_add(Duration::from_millis(number.checked_mul(milliseconds)?))?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

#[test]
fn rules() {
    let this = serde_json::json!({ "a": "10s", "b": { "port": "80", "n": 7 }, "yes": true });
    for (rule, want) in [
        ("has(self.a) && !has(self.c)", Ok(true)),
        ("has(self.b.port) ? int(self.b.port) <= 80 : int(self.b.port) == 1", Ok(true)),
        ("(has(self.a) ? 1 : 0) + (has(self.c) ? 1 : 0) == 1", Ok(true)),
        ("duration(self.a) <= duration('9s')", Ok(false)),
        ("duration(self.a) <= duration('24h')", Ok(true)),
        ("self.yes || self.nothing", Ok(true)),
        ("self.c.d == 1 || self.yes", Ok(true)),
        ("!has(self.c) || int(self.c) + 1 >= 1 && has(self.c.d)", Ok(true)),
        ("(self.a == '10s') == has(self.yes)", Ok(true)),
        ("int(self.a) == 1", Err("is no number")),
        ("self.c", Err("no such key")),
        ("self.a.size() == 1", Err("nothing")),
        ("self.b.n >= '7'", Err("cannot be compared")),
    ] {
        match (holds(rule, &this), want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want, "{rule}"),
            (Err(_), Err(_)) => {}
            (got, want) => panic!("{rule}: got {got:?}, want {want:?}"),
        }
    }
}
