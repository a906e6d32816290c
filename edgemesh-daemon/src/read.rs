//! The reading commands: a question to the admin API, its answer filtered and drawn.

use anyhow::{Context as _, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::BackendView;
use crate::api::EndpointView;
use crate::api::Explanation;
use crate::api::NodeView;
use crate::api::PolicyView;
use crate::api::RouteView;
use crate::api::RuleView;
use crate::api::ServiceView;
use crate::api::Status;
use crate::cli::ExplainArgs;
use crate::cli::ExplainRuleArgs;
use crate::cli::GetArgs;
use crate::cli::Kind;
use crate::cli::StatusArgs;
use crate::client::Admin;
use crate::client::query_escape;
use crate::say;
use crate::show;

/// `get`
///
/// # Errors
/// No answer, or nothing of the name that was asked for.
pub async fn get(admin: &Admin, args: &GetArgs) -> anyhow::Result<String> {
    match args.kind {
        Kind::Services => list::<ServiceView>(admin, args, show::services).await,
        Kind::Backends => list::<BackendView>(admin, args, show::backends).await,
        Kind::Nodes => list::<NodeView>(admin, args, show::nodes).await,
        Kind::Routes => list::<RouteView>(admin, args, show::routes).await,
        Kind::Policies => list::<PolicyView>(admin, args, show::policies).await,
        Kind::Endpoints => list::<EndpointView>(admin, args, show::endpoints).await,
        Kind::Rules => list::<RuleView>(admin, args, show::rules).await,
    }
}

/// `status`
///
/// # Errors
/// No answer.
pub async fn status(admin: &Admin, args: &StatusArgs) -> anyhow::Result<String> {
    let status: Status = admin.get("/v1/status").await?;
    show::render(&status, args.output.output, |status| show::status(status, say::width()))
}

/// `explain`
///
/// # Errors
/// No answer. A refusal is an answer.
pub async fn explain(admin: &Admin, args: &ExplainArgs) -> anyhow::Result<String> {
    let explanation: Explanation = admin.get(&explain_path(args)).await?;
    show::render(&explanation, args.output.output, |explanation| {
        show::explanation(explanation, say::width())
    })
}

/// Path and query of an `explain`.
pub fn explain_path(args: &ExplainArgs) -> String {
    let destination = args.destination.as_deref().unwrap_or_default();
    let mut path = format!("/v1/explain?url={}", query_escape(destination));
    for header in &args.headers {
        path.push_str(&format!("&header={}", query_escape(header)));
    }
    if let Some(method) = &args.method {
        path.push_str(&format!("&method={}", query_escape(method)));
    }
    if let Some(from) = args.from {
        path.push_str(&format!("&from={}", query_escape(&from.to_string())));
    }
    path
}

/// `explain rule`
///
/// # Errors
/// No answer, no such Rule, or a payload that cannot be read.
pub async fn explain_rule(admin: &Admin, args: &ExplainRuleArgs) -> anyhow::Result<String> {
    let mut path = format!("/v1/explain?rule={}", query_escape(&args.name));
    let bytes = match &args.payload {
        None => None,
        Some(file) => {
            let found = std::fs::metadata(file);
            let found = found.with_context(|| format!("cannot read {}", file.display()))?;
            Some(found.len().to_string())
        }
    };
    let said = [
        ("namespace", args.namespace.as_deref()),
        ("node", args.node.as_deref()),
        ("path", args.path.as_deref()),
        ("bytes", bytes.as_deref()),
    ];
    for (key, value) in said {
        if let Some(value) = value {
            path.push_str(&format!("&{key}={}", query_escape(value)));
        }
    }
    let explanation: Explanation = admin.get(&path).await?;
    show::render(&explanation, args.output.output, |explanation| {
        show::explanation(explanation, say::width())
    })
}

/// What `get` can list.
trait Listed: Serialize + DeserializeOwned {
    /// Path in the admin API.
    const PATH: &'static str;
    /// What one is called in messages.
    const NOUN: &'static str;
    /// What NAME is compared with.
    fn name(&self) -> &str;
    /// What `-n` is compared with; `None` where there are no namespaces.
    fn namespace(&self) -> Option<&str>;
}

async fn list<T: Listed>(
    admin: &Admin,
    args: &GetArgs,
    draw: fn(&[T], u16) -> String,
) -> anyhow::Result<String> {
    let mut items: Vec<T> = admin.get(T::PATH).await?;
    let (within, name) = match args.name.as_deref().map(|name| (name.split_once('/'), name)) {
        Some((Some((namespace, name)), _)) => (Some(namespace), Some(name)), // as tables print it
        Some((None, name)) => (None, Some(name)),
        None => (None, None),
    };
    let wanted = match (args.namespace.as_deref(), within) {
        (Some(one), Some(other)) if one != other => {
            bail!("-n {one} contradicts {other}/; leave one of the two out")
        }
        (one, other) => one.or(other),
    };
    items.retain(|item| wanted.is_none() || item.namespace() == wanted);
    if let Some(name) = name {
        items.retain(|item| item.name() == name);
        if items.is_empty() {
            let within = wanted.map_or_else(String::new, |ns| format!(" in namespace {ns}"));
            bail!("no {} `{name}`{within}", T::NOUN);
        }
    }
    show::render(&items, args.output.output, |items| draw(items, say::width()))
}

impl Listed for ServiceView {
    const PATH: &'static str = "/v1/services";
    const NOUN: &'static str = "Service";

    fn name(&self) -> &str {
        &self.name
    }

    fn namespace(&self) -> Option<&str> {
        Some(&self.namespace)
    }
}

impl Listed for BackendView {
    const PATH: &'static str = "/v1/backends";
    const NOUN: &'static str = "Backend of a Service";

    fn name(&self) -> &str {
        &self.service
    }

    fn namespace(&self) -> Option<&str> {
        Some(&self.namespace)
    }
}

impl Listed for NodeView {
    const PATH: &'static str = "/v1/nodes";
    const NOUN: &'static str = "node";

    fn name(&self) -> &str {
        &self.name
    }

    fn namespace(&self) -> Option<&str> {
        None
    }
}

impl Listed for PolicyView {
    const PATH: &'static str = "/v1/policies";
    const NOUN: &'static str = "Policy";

    fn name(&self) -> &str {
        &self.name
    }

    fn namespace(&self) -> Option<&str> {
        Some(&self.namespace)
    }
}

impl Listed for RouteView {
    const PATH: &'static str = "/v1/routes";
    const NOUN: &'static str = "Route";

    fn name(&self) -> &str {
        &self.name
    }

    fn namespace(&self) -> Option<&str> {
        Some(&self.namespace)
    }
}

impl Listed for EndpointView {
    const PATH: &'static str = "/v1/endpoints";
    const NOUN: &'static str = "Endpoint";

    fn name(&self) -> &str {
        &self.endpoint.name
    }

    fn namespace(&self) -> Option<&str> {
        Some(&self.endpoint.namespace)
    }
}

impl Listed for RuleView {
    const PATH: &'static str = "/v1/rules";
    const NOUN: &'static str = "Rule";

    fn name(&self) -> &str {
        &self.name
    }

    fn namespace(&self) -> Option<&str> {
        Some(&self.namespace)
    }
}
