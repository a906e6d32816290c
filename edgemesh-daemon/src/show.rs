//! How answers of the admin API look: tables that fit the terminal, and short pages.

use serde::Serialize;

use crate::cli::Output;

mod links;
pub mod page;
mod routes;
mod rules;
pub mod table;
pub(crate) mod wrap;

pub use page::explanation;
pub use page::status;
pub use routes::routes;
pub use rules::endpoints;
pub use rules::rules;
pub use table::backends;
pub use table::nodes;
pub use table::policies;
pub use table::registrations;
pub use table::services;

/// `value` in the form that was asked for; `table` draws it.
///
/// # Errors
/// When the value cannot be written as JSON or YAML, which would be a defect of [`crate::api`].
pub fn render<T: Serialize>(
    value: &T,
    output: Output,
    table: impl FnOnce(&T) -> String,
) -> anyhow::Result<String> {
    let mut text = match output {
        Output::Table => table(value),
        Output::Json => serde_json::to_string_pretty(value)?,
        Output::Yaml => serde_saphyr::to_string(value)?,
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}
