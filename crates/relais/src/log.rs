//! Log lines: human-readable on a terminal, JSON otherwise, never in the way of a request.
//!
//! Lines go to stderr through a bounded queue and a thread of its own; when the reader of stderr is too slow, lines
//! are dropped and counted rather than requests delayed. Only the executable installs this: an embedding program has
//! its own subscriber.

use std::io::IsTerminal;

use relais_core::config::{Log, LogFormat};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use crate::access_line::{ACCESS, Lines};

/// Lines kept while stderr is slow; more are dropped.
const QUEUE: usize = 16 * 1024;

/// The installed logger. Dropping it writes out what is queued.
#[derive(Debug)]
pub struct Logger {
    handle: reload::Handle<EnvFilter, Registry>,
    dropped: ErrorCounter,
    _guard: WorkerGuard,
}

/// Changes the level of a running logger.
#[derive(Debug, Clone)]
pub struct Level {
    handle: reload::Handle<EnvFilter, Registry>,
}

impl Logger {
    /// Installs the process-wide logger.
    ///
    /// # Errors
    /// When the level is not a level or filter, or a logger is installed already.
    pub fn install(log: &Log) -> Result<Logger, String> {
        let (filter, handle) = reload::Layer::new(filter(&log.level)?);
        let (writer, guard) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(QUEUE)
            .thread_name("relais-log")
            .finish(std::io::stderr());
        let dropped = writer.error_counter();
        let terminal = std::io::stderr().is_terminal();
        let human = match log.format {
            LogFormat::Auto => terminal,
            LogFormat::Human => true,
            LogFormat::Json => false,
        };
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        let lines: Box<dyn tracing_subscriber::Layer<_> + Send + Sync> = if human {
            Box::new(fmt::layer().with_writer(writer).with_ansi(colour))
        } else {
            Box::new(fmt::layer().event_format(Lines::new()).fmt_fields(JsonFields::new()).with_writer(writer))
        };
        tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(|error| error.to_string())?;
        Ok(Logger { handle, dropped, _guard: guard })
    }

    /// The switch for the level.
    #[must_use]
    pub fn level(&self) -> Level {
        Level { handle: self.handle.clone() }
    }

    /// Counts lines dropped because stderr was too slow.
    #[must_use]
    pub fn dropped_lines(&self) -> ErrorCounter {
        self.dropped.clone()
    }
}

impl Level {
    /// Sets `level` from now on: a level or a filter such as `info,relais_proxy=debug`.
    ///
    /// # Errors
    /// When it is neither.
    pub fn set(&self, level: &str) -> Result<(), String> {
        let filter = filter(level)?;
        self.handle.reload(filter).map_err(|error| error.to_string())
    }
}

/// The words for levels.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The library that watches files: at `info` it talks about its own business at each save of the file.
const WATCHER: &str = "notify";

/// The filter of a level. Access lines do not depend on it, unless it names them itself: `warn` should silence the
/// talk about requests, not the record of them. Whether there is such a record is `[log] access`, which workers read.
fn filter(level: &str) -> Result<EnvFilter, String> {
    let wrong = |what: &str| {
        format!(
            "`{what}` is not a log level; write error, warn, info, debug, trace, or a filter such as \
             `info,relais_proxy=debug`"
        )
    };
    let (mut named, mut watcher) = (false, "");
    for part in level.split(',').map(str::trim) {
        let (target, word) = part.rsplit_once('=').unwrap_or(("", part));
        // The filter itself would take an unknown word for the name of a module.
        if !LEVELS.contains(&word.to_ascii_lowercase().as_str()) {
            return Err(wrong(part));
        }
        named |= target == ACCESS;
        if target.is_empty() && word.eq_ignore_ascii_case("info") && !level.contains(WATCHER) {
            watcher = ",notify=warn";
        }
    }
    let access = if named { String::new() } else { format!(",{ACCESS}=info") };
    let whole = format!("{level}{access}{watcher}");
    EnvFilter::try_new(&whole).map_err(|_| wrong(level))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_lines_do_not_depend_on_the_level_unless_it_names_them() {
        assert_eq!(filter("warn").unwrap().to_string(), "access=info,warn");
        assert_eq!(filter("error,access=off").unwrap().to_string(), "access=off,error");
    }

    #[test]
    fn the_watcher_of_files_speaks_only_where_it_is_asked_to() {
        for (level, whole) in [
            ("info", "notify=warn,access=info,info"),
            ("debug", "access=info,debug"),
            ("error", "access=info,error"),
            ("info,notify=info", "notify=info,access=info,info"),
        ] {
            assert_eq!(filter(level).unwrap().to_string(), whole);
        }
    }

    #[test]
    fn a_wrong_level_says_what_to_write() {
        for wrong in ["loud", "info,relais_proxy=loud", "", "info,", "info,[x=debug"] {
            let error = filter(wrong).unwrap_err();
            assert!(error.contains("is not a log level") && error.contains("relais_proxy=debug"), "{error}");
        }
    }

    #[test]
    fn the_level_of_a_running_logger_can_be_changed() {
        let (layer, handle) = reload::Layer::<EnvFilter, Registry>::new(filter("warn").unwrap());
        let level = Level { handle: handle.clone() };
        level.set("debug").unwrap();
        assert_eq!(handle.with_current(ToString::to_string).unwrap(), "access=info,debug");
        assert!(level.set("info,x=loud").is_err());
        assert_eq!(
            handle.with_current(ToString::to_string).unwrap(),
            "access=info,debug",
            "a wrong level changes nothing"
        );
        drop(layer);
    }
}
