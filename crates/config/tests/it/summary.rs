//! The plain summary of `relais check`.

use crate::config;
use crate::reference::ACECINEMA;

#[test]
fn the_summary_says_who_serves_and_what_is_survived() {
    snapshot!(config(ACECINEMA).summary());
}

#[test]
fn the_summary_of_unusual_services() {
    let text = r#"
[listener.plain]
address = ["127.0.0.1:0", ":8080"]
protocol = "http"
[service.one]
hosts = ["one.test", "*.one.test"]
paths = ["/a", "/b"]
health = "off"
failover_within = "1500ms"
backends = ["10.0.0.1:80"]
maintenance = { body = "sorry" }
[service.old]
hosts = ["old.test"]
redirect = { to = "https://new.test", status = 301 }
[service.rpc]
hosts = ["rpc.test"]
health = { service = "a.B" }
agent = 9999
backends = ["10.0.0.1:81"]
[service.queue]
hosts = ["queue.test"]
health = { send = "PING\\r\\n", expect = "+PONG" }
backends = ["10.0.0.1:82"]
[service.lag]
hosts = ["lag.test"]
health = { command = ["/bin/check", "x"] }
backends = ["10.0.0.1:83"]
[service.note]
hosts = ["*"]
respond = { body = "hello", status = 404 }
"#;
    snapshot!(config(text).summary());
}
