//! Where the texts of a config come from: files beside it, and variables. What was read is remembered, so that a change of
//! any of it can be noticed.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::tls::InUse;
use crate::files::Files;

/// What a config is read with.
pub struct Sources<'e> {
    folder: PathBuf,
    environment: &'e dyn Fn(&str) -> Option<String>,
    files: RefCell<Files>,
    secrets: RefCell<BTreeSet<PathBuf>>,
    /// Certificates to go on with where those in the files are of no use.
    pub in_use: InUse,
}

impl<'e> Sources<'e> {
    /// For a config in `folder`; `environment` looks variables up.
    pub fn new(folder: &Path, environment: &'e dyn Fn(&str) -> Option<String>) -> Sources<'e> {
        Sources {
            folder: folder.to_owned(),
            environment,
            files: RefCell::default(),
            secrets: RefCell::default(),
            in_use: InUse::default(),
        }
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
        self.files.borrow_mut().read(self.path(name))
    }

    /// The same for a file that nobody else should read.
    pub fn secret(&self, name: &str) -> io::Result<Zeroizing<Vec<u8>>> {
        self.secrets.borrow_mut().insert(self.path(name));
        self.file(name)
    }

    /// The files so far that nobody else should read.
    pub fn secrets(&self) -> Vec<PathBuf> {
        self.secrets.borrow().iter().cloned().collect()
    }

    /// How much has been read so far.
    pub fn mark(&self) -> usize {
        self.files.borrow().count()
    }

    /// What has been read since.
    pub fn since(&self, mark: usize) -> Files {
        self.files.borrow().since(mark)
    }

    /// What has been read.
    pub fn into_files(self) -> Files {
        self.files.into_inner()
    }
}
