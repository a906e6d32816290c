//! Streams that nobody reads, beside streams that somebody waits for.

use super::*;

/// An answer of so many bytes, more than a stream's window.
const LARGE: usize = 1 << 20;

#[tokio::test(start_paused = true)]
async fn the_oldest_that_nobody_reads_is_reset_before_the_rest_has_to_wait() {
    let answers = handler(|called| async move {
        Answering {
            opening: ok(&called.opening),
            rest: Rest::of(Full::new(Bytes::from_static(&[7; LARGE]))),
        }
    });
    let (link, _served) = world(answers).await;
    let all_windows = (Limits::REQUESTS.window_of_all / Limits::REQUESTS.window) as usize;
    let opening = get("/");
    let mut unread = Vec::new();
    for _ in 0..2 * all_windows {
        let reply = link.open(Operation::Request, &opening, Rest::Nothing).await.unwrap();
        unread.push(reply.body);
        // One that is read, however much lies there unread.
        let ask = link.open(Operation::Request, &opening, Rest::Nothing);
        let reply = tokio::time::timeout(Duration::from_secs(30), ask).await.unwrap().unwrap();
        let body = reply.body.collect();
        let body = tokio::time::timeout(Duration::from_secs(30), body).await.unwrap();
        assert_eq!(body.unwrap().to_bytes().len(), LARGE);
    }
    // The newest were spared, and are whole where they are read now.
    let (mut reset, mut whole) = (0, 0);
    for body in unread {
        match body.collect().await {
            Ok(body) => {
                assert_eq!(body.to_bytes().len(), LARGE);
                whole += 1;
            }
            Err(error) => {
                assert_eq!((error.kind(), whole), (Failure::Broken, 0), "{error}");
                reset += 1;
            }
        }
    }
    assert!(whole >= all_windows / 4, "{whole} whole, {reset} reset");
    assert!(link.is_open());
}
