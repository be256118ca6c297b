//! Certificates from CAs: what the file says, and where each host's certificate comes from.

use relais_config::{
    AuthorityLimits, CertificateSource, Challenge, DnsProvider, ExternalAccount, KeyKind, Secret, TsigAlgorithm,
    Waiting,
};

use crate::{config, parse, with};

/// Where the certificate of each host of a service with these lines comes from.
fn sources(hosts: &[&str], lines: &str) -> Vec<CertificateSource> {
    let quoted: Vec<String> = hosts.iter().map(|host| format!("\"{host}\"")).collect();
    let config = config(&with(lines).replace("\"api.test\"", &quoted.join(", ")));
    let service = &config.services[0];
    service.hosts.iter().map(|host| config.certificate_source(service, host)).collect()
}

#[test]
fn without_any_word_it_is_lets_encrypt_and_with_an_address_zerossl_too() {
    let acme = config(&with("")).acme;
    let names: Vec<&str> = acme.authorities.iter().map(|authority| &*authority.name).collect();
    assert_eq!(names, ["letsencrypt"]);
    let first = &acme.authorities[0];
    assert_eq!(first.directory, "https://acme-v02.api.letsencrypt.org/directory");
    assert_eq!(first.staging.as_deref(), Some("https://acme-staging-v02.api.letsencrypt.org/directory"));
    let published = AuthorityLimits { orders: Some(300), per_domain: Some(50), per_set: Some(5), failures: Some(5) };
    assert_eq!((first.limits, &first.external_account, &first.root), (published, &None, &None));
    assert_eq!(acme.challenges, [Challenge::Http01, Challenge::TlsAlpn01]);
    assert_eq!((acme.key, acme.reuse_key, acme.profile), (KeyKind::P256, false, None));
    assert_eq!((acme.dns, acme.on_demand, acme.waiting, acme.orders), (vec![], None, Waiting::Serve, 4));

    let acme = config(&("[edge]\nemail = \"a@a.fr\"\n".to_owned() + &with(""))).acme;
    let second = &acme.authorities[1];
    assert_eq!((&*second.name, &*second.directory), ("zerossl", "https://acme.zerossl.com/v2/DV90"));
    let url = "https://api.zerossl.com/acme/eab-credentials-email".to_owned();
    assert_eq!(second.external_account, Some(ExternalAccount::ByEmail { url }));
}

#[test]
fn everything_can_be_said() {
    let text = r#"
[acme]
challenges = ["tls-alpn-01", "dns-01"]
key = "rsa4096"
reuse_key = true
profile = "shortlived"
waiting = "unavailable"
orders = 9
on_demand = { ask = "http://127.0.0.1:9/ask?x=1", root = "ask.pem", per_hour = 5, burst = 2 }
[acme.dns.rfc2136]
zones = ["A.fr", "b.fr"]
server = "192.0.2.53"
key_name = "relais.key"
algorithm = "hmac-sha512"
secret = "c2VjcmV0"
zone = "a.fr"
delegation = false
propagation_timeout = "5m"
resolvers = "192.0.2.1:5353"
[acme.dns.all]
provider = "webhook"
url = "https://hook.test/x"
headers = { X-A = "b" }
token_file = "secrets/tsig"
propagation_timeout = "0s"
[authority.house]
directory = "https://ca.test:14000/dir"
root = "ca.pem"
profile = "p"
eab_key_id = "kid"
eab_hmac = "aGVsbG8"
[authority.letsencrypt]
limits = { orders = 0, per_set = 4 }
"#;
    let acme = config(&(text.to_owned() + &with(""))).acme;
    assert_eq!(acme.challenges, [Challenge::TlsAlpn01, Challenge::Dns01]);
    assert_eq!(
        (acme.key, acme.reuse_key, acme.waiting, acme.orders),
        (KeyKind::Rsa4096, true, Waiting::Unavailable, 9)
    );
    assert_eq!(acme.profile.as_deref(), Some("shortlived"));
    let on = acme.on_demand.as_deref().filter(|on| on.root == Some("/etc/relais/ask.pem".into())).unwrap();
    assert_eq!((&*on.ask, on.per_hour, on.burst), ("http://127.0.0.1:9/ask?x=1", 5, 2));
    let dns = &acme.dns[0];
    assert_eq!((&*dns.name, dns.delegation, dns.propagation_timeout.as_secs()), ("rfc2136", false, 300));
    assert_eq!((dns.zones.join(" "), dns.resolvers.len()), ("a.fr b.fr".to_owned(), 1));
    let expected = DnsProvider::Rfc2136 {
        server: "192.0.2.53:53".parse().unwrap(),
        zone: Some("a.fr".to_owned()),
        key_name: "relais.key".to_owned(),
        algorithm: TsigAlgorithm::HmacSha512,
        secret: Secret::new("c2VjcmV0"),
    };
    assert_eq!(dns.provider, expected);
    let headers =
        vec![("x-a".to_owned(), Secret::new("b")), ("authorization".to_owned(), Secret::new("Bearer c2VjcmV0"))];
    assert_eq!(acme.dns[1].provider, DnsProvider::Webhook { url: "https://hook.test/x".to_owned(), headers });
    assert!(acme.dns[1].propagation_timeout.is_zero(), "not looked for");
    let (house, known) = (&acme.authorities[0], &acme.authorities[1]);
    assert_eq!((&*house.name, house.limits), ("house", AuthorityLimits::default()));
    assert_eq!(house.root.as_deref(), Some("/etc/relais/ca.pem".as_ref()));
    let account = ExternalAccount::Given { key_id: "kid".to_owned(), hmac: Secret::new("aGVsbG8") };
    assert_eq!(house.external_account, Some(account));
    let limits = AuthorityLimits { orders: None, per_domain: Some(50), per_set: Some(4), failures: Some(5) };
    assert_eq!(known.limits, limits);
    assert!(known.directory.contains("letsencrypt"), "known by its name");
    assert!(
        !format!("{acme:?}").contains("c2VjcmV0") && !format!("{acme:?}").contains("aGVsbG8"),
        "secrets are hidden"
    );
}

