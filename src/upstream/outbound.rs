//! The head of a request, as either version of HTTP writes it.

use http::header::{AUTHORIZATION, HOST};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

/// A request on its way to the PAM, but for its body: what it says, in no version's spelling yet.
pub trait Outbound {
    /// The method.
    fn method(&self) -> &str;

    /// The target in origin form.
    fn target(&self) -> &str;

    /// Puts its fields one by one, in order: exactly one Host, none that belongs to a connection (RFC 9110 §7.6.1), and
    /// the Content-Length of a body that comes with it.
    fn fields(&self, put: &mut impl FnMut(&[u8], &[u8]));
}

/// As HTTP/1.1 has it, its empty line included: one buffer, into which everything is copied once.
pub(super) fn http1(request: &impl Outbound) -> Vec<u8> {
    let mut out = Vec::with_capacity(USUAL);
    out.extend_from_slice(request.method().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(request.target().as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    request.fields(&mut |name, value| {
        out.reserve(name.len() + value.len() + 4);
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    });
    out.extend_from_slice(b"\r\n");
    out
}

/// As HTTP/2 has it: names in lower case, and Host as `:authority` (RFC 9113 §8.3.1). `None` for what its fields cannot
/// carry.
pub(super) fn http2(request: &impl Outbound, scheme: Scheme) -> Option<http::Request<()>> {
    let mut headers = HeaderMap::with_capacity(16);
    let mut host = None;
    let mut carried = true;
    request.fields(&mut |name, value| {
        let field = HeaderName::from_bytes(name).ok().zip(HeaderValue::from_bytes(value).ok());
        carried &= match field {
            Some((name, value)) if name == HOST => host.replace(value).is_none(),
            Some((name, mut value)) => {
                // Both sides of a connection remember fields to send them shorter; what proves a caller they need not.
                value.set_sensitive(name == AUTHORIZATION);
                headers.try_append(name, value).is_ok()
            }
            None => false,
        };
    });
    let host = host.filter(|_| carried)?;
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(scheme);
    uri.authority = Some(Authority::try_from(host.as_bytes()).ok()?);
    uri.path_and_query = Some(PathAndQuery::try_from(request.target()).ok()?);
    let mut outbound = http::Request::new(());
    *outbound.method_mut() = Method::from_bytes(request.method().as_bytes()).ok()?;
    *outbound.uri_mut() = Uri::from_parts(uri).ok()?;
    *outbound.version_mut() = http::Version::HTTP_2;
    *outbound.headers_mut() = headers;
    Some(outbound)
}

/// Holds a usual head.
const USUAL: usize = 1024;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::target::Target;

    struct Plain<'p>(&'p str, &'p [(&'p str, &'p str)]);

    impl Outbound for Plain<'_> {
        fn method(&self) -> &str {
            "POST"
        }

        fn target(&self) -> &str {
            self.0
        }

        fn fields(&self, put: &mut impl FnMut(&[u8], &[u8])) {
            self.1.iter().for_each(|(name, value)| put(name.as_bytes(), value.as_bytes()));
        }
    }

    #[test]
    fn http1_has_lines_as_they_are() {
        let request = Plain("/a?b", &[("hOsT", "pam"), ("X-A", "1"), ("X-A", "")]);
        assert_eq!(
            String::from_utf8(http1(&request)).unwrap(),
            "POST /a?b HTTP/1.1\r\nhOsT: pam\r\nX-A: 1\r\nX-A: \r\n\r\n"
        );
    }

    #[test]
    fn http2_has_the_host_as_authority_and_small_letters() {
        let fields = [("hOsT", "pam:80"), ("X-A", "1"), ("x-a", "\u{e9}"), ("Authorization", "Bearer x")];
        let request = http2(&Plain("/a?b", &fields), Scheme::HTTPS).unwrap();
        assert_eq!(request.uri(), "https://pam:80/a?b");
        assert_eq!(request.method(), "POST");
        let fields: Vec<_> = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(fields, [("x-a", &b"1"[..]), ("x-a", "\u{e9}".as_bytes()), ("authorization", b"Bearer x")]);
        assert!(request.headers()["authorization"].is_sensitive());
    }

    #[test]
    fn every_byte_of_a_target_passes_unchanged() {
        let may = |one: &char| Target::parse(Bytes::from(format!("/{one}?{one}"))).is_ok();
        let bytes: String = (0..=255_u8).map(char::from).filter(may).collect();
        assert!(bytes.len() > 70, "{bytes}");
        for target in [format!("/{bytes}"), format!("/a?{bytes}?"), "/a?".to_owned(), "/%C3%A9".to_owned()] {
            let request = http2(&Plain(&target, &[("Host", "[::1]:1")]), Scheme::HTTP).unwrap();
            assert_eq!(request.uri().path_and_query().unwrap().as_str(), target);
        }
    }

    #[test]
    fn what_http2_cannot_carry_is_told() {
        for (target, fields) in [
            ("/a", &[][..]),
            ("/a", &[("Host", "a b")]),
            ("/a", &[("Host", "pam"), ("Host", "pam")]),
            ("/a", &[("Host", "pam"), ("a b", "1")]),
            ("/a", &[("Host", "pam"), ("a", "1\n")]),
            ("/a b", &[("Host", "pam")]),
        ] {
            assert!(http2(&Plain(target, fields), Scheme::HTTP).is_none(), "{target} {fields:?}");
        }
    }
}
