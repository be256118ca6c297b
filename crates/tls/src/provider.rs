//! The one set of cryptography used in both directions. Touches nothing.
//!
//! It is passed explicitly everywhere: a process default could be set by any other library that links rustls.

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};

/// aws-lc-rs with the hybrid post-quantum group X25519MLKEM768 first. Its suites are those of TLS 1.3 and the AEAD
/// suites with forward secrecy of TLS 1.2.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    // Listed here and not left to a feature of the library: what is offered first is our decision.
    let kx_groups = vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    Arc::new(CryptoProvider { kx_groups, ..default_provider() })
});

pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    &PROVIDER
}

/// Has the library gather its randomness now, on a thread of its own. It does so once, by measuring the processor for some
/// 25 ms, and whoever needs a key first waits for it.
pub fn warm_up() {
    let gather = || {
        // Whoever needs it hears of a failure.
        let _ = provider().secure_random.fill(&mut [0; 1]);
    };
    // Without a thread it is gathered when it is needed.
    let _ = std::thread::Builder::new().name("relais-random".to_owned()).spawn(gather);
}
