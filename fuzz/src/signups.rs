//! What must hold for what programs say of themselves: a check, and a registration.

use edgemesh_core::config::Check;
use edgemesh_core::registrations::Registration;

/// What was read is written in a form that reads the same, and fits a request line.
pub(super) fn check(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(check) = Check::parse(text) else { return false };
    let again = check.to_string();
    assert!(again.bytes().all(|byte| byte.is_ascii_graphic()), "{again:?}");
    assert_eq!(Check::parse(&again), Ok(check));
    true
}

/// What was read is kept in a form that reads the same.
pub(super) fn registration(bytes: &[u8]) -> bool {
    let Ok(registration) = serde_json::from_slice::<Registration>(bytes) else { return false };
    let kept = serde_json::to_vec(&registration).expect("it has no map with odd keys");
    let again = serde_json::from_slice::<Registration>(&kept).expect("we read what we write");
    assert_eq!(again, registration);
    assert_eq!(again.target(), registration.target());
    true
}
