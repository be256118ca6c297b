//! How backends are found and what is said about them, with the whole program: names that move, agents that drain.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

mod agents;
mod dns;
mod names;
mod tls;

use std::net::{IpAddr, TcpListener};

use support::wire::{Conn, ok};

/// A backend at a chosen place that answers every request with its name, on kept connections.
fn backend(ip: IpAddr, port: u16, name: &'static str) -> u16 {
    let listener = TcpListener::bind((ip, port)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut conn = Conn::over(stream);
                while conn.try_head().is_some() && conn.try_send(ok(name)).is_ok() {}
            });
        }
    });
    port
}
