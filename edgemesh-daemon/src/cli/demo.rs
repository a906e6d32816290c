//! `demo`: its arguments, what can be broken in it on purpose, and the processes that it consists of.

use std::path::PathBuf;

use clap::Args;
use clap::ValueEnum;

/// `demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// How long the load runs
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    /// Leave the namespaces and processes for a look around, until Ctrl-C
    #[arg(long)]
    pub keep: bool,
    /// Break one thing on purpose: its row must then be FAILED.
    #[arg(long, hide = true, value_name = "FEATURE")]
    pub without: Option<Feature>,
    /// Which of the demo's processes this is.
    #[arg(long, hide = true, requires = "folder", default_value = "outside")]
    pub stage: Stage,
    /// Where everything the demo writes is.
    #[arg(long, hide = true, value_name = "DIR")]
    pub folder: Option<PathBuf>,
}

/// What the demo can leave out or break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Feature {
    /// Namespaces are treated as forbidden.
    Namespaces,
    /// No capture rules.
    Capture,
    /// Port 53 is not captured.
    Dns,
    /// Services have no IPv6 addresses.
    Ipv6,
    /// One Backend takes every call.
    Balance,
    /// The server's certificate is another one.
    Tls,
    /// No limit in the policy.
    Limit,
    /// No breaker in the policy.
    Breaker,
    /// No HTTPRoute.
    Routes,
    /// Calls with a key are balanced like others.
    Keys,
    /// The agent is killed where another should take over.
    Handover,
    /// The change is written where nobody looks.
    Live,
    /// The guard is killed with its agent.
    Guard,
    /// The metastore is deleted before the restart.
    Store,
    /// The agent is killed where it should be stopped.
    Cleanup,
    /// A node has the token of another cloud.
    Token,
    /// No router lets anybody in.
    Direct,
    /// Agents may not use the hub.
    Hub,
    /// An agent that reboots while it is cut off has lost its data folder.
    Autonomy,
    /// What is added while the cloud is away is written nowhere.
    Sync,
    /// The node that is to be removed is not.
    Removal,
    /// No Rules.
    Rules,
}

impl Feature {
    /// Whether it belongs to the second act. Where one thing is broken, only its act is played.
    pub const fn is_far(self) -> bool {
        match self {
            Self::Token
            | Self::Direct
            | Self::Hub
            | Self::Autonomy
            | Self::Sync
            | Self::Removal
            | Self::Rules => true,
            Self::Namespaces
            | Self::Capture
            | Self::Dns
            | Self::Ipv6
            | Self::Balance
            | Self::Tls
            | Self::Limit
            | Self::Breaker
            | Self::Routes
            | Self::Keys
            | Self::Handover
            | Self::Live
            | Self::Guard
            | Self::Store
            | Self::Cleanup => false,
        }
    }
}

/// The demo's processes, each the parent of the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// What the user started: waits, cleans up, tells how it went.
    Outside,
    /// Makes the namespaces.
    Walls,
    /// Plays the scenes inside of them.
    Inside,
    /// Plays what can be played without them.
    Open,
}
