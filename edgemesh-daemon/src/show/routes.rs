//! The table of `get routes`.

use crate::api::RouteRuleView;
use crate::api::RouteState;
use crate::api::RouteView;
use crate::show::table::draw;

/// Routes with their rules, one line a match.
pub fn routes(routes: &[RouteView], width: u16) -> String {
    let rows = routes.iter().flat_map(|route| {
        let rules = route.rules.iter().enumerate();
        rules.map(move |(index, rule)| match index {
            0 => vec![name(route), parents(route), matches(rule), target(rule), state(route)],
            _ => {
                vec![String::new(), String::new(), matches(rule), target(rule), String::new()]
            }
        })
    });
    draw(&["ROUTE", "OF SERVICE", "MATCHES", "GOES TO", "STATE"], &[], rows, width)
}

fn name(route: &RouteView) -> String {
    format!("{}/{}", route.namespace, route.name)
}

fn parents(route: &RouteView) -> String {
    let parents = route.parents.iter().map(|parent| match parent.port.as_str() {
        "" => parent.service.clone(),
        port => format!("{}:{port}", parent.service),
    });
    parents.collect::<Vec<_>>().join("\n")
}

fn matches(rule: &RouteRuleView) -> String {
    rule.matches.join("\n")
}

fn target(rule: &RouteRuleView) -> String {
    if let Some(redirect) = &rule.redirect {
        return format!("redirect {redirect}");
    }
    let several = rule.backends.len() > 1;
    let backends = rule.backends.iter().map(|backend| {
        let name = match backend.service.as_str() {
            "" => "nobody".to_owned(),
            service => format!("{service}:{}", backend.port),
        };
        if several { format!("{name} {}", backend.weight) } else { name }
    });
    let backends: Vec<_> = backends.collect();
    if backends.is_empty() { "nobody".into() } else { backends.join("\n") }
}

fn state(route: &RouteView) -> String {
    let word = match route.state {
        RouteState::Accepted => "accepted",
        RouteState::Partly => "partly",
        RouteState::Broken => "broken",
        RouteState::Conflicted => "conflicted",
        RouteState::Inactive => "inactive",
    };
    match route.conditions.is_empty() {
        true => word.into(),
        false => format!("{word}: {}", route.conditions.join("; ")),
    }
}
