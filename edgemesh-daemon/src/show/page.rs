//! The short pages: `status` and `explain`.

use std::fmt::Write;

use edgemesh_core::refusal::Refusal;

use crate::api::Broker;
use crate::api::Capture;
use crate::api::CaptureState;
use crate::api::Explanation;
use crate::api::Remark;
use crate::api::Severity;
use crate::api::SourceKind;
use crate::api::SourceState;
use crate::api::SourceView;
use crate::api::Status;
use crate::api::StoreState;
use crate::api::Verdict;
use crate::api::Via;
use crate::show::links::links;
use crate::show::wrap::Page;

/// Digits of an epoch (a UUID) that are shown: enough to see that it is another one.
const EPOCH_SHOWN: usize = 8;

/// What the refusal of a name that is no Service's would leave people to guess: whose answer it is.
const NO_SERVICE_MEANS: &str = "This is the explicit proxy's answer; a captured client would not \
    come here at all: the name server forwards names that are not the mesh's, or, under its own \
    domain, says that they do not exist. A pod's search list may complete a bare name.";

/// One page on how the node is.
pub fn status(status: &Status, width: u16) -> String {
    let mut page = Page::new(width);
    let ready = if status.ready { "ready" } else { "not ready" };
    page.fact("node", &format!("{}, {ready}, version {}", status.node, status.version));
    for missing in &status.not_ready {
        page.fact("", &format!("not ready: {missing}"));
    }
    page.fact("records", &records(status));
    page.fact(
        "",
        &format!(
            "{}, {}, {} ejected",
            counted(status.services, "Service"),
            counted(status.backends, "Backend"),
            status.ejected
        ),
    );
    let store = match status.store {
        StoreState::Ok => "ok",
        StoreState::StoreReadOnly => {
            "storeReadOnly: changes are served and not kept; free space in dataDir"
        }
    };
    page.fact("store", store);
    for repair in &status.repairs {
        page.fact("", &format!("repaired: {repair}"));
    }
    links(&mut page, status);
    if let Some(broker) = &status.broker {
        page.fact("broker", &broker_text(broker));
    }
    if let Some(source) = &status.source {
        source_facts(&mut page, source);
    }
    capture(&mut page, &status.capture);
    page.fact("flows", &format!("{} open, {} in all", status.flows.open, status.flows.total));
    let refusals: Vec<_> =
        status.refusals.iter().map(|(label, count)| format!("{label} {count}")).collect();
    let refusals = if refusals.is_empty() { "none".into() } else { refusals.join(", ") };
    page.fact("refusals", &refusals);
    for (index, listener) in status.listeners.iter().enumerate() {
        page.fact(if index == 0 { "listens" } else { "" }, listener);
    }
    remarks(&mut page, &status.remarks);
    page.finish()
}

fn source_facts(page: &mut Page, source: &SourceView) {
    let server = if source.server.is_empty() { "not found yet" } else { &source.server };
    page.fact("source", server);
    let of = |state| source.kinds.iter().filter(move |kind: &&SourceKind| kind.state == state);
    let wrong = |kind: &SourceKind| match kind.wrong {
        0 => String::new(),
        wrong => format!(" ({wrong} wrong)"),
    };
    let known: Vec<_> = of(SourceState::Followed)
        .map(|kind| format!("{} {}{}", kind.kind, kind.objects, wrong(kind)))
        .collect();
    if !known.is_empty() {
        page.fact("", &known.join(", "));
    }
    for (state, text) in [
        (SourceState::Partial, "known in part"),
        (SourceState::Waiting, "not listed yet"),
        (SourceState::Absent, "not installed there"),
    ] {
        let kinds: Vec<_> = of(state).map(|kind| &*kind.kind).collect();
        if !kinds.is_empty() {
            page.fact("", &format!("{text}: {}", kinds.join(", ")));
        }
    }
}

fn broker_text(broker: &Broker) -> String {
    let Broker { url, connected, since_seconds, reason } = broker;
    let state = if *connected { "connected" } else { "away" };
    let why = reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    format!("{url}, {state} since {}{why}", duration(*since_seconds))
}

fn records(status: &Status) -> String {
    let age = match status.data_age_seconds {
        Some(seconds) => format!("confirmed {} ago", duration(seconds)),
        None => "never confirmed by their source".into(),
    };
    format!("revision {} of epoch {}, {age}", status.revision, epoch(&status.epoch))
}

