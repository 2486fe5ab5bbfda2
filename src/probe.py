import json, platform, sys
sys.path[:] = [path for path in sys.path if path]
try:
    from importlib.metadata import distributions
except ImportError:
    distributions = list
found, folders = [], []
for distribution in distributions():
    try:
        metadata = distribution.metadata
        name, version = metadata["Name"], distribution.version
        requires, extras = metadata.get_all("Requires-Dist"), metadata.get_all("Provides-Extra")
        folder = str(distribution.locate_file("")).rstrip("/.")
    except Exception:
        continue
    if isinstance(name, str) and isinstance(version, str) and not any(name == one["name"] for one in found):
        of_system = folder == "/usr/lib/python3/dist-packages" or folder.startswith("/usr/lib/python3.")
        found.append({
            "name": name, "version": version, "requires": requires or [], "extras": extras or [], "of_system": of_system
        })
for path in sys.path:
    if path.rstrip("/").endswith(("site-packages", "dist-packages")):
        folders.append(path)
print("python", sys.prefix.replace(" ", "%20"), json.dumps({
    "path": sys.executable,
    "version": "%d.%d.%d" % sys.version_info[:3],
    "implementation": sys.implementation.name,
    "libc": " ".join(platform.libc_ver()).strip() or None,
    "is_virtual": sys.prefix != sys.base_prefix,
    "folders": folders,
    "distributions": found,
}))