#[test]
fn auto_is_a_ca_for_public_names_and_the_local_ca_for_others() {
    use CertificateSource::{Acme, Files, Internal, OnDemand};
    let hosts = ["a.fr", "localhost", "a.test", "*.a.fr", "*", "192.0.2.1"];
    assert_eq!(sources(&hosts, ""), [Acme, Internal, Internal, Internal, Internal, Internal]);
    let dns = "[acme.dns.cloudflare]\ntoken = \"x\"\nzones = [\"a.fr\"]\n";
    assert_eq!(sources(&["*.a.fr", "*.b.fr", "*.test"], dns), [Acme, Internal, Internal]);
    let asked = "[acme.on_demand]\nask = \"http://127.0.0.1/\"\n";
    assert_eq!(sources(&["*.a.fr", "*", "*.test", "a.fr"], asked), [OnDemand, OnDemand, Internal, Acme]);
    let own = "tls = \"acme\"\n[authority.house]\ndirectory = \"https://ca.test/\"\n";
    assert_eq!(sources(&["a.test", "192.0.2.1", "::1", "box"], own), [Acme; 4], "an own CA certifies any name");
    assert_eq!(sources(&["a.fr"], "tls = \"internal\""), [Internal]);
    assert_eq!(sources(&["a.fr"], "tls = \"files\"\n[certificate.a]\ncert = \"a\"\nkey = \"b\"\n"), [Files]);
}

#[test]
fn each_host_of_the_file_has_one_source_and_names_of_nobody_another() {
    let text = with("")
        + "[service.b]\nhosts = [\"api.test\", \"b.fr\"]\npaths = \"/b\"\ntls = \"acme\"\nrespond = { body = \"\" }\n";
    let own = "[authority.house]\ndirectory = \"https://ca.test/\"\n";
    let all = config(&(text.clone() + own));
    let found: Vec<(&str, CertificateSource)> = all.certificate_sources().into_iter().collect();
    assert_eq!(found, [("api.test", CertificateSource::Acme), ("b.fr", CertificateSource::Acme)], "the best of two");
    assert_eq!(all.unknown_source(), CertificateSource::Internal);
    let plain = config(&(text + own + "[listener.http]\naddress = \":80\"\n"));
    assert!(plain.certificate_sources().is_empty(), "no HTTPS, no certificates");
    let any = config(&with("tls = \"internal\"").replace("api.test", "*"));
    assert_eq!(any.unknown_source(), CertificateSource::Internal);
    let asked = config(&(with("") + "[acme.on_demand]\nask = \"http://127.0.0.1/\"\n"));
    assert_eq!(asked.unknown_source(), CertificateSource::OnDemand);
}

#[test]
fn a_name_is_proven_in_the_ways_that_fit_it_and_by_the_provider_of_its_longest_zone() {
    let dns = "[acme.dns.far]\nprovider = \"exec\"\ncommand = \"/bin/far\"\n\
               [acme.dns.near]\nprovider = \"exec\"\nzones = [\"a.fr\"]\ncommand = [\"/bin/near\", \"x\"]\n\
               [acme.dns.nearest]\nprovider = \"exec\"\nzones = [\"b.fr\", \"x.a.fr\"]\ncommand = \"/bin/nearest\"\n";
    let acme = config(&(with("") + dns)).acme;
    let by = |host: &str| acme.dns_for(host).map(|dns| &*dns.name);
    assert_eq!(
        [by("a.fr"), by("*.a.fr"), by("y.x.a.fr"), by("xa.fr")],
        [Some("near"), Some("near"), Some("nearest"), Some("far")]
    );
    let all = [Challenge::Http01, Challenge::TlsAlpn01, Challenge::Dns01];
    assert_eq!(acme.challenges_for("a.fr"), all);
    assert_eq!(acme.challenges_for("*.a.fr"), [Challenge::Dns01]);
    assert_eq!(acme.challenges_for("192.0.2.1"), all[..2]);
    assert_eq!(config(&with("")).acme.challenges_for("*.a.fr"), []);
}

/// The file is watched by its secrets too.
#[test]
fn files_of_secrets_are_named() {
    let text = with("") + "[acme.dns.cloudflare]\ntoken_file = \"secrets/tsig\"\n";
    assert_eq!(parse(&text).unwrap().files, [std::path::PathBuf::from("/etc/relais/secrets/tsig")]);
}
