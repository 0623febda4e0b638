//! Members in containers, through the `docker` command: what an operator would type.

use super::cluster::{Cluster, Fault};
use crate::grpc::Endpoint;
use std::process::Command;

/// The network between the members, as docker compose names it after its project.
const PEER_NETWORK_SUFFIX: &str = "_peers";

/// Running containers, each a member.
pub struct Docker {
    containers: Vec<String>,
    endpoints: Vec<Endpoint>,
    peer_network: Option<String>,
}

impl Docker {
    /// Checks that the containers run, and finds the network between them.
    pub fn find(
        containers: &[String],
        endpoints: &[Endpoint],
        network: Option<&str>,
    ) -> Result<Self, String> {
        if containers.len() != endpoints.len() {
            return Err("--containers and --endpoints must name the same members".to_owned());
        }
        for container in containers {
            let state = docker(&["inspect", "--format", "{{.State.Status}}", container])?;
            if state != "running" {
                return Err(format!("container {container} is {state}, not running"));
            }
        }
        let networks = networks_of(&containers[0])?;
        let found = networks
            .iter()
            .find(|name| network.map_or_else(|| is_peer_network(name), |wanted| wanted == *name));
        if let (Some(wanted), None) = (network, found) {
            let container = &containers[0];
            return Err(format!("{container} is not on {wanted}, but on {}", networks.join(", ")));
        }
        Ok(Self {
            containers: containers.to_vec(),
            endpoints: endpoints.to_vec(),
            peer_network: found.cloned(),
        })
    }

    fn peer_network(&self) -> Result<&str, String> {
        let missing = "no network of the containers ends in _peers: give --network";
        self.peer_network.as_deref().ok_or_else(|| missing.to_owned())
    }
}

impl Cluster for Docker {
    fn endpoints(&self) -> Vec<Endpoint> {
        self.endpoints.clone()
    }

    fn name(&self, member: usize) -> String {
        self.containers[member].clone()
    }

    fn strike(&self, member: usize, fault: Fault) -> Result<(), String> {
        let container = self.containers[member].as_str();
        let done = match fault {
            Fault::Stop => docker(&["stop", container]),
            Fault::Kill => docker(&["kill", container]),
            Fault::Pause => docker(&["pause", container]),
            Fault::Disconnect => {
                docker(&["network", "disconnect", self.peer_network()?, container])
            }
        };
        done.map(|_| ())
    }

    fn heal(&self, member: usize, fault: Fault) -> Result<(), String> {
        let container = self.containers[member].as_str();
        let done = match fault {
            Fault::Stop | Fault::Kill => docker(&["start", container]),
            Fault::Pause => docker(&["unpause", container]),
            Fault::Disconnect => docker(&["network", "connect", self.peer_network()?, container]),
        };
        done.map(|_| ())
    }

    fn called_healthy(&self, member: usize) -> Result<bool, String> {
        let format = "{{if .State.Health}}{{.State.Health.Status}}{{else}}healthy{{end}}";
        let health = docker(&["inspect", "--format", format, &self.containers[member]])?;
        Ok(health == "healthy")
    }

    fn last_words(&self, member: usize) -> String {
        // The nodes log to standard error, which `docker logs` keeps apart.
        let container = &self.containers[member];
        match Command::new("docker").args(["logs", "--tail", "5", container]).output() {
            Ok(logs) => String::from_utf8_lossy(&[logs.stdout, logs.stderr].concat()).into_owned(),
            Err(error) => error.to_string(),
        }
    }
}

fn is_peer_network(name: &str) -> bool {
    name == "peers" || name.ends_with(PEER_NETWORK_SUFFIX)
}

fn networks_of(container: &str) -> Result<Vec<String>, String> {
    let format = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}";
    let names = docker(&["inspect", "--format", format, container])?;
    Ok(names.split_whitespace().map(str::to_owned).collect())
}

fn docker(args: &[&str]) -> Result<String, String> {
    let output = Command::new("docker")
        .args(args)
        .output()
        .map_err(|error| format!("cannot run docker: {error}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(format!("docker {}: {}", args.join(" "), complaint.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_network_is_known_by_its_name() {
        assert!(is_peer_network("raft-node_peers"));
        assert!(is_peer_network("peers"));
        assert!(!is_peer_network("raft-node_clients"));
        assert!(!is_peer_network("bridge"));
    }
}
