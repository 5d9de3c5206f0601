//! TLS of the page. Certificate and key are found while this process may open files wherever they are, and read when it
//! can do nothing else any more.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use nursery_shared::config::TlsConfig;
use rustls::{
    Error, InconsistentKeys, ServerConfig, crypto,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;

use crate::info;

/// Longest of either file.
const LONGEST: u64 = 1 << 20;

/// Both files, found but not looked at yet.
pub struct Found {
    certificate: Named,
    key: Named,
}

struct Named {
    file: File,
    key: &'static str,
    name: String,
}

impl Named {
    fn find(key: &'static str, path: &str) -> Result<Self, String> {
        let file = info::open(Path::new(path)).map_err(|e| format!("web.tls.{key}: {e}"))?;
        Ok(Self { file, key, name: path.to_owned() })
    }

    fn wrong(&self, what: impl std::fmt::Display) -> String {
        format!("web.tls.{}: {}: {what}", self.key, self.name)
    }

    fn read(&self) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let all = (&self.file).take(LONGEST + 1).read_to_end(&mut bytes);
        all.map_err(|e: io::Error| self.wrong(e))?;
        if bytes.len() as u64 > LONGEST {
            return Err(self.wrong("is larger than any certificate or key, expected a PEM file"));
        }
        Ok(bytes)
    }
}

/// Opens both files, which may take more rights than to read them.
///
/// # Errors
/// One line with key and file.
pub fn find(tls: &TlsConfig) -> Result<Found, String> {
    let certificate = Named::find("certificate", &tls.certificate)?;
    Ok(Found { certificate, key: Named::find("key", &tls.key)? })
}

/// What it takes to shake hands with browsers.
///
/// # Errors
/// One line with key and file: what is wrong with it. Nothing of the key is in it.
pub fn load(found: &Found) -> Result<ServerConfig, String> {
    let Found { certificate, key } = found;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&certificate.read()?)
        .collect::<Result<_, _>>()
        .map_err(|_| certificate.wrong("is no sound PEM file"))?;
    if chain.is_empty() {
        return Err(certificate.wrong("holds no certificate, expected a PEM file with the whole chain"));
    }
    let private = PrivateKeyDer::from_pem_slice(&key.read()?).map_err(|e| match e {
        pem::Error::NoItemsFound => key.wrong(
            "holds no private key that can be used, expected a PEM file with one that has no password",
        ),
        _ => key.wrong("is no sound PEM file"),
    })?;
    let unusable = |e: Error| match e {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            key.wrong(format!("does not belong to the certificate in {}", certificate.name))
        }
        Error::InvalidCertificate(why) => certificate.wrong(format!("cannot be used: {why:?}")),
        _ => key.wrong("is no private key of a kind that can be used (RSA, ECDSA P-256 or P-384, Ed25519)"),
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("web.tls: cannot be used here: {e}"))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Shakes hands with browsers.
///
/// # Errors
/// As [`load`].
pub fn acceptor(found: &Found) -> Result<TlsAcceptor, String> {
    Ok(TlsAcceptor::from(Arc::new(load(found)?)))
}
