//! Configuration files for tests, built from their differences.

use std::{fmt, net::SocketAddr};

/// A service of a configuration file.
#[derive(Clone, Debug)]
pub struct Service {
    name: String,
    address: SocketAddr,
    protocol: &'static str,
    keys: String,
    health: String,
    backends: Vec<(String, SocketAddr, u32, String)>,
}

impl Service {
    /// A TCP service on an address.
    pub fn tcp(name: &str, address: SocketAddr) -> Self {
        Self {
            name: name.to_owned(),
            address,
            protocol: "tcp",
            keys: String::new(),
            health: String::new(),
            backends: Vec::new(),
        }
    }

    /// A UDP service on an address.
    pub fn udp(name: &str, address: SocketAddr) -> Self {
        Self {
            protocol: "udp",
            ..Self::tcp(name, address)
        }
    }

    /// Adds a backend.
    #[must_use]
    pub fn backend(mut self, name: &str, address: SocketAddr, weight: u32) -> Self {
        self.backends
            .push((name.to_owned(), address, weight, String::new()));
        self
    }

    /// Adds lines to the table of the backend that was added last.
    #[must_use]
    pub fn backend_keys(mut self, lines: &str) -> Self {
        if let Some((.., keys)) = self.backends.last_mut() {
            keys.push_str(lines);
        }
        self
    }

    /// Adds lines to the service's own table.
    #[must_use]
    pub fn keys(mut self, lines: &str) -> Self {
        self.keys.push_str(lines);
        self.keys.push('\n');
        self
    }

    /// Adds lines to its health table.
    #[must_use]
    pub fn health(mut self, lines: &str) -> Self {
        self.health.push_str(lines);
        self.health.push('\n');
        self
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            address,
            protocol,
            keys,
            health,
            backends,
        } = self;
        writeln!(
            f,
            "[[service]]\nname = \"{name}\"\naddress = \"{}\"\nport = {}",
            address.ip(),
            address.port()
        )?;
        writeln!(f, "protocol = \"{protocol}\"\n{keys}")?;
        if !health.is_empty() {
            writeln!(f, "[service.health]\n{health}")?;
        }
        for (name, address, weight, keys) in backends {
            writeln!(
                f,
                "[[service.backend]]\nname = \"{name}\"\naddress = \"{address}\"\nweight = {weight}\n{keys}\n"
            )?;
        }
        Ok(())
    }
}

/// The text of a file with these services.
pub fn file(services: &[Service]) -> String {
    services.iter().map(ToString::to_string).collect()
}
