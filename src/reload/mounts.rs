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
    for path in files.paths() {
        if absolute(path).is_ok_and(|path| is_mount_point(&mounts, &path)) {
            let about = json!({
                "file": path.display().to_string(),
                "hint": "it is mounted by itself (subPath), so that changes to it do not arrive before a restart; \
                         mount the whole volume as a folder",
            });
            log.note("warn", "file_never_changes", &about);
        }
    }
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
