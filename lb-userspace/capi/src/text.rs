//! Texts as C has them: bytes with a zero at their end.

use std::{
    ffi::{CStr, c_char},
    ptr,
};

use crate::code::LbCode;

/// A text of the caller.
///
/// # Errors
/// When it is null or not UTF-8.
///
/// # Safety
/// `text` is null, or a text with its end that stays as it is for as long as the result is used.
pub(crate) unsafe fn read<'a>(text: *const c_char) -> Result<&'a str, LbCode> {
    if text.is_null() {
        return Err(LbCode::NullPointer);
    }
    // SAFETY: not null, and the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| LbCode::NotUtf8)
}

/// Writes as much of `text` as fits, up to a zero in it, and a terminating zero. Writes nothing if `room` is null or
/// has no byte.
///
/// # Safety
/// `room` is null or can take `size` bytes.
pub(crate) unsafe fn write(text: &str, room: *mut c_char, size: usize) {
    let Some(most) = size.checked_sub(1) else {
        return;
    };
    if room.is_null() {
        return;
    }
    let end = text.find('\0').unwrap_or(text.len());
    // Cut between characters, so that the result is UTF-8.
    let length = text.floor_char_boundary(most.min(end));
    // SAFETY: at most `size - 1` bytes of text and one for the end, into room that is not ours and so does not overlap.
    unsafe {
        ptr::copy_nonoverlapping(text.as_ptr().cast(), room, length);
        room.add(length).write(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_ends() {
        // Text, buffer size, the text that a reader finds.
        let cases = [
            ("abc", 8, "abc"),
            ("abc", 4, "abc"),
            ("abc", 3, "ab"),
            ("abc", 1, ""),
            ("aé", 3, "a"),
            ("a\0b", 8, "a"),
            ("", 1, ""),
        ];
        for (text, size, expected) in cases {
            let mut room = [0x7f_u8; 16];
            // SAFETY: `size` is within the array.
            unsafe { write(text, room.as_mut_ptr().cast(), size) };
            let found = CStr::from_bytes_until_nul(&room).unwrap();
            assert_eq!(found.to_str().unwrap(), expected, "{text:?} in {size}");
            assert!(
                room[size..].iter().all(|byte| *byte == 0x7f),
                "{text:?} in {size}"
            );
        }
        // SAFETY: null and no room are allowed.
        unsafe {
            write("abc", ptr::null_mut(), 8);
            write("abc", [0x7f_u8].as_mut_ptr().cast(), 0);
        }
    }
}