/// As much of an epoch as is shown.
pub(super) fn epoch(epoch: &str) -> &str {
    epoch.get(..EPOCH_SHOWN).unwrap_or(epoch)
}

/// `1 day`, `2 days`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{s}")
}

pub(super) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        172_800.. => format!("{} days", seconds / 86_400),
    }
}

fn capture(page: &mut Page, capture: &Capture) {
    let mut text = match capture.state {
        CaptureState::Installed => String::from("installed"),
        CaptureState::Off => String::from("off"),
        CaptureState::Failed => String::from("failed"),
    };
    if !capture.backend.is_empty() {
        let _ = write!(text, ", {}", capture.backend); // a String takes everything
    }
    if !capture.device.is_empty() {
        let _ = write!(text, ", device {}", capture.device);
    }
    page.fact("capture", &text);
    if !capture.include.is_empty() {
        page.fact("", &format!("to {}", capture.include.join(", ")));
    }
    for outside in &capture.outside {
        let text = format!("not captured: {} at {}", outside.service, outside.address);
        page.fact("", &text);
    }
    if capture.udp_ports > 0 {
        page.fact("", &udp(capture));
    }
    for note in &capture.notes {
        page.fact("", note);
    }
}

fn udp(capture: &Capture) -> String {
    let served = format!("UDP: {} by kernel rules", counted(capture.udp_ports, "Service port"));
    match capture.udp_elsewhere {
        0 => served,
        far => format!(
            "{served}; {} on other nodes, not carried there by the mesh: only where plain routing \
             leads to them",
            counted(far, "Backend")
        ),
    }
}

fn remarks(page: &mut Page, remarks: &[Remark]) {
    if remarks.is_empty() {
        return page.fact("remarks", "none");
    }
    page.fact("remarks", "");
    for remark in remarks {
        let line = if remark.line == 0 { String::new() } else { remark.line.to_string() };
        let mut place: Vec<&str> =
            [remark.file.as_str(), &line].into_iter().filter(|part| !part.is_empty()).collect();
        let joined = place.join(":");
        place = [joined.as_str(), &remark.object, &remark.field, &remark.reason]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect();
        let mark = match remark.severity {
            Severity::Rejected => "rejected",
            Severity::Warning => "warning",
            Severity::Ignored => "ignored",
        };
        page.item(mark, &place.join(": "));
    }
}

/// The steps of one decision and what came out.
pub fn explanation(explanation: &Explanation, width: u16) -> String {
    let mut page = Page::new(width);
    page.paragraph(&explanation.destination);
    for (index, step) in explanation.steps.iter().enumerate() {
        let why = if step.why.is_empty() { String::new() } else { format!(" ({})", step.why) };
        page.item(&format!("{}.", index + 1), &format!("{}: {}{why}", step.step, step.what));
    }
    page.paragraph(&verdict(explanation));
    let no_service = Refusal::NoService.row().label;
    if explanation.refusal.as_ref().is_some_and(|refusal| refusal.label == no_service) {
        page.paragraph(NO_SERVICE_MEANS);
    }
    page.finish()
}

fn verdict(explanation: &Explanation) -> String {
    match explanation.verdict {
        Verdict::PassThrough => "passes through: goes where it was going, outside the mesh".into(),
        Verdict::Kernel => "carried by the kernel's rules: edgemesh never sees it".into(),
        Verdict::Hop => match &explanation.backend {
            None => "goes to a Backend".into(),
            Some(hop) => {
                let node =
                    if hop.node.is_empty() { String::new() } else { format!(" on {}", hop.node) };
                let via = match hop.via {
                    Via::Local => "on this node",
                    Via::Direct => "by a direct Link",
                    Via::Hub => "through the hub",
                    Via::PlainDial => "plain dial",
                };
                format!("goes to {}{node}, {via}", hop.address)
            }
        },
        Verdict::Refused => match &explanation.refusal {
            None => "refused".into(),
            Some(refusal) if refusal.label == Refusal::Redirected.row().label => {
                format!("redirected: {}: {}", refusal.status, refusal.text)
            }
            Some(refusal) => {
                format!("refused: {} {}: {}", refusal.status, refusal.label, refusal.text)
            }
        },
    }
}
