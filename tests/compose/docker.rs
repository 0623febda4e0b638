//! The command-line tools, as a user calls them, with a limit on how long each may take.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The project of these tests: its volumes are nobody else's.
pub const PROJECT: &str = "raft-node-test";

/// The longest that one command may take; a build of the image has its own limit.
const LIMIT: Duration = Duration::from_mins(2);
const BUILD_LIMIT: Duration = Duration::from_mins(30);
const PULL_LIMIT: Duration = Duration::from_mins(1);

/// `docker` with these words. Its output, or everything about its failure.
pub fn docker(words: &[&str]) -> Result<String, String> {
    run(&[&["docker"], words].concat(), LIMIT)
}

/// The users' own file, and what is added to it: one more machine.
const FILES: [&str; 2] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/docker-compose.yml"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compose/more.yml"),
];

/// Other addresses for the first three.
pub const MOVED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compose/moved.yml");

/// The compose tool with these words, for this project.
pub fn compose(words: &[&str]) -> Result<String, String> {
    compose_in(&[], words)
}

/// The same where the shell has these variables.
pub fn compose_in(variables: &[String], words: &[&str]) -> Result<String, String> {
    let limit = if words.contains(&"build") { BUILD_LIMIT } else { LIMIT };
    // Set, so that an `.env` file of the work tree's own cluster does not count here.
    let ids = (1..=5).flat_map(|n| [format!("NODE{n}_ID={n}"), format!("NODE{n}_REPLACES=")]);
    let variables: Vec<String> = ids.chain(variables.iter().cloned()).collect();
    let shell: Vec<&str> = ["env"].into_iter().chain(variables.iter().map(|v| &v[..])).collect();
    let tool = compose_tool().ok_or("no compose tool")?;
    let files = ["-f", FILES[0], "-f", FILES[1], "-p", PROJECT];
    run(&[&shell, tool, &files, words].concat(), limit)
}

/// Runs a command as a user types it into a shell in `directory`; `docker compose` is whichever
/// tool there is.
pub fn typed(
    command: &str,
    directory: &Path,
    variables: &[(&str, &str)],
) -> Result<String, String> {
    let tool = compose_tool().ok_or("no compose tool")?.join(" ");
    let command = command.replace("docker compose", &tool);
    let shell = format!("cd '{}' && {command}", directory.display());
    let variables: Vec<String> = variables.iter().map(|(n, v)| format!("{n}={v}")).collect();
    let mut words = vec!["env"];
    words.extend(variables.iter().map(String::as_str));
    words.extend(["sh", "-c", &shell]);
    run(&words, LIMIT)
}

/// Compose v2 where it is, else its predecessor.
fn compose_tool() -> Option<&'static [&'static str]> {
    let answers = |tool: &[&str]| run(&[tool, &["version"]].concat(), LIMIT).is_ok();
    let tools: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];
    tools.into_iter().find(|tool| answers(tool))
}

/// Why the tests cannot run here; nothing if they can.
pub fn obstacle() -> Option<String> {
    if let Err(error) = docker(&["version", "--format", "{{.Server.Version}}"]) {
        return Some(format!("no docker engine answers ({error})"));
    }
    if compose_tool().is_none() {
        return Some("there is neither `docker compose` nor `docker-compose`".to_owned());
    }
    for name in ["node1", "node2", "node3", "node4", "node5", "node6"] {
        let label = "{{index .Config.Labels \"com.docker.compose.project\"}}";
        match docker(&["container", "inspect", "--format", label, name]) {
            Ok(project) if project != PROJECT => {
                return Some(format!("the container {name} of project {project:?} is in the way"));
            }
            Ok(_) | Err(_) => {}
        }
    }
    if built_before().is_none() {
        return base_image_obstacle();
    }
    None
}

/// The image that is to be tested as it is.
pub fn built_before() -> Option<String> {
    std::env::var("NODE_IMAGE").ok().filter(|image| !image.is_empty())
}

fn base_image_obstacle() -> Option<String> {
    let dockerfile = include_str!("../../Dockerfile");
    let image = dockerfile
        .lines()
        .find_map(|line| line.strip_prefix("ARG RUST_IMAGE="))
        .expect("the Dockerfile names its base image");
    if docker(&["image", "inspect", image]).is_ok() {
        return None;
    }
    let pulled = run(&["docker", "pull", "--quiet", image], PULL_LIMIT);
    let error = pulled.err()?;
    Some(format!("{image} is not here and cannot be pulled; .ci/standin-images helps ({error})"))
}

fn run(words: &[&str], limit: Duration) -> Result<String, String> {
    let command = words.join(" ");
    let broken = |error: std::io::Error| format!("`{command}`: {error}");
    // Files, since nobody reads a pipe while the command is waited for.
    let (out, err) = (tempfile::NamedTempFile::new(), tempfile::NamedTempFile::new());
    let (out, err) = (out.map_err(broken)?, err.map_err(broken)?);
    let mut child = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(out.reopen().map_err(broken)?)
        .stderr(err.reopen().map_err(broken)?)
        .spawn()
        .map_err(broken)?;
    let start = Instant::now();
    let status = loop {
        match child.try_wait().map_err(broken)? {
            Some(status) => break status,
            None if start.elapsed() > limit => {
                child.kill().and_then(|()| child.wait()).map_err(broken)?;
                return Err(format!("`{command}` took longer than {limit:?}"));
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let said = |file: &Path| std::fs::read_to_string(file).map_err(broken);
    let (out, err) = (said(out.path())?, said(err.path())?);
    if status.success() {
        // A member logs to its standard error, which `docker logs` keeps apart.
        let said = if words.get(1) == Some(&"logs") { &err } else { &out };
        return Ok(said.trim().to_owned());
    }
    let told: Vec<&str> = out.lines().chain(err.lines()).collect();
    let last = told[told.len().saturating_sub(30)..].join("\n");
    Err(format!("`{command}`: {status}: {last}"))
}
