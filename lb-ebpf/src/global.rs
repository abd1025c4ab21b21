//! Functions that the verifier checks once, on their own ("global" to it), and not again for each state in which they are
//! called. They return numbers, of which neither the verifier nor, therefore, the compiler may know anything.

use core::hint::black_box;

use lb_common::reason::Reason;

/// The code of `Ok`; the code of an error is its reason's number and one.
const OK: u32 = 0;

/// The code of a result, as a global function returns it.
#[inline(always)]
pub(crate) fn encode(result: Result<(), Reason>) -> u32 {
    match result {
        Ok(()) => OK,
        Err(reason) => 1 + reason as u32,
    }
}

/// The result that a global function has returned.
#[inline(always)]
pub(crate) fn decode(number: u32) -> Result<(), Reason> {
    match black_box(number) {
        OK => Ok(()),
        reason => Err(Reason::from_number(reason - 1).unwrap_or(Reason::Internal)),
    }
}

/// Defines a generic function, and for each family a global one that does its work, which is `$body`. The first argument is a part
/// of this CPU's scratch (see [`crate::scratch::Part`]), which it lends: the global function finds the part by itself, and refers to
/// nothing else of the scratch. The other arguments and the result are numbers, or pointers that the module gives which defines
/// the function. Without a scratch the result is 0.
macro_rules! global {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident(&mut $subject:ident $(, $argument:ident: $type:ty)*) -> $result:ty
            = $v4:ident, $v6:ident: $body:ident
    ) => {
        $(#[$meta])*
        #[inline(always)]
        $vis fn $name<A: $crate::family::Family>(
            subject: &mut $subject<A>
            $(, $argument: $type)*
        ) -> $result {
            // The function finds it by itself: kernels before 6.2 take no map's key from a pointer that was handed over. What it
            // finds is derived from this reference, whose provenance is exposed for that. What the compiler has in registers goes
            // to memory first.
            core::hint::black_box(core::ptr::from_mut(subject).expose_provenance());
            // SAFETY: the part is lent until the function returns, and is this CPU's.
            let result = core::hint::black_box(unsafe {
                if A::IS_V6 {
                    $v6($($argument),*)
                } else {
                    $v4($($argument),*)
                }
            });
            core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
            result
        }

        $crate::global::global!(@one $v4, lb_common::addr::NetV4, $subject, ($($argument: $type),*), $result, $body);
        $crate::global::global!(@one $v6, lb_common::addr::NetV6, $subject, ($($argument: $type),*), $result, $body);
    };
    (@one $name:ident, $family:ty, $subject:ident, ($($argument:ident: $type:ty),*), $result:ty, $body:ident) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        unsafe extern "C" fn $name($($argument: $type),*) -> $result {
            match <$family as $crate::scratch::ScratchSpace>::place() {
                Ok(scratch) => {
                    // SAFETY: there is one, and the caller has lent this part of it, and no more.
                    let part = unsafe { &mut *<$subject<$family> as $crate::scratch::Part<$family>>::within(scratch) };
                    $body::<$family>(part $(, $argument)*)
                }
                Err(_) => Default::default(),
            }
        }
    };
}

pub(crate) use global;
