//! Times and limits of look-ups.

use std::time::Duration;

/// Shortest time between two look-ups of a name, for any lifetime (TTL) of its records.
pub const ASK_AGAIN_MIN: Duration = Duration::from_secs(1);
/// Longest time between two look-ups of a name, for any lifetime (TTL) of its records.
pub const ASK_AGAIN_MAX: Duration = Duration::from_secs(300);
/// Longest time after a look-up that failed until the next one; the first comes after [`ASK_AGAIN_MIN`].
pub const FAILED_MAX: Duration = Duration::from_secs(30);
/// Time for which changes are gathered before they are put in force.
pub const GATHER: Duration = Duration::from_secs(1);
/// Shortest time between two changes that names make, and so between their revisions.
pub const SPACING: Duration = Duration::from_secs(2);
/// Time after which a change that was refused is tried again.
pub const RETRY: Duration = Duration::from_secs(10);
/// Addresses of one name that are used; others are left out.
pub const MAX_ADDRESSES: usize = 1_000;
/// Look-ups at once; further names wait.
pub const MAX_LOOKUPS: usize = 64;
/// Time for one look-up with all its retries.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(20);
