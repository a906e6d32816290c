//! Machines whose clock is wrong, and certificates that are old.

use std::sync::atomic::{AtomicI64, Ordering};

use super::*;

const FIRST_OF_1970: i64 = 40;
const OK: &str = "";
const EXPIRED: &str = "its certificate expired on";
const NOT_YET: &str = "its certificate begins on";

/// When the dialler got its certificate, what its system clock says, when the listener got its
/// certificate, and what the dialler makes of that. The listener's clock is right: the day of
/// the later certificate.
const DIALLERS: &[(&str, i64, i64, i64, &str)] = &[
    ("all is well", 0, 0, 0, OK),
    ("a board in 1970 goes by its own certificate", 0, 1970, 0, OK),
    ("a board in 1970 meets a newer certificate", 0, 1970, 25, OK),
    ("a board in 1970 meets an older certificate", 25, 1970, 0, OK),
    ("a board in 1970 knows that this one is over", 60 + 31, 1970, 0, EXPIRED),
    ("on its last day", 0, 30, 0, OK),
    ("expired for a day", 0, 31, 0, OK),
    ("expired for the whole grace", 0, 60, 0, OK),
    ("expired beyond the grace", 0, 61, 0, EXPIRED),
    ("a clock that is ten years ahead", 0, 3650, 0, EXPIRED),
    ("a clock that is a day behind the newer certificate", 0, 1, 2, OK),
    ("a clock that says a time and is weeks behind", 0, 1, 20, NOT_YET),
];

#[tokio::test]
async fn certificates_are_judged_by_the_clock_that_is_least_wrong() {
    let cloud = Authority::new(TODAY).unwrap();
    let day = |day: i64| if day == 1970 { FIRST_OF_1970 } else { TODAY + day * DAY };
    for (case, issued, clock, other_issued, says) in DIALLERS {
        let dialler = tls(&cloud, "edge-1", day(*issued), day(*clock));
        let right = day(*issued.max(other_issued));
        let listener = tls(&cloud, "edge-2", day(*other_issued), right);
        let ends = dial(&dialler, Expect::Node(&node("edge-2")), &listener, Role::Peer).await;
        if says.is_empty() {
            assert_eq!(ends.0.as_ref().map(Vec::len), Ok(1), "{case}");
        } else {
            failed(case, ends, [says, "by the other side's clock our certificate expired"]);
        }

        // The same the other way round: who listens judges who dials.
        let ends = dial(&listener, Expect::Node(&node("edge-1")), &dialler, Role::Hub).await;
        match says.is_empty() {
            true => assert_eq!(ends.1.as_ref().map(Vec::len), Ok(1), "{case}"),
            false => failed(case, ends, ["by the other side's clock our certificate", says]),
        }
    }
}

/// The grace is the operator's, and at the hub an expired certificate shows.
#[tokio::test]
async fn an_expired_certificate_is_told() {
    let cloud = Authority::new(TODAY).unwrap();
    let today = TODAY + 33 * DAY;
    let edge = tls(&cloud, "edge-1", TODAY, today);
    let (_, at_hub) = dial(&edge, Expect::Hub, &hub(&cloud, today, today), Role::Hub).await;
    let proved = proved(&at_hub.unwrap()).unwrap();
    assert_eq!(proved.expired_for(today), Some(Duration::from_secs(3 * 86_400)));
    assert_eq!(proved.expired_for(TODAY + 30 * DAY), None);

    let identity = cloud.hub(&[], today, LIFETIME).unwrap();
    let strict = Tls::new(identity, clock_at(today), Duration::from_secs(86_400));
    let ends = dial(&edge, Expect::Hub, &strict, Role::Hub).await;
    let says = ["longer ago than offlineGrace allows", "3 days before what is now"];
    failed("a grace of a day", ends, says);
}

#[test]
fn renewal_is_due_after_a_day() {
    let cloud = Authority::new(TODAY).unwrap();
    let identity = cloud.node(&node("edge-1"), TODAY, LIFETIME).unwrap();
    for (now, due) in
        [(FIRST_OF_1970, false), (TODAY, false), (TODAY + DAY - 1, false), (TODAY + DAY, true)]
    {
        assert_eq!(identity.is_due(now), due, "{now}");
    }
}

/// A clock on its own data folder whose system time can be set.
fn settable(folder: &Path, start: i64) -> (Arc<AtomicI64>, Clock) {
    let time = Arc::new(AtomicI64::new(start));
    let system = time.clone();
    (time, Clock::with(Some(folder), move || system.load(Ordering::Relaxed)))
}

#[test]
fn the_time_outlives_a_reboot_into_1970() {
    let folder = tempfile::tempdir().unwrap();
    let (time, clock) = settable(folder.path(), TODAY);
    assert!(!clock.persist().unwrap(), "without a certificate there is nothing to bound it");
    clock.learn(TODAY, TODAY + 30 * DAY);
    assert!(clock.persist().unwrap());
    for (later, writes) in [(0, false), (3599, false), (3600, true), (3601, false), (9000, true)] {
        time.store(TODAY + later, Ordering::Relaxed);
        assert_eq!(clock.persist().unwrap(), writes, "{later}");
    }

    let (time, clock) = settable(folder.path(), FIRST_OF_1970);
    assert_eq!(clock.now(), Now { seconds: TODAY + 9000, is_sure: false });
    clock.learn(TODAY + DAY, TODAY + 31 * DAY);
    assert_eq!(clock.now(), Now { seconds: TODAY + DAY, is_sure: false });
    time.store(TODAY + 2 * DAY, Ordering::Relaxed);
    assert_eq!(clock.now(), Now { seconds: TODAY + 2 * DAY, is_sure: true });
}

/// A clock that was once in 2099 may not lock a node out for good.
#[test]
fn a_time_beyond_the_own_certificate_is_not_persisted() {
    let folder = tempfile::tempdir().unwrap();
    let (_, clock) = settable(folder.path(), TODAY + 73 * 365 * DAY);
    clock.learn(TODAY, TODAY + 30 * DAY);
    assert!(clock.persist().unwrap());
    assert!(!clock.persist().unwrap(), "once is enough");
    let (_, clock) = settable(folder.path(), TODAY);
    assert_eq!(clock.seconds(), TODAY + 30 * DAY);
}

#[test]
fn a_damaged_clock_file_counts_as_absent() {
    let folder = tempfile::tempdir().unwrap();
    for text in ["", "yesterday", "9".repeat(400).as_str(), "12\n13"] {
        std::fs::write(folder.path().join("clock"), text).unwrap();
        let (_, clock) = settable(folder.path(), TODAY);
        assert_eq!(clock.now(), Now { seconds: TODAY, is_sure: true }, "{text}");
    }
}
