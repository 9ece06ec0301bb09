//! `portcullis check`

use std::io::Write;
use std::process::ExitCode;

use crate::config::Flags;

/// Reads the config, prints every complaint or what it comes to.
pub fn check(flags: &Flags) -> ExitCode {
    match super::load(flags) {
        Ok(settings) => {
            let callers = settings.callers.iter().count();
            // Whoever stops reading has read enough.
            let _ = writeln!(
                std::io::stdout(),
                "{}: good. Dialect {}, {} routes, {callers} {}; {} → {}",
                flags.config.display(),
                settings.dialect.name,
                settings.dialect.routes.iter().count(),
                if callers == 1 { "caller" } else { "callers" },
                settings.listen,
                settings.upstream,
            );
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}
