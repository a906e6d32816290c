//! HTTP/2 frames by hand, for what no library would send.

/// What each connection begins with; SETTINGS without any follow.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
/// END_STREAM; of SETTINGS and PING: ACK.
pub(crate) const LAST: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
/// `:status: 200` in HPACK.
pub(crate) const OK: &[u8] = &[0x88];

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `GET /` of `host` in HPACK, without a table.
pub(crate) fn get(host: &str) -> Vec<u8> {
    let length = u8::try_from(host.len()).unwrap();
    [&[0x82, 0x84, 0x86, 0x01, length], host.as_bytes()].concat()
}
