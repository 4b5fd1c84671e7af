"""What is built holds all that is in the tree and runs away from it; what stands in two places is the same in both."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from email import message_from_bytes
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import llmrepair

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["setuptools"]["package-dir"]
BESIDE = (".ci", "benchmarks", "docs", "examples", "tests")
BUILD = "from setuptools import build_meta; build_meta.build_{}('.')"


def files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def build(what: str, folder: Path) -> None:
    """Without network; what setuptools warns of is an error."""
    command = [sys.executable, "-W", "error::UserWarning", "-c", BUILD.format(what)]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout without what was built or computed in it."""
    copy = tmp_path_factory.mktemp("tree")
    for path in ROOT.iterdir():
        if path.name in {*PACKAGES.values(), *BESIDE}:
            shutil.copytree(path, copy / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif path.is_file():
            shutil.copy(path, copy)
    return copy


@pytest.fixture(scope="module")
def sdist(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked."""
    build("sdist", tree)
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(next(tree.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.iterdir())


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    build("wheel", sdist)
    return next(sdist.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """The command line as the wheel installs it, in another folder; what it prints."""
    site, elsewhere = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("elsewhere")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True)

    def command(*arguments: str) -> str:
        line = [sys.executable, str(site / "bin" / "llmrepair"), *arguments]
        environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
        return subprocess.run(line, cwd=elsewhere, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout

    return command


def test_the_source_distribution_holds_the_tree(tree: Path, sdist: Path) -> None:
    below = {
        Path(path.name) / file for path in tree.iterdir() if path.name in {*PACKAGES.values(), *BESIDE} for file in files(path)
    }
    assert below | {Path("Makefile"), Path("constraints.txt")} <= files(sdist)


def test_the_wheel_holds_every_file_of_the_packages_and_no_other(tree: Path, wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == {
        f"{package.replace('.', '/')}/{file.as_posix()}"
        for package, folder in PACKAGES.items()
        for file in files(tree / folder)
    }
    assert "llmrepair/py.typed" in names


def test_a_plain_install_is_without_ray_and_gptqmodel(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
    requirements = [Requirement(line) for line in message_from_bytes(archive.read(name)).get_all("Requires-Dist")]
    plain = {each.name for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})}
    assert "torch" in plain
    assert not {"ray", "gptqmodel", "optimum", "pytest", "ruff"} & plain


def test_the_wheel_runs_outside_of_the_checkout(installed: Callable[..., str], tmp_path: Path) -> None:
    assert installed("--version") == f"{llmrepair.__version__}\n"
    installed("compress", "--method", "none", "--runs", str(tmp_path))
    (record,) = tmp_path.glob("compress/*/record.json")
    assert '"git": null' in record.read_text()


@pytest.mark.stress
def test_the_wheel_runs_the_demo_outside_of_the_checkout(installed: Callable[..., str], tmp_path: Path) -> None:
    printed = installed("demo", "--runs", str(tmp_path / "runs"), "--html", str(tmp_path / "report.html"))
    assert "IDP" in printed
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_there_is_one_version() -> None:
    (newest, *_) = re.findall(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert llmrepair.__version__ == version("llmrepair") == newest == cited


def test_uv_is_held_at_the_versions_that_pip_is() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    uv = PROJECT["tool"]["uv"]
    assert uv["constraint-dependencies"] == pins
    assert {f"{folder}/**/*" for folder in PACKAGES.values()} <= {key["file"] for key in uv["cache-keys"]}


def test_make_alone_names_every_target() -> None:
    printed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    phony = re.findall(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert re.findall(r"^make (\w+) ", printed, re.MULTILINE) == " ".join(phony).split()
