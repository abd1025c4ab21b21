use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use lb_common::service::ServiceId;
use proptest::prelude::*;

use super::*;
use crate::state::service::Protocol;

/// The tables as packets see them, which look at them after each write.
struct Fake {
    words: RefCell<Vec<u64>>,
    records: RefCell<Vec<ServiceRecord>>,
    by_key: RefCell<BTreeMap<ServiceKey, Service>>,
    /// Services that packets may find; several during a change.
    allowed: RefCell<BTreeMap<ServiceKey, Vec<Option<Service>>>>,
    /// Records that a packet may still read.
    read: RefCell<BTreeSet<u16>>,
    /// Writes that are still done before one fails.
    left: Cell<usize>,
}

impl Fake {
    fn new(keys: &[ServiceKey]) -> Self {
        Self {
            words: RefCell::new(vec![0; PLACE_WORDS as usize]),
            records: RefCell::new(vec![ServiceRecord::default(); RECORDS as usize]),
            by_key: RefCell::default(),
            allowed: RefCell::new(keys.iter().map(|key| (*key, vec![None])).collect()),
            read: RefCell::default(),
            left: Cell::new(usize::MAX),
        }
    }

    /// The service that a packet finds, as in the program.
    fn find(&self, key: &ServiceKey) -> Option<Service> {
        let of_map = map_key(key);
        let place = of_map.place();
        let holder = place.holder(self.words.borrow()[place.word() as usize]);
        if holder.is_none() {
            return None;
        }
        let records = self.records.borrow();
        let record = records.get(holder.record() as usize);
        let matches = |record: &&ServiceRecord| match &of_map {
            MapKey::V4(key) => record.is_v4(key),
            MapKey::V6(key) => record.is_v6(key),
        };
        match record.filter(matches) {
            Some(record) => Some(record.service),
            None => self.by_key.borrow().get(key).copied(),
        }
    }

    fn check(&self) {
        for (key, allowed) in &*self.allowed.borrow() {
            let found = self.find(key);
            assert!(
                allowed.contains(&found),
                "{key:?}: {found:?} is none of {allowed:?}"
            );
            let word = self.words.borrow()[map_key(key).place().word() as usize];
            let holder = map_key(key).place().holder(word);
            if !holder.is_none() && holder != Holder::SHARED {
                self.read
                    .borrow_mut()
                    .insert(u16::try_from(holder.record()).unwrap());
            }
        }
    }

    fn allow(&self, key: &ServiceKey, allowed: &[Option<Service>]) {
        self.allowed.borrow_mut().insert(*key, allowed.to_vec());
        self.check();
    }

    fn write(&self, write: impl FnOnce()) -> io::Result<()> {
        let Some(left) = self.left.get().checked_sub(1) else {
            self.left.set(usize::MAX);
            return Err(io::Error::other("refused"));
        };
        self.left.set(left);
        write();
        self.check();
        Ok(())
    }

    fn key(key: &MapKey) -> ServiceKey {
        let (address, port, protocol) = match key {
            MapKey::V4(key) => (key.address.to_std().into(), key.port, key.protocol),
            MapKey::V6(key) => (IpAddr::from(key.address.to_std()), key.port, key.protocol),
        };
        let protocol = if protocol == lb_common::service::TCP {
            Protocol::Tcp
        } else {
            Protocol::Udp
        };
        ServiceKey::new(address, port.get(), protocol)
    }
}

impl ServiceTables for Fake {
    fn words(&self) -> io::Result<Vec<u64>> {
        Ok(self.words.borrow().clone())
    }

    fn set_word(&self, index: u32, word: u64) -> io::Result<()> {
        self.write(|| self.words.borrow_mut()[index as usize] = word)
    }

    fn record(&self, number: u16) -> io::Result<ServiceRecord> {
        Ok(self.records.borrow()[usize::from(number)])
    }

    fn set_record(&self, number: u16, record: ServiceRecord) -> io::Result<()> {
        assert!(
            !self.read.borrow().contains(&number),
            "record {number} may be read"
        );
        self.write(|| self.records.borrow_mut()[usize::from(number)] = record)
    }

    fn set_service(&self, key: &MapKey, service: Service) -> io::Result<()> {
        self.write(|| {
            self.by_key.borrow_mut().insert(Self::key(key), service);
        })
    }

