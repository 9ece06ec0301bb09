//! `portcullis check`

use std::process::ExitCode;

use crate::config::Flags;

/// Reads the config, prints every complaint or what it comes to.
pub fn check(flags: &Flags) -> ExitCode {
    match super::load(flags) {
        Ok(settings) => {
            println!(
                "{}: good. Dialect {}, {} routes, {} callers; {} → {}",
                flags.config.display(),
                settings.dialect.name,
                settings.dialect.routes.iter().count(),
                settings.callers.iter().count(),
                settings.listen,
                settings.upstream,
            );
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}
