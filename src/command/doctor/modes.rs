//! Who may read and write the files of a config: nobody else should read a secret, or write anything that is relied on.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::finding::Finding;

/// A file, or a folder, and what may be done to it. Links are followed: Kubernetes mounts secrets as links through `..data`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// As the config names it.
    pub path: PathBuf,
    /// Holds a secret.
    pub secret: bool,
    /// A volume is mounted there: what may be done to it the cluster decides, and no chmod.
    pub volume: bool,
    /// The permission bits.
    pub mode: u32,
    /// Who owns it.
    pub owner: u32,
}

/// Looks at a file, where it is there.
pub fn look(path: &Path, secret: bool) -> Option<Access> {
    let about = fs::metadata(path).ok()?;
    Some(Access { path: path.to_owned(), secret, volume: false, mode: about.mode() & 0o7777, owner: about.uid() })
}

/// A finding for each file of which more is allowed than should be, or one for all of them. `own` is the user that we are.
pub fn judge(files: &[Access], own: u32) -> Vec<Finding> {
    let too_wide: Vec<Finding> = files.iter().filter_map(|file| fault(file, own)).collect();
    if !too_wide.is_empty() {
        return too_wide;
    }
    let secrets = files.iter().filter(|file| file.secret).count();
    let of_them = match secrets {
        0 => "none of them a secret".to_owned(),
        1 => "1 of them a secret that only its owner and group may read".to_owned(),
        more => format!("{more} of them secrets that only their owner and group may read"),
    };
    let files = if files.len() == 1 { "1 file".to_owned() } else { format!("{} files", files.len()) };
    vec![Finding::sound(MODES, format!("{files} that nobody else may write, {of_them}"))]
}

fn fault(file: &Access, own: u32) -> Option<Finding> {
    let Access { path, secret, volume, mode, owner } = file;
    let path = path.display();
    if *volume {
        // Its group is ours, by fsGroup; an emptyDir without one is everybody's.
        let found = format!("{path} is a volume that everybody may write to (mode {mode:04o}), as an emptyDir is");
        let inside = format!("name a folder in it, such as {path}/journal: it is made for its owner alone");
        return (mode & WRITTEN_BY_ALL != 0).then(|| Finding::unknown(MODES, found).advise(inside));
    }
    if *secret && mode & READ_BY_ALL != 0 {
        let found = format!("{path} holds a secret, and everybody may read it (mode {mode:04o})");
        return Some(Finding::wrong(MODES, found).advise(
            "chmod 0400; in Kubernetes, defaultMode: 0400 of the volume, or 0440 where securityContext.fsGroup is set",
        ));
    }
    if mode & WRITTEN_BY_OTHERS != 0 {
        let found = format!("{path} may be written by others than its owner (mode {mode:04o})");
        return Some(Finding::wrong(MODES, found).advise("chmod go-w: whoever may write it says what is trusted"));
    }
    if *owner != 0 && *owner != own {
        let found = format!("{path} belongs to user {owner}, who may change it; this is user {own}");
        return Some(Finding::unknown(MODES, found).advise("chown it to root or to the user that Portcullis runs as"));
    }
    None
}

const MODES: &str = "modes";

const READ_BY_ALL: u32 = 0o004;

const WRITTEN_BY_ALL: u32 = 0o002;

const WRITTEN_BY_OTHERS: u32 = 0o022;

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn access(secret: bool, mode: u32, owner: u32) -> Access {
        Access { path: "/run/secrets/key".into(), secret, volume: false, mode, owner }
    }

    #[test]
    fn a_volume_is_its_groups_and_should_not_be_everybodys() {
        for (mode, expected) in [(0o2770, Verdict::Sound), (0o2777, Verdict::Unknown), (0o777, Verdict::Unknown)] {
            let volume = Access { volume: true, ..access(true, mode, 0) };
            assert_eq!(judge(&[volume], 65532)[0].verdict, expected, "{mode:o}");
        }
    }

    #[test]
    fn nobody_else_reads_a_secret_and_nobody_else_writes_anything() {
        for (secret, mode, owner, expected) in [
            (true, 0o400, 0, Verdict::Sound),
            (true, 0o440, 0, Verdict::Sound),
            (true, 0o600, 65532, Verdict::Sound),
            (true, 0o644, 0, Verdict::Wrong),
            (true, 0o404, 0, Verdict::Wrong),
            (true, 0o660, 0, Verdict::Wrong),
            (false, 0o644, 0, Verdict::Sound),
            (false, 0o664, 0, Verdict::Wrong),
            (false, 0o646, 0, Verdict::Wrong),
            (false, 0o644, 1000, Verdict::Unknown),
        ] {
            let found = judge(&[access(secret, mode, owner)], 65532);
            assert_eq!((found.len(), found[0].verdict), (1, expected), "{secret} {mode:o} {owner}");
        }
    }

    #[test]
    fn each_file_that_is_too_wide_has_a_finding() {
        let files = [access(true, 0o644, 0), access(true, 0o400, 0), access(false, 0o666, 0)];
        assert_eq!(judge(&files, 0).len(), 2);
        let found = judge(&[access(true, 0o644, 0)], 0);
        assert_eq!(found[0].found, ["/run/secrets/key holds a secret, and everybody may read it (mode 0644)"]);
        let found = judge(&[access(true, 0o400, 0), access(false, 0o644, 0)], 0);
        let expected = "2 files that nobody else may write, 1 of them a secret that only its owner and group may read";
        assert_eq!(found[0].found, [expected]);
    }
}
