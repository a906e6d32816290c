//! Paths with parameters: which requests a Rule takes, and what it makes of their path.
//!
//! Segment by segment and undecoded: nothing that a client writes is changed, and `/a` is no prefix
//! of `/ab`.

use std::cmp::Ordering;

/// What a Rule's source says: `/dev/{id}/cmd`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pattern(Box<[Segment]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Is(Box<str>),
    Named(Box<str>),
}

/// The segments of a [`Pattern`]; `None` = any.
pub(super) type Shape<'p> = Vec<Option<&'p str>>;

/// What a path has beside a [`Pattern`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched<'p> {
    /// What stands for each name.
    params: Vec<(&'p str, &'p str)>,
    /// What follows, from its `/` on; empty where nothing does.
    rest: &'p str,
}

impl Pattern {
    /// Reads a pattern; slashes around it mean nothing.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains(['?', '#']) || text.bytes().any(|b| b.is_ascii_control() || b == b' ') {
            return Err(format!("`{text}` is no path: no blank, `?` or `#`"));
        }
        let mut names: Vec<&str> = Vec::new();
        let mut segment = |part| {
            let Some(name) = name(part) else {
                return match str::contains(part, ['{', '}']) {
                    true => Err(no_segment(part)),
                    false => Ok(Segment::Is(part.into())),
                };
            };
            if names.contains(&name) {
                return Err(format!("{{{name}}} stands in it twice"));
            }
            names.push(name);
            Ok(Segment::Named(name.into()))
        };
        let parts = text.trim_matches('/').split('/').filter(|part| !part.is_empty());
        parts.map(&mut segment).collect::<Result<_, _>>().map(Self)
    }

    /// What `path`, without its query, has beside it; `None` where it does not begin so.
    pub fn matches<'p>(&'p self, path: &'p str) -> Option<Matched<'p>> {
        let mut rest = path;
        let mut params = Vec::new();
        for segment in &self.0 {
            let after = rest.strip_prefix('/').unwrap_or(rest);
            let end = after.find('/').unwrap_or(after.len());
            let (part, left) = after.split_at(end);
            match segment {
                Segment::Is(text) if **text == *part => {}
                Segment::Named(name) if !part.is_empty() => params.push((&**name, part)),
                Segment::Is(_) | Segment::Named(_) => return None,
            }
            rest = left;
        }
        Some(Matched { params, rest })
    }

    /// Its segments; alike for those that take the same paths.
    pub(super) fn shape(&self) -> Shape<'_> {
        let segments = self.0.iter().map(|segment| match segment {
            Segment::Is(text) => Some(&**text),
            Segment::Named(_) => None,
        });
        segments.collect()
    }

    /// The order in which patterns are tried: the longer first, of two of one length the one that
    /// names a segment where the other takes any.
    pub fn order(&self, other: &Self) -> Ordering {
        let rank = |segment: &Segment| matches!(segment, Segment::Named(_));
        let first = self.0.iter().zip(&other.0).map(|(a, b)| rank(a).cmp(&rank(b)));
        let first = first.into_iter().find(|order| order.is_ne());
        other.0.len().cmp(&self.0.len()).then(first.unwrap_or(Ordering::Equal))
    }

    /// Whether it has a segment of that name.
    pub fn names(&self, wanted: &str) -> bool {
        self.0.iter().any(|segment| matches!(segment, Segment::Named(name) if **name == *wanted))
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        self.0.iter().try_for_each(|segment| match segment {
            Segment::Is(text) => write!(f, "/{text}"),
            Segment::Named(name) => write!(f, "/{{{name}}}"),
        })
    }
}

impl Matched<'_> {
    /// Whether what a client wrote there has a segment `.` or `..`.
    pub(super) fn has_dots(&self) -> bool {
        has_dots(self.rest) || self.params.iter().any(|(_, value)| has_dots(value))
    }

    /// What a target's path or topic becomes: `{name}` replaced by what stands for it, the rest of the
    /// path and the query after it.
    pub fn onto(&self, target: &str, query: Option<&str>) -> String {
        let mut out = filled(target, &self.params);
        if self.rest.len() > 1 {
            out.truncate(out.trim_end_matches('/').len());
            out.push_str(self.rest);
        }
        if let Some(query) = query {
            out.push('?');
            out.push_str(query);
        }
        out
    }
}

/// What is wrong with the `{name}`s of a target's path or topic: braces are replaced where they hold a
/// whole segment whose name the source's path has, and mean nothing elsewhere.
pub(super) fn check_names(target: &str, source: Option<&Pattern>) -> Result<(), String> {
    target.split('/').filter(|part| part.contains(['{', '}'])).try_for_each(|part| {
        match name(part) {
            Some(name) if source.is_some_and(|source| source.names(name)) => Ok(()),
            Some(name) => Err(format!("{{{name}}} is not in the path of the source")),
            None => Err(no_segment(part)),
        }
    })
}

fn no_segment(part: &str) -> String {
    format!("`{part}` is neither a segment nor a {{name}}")
}

/// Whether [`Matched::onto`] can make `made`, which has no query, of `target`.
pub(super) fn could_be(made: &str, target: &str) -> bool {
    let follows = |rest: &str| rest.len() > 1 && !has_dots(rest);
    after(made, target).is_some_and(str::is_empty)
        || after(made, target.trim_end_matches('/')).is_some_and(follows)
}

/// Whether a segment is `.` or `..`, as whoever reads the path may understand it: with them a path
/// leads out of what a target is for.
fn has_dots(path: &str) -> bool {
    if !path.contains(['.', '%']) {
        return false;
    }
    let plain = path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/");
    let plain = plain.replace("%5c", "/");
    plain.split(['/', '\\']).any(|part| matches!(part, "." | ".."))
}

