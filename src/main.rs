//! `raft-node`: environment → configuration → node → exit code.

use std::process::ExitCode;

use raft_node::app::{self, exit};
use raft_node::config::{Config, LogFormat, USAGE};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => configured(run),
        ["health"] => configured(|config| app::health(config, "ready")),
        ["health", service] => configured(|config| app::health(config, service)),
        _ => complain(USAGE),
    }
}

fn configured(then: impl FnOnce(&Config) -> ExitCode) -> ExitCode {
    match Config::from_env() {
        Ok(config) => then(&config),
        Err(faults) => complain(&faults.to_string()),
    }
}

#[expect(clippy::print_stderr, reason = "there is no log yet, and no node that could keep one")]
fn complain(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::from(exit::CONFIGURATION)
}

fn run(config: &Config) -> ExitCode {
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&config.log_filter))
        .with_writer(std::io::stderr)
        .with_target(false);
    match config.log_format {
        LogFormat::Text => {
            log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init();
        }
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    app::exit::assertions_end_the_process();
    app::run(config)
}
