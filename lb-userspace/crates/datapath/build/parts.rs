//! The parts of an object that the kernel wants, as code that defines them, and the bytes that the code refers to.

use std::{collections::HashSet, error::Error, fmt::Write as _, ops::Range};

use aya_obj::{EbpfSectionKind, Map, Object, btf::BtfFeatures, generated::bpf_insn};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

/// Bytes of an instruction, and how it refers to a map: `BPF_LD | BPF_IMM | BPF_DW` with `BPF_PSEUDO_MAP_FD` or
/// `BPF_PSEUDO_MAP_VALUE`.
const INSTRUCTION: usize = 8;
const LOAD_WORD: u8 = 0x18;
const OF_MAP: [u8; 2] = [1, 2];

/// Where read-only globals stand.
const RODATA: &str = ".rodata";

/// The name of a read-only global, and where it stands in its map's data.
type Global = (String, Range<usize>);

/// The bytes of all parts, and the constant that holds them.
struct Bytes {
    bytes: Vec<u8>,
    constant: &'static str,
}

impl Bytes {
    /// Adds a part, and returns an expression for it.
    fn add(&mut self, part: &[u8]) -> String {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(part);
        format!("part({}, {begin}, {})", self.constant, part.len())
    }
}

/// The parts, with or without source lines: an expression of type `Option<Parts>`, and the bytes, which it finds in `constant`.
pub(super) fn of(
    elf: &[u8],
    constant: &'static str,
    with_lines: bool,
) -> Result<(String, Vec<u8>), Box<dyn Error>> {
    let globals = globals(elf)?;
    let mut object = parse(elf)?;
    let bytes = Vec::new();
    let mut bytes = Bytes { bytes, constant };
    // Linux 6.0 brought the last of them.
    let all = BtfFeatures::new(true, true, true, true, true, true, true, true);
    let types = object.fixup_and_sanitize_btf(&all)?;
    let types = bytes.add(&types.ok_or("it has no type information")?.to_bytes());

    let mut maps: Vec<(String, Map)> = object.maps.drain().collect();
    maps.sort_by(|(one, _), (other, _)| one.cmp(other));
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    // Instructions refer to maps by their place in the list: the loader puts descriptors there.
    let places = (0..)
        .zip(&maps)
        .map(|(place, (name, map))| (name.as_str(), place, map));
    object.relocate_maps(places, &text)?;
    object.relocate_calls(&text)?;

    let mut code = "Some(Parts {\n".to_owned();
    writeln!(code, "license: c{:?},", object.license.to_str()?)?;
    writeln!(code, "types: {types},")?;
    writeln!(code, "globals: &{globals:?},\nmaps: &[")?;
    for (name, map) in &maps {
        write_map(&mut code, &mut bytes, name, map)?;
    }
    writeln!(code, "],\nprograms: &[")?;
    let mut names: Vec<&String> = object.programs.keys().collect();
    names.sort_unstable();
    for name in names {
        let program = object.programs.get(name).ok_or("a program is gone")?;
        let function = object.functions.get(&program.function_key());
        let function = function.ok_or_else(|| format!("the program {name} has no instructions"))?;
        let instructions: Vec<u8> = function.instructions.iter().flat_map(encoded).collect();
        let references = references(&function.instructions)?;
        let instructions = bytes.add(&instructions);
        let functions = bytes.add(&function.func_info.func_info_bytes());
        let (lines, line_count) = if with_lines {
            (function.line_info.line_info_bytes(), function.line_info.len())
        } else {
            (Vec::new(), 0)
        };
        let lines = bytes.add(&lines);
        writeln!(
            code,
            "Program {{ name: {name:?}, instructions: {instructions}, references: &{references:?}, \
             functions: Records {{ bytes: {functions}, size: {}, count: {} }}, \
             lines: Records {{ bytes: {lines}, size: {}, count: {line_count} }} }},",
            function.func_info_rec_size,
            function.func_info.len(),
            function.line_info_rec_size,
        )?;
    }
    code.push_str("],\n})\n");
    Ok((code, bytes.bytes))
}

fn write_map(code: &mut String, bytes: &mut Bytes, name: &str, map: &Map) -> Result<(), Box<dyn Error>> {
    let shape = |map: &Map| {
        format!(
            "MapShape {{ map_type: {}, key_size: {}, value_size: {}, max_entries: {}, flags: {} }}",
            map.map_type(),
            map.key_size(),
            map.value_size(),
            map.max_entries(),
            map.map_flags()
        )
    };
    let inner = map
        .inner()
        .map_or_else(|| "None".to_owned(), |inner| format!("Some({})", shape(&inner)));
    let types = match map {
        Map::Btf(map) => format!(
            "Some([{}, {}])",
            map.def.btf_key_type_id, map.def.btf_value_type_id
        ),
        Map::Legacy(_) => "None".to_owned(),
    };
    writeln!(
        code,
        "Map {{ name: {name:?}, shape: {}, inner: {inner}, types: {types}, data: {}, is_constant: {} }},",
        shape(map),
        bytes.add(map.data()),
        map.section_kind() == EbpfSectionKind::Rodata,
    )?;
    Ok(())
}

/// The object, parsed from aligned bytes, as the parser wants them.
fn parse(elf: &[u8]) -> Result<Object, Box<dyn Error>> {
    let mut aligned = vec![0_u8; elf.len() + align_of::<u64>()];
    let begin = aligned.as_ptr().align_offset(align_of::<u64>());
    let aligned = aligned
        .get_mut(begin..begin + elf.len())
        .ok_or("it is too long")?;
    aligned.copy_from_slice(elf);
    Ok(Object::parse(aligned)?)
}

/// Names of read-only globals, and where each stands in their map's data.
fn globals(elf: &[u8]) -> Result<Vec<Global>, Box<dyn Error>> {
    let file = object::File::parse(elf)?;
    let Some(section) = file.section_by_name(RODATA) else {
        return Ok(Vec::new());
    };
    let symbols = file.symbols().filter(|symbol| {
        symbol.section_index() == Some(section.index()) && symbol.is_global() && symbol.size() != 0
    });
    symbols
        .map(|symbol| {
            let begin = usize::try_from(symbol.address())?;
            Ok((
                symbol.name()?.to_owned(),
                begin..begin + usize::try_from(symbol.size())?,
            ))
        })
        .collect()
}

/// Which instructions refer to maps, and to which, by its place in the list.
fn references(instructions: &[bpf_insn]) -> Result<Vec<(usize, usize)>, Box<dyn Error>> {
    let all = instructions.iter().enumerate();
    let of_maps = all
        .filter(|(_, instruction)| instruction.code == LOAD_WORD && OF_MAP.contains(&instruction.src_reg()));
    of_maps
        .map(|(index, instruction)| Ok((index * INSTRUCTION, usize::try_from(instruction.imm)?)))
        .collect()
}

/// An instruction as the kernel reads it.
fn encoded(instruction: &bpf_insn) -> [u8; INSTRUCTION] {
    let mut bytes = [0; INSTRUCTION];
    bytes[0] = instruction.code;
    bytes[1] = instruction.dst_reg() | instruction.src_reg() << 4;
    bytes[2..4].copy_from_slice(&instruction.off.to_le_bytes());
    bytes[4..].copy_from_slice(&instruction.imm.to_le_bytes());
    bytes
}
