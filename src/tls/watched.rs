//! What is made of files, and made again when their content changes.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::Fault;
use crate::files::Files;

/// Which files, and what is made of them.
pub trait Rules {
    /// What they become.
    type Loaded;
    /// The files.
    fn files(&self) -> Vec<&Path>;
    /// Reads them.
    fn load(&self) -> Result<Self::Loaded, Fault>;
}

/// What was made of the files last, while they made sense.
pub struct Watched<R: Rules> {
    rules: R,
    now: RwLock<Arc<R::Loaded>>,
    seen: Mutex<Seen>,
}

struct Seen {
    files: Files,
    broken: bool,
}

/// What a look at the files found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// What was there before.
    Nothing,
    /// Other files, which are in use from now on.
    Renewed,
    /// Other files, which are of no use; those from before stay in use.
    Broken(Fault),
}

impl<R: Rules> Watched<R> {
    /// Reads the files for the first time.
    pub fn load(rules: R) -> Result<Watched<R>, Fault> {
        // Before they are read: what changes in between is another content, and found by the next look.
        let files = Files::at(rules.files());
        let now = rules.load()?;
        Ok(Watched { rules, now: RwLock::new(Arc::new(now)), seen: Mutex::new(Seen { files, broken: false }) })
    }

    /// Whether it is made of what these rules say.
    pub fn is_by(&self, rules: &R) -> bool
    where
        R: PartialEq,
    {
        self.rules == *rules
    }

    /// Which files it is made of.
    pub fn rules(&self) -> &R {
        &self.rules
    }

    /// What is in use.
    pub fn now(&self) -> Arc<R::Loaded> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the files again. A file that is of no use is told once.
    pub fn look(&self) -> Change {
        let files = Files::at(self.rules.files());
        let mut seen = self.seen();
        if seen.files == files {
            return Change::Nothing;
        }
        seen.files = files;
        let loaded = self.rules.load();
        seen.broken = loaded.is_err();
        match loaded {
            Ok(loaded) => {
                *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
                Change::Renewed
            }
            Err(fault) => Change::Broken(fault),
        }
    }

    /// Whether the files are of no use as they are now, so that those from before are in use.
    pub fn is_broken(&self) -> bool {
        self.seen().broken
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Rules + fmt::Debug> fmt::Debug for Watched<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watched").field(&self.rules).finish()
    }
}
