//! What a handshake with a backend met, in words for whoever has to mend it. Opens nothing, decides nothing.

use std::io;

use rustls::pki_types::UnixTime;
use rustls::{CertificateError, Error, InvalidMessage};

use crate::clock;

/// Why the handshake failed, with the way out where there is one. `None`: TLS had nothing to do with it, the connection broke.
#[must_use]
pub fn reason(fault: &io::Error) -> Option<String> {
    let fault = fault.get_ref()?.downcast_ref::<Error>()?;
    Some(match fault {
        Error::InvalidCertificate(fault) => of_certificate(fault),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => "it does not speak TLS there".to_owned(),
        other => other.to_string(),
    })
}

fn of_certificate(fault: &CertificateError) -> String {
    use CertificateError::{
        BadSignature, ExpiredContext, NotValidForNameContext, NotValidYetContext, Other, UnknownIssuer,
    };
    match fault {
        UnknownIssuer => {
            "nobody that is trusted has signed its certificate; name its CA, or the certificate itself, in `ca`"
                .to_owned()
        }
        // Where a trusted CA has the name of the one that has signed it, as when it was made anew; and where what it signs the
        // handshake with is another's key.
        BadSignature => {
            "nobody that is trusted has signed its certificate (name its CA, or the certificate itself, in `ca`), \
             or its key is not the certificate's"
                .to_owned()
        }
        // The library has no kind of its own for it.
        Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "its certificate is a CA's, as one signed by itself mostly is; name the certificate itself in `ca`"
                .to_owned()
        }
        NotValidForNameContext { expected, presented } => {
            let (wanted, names) = (expected.to_str(), presented.iter().map(|name| bare(name)).collect::<Vec<_>>());
            match names.join(", ").as_str() {
                "" => format!("its certificate is for no name at all, and {wanted} was asked for"),
                names => format!("its certificate is for {names}, and {wanted} was asked for; `sni` sets the name"),
            }
        }
        ExpiredContext { time, not_after } => {
            format!("its certificate ended {}, and this machine has {}", date(*not_after), date(*time))
        }
        NotValidYetContext { time, not_before } => {
            format!("its certificate begins {}, and this machine has {}", date(*not_before), date(*time))
        }
        other => other.to_string(),
    }
}

fn date(at: UnixTime) -> String {
    clock::date(clock::from_unix(i64::try_from(at.as_secs()).unwrap_or(i64::MAX)))
}

/// `DnsName("a.fr")` is `a.fr`.
fn bare(name: &str) -> &str {
    name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name).trim_matches('"')
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;

    use super::*;

    fn told(fault: Error) -> String {
        reason(&io::Error::new(io::ErrorKind::InvalidData, fault)).unwrap()
    }

    #[test]
    fn names_are_told_bare() {
        let fault = |presented: &[&str]| {
            Error::InvalidCertificate(CertificateError::NotValidForNameContext {
                expected: ServerName::try_from("b.internal").unwrap(),
                presented: presented.iter().map(ToString::to_string).collect(),
            })
        };
        let said = told(fault(&["DnsName(\"a.fr\")", "IpAddress(10.0.0.1)"]));
        assert_eq!(said, "its certificate is for a.fr, 10.0.0.1, and b.internal was asked for; `sni` sets the name");
        assert_eq!(told(fault(&[])), "its certificate is for no name at all, and b.internal was asked for");
    }

    #[test]
    fn times_are_told_as_people_read_them() {
        let at = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let fault = CertificateError::ExpiredContext { time: at(1_800_000_000), not_after: at(1_600_000_000) };
        let said = "its certificate ended 2020-09-13 12:26 UTC, and this machine has 2027-01-15 08:00 UTC";
        assert_eq!(told(Error::InvalidCertificate(fault)), said);
        let fault = CertificateError::NotValidYetContext { time: at(0), not_before: at(1_600_000_000) };
        assert!(told(Error::InvalidCertificate(fault)).ends_with(" and this machine has 1970-01-01 00:00 UTC"));
    }

    #[test]
    fn whose_key_is_another_s_is_not_told_of_the_ca_alone() {
        let of = |fault| told(Error::InvalidCertificate(fault));
        assert!(of(CertificateError::UnknownIssuer).ends_with("name its CA, or the certificate itself, in `ca`"));
        assert!(of(CertificateError::BadSignature).ends_with("or its key is not the certificate's"));
    }

    #[test]
    fn what_is_not_of_tls_has_no_words_here() {
        assert_eq!(reason(&io::Error::from(io::ErrorKind::ConnectionReset)), None);
        assert_eq!(reason(&io::Error::other("else")), None);
        assert_eq!(told(Error::NoApplicationProtocol), Error::NoApplicationProtocol.to_string());
    }
}
