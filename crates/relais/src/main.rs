//! relais.
fn main() {}
