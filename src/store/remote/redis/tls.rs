//! TLS, by rustls.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::RedisStoreError;

/// The certificates that the operator has set, in PEM.
#[derive(Clone, Default)]
pub(super) struct Certificates {
    pub(super) roots: Option<Vec<u8>>,
    /// The client's certificate and its key.
    pub(super) client: Option<(Vec<u8>, Vec<u8>)>,
}

/// How servers are connected to over TLS.
#[derive(Clone)]
pub(super) struct Tls(Option<Arc<ClientConfig>>);

impl Tls {
    /// Without TLS.
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// With these certificates, or the system's.
    ///
    /// # Errors
    /// What is wrong with the certificates.
    pub(super) fn new(certificates: &Certificates) -> Result<Self, RedisStoreError> {
        Self::of(certificates).map_err(|detail| RedisStoreError::setting("TLS", detail))
    }

    fn of(certificates: &Certificates) -> Result<Self, String> {
        let provider = CryptoProvider::get_default()
            .cloned()
            .unwrap_or_else(|| Arc::new(ring::default_provider()));
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("the cryptography provider can't be used: {error}"))?
            .with_root_certificates(roots(certificates.roots.as_deref())?);
        let config = match &certificates.client {
            None => config.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = certificates_in(chain, "the client certificate")?;
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|error| format!("the key of the client certificate: {error}"))?;
                config
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| format!("the client certificate and its key: {error}"))?
            }
        };
        Ok(Self(Some(Arc::new(config))))
    }

    pub(super) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> io::Result<TlsStream<TcpStream>> {
        let invalid = |text| io::Error::new(io::ErrorKind::InvalidInput, text);
        let config = self.0.clone().ok_or_else(|| invalid("TLS is not set up"))?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| invalid("the host is no name for a certificate"))?;
        TlsConnector::from(config).connect(name, stream).await
    }
}

fn roots(pem: Option<&[u8]>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match pem {
        Some(pem) => {
            for certificate in certificates_in(pem, "the root certificates")? {
                roots.add(certificate).map_err(|error| format!("a root certificate: {error}"))?;
            }
        }
        None => {
            // Some of the system's certificates may be of kinds that rustls does not read.
            let native = rustls_native_certs::load_native_certs();
            let (added, _) = roots.add_parsable_certificates(native.certs);
            if added == 0 {
                return Err("the system has no root certificates: set `root_certificates`".into());
            }
        }
    }
    Ok(roots)
}

fn certificates_in(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if certificates.is_empty() => {
            Err(format!("{what}: there is no certificate in PEM"))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("{what}: {error}")),
    }
}
