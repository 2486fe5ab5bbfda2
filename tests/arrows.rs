//! Data goes left to right: no room takes anything from one that lies to its right.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The rooms of `src/`, from left to right: the ground floor; the engine, which knows nothing of what it is used for; what
/// is read, each by itself; the one value that decides an image, and what follows from it; what is made of an image or of a
/// failure; what the caller sees; and the two that nothing is taken from.
const ORDER: &str = "accounts diagnostic reference platform credentials secret harmless http kept archive ustar received stored | \
                     engine registry | deps variant base request | \
                     plan freshness installer lock inputs image oci supply | verify inside attest compose explain doctor sandbox fleet | report publish cli cmd | main lib";

/// The rooms that a file takes from: `crate::NAME`, also in braces, and where `main` names them.
fn taken(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for marker in ["crate::", "ipybox::"] {
        for (at, _) in text.match_indices(marker) {
            let rest = &text[at + marker.len()..];
            let listed = rest.strip_prefix('{').map_or(rest, |list| list.split('}').next().unwrap());
            let parts: Vec<&str> =
                if rest.starts_with('{') { listed.split(',').collect() } else { vec![rest] };
            for part in parts {
                let name: String = part
                    .trim()
                    .chars()
                    .take_while(|next| next.is_ascii_lowercase() || *next == '_')
                    .collect();
                names.push(name);
            }
        }
    }
    names
}

fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_arrow_between_rooms_points_to_the_left() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let places: BTreeMap<_, _> = ORDER
        .split([' ', '|'])
        .filter(|room| !room.is_empty())
        .enumerate()
        .map(|(place, room)| (room, place))
        .collect();
    let mut found = Vec::new();
    files(&source, &mut found);
    let mut wrong = Vec::new();
    for file in found {
        let inside = file.strip_prefix(&source).unwrap();
        let room = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        let place = places.get(room).unwrap_or_else(|| panic!("`{room}` has no place in the order"));
        let text = fs::read_to_string(&file).unwrap();
        // Tests may use what they like.
        let code = text.split("#[cfg(test)]").next().unwrap();
        let code: String = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .map(|line| line.to_owned() + "\n")
            .collect();
        for name in taken(&code) {
            if places.get(name.as_str()).is_some_and(|other| other > place) {
                wrong.push(format!("{}: `{room}` takes from `{name}`", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn one_room_alone_knows_bollard() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    files(&source, &mut found);
    for file in found.iter().filter(|file| !file.starts_with(source.join("engine"))) {
        assert!(!fs::read_to_string(file).unwrap().contains("bollard::"), "{}", file.display());
    }
}
