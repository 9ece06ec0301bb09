//! Whether the journal can be written, has room, and lies where it outlives what it should.
//!
//! The file itself is not opened: the Portcullis that runs has it.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf, absolute};

use nix::sys::statvfs::statvfs;

use super::finding::{Finding, bytes};
use super::modes::{self, Access};
use crate::reload::mounts::{Mount, by_themselves, holding};
use crate::revocation::journal::Journal;

/// What is known of a journal's folder.
#[derive(Debug)]
pub struct Shelf {
    /// The folder, as the config names it.
    pub folder: PathBuf,
    /// Whether it is there; the one above it was looked at otherwise.
    pub exists: bool,
    /// Why nothing can be written there, or nothing.
    pub refusal: Option<String>,
    /// Bytes that are free.
    pub free: Option<u64>,
    /// Bytes that lie in it.
    pub used: u64,
    /// What it lies on.
    pub mount: Option<Mount>,
    /// How many tokens are to be remembered.
    pub capacity: u64,
    /// Whether other replicas know what this one forgets.
    pub shared: bool,
}

/// Looks, and makes and removes an empty file.
pub fn look(folder: &Path, capacity: u64, shared: bool, mounts: &str) -> Shelf {
    let folder = absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let there = folder.ancestors().find(|above| above.is_dir()).unwrap_or(Path::new("/"));
    let space = statvfs(there).ok();
    let lengths = files(&folder).into_iter().filter_map(|file| fs::metadata(file).ok()).map(|about| about.len());
    Shelf {
        exists: there == folder,
        refusal: refusal(there),
        free: space.map(|space| space.blocks_available().saturating_mul(space.fragment_size())),
        used: lengths.sum(),
        mount: fs::canonicalize(there).ok().and_then(|there| holding(mounts, &there)),
        folder,
        capacity,
        shared,
    }
}

