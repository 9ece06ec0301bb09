//! How the PAM is connected to: whom to trust, who it must be, and who we are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::watched::Rules;
use super::{Certificates, Expiry, Fault, IdentityFiles, identity, provider};

/// What the config says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PamRules {
    /// Who may have signed the PAM's certificate.
    pub roots: Roots,
    /// The name or address that must stand in it.
    pub name: String,
    /// Our own certificate, for a PAM that asks for one.
    pub identity: Option<IdentityFiles>,
}

/// Who may have signed a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// The authorities in a file.
    File(PathBuf),
    /// Those of the system.
    System,
}

/// TLS to the PAM, ready to connect.
pub struct PamTls {
    connector: TlsConnector,
    name: ServerName<'static>,
    expiries: Vec<Expiry>,
}

impl PamTls {
    /// Connects with it, offering the versions of HTTP that are said then.
    pub fn connector(&self) -> &TlsConnector {
        &self.connector
    }

    /// Who the PAM must be.
    pub fn name(&self) -> &ServerName<'static> {
        &self.name
    }

    /// When its certificates expire.
    pub fn expiries(&self) -> &[Expiry] {
        &self.expiries
    }
}

impl Rules for PamRules {
    type Loaded = PamTls;

    fn files(&self) -> Vec<&Path> {
        let ca = match &self.roots {
            Roots::File(path) => Some(path.as_path()),
            Roots::System => None,
        };
        let own = self.identity.iter().flat_map(|own| [own.certificate.as_path(), own.key.as_path()]);
        ca.into_iter().chain(own).collect()
    }

    fn load(&self) -> Result<PamTls, Fault> {
        let unknown = |_| Fault { key: "name", message: format!("`{}` is no host name and no address", self.name) };
        let name = ServerName::try_from(self.name.clone()).map_err(unknown)?;
        let mut expiries = Vec::new();
        let roots = match &self.roots {
            Roots::File(path) => {
                let authorities = Certificates::read("ca", path)?;
                expiries.push(Expiry { certificate: "upstream_ca", at: authorities.expires });
                authorities.roots("ca", path)?
            }
            Roots::System => system()?,
        };
        let mut own = None;
        if let Some(files) = &self.identity {
            let (identity, expires) = identity(files)?;
            expiries.push(Expiry { certificate: "upstream", at: expires });
            own = Some(identity);
        }
        Ok(PamTls { connector: TlsConnector::from(Arc::new(config(roots, own)?)), name, expiries })
    }
}

fn config(roots: RootCertStore, identity: Option<CertifiedKey>) -> Result<ClientConfig, Fault> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|fault| Fault { key: "ca", message: fault.to_string() })?;
    let builder = builder.with_root_certificates(roots);
    Ok(match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let resolver: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(identity));
            builder.with_client_cert_resolver(resolver)
        }
    })
}

fn system() -> Result<RootCertStore, Fault> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Among a system's hundred authorities some old one cannot be read; that is no reason to trust none.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let message = "the system has no authorities; name them with ca = \"file.pem\"".to_owned();
        return Err(Fault { key: "roots", message });
    }
    Ok(roots)
}
