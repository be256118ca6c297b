//! What texts mean: durations and sizes, addresses and names, the words of HTTP.
//!
//! Pure functions from text to value or `Fault`. They know neither keys nor places.

pub(crate) mod address;
pub(crate) mod bytes;
pub(crate) mod http;
pub(crate) mod measure;
