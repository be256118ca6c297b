//! What relais says about mistakes: every text, as people see it.
//!
//! The texts are in `snapshots/`. The last test fails when a text of the source is in none of them.

use std::path::Path;

use relais_config::{CertificateFiles, Config, FileFault, Lookup};

use crate::{errors, messages, parse, with};

/// The answers to several files, one after the other.
fn told<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    let answers: Vec<String> = texts.into_iter().map(|text| errors(text.as_ref())).collect();
    answers.join("\n\n================================================================\n\n")
}

/// The answers about a service with these lines.
fn told_of_service<const N: usize>(lines: [&str; N]) -> String {
    told(lines.map(with))
}

/// Ten mistakes that other proxies accept, or of which they tell only the first.
const TEN: &str = r#"[edge]
drain = "30"
[listener.https]
address = ":99999"
[sites]
dijon = { tier = 1, network = "10.200.0.0/24" }
thory = { tier = 2, network = "10.200.1.0/24" }
[service.api]
hosts = ["api.test"]
balanse = "random"
health = { type = "tcp", status = 200 }
[service.api.backends]
dijon = ["10.200.0.23:8080", "10.200.0.23:8080"]
thorry = ["10.200.1.23:8080"]
[service.stream]
hosts = ["stream.test", "api.test"]
max_inflight = "many"
[service.stream.backends]
dijon = ["10.200.0.24:9000"]
thory = ["10.200.0.25:9000"]
bad
"#;

#[test]
fn ten_mistakes_are_told_in_one_run() {
    assert_eq!(
        messages(TEN),
        [
            "2:9 `30` is not a duration",
            "4:11 port 99999 is above 65535",
            "10:1 unknown key `balanse` in `service.api`",
            "11:26 `status` does nothing: this check is of type `tcp`",
            "13:30 backend `10.200.0.23:8080` is there twice",
            "14:1 undeclared site `thorry` in `service.api.backends`",
            "16:25 services `api` and `stream` both claim host `api.test`",
            "17:16 `max_inflight` must be a whole number, not a text",
            "20:10 `10.200.0.25:9000` is in the network of site `dijon`, but listed at `thory`",
            "21:1 `bad` has no value",
        ]
    );
    snapshot!(errors(TEN));
}

#[test]
fn files_without_services() {
    snapshot!(told([
        "",
        "# only a comment\n\n",
        "[edge]\nname = \"x\"\n",
        "[service]\n",
        "[[service]]\nhosts = [\"a.test\"]\n",
        "[service]\nhosts = [\"a.test\"]\n",
        "service = 3\n",
        "[service.api]\n",
    ]));
}

#[test]
fn syntax() {
    snapshot!(told([
        "bad",
        "[service.api\nhosts = [\"a.test\"]\n[log]\nlevl = \"info\"\n",
        "[service.api]\nhosts = [\"a.test\"\nhealth = \"x\"\n",
        "[service.api]\nhosts = [\n  \"a.test\",\n  \"b.test\"\nhealth = \"x\"\n",
        "[service.api]\nhealth = { path = \"/\", interval = \"1s\"\nbalance = \"x\"\n",
        "[service.api]\nrespond = { body = 'x' }\ncanonical = \"\"\"\nabc\n[log]\nlevel = 1\n",
        "[service.api]\ncanonical = '''\nabc\n[log]\nlevel = 1\n",
        "[log]\nlevel: info\n",
        "[log]\nlevel = info\nformat = 10s\naccess = \n",
        "[log]\nlevel = \"info\nformat = 'json\naccess == true\n",
        "[log]\nlevel = \"a\\qb\"\nlevel = \"info\"\nétat = 1\n= 2\n",
        "[log]\nlevel = \"info\" \"debug\"\n[log]\naccess = tru\n",
        "[edge]\ntrusted_proxies = [\"10.0.0.0/8\" \"10.0.0.1\"]\nworkers = 04\nname = 1.2.3.4:80\n",
    ]));
}

