//! The map of the house in `src/lib.rs`, held against the code.
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which rooms each room may use, besides itself; `main.rs` uses the library's name, not `crate::`.
const MAP: [(&str, &[&str]); 8] = [
    ("cli", &["agent", "engine", "image", "runtime", "error", "sys"]),
    ("agent", &["engine", "image", "error", "sys"]),
    ("engine", &["image", "network", "runtime", "error", "sys"]),
    ("network", &["error", "sys"]),
    ("image", &["error", "sys"]),
    ("runtime", &["error", "sys"]),
    ("error", &["sys"]),
    ("sys", &[]),
];

const MAIN_LINES: usize = 40;

#[test]
fn every_room_uses_only_what_the_map_allows() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let room = room_of(&path);
        if room == "lib" || room == "main" {
            continue;
        }
        let Some((_, allowed)) = MAP.iter().find(|(name, _)| *name == room) else {
            wrong.push(format!("{}: the map has no room {room}", path.display()));
            continue;
        };
        for used in rooms_used(&text) {
            if used != room && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{}: {room} must not use {used}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_and_libc_stay_in_sys() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        if room_of(&path) == "sys" {
            continue;
        }
        for (number, line) in code_lines(&text) {
            let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            // A number that is only read (`as_raw_fd`, for a name under /proc) is no descriptor that is owned twice.
            let raw = ["RawFd", "FromRawFd", "IntoRawFd", "from_raw_fd", "into_raw_fd"];
            let found =
                words.iter().find(|word| **word == "unsafe" || **word == "libc" || raw.contains(word));
            if let Some(word) = found {
                wrong.push(format!("{}:{number}: {word} outside of src/sys", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn main_only_chooses_a_face() {
    let text = fs::read_to_string(root().join("main.rs")).expect("src/main.rs");
    let lines = text.lines().count();
    assert!(lines <= MAIN_LINES, "src/main.rs has {lines} lines, at most {MAIN_LINES} are for it");
}

#[test]
fn the_reader_of_paths_sees_every_form() {
    let text = "use crate::sys::SysError;\nuse crate::{error::Kind, image::{a, b}};\n\
                // use crate::cli::x;\nlet x = crate::runtime::y();\npub(crate) use crate::{\n    engine,\n};\n";
    let expected = ["engine", "error", "image", "runtime", "sys"].map(String::from);
    assert_eq!(rooms_used(text), BTreeSet::from(expected));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![root()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("a source directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                found.push((path, text));
            }
        }
    }
    assert!(found.len() > 20, "the sources were not found");
    found
}

/// The first directory below `src`, or the name of a file that lies there.
fn room_of(path: &Path) -> String {
    let below = path.strip_prefix(root()).expect("a path below src");
    let first = below.components().next().expect("a component");
    let name = first.as_os_str().to_string_lossy();
    name.trim_end_matches(".rs").to_string()
}

/// Lines without comments, with their numbers. Strings are left in: none of ours needs the words in question.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(number, line)| (number + 1, line.split("//").next().unwrap_or_default()))
}

/// Every `X` of `crate::X` and `crate::{X, …}`.
fn rooms_used(text: &str) -> BTreeSet<String> {
    let code: Vec<&str> = code_lines(text).map(|(_, line)| line).collect();
    let code = code.join("\n");
    let mut used = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        // `pub(in crate::x)` and `$crate::x` count as well; `mycrate::x` does not.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => used.extend(top_level_names(list)),
            None => used.extend(leading_name(rest)),
        }
    }
    used
}

fn leading_name(text: &str) -> Option<String> {
    let name: String = text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// The first names in `a::b, c::{d, e}, f}`.
fn top_level_names(list: &str) -> Vec<String> {
    let mut names: Vec<String> = leading_name(list).into_iter().collect();
    let mut depth = 0_i32;
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.extend(leading_name(&list[at + 1..])),
            _ => {}
        }
    }
    names
}
