//! TLS to an `rtsps://` camera. A certificate counts where an authority that this host trusts has signed it for the
//! camera's name; or, since hardly any camera has such a one, where its fingerprint is the one in the
//! configuration. There is no switch to trust everything.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{self, CryptoProvider},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The authorities that this host trusts, read at the first call: later they are out of this process's reach.
pub fn authorities() -> Arc<RootCertStore> {
    static AUTHORITIES: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let read = || {
        let mut roots = RootCertStore::empty();
        // Single certificates that cannot be read are no reason to trust none of the others.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    };
    Arc::clone(AUTHORITIES.get_or_init(read))
}

/// Shakes hands with the server `name` over `stream`. `fingerprint` is a SHA-256 in lower-case hex. The error
/// says what to do.
pub async fn connect(
    stream: TcpStream,
    name: &str,
    fingerprint: Option<&str>,
) -> Result<TlsStream<TcpStream>, String> {
    let provider = Arc::new(crypto::ring::default_provider());
    let verifier = Arc::new(Verifier::new(fingerprint, &provider)?);
    let server = ServerName::try_from(name.to_owned()).map_err(|_| format!("{name:?} is no name for TLS"))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("TLS cannot be used here: {e}"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config)).connect(server, stream).await.map_err(|e| verifier.explain(&e))
}

/// Checks against the fingerprint where there is one, against the authorities otherwise, and remembers what it saw.
#[derive(Debug)]
struct Verifier {
    fingerprint: Option<String>,
    authorities: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
    seen: Mutex<Option<String>>,
}

impl Verifier {
    fn new(fingerprint: Option<&str>, provider: &Arc<CryptoProvider>) -> Result<Self, String> {
        let fingerprint = fingerprint.map(str::to_owned);
        let authorities = if fingerprint.is_some() {
            None
        } else {
            let roots = authorities();
            if roots.is_empty() {
                return Err(
                    "this host knows no certificate authorities: install ca-certificates, or set \"tls_fingerprint\""
                        .into(),
                );
            }
            let builder = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider)).build();
            Some(builder.map_err(|e| format!("TLS cannot be used here: {e}"))?)
        };
        Ok(Self { fingerprint, authorities, provider: Arc::clone(provider), seen: Mutex::new(None) })
    }

    fn explain(&self, error: &std::io::Error) -> String {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
        let cause = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
        match (cause, seen) {
            (Some(rustls::Error::InvalidCertificate(_)), Some(seen)) if self.fingerprint.is_some() => {
                format!(
                    "TLS: the camera's certificate is not the one in the configuration: its SHA-256 is {seen}; if the camera was reset or replaced, set \"tls_fingerprint\" to that, otherwise somebody is in between"
                )
            }
            (Some(rustls::Error::InvalidCertificate(why)), Some(seen)) => format!(
                "TLS: the camera's certificate is not trusted ({}); if it is the camera's own, set \"tls_fingerprint\" to {seen} after comparing it with the camera's",
                describe(why)
            ),
            (Some(e), _) => format!(
                "TLS: the handshake failed ({e}): check that this port speaks TLS, version 1.2 or newer"
            ),
            (None, _) => format!("TLS: the handshake failed ({error}): check that this port speaks TLS"),
        }
    }
}

fn describe(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::UnknownIssuer => "no known authority has signed it",
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet: check this host's clock"
        }
        _ => "no authority vouches for it",
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let digest = ring::digest::digest(&ring::digest::SHA256, end_entity);
        let seen: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        let fits = self.fingerprint.as_ref().map(|wanted| *wanted == seen);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        match (fits, &self.authorities) {
            (Some(true), _) => Ok(ServerCertVerified::assertion()),
            (None, Some(authorities)) => {
                authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
