//! Whether there are descriptors for as many connections as the config lets in.

use nix::sys::resource::{Resource, getrlimit};

use super::finding::Finding;
use crate::config::Limits;
use crate::descriptors::most_connections;

/// How many files and sockets a process here may have open. Portcullis raises its own to the hard limit.
pub fn look() -> Option<u64> {
    getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(_, hard)| hard)
}

/// Whether that is enough.
pub fn judge(limits: &Limits, descriptors: Option<u64>) -> Finding {
    let Some(descriptors) = descriptors else {
        return Finding::unknown(DESCRIPTORS, "how many there may be cannot be seen");
    };
    let (wanted, most) = (limits.connections, most_connections(descriptors, limits.in_flight));
    if most < wanted {
        return Finding::wrong(
            DESCRIPTORS,
            format!("{descriptors} descriptors are enough for {most} connections, and limits.connections is {wanted}"),
        )
        .advise("raise the container runtime's LimitNOFILE (`ulimit -n`), or lower limits.connections");
    }
    Finding::sound(DESCRIPTORS, format!("{descriptors}, enough for {wanted} connections"))
}

const DESCRIPTORS: &str = "descriptors";

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;
    use crate::config::{Flags, Settings};
    use crate::secret::DigestKey;

    #[test]
    fn fewer_descriptors_than_connections_are_wrong() {
        let text = "dialect = \"valkyrie\"\nlisten = \"127.0.0.1:0\"\nupstream = \"127.0.0.1:1\"\n[[caller]]\nname = \"a\"\n\
                    bearer = { env = \"A\" }\n";
        let secret = |name: &str| (name == "A").then(|| "a-secret-of-some-length".to_owned());
        let settings = Settings::parse(text, &Flags::default(), &secret, DigestKey::new([7; 32])).unwrap();
        let judged = |descriptors| judge(&settings.limits, descriptors).verdict;
        assert_eq!(judged(Some(1 << 20)), Verdict::Sound);
        assert_eq!(judged(Some(1024)), Verdict::Wrong);
        assert_eq!(judged(None), Verdict::Unknown);
    }
}
