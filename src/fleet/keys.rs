//! The keys of `ipybox.toml`, each with what it takes: the reader refuses others, and the schema is made of them.

use serde_json::{Map, Value, json};

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Texts,
    /// One text, or several.
    TextOrTexts,
    Number,
    Flag,
    /// Texts by names.
    Settings,
    /// Tables with `from` and `to`.
    Copies,
    /// A table of the keys of [`MATRIX`].
    Matrix,
}

/// A key, what it takes, and what it means.
pub(super) type Key = (&'static str, Kind, &'static str);

/// Keys of `[fleet]`.
pub(super) const FLEET: [Key; 7] = [
    ("version", Kind::Text, "What `{version}` stands for; without it, the tag of this commit in git."),
    (
        "repository",
        Kind::Text,
        "Where images are published: NAME goes to REPOSITORY/NAME, such as `ghcr.io/team/NAME`.",
    ),
    ("tags", Kind::Texts, "Tags of images that have none of their own [default: `latest`]."),
    (
        "platforms",
        Kind::Texts,
        "What images run on that have no platforms of their own, such as `linux/arm64`.",
    ),
    ("labels", Kind::Settings, "Labels of all images."),
    ("variants", Kind::Text, "A folder of variants in place of those that are shipped."),
    ("templates", Kind::Text, "A folder of templates in place of those that are shipped."),
];

/// Keys of `[image.NAME]`.
pub(super) const IMAGE: [Key; 27] = [
    ("variant", Kind::Text, "Kind of image [default: `minimal`; `extend-base` beside `from`]."),
    ("base", Kind::Text, "Image to build on."),
    ("from", Kind::Text, "Image of this fleet to build on."),
    ("dependencies", Kind::TextOrTexts, "Dependency lists [default: the variant's own]."),
    ("groups", Kind::Texts, "Dependency groups of a pyproject.toml."),
    ("extras", Kind::Texts, "Optional dependencies of a pyproject.toml."),
    ("lock", Kind::Text, "Lock, where it is not beside the list."),
    ("python", Kind::Text, "Version of Python, such as `3.13`."),
    ("base-python", Kind::Text, "Interpreter of the base, by its path."),
    ("python-archive", Kind::Text, "Python for a base that has none: a tar archive."),
    ("name", Kind::Text, "What an executor server calls itself."),
    ("uid", Kind::Number, "User id of the image's user [default: 1000]."),
    ("gid", Kind::Number, "Group id of the image's user [default: 1000]."),
    ("root", Kind::Flag, "Whether it runs as root."),
    ("apt", Kind::Texts, "Debian packages; `auto` adds those that packages turn out to need."),
    ("build-apt", Kind::Texts, "Debian packages that builds from source need, and the image does not get."),
    ("from-source", Kind::TextOrTexts, "What may be built from its source: `auto`, `never`, or names."),
    ("tools", Kind::Text, "Programs to install for somebody: `agent`."),
    ("env", Kind::Settings, "Variables of its environment; no secrets."),
    ("args", Kind::Settings, "Variables for the steps of its variant."),
    ("secrets", Kind::Texts, "Secrets of `--secret` that steps of its variant read, by their ids."),
    ("labels", Kind::Settings, "Labels, beside those of the fleet."),
    ("copy", Kind::Copies, "Files and folders to copy into it."),
    ("bytecode", Kind::Flag, "Whether modules are compiled when they are installed [default: true]."),
    (
        "platforms",
        Kind::Texts,
        "What it runs on [default: those of the fleet, else what the engine chooses].",
    ),
    ("tags", Kind::Texts, "Its tags [default: those of the fleet]."),
    ("repository", Kind::Text, "Where it is published, in place of the fleet's repository and its name."),
];

/// The key of `[image.NAME]` that makes several images of one, and its own keys.
pub(super) const MATRIX_KEY: Key =
    ("matrix", Kind::Matrix, "An image for each Python, each base, or each pair of them.");

/// Keys of `matrix`.
pub(super) const MATRIX: [Key; 2] = [
    ("python", Kind::Texts, "Versions of Python."),
    ("base", Kind::Settings, "Images to build on, by the names that `{base}` stands for."),
];

/// The JSON schema of `ipybox.toml`.
pub(super) fn schema() -> Value {
    let image: Vec<Key> = IMAGE.into_iter().chain([MATRIX_KEY]).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ipybox.toml",
        "description": "A fleet: images that are built, tagged and published together by `ipybox`.",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "fleet": table("What all images have in common.", &FLEET),
            "image": {
                "description": "The images, by their names.",
                "type": "object",
                "minProperties": 1,
                "additionalProperties": table("One image.", &image),
            },
        },
        "required": ["image"],
    })
}

fn table(about: &str, keys: &[Key]) -> Value {
    let property = |(name, kind, about): &Key| {
        let mut schema = of_kind(*kind);
        schema["description"] = (*about).into();
        ((*name).to_owned(), schema)
    };
    let properties: Map<String, Value> = keys.iter().map(property).collect();
    json!({ "description": about, "type": "object", "additionalProperties": false, "properties": properties })
}

fn of_kind(kind: Kind) -> Value {
    let texts = || json!({ "type": "array", "items": { "type": "string" } });
    match kind {
        Kind::Text => json!({ "type": "string" }),
        Kind::Texts => texts(),
        Kind::TextOrTexts => json!({ "anyOf": [{ "type": "string" }, texts()] }),
        Kind::Number => json!({ "type": "integer", "minimum": 0 }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Settings => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Kind::Copies => json!({
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "from": { "description": "A file or folder.", "type": "string" },
                    "to": { "description": "An absolute path in the image.", "type": "string" },
                },
                "required": ["from", "to"],
            },
        }),
        Kind::Matrix => table("", &MATRIX),
    }
}