/// What follows in `made` after the segments of `target`, from its `/` on; `None` = it does not begin
/// with what they may become.
fn after<'m>(made: &'m str, target: &str) -> Option<&'m str> {
    let mut rest = made;
    let mut params: Vec<(&str, &str)> = Vec::new();
    for (at, wanted) in target.split('/').enumerate() {
        if at > 0 {
            rest = rest.strip_prefix('/')?;
        }
        let (part, left) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        rest = left;
        let Some(name) = name(wanted) else {
            if part != wanted {
                return None;
            }
            continue;
        };
        // Of one name each segment is the same.
        let is_other = params.iter().any(|(known, value)| *known == name && *value != part);
        if part.is_empty() || is_other || has_dots(part) {
            return None;
        }
        params.push((name, part));
    }
    Some(rest)
}

fn filled(target: &str, params: &[(&str, &str)]) -> String {
    if params.is_empty() {
        return target.to_owned();
    }
    let value = |part| {
        let wanted = name(part);
        let found = wanted.and_then(|wanted| params.iter().find(|(name, _)| *name == wanted));
        found.map_or(part, |(_, value)| value)
    };
    target.split('/').map(value).collect::<Vec<_>>().join("/")
}

fn name(part: &str) -> Option<&str> {
    let name = part.strip_prefix('{')?.strip_suffix('}')?;
    (!name.is_empty() && !name.contains(['{', '}'])).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pattern, path, target, and what the path becomes; none = it does not fit.
    const ROWS: &[(&str, &str, &str, Option<&str>)] = &[
        ("/source", "/source", "/target", Some("/target")),
        ("/source", "/source/", "/target", Some("/target")),
        ("source/", "/source/b/c", "/target/", Some("/target/b/c")),
        ("/source", "/sourcery", "/target", None),
        ("/source", "/so%75rce", "/target", None),
        ("/source", "/source/a:b@c;d%2F%20", "/t", Some("/t/a:b@c;d%2F%20")),
        ("/source", "/source//x/", "/t", Some("/t//x/")),
        ("/dev/{id}/cmd", "/dev/17/cmd/now", "/target/dev", Some("/target/dev/now")),
        ("/dev/{id}/cmd", "/dev/17/cmd", "/d/{id}/x", Some("/d/17/x")),
        ("/dev/{id}/cmd", "/dev//cmd", "/t", None),
        ("/dev/{id}", "/dev", "/t", None),
        ("/", "/any/thing", "", Some("/any/thing")),
        ("", "/", "/root", Some("/root")),
        ("/a", "/a/b", "test/a", Some("test/a/b")),
    ];

    #[test]
    fn paths() {
        for (pattern, path, target, want) in ROWS {
            let pattern = Pattern::parse(pattern).unwrap();
            let got = pattern.matches(path).map(|matched| matched.onto(target, None));
            assert_eq!(got.as_deref(), *want, "{pattern} {path}");
        }
        let pattern = Pattern::parse("/a").unwrap();
        let matched = pattern.matches("/a/b").unwrap();
        assert_eq!(matched.onto("/t", Some("x=12:30&y=?")), "/t/b?x=12:30&y=?");
    }

    #[test]
    fn bad_patterns() {
        for (bad, why) in [
            ("/a?b", "is no path"),
            ("/a b", "is no path"),
            ("/a{b}", "neither a segment nor a {name}"),
            ("/{}", "neither"),
            ("/{a}/{a}", "{a} stands in it twice"),
        ] {
            let error = Pattern::parse(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn the_longer_first_then_the_plainer() {
        let mut all: Vec<_> = ["/", "/a", "/{x}/b", "/a/{y}", "/a/b", "/a/b/c"]
            .iter()
            .map(|text| Pattern::parse(text).unwrap())
            .collect();
        all.sort_by(Pattern::order);
        let order: Vec<_> = all.iter().map(ToString::to_string).collect();
        assert_eq!(order, ["/a/b/c", "/a/b", "/a/{y}", "/{x}/b", "/a", "/"]);
    }

    #[test]
    fn what_a_target_may_name() {
        let source = Pattern::parse("/dev/{id}").unwrap();
        for (target, with_id, without) in [
            ("/t/x", "", ""),
            ("{id}", "", "{id} is not in"),
            ("/t/{no}", "{no} is not in", "{no} is not in"),
            ("/t/x{id}", "`x{id}` is neither", "`x{id}` is neither"),
            ("/{id}/{}", "`{}` is neither", "{id} is not in"),
            ("/}/x", "`}` is neither", "`}` is neither"),
        ] {
            for (source, want) in [(Some(&source), with_id), (None, without)] {
                let got = check_names(target, source).err().unwrap_or_default();
                assert!(
                    got.starts_with(want) && got.is_empty() == want.is_empty(),
                    "{target}: {got}"
                );
            }
        }
    }

    #[test]
    fn dots() {
        for (path, want) in [
            ("/a/b", false),
            ("/a.b/..c/...", false),
            ("/a/..", true),
            ("/./a", true),
            ("..", true),
            ("/a/%2e%2E/b", true),
            ("/a/.%2e", true),
            ("/a/%2E", true),
            ("/a/%2e%2fb", true),
            ("/a..%5C..%5Cb", true),
            ("/a/..\\b", true),
            ("/%2d/%", false),
        ] {
            assert_eq!(has_dots(path), want, "{path}");
        }
    }
}