/// One slip must not hide the mistakes below it.
#[test]
fn a_slip_of_syntax_hides_nothing_below() {
    let below = "[log]\nlevl = \"info\"\n";
    for above in [
        "bad",
        "[service.api",
        "x = [1, 2",
        "x = {a = 1",
        "x = \"abc",
        "x =",
        "x = 'abc",
        "= 1",
        "x : 1",
        "[]",
        "x = [\n1,\n2\n",
    ] {
        let said = messages(&format!("{above}\n{below}"));
        assert!(said.iter().any(|said| said.ends_with("unknown key `levl` in `log`")), "{above}: {said:?}");
        assert!(said.len() >= 2, "{above}: the slip itself is told: {said:?}");
        assert!(!said.iter().any(|said| said.contains("no service")), "{above}: it may only be hidden: {said:?}");
    }
}

/// Each of these ends the parser's reading or swallows what follows.
#[test]
fn several_slips_of_syntax_are_all_told() {
    let text = "bad\n[log]\nlevl = 1\nworse\n[edge\nname = 1\n[metrics]\naddress = [\n\"a\",\n[admin]\nsockt = 1\nworst\nx = {\ny\n";
    assert_eq!(
        messages(text),
        [
            "1:1 `bad` has no value",
            "3:1 unknown key `levl` in `log`",
            "4:1 `worse` has no value",
            "5:1 this table header does not end",
            "8:11 this list does not end",
            "11:1 unknown key `sockt` in `admin`",
            "12:1 `worst` has no value",
            "13:5 this table does not end",
        ]
    );
}

#[test]
fn types() {
    snapshot!(told([
        "[edge]\nemail = 1\ndrain = 30\nworkers = \"4\"\nredirect = \"true\"\ntrusted_proxies = \"10.0.0.0/8\"\ntls = true\nlimit = 3\n[edge.timeout]\nbody = [\"1s\"]\n",
        "[log]\nlevel = 1.5\nformat = 1979-05-27\naccess = {}\n",
        "[sites]\ndijon = \"1\"\n[listener]\nhttp = 80\n[certificate]\na = \"x\"\n",
        "[listener.http]\naddress = [80]\n",
        "[listener]\n",
        "admin = 1\nmetrics = [\"127.0.0.1:9180\"]\nlistener = \":80\"\nsites = [\"a\"]\n",
        "[edge]\nworkers = 0\nlimit = { header_bytes = 12, header_count = 99999999999999999999, uri_bytes = \"10kb\" }\n[edge.timeout]\nbody = \"0s\"\n",
    ]));
}

#[test]
fn keys() {
    snapshot!(told([
        "hosts = [\"a.test\"]\n",
        "[egde]\n[log]\nlevle = \"info\"\n",
        "[edge]\nstate = \"/var/lib/relais\"\nproxies = []\nfall = 3\n",
        "[service.api]\ndomains = [\"a.test\"]\nupstreams = [\"10.0.0.1:80\"]\ninterval = \"1s\"\nzzz = 1\nhealth = { every = \"1s\", path = \"/\" }\n",
        "[service.\"a/b\"]\nhosts = [\"a.test\"]\nbackends = [\"10.0.0.1:80\"]\n[sites]\n\"\" = 1\n",
    ]));
}

#[test]
fn variables_and_files() {
    snapshot!(told_of_service([
        "canonical = \"${NOPE}.${NOPE2}\"",
        "canonical = \"${a b}\"\nhealth = \"${}\"\nsticky = \"${9}\"",
        "canonical = \"${OPEN\"",
        "sticky = { cookie = \"a\", key_file = \"missing\" }",
        "request_headers = { set_file = { Authorization = \"/root/secret\" } }",
        "request_headers = { set_file = { A = \"/run/secrets/bytes\", B = \"/run/secrets/two-lines\", C = \"\" } }",
        "maintenance = { body_file = \"nope.html\" }",
        "upstream = { tls = { ca = \"\" } }",
    ]));
}

#[test]
fn durations_and_sizes() {
    snapshot!(told_of_service([
        "queue_timeout = \"2\"\nmax_body = \"64K\"",
        "queue_timeout = \"fast\"\nmax_body = \"large\"",
        "queue_timeout = \"1.5s\"\nmax_body = \"64\"",
        "queue_timeout = \"2y\"\nmax_body = \"2XB\"",
        "queue_timeout = \"400d\"\nmax_body = \"99999999999TB\"",
        "queue_timeout = 2\nmax_body = -1",
        "queue_timeout = \"3 seconds\"\nmax_body = true",
    ]));
}

