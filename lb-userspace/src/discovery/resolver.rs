//! The resolver of this machine: `/etc/resolv.conf` and `/etc/hosts`, as programs of the C library use them.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use hickory_resolver::{
    TokioResolver,
    net::{DnsError, NetError},
    proto::{
        op::ResponseCode,
        rr::{RData, RecordType},
    },
};
use tokio::{join, task, time};

use crate::{
    chain::chain,
    discovery::{
        limits::LOOKUP_TIMEOUT,
        provider::{Answer, Families, Provider},
    },
    state::hosts::HostName,
};

/// Looks names up by DNS. Both files are read again for each look-up, so that changes of them count at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Provider for SystemResolver {
    async fn look_up(&self, host: &HostName, families: Families) -> Result<Answer, String> {
        // The board remembers answers; a cache would only make them older.
        let resolver = task::spawn_blocking(|| {
            let mut builder = TokioResolver::builder_tokio()?;
            builder.options_mut().cache_size = 0;
            builder.build()
        });
        let resolver = resolver.await.map_err(|error| chain(&error))?;
        let resolver = resolver.map_err(|error| format!("/etc/resolv.conf: {error}"))?;
        let both = async {
            join!(
                records(&resolver, host, RecordType::A, families.v4),
                records(&resolver, host, RecordType::AAAA, families.v6)
            )
        };
        let (v4, v6) = time::timeout(LOOKUP_TIMEOUT, both)
            .await
            .map_err(|_| "no answer in time".to_owned())?;
        let (v4, v6) = (v4?, v6?);
        let addresses: BTreeSet<IpAddr> = [&v4.addresses[..], &v6.addresses[..]]
            .concat()
            .into_iter()
            .collect();
        if addresses.is_empty() {
            return Err(if v4.no_such_name || v6.no_such_name {
                "the name does not exist (NXDOMAIN)".to_owned()
            } else {
                match families {
                    Families { v4: true, v6: true } => "the name has neither A nor AAAA records",
                    Families { v4: true, v6: false } => "the name has no A records",
                    Families { v4: false, v6: _ } => "the name has no AAAA records",
                }
                .to_owned()
            });
        }
        let lifetime = [v4.lifetime, v6.lifetime].into_iter().flatten().min();
        Ok(Answer {
            addresses,
            lifetime: lifetime.unwrap_or_default(),
        })
    }
}

/// The result of one query.
#[derive(Default)]
struct Records {
    addresses: Vec<IpAddr>,
    /// Of the record that ends first.
    lifetime: Option<Duration>,
    no_such_name: bool,
}

async fn records(
    resolver: &TokioResolver,
    host: &HostName,
    kind: RecordType,
    wanted: bool,
) -> Result<Records, String> {
    if !wanted {
        return Ok(Records::default());
    }
    match resolver.lookup(host.as_str(), kind).await {
        Ok(lookup) => {
            let addresses = lookup.answers().iter().filter_map(|record| {
                // Other kinds of records lead to the addresses.
                if let RData::A(address) = &record.data {
                    return Some(IpAddr::V4(address.0));
                }
                if let RData::AAAA(address) = &record.data {
                    return Some(IpAddr::V6(address.0));
                }
                None
            });
            Ok(Records {
                addresses: addresses.collect(),
                lifetime: Some(lookup.valid_until().saturating_duration_since(Instant::now())),
                no_such_name: false,
            })
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(none)))
            if [ResponseCode::NoError, ResponseCode::NXDomain].contains(&none.response_code) =>
        {
            Ok(Records {
                no_such_name: none.response_code == ResponseCode::NXDomain,
                ..Records::default()
            })
        }
        Err(error) => Err(error.to_string()),
    }
}
