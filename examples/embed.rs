//! The edge inside another program: start it, ask it something, drain a site, stop it.
//!
//! `cargo run --example embed`. The program brings its own backends; it listens on free ports and keeps its state in
//! a directory of its own.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use relais::Edge;

fn main() -> Result<(), Box<dyn Error>> {
    let (dijon, thory) = (backend("dijon")?, backend("thory")?);
    let state = std::env::temp_dir().join(format!("relais-embed-{}", std::process::id()));

    let edge = Edge::builder()
        .config_text(format!(
            r#"
            [metrics]
            address = false
            [listener.http]
            address = "127.0.0.1:0"
            protocol = "http"
            redirect = false
            [sites]
            dijon = 1
            thory = 2
            [service.hello]
            hosts = ["*"]
            health = "/"
            [service.hello.backends]
            dijon = ["{dijon}"]
            thory = ["{thory}"]
            "#
        ))
        .state_dir(&state)
        .admin_socket(state.join("admin.sock"))
        .start()?;

    let Some(address) = edge.local_addresses().first().map(|at| at.address) else {
        return Err("the edge listens nowhere".into());
    };
    print(&format!("the edge listens on {address}"))?;
    print(&ask(address)?)?;

    edge.drain("dijon")?;
    print("dijon is drained; new requests go to the next tier")?;
    let deadline = Instant::now() + Duration::from_secs(5);
    let answer = loop {
        let answer = ask(address)?;
        if answer.contains("thory") || Instant::now() > deadline {
            break answer;
        }
    };
    print(&answer)?;
    for site in &edge.status()?.report.sites {
        print(&format!("{}: {}, {}", site.name, site.health, site.admin))?;
    }

    edge.stop()?;
    std::fs::remove_dir_all(&state)?;
    print("stopped")
}

fn print(line: &str) -> Result<(), Box<dyn Error>> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// One plain request.
fn ask(address: SocketAddr) -> Result<String, Box<dyn Error>> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: hello.example\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.rsplit("\r\n\r\n").next().unwrap_or_default();
    Ok(format!("{} | {body}", answer.lines().next().unwrap_or_default()))
}

/// A backend of this program: answers every connection with the name of its site.
fn backend(site: &'static str) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut head = [0; 4096];
                // A backend may lose a client at any time; the next one is served all the same.
                let _ = stream.read(&mut head);
                let body = format!("hello from {site}");
                let length = body.len();
                let _ =
                    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
            });
        }
    });
    Ok(address)
}
