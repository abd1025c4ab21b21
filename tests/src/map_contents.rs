//! The content of every map that a program uses, to see whether something has changed any of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::c_long,
    fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::{Context, Result, bail, ensure};

use crate::test_run::bpf;

/// Commands of `bpf(2)`.
const LOOKUP_ELEM: c_long = 1;
const GET_NEXT_KEY: c_long = 4;
const PROG_GET_FD_BY_ID: c_long = 13;
const MAP_GET_FD_BY_ID: c_long = 14;
const OBJ_GET_INFO_BY_FD: c_long = 15;
const LOOKUP_BATCH: c_long = 24;

/// Types of maps whose values are programs, or other maps.
const PROG_ARRAY: u32 = 3;
const OF_MAPS: [u32; 2] = [12, 13];
/// Types of maps with a value for each CPU.
const PER_CPU: [u32; 3] = [5, 6, 10];

/// Entries that are read in one call, at most.
const BATCH: u32 = 1 << 16;
/// Programs or maps that a program may use here.
const MOST_MAPS: usize = 256;

/// One map.
#[derive(PartialEq, Eq)]
struct Content {
    name: String,
    key_size: usize,
    value_size: usize,
    /// Keys and values in the order of the map.
    keys: Vec<u8>,
    values: Vec<u8>,
}

/// Maps by their ids.
pub struct MapContents(BTreeMap<u32, Content>);

impl MapContents {
    /// Those of a program, of the programs in its arrays of programs, and the maps within maps.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn of_program(id: u32) -> Result<Self> {
        let (mut programs, mut maps) = (vec![id], Vec::new());
        let (mut seen, mut read) = (BTreeSet::new(), BTreeMap::new());
        while let Some(program) = programs.pop() {
            if seen.insert(program) {
                maps.extend(maps_of(program).with_context(|| format!("program {program}"))?);
            }
            while let Some(id) = maps.pop() {
                if read.contains_key(&id) {
                    continue;
                }
                let (kind, content) = Content::read(id).with_context(|| format!("map {id}"))?;
                if kind == PROG_ARRAY {
                    programs.extend(content.numbers());
                } else if OF_MAPS.contains(&kind) {
                    maps.extend(content.numbers());
                }
                read.insert(id, content);
            }
        }
        Ok(Self(read))
    }

    /// Names of the maps, each once.
    pub fn names(&self) -> BTreeSet<&str> {
        self.0.values().map(|content| content.name.as_str()).collect()
    }

    /// Names of maps whose content is another one in `later`, or that only one of the two has.
    pub fn changed(&self, later: &Self) -> BTreeSet<String> {
        let ids: BTreeSet<&u32> = self.0.keys().chain(later.0.keys()).collect();
        let differs = |id: &&&u32| self.0.get(**id) != later.0.get(**id);
        let name = |id: &u32| Some(self.0.get(id).or_else(|| later.0.get(id))?.name.clone());
        ids.iter().filter(differs).filter_map(|id| name(id)).collect()
    }
}

impl Content {
    /// The map of an id, and its type.
    fn read(id: u32) -> Result<(u32, Self)> {
        let fd = by_id(MAP_GET_FD_BY_ID, id)?;
        // type, id, key_size, value_size, max_entries, map_flags, name (struct bpf_map_info)
        let mut info = [0_u32; 20];
        information(&fd, (&raw mut info).cast(), size_of_val(&info))?;
        let [kind, _, key_size, value_size, most, _, name @ ..] = info;
        let name = name.iter().take(4).flat_map(|word| word.to_ne_bytes());
        let name: Vec<u8> = name.take_while(|byte| *byte != 0).collect();
        let mut value_size = usize::try_from(value_size)?;
        if PER_CPU.contains(&kind) {
            value_size = value_size.next_multiple_of(8) * possible_cpus()?;
        }
        let mut content = Self {
            name: String::from_utf8(name)?,
            key_size: usize::try_from(key_size)?,
            value_size,
            keys: Vec::new(),
            values: Vec::new(),
        };
        if !content.read_batches(&fd, most)? {
            content.read_each(&fd)?;
        }
        Ok((kind, content))
    }

