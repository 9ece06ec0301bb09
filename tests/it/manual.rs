//! Completions and the manual page: made from the command line as it is, and taken by the programs that read them.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::binary::output;

/// The commands, and the flags of each, as `--help` tells them.
fn commands() -> Vec<(String, Vec<String>)> {
    let listed = |help: &str, start: &str| -> Vec<String> {
        let words =
            help.lines().filter_map(|line| line.trim_start().strip_prefix(start).filter(|_| line.starts_with("  ")));
        words.map(|rest| format!("{start}{}", rest.split([' ', ',']).next().unwrap())).collect()
    };
    let (_, help, _) = output(&["--help"]);
    let (_, behind) = help.split_once("Commands:\n").unwrap();
    let names = behind
        .lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.map(|line| line.split_whitespace().next().unwrap().to_owned()).filter(|name| name != "help");
    let flags = |name: String| {
        let (_, help, _) = output(&[&name, "--help"]);
        let flags = listed(&help, "--");
        (name, flags)
    };
    let commands: Vec<_> = names.map(flags).collect();
    assert!(commands.len() >= 11, "{commands:?}");
    commands
}

#[test]
fn bash_completes_every_command_and_flag() {
    let (code, script, _) = output(&["completions", "bash"]);
    assert_eq!(code, 0);
    let complete = |words: &[&str]| -> Vec<String> {
        let line = format!(
            "{script}\ncomplete -p portcullis >&2\nCOMP_WORDS=({}) COMP_CWORD={}\n_portcullis portcullis \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"\n\
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
            words.len() - 1
        );
        let output = Command::new("bash").args(["--norc", "--noprofile", "-c", &line]).output().unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && complaint.contains("-F _portcullis"), "{complaint}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    };
    assert_eq!(complete(&["portcullis", "unr"]), ["unrevoke"]);
    assert_eq!(complete(&["portcullis", "sign", "--cal"]), ["--caller"]);
    for (name, flags) in commands() {
        assert!(complete(&["portcullis", &name]).contains(&name), "{name}");
        let offered = complete(&["portcullis", &name, "--"]);
        let missing: Vec<_> = flags.iter().filter(|flag| !offered.contains(flag)).collect();
        assert_eq!(missing, [""; 0], "{name} {offered:?}");
    }
}

#[test]
fn the_other_shells_have_every_command_and_flag() {
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let (code, script, _) = output(&["completions", shell]);
        assert_eq!(code, 0);
        for (name, flags) in commands() {
            assert!(script.contains(&name), "{shell} {name}");
            // Fish has them without their hyphens.
            let missing: Vec<_> = flags.iter().filter(|flag| !script.contains(flag.trim_start_matches('-'))).collect();
            assert_eq!(missing, [""; 0], "{shell} {name}");
        }
    }
    assert_eq!(output(&["completions", "tcsh"]).0, 64);
}

#[test]
fn the_manual_renders_without_a_warning_and_has_every_command_and_flag() {
    let (code, page, _) = output(&["man"]);
    assert_eq!(code, 0);
    let mut groff = Command::new("groff");
    // Lines wide enough that no flag is broken; no colours and no overstriking.
    groff.args(["-man", "-Kutf8", "-Tutf8", "-ww", "-rLL=200n", "-P-cbou"]);
    let mut child = groff.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    let text = String::from_utf8(output.stdout).unwrap();
    for (name, flags) in commands() {
        let (_, section) =
            text.split_once(&format!("\n{}\n", name.to_uppercase())).unwrap_or_else(|| panic!("{name}\n{text}"));
        // Up to the next heading: what belongs to a section is indented.
        let end =
            section.match_indices('\n').find(|(at, _)| section[at + 1..].starts_with(|one: char| !one.is_whitespace()));
        let end = end.unwrap().0;
        let missing: Vec<_> = flags.iter().filter(|flag| !section[..end].contains(flag.as_str())).collect();
        assert_eq!(missing, [""; 0], "{name}");
    }
    for text in [
        "WALLET_PASSWORD=… WALLET_SIGNING_KEY=… portcullis run --config config/wallet.toml",
        "portcullis man | man -l -",
        "Something is wrong with the config.",
    ] {
        assert!(page.replace("\\-", "-").contains(text), "{text}");
    }
}
