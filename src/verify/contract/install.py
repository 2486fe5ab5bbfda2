# Installs a package the way code in a cell does, with nothing from a network, and imports it.
import pathlib
import tempfile
import zipfile

wheel = pathlib.Path(tempfile.mkdtemp()) / "ipybox_verify-1-py3-none-any.whl"
with zipfile.ZipFile(wheel, "w") as archive:
    info = "ipybox_verify-1.dist-info"
    archive.writestr("ipybox_verify.py", "value = 42\n")
    archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: ipybox-verify\nVersion: 1\n")
    archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    archive.writestr(f"{info}/RECORD", "")
!pip install --quiet --disable-pip-version-check --no-index --no-deps {wheel}
import ipybox_verify

print(ipybox_verify.value)
