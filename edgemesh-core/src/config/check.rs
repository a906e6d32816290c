//! How to find out whether a Backend is well: the words `tcp`, `http:/path`, `grpc` and `grpc:Service`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest path or gRPC service name, in bytes.
const MAX_TARGET: usize = 1024;

/// What a Backend must do to count as healthy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Check {
    /// Take a connection.
    Tcp,
    /// Answer a GET of this path with a status from 200 to 399, as the kubelet asks it.
    Http(Box<str>),
    /// Say SERVING for this service by `grpc.health.v1`; empty = the server as a whole.
    Grpc(Box<str>),
}

impl Check {
    /// Reads `tcp`, `http:/path`, `grpc` or `grpc:package.Service`.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':').unwrap_or((text, "")) {
            ("tcp", "") => Ok(Self::Tcp),
            ("http", path) if path.starts_with('/') && !path.starts_with("//") => {
                bounded(path).map(Self::Http)
            }
            ("http", _) => Err(format!("`{text}` wants a path alone, such as http:/healthz")),
            ("grpc", service) => bounded(service).map(Self::Grpc),
            _ => Err(format!("`{text}` is none of tcp, http:/PATH, grpc, grpc:SERVICE")),
        }
    }
}

/// Goes into a request line or a message as it is.
fn bounded(text: &str) -> Result<Box<str>, String> {
    if text.len() > MAX_TARGET {
        return Err(format!("the check is {} bytes long; at most {MAX_TARGET}", text.len()));
    }
    match text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        true => Ok(text.into()),
        false => Err(format!("`{text}` has characters that no check has; write them as %XX")),
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("tcp"),
            Self::Http(path) => write!(f, "http:{path}"),
            Self::Grpc(service) if service.is_empty() => f.write_str("grpc"),
            Self::Grpc(service) => write!(f, "grpc:{service}"),
        }
    }
}

impl FromStr for Check {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Check {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Check> for String {
    fn from(check: Check) -> Self {
        check.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for (text, want) in [
            ("tcp", Ok(Check::Tcp)),
            ("http:/", Ok(Check::Http("/".into()))),
            ("http:/healthz?full=1", Ok(Check::Http("/healthz?full=1".into()))),
            ("grpc", Ok(Check::Grpc("".into()))),
            ("grpc:shop.Cart", Ok(Check::Grpc("shop.Cart".into()))),
            ("http", Err("http:/healthz")),
            ("http:healthz", Err("http:/healthz")),
            ("http://x/healthz", Err("http:/healthz")),
            ("http:/a b", Err("%XX")),
            ("http:/a\r\nb", Err("%XX")),
            ("", Err("none of")),
            ("tcp:80", Err("none of")),
            ("exec:rm", Err("none of")),
        ] {
            match (Check::parse(text), want) {
                (Ok(have), Ok(want)) => {
                    assert_eq!(have, want);
                    assert_eq!(have.to_string(), text, "is written as it is read");
                }
                (Err(have), Err(want)) => assert!(have.contains(want), "{text}: {have}"),
                (have, want) => panic!("{text}: {have:?}, not {want:?}"),
            }
        }
        assert!(Check::parse(&format!("http:/{}", "x".repeat(MAX_TARGET))).is_err());
    }
}
