//! `portcullis demo`, as people start it: the real binary, with nothing around it.

use std::fs::File;
use std::io::{BufRead, BufReader, Lines, Read};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    // No environment and no file of the repository: it must need neither.
    command.arg("demo").args(arguments).env_clear().current_dir("/").stdin(Stdio::null());
    command
}

/// A demo that stays, killed when dropped.
struct Running {
    child: Child,
    lines: Option<Lines<BufReader<ChildStdout>>>,
}

impl Running {
    fn start() -> Running {
        let mut child = demo(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Running { child, lines: Some(lines) }
    }

    /// Every line up to one that contains `text`, which is among them.
    fn until(&mut self, text: &str) -> Vec<String> {
        let mut read = Vec::new();
        for line in self.lines.as_mut().unwrap() {
            read.push(line.unwrap());
            if read.last().is_some_and(|line| line.contains(text)) {
                return read;
            }
        }
        panic!("it ended without {text:?}: {read:#?}");
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Exit code and standard error.
    fn end(&mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const QUIETLY: (Option<i32>, String) = (Some(0), String::new());

/// The status and the body of what a line brings when it is pasted into a shell.
fn pasted(line: &str) -> (String, String) {
    let Output { stdout, stderr, .. } = Command::new("sh").args(["-c", line]).output().unwrap();
    let reply = String::from_utf8(stdout).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{line}\n{reply}{stderr:?}"));
    (head.split(' ').nth(1).unwrap().to_owned(), body.to_owned())
}

#[test]
fn every_promise_of_the_walk_is_kept() {
    let Output { status, stdout, stderr } = demo(&["--once"]).output().unwrap();
    let page = String::from_utf8(stdout).unwrap();
    assert_eq!((status.code(), String::from_utf8(stderr).unwrap()), QUIETLY, "{page}");
    let steps = page.lines().filter(|line| line.starts_with("    why ")).count();
    // The README says how many.
    assert_eq!(steps, 19, "{page}");
    assert!(page.trim_end().ends_with(&format!("All {steps} came out as promised.")), "{page}");
    for word in ["Valkyrie", "Wallet", "Betstack", "back   200", "back   401", "back   503", "back   504"] {
        assert!(page.contains(word), "{word}: {page}");
    }
}

#[test]
fn in_a_pipe_it_is_plain_and_not_wider_than_100_columns() {
    let Output { stdout, .. } = demo(&["--once"]).output().unwrap();
    let page = String::from_utf8(stdout).unwrap();
    assert_eq!(page.find('\x1b'), None);
    let wide: Vec<&str> = page.lines().filter(|line| line.chars().count() > 100).collect();
    assert_eq!(wide, [""; 0]);
}

#[test]
fn the_lines_to_try_are_admitted_when_pasted() {
    let mut running = Running::start();
    let page = running.until("Ctrl-C");
    let lines: Vec<&String> = page.iter().filter(|line| line.contains("curl -i ")).collect();
    let first: Vec<(String, String)> = lines.iter().map(|line| pasted(line)).collect();
    let statuses: Vec<&str> = first.iter().map(|(status, _)| status.as_str()).collect();
    assert_eq!(statuses, ["200"; 7], "{lines:#?}");
    for (line, word) in [(0, "cashAmount"), (2, r#""status":true"#), (5, "carol"), (6, "bob")] {
        assert!(first[line].1.contains(word), "{}\n{}", lines[line], first[line].1);
    }
    // What ends a token, and what may be sent once, says so. The rest goes on working.
    let again: Vec<String> = lines[..6].iter().map(|line| pasted(line).0).collect();
    assert_eq!(again, ["200", "401", "200", "401", "200", "403"]);
    running.signal("TERM");
    assert_eq!(running.end(), QUIETLY);
}

#[test]
fn ctrl_c_ends_it_at_once_and_with_0() {
    let mut running = Running::start();
    running.until("Portcullis");
    running.signal("INT");
    assert_eq!(running.end(), QUIETLY);
}

#[test]
fn a_reader_that_leaves_during_the_walk_ends_it_quietly() {
    let mut running = Running::start();
    running.until("Valkyrie");
    drop(running.lines.take());
    assert_eq!(running.end(), QUIETLY);
}

#[test]
fn a_reader_that_leaves_while_it_stays_ends_it_quietly() {
    let mut running = Running::start();
    running.until("Ctrl-C");
    drop(running.lines.take());
    assert_eq!(running.end(), QUIETLY);
}

#[test]
fn a_page_that_cannot_be_printed_is_a_failure() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let Output { status, stderr, .. } = demo(&["--once"]).stdout(full).output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.starts_with("portcullis demo: cannot print: "), "{said}");
}
