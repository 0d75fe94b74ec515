//! Names for addresses: which function of a program lies where, from the program's own table of symbols.
//!
//! Read when somebody has died or hangs, by who survives: so nothing is kept, every size is bounded, and a file that is
//! not as it should be yields no names and no panic. Inlined functions show as those they were inlined into; lines are
//! for `addr2line -e PROGRAM ADDRESS`, with the address that stands beside each name.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes of a table of symbols that are looked through at most.
const TABLE_SIZE_MAX: u64 = 256 << 20;
/// Bytes of the table that are read at once.
const CHUNK_SIZE: usize = 96 * 1024;
/// Bytes of a name as it stands in the file.
const NAME_SIZE_MAX: usize = 1024;
/// Characters of a name that are told.
const NAME_LENGTH_MAX: usize = 160;
/// Program headers and section headers of a file that are read at most.
const HEADERS_MAX: usize = 1024;

const SYMBOL_SIZE: usize = 24;
const SYMBOL_FUNCTION: u8 = 2;
const SEGMENT_LOADED: u32 = 1;
const SECTION_SYMBOLS: u32 = 2;

/// A place in a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its address as the file counts.
    pub(crate) address: u64,
    /// The function it lies in.
    pub(crate) function: Option<String>,
}

/// The places of these offsets in the file of a program, in the same order. Without a table of symbols, without names.
#[must_use]
pub(crate) fn places(program: &File, offsets: &[u64]) -> Vec<Place> {
    look_up(program, offsets)
        .unwrap_or_else(|| offsets.iter().map(|&offset| Place { address: offset, function: None }).collect())
}

fn look_up(program: &File, offsets: &[u64]) -> Option<Vec<Place>> {
    let mut header = [0; 64];
    program.read_exact_at(&mut header, 0).ok()?;
    // 64 bits, little-endian: all that Beltway is built for.
    if header[..6] != [0x7f, b'E', b'L', b'F', 2, 1] {
        return None;
    }
    let segments = table(program, u64_at(&header, 0x20)?, u16_at(&header, 0x36)?, u16_at(&header, 0x38)?)?;
    let sections = table(program, u64_at(&header, 0x28)?, u16_at(&header, 0x3a)?, u16_at(&header, 0x3c)?)?;
    let mut places: Vec<Place> = offsets
        .iter()
        .map(|&offset| Place { address: address_of(&segments, offset).unwrap_or(offset), function: None })
        .collect();
    let symbols = sections.iter().find(|section| u32_at(section, 4) == Some(SECTION_SYMBOLS))?;
    let strings = sections.get(usize::try_from(u32_at(symbols, 40)?).ok()?)?;
    let (at, size) = (u64_at(symbols, 24)?, u64_at(symbols, 32)?.min(TABLE_SIZE_MAX));
    let mut found = vec![None; places.len()];
    let mut chunk = vec![0; CHUNK_SIZE];
    let mut done = 0;
    while done < size {
        let wanted = usize::try_from(size - done).unwrap_or(CHUNK_SIZE).min(CHUNK_SIZE);
        program.read_exact_at(&mut chunk[..wanted], at.checked_add(done)?).ok()?;
        for symbol in chunk[..wanted].chunks_exact(SYMBOL_SIZE).filter(|symbol| symbol[4] & 0xf == SYMBOL_FUNCTION) {
            let (value, length) = (u64_at(symbol, 8)?, u64_at(symbol, 16)?);
            for (place, name) in places.iter().zip(&mut found) {
                if place.address >= value && place.address - value < length {
                    *name = u32_at(symbol, 0);
                }
            }
        }
        done += wanted as u64;
    }
    let (at, size) = (u64_at(strings, 24)?, u64_at(strings, 32)?);
    for (place, name) in places.iter_mut().zip(found) {
        place.function = name.and_then(|name| name_at(program, at, size, name.into()));
    }
    Some(places)
}

/// The entries of a table of headers.
fn table(program: &File, at: u64, entry: u16, count: u16) -> Option<Vec<Vec<u8>>> {
    let (entry, count) = (usize::from(entry), usize::from(count).min(HEADERS_MAX));
    if entry < 56 {
        return None;
    }
    let mut bytes = vec![0; entry * count];
    program.read_exact_at(&mut bytes, at).ok()?;
    Some(bytes.chunks(entry).map(<[u8]>::to_vec).collect())
}

/// The address that a loaded segment gives to an offset in the file.
fn address_of(segments: &[Vec<u8>], offset: u64) -> Option<u64> {
    segments.iter().filter(|segment| u32_at(segment, 0) == Some(SEGMENT_LOADED)).find_map(|segment| {
        let (begin, address, size) = (u64_at(segment, 8)?, u64_at(segment, 16)?, u64_at(segment, 32)?);
        let within = offset.checked_sub(begin).filter(|within| *within < size)?;
        address.checked_add(within)
    })
}

fn name_at(program: &File, strings: u64, size: u64, name: u64) -> Option<String> {
    let length = usize::try_from(size.checked_sub(name)?).unwrap_or(NAME_SIZE_MAX).min(NAME_SIZE_MAX);
    let mut bytes = vec![0; length];
    program.read_exact_at(&mut bytes, strings.checked_add(name)?).ok()?;
    let text = bytes.split(|byte| *byte == 0).next().map(String::from_utf8_lossy)?;
    let mut plain = format!("{:#}", rustc_demangle::demangle(&text));
    if plain.len() > NAME_LENGTH_MAX {
        plain.truncate(plain.floor_char_boundary(NAME_LENGTH_MAX));
        plain.push('…');
    }
    Some(plain)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Where this very function lies in the file of the program that runs.
    #[inline(never)]
    fn offset_of_a_function() -> u64 {
        let address = offset_of_a_function as *const () as usize as u64;
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
        maps.lines()
            .find_map(|line| {
                let mut fields = line.split_ascii_whitespace();
                let (start, end) = fields.next()?.split_once('-')?;
                let offset = fields.nth(1)?;
                (number(start)..number(end)).contains(&address).then(|| address - number(start) + number(offset))
            })
            .unwrap()
    }

    #[test]
    fn a_function_is_found_by_its_place_in_the_file() {
        let program = File::open("/proc/self/exe").unwrap();
        let offset = offset_of_a_function();
        let places = places(&program, &[offset + 1, u64::MAX, offset]);
        for place in [&places[0], &places[2]] {
            let function = place.function.as_deref().unwrap();
            assert_eq!(function, "supervise::symbols::tests::offset_of_a_function");
        }
        assert_eq!(places[1], Place { address: u64::MAX, function: None });
    }

    fn file(name: &str, content: &[u8]) -> File {
        let path = std::env::temp_dir().join(format!("beltway-symbols-{name}-{}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        let file = File::open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file
    }

    #[test]
    fn what_is_no_program_has_no_names() {
        for content in [&b""[..], b"#!/bin/sh\n", b"\x7fELF\x02\x01", &[0; 200]] {
            assert_eq!(places(&file("none", content), &[7]), [Place { address: 7, function: None }]);
        }
    }

    proptest! {
        #[test]
        fn no_file_however_odd_makes_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 64..2048)) {
            bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
            // Headers that are often within the file.
            bytes[0x20..0x28].copy_from_slice(&64_u64.to_le_bytes());
            bytes[0x28..0x30].copy_from_slice(&128_u64.to_le_bytes());
            for at in [0x37, 0x39, 0x3b, 0x3d] {
                bytes[at] = 0;
            }
            let _ = places(&file("odd", &bytes), &[0, 1, 4096]);
        }
    }
}
