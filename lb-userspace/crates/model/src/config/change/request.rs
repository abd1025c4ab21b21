//! The keys of a request, from JSON or from options of the command line.

use std::{collections::BTreeSet, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, SeqAccess, Unexpected, Visitor},
};
use toml::{Table, Value};

/// Keys of a table of the configuration file with their values, as a request has them. JSON's `null` is an absent key.
#[derive(Clone, PartialEq, Default)]
pub struct Request(pub(super) Table);

impl Request {
    /// A request that has one key.
    pub fn one(key: &str, value: impl Into<Value>) -> Self {
        let mut request = Self::default();
        request.insert(key, value);
        request
    }

    /// Sets a key.
    pub fn insert(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), value.into());
    }

    /// Sets a key of a table of the request's.
    pub fn insert_below(&mut self, table: &str, key: &str, value: impl Into<Value>) {
        let below = self.0.entry(table).or_insert_with(|| Table::new().into());
        if let Value::Table(below) = below {
            below.insert(key.to_owned(), value.into());
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key)
    }

    /// Its keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether it has no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Table> for Request {
    fn from(table: Table) -> Self {
        Self(table)
    }
}

/// Shows no values: some are secret.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Serialize for Request {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Request {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Part::deserialize(deserializer)?.0 {
            Some(Value::Table(table)) => Ok(Self(table)),
            Some(other) => Err(D::Error::custom(format!(
                "expected an object, found {}",
                other.type_str()
            ))),
            None => Err(D::Error::custom("expected an object, found null")),
        }
    }
}

/// A value; `None`: null.
struct Part(Option<Value>);

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PartVisitor)
    }
}

struct PartVisitor;

impl<'de> Visitor<'de> for PartVisitor {
    type Value = Part;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Part, E> {
        Ok(Part(None))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Part, E> {
        Ok(Part(Some(value.into())))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Part, E> {
        Ok(Part(Some(value.into())))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Part, E> {
        let number = i64::try_from(value);
        let number =
            number.map_err(|_| E::invalid_value(Unexpected::Unsigned(value), &"a smaller number"))?;
        self.visit_i64(number)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Part, E> {
        Ok(Part(Some(value.into())))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Part, E> {
        Ok(Part(Some(value.into())))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Part, E> {
        Ok(Part(Some(value.into())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Part, A::Error> {
        let mut items = Vec::new();
        while let Some(Part(item)) = list.next_element()? {
            items.push(item.ok_or_else(|| A::Error::custom("a list has no null"))?);
        }
        Ok(Part(Some(items.into())))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Part, A::Error> {
        let mut table = Table::new();
        let mut null = BTreeSet::new();
        while let Some((key, Part(value))) = map.next_entry::<String, Part>()? {
            if table.contains_key(&key) || null.contains(&key) {
                return Err(A::Error::custom(format!("{key} is there twice")));
            }
            match value {
                Some(value) => _ = table.insert(key, value),
                None => _ = null.insert(key),
            }
        }
        Ok(Part(Some(table.into())))
    }
}
