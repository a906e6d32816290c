//! What a ServiceCIDR says: where addresses of Services lie.

use edgemesh_core::manifests::{Remark, Severity};
use ipnet::IpNet;
use serde_json::Value;

use crate::kubernetes::PLACE;
use crate::kubernetes::asked::Asked;
use crate::kubernetes::objects::Name;

/// No Service has an address here. Whoever captured these would cut the machine off.
const NEVER: &[&str] =
    &["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/8", "fe80::/10", "ff00::/8"];
/// Text of a bad range that is shown.
const SHOWN: usize = 64;

/// What is wrong with one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    field: String,
    reason: String,
}

impl Wrong {
    pub(super) fn of(self, asked: &Asked, name: &Name) -> Remark {
        Remark {
            severity: Severity::Rejected,
            file: PLACE.into(),
            line: 0,
            object: format!("{} {}", asked.kind, name.name),
            field: self.field,
            reason: self.reason,
        }
    }
}

/// Its ranges.
///
/// # Errors
/// None of them count where one cannot be.
pub(super) fn read(object: &Value) -> Result<Vec<IpNet>, Wrong> {
    let field = "spec.cidrs";
    let wrong = |reason: &str| Wrong { field: field.into(), reason: reason.into() };
    let all = object.pointer("/spec/cidrs").ok_or_else(|| wrong("is missing"))?;
    let all = all.as_array().ok_or_else(|| wrong("is no list"))?;
    let range = |(at, text): (usize, &Value)| {
        range(text).map_err(|reason| Wrong { field: format!("{field}[{at}]"), reason })
    };
    all.iter().enumerate().map(range).collect()
}

fn range(text: &Value) -> Result<IpNet, String> {
    let Some(text) = text.as_str() else { return Err("is no text".into()) };
    let shown: String = text.chars().take(SHOWN).collect();
    let range: IpNet = text.parse().map_err(|_| format!("`{shown}` is no ADDRESS/LENGTH"))?;
    let range = range.trunc();
    let never = NEVER.iter().filter_map(|never| never.parse::<IpNet>().ok());
    match never.into_iter().find(|never| never.contains(&range) || range.contains(never)) {
        Some(never) => Err(format!("`{shown}` has addresses of {never}, where no Service can be")),
        None => Ok(range),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(object: Value) -> String {
        match read(&object) {
            Ok(ranges) => ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(Wrong { field, reason }) => format!("{field} {reason}"),
        }
    }

    #[test]
    fn ranges_are_what_kubernetes_says_or_nothing_of_it_counts() {
        for (cidrs, want) in [
            (json!(["10.96.0.0/12", "fd00:10:96::/112"]), "10.96.0.0/12 fd00:10:96::/112"),
            (json!(["10.96.0.7/12"]), "10.96.0.0/12"),
            (json!([]), ""),
            (json!(null), "spec.cidrs is no list"),
            (json!("10.96.0.0/12"), "spec.cidrs is no list"),
            (json!(["10.96.0.0/12", 7]), "spec.cidrs[1] is no text"),
            (json!(["10.96.0.0"]), "spec.cidrs[0] `10.96.0.0` is no ADDRESS/LENGTH"),
            (json!(["10.96.0.0/33"]), "spec.cidrs[0] `10.96.0.0/33` is no ADDRESS/LENGTH"),
            (
                json!(["0.0.0.0/0"]),
                "spec.cidrs[0] `0.0.0.0/0` has addresses of 0.0.0.0/8, where no Service can be",
            ),
            (
                json!(["169.254.96.0/24"]),
                "spec.cidrs[0] `169.254.96.0/24` has addresses of 169.254.0.0/16, where no Service can be",
            ),
            (
                json!(["::/0"]),
                "spec.cidrs[0] `::/0` has addresses of ::/8, where no Service can be",
            ),
        ] {
            assert_eq!(said(json!({"spec": {"cidrs": cidrs}})), want);
        }
        assert_eq!(said(json!({"spec": 7})), "spec.cidrs is missing");
        assert!(NEVER.iter().all(|never| never.parse::<IpNet>().is_ok()));
    }
}
