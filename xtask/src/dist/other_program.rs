//! A copy of `lb` with another XDP program inside, for tests of upgrades: a part of its instructions are others that do the same.
//! Building it from changed sources would take minutes.

use std::{collections::HashSet, fs, path::Path};

use anyhow::{Context, Result, ensure};

/// Bytes of an instruction.
const INSTRUCTION: usize = 8;
/// Bytes by which a place in the object is found again in `lb`, which holds instructions as the object does, except where these refer
/// to maps or functions.
const PLACE: usize = 8 * INSTRUCTION;
/// Codes of instructions: `BPF_ALU64 | BPF_MOV | BPF_K`, and the same with `BPF_ALU`, which clears the upper half of the register.
const MOVE: u8 = 0xb7;
const MOVE_LOWER: u8 = 0xb4;
/// Registers that a program may write to.
const WRITABLE: u8 = 10;
/// Fewest instructions to change, so that each of the programs has one.
const FEWEST: usize = 200;

/// Writes a copy of `lb`, which was built with `object`, to `copy`.
///
/// # Errors
/// When a file cannot be read or written, or too few instructions are found.
pub(super) fn write(lb: &Path, object: &Path, copy: &Path) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let (mut bytes, object) = (read(lb)?, read(object)?);
    let changed = change(&mut bytes, &object);
    ensure!(
        changed >= FEWEST,
        "{} has {changed} of the instructions of the XDP program to change: it was built with another one",
        lb.display()
    );
    let dir = copy.parent().context("a file without a directory")?;
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    fs::copy(lb, copy).with_context(|| format!("cannot copy {}", lb.display()))?;
    fs::write(copy, bytes).with_context(|| format!("cannot write {}", copy.display()))
}

/// Changes instructions of `object` where they stand in `bytes`, and gives their number.
fn change(bytes: &mut [u8], object: &[u8]) -> usize {
    let places: HashSet<&[u8]> = code(object)
        .flat_map(|code| {
            (0..code.len())
                .step_by(INSTRUCTION)
                .filter_map(|at| code.get(at..at + PLACE))
        })
        .filter(|place| moves(place))
        .collect();
    let found: Vec<usize> = bytes
        .windows(PLACE)
        .enumerate()
        .filter(|(_, window)| moves(window) && places.contains(window))
        .map(|(at, _)| at)
        .collect();
    for at in &found {
        if let Some(code) = bytes.get_mut(*at) {
            *code = MOVE_LOWER;
        }
    }
    found.len()
}

/// The sections of an object (ELF, 64 bits, little-endian) that have instructions.
fn code(object: &[u8]) -> impl Iterator<Item = &[u8]> {
    const EXECUTABLE: usize = 4;
    let number = |at: usize, bytes: usize| {
        let field = object.get(at..at + bytes)?.iter().rev();
        Some(field.fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    let header = move |index: usize| Some(number(0x28, 8)? + index * number(0x3a, 2)?);
    let count = number(0x3c, 2).unwrap_or(0);
    (0..count).filter_map(move |index| {
        let header = header(index)?;
        let (flags, from, length) = (
            number(header + 8, 8)?,
            number(header + 0x18, 8)?,
            number(header + 0x20, 8)?,
        );
        if flags & EXECUTABLE == 0 {
            return None;
        }
        object.get(from..from + length)
    })
}

/// Whether an instruction begins here that sets a register to a number that is not negative.
fn moves(bytes: &[u8]) -> bool {
    matches!(bytes, [MOVE, register, 0, 0, _, _, _, high, ..] if *register < WRITABLE && *high < 0x80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_of_the_object_alone_are_changed() {
        let instruction = |code: u8, register: u8, value: i32| {
            let mut bytes = vec![code, register, 0, 0];
            bytes.extend(value.to_le_bytes());
            bytes
        };
        let mut code: Vec<u8> = [(MOVE, 1, 5), (MOVE, 2, -5), (0x0f, 1, 0)]
            .into_iter()
            .flat_map(|(code, register, value)| instruction(code, register, value))
            .collect();
        code.extend((0..PLACE).map(|byte| u8::try_from(byte).unwrap() | 0x40));
        // A section without and one with instructions, then their headers.
        let data = [instruction(MOVE, 3, 7), vec![1; PLACE]].concat();
        let mut object = [vec![0; 0x40], data.clone(), code.clone()].concat();
        let at = |at: usize| u64::try_from(at).unwrap().to_le_bytes();
        let headers = object.len();
        object[0x28..0x30].copy_from_slice(&at(headers));
        object[0x3a..0x3e].copy_from_slice(&[0x40, 0, 2, 0]);
        for (flags, from, length) in [(2, 0x40, data.len()), (6, 0x40 + data.len(), code.len())] {
            let fields = [
                [0; 8],
                at(flags),
                [0; 8],
                at(from),
                at(length),
                [0; 8],
                [0; 8],
                [0; 8],
            ];
            object.extend(fields.concat());
        }
        // Of the same kind, but not in the object.
        let other = [instruction(MOVE, 1, 5), vec![0; PLACE]].concat();
        let before = [&[0; 3], other.as_slice(), &data, &code].concat();
        let mut bytes = before.clone();
        assert_eq!(change(&mut bytes, &object), 1);
        let changed: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != before[*at]).collect();
        assert_eq!(changed, [3 + other.len() + data.len()]);
        assert_eq!(bytes[changed[0]], MOVE_LOWER);
    }
}
