//! The NAT flow tables.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_EXIST, BPF_NOEXIST},
    btf_maps::HashMap,
    macros::btf_map,
};
use lb_common::{
    addr::{NetV4, NetV6},
    flow::{NatFlow, NatFlowV4, NatFlowV6, Tuple, TupleV4, TupleV6},
    limits::MAX_FLOWS,
};

use super::atomic::NO_PREALLOC;

#[btf_map]
static FLOWS_V4: HashMap<TupleV4, NatFlowV4, { MAX_FLOWS as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
static FLOWS_V6: HashMap<TupleV6, NatFlowV6, { MAX_FLOWS as usize }, NO_PREALLOC> = HashMap::new();

/// Why an entry of a flow table was not written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum InsertError {
    /// An entry stands there already.
    Exists,
    /// The table is at its capacity, or the kernel has no memory for another entry.
    Full,
    /// A failure that the kernel does not name for this operation.
    Unexpected,
}

impl InsertError {
    #[inline(always)]
    const fn from_errno(errno: i32) -> Self {
        const E2BIG: i32 = -7;
        const ENOMEM: i32 = -12;
        const EEXIST: i32 = -17;
        match errno {
            EEXIST => Self::Exists,
            E2BIG | ENOMEM => Self::Full,
            _ => Self::Unexpected,
        }
    }
}

/// The flow table of a family: written by this program, swept by the daemon. Implemented by the family's address.
pub(crate) trait FlowTable: Sized {
    /// The entry of a tuple. It stays readable and writable to the end of this run, but its memory may pass to
    /// another tuple once it is removed.
    fn find(tuple: &Tuple<Self>) -> Option<*mut NatFlow<Self>>;

    /// Writes an entry where none stands.
    fn insert(tuple: &Tuple<Self>, flow: &NatFlow<Self>) -> Result<(), InsertError>;

    /// Replaces an entry that stands there, as a whole.
    fn replace(tuple: &Tuple<Self>, flow: &NatFlow<Self>) -> Result<(), InsertError>;

    /// Writes an entry as a whole, whether one stands there or not.
    fn write(tuple: &Tuple<Self>, flow: &NatFlow<Self>) -> Result<(), InsertError>;

    /// Removes an entry, if it stands there.
    fn remove(tuple: &Tuple<Self>);
}

macro_rules! flow_table {
    ($map:ident, $address:ty) => {
        impl FlowTable for $address {
            #[inline(always)]
            fn find(tuple: &Tuple<Self>) -> Option<*mut NatFlow<Self>> {
                $map.get_ptr_mut(tuple)
            }

            #[inline(always)]
            fn insert(tuple: &Tuple<Self>, flow: &NatFlow<Self>) -> Result<(), InsertError> {
                $map.insert(tuple, flow, u64::from(BPF_NOEXIST))
                    .map_err(InsertError::from_errno)
            }

            #[inline(always)]
            fn replace(tuple: &Tuple<Self>, flow: &NatFlow<Self>) -> Result<(), InsertError> {
                $map.insert(tuple, flow, u64::from(BPF_EXIST))
                    .map_err(InsertError::from_errno)
            }

            #[inline(always)]
            fn write(tuple: &Tuple<Self>, flow: &NatFlow<Self>) -> Result<(), InsertError> {
                $map.insert(tuple, flow, u64::from(BPF_ANY))
                    .map_err(InsertError::from_errno)
            }

            #[inline(always)]
            fn remove(tuple: &Tuple<Self>) {
                // The only failure is that it is not there any more.
                let _ = $map.remove(tuple);
            }
        }
    };
}

flow_table!(FLOWS_V4, NetV4);
flow_table!(FLOWS_V6, NetV6);
