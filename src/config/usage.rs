//! What the command line answers about itself: two flags that say what this program is, so that it
//! can be asked without its documents. A node is not configured by flags.

use std::fmt::Write as _;

use super::VARIABLES;

/// Every form of the command line, one a line.
pub const USAGE: &str = "\
usage: raft-node                     runs a node
       raft-node health [service]    asks the node that runs with this environment
       raft-node --version           prints the version
       raft-node --help              prints the variables and the exit codes
A node is configured by RAFT_* environment variables and by no flag.";

/// What `--help` prints: the usage, every variable with its default, and the exit codes.
pub fn help() -> String {
    let mut text = format!("{USAGE}\n\nVariables, with their defaults:\n");
    for variable in &VARIABLES {
        let (name, default, meaning) = (variable.name, variable.default, variable.meaning);
        write!(text, "  {name} ({default})\n      {meaning}\n").expect("a string takes all");
    }
    text.push_str(EXIT_CODES);
    text
}

const EXIT_CODES: &str = "
Exit codes:
  0   stopped as asked, or removed from the cluster
  78  the configuration is wrong
  74  the disk failed, is damaged, or belongs to another member
  75  the disk is full: with room, a start may go well
  70  a bug
  1   `health`: not serving";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_every_variable_and_every_exit_code() {
        let help = help();
        for variable in &VARIABLES {
            assert!(help.contains(variable.name), "{}", variable.name);
        }
        for code in ["0", "78", "75", "74", "70"] {
            assert!(help.contains(&format!("\n  {code} ")), "{code}");
        }
    }
}
