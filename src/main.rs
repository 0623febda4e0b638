//! `raft-node`: environment → configuration → node → exit code.

use std::process::ExitCode;

use raft_node::app::{self, exit, log};
use raft_node::config::{self, Config};

/// glibc's own allocator keeps what it once had: a member whose data shrank would stay as large as
/// it ever was. This one gives whole free pages back within a second.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => configured(run),
        ["health"] => configured(|config| app::health(config, "ready")),
        ["health", service] => configured(|config| app::health(config, service)),
        ["--version"] => print(&app::version()),
        ["--help"] => print(&config::help()),
        _ => complain(config::USAGE),
    }
}

fn print(answer: &str) -> ExitCode {
    log::print(&mut std::io::stdout(), answer);
    ExitCode::from(exit::CLEAN)
}

fn configured(then: impl FnOnce(&Config) -> ExitCode) -> ExitCode {
    match Config::from_env() {
        Ok(config) => then(&config),
        Err(faults) => complain(&faults.to_string()),
    }
}

fn complain(why: &str) -> ExitCode {
    log::print(&mut std::io::stderr(), why);
    ExitCode::from(exit::CONFIGURATION)
}

fn run(config: &Config) -> ExitCode {
    log::start(config);
    exit::assertions_end_the_process();
    let code = app::run(config);
    log::flush();
    code
}
