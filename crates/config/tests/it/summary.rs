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
[service.note]
hosts = ["*"]
respond = { body = "hello", status = 404 }
"#;
    snapshot!(config(text).summary());
}
