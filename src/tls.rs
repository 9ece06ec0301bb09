//! TLS on both sides: certificates and keys in files become what rustls needs.
//!
//! ```text
//! tls/pam.rs      how the PAM is connected to
//! tls/callers.rs  what callers connect to
//! tls/names.rs    the names in a certificate   (pure)
//! tls/watched.rs  made again when the files change
//! ```
//!
//! rustls speaks TLS 1.2 and 1.3 only, and knows neither renegotiation nor compression nor a cipher suite without forward
//! secrecy; its primitives are ring's.

pub mod callers;
pub mod names;
pub mod pam;
pub mod watched;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, RootCertStore};
use zeroize::Zeroizing;

/// Why a file is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key of the config that names the file.
    pub key: &'static str,
    /// What is wrong with it.
    pub message: String,
}

/// The files with a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The certificate and those that lead from it to an authority, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// When a certificate expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// Which one, as metrics call it: `tls`, `client_ca`, `upstream` or `upstream_ca`.
    pub certificate: &'static str,
    /// In seconds since 1970.
    pub at: i64,
}

/// Every certificate that can be shown with its [`Expiry`].
pub const CERTIFICATES: [&str; 4] = ["client_ca", "tls", "upstream", "upstream_ca"];

/// The primitives. Named instead of installed for the whole process, where others could have put theirs.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Reads a certificate and its key, which must belong together, and when the certificate expires.
fn identity(files: &IdentityFiles) -> Result<(CertifiedKey, i64), Fault> {
    let chain = Certificates::read("certificate", &files.certificate)?;
    let fault = |message: String| Fault { key: "key", message };
    let path = files.key.display();
    let text = Zeroizing::new(read("key", &files.key)?);
    let key = PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| fault(format!("{path} has no private key in PEM (-----BEGIN PRIVATE KEY-----, not encrypted)")))?;
    let identity = CertifiedKey::from_der(chain.certificates, key, &provider()).map_err(|found| match found {
        Error::InconsistentKeys(_) => fault(format!("the key in {path} does not belong to the certificate")),
        Error::InvalidCertificate(_) => unreadable("certificate", &files.certificate),
        _ => fault(format!("{path} has a key that cannot be used; take ECDSA P-256, Ed25519 or RSA of 2048 bits")),
    })?;
    Ok((identity, chain.expires))
}

/// The certificates in a file, one at least.
struct Certificates {
    certificates: Vec<CertificateDer<'static>>,
    /// When the first of them expires, in seconds since 1970.
    expires: i64,
}

impl Certificates {
    fn read(key: &'static str, path: &Path) -> Result<Certificates, Fault> {
        let text = read(key, path)?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let certificates = found.unwrap_or_default();
        if certificates.is_empty() {
            let message = format!("{} has no certificate in PEM (-----BEGIN CERTIFICATE-----)", path.display());
            return Err(Fault { key, message });
        }
        let expires: Option<Vec<i64>> = certificates.iter().map(|one| names::expires(one)).collect();
        let expires = expires.and_then(|all| all.into_iter().min()).ok_or_else(|| unreadable(key, path))?;
        Ok(Certificates { certificates, expires })
    }

    /// As authorities to trust.
    fn roots(self, key: &'static str, path: &Path) -> Result<RootCertStore, Fault> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates {
            roots.add(certificate).map_err(|_| unreadable(key, path))?;
        }
        Ok(roots)
    }
}

fn unreadable(key: &'static str, path: &Path) -> Fault {
    Fault { key, message: format!("{} has a certificate that cannot be read", path.display()) }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, Fault> {
    fs::read(path).map_err(|fault| Fault { key, message: format!("cannot read {}: {fault}", path.display()) })
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
