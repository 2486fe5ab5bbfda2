import json, platform, re, sys
sys.path[:] = [path for path in sys.path if path]
try:
    from importlib.metadata import distributions
except ImportError:
    distributions = list
found, names, folders = [], set(), []
for distribution in distributions():
    try:
        metadata = distribution.metadata
        name, version = metadata["Name"], distribution.version
        requires, extras = metadata.get_all("Requires-Dist"), metadata.get_all("Provides-Extra")
        installer = (distribution.read_text("INSTALLER") or "").strip()
        folder = str(distribution.locate_file(""))
    except Exception:
        continue
    # The first of a name is the one that is imported.
    normal = re.sub("[-_.]+", "-", name).lower() if isinstance(name, str) else None
    if normal and isinstance(version, str) and normal not in names:
        names.add(normal)
        of_system = installer in ("debian", "rpm", "apk") or (
            not installer and folder.startswith(("/usr/lib/python3", "/usr/lib64/python3"))
        )
        found.append({
            "name": name, "version": version, "requires": requires or [], "extras": extras or [], "of_system": of_system
        })
for path in sys.path:
    if path.rstrip("/").endswith(("site-packages", "dist-packages")):
        folders.append(path)
print("python", json.dumps({
    "path": sys.executable,
    "version": "%d.%d.%d" % sys.version_info[:3],
    "implementation": sys.implementation.name,
    "libc": " ".join(platform.libc_ver()).strip() or None,
    "prefix": sys.prefix,
    "is_virtual": sys.prefix != sys.base_prefix,
    "folders": folders,
    "distributions": found,
}))
