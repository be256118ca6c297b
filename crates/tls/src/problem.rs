//! What can be wrong with a certificate, said to the operator. Touches nothing.

use std::path::PathBuf;

/// One thing wrong (or doubtful) with one certificate.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CertProblem {
    /// Name of the certificate in the config, or what it is for.
    pub certificate: String,
    /// The file it is about.
    pub file: Option<PathBuf>,
    /// What is wrong, in one sentence.
    pub message: String,
    /// The way out.
    pub help: String,
}

impl std::fmt::Display for CertProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "certificate `{}`", self.certificate)?;
        if let Some(file) = &self.file {
            write!(f, " ({})", file.display())?;
        }
        write!(f, ": {}; {}", self.message, self.help)
    }
}
