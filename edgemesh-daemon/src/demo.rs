//! `edgemesh demo`: a whole world in namespaces, in which real clients call real servers through
//! a real agent, and a table of what was shown and whether it held.
//!
//! Four processes, each started as a stage of the same binary. *Outside* is what the user
//! started: it owns the folder and ends the others. *Walls* enters fresh user, network, mount and
//! process namespaces; if it may not, *outside* falls back to *open*, which shows what can be
//! shown without capture. *Inside* is process 1 of the new world and plays the [`scenes`]; when
//! it ends, however it ends, the kernel ends all that it started and takes the network away.
//!
//! Two acts: one node, and then two sites and a cloud. A new feature to show is one function and one
//! line in [`scenes::SCENES`] or [`scenes::FAR_SCENES`].

mod agent;
mod children;
mod clients;
mod clock;
mod curl;
mod grpc;
mod load;
mod manifests;
mod programs;
mod report;
mod scenes;
mod servers;
mod sites;
mod stage;
mod walls;
mod world;

use std::path::Path;
use std::path::PathBuf;
use std::process::ExitStatus;

use anyhow::Context;
use anyhow::bail;
use nix::sys::signal::Signal;
use nix::sys::signal::killpg;
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::cli::DemoArgs;
use crate::cli::Feature;
use crate::cli::Stage;
use crate::demo::report::Verdict;
use crate::demo::sites::Sites;
use crate::demo::world::World;
use crate::say;

/// Exit code of the stage *walls* where namespaces are not to be had.
const NO_WALLS: u8 = 77;
/// File in the folder that holds the verdict while `--keep` waits.
const KEPT: &str = "kept";

/// Runs the demo, or the stage of it that `args` names.
///
/// # Errors
/// When a row failed, or the world could not be built; the text names the folder with the logs.
pub fn run(args: &DemoArgs) -> anyhow::Result<()> {
    match (args.stage, &args.folder) {
        (Stage::Walls, Some(folder)) => enter_walls(args, folder),
        (Stage::Inside, Some(folder)) => play(args, folder, true),
        (Stage::Open, Some(folder)) => play(args, folder, false),
        (Stage::Outside, _) | (_, None) => outside(args),
    }
}

/// How the inner stages ended.
enum Ended {
    Exited(ExitStatus),
    Interrupted,
}

fn outside(args: &DemoArgs) -> anyhow::Result<()> {
    let folder = folder()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if cfg!(debug_assertions) {
        say::progress("debug build: times below are not those of a release build");
    }
    let mut ended = Ended::Interrupted;
    let wants_walls = args.without != Some(Feature::Namespaces);
    if wants_walls {
        ended = runtime.block_on(follow(args, Stage::Walls, folder.path()))?;
    }
    let none = matches!(&ended, Ended::Exited(status) if status.code() == Some(NO_WALLS.into()));
    if none || !wants_walls {
        say::progress("no namespaces here: capture cannot be shown, the explicit proxy can");
        say::progress(format_args!("to allow them: {}", walls::remedy()));
        ended = runtime.block_on(follow(args, Stage::Open, folder.path()))?;
    }
    let kept = std::fs::read_to_string(folder.path().join(KEPT)).ok();
    let held = match (&ended, kept) {
        (Ended::Exited(status), _) => status.success(),
        (Ended::Interrupted, Some(verdict)) => verdict == "held",
        (Ended::Interrupted, None) => bail!("interrupted; nothing is left behind"),
    };
    if held {
        return folder.close().context("cannot remove the demo's folder");
    }
    bail!("the demo failed; its logs are in {}", folder.keep().display())
}

/// Where everything is written. Not below `/run`, which the world replaces.
fn folder() -> anyhow::Result<tempfile::TempDir> {
    let usual = std::env::temp_dir();
    let hidden = ["/run", "/var/run"].iter().any(|run| usual.starts_with(run));
    let parent = if hidden { PathBuf::from("/tmp") } else { usual };
    tempfile::Builder::new()
        .prefix("edgemesh-demo-")
        .tempdir_in(&parent)
        .with_context(|| format!("cannot make a folder in {}", parent.display()))
}

/// Starts a stage in a process group of its own and stays until it has ended, or ends it when
/// the user says so.
async fn follow(args: &DemoArgs, stage: Stage, folder: &Path) -> anyhow::Result<Ended> {
    let mut child = Command::from(command(args, stage, folder)?)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .context("cannot start myself again")?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let ended = tokio::select! {
        status = child.wait() => return Ok(Ended::Exited(status?)),
        _ = interrupt.recv() => Ended::Interrupted,
        _ = terminate.recv() => Ended::Interrupted,
        _ = hangup.recv() => Ended::Interrupted,
    };
    // Behind walls the kernel ends the rest. Without, what the stage started is in its group,
    // and the agent ends with its guard.
    if let Some(group) = group {
        killpg(group, Signal::SIGKILL).context("cannot end what was started")?;
    }
    child.wait().await?;
    Ok(ended)
}

/// The command line of a stage.
fn command(args: &DemoArgs, stage: Stage, folder: &Path) -> anyhow::Result<std::process::Command> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    let name = match stage {
        Stage::Outside => "outside",
        Stage::Walls => "walls",
        Stage::Inside => "inside",
        Stage::Open => "open",
    };
    command.args(["demo", "--stage", name, "--seconds", &args.seconds.to_string(), "--folder"]);
    command.arg(folder);
    if args.keep {
        command.arg("--keep");
    }
    if let Some(feature) = args.without.as_ref().and_then(clap::ValueEnum::to_possible_value) {
        command.args(["--without", feature.get_name()]);
    }
    Ok(command)
}

/// The stage between: makes the namespaces and waits for the stage inside. Never returns.
fn enter_walls(args: &DemoArgs, folder: &Path) -> anyhow::Result<()> {
    walls::end_with_parent()?;
    if let Err(error) = walls::enter() {
        say::progress(format_args!("cannot enter namespaces: {error:#}"));
        std::process::exit(NO_WALLS.into());
    }
    let mut child = command(args, Stage::Inside, folder)?.spawn()?;
    let status = child.wait()?;
    std::process::exit(status.code().unwrap_or(1));
}

/// Builds the world, plays every scene, prints the table.
fn play(args: &DemoArgs, folder: &Path, walls: bool) -> anyhow::Result<()> {
    walls::end_with_parent()?;
    let world = World::build(folder, walls, args.without)?;
    let mut stage = stage::Stage::set(&world, args.seconds)?;
    let mut rows = Vec::new();
    if args.without.is_none_or(|feature| !feature.is_far()) {
        rows.extend(scenes::play(&mut stage));
    }
    let mut sites = None;
    if !walls {
        rows.extend(scenes::far_not_shown());
    } else if args.without.is_none_or(Feature::is_far) {
        rows.extend(scenes::play_far(sites.insert(Sites::set(&world)?)));
    }
    say::answer(&report::table(&rows, say::width()))?;
    let failed = rows.iter().filter(|row| row.verdict == Verdict::Failed).count();
    if args.keep {
        std::fs::write(folder.join(KEPT), if failed == 0 { "held" } else { "failed" })?;
        stage.keep(&sites.as_ref().map(Sites::hints).transpose()?.unwrap_or_default())?;
    }
    drop(stage);
    match failed {
        0 => Ok(()),
        1 => bail!("1 row FAILED"),
        _ => bail!("{failed} rows FAILED"),
    }
}
