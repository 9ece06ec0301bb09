//! Where the texts of a config come from: files beside it, and variables. What was read is remembered, so that a change of
//! any of it can be noticed.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::tls::InUse;

/// What a config is read with.
pub struct Sources<'e> {
    folder: PathBuf,
    environment: &'e dyn Fn(&str) -> Option<String>,
    files: RefCell<Files>,
    /// Certificates to go on with where those in the files are of no use.
    pub in_use: InUse,
}

/// Files, and what was in each of them: a digest, or that it could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(Vec<(PathBuf, Option<[u8; 32]>)>);

impl<'e> Sources<'e> {
    /// For a config in `folder`; `environment` looks variables up.
    pub fn new(folder: &Path, environment: &'e dyn Fn(&str) -> Option<String>) -> Sources<'e> {
        Sources { folder: folder.to_owned(), environment, files: RefCell::default(), in_use: InUse::default() }
    }

    /// The same for a process that has certificates in use.
    pub fn using(self, in_use: InUse) -> Sources<'e> {
        Sources { in_use, ..self }
    }

    /// The value of a variable.
    pub fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name)
    }

    /// Where a file is that a config names.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Reads a file that a config names.
    pub fn file(&self, name: &str) -> io::Result<Zeroizing<Vec<u8>>> {
        let path = self.path(name);
        let bytes = fs::read(&path).map(Zeroizing::new);
        self.files.borrow_mut().0.push((path, bytes.as_deref().ok().map(digest)));
        bytes
    }

    /// How much has been read so far.
    pub fn mark(&self) -> usize {
        self.files.borrow().0.len()
    }

    /// What has been read since.
    pub fn since(&self, mark: usize) -> Files {
        Files(self.files.borrow().0.get(mark..).unwrap_or_default().to_vec())
    }

    /// What has been read.
    pub fn into_files(self) -> Files {
        self.files.into_inner()
    }
}

impl Files {
    /// The same files as they are now.
    pub fn look(&self) -> Files {
        let again = |path: &Path| fs::read(path).ok().map(|bytes| digest(&Zeroizing::new(bytes)));
        Files(self.0.iter().map(|(path, _)| (path.clone(), again(path))).collect())
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

fn digest(bytes: &Vec<u8>) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
