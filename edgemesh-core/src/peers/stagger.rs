//! Tries several addresses without waiting for one that is dead: each next one begins a little
//! later, whoever answers first is taken.

use std::fmt::Display;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

/// So long the addresses before have for themselves.
const HEAD_START: Duration = Duration::from_millis(300);

/// The first success of `tries`, or what all of them failed with, joined.
pub(super) async fn first<T, E: Display, F>(tries: impl IntoIterator<Item = F>) -> Result<T, String>
where
    F: Future<Output = Result<T, E>>,
{
    let mut waiting = tries.into_iter();
    let mut running = FuturesUnordered::new();
    let mut failed = Vec::new();
    running.extend(waiting.next());
    loop {
        tokio::select! {
            biased;
            ended = running.next(), if !running.is_empty() => match ended {
                Some(Ok(won)) => return Ok(won),
                Some(Err(error)) => {
                    failed.push(error.to_string());
                    running.extend(waiting.next());
                }
                None => {}
            },
            () = tokio::time::sleep(HEAD_START), if !running.is_empty() => {
                running.extend(waiting.next());
            }
            else => return Err(failed.join("; ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    /// When it ends, and how.
    type Try = (u64, Result<u32, &'static str>);

    async fn play(tries: &[Try]) -> (Result<u32, String>, u128) {
        let begin = Instant::now();
        let tries = tries.iter().map(|(ms, how)| async move {
            sleep(Duration::from_millis(*ms)).await;
            *how
        });
        (first(tries).await, begin.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_address_costs_its_head_start_and_no_more() {
        assert_eq!(play(&[]).await, (Err(String::new()), 0));
        assert_eq!(play(&[(5, Ok(1)), (0, Ok(2))]).await, (Ok(1), 5));
        assert_eq!(play(&[(60_000, Err("silent")), (5, Ok(2))]).await, (Ok(2), 305));
        assert_eq!(play(&[(1, Err("refused")), (5, Ok(2))]).await, (Ok(2), 6));
        let none = play(&[(1, Err("refused")), (400, Err("silent"))]).await;
        assert_eq!(none, (Err("refused; silent".into()), 401));
        assert_eq!(play(&[(310, Ok(1)), (60_000, Err("silent"))]).await, (Ok(1), 310));
    }
}
