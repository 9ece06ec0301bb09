//! Whether a file is mounted by itself, so that it never changes.

use std::path::Path;

use super::finding::Finding;
use crate::reload::mounts::by_themselves;

/// Whether one of the files is, by the text of `/proc/self/mountinfo`.
pub fn judge(mounts: &str, files: &[&Path]) -> Finding {
    if mounts.is_empty() {
        return Finding::unknown(MOUNTS, "what is mounted here cannot be seen");
    }
    let alone = by_themselves(mounts, files.iter().copied());
    if alone.is_empty() {
        let files = if files.len() == 1 { "1 file" } else { &format!("{} files", files.len()) };
        return Finding::sound(MOUNTS, format!("{files}, none of which is mounted by itself: changes arrive"));
    }
    let listed = alone.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    let are = if alone.len() == 1 { "is mounted by itself" } else { "are mounted each by itself" };
    Finding::wrong(MOUNTS, format!("{listed} {are} (subPath): changes do not arrive before a restart"))
        .advise("mount the whole volume as a folder, without subPath, and name the files in it")
}

const MOUNTS: &str = "mounts";

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn a_file_that_is_a_mount_is_wrong_and_one_in_a_mount_is_not() {
        let mounts =
            "910 897 0:50 / /etc/portcullis ro - tmpfs tmpfs rw\n911 897 254:1 /x /run/key ro - ext4 /dev/vda1 rw\n";
        let judged = |files: &[&str]| {
            let files: Vec<&Path> = files.iter().map(Path::new).collect();
            judge(mounts, &files)
        };
        assert_eq!(judged(&["/etc/portcullis/config.toml"]).verdict, Verdict::Sound);
        let found = judged(&["/etc/portcullis/config.toml", "/run/key"]);
        assert_eq!(found.verdict, Verdict::Wrong);
        let expected = "/run/key is mounted by itself (subPath): changes do not arrive before a restart";
        assert_eq!(found.found, [expected]);
        assert_eq!(judge("", &[]).verdict, Verdict::Unknown);
    }
}
