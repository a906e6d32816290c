//! The binary `edgemesh`: arguments become library calls, their outcome an exit code.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::CommandFactory;
use clap::Parser;
use clap::error::ErrorKind;

use edgemesh_daemon::agent;
use edgemesh_daemon::cli::AdminArgs;
use edgemesh_daemon::cli::AgentArgs;
use edgemesh_daemon::cli::CaAction;
use edgemesh_daemon::cli::CheckArgs;
use edgemesh_daemon::cli::Cli;
use edgemesh_daemon::cli::CloudArgs;
use edgemesh_daemon::cli::Command;
use edgemesh_daemon::cli::ConfigArgs;
use edgemesh_daemon::cli::DEFAULT_ADMIN;
use edgemesh_daemon::cli::ExplainArgs;
use edgemesh_daemon::cli::ExplainWhat;
use edgemesh_daemon::cli::GetArgs;
use edgemesh_daemon::cli::Kind;
use edgemesh_daemon::cli::NodeAction;
use edgemesh_daemon::cli::RedirectArgs;
use edgemesh_daemon::cli::ServeArgs;
use edgemesh_daemon::cli::Shell;
use edgemesh_daemon::cli::TokenAction;
use edgemesh_daemon::client::Admin;
use edgemesh_daemon::cloud;
use edgemesh_daemon::config;
use edgemesh_daemon::config::CloudConfig;
use edgemesh_daemon::config::Environment;
use edgemesh_daemon::config::Flags;
use edgemesh_daemon::config::Kind as ConfigKind;
use edgemesh_daemon::config::Problem;
use edgemesh_daemon::config::Resolved;
use edgemesh_daemon::demo;
use edgemesh_daemon::doctor;
use edgemesh_daemon::expose;
use edgemesh_daemon::log;
use edgemesh_daemon::read;
use edgemesh_daemon::redirect;
use edgemesh_daemon::say;
use edgemesh_daemon::secret_file;
use edgemesh_daemon::serve_command;

