//! Which rows a list shows, and in which order: `--down`, `--selector` and `--sort`.

use std::{
    cmp::Ordering,
    net::{IpAddr, SocketAddr},
};

use clap::Args;

use super::error::{CliError, Exit};
use crate::api::{
    service_state::ServiceState,
    types::{Admin, Backend, Health, Service},
};

/// Options of lists.
#[derive(Args, Clone, Debug)]
pub(super) struct FilterOptions {
    /// Only what is not healthy
    #[arg(long)]
    down: bool,
    /// Only where fields have these values: FIELD=VALUE or FIELD!=VALUE, several separated by commas; fields as in JSON
    #[arg(long, value_name = "SELECTOR")]
    selector: Vec<String>,
    /// Order by these fields, separated by commas; `-` before one: the highest first
    #[arg(long, value_name = "FIELDS", allow_hyphen_values = true)]
    sort: Option<String>,
}

/// A backend and its service.
#[derive(Clone, Copy, Debug)]
pub(super) struct BackendRow<'a> {
    /// The service.
    pub service: &'a Service,
    /// The backend.
    pub backend: &'a Backend,
}

/// The value of a field.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Value {
    Text(String),
    Number(u64),
    /// No backend has this port.
    Address(IpAddr, Option<u16>),
}

impl Value {
    fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    fn optional(text: Option<&str>) -> Self {
        Self::text(text.unwrap_or_default())
    }

    fn count(count: usize) -> Self {
        Self::Number(u64::try_from(count).unwrap_or(u64::MAX))
    }

    /// Whether a user means it by `wanted`; of an address with port, the address is enough.
    fn is(&self, wanted: &str) -> bool {
        match self {
            Self::Text(text) => text == wanted,
            Self::Number(number) => wanted == number.to_string(),
            Self::Address(address, port) => {
                let whole: Option<SocketAddr> = wanted.parse().ok();
                let alone = wanted.trim_start_matches('[').trim_end_matches(']');
                let is_whole =
                    whole.is_some_and(|whole| whole.ip() == *address && Some(whole.port()) == *port);
                is_whole || alone.parse() == Ok(*address)
            }
        }
    }
}

/// Reads a field of a row.
type Read<T> = fn(&T) -> Value;

/// A field of a row: its names, as in JSON and in tables, and its value.
struct Field<T> {
    names: &'static [&'static str],
    value: Read<T>,
}

const fn field<T>(names: &'static [&'static str], value: Read<T>) -> Field<T> {
    Field { names, value }
}

fn of_service() -> Vec<Field<Service>> {
    vec![
        field(&["name", "service"], |service| Value::text(&service.name)),
        field(&["address"], |service| match service.address.parse() {
            Ok(address) => Value::Address(address, Some(service.port)),
            Err(_) => Value::text(&service.address),
        }),
        field(&["port"], |service| Value::Number(service.port.into())),
        field(&["protocol"], |service| Value::text(&service.protocol)),
        field(&["mode"], |service| Value::text(&service.mode)),
        field(&["state"], |service| Value::text(service.judged().name())),
        field(&["algorithm"], |service| Value::text(&service.algorithm)),
        field(&["affinity"], |service| Value::text(&service.affinity)),
        field(&["tracking"], |service| Value::text(&service.tracking)),
        field(&["check"], |service| Value::text(&service.check)),
        field(&["on_empty"], |service| Value::text(&service.on_empty)),
        field(&["on_down"], |service| Value::text(&service.on_down)),
        field(&["backends"], |service| Value::count(service.backends.len())),
        field(&["healthy_backends"], |service| {
            Value::count(service.healthy_backends)
        }),
        field(&["active_flows", "flows"], |service| {
            Value::Number(service.active_flows)
        }),
        field(&["new_flows"], |service| Value::Number(service.new_flows)),
        field(&["packets"], |service| Value::Number(service.packets)),
        field(&["bytes"], |service| Value::Number(service.bytes)),
        field(&["reply_packets"], |service| Value::Number(service.reply_packets)),
        field(&["drops"], |service| {
            Value::Number(service.drops.iter().map(|drops| drops.packets).sum())
        }),
    ]
}