#[test]
fn the_edge() {
    snapshot!(told([
        "[edge]\nemail = \"ops\"\ntrusted_proxies = [\"10.0.0.1/8\", \"10.0.0.0/33\", \"example.org\"]\nname = \"a b\"\n",
        "[edge]\nname = \"\"\nrequest_id_header = \"X Id\"\nfailover_within = \"100ms\"\nmin_tls = \"1.1\"\ntls = \"intrenal\"\n",
        "[edge]\nfailover_within = \"2m\"\nrequest_id_header = \"Connection\"\n",
        "[edge]\nnameservers = [\"dns.test\", \"10.0.0.2:x\", \"https://10.0.0.2\", \"dns.test:53\"]\n",
        "[metrics]\naddress = true\n[log]\nlevel = \"inof\"\nformat = \"jsonn\"\n",
        "[metrics]\naddress = \":9180\"\n[log]\nlevel = \"info,relais_proxy=debg\"\n",
        "[metrics]\naddress = \"localhost:9180\"\n",
    ]));
}

#[test]
fn what_is_asked_of_clients() {
    snapshot!(told([
        with("min_tls = \"1.1\"\nclient_certificate = \"ca.pem\"\nhsts = true"),
        with("client_certificate = { required = 1, need = true }\nhsts = { max_age = 5 }"),
        with("hsts = { max_age = \"1d\", subdomains = true, preload = true }"),
        with("")
            + "[service.two]\nhosts = [\"api.test\", \"other.test\"]\npaths = [\"/two\"]\nbackends = [\"10.0.0.9:80\"]\nmin_tls = \"1.3\"\n",
        with("paths = [\"/api\"]")
            + "[service.rest]\nhosts = [\"*.test\"]\nbackends = [\"10.0.0.9:80\"]\nmin_tls = \"1.3\"\n",
    ]));
}

#[test]
fn listeners() {
    snapshot!(told([
        "[listener.a]\naddress = \":99999\"\nprotocol = \"https\"\n[listener.b]\naddress = \"localhost:80\"\n[listener.c]\naddress = \"443\"\n",
        "[listener.a]\naddress = \"https://0.0.0.0\"\n[listener.b]\naddress = \"web.test:80\"\n[listener.c]\naddress = \"::1\"\n",
        "[listener.a]\naddress = \"[::1:80\"\n[listener.b]\naddress = \":http\"\n[listener.c]\naddress = \"127.0.0.1\"\n[listener.d]\naddress = \"\"\n",
        "[listener.a]\naddress = \":443\"\n[listener.b]\naddress = [\"0.0.0.0:443\"]\n",
        "[listener.a]\naddress = \":81\"\n[listener.b]\naddress = [\":80\", \":443\"]\n[listener.c]\naddress = []\n[listener.d]\nprotocol = \"http\"\n",
        "[listener.a]\naddress = \":443\"\nredirect = true\n[listener.b]\naddress = \":80\"\nredirect = \"yes\"\n",
        "[listener.a]\naddress = \":80\"\nredirect = true\n",
        "[listener.a]\naddress = \":80\"\nredirect = 0\n",
        "[listener.a]\naddress = \"127.0.0.1:9180\"\nprotocol = \"http\"\n",
        "[listener.a]\naddress = \"127.0.0.1:80\"\n[metrics]\naddress = \"127.0.0.1:80\"\n",
        "[listener.a]\naddress = \":80\"\nprotocol = \"htps\"\n",
    ]
    .map(|text| with("") + text)));
}

#[test]
fn certificates() {
    snapshot!(told([
        with("[certificate.a]\ncert = \"a.pem\"\n[certificate.b]\nkey = \"b.key\"\n[certificate.c]\n"),
        with("tls = \"files\""),
        "[edge]\ntls = \"files\"\n".to_owned() + &with(""),
    ]));
}

