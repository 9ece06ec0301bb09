//! What a certificate says of itself.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// The names a certificate was issued for, as a config writes them: `spiffe://…` and other URIs as they are, `dns:…` for
/// host names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(Vec<Box<str>>);

impl Names {
    /// Reads them from a certificate that has been verified. What cannot be read names nobody.
    pub fn of(certificate: &[u8]) -> Names {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Names::default() };
        let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Names::default() };
        let name = |name: &GeneralName<'_>| match name {
            GeneralName::URI(uri) => Some((*uri).into()),
            GeneralName::DNSName(host) => Some(format!("dns:{}", host.to_ascii_lowercase()).into()),
            _ => None,
        };
        Names(extension.value.general_names.iter().filter_map(name).collect())
    }

    /// Whether one of these is among them.
    pub fn any_of(&self, wanted: &[Box<str>]) -> bool {
        wanted.iter().any(|wanted| self.0.contains(wanted))
    }
}

/// When a certificate expires, in seconds since 1970; `None` when it cannot be read.
pub fn expires(certificate: &[u8]) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}
