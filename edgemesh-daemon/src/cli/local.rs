//! The commands that sign up what runs on this machine: their arguments.

use std::ffi::OsString;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::time::Duration;

use clap::Args;
use edgemesh_core::config::Check;
use edgemesh_core::registrations::MAX_TTL;

use crate::cli::AdminArgs;
use crate::cli::OutputArgs;
use crate::config::time;

/// `expose`
#[derive(Debug, Args)]
#[command(
    override_usage = "edgemesh expose NAME --to HOST:PORT [OPTIONS]\n       edgemesh expose --remove NAME [--to HOST:PORT]\n       edgemesh expose --list",
    after_help = "It stays until it is removed, or until --ttl is over, also when the agent restarts."
)]
pub struct ExposeArgs {
    /// The Service's name
    #[arg(required_unless_present = "list")]
    pub name: Option<String>,
    /// Where it listens: an address of this machine and a port
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port, required_unless_present_any = ["list", "remove"])]
    pub to: Option<(String, NonZeroU16)>,
    /// The Service's port [default: its only one; 80 and that of --to for a new Service]
    #[arg(long, value_name = "P")]
    pub port: Option<NonZeroU16>,
    /// Calls only while this holds: tcp, http:/healthz, grpc, grpc:SERVICE
    #[arg(long, value_name = "CHECK", value_parser = Check::parse)]
    pub check: Option<Check>,
    /// Forget it after this long, such as 90s, 10m, 24h
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    pub ttl: Option<Duration>,
    /// The Service's namespace
    #[arg(short, long, value_name = "NS", default_value = "default")]
    pub namespace: String,
    /// Take NAME away again
    #[arg(long, conflicts_with_all = ["port", "check", "ttl"])]
    pub remove: bool,
    /// List everything that is signed up on this node
    #[arg(long, conflicts_with_all = ["name", "to", "port", "check", "ttl", "remove"])]
    pub list: bool,
    /// Whom it tells.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// How a list is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `serve`
#[derive(Debug, Args)]
#[command(
    override_usage = "edgemesh serve NAME --port P [OPTIONS] -- CMD…",
    after_help = "CMD gets $PORT and every signal; its exit code is this command's (128+N for signal N)."
)]
pub struct ServeArgs {
    /// The Service's name
    pub name: String,
    /// Where CMD listens; it finds the number in $PORT
    #[arg(long, value_name = "P")]
    pub port: NonZeroU16,
    /// The Service's port [default: its only one; 80 and that of --port for a new Service]
    #[arg(long, value_name = "P")]
    pub service_port: Option<NonZeroU16>,
    /// The address of this machine that CMD listens at
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub address: IpAddr,
    /// Calls only while this holds: tcp, http:/healthz, grpc, grpc:SERVICE
    #[arg(long, value_name = "CHECK", default_value = "tcp", value_parser = Check::parse)]
    pub check: Check,
    /// How soon it is forgotten when this command is killed
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = ttl)]
    pub ttl: Duration,
    /// How long to wait for an agent before giving up
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
    pub wait: Duration,
    /// The Service's namespace
    #[arg(short, long, value_name = "NS", default_value = "default")]
    pub namespace: String,
    /// Whom it tells.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// What to run
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// `HOST:PORT`, `:PORT` and `PORT`; the last two mean loopback.
fn host_port(text: &str) -> Result<(String, NonZeroU16), String> {
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    let port = port.parse().map_err(|_| "no HOST:PORT, such as 127.0.0.1:8000".to_owned())?;
    Ok((host.into(), port))
}

fn ttl(text: &str) -> Result<Duration, String> {
    let time = time(text)?;
    let range = 1..=u64::from(MAX_TTL);
    let wrong = || "out of range: 1s to 24h".to_owned();
    range.contains(&time.as_secs()).then_some(time).ok_or_else(wrong)
}

fn time(text: &str) -> Result<Duration, String> {
    time::parse(text).ok_or_else(|| "no time, such as 90s, 10m or 24h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_times() {
        for (text, want) in [
            ("127.0.0.1:8000", Some(("127.0.0.1", 8000))),
            (":8000", Some(("127.0.0.1", 8000))),
            ("8000", Some(("127.0.0.1", 8000))),
            ("localhost:80", Some(("localhost", 80))),
            ("[::1]:80", Some(("::1", 80))),
            ("127.0.0.1", None),
            ("a:0", None),
            ("a:b", None),
        ] {
            let have = host_port(text).ok();
            let have = have.as_ref().map(|(host, port)| (host.as_str(), port.get()));
            assert_eq!(have, want, "{text}");
        }
        for (text, want) in
            [("90s", Some(90)), ("2m", Some(120)), ("24h", Some(86_400)), ("25h", None)]
        {
            assert_eq!(ttl(text).ok().map(|t| t.as_secs()), want, "{text}");
        }
        for text in ["5", "0s"] {
            assert!(ttl(text).is_err(), "{text}");
        }
    }
}
