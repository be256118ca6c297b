//! relais.