#[test]
fn certificates_of_cas() {
    let acme = |lines: &str| with("") + "[acme]\n" + lines;
    let hosts = |hosts: &str, lines: &str| with(lines).replace("\"api.test\"", hosts);
    let asked = "[acme.on_demand]\nask = \"http://127.0.0.1/\"\n";
    snapshot!(told([
        acme("challenges = [\"http\", \"http-01\", \"http-01\", \"dns-01\"]\nkey = \"rsa\"\nwaiting = \"redirect\"\n"),
        acme("challenges = []\norders = 0\non_demand = \"http://127.0.0.1/ask\"\n"),
        acme("on_demand = { per_hour = 0 }\n"),
        acme("on_demand = { ask = \"127.0.0.1/ask\" }\n"),
        hosts("\"*\", \"*.a.fr\", \"web\", \"a.test\"", "tls = \"acme\""),
        hosts("\"*.a.test\"", "tls = \"acme\"\n[authority.house]\ndirectory = \"https://ca.test/\"\n"),
        hosts(
            "\"192.0.2.1\"",
            "tls = \"acme\"\n[acme]\nchallenges = \"dns-01\"\n[acme.dns.cloudflare]\ntoken = \"x\"\n"
        ),
        hosts("\"a.fr\"", "[acme]\nchallenges = \"dns-01\"\n[acme.dns.cloudflare]\ntoken = \"x\"\nzones = \"b.fr\"\n"),
        with("") + asked + "[authority]\n",
    ]));
}

#[test]
fn authorities() {
    snapshot!(told([
        "[authority.letsencript]\n[authority.house]\ndirectory = \"http://ca.test/dir\"\nstaging = \"ca.test\"\n",
        "[authority.a]\ndirectory = \"https://ca.test/\"\n[authority.b]\ndirectory = \"https://ca.test/\"\n",
        "[authority.zerossl]\n",
        "[authority.google]\neab_key_id = \"x\"\n[authority.zerossl]\neab_hmac = \"é\"\neab_hmac_file = \"secrets/eab\"\n",
        "[authority.google]\neab_key_id = \"x\"\neab_hmac = \" \"\neab_from = \"https://ca.test/\"\n",
        "[authority.google]\nlimits = { orders = -1 }\n",
    ]
    .map(|text| with("") + text)));
}

#[test]
fn dns_providers() {
    snapshot!(told([
        "[acme.dns.mine]\n",
        "[acme.dns.mine]\nprovider = \"gandi\"\n",
        "[acme.dns.exec]\nzones = [\"a.fr\", \"a.fr\", \"*.b.fr\"]\ncommand = \"/bin/hook x\"\ntoken = \"x\"\n",
        "[acme.dns.exec]\n[acme.dns.webhook]\nurl = \"/hook\"\n[acme.dns.rfc2136]\n[acme.dns.ovh]\n[acme.dns.cloudflare]\n",
        "[acme.dns.exec]\ncommand = \"/bin/hook\"\n[acme.dns.cloudflare]\ntoken = \"x\"\n",
    ]
    .map(|text| with("") + text)));
}

#[test]
fn sites() {
    let backends = "[service.api]\nhosts = [\"a.test\"]\n[service.api.backends]\n";
    snapshot!(told([
        "[sites]\ndijon = 0\nthory = { tier = 2000, network = \"10.0.0.1/24\" }\n".to_owned(),
        "[sites]\na = { network = \"10.0.0.0/24\" }\nb = { network = \"10.0.0.0/24\" }\nc = { network = \"here\" }\n"
            .to_owned(),
        "[sites]\na = { labels = { \"b-c\" = \"x\", site = \"y\", ok = 1 } }\nb = { labels = \"x\" }\n".to_owned(),
        format!("{backends}thorry = [\"10.0.0.1:80\"]\nmars = [\"10.0.0.2:80\"]\n[sites]\ndijon = 1\nthory = 2\n"),
        format!("{backends}dijon = [\"10.0.0.1:80\"]\n"),
        format!("{backends}dijon = [\"10.0.0.1:80\"]\nbalance = \"random\"\n[sites]\ndijon = 1\n"),
        format!(
            "[sites]\ndijon = {{ network = \"10.0.0.0/24\" }}\nthory = 2\n{backends}thory = [\"10.0.0.1:80\", \"[::ffff:10.0.0.2]:80\"]\n"
        ),
        "[sites]\ndijon = { network = \"10.0.0.0/24\" }\n".to_owned() + &with("").replace("10.0.0.1", "10.0.0.7"),
        // What is proposed puts nobody into the tier of another.
        "[sites]\nhome = 1\noffice = \"two\"\nattic = true\nshed = \"7\"\n".to_owned(),
        "[sites]\nhome = { tier = 5 }\noffice = \"second\"\nattic = { tier = \"Three\" }\n".to_owned(),
    ]));
}

