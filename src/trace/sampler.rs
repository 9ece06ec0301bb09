//! Which requests are recorded.
//!
//! <https://opentelemetry.io/docs/specs/otel/trace/sdk/#sampling>

use super::TraceContext;

/// Decides by the trace's id, and where that is wanted by what the caller's span says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    /// For a trace that starts here, and for all where the caller's word does not count.
    pub root: Root,
    /// A trace that goes on is recorded when the caller says that it is.
    pub parent_based: bool,
}

/// What is recorded of traces that start here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// All of them.
    All,
    /// None.
    None,
    /// Those whose id is below this, of 2^63.
    Below(u64),
}

impl Sampler {
    /// Whether a request is recorded.
    pub fn samples(&self, trace: &TraceContext) -> bool {
        match trace.parent() {
            Some(parent) if self.parent_based => parent.sampled(),
            Some(_) | None => self.root.takes(trace.own().trace_id),
        }
    }
}

impl Root {
    /// A share of all traces, from 0 to 1.
    pub fn share(share: f64) -> Root {
        // Exact for 0 and 1; in between, a bit more or less of 2^63 is nothing.
        Root::Below((share * TWO_TO_THE_63) as u64)
    }

    /// By the same bits of the id as the SDKs take, so that replicas and other services keep the same traces.
    fn takes(self, trace_id: [u8; 16]) -> bool {
        match self {
            Root::All => true,
            Root::None => false,
            Root::Below(bound) => {
                let [.., a, b, c, d, e, f, g, h] = trace_id;
                u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1 < bound
            }
        }
    }
}

const TWO_TO_THE_63: f64 = (1_u64 << 63) as f64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Fresh;

    const SAMPLED: &[u8] = b"00-12345678901234567890123456789012-1234567890123456-01";
    const UNSAMPLED: &[u8] = b"00-12345678901234567890123456789012-1234567890123456-00";

    fn trace(parent: Option<&[u8]>, low: u64) -> TraceContext {
        let mut trace_id = [0xff; 16];
        trace_id[8..].copy_from_slice(&low.to_be_bytes());
        let fresh = Fresh { trace_id, parent_id: [1; 8], uuid: uuid::Uuid::from_u128(1) };
        TraceContext::adopt_or_start(parent.into_iter(), std::iter::empty(), &fresh)
    }

    #[test]
    fn the_callers_word_counts_where_it_is_wanted_and_for_its_own_trace_alone() {
        for (root, fallback) in [(Root::All, true), (Root::None, false)] {
            let parent_based = Sampler { root, parent_based: true };
            assert!(parent_based.samples(&trace(Some(SAMPLED), 0)));
            assert!(!parent_based.samples(&trace(Some(UNSAMPLED), 0)));
            assert_eq!(parent_based.samples(&trace(None, 0)), fallback);
            for parent in [None, Some(SAMPLED), Some(UNSAMPLED)] {
                assert_eq!(Sampler { root, parent_based: false }.samples(&trace(parent, 0)), fallback);
            }
        }
    }

    #[test]
    fn a_share_is_taken_by_the_low_half_of_the_id() {
        for (share, low, taken) in [
            (0.0, 0, false),
            (1.0, u64::MAX, true),
            (0.5, u64::MAX / 2, true),
            (0.5, u64::MAX / 2 + 1, false),
            (0.25, u64::MAX / 4, true),
            (0.25, u64::MAX / 4 + 2, false),
        ] {
            let sampler = Sampler { root: Root::share(share), parent_based: false };
            assert_eq!(sampler.samples(&trace(None, low)), taken, "{share} {low:x}");
        }
    }

    #[test]
    fn a_trace_that_was_started_anew_has_no_parent_to_listen_to() {
        let mut anew = trace(Some(SAMPLED), 0);
        anew.start_anew(&Fresh { trace_id: [7; 16], parent_id: [1; 8], uuid: uuid::Uuid::from_u128(1) });
        assert!(!Sampler { root: Root::None, parent_based: true }.samples(&anew));
        assert_eq!(anew.own().trace_id, [7; 16]);
        assert!(anew.link().is_some_and(|link| link.sampled()));
    }
}
