//! `edgemesh expose`: something that runs on this machine anyway gets a Service's name.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::ToSocketAddrs;
use std::num::NonZeroU16;
use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::Context;
use anyhow::bail;
use edgemesh_core::registrations::Name;
use edgemesh_core::registrations::Registration;

use crate::api::RegistrationView;
use crate::cli::ExposeArgs;
use crate::client::Admin;
use crate::say;
use crate::show;

/// Every registration of the node.
const LIST: &str = "/v1/registrations";

/// How the agent's note on a registration begins that leads nowhere.
const NO_EFFECT: &str = "has no effect";
/// Ids of what `expose` signs up begin so; the place follows.
const PREFIX: &str = "at-";

/// Signs up, lists or removes, and says what it did.
///
/// # Errors
/// No agent, or its reason to say no.
pub async fn expose(admin: &Admin, args: &ExposeArgs) -> anyhow::Result<String> {
    if args.list {
        let all: Vec<RegistrationView> = admin.get(LIST).await?;
        return show::render(&all, args.output.output, |all| {
            show::registrations(all, say::width())
        });
    }
    let name = args.name.as_deref().unwrap_or_default();
    let to = args.to.as_ref().map(|(host, port)| resolve(host, *port)).transpose()?;
    match to {
        Some(to) if !args.remove => sign_up(admin, args, name, to).await,
        Some(_) | None => remove(admin, args, name, to).await,
    }
}

async fn sign_up(
    admin: &Admin,
    args: &ExposeArgs,
    name: &str,
    to: SocketAddr,
) -> anyhow::Result<String> {
    let port = NonZeroU16::new(to.port()).context("--to: port 0 is none")?;
    let registration = Registration {
        address: to.ip(),
        service_port: args.port,
        check: args.check.clone(),
        ttl: args.ttl.and_then(seconds),
        ..Registration::at(port)
    };
    let id = id(to);
    let path = path(&Name::new(&args.namespace, name, &id)?);
    let before: Vec<RegistrationView> = admin.get(LIST).await?;
    let view: RegistrationView = admin.put(&path, &registration).await?;
    if let Some(note) = view.note.as_deref().filter(|note| note.starts_with(NO_EFFECT)) {
        let same = |one: &RegistrationView| {
            one.namespace == args.namespace && one.service == name && one.id == id
        };
        // One that was there may have its effect again: an address comes back.
        if !before.iter().any(same) {
            admin.delete(&path).await?;
        }
        bail!("{name}.{} at {}: {note}", args.namespace, view.address);
    }
    let so_far = match (&view.note, view.ready) {
        (Some(note), _) => format!("; {note}"),
        (None, true) => String::new(),
        (None, false) => {
            let reason = view.health.and_then(|health| health.reason);
            format!("; it gets no calls yet: {}", reason.as_deref().unwrap_or("not checked yet"))
        }
    };
    Ok(format!("{name}.{} leads to {}{so_far}\n", args.namespace, view.address))
}

async fn remove(
    admin: &Admin,
    args: &ExposeArgs,
    name: &str,
    only: Option<SocketAddr>,
) -> anyhow::Result<String> {
    let mut known: Vec<RegistrationView> = admin.get(LIST).await?;
    known.retain(|one| {
        one.namespace == args.namespace
            && one.service == name
            && one.id.starts_with(PREFIX)
            && only.is_none_or(|at| one.id == id(at))
    });
    if known.is_empty() {
        bail!("{name}.{} is not exposed here; see edgemesh expose --list", args.namespace);
    }
    let mut said = String::new();
    for one in known {
        admin.delete(&path(&Name::new(&one.namespace, &one.service, &one.id)?)).await?;
        said += &format!("{name}.{} no longer leads to {}\n", args.namespace, one.address);
    }
    Ok(said)
}

/// One address of `host`: IPv4 where it has both, since that is what most programs listen at.
fn resolve(host: &str, port: NonZeroU16) -> anyhow::Result<SocketAddr> {
    let found = (host, port.get()).to_socket_addrs();
    let found: Vec<_> = found.with_context(|| format!("--to: cannot resolve {host}"))?.collect();
    let first = found.iter().find(|at| at.is_ipv4()).or_else(|| found.first());
    first.copied().with_context(|| format!("--to: {host} has no address"))
}

/// One for each place, so that signing up again renews.
fn id(at: SocketAddr) -> String {
    let address = match at.ip() {
        IpAddr::V4(v4) => v4.to_string().replace('.', "-"),
        IpAddr::V6(v6) => v6.to_string().replace([':', '.'], "-"),
    };
    format!("{PREFIX}{address}-{}", at.port())
}

/// Where a registration is in the admin API. Its parts are DNS labels, which need no escapes.
pub(crate) fn path(name: &Name) -> String {
    format!("{LIST}/{name}")
}

/// As registrations count them.
pub(crate) fn seconds(time: Duration) -> Option<NonZeroU32> {
    u32::try_from(time.as_secs()).ok().and_then(NonZeroU32::new)
}
