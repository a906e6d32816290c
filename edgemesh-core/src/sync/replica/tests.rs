//! What an agent makes of what it hears.