/// Longest wait for a change that the agent makes.
const CHANGE_WITHIN: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let cli = Cli::parse();
    reject_useless(&cli);
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            say::complain(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Combinations that the grammar allows and that mean nothing: usage errors, exit code 2.
fn reject_useless(cli: &Cli) {
    if let Command::Get(GetArgs { kind: Kind::Nodes, namespace: Some(_), .. }) = &cli.command {
        let text = "nodes have no namespace: leave --namespace out";
        Cli::command().error(ErrorKind::ArgumentConflict, text).exit();
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let named = cli.admin_before;
    let before = named.clone().unwrap_or_else(|| DEFAULT_ADMIN.into());
    let at = |admin: &AdminArgs| admin.url.clone().unwrap_or_else(|| before.clone());
    let done = match cli.command {
        Command::Agent(args) => return agent(&args),
        Command::Doctor(args) => {
            let well = doctor::run(&args, args.admin.url.as_deref().or(named.as_deref()))?;
            return Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Redirect(args) => redirect(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Check(args) => check(&args),
        Command::Cloud(args) => cloud(&args),
        Command::Token(args) => token(args.action),
        Command::Node(args) => node(args.action),
        Command::Ca(args) => ca(args.action),
        Command::Completions { shell } => completions(shell),
        Command::Get(args) => ask(&at(&args.admin), async |admin| read::get(admin, &args).await),
        Command::Expose(args) => {
            ask(&at(&args.admin), async |admin| expose::expose(&patient(admin), &args).await)
        }
        Command::Serve(args) => return serve(&at(&args.admin), &args),
        Command::Explain(ExplainArgs { what: Some(ExplainWhat::Rule(args)), .. }) => {
            ask(&at(&args.admin), async |admin| read::explain_rule(admin, &args).await)
        }
        Command::Explain(args) => {
            ask(&at(&args.admin), async |admin| read::explain(admin, &args).await)
        }
        Command::Status(args) => {
            ask(&at(&args.admin), async |admin| read::status(admin, &args).await)
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// Runs one command that asks the agent and prints its answer.
fn ask(
    url: &str,
    question: impl AsyncFnOnce(&Admin) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let admin = Admin::new(url)?;
    Ok(say::answer(&runtime()?.block_on(question(&admin))?)?)
}

/// Runs a command to its end, signed up.
fn serve(url: &str, args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let admin = patient(&Admin::new(url)?);
    Ok(runtime()?.block_on(serve_command::serve(&admin, args))?.into())
}

/// A change is answered once it is in force.
fn patient(admin: &Admin) -> Admin {
    admin.clone().with_timeout(CHANGE_WITHIN)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")
}

fn load(args: &ConfigArgs) -> anyhow::Result<Resolved> {
    load_file(args.config.as_deref(), &args.flags())
}

/// The configuration, or all its problems on stderr.
fn load_file(path: Option<&Path>, flags: &Flags) -> anyhow::Result<Resolved> {
    config::load_or_default(path, &Environment::of_process(), flags)
        .map_err(|problems| refused(&problems, path, ConfigKind::Agent))
}

/// The same of a cloud.
fn load_cloud(path: Option<&Path>, flags: &Flags) -> anyhow::Result<CloudConfig> {
    config::load_cloud_or_default(path, flags)
        .map(|resolved| resolved.config)
        .map_err(|problems| refused(&problems, path, ConfigKind::Cloud))
}

/// Tells the problems; a file that is rather for the other command is named so.
fn refused(problems: &[Problem], path: Option<&Path>, kind: ConfigKind) -> anyhow::Error {
    let name = config::file_or_default(path, kind).map(|path| path.display().to_string());
    let text = name.as_ref().and_then(|name| std::fs::read_to_string(name).ok());
    let other = text.zip(name.as_deref()).and_then(|(text, name)| {
        let guess = config::guess(&text, name, &Flags::default());
        let command = guess.kind.command();
        (guess.kind != kind).then(|| {
            let whose = guess.kind.whose();
            format!("; it looks like {whose}'s: `edgemesh {command} --config {name}`")
        })
    });
    complain(problems, name.as_deref(), &other.unwrap_or_default())
}

/// Each problem in a line, and how many there are, with more about it.
fn complain(problems: &[Problem], name: Option<&str>, more: &str) -> anyhow::Error {
    for problem in problems {
        say::complain(problem);
    }
    let s = if problems.len() == 1 { "" } else { "s" };
    let name = name.unwrap_or("the defaults");
    anyhow::anyhow!("{name}: {} problem{s}{more}", problems.len())
}

fn check(args: &CheckArgs) -> anyhow::Result<()> {
    let path = args.config.as_deref();
    let checked = config::check_any(path, &Environment::of_process(), &args.flags());
    let (whose, because) = (checked.guess.kind.whose(), &checked.guess.because);
    for held in checked.held_by_others() {
        say::complain(format_args!("note: {held}"));
    }
    match checked.outcome {
        Ok(yaml) => {
            let because =
                if checked.name.is_some() { format!(": it {because}") } else { String::new() };
            Ok(say::answer(&format!("# configuration of {whose}{because}\n{yaml}"))?)
        }
        Err(problems) => {
            let more = format!(", read as the configuration of {whose}: it {because}");
            Err(complain(&problems, checked.name.as_deref(), &more))
        }
    }
}

fn cloud(args: &CloudArgs) -> anyhow::Result<()> {
    let path = args.file.config.as_deref();
    let config = load_cloud(path, &args.flags())?;
    if config::file_or_default(path, ConfigKind::Cloud).is_none() {
        no_file(ConfigKind::Cloud);
    }
    cloud::run(config, log::start(args.log_format, &args.log)?)
}

fn token(action: TokenAction) -> anyhow::Result<()> {
    let TokenAction::Create { ttl, node, file } = action;
    let config = load_cloud(file.config.as_deref(), &Flags::default())?;
    let token = cloud::token_create(&config, ttl, node.as_ref())?;
    Ok(say::answer(&format!("{}\n", token.trim_end()))?)
}

fn node(action: NodeAction) -> anyhow::Result<()> {
    let NodeAction::Remove { name, file } = action;
    let config = load_cloud(file.config.as_deref(), &Flags::default())?;
    let done = cloud::node_remove(&config, &name)?;
    Ok(say::answer(&format!("{}\n", done.trim_end()))?)
}

fn ca(action: CaAction) -> anyhow::Result<()> {
    match action {
        CaAction::Export { out, file } => {
            let config = load_cloud(file.config.as_deref(), &Flags::default())?;
            secret_file::write(&cloud::ca_export(&config)?, out.as_deref())
        }
        CaAction::Restore { input, file } => {
            let config = load_cloud(file.config.as_deref(), &Flags::default())?;
            let done = cloud::ca_restore(&config, &secret_file::read(input.as_deref())?)?;
            Ok(say::answer(&format!("{}\n", done.trim_end()))?)
        }
    }
}

fn no_file(kind: ConfigKind) {
    let file = kind.default_file();
    say::progress(format_args!(
        "edgemesh: no --config and no {file}: defaults (`edgemesh check` shows them)"
    ));
}

fn completions(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    let shell = clap_complete::Shell::from(shell);
    clap_complete::generate(shell, &mut Cli::command(), "edgemesh", &mut script);
    Ok(say::answer(&String::from_utf8_lossy(&script))?)
}

fn agent(args: &AgentArgs) -> anyhow::Result<ExitCode> {
    let resolved = load(&args.config)?;
    let named = args.config.config.as_deref();
    if !args.guarded && config::file_or_default(named, ConfigKind::Agent).is_none() {
        no_file(ConfigKind::Agent);
    }
    if agent::needs_guard(&resolved.config) && !args.guarded {
        log::start_plain(args.log_format, &args.log)?;
        return Ok(agent::guard(&resolved.config)?.into());
    }
    let log = log::start(args.log_format, &args.log)?;
    let (path, flags) = (args.config.config.as_deref(), args.config.flags());
    let reread = || {
        let resolved = config::load_or_default(path, &Environment::of_process(), &flags);
        resolved.map(|resolved| resolved.config)
    };
    let start = agent::Start { guarded: args.guarded, take_over: args.take_over };
    agent::run(resolved.config, &reread, log, start).map(|()| ExitCode::SUCCESS)
}

fn redirect(args: &RedirectArgs) -> anyhow::Result<()> {
    let resolved = load_file(args.config.as_deref(), &Flags::default())?;
    redirect::run(&resolved.config, args.action)
}
