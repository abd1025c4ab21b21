//! What the configuration can say but this version cannot do yet, in one table.

/// Keys and those of their values that are understood and refused.
pub const NOT_YET: &[(&str, &str)] = &[("through", "vip")];

/// Whether this version refuses a value.
pub fn not_yet(key: &str, value: &str) -> bool {
    NOT_YET.contains(&(key, value))
}

/// Of the words a key can have, those that work in this version, for hints: `nat` or `tcp, udp`.
pub fn choices<'a>(key: &str, words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<_> = words.into_iter().filter(|word| !not_yet(key, word)).collect();
    words.join(", ")
}