fn of_backend<'a>() -> Vec<Field<BackendRow<'a>>> {
    vec![
        field(&["service"], |row| Value::text(&row.service.name)),
        field(&["name", "backend"], |row| Value::text(&row.backend.name)),
        field(&["address"], |row| {
            Value::Address(row.backend.address.ip(), Some(row.backend.address.port()))
        }),
        field(&["group"], |row| Value::optional(row.backend.group.as_deref())),
        field(&["health", "state"], |row| {
            Value::text(match row.backend.health {
                Health::Up => "up",
                Health::Down => "down",
                Health::Unchecked => "unchecked",
            })
        }),
        field(&["admin"], |row| {
            Value::text(match row.backend.admin {
                Admin::Enabled => "enabled",
                Admin::Draining => "draining",
                Admin::Disabled => "disabled",
            })
        }),
        field(&["weight"], |row| Value::Number(row.backend.weight.into())),
        field(&["effective_weight"], |row| {
            Value::Number(row.backend.effective_weight.into())
        }),
        field(&["backup"], |row| Value::text(row.backend.backup.to_string())),
        field(&["removed"], |row| Value::text(row.backend.removed.to_string())),
        field(&["mode"], |row| Value::text(&row.backend.mode)),
        field(&["protocol"], |row| Value::text(&row.service.protocol)),
        field(&["interface"], |row| {
            let hop = row.backend.next_hop.as_ref();
            Value::optional(hop.and_then(|hop| hop.interface.as_deref()))
        }),
        field(&["discovered_by"], |row| {
            Value::optional(row.backend.discovered_by.as_deref())
        }),
        field(&["since"], |row| Value::optional(row.backend.since.as_deref())),
        field(&["latency_us"], |row| {
            Value::Number(
                row.backend
                    .last_check
                    .as_ref()
                    .map_or(0, |check| check.latency_us),
            )
        }),
        field(&["active_flows", "flows"], |row| {
            Value::Number(row.backend.active_flows)
        }),
        field(&["new_flows"], |row| Value::Number(row.backend.new_flows)),
        field(&["packets"], |row| Value::Number(row.backend.packets)),
        field(&["bytes"], |row| Value::Number(row.backend.bytes)),
        field(&["reply_packets"], |row| Value::Number(row.backend.reply_packets)),
    ]
}

/// Names of the fields of services, and of backends.
pub(super) fn field_names() -> [Vec<&'static str>; 2] {
    let service = of_service();
    let backend = of_backend();
    let names_of_service = service.iter().flat_map(|field| field.names).copied();
    let names_of_backend = backend.iter().flat_map(|field| field.names).copied();
    [names_of_service.collect(), names_of_backend.collect()]
}

/// Which rows are shown, and in which order.
pub(super) struct Filter<T> {
    down: Option<fn(&T) -> bool>,
    terms: Vec<Term<T>>,
    /// By what, and whether the highest comes first.
    order: Vec<(Read<T>, bool)>,
}

struct Term<T> {
    value: Read<T>,
    is_equal: bool,
    wanted: String,
}

impl FilterOptions {
    /// Whether rows may be left out.
    pub(super) fn leaves_out(&self) -> bool {
        self.down || !self.selector.is_empty()
    }

    /// For lists of services.
    ///
    /// # Errors
    /// There is no such field, or a selector cannot be read.
    pub(super) fn services(&self) -> Result<Filter<Service>, CliError> {
        let is_down = |service: &Service| service.judged() != ServiceState::Ok;
        self.filter(&of_service(), is_down)
    }

