//! What the measurements of `benches/` need besides proxies: a cheap backend, a load generator, loops over pure
//! functions for counting instructions, and the timing of core's state machine.
//!
//! One executable with a word for each, so that one build gives all. Speaks to loopback only. Knows no proxy by name.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "figures go to standard output")]

mod args;
mod backend;
mod client;
mod count;
mod fleet;
mod hold;
mod load;
mod modes;
mod pace;
mod streams;
#[path = "../../crates/tls/tests/support/take_all.rs"]
mod take_all;
mod tally;

use args::{Args, Outcome};

/// As the product: counted allocations are those of the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "tools backend --port P\ntools load --addr IP:PORT --mode MODE ...\ntools count NAME TIMES\ntools fleet --services N --backends N";

fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let args = Args::new(&words);
    match words.first().map(String::as_str) {
        Some("backend") => on_one_thread(backend::run(args)),
        Some("load") => on_one_thread(load::run(args)),
        Some("count") => count::run(&words[1..]),
        Some("fleet") => fleet::run(&args),
        // What `cargo test` and `cargo bench` would call.
        _ => {
            println!("{USAGE}");
            Ok(())
        }
    }
}

fn on_one_thread(work: impl Future<Output = Outcome<()>>) -> Outcome<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
