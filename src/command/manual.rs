//! `portcullis completions` and `portcullis man`: what the command line can do, for shells and for `man`, from the same
//! definitions that it is read by. Printed and not installed: so they are always those of the binary at hand.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

/// For which shell.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Completions {
    /// The shell.
    shell: Shell,
}

const EXAMPLES: &str = "Examples:
  source <(portcullis completions bash)
  portcullis completions bash > /etc/bash_completion.d/portcullis
  portcullis completions zsh > \"${fpath[1]}/_portcullis\"
  portcullis completions fish > ~/.config/fish/completions/portcullis.fish";

/// An example for the help of `man`.
pub const MAN: &str = "Examples:
  portcullis man | man -l -
  portcullis man > /usr/local/share/man/man1/portcullis.1";

/// Prints the script that makes a shell complete commands and flags.
pub fn completions(arguments: &Completions) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::Arguments::command(), NAME, &mut script);
    print(&script)
}

/// Prints one page with every command and every flag.
pub fn man() -> ExitCode {
    match page(super::Arguments::command()) {
        Ok(page) => print(&page),
        Err(fault) => {
            super::complain_of(&format!("cannot write the page: {fault}"));
            ExitCode::FAILURE
        }
    }
}

fn print(text: &[u8]) -> ExitCode {
    // Whoever stops reading has read enough.
    let _ = io::stdout().lock().write_all(text);
    ExitCode::SUCCESS
}

/// What the library makes is a page for each command, of which most would be `--config` and the like. One is enough: here the
/// sections of the others are parts of a section of their own.
fn page(mut command: Command) -> io::Result<Vec<u8>> {
    command.build();
    let whole = Man::new(command.clone());
    let mut page = Vec::new();
    whole.render_title(&mut page)?;
    whole.render_name_section(&mut page)?;
    whole.render_synopsis_section(&mut page)?;
    writeln!(page, ".SH COMMANDS")?;
    for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        writeln!(page, ".TP\n\\fB{}\\fR\n{}", plain(command.get_name()), plain(&about))?;
    }
    for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
        writeln!(page, ".SH {}", plain(&command.get_name().to_uppercase()))?;
        let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
        writeln!(page, "{}", plain(&about))?;
        let examples = command.get_after_help().map(ToString::to_string);
        let man = Man::new(command.clone().after_help(None::<&str>));
        let mut parts = Vec::new();
        man.render_synopsis_section(&mut parts)?;
        man.render_options_section(&mut parts)?;
        for line in String::from_utf8_lossy(&parts).lines() {
            writeln!(page, "{}", line.strip_prefix(".SH ").map_or(line.to_owned(), |name| format!(".SS {name}")))?;
        }
        example(&mut page, ".SS", examples.as_deref())?;
    }
    example(&mut page, ".SH", command.get_after_help().map(ToString::to_string).as_deref())?;
    writeln!(page, ".SH EXIT STATUS")?;
    for (code, meaning) in STATUS {
        writeln!(page, ".TP\n\\fB{code}\\fR\n{meaning}")?;
    }
    Ok(page)
}

/// Lines that stand as they are, below `Example:`.
fn example(page: &mut Vec<u8>, level: &str, text: Option<&str>) -> io::Result<()> {
    let Some((heading, lines)) = text.and_then(|text| text.split_once(":\n")) else { return Ok(()) };
    writeln!(page, "{level} {}\n.nf", heading.to_uppercase())?;
    lines.lines().try_for_each(|line| writeln!(page, "{}", plain(line.strip_prefix("  ").unwrap_or(line))))?;
    writeln!(page, ".fi")
}

/// Text that no line of is taken for a request, and in which a hyphen is the one to type.
fn plain(text: &str) -> String {
    let text = text.replace('\\', "\\(rs").replace('-', "\\-").replace('\'', "\\(aq").replace('`', "\\(ga");
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}

const NAME: &str = "portcullis";

const STATUS: [(u8, &str); 4] = [
    (0, "Done; of \\fBexplain\\fR: the request would be admitted, of \\fBreadiness\\fR: it is safe to enforce."),
    (1, "It could not start, or failed; of \\fBexplain\\fR and \\fBreadiness\\fR: the opposite of 0."),
    (64, "Wrong usage."),
    (78, "Something is wrong with the config."),
];
