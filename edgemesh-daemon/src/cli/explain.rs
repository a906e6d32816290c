//! `explain`: its arguments, checked before anybody is asked.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::AdminArgs;
use crate::cli::OutputArgs;

/// `explain`
#[derive(Debug, Args)]
#[command(
    after_help = "No counter moves. A refusal is an answer too: the exit code is 0.",
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct ExplainArgs {
    /// Something else than a call.
    #[command(subcommand)]
    pub what: Option<ExplainWhat>,
    /// What would be called, such as http://hello.default/ or redis.default:6379
    #[arg(value_name = "URL|HOST:PORT", value_parser = destination, required = true)]
    pub destination: Option<String>,
    /// A header of the call; may be repeated
    #[arg(long = "header", value_name = "K:V", value_parser = header)]
    pub headers: Vec<String>,
    /// Method of the call; GET without
    #[arg(long, value_name = "METHOD", value_parser = method)]
    pub method: Option<String>,
    /// Who calls; nobody in particular without
    #[arg(long, value_name = "IP")]
    pub from: Option<IpAddr>,
    /// Whom it asks.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What can be explained beside calls.
#[derive(Debug, Subcommand)]
pub enum ExplainWhat {
    /// What would become of a message of a Rule, dry
    Rule(ExplainRuleArgs),
}

/// `explain rule`
#[derive(Debug, Args)]
#[command(after_help = "Nothing is sent and no counter moves.")]
pub struct ExplainRuleArgs {
    /// Name of the Rule, or NAMESPACE/NAME
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Its namespace; `default` without
    #[arg(short = 'n', long, value_name = "NS")]
    pub namespace: Option<String>,
    /// The node that the message names, where the Rule leaves it open
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// Path and query of the request, below node and namespace; the Rule's own without
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
    /// What would be its body; it is only measured
    #[arg(long, value_name = "FILE")]
    pub payload: Option<PathBuf>,
    /// Whom it asks.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

fn method(text: &str) -> Result<String, String> {
    text.parse::<http::Method>().map_err(|_| format!("`{text}` is no method"))?;
    Ok(text.to_owned())
}

fn header(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some((name, value))
            if http::HeaderName::try_from(name.trim()).is_ok()
                && http::HeaderValue::try_from(value.trim()).is_ok() =>
        {
            Ok(format!("{}:{}", name.trim(), value.trim()))
        }
        Some(_) | None => Err("not NAME:VALUE".into()),
    }
}

fn destination(text: &str) -> Result<String, String> {
    let uri = text.parse::<http::Uri>().ok();
    let url = uri.as_ref().is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
    });
    let bare = uri.as_ref().is_some_and(|uri| {
        uri.scheme().is_none() && uri.host().is_some() && uri.path_and_query().is_none()
    });
    if url || bare { Ok(text.into()) } else { Err("none of http://…, HOST:PORT and HOST".into()) }
}
