//! The commands of the cloud: their arguments.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::Subcommand;
use edgemesh_proto::record::NodeName;

use crate::config::Flags;
use crate::config::time;
use crate::log::DEFAULT_FILTER;
use crate::log::Format;
use crate::log::checked_filter;

/// Longest life of a token: a year, for machines that wait in a box until they are set up.
const MAX_TOKEN_TTL: Duration = Duration::from_secs(365 * 86_400);

/// `cloud`
#[derive(Debug, Args)]
pub struct CloudArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub file: CloudFileArgs,
    /// Folder of Kubernetes YAML to take records from; wins over `source`
    #[arg(long, value_name = "DIR")]
    pub manifests: Option<PathBuf>,
    /// How log lines on stderr look; the access log on stdout is always JSON
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub log_format: Format,
    /// Which log lines: LEVEL, or TARGET=LEVEL joined by commas; changed later by PUT /v1/log
    #[arg(long, value_name = "FILTER", default_value = DEFAULT_FILTER, value_parser = checked_filter)]
    pub log: String,
}

impl CloudArgs {
    /// The part that [`crate::config::load_cloud`] asks for.
    pub fn flags(&self) -> Flags {
        Flags { node: None, manifests: self.manifests.clone() }
    }
}

/// Where a cloud's configuration is.
#[derive(Debug, Args)]
pub struct CloudFileArgs {
    /// The cloud's configuration [default: /etc/edgemesh/cloud.yaml, else none]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `token`
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// What to do with tokens
    #[command(subcommand)]
    pub action: TokenAction,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenAction {
    /// Make a token and print it
    #[command(
        after_help = "It goes into the file that `cloud.tokenFile` of the node's agent.yaml names. It holds a \
                      secret, and the hash of this cloud's authority: a node that joins by it trusts no other."
    )]
    Create {
        /// How long it can be used, such as 10m, 24h, 30d
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = token_ttl)]
        ttl: Duration,
        /// Only this node may join by it; any node without
        #[arg(long, value_name = "NAME", value_parser = node_name)]
        node: Option<NodeName>,
        /// Where the configuration is.
        #[command(flatten)]
        file: CloudFileArgs,
    },
}

/// `node`
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// What to do with nodes
    #[command(subcommand)]
    pub action: NodeAction,
}

/// What to do with nodes.
#[derive(Debug, Subcommand)]
pub enum NodeAction {
    /// Revoke the certificate of a node and forget its records
    #[command(
        after_help = "Its certificates count nowhere as soon as the others hear of it. It may join again, with \
                      a new token."
    )]
    Remove {
        /// The node's name
        #[arg(value_parser = node_name)]
        name: NodeName,
        /// Where the configuration is.
        #[command(flatten)]
        file: CloudFileArgs,
    },
}

/// `ca`
#[derive(Debug, Args)]
pub struct CaArgs {
    /// What to do with the certificate authority
    #[command(subcommand)]
    pub action: CaAction,
}

/// What to do with the certificate authority.
#[derive(Debug, Subcommand)]
pub enum CaAction {
    /// Write the authority, its secret key too, to a file or stdout
    #[command(
        after_help = "Who has it can speak as any node: keep it where keys are kept. It is what a new machine \
                      needs to go on where a lost one ended; without it, every node has to join again."
    )]
    Export {
        /// The file, readable by its owner only; never over another file [default: stdout]
        #[arg(long, value_name = "F")]
        out: Option<PathBuf>,
        /// Where the configuration is.
        #[command(flatten)]
        file: CloudFileArgs,
    },
    /// Put an exported authority into the data folder of a cloud that has none
    Restore {
        /// What `ca export` wrote [default: stdin]
        #[arg(long = "in", value_name = "F")]
        input: Option<PathBuf>,
        /// Where the configuration is.
        #[command(flatten)]
        file: CloudFileArgs,
    },
}

fn token_ttl(text: &str) -> Result<Duration, String> {
    let wrong = || "no time, such as 10m, 24h or 30d".to_owned();
    let ttl = time::parse(text).ok_or_else(wrong)?;
    let range = Duration::from_secs(1)..=MAX_TOKEN_TTL;
    let out_of = || format!("out of range: 1s to {}", time::text(MAX_TOKEN_TTL));
    range.contains(&ttl).then_some(ttl).ok_or_else(out_of)
}

fn node_name(text: &str) -> Result<NodeName, String> {
    crate::config::node_name(text).map(|name| NodeName(name.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_of_tokens_and_names_of_nodes() {
        for (text, want) in [
            ("1s", Some(1)),
            ("24h", Some(86_400)),
            ("30d", Some(2_592_000)),
            ("365d", Some(31_536_000)),
            ("366d", None),
            ("0s", None),
            ("24", None),
        ] {
            assert_eq!(token_ttl(text).ok().map(|ttl| ttl.as_secs()), want, "{text}");
        }
        for (text, good) in
            [("edge-1", true), ("edge-1.site", true), ("Edge_1", false), ("", false)]
        {
            assert_eq!(node_name(text).is_ok(), good, "{text}");
        }
    }
}
