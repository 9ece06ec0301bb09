//! What callers connect to: our certificate, and theirs where one is asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::SingleCertAndKey;

use super::watched::Rules;
use super::{Certificates, Expiry, Fault, IdentityFiles, identity, provider};

/// What the config says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerRules {
    /// Our certificate.
    pub identity: IdentityFiles,
    /// Who may have signed the certificates of callers; `None` when none is asked for.
    pub client_ca: Option<PathBuf>,
    /// Whether a caller may do without one.
    pub client_auth: ClientAuth,
}

/// Whether callers must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// A connection without one does not come about.
    Required,
    /// It does; a bad one is refused all the same.
    Optional,
}

/// Ready to accept.
pub struct CallerTls {
    acceptor: TlsAcceptor,
    expiries: Vec<Expiry>,
}

impl CallerTls {
    /// Accepts with it.
    pub fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// When its certificates expire.
    pub fn expiries(&self) -> &[Expiry] {
        &self.expiries
    }
}

impl Rules for CallerRules {
    type Loaded = CallerTls;

    fn files(&self) -> Vec<&Path> {
        let own = [self.identity.certificate.as_path(), self.identity.key.as_path()];
        own.into_iter().chain(self.client_ca.as_deref()).collect()
    }

    fn load(&self) -> Result<CallerTls, Fault> {
        let (identity, expires) = identity(&self.identity)?;
        let mut expiries = vec![Expiry { certificate: "tls", at: expires }];
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.map_err(|fault| Fault { key: "certificate", message: fault.to_string() })?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let authorities = Certificates::read("client_ca", path)?;
                expiries.push(Expiry { certificate: "client_ca", at: authorities.expires });
                let verifier = WebPkiClientVerifier::builder_with_provider(
                    Arc::new(authorities.roots("client_ca", path)?),
                    provider(),
                );
                let verifier = match self.client_auth {
                    ClientAuth::Required => verifier,
                    ClientAuth::Optional => verifier.allow_unauthenticated(),
                };
                let unusable = |fault| Fault { key: "client_ca", message: format!("{}: {fault}", path.display()) };
                builder.with_client_cert_verifier(verifier.build().map_err(unusable)?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if self.client_ca.is_some() {
            // A session that is resumed brings its certificate along unverified. So none is: what has expired, or was signed
            // by an authority that is no longer trusted, must not come back through an old ticket.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(CallerTls { acceptor: TlsAcceptor::from(Arc::new(config)), expiries })
    }
}