    /// For lists of backends.
    ///
    /// # Errors
    /// There is no such field, or a selector cannot be read.
    pub(super) fn backends<'a>(&self) -> Result<Filter<BackendRow<'a>>, CliError> {
        let is_down = |row: &BackendRow<'a>| {
            let BackendRow { service, backend } = row;
            let has_fault = service.faults.iter().any(|fault| fault.backend == backend.name);
            backend.health == Health::Down || backend.suspect || has_fault
        };
        self.filter(&of_backend(), is_down)
    }

    fn filter<T>(&self, fields: &[Field<T>], is_down: fn(&T) -> bool) -> Result<Filter<T>, CliError> {
        let terms = self.selector.iter().flat_map(|selector| selector.split(','));
        let terms = terms.map(|term| {
            let (name, wanted) = term.split_once('=').ok_or_else(|| {
                CliError::new(
                    Exit::Usage,
                    format!("--selector {term}: expected FIELD=VALUE or FIELD!=VALUE"),
                )
                .hint(format!("fields are {}", choices(fields)))
            })?;
            let (name, is_equal) = match name.strip_suffix('!') {
                Some(name) => (name, false),
                None => (name, true),
            };
            Ok(Term {
                value: found(fields, "--selector", name.trim())?,
                is_equal,
                // `==` is equal, too.
                wanted: wanted.trim_start_matches('=').trim().to_owned(),
            })
        });
        let order = self.sort.iter().flat_map(|sort| sort.split(','));
        let order = order.map(|name| match name.trim().strip_prefix('-') {
            Some(name) => Ok((found(fields, "--sort", name)?, true)),
            None => Ok((found(fields, "--sort", name.trim())?, false)),
        });
        Ok(Filter {
            down: self.down.then_some(is_down),
            terms: terms.collect::<Result<_, CliError>>()?,
            order: order.collect::<Result<_, CliError>>()?,
        })
    }
}

fn found<T>(fields: &[Field<T>], option: &str, name: &str) -> Result<Read<T>, CliError> {
    let field = fields.iter().find(|field| field.names.contains(&name));
    field.map(|field| field.value).ok_or_else(|| {
        CliError::new(Exit::Usage, format!("{option}: there is no field {name:?}"))
            .hint(format!("fields are {}", choices(fields)))
    })
}

fn choices<T>(fields: &[Field<T>]) -> String {
    let names = fields.iter().filter_map(|field| field.names.first().copied());
    names.collect::<Vec<_>>().join(", ")
}

impl<T> Filter<T> {
    /// Whether a row is shown.
    pub(super) fn shows(&self, row: &T) -> bool {
        let is_wanted = |term: &Term<T>| (term.value)(row).is(&term.wanted) == term.is_equal;
        self.down.is_none_or(|is_down| is_down(row)) && self.terms.iter().all(is_wanted)
    }

    /// The order of two rows; equal where none was asked for.
    pub(super) fn compare(&self, one: &T, other: &T) -> Ordering {
        let orders = self.order.iter().map(|(value, is_reversed)| {
            let order = value(one).cmp(&value(other));
            if *is_reversed { order.reverse() } else { order }
        });
        orders.fold(Ordering::Equal, Ordering::then)
    }
}

impl Filter<Service> {
    /// Leaves the services that are shown, in order.
    pub(super) fn apply(&self, services: &mut Vec<Service>) {
        services.retain(|service| self.shows(service));
        services.sort_by(|one, other| self.compare(one, other));
    }
}

/// Leaves the backends that are shown, in order, and the services that have some.
///
/// # Errors
/// There is no such field, or a selector cannot be read.
pub(super) fn filter_backends(options: &FilterOptions, services: &mut Vec<Service>) -> Result<(), CliError> {
    for service in &mut *services {
        let filter = options.backends()?;
        let rows = rows(std::slice::from_ref(service), &filter);
        let shown = rows.iter().filter(|row| filter.shows(row));
        let shown: Vec<Backend> = shown.map(|row| row.backend.clone()).collect();
        service.backends = shown;
    }
    if options.leaves_out() {
        services.retain(|service| !service.backends.is_empty());
    }
    Ok(())
}

