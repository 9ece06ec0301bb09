//! Files, and what was in each of them, so that a change of any can be noticed.
//!
//! Their content counts, not their times: a secret that Kubernetes mounts changes by the swap of a link above it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Each with a digest, or that it could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(Vec<(PathBuf, Option<[u8; 32]>)>);

impl Files {
    /// What is in these now.
    pub fn at<P: Into<PathBuf>>(paths: impl IntoIterator<Item = P>) -> Files {
        let mut files = Files::default();
        for path in paths {
            // That it could not be read is remembered with it.
            let _ = files.read(path.into());
        }
        files
    }

    /// Reads one more, and remembers what was in it.
    pub fn read(&mut self, path: PathBuf) -> io::Result<Zeroizing<Vec<u8>>> {
        let bytes = fs::read(&path).map(Zeroizing::new);
        self.0.push((path, bytes.as_ref().ok().map(|bytes| Sha256::digest(bytes).into())));
        bytes
    }

    /// The same files as they are now.
    pub fn look(&self) -> Files {
        Files::at(self.paths())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Those behind the first `count`.
    pub fn since(&self, count: usize) -> Files {
        Files(self.0.get(count..).unwrap_or_default().to_vec())
    }

    /// These and others.
    pub fn and(mut self, others: Files) -> Files {
        self.0.extend(others.0);
        self
    }

    /// Where they are.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(path, _)| path.as_path())
    }
}
