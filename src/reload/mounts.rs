//! Files that are mounted each by itself, as Kubernetes does with `subPath` and Docker with `-v file:file`. When the file
//! outside is replaced, the mount still shows the old one.

use std::fs;
use std::path::{Path, PathBuf, absolute};

use serde_json::json;

use crate::files::Files;
use crate::log::Log;

/// Warns of those among the files of a config.
pub fn warn(files: &Files, log: &Log) {
    // Only Linux has this list; elsewhere there are no such mounts.
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return };
    for path in by_themselves(&mounts, files.paths()) {
        let about = json!({
            "file": path.display().to_string(),
            "hint": "it is mounted by itself (subPath), so that changes to it do not arrive before a restart; \
                     mount the whole volume as a folder",
        });
        log.note("warn", "file_never_changes", &about);
    }
}

/// Those of the files that are mounted each by itself, by the text of `/proc/self/mountinfo`.
pub fn by_themselves<'f>(mounts: &str, files: impl Iterator<Item = &'f Path>) -> Vec<&'f Path> {
    files.filter(|path| absolute(path).is_ok_and(|path| is_mount_point(mounts, &path))).collect()
}

/// What a folder lies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Which part of its file system is shown.
    pub root: PathBuf,
    /// The kind of file system: `ext4`, `tmpfs`, `overlay`.
    pub kind: String,
}

/// The mount that holds a path, by the text of `/proc/self/mountinfo`: of those it lies under, the innermost, and of
/// several at one place the last.
pub fn holding(mounts: &str, path: &Path) -> Option<Mount> {
    let fields = |line: &str| {
        let (about, kind) = line.split_once(" - ")?;
        let mut about = about.split(' ').skip(3);
        let (root, point) = (unescaped(about.next()?), unescaped(about.next()?));
        Some((point, Mount { root, kind: kind.split(' ').next()?.to_owned() }))
    };
    let around = mounts.lines().filter_map(fields).filter(|(point, _)| path.starts_with(point));
    around.max_by_key(|(point, _)| point.components().count()).map(|(_, mount)| mount)
}

/// Whether something is mounted at `path`, by the text of `/proc/self/mountinfo` (proc(5)): the fifth field of a line.
fn is_mount_point(mounts: &str, path: &Path) -> bool {
    mounts.lines().filter_map(|line| line.split(' ').nth(4)).any(|point| unescaped(point) == path)
}

/// Blanks, tabs, line feeds and backslashes are written as three octal digits.
fn unescaped(point: &str) -> PathBuf {
    let signs = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    signs.iter().fold(point.to_owned(), |text, (escaped, sign)| text.replace(escaped, sign)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
        22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n\
        910 897 254:1 /var/lib/kubelet/pods/1/volumes/config /etc/portcullis rw,relatime - ext4 /dev/vda1 rw\n\
        911 897 254:1 /var/lib/kubelet/pods/1/volume-subpaths/config/0 /etc/a\\040b/wallet.toml ro - ext4 /dev/vda1 rw\n";

    #[test]
    fn a_path_is_held_by_the_innermost_and_latest_mount_around_it() {
        for (path, root, kind) in [
            ("/var/lib/portcullis", "/", "ext4"),
            ("/etc/portcullis/wallet.toml", "/var/lib/kubelet/pods/1/volumes/config", "ext4"),
            ("/etc/a b/wallet.toml", "/var/lib/kubelet/pods/1/volume-subpaths/config/0", "ext4"),
            ("/etc/portcullis2", "/", "ext4"),
        ] {
            let expected = Some(Mount { root: root.into(), kind: kind.to_owned() });
            assert_eq!(holding(MOUNTS, Path::new(path)), expected, "{path}");
        }
        let over = format!("{MOUNTS}950 897 0:99 / /etc/portcullis rw - tmpfs tmpfs rw\n");
        assert_eq!(holding(&over, Path::new("/etc/portcullis/a")).unwrap().kind, "tmpfs");
        assert_eq!(holding("", Path::new("/")), None);
    }

    #[test]
    fn only_a_file_that_is_mounted_itself_is_found() {
        for (path, found) in [
            ("/etc/a b/wallet.toml", true),
            ("/etc/portcullis/wallet.toml", false),
            ("/etc/portcullis/..data/wallet.toml", false),
            ("/etc/a", false),
        ] {
            assert_eq!(is_mount_point(MOUNTS, Path::new(path)), found, "{path}");
        }
    }
}
