//! What the path of a request names: `/_svc/{namespace}/{service}[:port]/…`, `/_any/…`, or a node.

/// The segment before a Service.
const SERVICE: &str = "_svc";
/// The segment before what the Rules decide.
const ANY: &str = "_any";

/// What a path names. Nothing in it is decoded: names need no encoding, and what belongs to the
/// Service is passed on as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form<'p> {
    /// A Service.
    Service(Named<'p>),
    /// It begins as that, and then lacks a part.
    Unfinished,
    /// The Rules decide, also about the node.
    Any(Below<'p>),
    /// Something else, by its first segment, which may be empty: for Rules, if that is a node.
    Segment(&'p str, Below<'p>),
}

/// What Rules look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Below<'p> {
    /// Empty where the path ends before it.
    pub(super) namespace: &'p str,
    /// Path and query below the namespace; it may lack its first `/`.
    pub(super) rest: &'p str,
}

impl<'p> Below<'p> {
    fn of(target: &'p str, first: &str) -> Self {
        let below = target.get("/".len() + first.len()..).unwrap_or_default();
        let Some(below) = below.strip_prefix('/') else {
            return Self { namespace: "", rest: below };
        };
        let (namespace, rest) = below.split_at(below.find(['/', '?']).unwrap_or(below.len()));
        Self { namespace, rest }
    }

    /// The path alone.
    pub(super) fn path(&self) -> &'p str {
        self.rest.split('?').next().unwrap_or_default()
    }
}

/// A Service, as a path names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Named<'p> {
    pub(super) namespace: &'p str,
    pub(super) service: &'p str,
    /// As it is written.
    pub(super) port: Option<&'p str>,
    /// All that comes before the path of the Service.
    pub(super) prefix: &'p str,
    /// The path and query of the Service; it may lack its first `/`.
    pub(super) rest: &'p str,
}

impl<'p> Form<'p> {
    /// What `target`, a path and perhaps a query, names.
    pub(super) fn of(target: &'p str) -> Self {
        let path_ends = target.find('?').unwrap_or(target.len());
        let path = target[..path_ends].strip_prefix('/').unwrap_or_default();
        let (first, after) = path.split_once('/').unwrap_or((path, ""));
        match first {
            ANY => Self::Any(Below::of(target, first)),
            SERVICE => Self::service(target, after).unwrap_or(Self::Unfinished),
            segment => Self::Segment(segment, Below::of(target, segment)),
        }
    }

    fn service(target: &'p str, after: &'p str) -> Option<Self> {
        let (namespace, after) = after.split_once('/')?;
        let service = after.split('/').next()?;
        let prefix = "/".len() + SERVICE.len() + "/".len() + namespace.len() + "/".len();
        let (prefix, rest) = target.split_at(prefix + service.len());
        let (service, port) = match service.split_once(':') {
            Some((service, port)) => (service, Some(port)),
            None => (service, None),
        };
        let whole = !namespace.is_empty() && !service.is_empty();
        whole.then_some(Self::Service(Named { namespace, service, port, prefix, rest }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is asked for, nothing of it is lost, and only the two names leave the path.
        #[test]
        fn nothing_is_lost(target in "(/_svc/|/)?[/ab:?%._é]{0,30}") {
            if let Form::Service(named) = Form::of(&target) {
                let Named { namespace, service, port, prefix, rest } = named;
                prop_assert_eq!(&format!("{prefix}{rest}"), &target);
                let port = port.map(|port| format!(":{port}")).unwrap_or_default();
                prop_assert_eq!(prefix, format!("/_svc/{namespace}/{service}{port}"));
                let part = |word: &str| !word.is_empty() && !word.contains(['/', '?']);
                prop_assert!(part(namespace) && part(service) && !service.contains(':'));
                prop_assert!(rest.is_empty() || rest.starts_with(['/', '?']));
            }
        }
    }

    #[test]
    fn services_and_what_is_theirs() {
        for (target, want) in [
            ("/_svc/shop/cart", ("shop", "cart", None, "")),
            ("/_svc/shop/cart/", ("shop", "cart", None, "/")),
            ("/_svc/shop/cart?a=/b", ("shop", "cart", None, "?a=/b")),
            ("/_svc/shop/cart:8080/x/y?z", ("shop", "cart", Some("8080"), "/x/y?z")),
            ("/_svc/shop/cart:?z", ("shop", "cart", Some(""), "?z")),
            ("/_svc/shop/cart:1:2/", ("shop", "cart", Some("1:2"), "/")),
            ("/_svc/shop/cart//x", ("shop", "cart", None, "//x")),
            ("/_svc/shop/cart/../../b/c", ("shop", "cart", None, "/../../b/c")),
            ("/_svc/shop/cart/%2F%2e:/a:1@b;c", ("shop", "cart", None, "/%2F%2e:/a:1@b;c")),
            ("/_svc/shop/ca%72t/x", ("shop", "ca%72t", None, "/x")),
            ("/_svc/../cart/x", ("..", "cart", None, "/x")),
            ("/_svc/shop/_svc/a/b", ("shop", "_svc", None, "/a/b")),
        ] {
            let Form::Service(named) = Form::of(target) else { panic!("{target}") };
            let Named { namespace, service, port, prefix, rest } = named;
            assert_eq!((namespace, service, port, rest), want, "{target}");
            assert_eq!(format!("{prefix}{rest}"), target);
        }
    }

    #[test]
    fn other_forms() {
        for (target, want) in [
            ("/_svc", Form::Unfinished),
            ("/_svc/", Form::Unfinished),
            ("/_svc/shop", Form::Unfinished),
            ("/_svc/shop/", Form::Unfinished),
            ("/_svc/shop/?x", Form::Unfinished),
            ("/_svc//cart/x", Form::Unfinished),
            ("/_svc/shop//x", Form::Unfinished),
            ("/_svc/shop/:80/x", Form::Unfinished),
            ("/_svc?x=/shop/cart", Form::Unfinished),
            ("/_any/shop/x", Form::Any(Below { namespace: "shop", rest: "/x" })),
            ("/_any", Form::Any(Below { namespace: "", rest: "" })),
        ] {
            assert_eq!(Form::of(target), want, "{target}");
        }
    }

    /// Target, first segment, namespace, and what is left for Rules.
    const SEGMENTS: &[(&str, &str, &str, &str)] = &[
        ("/_SVC/shop/cart", "_SVC", "shop", "/cart"),
        ("/_svc2/shop/cart", "_svc2", "shop", "/cart"),
        ("/edge-1/shop/cart", "edge-1", "shop", "/cart"),
        ("/edge-1/shop/a:b//c/?x=/y", "edge-1", "shop", "/a:b//c/?x=/y"),
        ("/edge-1/shop?x", "edge-1", "shop", "?x"),
        ("/edge-1/shop/", "edge-1", "shop", "/"),
        ("/edge-1//x", "edge-1", "", "/x"),
        ("/edge-1?x", "edge-1", "", "?x"),
        ("//_svc/shop/cart", "", "_svc", "/shop/cart"),
        ("/%5Fsvc/shop/cart", "%5Fsvc", "shop", "/cart"),
        ("/../_svc/shop/cart", "..", "_svc", "/shop/cart"),
        ("/", "", "", ""),
        ("*", "", "", ""),
        ("", "", "", ""),
    ];

    #[test]
    fn segments_and_what_is_below() {
        for (target, segment, namespace, rest) in SEGMENTS {
            let want = Form::Segment(segment, Below { namespace, rest });
            assert_eq!(Form::of(target), want, "{target}");
        }
    }
}
