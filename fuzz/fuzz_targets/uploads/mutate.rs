//! Changes a component so that it mostly stays one: libFuzzer's own mutations hardly ever leave the lengths of sections right.

use libfuzzer_sys::fuzzer_mutate;

use crate::grow::{self, Random};

const HEADER: usize = 8;
const MODULE: u8 = 1;
const COMPONENT: u8 = 4;
/// An instance of the component 0.
const INSTANCE: (u8, &[u8]) = (5, b"\x01\0\0\0");
/// What a mutation may add to the contents of a section.
const MAX_GROWTH: usize = 64;

type Section = (u8, Vec<u8>);

pub(crate) fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u64) -> usize {
    let mut random = Random(seed);
    let mutated = match random.below(16) {
        0 => grow::component(&mut random),
        1 => return fuzzer_mutate(data, size, max_size),
        _ => part(&data[..size], &mut random),
    };
    if mutated.len() > max_size {
        return fuzzer_mutate(data, size, max_size);
    }
    data[..mutated.len()].copy_from_slice(&mutated);
    mutated.len()
}

/// A module or component.
fn part(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let Some(mut sections) = sections(bytes) else { return grow::component(random) };
    let header = &bytes[..HEADER];
    let is_component = header[6] == 1;
    let at = random.below(sections.len());
    let Some((id, contents)) = sections.get_mut(at) else { return grow::component(random) };
    if is_component && matches!(*id, MODULE | COMPONENT) && random.below(4) > 0 {
        *contents = part(contents, random);
        return joined(header, &sections);
    }
    match random.below(10) {
        0 => sections.insert(at, sections[at].clone()),
        1 => drop(sections.remove(at)),
        2 => {
            let other = random.below(sections.len());
            sections.swap(at, other);
        }
        3 => {
            let donor = grow::component(random);
            let mut given = self::sections(&donor).unwrap_or_default();
            if !given.is_empty() {
                sections.insert(at, given.swap_remove(random.below(given.len())));
            }
        }
        4 if is_component => {
            let (id, contents) = INSTANCE;
            return joined(header, &[(COMPONENT, bytes.to_vec()), (id, contents.to_vec())]);
        }
        _ => {
            let size = contents.len();
            contents.resize(size + MAX_GROWTH, 0);
            let mutated = fuzzer_mutate(contents, size, size + MAX_GROWTH);
            contents.truncate(mutated);
        }
    }
    joined(header, &sections)
}

fn sections(bytes: &[u8]) -> Option<Vec<Section>> {
    let mut rest = bytes.strip_prefix(b"\0asm")?.get(4..)?;
    let mut sections = Vec::new();
    while let Some((&id, after)) = rest.split_first() {
        let (length, after) = length(after)?;
        let (contents, after) = after.split_at_checked(length)?;
        sections.push((id, contents.to_vec()));
        rest = after;
    }
    Some(sections)
}

fn joined(header: &[u8], sections: &[Section]) -> Vec<u8> {
    let mut bytes = header.to_vec();
    for (id, contents) in sections {
        bytes.push(*id);
        put_length(&mut bytes, contents.len());
        bytes.extend_from_slice(contents);
    }
    bytes
}

/// A number in LEB128, and what comes after it.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut length = 0;
    for (at, byte) in bytes.iter().enumerate().take(4) {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((length, &bytes[at + 1..]));
        }
    }
    None
}

fn put_length(bytes: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
}
