//! Why an edge could not start, in words for people, with the way out.

use relais_tls::CertProblem;

use crate::paths;

/// Why an edge could not start.
#[derive(Debug)]
pub enum StartError {
    /// No config file was named and none is in the usual places.
    NoConfig,
    /// The config cannot be read or used: every error, rendered.
    Config(String),
    /// The logger could not be installed.
    Log(String),
    /// Certificates that cannot be used, all of them.
    Certificates(Vec<CertProblem>),
    /// Addresses that cannot be bound, a sentence each.
    Listeners(Vec<String>),
    /// The system refused a thread, a runtime or the like.
    System {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        error: std::io::Error,
    },
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StartError::NoConfig => {
                let [here, there] = paths::config_places();
                write!(
                    f,
                    "no config file: neither {} nor {} exists; write one, or name it with `--config FILE`",
                    here.display(),
                    there.display()
                )
            }
            StartError::Config(rendered) => f.write_str(rendered.trim_end()),
            StartError::Log(error) => write!(f, "cannot log: {error}"),
            StartError::Certificates(problems) => lines(f, problems),
            StartError::Listeners(problems) => lines(f, problems),
            StartError::System { doing, error } => write!(f, "{doing}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

fn lines<T: std::fmt::Display>(f: &mut std::fmt::Formatter<'_>, items: &[T]) -> std::fmt::Result {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            f.write_str("\n")?;
        }
        write!(f, "{item}")?;
    }
    Ok(())
}
