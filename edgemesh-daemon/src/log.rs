//! Logging: the log for operators on stderr, the access log as JSON lines on stdout.

use std::io;

use clap::ValueEnum;
use tracing::Metadata;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::FilterExt;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::log::lines::LineWriter;

pub mod lines;

/// The filter where nobody says otherwise.
pub const DEFAULT_FILTER: &str = "info";

/// Libraries that say of each refusal what we say of it, with whole answers in it; silent unless the filter
/// names them.
const QUIET: [&str; 2] = ["kube_client", "kube_runtime"];

/// Target of the access log's events. Core writes one for each flow.
pub const ACCESS: &str = "access";

/// How the log for operators looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Lines for people
    Human,
    /// One JSON object a line
    Json,
}

/// Keeps the log going and lets it be changed; dropping it writes out what is queued.
#[derive(Debug)]
pub struct Log {
    filter: reload::Handle<Targets, Registry>,
    access: LineWriter,
}

/// A filter that cannot be read, or no log to change.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The text is no filter.
    #[error("`{0}` is no log filter: LEVEL, or TARGET=LEVEL joined by commas")]
    Syntax(String),
    /// A log is set up already, or gone.
    #[error("the log cannot be changed: {0}")]
    Log(String),
}

/// Sets the process's log up: `filter` decides what goes to stderr, never what the access log says.
///
/// # Errors
/// [`FilterError`]; also when the process has a log already.
pub fn start(format: Format, filter: &str) -> Result<Log, FilterError> {
    let (log, subscriber) = build(format, filter, io::stderr, Box::new(io::stdout()))?;
    subscriber.try_init().map_err(|error| FilterError::Log(error.to_string()))?;
    Ok(log)
}

/// Sets up the log of a process that has no flows, such as the guard: no thread, no reload.
///
/// # Errors
/// [`FilterError`]; also when the process has a log already.
pub fn start_plain(format: Format, filter: &str) -> Result<(), FilterError> {
    let layer = operator_layer(format, io::stderr).with_filter(parse(filter)?);
    let subscriber = Registry::default().with(layer);
    subscriber.try_init().map_err(|error| FilterError::Log(error.to_string()))
}

/// The log as a value, with its two writers.
fn build<W>(
    format: Format,
    filter: &str,
    operators: W,
    access: Box<dyn io::Write + Send>,
) -> Result<(Log, impl Subscriber + Send + Sync + 'static), FilterError>
where
    W: for<'a> fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let access = LineWriter::new(access).map_err(|error| FilterError::Log(error.to_string()))?;
    let operators = operator_layer(format, operators)
        .with_filter(filter.and(filter_fn(|metadata: &Metadata<'_>| metadata.target() != ACCESS)));
    let flows = fmt::layer()
        .json()
        .flatten_event(true)
        .with_level(false)
        .with_target(false)
        .with_current_span(false)
        .with_span_list(false)
        .with_writer(access.handle())
        .with_filter(filter_fn(|metadata| metadata.target() == ACCESS));
    let subscriber = Registry::default().with(operators).with(flows);
    Ok((Log { filter: handle, access }, subscriber))
}

fn operator_layer<S, W>(format: Format, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    use std::io::IsTerminal;
    let colours = io::stderr().is_terminal();
    match format {
        Format::Human => Box::new(fmt::layer().with_ansi(colours).with_writer(writer)),
        Format::Json => Box::new(fmt::layer().json().flatten_event(true).with_writer(writer)),
    }
}

fn parse(filter: &str) -> Result<Targets, FilterError> {
    let syntax = || FilterError::Syntax(filter.to_owned());
    // A bare word that is no level would be taken for a target: `inof` would silence everything.
    let level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    if !filter.split(',').all(|part| part.contains('=') || level(part.trim())) {
        return Err(syntax());
    }
    let targets: Targets = filter.parse().map_err(|_| syntax())?;
    let is_named = |target: &&str| filter.contains(*target);
    let quiet = QUIET.iter().filter(|target| !is_named(target));
    Ok(quiet.fold(targets, |targets, target| targets.with_target(*target, LevelFilter::OFF)))
}

/// `filter` if it is one; for the command line, which wants the error as text.
///
/// # Errors
/// What a filter looks like.
pub fn checked_filter(filter: &str) -> Result<String, String> {
    parse(filter).map(|_| filter.to_owned()).map_err(|error| error.to_string())
}

impl Log {
    /// Replaces the filter of the log for operators (`PUT /v1/log?filter=…`).
    ///
    /// # Errors
    /// [`FilterError`]; the old filter stays then.
    pub fn set_filter(&self, filter: &str) -> Result<(), FilterError> {
        let filter = parse(filter)?;
        self.filter.reload(filter).map_err(|error| FilterError::Log(error.to_string()))
    }

    /// Access-log lines that were lost since the start, because whoever reads stdout was too slow.
    pub fn lost(&self) -> u64 {
        self.access.lost()
    }
}

#[cfg(test)]
mod tests;