    fn delete_service(&self, key: &MapKey) -> io::Result<()> {
        self.write(|| {
            self.by_key.borrow_mut().remove(&Self::key(key));
        })
    }

    fn wait(&self) -> io::Result<()> {
        self.read.borrow_mut().clear();
        // Packets go on to read what places name.
        self.check();
        Ok(())
    }
}

/// Keys of both families, some of which share a place.
fn keys() -> Vec<ServiceKey> {
    let mut places = BTreeMap::<Place, Vec<ServiceKey>>::new();
    for port in (0..4_000).step_by(7) {
        let host = (port % 251) as u8;
        for address in [
            IpAddr::from(Ipv4Addr::new(192, 0, host, 10)),
            Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(host)).into(),
            Ipv4Addr::new(192, 0, 2, host).to_ipv6_mapped().into(),
        ] {
            let key = ServiceKey::new(address, port, Protocol::Tcp);
            places.entry(map_key(&key).place()).or_default().push(key);
        }
    }
    let shared = places.values().filter(|keys| keys.len() > 1).flatten();
    let alone = places.values().filter(|keys| keys.len() == 1).flatten();
    let keys: Vec<_> = shared.take(6).chain(alone.take(6)).copied().collect();
    assert_eq!(keys.len(), 12);
    keys
}

fn service(id: u16) -> Service {
    Service {
        id: ServiceId(id),
        mode: 1,
        ..Service::default()
    }
}

#[derive(Clone, Debug)]
enum Act {
    Write(usize, u16),
    Remove(usize),
    /// The write after this many fails, and all is done again.
    Fails(usize, Box<Act>),
    /// The write after this many fails, and the daemon restarts.
    Dies(usize, Box<Act>),
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    let once = prop_oneof![
        4 => (0..12_usize, any::<u16>()).prop_map(|(key, id)| Act::Write(key, id)),
        2 => (0..12_usize).prop_map(Act::Remove),
    ];
    prop_oneof![
        6 => once.clone(),
        1 => (0..4_usize, once.clone()).prop_map(|(left, act)| Act::Fails(left, Box::new(act))),
        1 => (0..4_usize, once).prop_map(|(left, act)| Act::Dies(left, Box::new(act))),
        1 => Just(Act::Restart),
    ]
}

fn run(places: &mut Places, fake: &Fake, keys: &[ServiceKey], this: &Act) -> io::Result<()> {
    match this {
        Act::Write(key, id) => {
            let key = &keys[*key];
            let before = fake.find(key);
            fake.allow(key, &[before, Some(service(*id))]);
            places.write(fake, key, service(*id))?;
            fake.allow(key, &[Some(service(*id))]);
        }
        Act::Remove(key) => {
            let key = &keys[*key];
            let before = fake.find(key);
            fake.allow(key, &[before, None]);
            places.remove(fake, key)?;
            fake.allow(key, &[None]);
        }
        Act::Fails(left, act) | Act::Dies(left, act) => {
            fake.left.set(*left);
            let _ = run(places, fake, keys, act);
            fake.left.set(usize::MAX);
            if matches!(this, Act::Fails(..)) {
                return run(places, fake, keys, act);
            }
            return run(places, fake, keys, &Act::Restart);
        }
        Act::Restart => {
            let services = fake.by_key.borrow().clone();
            *places = Places::open(fake, &services)?;
            for key in keys {
                fake.allow(key, &[services.get(key).copied()]);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn packets_see_each_service_before_or_after_a_change_and_no_other(
        acts in proptest::collection::vec(act(), 1..40),
    ) {
        let keys = keys();
        let fake = Fake::new(&keys);
        let mut places = Places::open(&fake, &BTreeMap::new()).unwrap();
        for act in &acts {
            run(&mut places, &fake, &keys, act).unwrap();
        }
    }
}

#[test]
fn records_never_run_out_and_are_not_written_while_they_may_be_read() {
    let keys = keys();
    let fake = Fake::new(&keys);
    let mut places = Places::open(&fake, &BTreeMap::new()).unwrap();
    for id in (0..).take(3 * RECORDS as usize) {
        run(&mut places, &fake, &keys, &Act::Write(usize::from(id) % 12, id)).unwrap();
    }
    assert_eq!(places.free.len(), RECORDS as usize - keys.len());
}
