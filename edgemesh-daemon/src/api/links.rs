//! The parts of the answers about Links: to the cloud, and to the agents of other nodes.

use serde::Deserialize;
use serde::Serialize;

/// Links of the process that answers. Empty where there are none to have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Links {
    /// To the cloud; absent: the configuration has none, or it is the cloud that answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud: Option<CloudLink>,
    /// Ways to other nodes, by their names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerLink>,
}

/// The Link to the cloud.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CloudLink {
    /// How it is.
    pub state: CloudState,
    /// Seconds since it is so.
    pub since_seconds: u64,
    /// `HOST:PORT` that is linked, or was tried last.
    pub server: String,
    /// Milliseconds there and back; absent: not measured.
    pub rtt_ms: Option<f64>,
    /// Epoch of its registry, in hexadecimal digits; empty: it was never told.
    pub epoch: String,
    /// Revision that it has, as far as it was told.
    pub revision: u64,
    /// Seconds since it said so last; absent: never.
    pub data_age_seconds: Option<u64>,
    /// What this node proves itself by; absent: it has not joined.
    pub certificate: Option<Certificate>,
    /// Why the last attempt failed; absent: it did not, or all is well again.
    pub last_error: Option<String>,
}

/// How the Link to the cloud is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CloudState {
    /// It stands, and records come over it.
    Linked,
    /// An attempt is under way: dialling, joining, saying hello.
    Connecting,
    /// No attempt succeeds; it is tried again by itself.
    Away,
    /// The cloud says no; somebody has to do something.
    Refused,
}

/// What a node proves itself by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// The node that it names.
    pub node: String,
    /// Its end, as in `2026-12-30T12:02:20Z`.
    pub not_after: String,
    /// Seconds since its end; absent: it is valid.
    pub expired_for_seconds: Option<u64>,
}

/// The way to one other node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerLink {
    /// Its name.
    pub node: String,
    /// Which way calls take now.
    pub path: Path,
    /// Why this one, in a few words.
    pub reason: String,
    /// Milliseconds there and back; absent: not measured.
    pub rtt_ms: Option<f64>,
    /// Seconds since it is so.
    pub since_seconds: u64,
    /// `HOST:PORT` of its end of a direct Link; empty: there is none.
    pub address: String,
}

/// Which way leads to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Path {
    /// A Link to its agent.
    Direct,
    /// Through the hub.
    Hub,
    /// None at present.
    None,
}

impl Links {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.cloud.is_none() && self.peers.is_empty()
    }

    /// The way to `node`.
    pub fn to(&self, node: &str) -> Option<&PeerLink> {
        self.peers.iter().find(|peer| peer.node == node)
    }
}

impl Certificate {
    /// Of `node`, valid until `not_after`, at `now`; both in seconds since 1970.
    pub fn new(node: &str, not_after: i64, now: i64) -> Self {
        let expired = u64::try_from(now.saturating_sub(not_after)).ok().filter(|over| *over > 0);
        Self { node: node.into(), not_after: rfc3339(not_after), expired_for_seconds: expired }
    }
}

/// A time of day in UTC, from seconds since 1970.
pub fn rfc3339(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years from March, so that the leap day is the last: "days_from_civil" of H. Hinnant, backwards.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The right column is what `date -u -d @SECONDS` says.
    #[test]
    fn seconds_become_dates() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_798_588_799, "2026-12-29T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds), want);
        }
    }

    #[test]
    fn a_certificate_that_has_ended_says_since_when() {
        for (now, want) in [(99, None), (100, None), (101, Some(1)), (3700, Some(3600))] {
            assert_eq!(Certificate::new("edge-1", 100, now).expired_for_seconds, want, "{now}");
        }
    }
}
