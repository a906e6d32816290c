//! curl as a client: many calls of one invocation, who answered, and over how many connections.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::bail;

use crate::demo::children;
use crate::demo::clients::Tally;
use crate::demo::clients::Way;
use crate::demo::world::World;

/// Before the line that curl writes after each answer.
const MARK: &str = "#curl ";

/// `count` calls of `url` by one curl; `more` are further arguments.
pub(crate) fn calls(
    world: &World,
    curl: &Path,
    way: Way,
    url: &str,
    count: u32,
    more: &[&str],
) -> anyhow::Result<Tally> {
    let mut command = Command::new(curl);
    // No file of the user's, no proxy of the environment.
    command.args(["-q", "-sS", "--max-time", "4", "--connect-timeout", "3"]);
    command.args(["-w", &format!("\n{MARK}%{{http_code}} %{{num_connects}} %{{time_total}}\n")]);
    match way.proxy {
        Some(proxy) => command.args(["-x", &format!("http://{proxy}")]),
        None => command.args(["--noproxy", "*"]),
    };
    command.args(more).arg(format!("{url}?n=[1-{count}]"));
    let output = world.within(way.from, || children::ask(&mut command))?;
    parse(&output, count)
}

fn parse(output: &str, count: u32) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let mut body = "";
    for line in output.lines() {
        let Some(said) = line.strip_prefix(MARK) else {
            if !line.trim().is_empty() {
                body = line.trim();
            }
            continue;
        };
        let said: Vec<_> = said.split(' ').collect();
        let [code, connects, seconds] = said[..] else { bail!("curl said `{line}`") };
        tally.connections += connects.parse::<u32>()?;
        if code == "200" {
            tally.took(Duration::try_from_secs_f64(seconds.parse()?)?);
            tally.note(Ok(body.to_owned()));
        } else {
            tally.note(Err(anyhow::anyhow!("{code}")));
        }
        body = "";
    }
    match tally.answered() + tally.failed() {
        all if all == count => Ok(tally),
        all => bail!("{all} answers to {count} calls"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_becomes_a_tally() {
        let three = "hello-1\n\n#curl 200 1 0.001500\nhello-2\n\n#curl 200 0 0.000123\n\
                     edgemesh: no\n\n#curl 503 1 0.1\n";
        let tally = parse(three, 3).unwrap();
        assert_eq!(tally.text(), "hello-1 1, hello-2 1, 503 1");
        assert_eq!((tally.connections, &tally.micros[..]), (2, &[1500, 123][..]));
        assert!(parse(three, 4).is_err(), "an answer is missing");
        assert!(parse("#curl 200\n", 1).is_err());
    }
}