/// All backends of services, in the order of a filter.
pub(super) fn rows<'a>(services: &'a [Service], filter: &Filter<BackendRow<'a>>) -> Vec<BackendRow<'a>> {
    let of_service = |service: &'a Service| {
        let backends = service.backends.iter();
        backends.map(move |backend| BackendRow { service, backend })
    };
    let mut rows: Vec<BackendRow<'a>> = services.iter().flat_map(of_service).collect();
    rows.sort_by(|one, other| filter.compare(one, other));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing;

    fn options(down: bool, selector: &[&str], sort: Option<&str>) -> FilterOptions {
        FilterOptions {
            down,
            selector: selector.iter().map(ToString::to_string).collect(),
            sort: sort.map(ToOwned::to_owned),
        }
    }

    fn services() -> Vec<Service> {
        let backend = |name: &str, address: &str, flows, health| Backend {
            address: address.parse().unwrap(),
            active_flows: flows,
            health,
            ..testing::backend(name)
        };
        let web = vec![
            backend("a", "10.0.0.9:80", 5, Health::Up),
            backend("b", "10.0.0.10:80", 7, Health::Down),
        ];
        let dns = vec![backend("a", "[2001:db8::1]:53", 7, Health::Up)];
        vec![testing::service("web", web), testing::service("dns", dns)]
    }

    fn listed(options: &FilterOptions) -> Vec<String> {
        let mut services = services();
        filter_backends(options, &mut services).unwrap();
        let rows = rows(&services, &options.backends().unwrap());
        let name = |row: &BackendRow<'_>| format!("{}/{}", row.service.name, row.backend.name);
        rows.iter().map(name).collect()
    }

    #[test]
    fn backends_are_selected_and_ordered_by_fields() {
        for (down, selector, sort, expected) in [
            (false, &[][..], None, &["web/a", "web/b", "dns/a"][..]),
            (true, &[], None, &["web/b"]),
            (false, &["service=web,health!=down"], None, &["web/a"]),
            (false, &["service!=web", "admin=enabled"], None, &["dns/a"]),
            (false, &["address=10.0.0.10"], None, &["web/b"]),
            (false, &["address=[2001:DB8::1]:53"], None, &["dns/a"]),
            (false, &["address=2001:db8:0::1"], None, &["dns/a"]),
            (false, &["weight==0"], None, &[]),
            (false, &[], Some("address"), &["web/a", "web/b", "dns/a"]),
            (false, &[], Some("-flows,service"), &["dns/a", "web/b", "web/a"]),
            (false, &[], Some("-backend"), &["web/b", "web/a", "dns/a"]),
        ] {
            assert_eq!(
                listed(&options(down, selector, sort)),
                expected,
                "{down} {selector:?} {sort:?}"
            );
        }
    }

    #[test]
    fn services_are_selected_and_ordered_by_fields() {
        for (down, selector, sort, expected) in [
            (true, &[][..], None, &["web"][..]),
            (false, &["state=degraded"], None, &["web"]),
            (false, &[], Some("name"), &["dns", "web"]),
            (false, &[], Some("-backends"), &["web", "dns"]),
        ] {
            let mut services = services();
            let filter = options(down, selector, sort).services().unwrap();
            filter.apply(&mut services);
            let names: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
            assert_eq!(names, expected, "{down} {selector:?} {sort:?}");
        }
    }

    #[test]
    fn an_unknown_field_is_an_error_that_names_the_choices() {
        for (selector, sort, message) in [
            (
                &["colour=red"][..],
                None,
                "--selector: there is no field \"colour\"",
            ),
            (
                &["down"],
                None,
                "--selector down: expected FIELD=VALUE or FIELD!=VALUE",
            ),
            (&[], Some("-colour"), "--sort: there is no field \"colour\""),
        ] {
            let options = options(false, selector, sort);
            let errors = [
                options.services().err().unwrap(),
                options.backends().err().unwrap(),
            ];
            for error in errors {
                assert_eq!((error.exit, error.message.as_str()), (Exit::Usage, message));
                assert!(error.hint.unwrap().contains("address, "));
            }
        }
    }
}
