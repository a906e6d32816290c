//! Scenes of Rules: a cloud caller and an edge application, a sensor and a cloud target, an edge caller
//! who is answered in the cloud.

use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use anyhow::ensure;
use serde_json::Value;

use crate::demo::children::ask;
use crate::demo::children::find;
use crate::demo::clients;
use crate::demo::clock::until;
use crate::demo::curl;
use crate::demo::load::percentile;
use crate::demo::report::Row;
use crate::demo::sites::Sites;
use crate::demo::sites::cloud::INGRESS;
use crate::demo::sites::millis;
use crate::demo::sites::network::A1;
use crate::demo::sites::network::CLOUD;
use crate::demo::sites::rules::ANSWERED;

/// Requests of a caller in the cloud.
const CALLS: u32 = 30;
/// Events of a sensor.
const EVENTS: usize = 10;
/// How long a Rule may take to be in force, or a count to be told, in a debug build on a busy machine.
const WITHIN: Duration = Duration::from_secs(5);

pub(super) fn all(sites: &mut Sites<'_>) -> Vec<Row> {
    vec![to_application(sites), events(sites), answered_in_the_cloud(sites)]
}

/// `success_messages` of a Rule, as the agent of the edge or the cloud tells it.
fn successes(sites: &Sites<'_>, rule: &str, in_cloud: bool) -> anyhow::Result<u64> {
    let rules: Vec<Value> = match in_cloud {
        true => sites.cloud.as_ref().context("there is no cloud")?.get(sites.world, "/v1/rules")?,
        false => sites.agent(A1)?.get(sites.world, "/v1/rules")?,
    };
    let rule =
        rules.into_iter().find(|one| one["name"] == rule).context("there is no such Rule")?;
    rule["success_messages"].as_u64().context("it counts nothing")
}

fn to_application(sites: &Sites<'_>) -> Row {
    let (what, how) = ("Rule: REST → edge application", "curl in the cloud → hub → a1, port 8080");
    let Some(curl) = &sites.curl else {
        return Row::not_shown(what, how, "curl is not installed");
    };
    let call = || {
        let known = successes(sites, "to-app", true)?;
        let url = format!("http://{INGRESS}/{}/default/app/x", A1.name);
        let more = ["--data-binary", "hello"];
        let tally = curl::calls(sites.world, curl, sites.way(CLOUD), &url, CALLS, &more)?;
        let all = tally.answers.get(A1.name).copied() == Some(CALLS);
        ensure!(all, "{}", tally.text());
        let counted = successes(sites, "to-app", true)? - known;
        ensure!(counted == u64::from(CALLS), "{counted} of {CALLS} calls are counted");
        let mut micros = tally.micros.clone();
        micros.sort_unstable();
        let half = percentile(&micros, 50).unwrap_or_default();
        Ok(format!("{CALLS} POSTs answered by a1, {} p50, each counted", millis(half)))
    };
    Row::new(what, how, call())
}

fn events(sites: &mut Sites<'_>) -> Row {
    let (what, how) =
        ("Rule: MQTT events → cloud", "mosquitto_pub on a1 → hub → POST in the cloud");
    let world = sites.world;
    let Some(broker) = &mut sites.rules.broker else {
        return Row::not_shown(what, how, "mosquitto is not installed");
    };
    let Some(client) = find("mosquitto_pub") else {
        return Row::not_shown(what, how, "mosquitto-clients is not installed");
    };
    let publish = |number: usize, got: &dyn Fn() -> Vec<String>| {
        let (topic, event) = (format!("default/sensors/{number}"), format!("21.{number} C"));
        let mut command = Command::new(&client);
        command.args(["-t", &topic, "-q", "1", "-m", &event]);
        world.within(A1.place(), || ask(&mut command))?;
        let came = until(WITHIN, || got().contains(&event).then_some(()));
        came.with_context(|| format!("`{event}` did not come"))
    };
    let (ready, inbox) = (broker.wait(world), sites.rules.got.clone());
    let got = || inbox.lock().clone();
    let all = || {
        ready?;
        (0..EVENTS).try_for_each(|number| publish(number, &got))?;
        let came = got().len();
        ensure!(came == EVENTS, "{came} deliveries of {EVENTS} events");
        Ok(format!("{EVENTS} events, each delivered once, in order"))
    };
    Row::new(what, how, all())
}

fn answered_in_the_cloud(sites: &Sites<'_>) -> Row {
    let (what, how) = ("Rule: edge call answered in the cloud", "client on a1 → hub → c2");
    let (name, world) = (ANSWERED.0, sites.world);
    let call = || {
        let known = successes(sites, name, false)?;
        let tally = clients::calls(world, sites.way(A1), &format!("{name}.default:80"), 1);
        ensure!(tally.answers.get("c2") == Some(&1), "{}", tally.text());
        let counted = successes(sites, name, false)?;
        ensure!(counted == known + 1, "success_messages {known} → {counted}");
        let summed =
            until(WITHIN, || (successes(sites, name, true).ok()? == counted).then_some(()));
        summed.context("the cloud does not count it")?;
        Ok(format!("answered by c2, success_messages {known} → {counted}, in the cloud too"))
    };
    Row::new(what, how, call())
}
