//! The command line: what can be typed, and what it means.

mod cloud;
mod demo;
mod explain;
mod local;

use std::path::PathBuf;

use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;

use crate::config::Flags;
use crate::log::DEFAULT_FILTER;
use crate::log::Format;
use crate::log::checked_filter;

pub use cloud::CaAction;
pub use cloud::CaArgs;
pub use cloud::CloudArgs;
pub use cloud::CloudFileArgs;
pub use cloud::NodeAction;
pub use cloud::NodeArgs;
pub use cloud::TokenAction;
pub use cloud::TokenArgs;
pub use demo::DemoArgs;
pub use demo::Feature;
pub use demo::Stage;
pub use explain::{ExplainArgs, ExplainRuleArgs, ExplainWhat};
pub use local::ExposeArgs;
pub use local::ServeArgs;

/// Where the admin API is unless `--admin` says otherwise.
pub const DEFAULT_ADMIN: &str = "http://127.0.0.1:15000";

/// Widest help, on however wide a terminal.
const MAX_WIDTH: usize = 80;

/// An edge service mesh: call services by name, on one machine or many
#[derive(Debug, Parser)]
#[command(
    name = "edgemesh",
    version,
    arg_required_else_help = true,
    max_term_width = MAX_WIDTH,
    after_help = "Exit codes: 0 fine, 1 failed (a bad configuration file too), 2 wrong usage."
)]
pub struct Cli {
    /// `--admin` before the command, as scripts may have it; after the command is what help shows.
    #[arg(long = "admin", id = "admin_before", hide = true)]
    pub admin_before: Option<String>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node: capture, resolve, limit, balance, forward
    Agent(AgentArgs),
    /// Run the cloud: records and identities for all nodes, and the hub
    Cloud(CloudArgs),
    /// List what the agent knows
    Get(GetArgs),
    /// Sign up something that runs on this machine, or list what is
    Expose(ExposeArgs),
    /// Run a command, and sign it up while it is healthy
    Serve(ServeArgs),
    /// Show one routing decision, step by step; nothing is sent
    Explain(ExplainArgs),
    /// Show revision, data age, Links, capture, refusals, faulty records
    Status(StatusArgs),
    /// Find what is wrong with this node, and print the fix
    Doctor(DoctorArgs),
    /// Validate a configuration file and print what it amounts to
    Check(CheckArgs),
    /// On the cloud: make the token by which a node joins
    Token(TokenArgs),
    /// On the cloud: revoke and forget a node
    Node(NodeArgs),
    /// On the cloud: save the certificate authority, or put it back
    Ca(CaArgs),
    /// The iptables rules: as reviewed text, or applied
    Redirect(RedirectArgs),
    /// A whole world in network namespaces, no root needed
    Demo(DemoArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Whom a reading command asks.
#[derive(Debug, Args)]
pub struct AdminArgs {
    /// The agent's admin API [default: http://127.0.0.1:15000]
    #[arg(long = "admin", value_name = "URL")]
    pub url: Option<String>,
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// The agent's configuration [default: /etc/edgemesh/agent.yaml, else none]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Name of this node; wins over $NODE_NAME and the file
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Folder of Kubernetes YAML to take records from; wins over `source`
    #[arg(long, value_name = "DIR")]
    pub manifests: Option<PathBuf>,
}

/// `check`
#[derive(Debug, Args)]
#[command(after_help = "Which of the two it is, the keys tell; the first line of the answer says.")]
pub struct CheckArgs {
    /// The configuration of an agent or of a cloud [default: agent.yaml in /etc/edgemesh, else
    /// cloud.yaml there, else none]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Name of this node; wins over $NODE_NAME and the file
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Folder of Kubernetes YAML to take records from; wins over `source`
    #[arg(long, value_name = "DIR")]
    pub manifests: Option<PathBuf>,
}

impl CheckArgs {
    /// The part that [`crate::config::check_any`] asks for.
    pub fn flags(&self) -> Flags {
        Flags { node: self.node.clone(), manifests: self.manifests.clone() }
    }
}

impl ConfigArgs {
    /// The part that [`crate::config::load`] asks for.
    pub fn flags(&self) -> Flags {
        Flags { node: self.node.clone(), manifests: self.manifests.clone() }
    }
}

/// `agent`
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// How log lines on stderr look; the access log on stdout is always JSON
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub log_format: Format,
    /// Which log lines: LEVEL, or TARGET=LEVEL joined by commas; changed later by PUT /v1/log
    #[arg(long, value_name = "FILTER", default_value = DEFAULT_FILTER, value_parser = checked_filter)]
    pub log: String,
    /// Take the listening sockets of the agent that serves from the same data folder, which then
    /// ends; without one, start as usual
    #[arg(long)]
    pub take_over: bool,
    /// This process is the child of the guard.
    #[arg(long, hide = true)]
    pub guarded: bool,
}

/// `get`
#[derive(Debug, Args)]
pub struct GetArgs {
    /// What to list
    pub kind: Kind,
    /// Only the one of this name; for backends, those of this Service
    pub name: Option<String>,
    /// Only this namespace; all of them without
    #[arg(short, long, value_name = "NS")]
    pub namespace: Option<String>,
    /// Whom it asks.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Whom it asks.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `doctor`
#[derive(Debug, Args)]
#[command(
    after_help = "Works with the agent down, too. Exit codes: 0 nothing is bad, 1 something is."
)]
pub struct DoctorArgs {
    /// The agent's configuration [default: the running agent's, else /etc/edgemesh/agent.yaml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Write what others need to help, without secrets; never over another file
    #[arg(long, value_name = "OUT.tar.gz")]
    pub bundle: Option<PathBuf>,
    /// Whom it asks.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// How an answer is printed.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// How to print it; json and yaml are the admin API's objects
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Output,
}

/// `redirect`
#[derive(Debug, Args)]
pub struct RedirectArgs {
    /// What to do with the rules
    pub action: RedirectAction,
    /// The agent's configuration [default: /etc/edgemesh/agent.yaml, else none]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What `get` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Services with addresses and ports
    Services,
    /// Where Services run, and what their breakers do
    Backends,
    /// Machines
    Nodes,
    /// How Services are balanced, limited and broken
    Policies,
    /// Which requests of a Service go where (HTTPRoute)
    Routes,
    /// Ends of Rules, such as brokers (no Pod addresses)
    Endpoints,
    /// Which messages go where, and how many did
    Rules,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// The admin API's objects
    Json,
    /// The same as YAML
    Yaml,
}

/// What to do with the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RedirectAction {
    /// Print them as they would be applied
    Print,
    /// Put them in place
    Install,
    /// Take them away
    Remove,
}

/// Shells that completions exist for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

impl From<Shell> for clap_complete::Shell {
    fn from(shell: Shell) -> Self {
        match shell {
            Shell::Bash => Self::Bash,
            Shell::Zsh => Self::Zsh,
            Shell::Fish => Self::Fish,
        }
    }
}
