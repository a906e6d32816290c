//! Topics of MQTT and the filters that match them (MQTT 3.1.1 §4.7).

/// Longest topic, in bytes: the protocol's own bound.
const MAX_TOPIC: usize = 65_535;

/// A filter: levels by name, `+` for any one, `#` for all that follow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Filter(Box<str>);

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        levels(text)?;
        let mut parts = text.split('/').peekable();
        while let Some(part) = parts.next() {
            let is_wild = part.contains(['+', '#']);
            if is_wild && part.len() > 1 {
                return Err(format!("`{part}` is neither a level nor a wildcard"));
            }
            if part == "#" && parts.peek().is_some() {
                return Err("`#` stands before the end".into());
            }
        }
        Ok(Self(text.into()))
    }

    /// The text that a broker is asked for.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a message on `topic` is meant. Wildcards at the beginning do not mean topics of the
    /// broker itself.
    pub fn matches(&self, topic: &str) -> bool {
        if topic.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = topic.split('/');
        for wanted in self.0.split('/') {
            if wanted == "#" {
                return true;
            }
            match levels.next() {
                Some(level) if wanted == "+" || wanted == level => {}
                Some(_) | None => return false,
            }
        }
        levels.next().is_none()
    }
}

/// A topic on which something may be published.
///
/// # Errors
/// What is wrong with it.
pub fn check_topic(topic: &str) -> Result<(), String> {
    levels(topic)?;
    match topic.contains(['+', '#']) {
        true => Err(format!("`{topic}` has a wildcard, and nothing can be published on one")),
        false => Ok(()),
    }
}

fn levels(topic: &str) -> Result<(), String> {
    match topic {
        "" => Err("is empty".into()),
        topic if topic.len() > MAX_TOPIC => {
            Err(format!("has {} bytes; {MAX_TOPIC} are the most", topic.len()))
        }
        topic if topic.chars().any(char::is_control) => {
            Err("has a control character, such as NUL".into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        for (filter, topic, want) in [
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/+", "a/b", true),
            ("a/+", "a/", true),
            ("a/+", "a", false),
            ("a/+/c", "a/b/c", true),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("#", "a/b", true),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
        ] {
            assert_eq!(Filter::parse(filter).unwrap().matches(topic), want, "{filter} {topic}");
        }
    }

    #[test]
    fn bad_ones() {
        for bad in ["", "a/#/b", "a+/b", "a/b#", "a\0b", &"x".repeat(MAX_TOPIC + 1)] {
            assert!(Filter::parse(bad).is_err(), "{bad}");
        }
        for (topic, good) in [("a/b", true), ("a/+", false), ("wild/#", false), ("a\0", false)] {
            assert_eq!(check_topic(topic).is_ok(), good, "{topic}");
        }
    }
}