#[test]
fn hosts_and_paths() {
    let hosts = |hosts: &str| format!("[service.api]\nhosts = [{hosts}]\nbackends = [\"10.0.0.1:80\"]\n");
    let paths = |paths: &str| hosts("\"a.test\"") + &format!("paths = [{paths}]\n");
    snapshot!(told([
        hosts(r#""https://a.test/x", "a.test:443", "a.test/x", "a_b!.test", "é.test", """#),
        hosts(r#""*.*.a.test", "a*.test", "a.test.", "-a.test", "a..test", "10.0.0.256""#),
        hosts(&format!("\"{}.test\"", "a".repeat(64))),
        hosts(r#""a.test", "A.TEST""#),
        hosts(""),
        hosts("1"),
        paths(r#""api", "/api/*", "/a b", "/a?b", "https://a.test/x", "/é""#),
        paths(r#""/a", "/a/""#),
        paths(""),
        hosts(r#""a.test", "www.a.test""#) + "canonical = \"ww.a.test\"\n",
        hosts(r#""a.test""#) + "canonical = \"*.a.test\"\n",
    ]));
}

#[test]
fn routes_claimed_twice() {
    let service = |name: &str, hosts: &str, paths: &str| {
        format!("[service.{name}]\nhosts = [{hosts}]\npaths = [{paths}]\nrespond = {{ body = \"x\" }}\n")
    };
    snapshot!(told([
        service("a", r#""a.test", "b.test""#, r#""/""#) + &service("b", r#""b.test""#, r#""/""#),
        service("a", r#""*""#, r#""/""#) + &service("b", r#""*""#, r#""/""#),
        service("a", r#""*""#, r#""/x""#) + &service("b", r#""*""#, r#""/y", "/x""#),
        service("a", r#""a.test""#, r#""/x""#) + &service("b", r#""a.test""#, r#""/y", "/x/""#),
    ]));
}

#[test]
fn backends() {
    let backends = |backends: &str| format!("[service.api]\nhosts = [\"a.test\"]\nbackends = {backends}\n");
    snapshot!(told([
        backends(r#"["http://10.0.0.1", "https://a.test/x", "http://a.test:81/", "10.0.0.1", "a.test:80/x"]"#),
        backends(r#"["10.0.0.1:0", "10.0.0.1:80800", "10.0.0.1:http", ":80", "::1", "[::g]:80", "10.0.0.256:80"]"#),
        backends(r#"["unix:run/api.sock", "unix:", "a b:80", ""]"#),
        backends(r#"["10.0.0.1:80", { addr = "10.0.0.1:80" }]"#),
        backends(
            r#"[{ weight = 1 }, { addr = "10.0.0.1:80", weight = 0 }, { addr = "10.0.0.2:80", weight = 1001, tier = 0 }, 5]"#
        ),
        backends("[]"),
        backends("{}"),
        backends("3"),
        backends(
            r#"[{ addr = "10.0.0.1:80", protocol = "h2c", tls = true }, { addr = "10.0.0.2:80", protocol = "h2" }]"#
        ),
        backends(r#"["10.0.0.1:80"]"#)
            + "upstream = { protocol = \"h3\", tls = \"yes\", host = \"http://a.test/x\" }\n",
        backends(r#"["10.0.0.1:80"]"#)
            + "upstream = { protocol = \"h2\", host = \"*.a.test\", tls = { sni = \"a.test:80\" } }\n",
        backends(r#"["10.0.0.1:80"]"#)
            + "upstream = { protocol = \"h2c\", tls = { verify = \"no\" }, keep_idle = -1 }\n",
    ]));
}

#[test]
fn actions() {
    let service = |lines: &str| format!("[service.api]\nhosts = [\"a.test\"]\n{lines}\n");
    snapshot!(told([
        service("backends = [\"10.0.0.1:80\"]\nredirect = \"https://b.test\"\nrespond = { body = \"x\" }"),
        service("respond = { body = \"x\" }\nhealth = \"/\"\nretry = { attempts = 2 }\nmaintenance = { body = \"x\" }"),
        service("health = \"/\""),
        service("redirect = \"b.test\""),
        service("redirect = \"https://a b.test/x\""),
        service("redirect = \"https://b.test/x y\""),
        service("redirect = 1"),
        service("redirect = { status = 307 }"),
        service("redirect = { to = \"https://b.test\", status = 200 }"),
        service("redirect = { to = \"https://b.test\", status = 999, keep_path = 1 }"),
        service("redirect = \"https://a.test/new\""),
        service("redirect = { to = \"/new\", keep_path = false }"),
        service("respond = \"x\""),
        service("respond = { status = 100, body = \"x\", body_file = \"pages/closed.html\" }"),
        service("respond = { status = 204, body = \"x\", content_type = \"a\\nb\" }"),
        service(
            "respond = { headers = { Content-Type = \"text/html\", Content-Length = \"1\", \"a:\" = \"b\", X = \"é\" } }"
        ),
    ]));
}

#[test]
fn health() {
    snapshot!(told_of_service([
        "health = \"health\"",
        "health = \"tpc\"",
        "health = 5",
        "health = { path = \"x\", method = \"G T\", host = \"a.test:x\", status = \"300-200\", jitter = 0.9 }",
        "health = { status = [99, \"x\", 1.5, \"200-700\"], rise = 0, fall = 101, port = 0, jitter = \"x\" }",
        "health = { status = [], method = \"HEAD\", body = \"ok\" }",
        "health = { type = \"tcp\", path = \"/\", body = \"ok\" }",
        "health = { type = \"off\", interval = \"1s\" }",
        "health = { type = \"htp\" }",
        "health = { path = \"/\", headers = { Host = \"a\", Connection = \"close\" }, interval = \"0s\", timeout = 1 }",
    ]));
}

#[test]
fn kinds_of_checks() {
    snapshot!(told_of_service([
        "health = \"redsi\"",
        "health = \"exec\"",
        "health = { type = \"exec\" }",
        "health = { type = \"exec\", command = [] }",
        "health = { command = \"/bin/check --lag 3\" }",
        "health = { command = [5, true], tls = true }",
        "health = { type = \"tls\", tls = false, path = \"/\" }",
        "health = { type = \"mysql\", tls = true, send = \"x\" }",
        "health = { type = \"redis\", command = [\"/bin/check\"], expect = \"+PONG\" }",
        "health = { type = \"grpc\", path = \"/\", host = \"a b\", service = 1 }",
        "health = { type = \"off\", send = \"x\" }",
        "health = { servce = \"a\", exepct = \"b\" }",
        "health = { type = \"tcp\", send = '\\q', expect = '\\x1' }",
        "health = { type = \"tcp\", send = 'a\\', expect = \"\" }",
        &format!("health = {{ type = \"tcp\", expect = \"{}\" }}", "x".repeat(4097)),
    ]));
}

#[test]
fn agents() {
    snapshot!(told_of_service([
        "agent = true",
        "agent = 0",
        "agent = {}",
        "agent = { prot = 9999 }",
        "agent = { port = 70000, interval = \"0s\", send = '\\q' }",
        "agent = { port = 9999, path = \"/\" }",
    ]));
    let unix = "[service.api]\nhosts = [\"a.test\"]\nbackends = [\"unix:/run/a.sock\"]\nagent = 9999\n";
    let idle = "[service.api]\nhosts = [\"a.test\"]\nrespond = { body = \"x\" }\nagent = 9999\n";
    snapshot!(told([unix, idle]));
}

#[test]
fn policies() {
    snapshot!(told_of_service([
        "balance = \"round_robn\"",
        "balance = \"least-conn\"",
        "balance = \"ip-hash\"",
        "balance = 1",
        "balance = {}",
        "balance = { hash = \"client-adress\" }",
        "balance = { hash = \"header:a b\" }",
        "sticky = \"a b\"",
        "sticky = true",
        "sticky = { ttl = \"1d\" }",
        "sticky = { cookie = \"a\", key = \"short\" }",
        "sticky = { cookie = \"a\", key_file = \"/run/secrets/short\" }",
        "sticky = { cookie = \"a\", key = \"0123456789abcdef\", key_file = \"/run/secrets/cookie\" }",
        "retry = { attempts = 17, budget_percent = 101, budget_floor = -1, replay_bytes = \"x\", statuses = [200] }",
        "timeout = { connect = \"0ms\", idle = 5 }",
        "failover_within = \"100ms\"",
        "passive_fall = -1\nmax_inflight = 0\nfail_open = \"no\"",
        "outlier = { errors_percent = 101, slow_factor = 1, volume = 2, max_ejected_percent = -1 }",
        "outlier = { hold = \"1m\", max_hold = \"30s\" }",
        "outlier = false",
    ]));
}

#[test]
fn header_edits() {
    snapshot!(told_of_service([
        "request_headers = { set = { Connection = \"close\", \"a b\" = \"x\", Host = \"a\" } }",
        "request_headers = { set = { A = \"x\\ny\", B = 1 }, remove = [\"Transfer-Encoding\", \"\"], add = { C = [\"a\", \"é\"] } }",
        "response_headers = { set = { X-A = \"1\", x-a = \"2\" }, set_file = { X-a = \"/run/secrets/token\" } }",
        "response_headers = { set = \"x\", remove = \"Server\" }",
    ]));
}

/// RFC 9110 section 7.6.1, and what frames the message.
#[test]
fn headers_of_the_connection_are_not_edited() {
    for name in ["Connection", "Content-Length", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization"]
        .into_iter()
        .chain(["Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade"])
    {
        for edit in ["set = { NAME = \"x\" }", "add = { NAME = \"x\" }", "remove = [\"NAME\"]"] {
            for side in ["request_headers", "response_headers"] {
                let said = messages(&with(&format!("{side} = {{ {} }}", edit.replace("NAME", name))));
                assert_eq!(said.len(), 1, "{said:?}");
                assert!(said[0].contains(&format!("`{name}` cannot be changed")), "{said:?}");
            }
        }
    }
}

#[test]
fn the_contract_has_limits() {
    for (time, good) in [("299ms", false), ("300ms", true), ("60s", true), ("60001ms", false)] {
        let text = with(&format!("failover_within = \"{time}\""));
        assert_eq!(parse(&text).is_ok(), good, "{time}");
        assert_eq!(parse(&format!("[edge]\nfailover_within = \"{time}\"\n{}", with(""))).is_ok(), good, "{time}");
    }
}

/// A secret must not get into a log by way of an error.
#[test]
fn secrets_are_not_repeated() {
    let said = errors(&with(
        "request_headers = { set_file = { A = \"/run/secrets/two-lines\" } }\nsticky = { cookie = \"a\", key_file = \"/run/secrets/short\" }",
    ));
    assert!(!said.contains("abc") && !said.contains("Bearer"), "{said}");
    assert!(!said.contains("short\n") && said.contains("5 bytes"), "{said}");
}

/// What can be read of a file with mistakes is its mistakes, in order, each with its place.
#[test]
fn problems_have_places() {
    let text = "[edge]\nname = 1\n\n[service.api]\nhosts = [\"é\", 5]\n";
    let problems = parse(text).unwrap_err().problems;
    let places: Vec<_> = problems.iter().map(|at| (at.line, at.column, &text[at.span.clone()])).collect();
    assert_eq!(places, [(2, 8, "1"), (4, 1, "[service.api]"), (5, 10, "\"é\""), (5, 15, "5")]);
}

/// The texts in the source, each as the parts between its placeholders.
fn texts_of_source() -> Vec<Vec<String>> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let mut texts = Vec::new();
    for source in files(root.as_ref(), "rs") {
        let code = source.split("#[cfg(test)]").next().unwrap_or_default();
        for call in code.split("Fault::new(").skip(1) {
            let call = call.trim_start();
            let literal = call.strip_prefix("format!(").unwrap_or(call).trim_start();
            let Some(literal) = literal.strip_prefix('"') else { continue };
            let text = literal.split_once("\",").into_iter().chain(literal.split_once("\")")).map(|(text, _)| text);
            let text = text.min_by_key(|text| text.len()).unwrap_or_default();
            let parts = text.split('{').enumerate().map(|(index, part)| {
                if index == 0 { part } else { part.split_once('}').map_or(part, |(_, rest)| rest) }
            });
            texts.push(parts.map(|part| part.replace("\\\"", "\"")).collect());
        }
    }
    texts
}

/// The contents of the files of a folder that end so.
#[allow(clippy::disallowed_methods, reason = "a test may read its own source; the crate may not")]
fn files(folder: &std::path::Path, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|it| it == ending) {
            found.push(std::fs::read_to_string(&path).expect("a text"));
        }
    }
    found
}

#[test]
fn every_text_is_in_a_snapshot() {
    let snapshots = files(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/snapshots").as_ref(), "snap").join("\n");
    let said = |line: &str, parts: &[String]| {
        let start = line.strip_prefix("error: ").or_else(|| line.strip_prefix("warning: "));
        let Some(mut rest) = start.and_then(|line| line.strip_prefix(parts[0].as_str())) else { return false };
        parts[1..].iter().all(|part| match rest.find(part.as_str()) {
            Some(at) => {
                rest = &rest[at + part.len()..];
                true
            }
            None => false,
        })
    };
    let texts = texts_of_source();
    assert!(texts.len() > 90, "{}", texts.len());
    let silent: Vec<String> = texts
        .iter()
        .filter(|parts| parts.concat().len() > 3 && !snapshots.lines().any(|line| said(line, parts)))
        .map(|parts| parts.join("{}"))
        .collect();
    assert_eq!(silent, [] as [String; 0], "texts without a snapshot");
}

#[test]
fn files_that_cannot_be_used_are_told_among_the_others() {
    let fault = |file: &Path, message: &str, help: &str| FileFault {
        file: file.to_path_buf(),
        message: message.to_owned(),
        help: help.to_owned(),
    };
    let certificate = |files: &CertificateFiles| {
        let no_key = fault(&files.key, "does not exist", "correct the path, or put the file there");
        vec![fault(&files.cert, "holds no PEM certificate", "look at it"), no_key]
    };
    let client_ca = |ca: &Path| Some(fault(ca, "is empty", "put a certificate in it"));
    let backend_ca = |ca: &Path| Some(fault(ca, "does not exist", "correct the path, or put the file there"));
    let program = |program: &Path| Some(fault(program, "is not executable", "make it so"));
    let text = "[certificate.site]\ncert = \"site.pem\"\nkey = \"site.key\"\n\n[service.api]\nhosts = [\"api.test\"]\n\
                bakends = [\"10.0.0.1:8080\"]\nredirect = \"https://b.test\"\nclient_certificate = { ca = \"staff.pem\" }\n\
                [service.web]\nhosts = [\"web.test\"]\nhealth = { type = \"exec\", command = [\"check\", \"-v\"] }\n\
                upstream.tls = { ca = \"backends.pem\" }\n\
                backends = [{ addr = \"10.0.0.1:8443\", tls = { ca = \"unread.pem\", verify = false } }]\n";
    let lookup = Lookup {
        certificate: &certificate,
        client_ca: &client_ca,
        backend_ca: &backend_ca,
        program: &program,
        ..Lookup::blind()
    };
    let errors = Config::parse("/etc/relais/proxy.toml", text, &lookup).unwrap_err();
    snapshot!(errors.to_string());
}

#[test]
fn a_mistake_in_what_a_service_does_hides_nothing_else() {
    let two = "[service.a]\nhosts = [\"a.test\"]\nrespond = { body = \"a\" }\n[service.b]\nhosts = [\"a.test\"]\n";
    let claimed = "5:10 services `a` and `b` both claim host `a.test`";
    assert_eq!(messages(two), ["4:1 `service.b` does nothing: it has no backends", claimed]);
    let broken = format!("{two}redirect = {{ to = 4 }}\n");
    assert_eq!(messages(&broken), [claimed, "6:19 `to` must be a text, not a whole number"]);
}