    /// Reads many entries in a call; `false` if the kernel has no such call for this type of map.
    fn read_batches(&mut self, fd: &OwnedFd, most: u32) -> Result<bool> {
        let count = most.clamp(1, BATCH);
        let room = usize::try_from(count)?;
        let (mut keys, mut values) = (
            vec![0_u8; room * self.key_size],
            vec![0_u8; room * self.value_size],
        );
        // Where a hash table goes on is a number of 4 bytes, in other maps it is a key.
        let mut place = vec![0_u8; self.key_size.max(size_of::<u32>())];
        let mut is_first = true;
        loop {
            // in_batch, out_batch, keys, values, count | map_fd, elem_flags, flags
            let mut attr = [0_u64; 16];
            attr[0] = if is_first { 0 } else { place.as_ptr() as u64 };
            attr[1] = place.as_mut_ptr() as u64;
            attr[2] = keys.as_mut_ptr() as u64;
            attr[3] = values.as_mut_ptr() as u64;
            attr[4] = u64::from(count) | (u64::try_from(fd.as_raw_fd())? << u32::BITS);
            let error = bpf(LOOKUP_BATCH, &mut attr)
                .err()
                .and_then(|error| error.raw_os_error());
            const ENOTSUPP: i32 = 524;
            match error {
                None | Some(libc::ENOENT) => {}
                Some(ENOTSUPP | libc::EINVAL | libc::EOPNOTSUPP) if is_first => return Ok(false),
                Some(other) => bail!("{}: {}", self.name, io::Error::from_raw_os_error(other)),
            }
            let got = usize::try_from(attr[4] & u64::from(u32::MAX))?;
            self.keys
                .extend(keys.get(..got * self.key_size).context("more keys than room")?);
            self.values.extend(
                values
                    .get(..got * self.value_size)
                    .context("more values than room")?,
            );
            if error.is_some() {
                return Ok(true);
            }
            is_first = false;
        }
    }

    /// Reads one entry after the other.
    fn read_each(&mut self, fd: &OwnedFd) -> Result<()> {
        let (mut key, mut next) = (vec![0_u8; self.key_size], vec![0_u8; self.key_size]);
        let mut value = vec![0_u8; self.value_size];
        let mut is_first = true;
        loop {
            // map_fd, key, next_key or value
            let mut attr = [0_u64; 16];
            attr[0] = u64::try_from(fd.as_raw_fd())?;
            attr[1] = if is_first { 0 } else { key.as_ptr() as u64 };
            attr[2] = next.as_mut_ptr() as u64;
            match bpf(GET_NEXT_KEY, &mut attr) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                result => result?,
            };
            is_first = false;
            key.copy_from_slice(&next);
            attr[1] = key.as_ptr() as u64;
            attr[2] = value.as_mut_ptr() as u64;
            match bpf(LOOKUP_ELEM, &mut attr) {
                // An empty place of an array.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                result => result?,
            };
            self.keys.extend(&key);
            self.values.extend(&value);
        }
    }

    /// Its values as numbers.
    fn numbers(&self) -> impl Iterator<Item = u32> {
        let words = self.values.chunks_exact(size_of::<u32>());
        words.filter_map(|word| Some(u32::from_ne_bytes(*word.first_chunk()?)))
    }
}

/// The ids of a program's maps.
fn maps_of(program: u32) -> Result<Vec<u32>> {
    let fd = by_id(PROG_GET_FD_BY_ID, program)?;
    let mut ids = vec![0_u32; MOST_MAPS];
    // type, id | tag | lengths of the code | its two places | load_time | uid, nr_map_ids | map_ids (struct bpf_prog_info)
    let mut info = [0_u64; 8];
    info[6] = u64::try_from(MOST_MAPS)? << u32::BITS;
    info[7] = ids.as_mut_ptr() as u64;
    information(&fd, (&raw mut info).cast(), size_of_val(&info))?;
    let count = usize::try_from(info[6] >> u32::BITS)?;
    ensure!(count <= MOST_MAPS, "{count} maps");
    ids.truncate(count);
    Ok(ids)
}

fn by_id(command: c_long, id: u32) -> Result<OwnedFd> {
    let mut attr = [0; 16];
    attr[0] = u64::from(id);
    let fd = i32::try_from(bpf(command, &mut attr)?)?;
    // SAFETY: a descriptor that the kernel has just opened for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Has the kernel write what it knows about an object to `info`.
fn information(fd: &OwnedFd, info: *mut u8, length: usize) -> Result<()> {
    let mut attr = [0; 16];
    attr[0] = u64::try_from(fd.as_raw_fd())? | (u64::try_from(length)? << u32::BITS);
    attr[1] = info as u64;
    bpf(OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(())
}

/// Number of CPUs that a map has values for.
fn possible_cpus() -> Result<usize> {
    let text = fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = text.trim().rsplit(['-', ',']).next().context("no CPU")?;
    Ok(last.parse::<usize>()? + 1)
}