/// The folder, which should be ours alone, and what lies in it. Of that, only the key is a secret: tokens are digests, and
/// what may be done to them counts where others may enter the folder.
pub fn accesses(folder: &Path, mounts: &str) -> Vec<Access> {
    let volume = !by_themselves(mounts, [folder].into_iter()).is_empty();
    let folder = modes::look(folder, true).map(|access| Access { volume, ..access });
    let inside = folder.iter().flat_map(|folder| files(&folder.path)).collect::<Vec<_>>();
    let entered = folder.as_ref().is_some_and(|folder| folder.mode & ENTERED_BY_OTHERS != 0);
    let inside = inside.iter().filter_map(|path| modes::look(path, path.ends_with(Journal::KEY)));
    let inside = inside.filter(|access| access.secret || entered);
    folder.into_iter().chain(inside).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn refusal(folder: &Path) -> Option<String> {
    let path = folder.join(format!(".portcullis-doctor-{}", std::process::id()));
    let made = OpenOptions::new().write(true).create_new(true).open(&path).err().map(|fault| fault.to_string());
    if made.is_none() {
        let _ = fs::remove_file(&path);
    }
    made
}

/// Whether it does what it is for. `None` stands for no journal.
pub fn judge(shelf: Option<&Shelf>, shared: bool) -> Finding {
    let Some(shelf) = shelf else {
        let none = "there is none";
        return match shared {
            true => Finding::sound(JOURNAL, format!("{none}; a replica that starts reads what ended from the store")),
            false => Finding::unknown(JOURNAL, format!("{none}: a restart forgets which tokens ended"))
                .advise("[revocation] journal = \"/var/lib/portcullis\", on a volume, or redis = { … }"),
        };
    };
    let folder = shelf.folder.display();
    if let Some(refusal) = &shelf.refusal {
        return Finding::wrong(JOURNAL, format!("nothing can be written to {folder}: {refusal}"))
            .advise("mount a volume there that the user may write to: an emptyDir with fsGroup, or a claim");
    }
    let needed = Journal::room(shelf.capacity).saturating_sub(shelf.used);
    let free = shelf.free.unwrap_or(u64::MAX);
    if free < needed {
        return Finding::wrong(
            JOURNAL,
            format!(
                "{folder} has {} free, and a full journal of {} tokens takes {} more",
                bytes(free),
                shelf.capacity,
                bytes(needed)
            ),
        )
        .advise("make the volume larger, or lower revocation.capacity");
    }
    let there = if shelf.exists { "can be written" } else { "is not there yet, and can be made" };
    let found = match shelf.free {
        Some(free) => format!("{folder} {there}, with {} free of the {} it may still take", bytes(free), bytes(needed)),
        None => format!("{folder} {there}"),
    };
    survival(found, shelf)
}

/// What it outlives.
fn survival(found: String, shelf: &Shelf) -> Finding {
    let lasting = |found: String, lost: &str, advice: &str| match shelf.shared {
        true => Finding::sound(JOURNAL, found).and(format!("{lost}; what was published to the store outlives that")),
        false => Finding::unknown(JOURNAL, found).and(lost.to_owned()).advise(advice),
    };
    let claim = "a PersistentVolumeClaim, or [revocation] redis, outlives it";
    match &shelf.mount {
        Some(mount) if mount.kind == "tmpfs" => {
            let lost = "it lies in memory (tmpfs): it counts against the memory limit, and ends with the pod";
            lasting(found, lost, claim)
        }
        Some(mount) if mount.kind == "overlay" => Finding::wrong(JOURNAL, found)
            .and("it lies in the container's own layer, which ends with the container: a restart forgets all the same")
            .advise("mount a volume there: an emptyDir outlives the container, a PersistentVolumeClaim the pod"),
        Some(mount) if mount.root.to_string_lossy().contains(EMPTY_DIR) => {
            lasting(found, "it lies in an emptyDir: it outlives the container, and ends with the pod", claim)
        }
        Some(_) | None => Finding::sound(JOURNAL, found),
    }
}

const ENTERED_BY_OTHERS: u32 = 0o011;

const JOURNAL: &str = "journal";

/// In the path of the node's folder that is shown.
const EMPTY_DIR: &str = "kubernetes.io~empty-dir";

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn shelf(root: &str, kind: &str) -> Shelf {
        Shelf {
            folder: "/var/lib/portcullis".into(),
            exists: true,
            refusal: None,
            free: Some(10 << 30),
            used: 0,
            mount: Some(Mount { root: root.into(), kind: kind.to_owned() }),
            capacity: 1_000_000,
            shared: false,
        }
    }

    #[test]
    fn what_a_journal_outlives_is_said() {
        let empty = "/var/lib/kubelet/pods/1/volumes/kubernetes.io~empty-dir/journal";
        for (root, kind, expected, word) in [
            ("/", "ext4", Verdict::Sound, "can be written"),
            (empty, "ext4", Verdict::Unknown, "ends with the pod"),
            ("/", "tmpfs", Verdict::Unknown, "counts against the memory limit"),
            ("/", "overlay", Verdict::Wrong, "ends with the container"),
        ] {
            let found = judge(Some(&shelf(root, kind)), false);
            assert_eq!(found.verdict, expected, "{kind}");
            assert!(found.found.join(" ").contains(word), "{:?}", found.found);
        }
        let shared = Shelf { shared: true, ..shelf(empty, "ext4") };
        assert_eq!(judge(Some(&shared), true).verdict, Verdict::Sound);
        assert_eq!(judge(None, true).verdict, Verdict::Sound);
        assert_eq!(judge(None, false).verdict, Verdict::Unknown);
    }

    #[test]
    fn a_journal_that_takes_nothing_or_too_little_is_wrong() {
        let refused = Shelf { refusal: Some("Read-only file system".to_owned()), ..shelf("/", "ext4") };
        let found = judge(Some(&refused), false);
        assert_eq!(found.verdict, Verdict::Wrong);
        assert!(found.found[0].contains("Read-only file system"));
        let small = |used| Shelf { free: Some(1 << 20), used, ..shelf("/", "ext4") };
        assert_eq!(judge(Some(&small(0)), false).verdict, Verdict::Wrong);
        assert_eq!(judge(Some(&small(Journal::room(1_000_000))), false).verdict, Verdict::Sound);
    }

    #[test]
    fn looking_leaves_nothing_behind() {
        let folder = std::env::temp_dir().join(format!("portcullis-doctor-shelf-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let shelf = look(&folder.join("not/yet"), 10, false, "1 0 8:1 / / rw - ext4 /dev/sda rw\n");
        assert_eq!((shelf.exists, shelf.refusal, shelf.used), (false, None, 0));
        assert_eq!(shelf.mount.unwrap().kind, "ext4");
        assert!(shelf.free.unwrap() > 0);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        fs::remove_dir_all(&folder).unwrap();
    }
}
