"""Makes Python and pytest available inside: a relocatable copy of the running interpreter that every user may read."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess  # nosec: asks the dynamic linker about our own interpreter
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from codeagent.sandboxes.box import Bind
from codeagent.sandboxes.protocol import SandboxUnavailable
from codeagent.sandboxes.rootfs import open_up

INSIDE = "/opt/python"
_FORMAT = 6
_STAMP = ".measure"
VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
_CACHE_TAG = f".{sys.implementation.cache_tag}.pyc"
_LEFT_OUT = frozenset(
    {"test", "tests", "idlelib", "tkinter", "turtledemo", "site-packages", "dist-packages", "lib2to3"}
)
_LEFT_OUT_MODULES = re.compile(r"(_test\w*|_ctypes_test|_xxtestfuzz|_tkinter|xxlimited\w*)\.[\w.-]*so$")
_DISTRIBUTIONS = ("pytest", "pluggy", "iniconfig", "packaging", "pygments")
_OLD_PYTHON_DISTRIBUTIONS = ("exceptiongroup", "tomli")
_SYSTEM = PurePosixPath("/usr")


@dataclass(frozen=True, slots=True)
class Runtime:
    """Python as a sandbox sees it: what to bind, where its programs are, and the variables it needs."""

    binds: tuple[Bind, ...]
    program_directories: tuple[str, ...]
    environment: dict[str, str]


@dataclass(frozen=True, slots=True)
class Interpreter:
    """How Python is started inside, and what has to be shown for that."""

    words: tuple[str, ...]
    binds: tuple[Bind, ...] = ()


def prepare(directory: Path) -> Runtime:
    """The runtime below `directory`, built once for each interpreter and set of packages, removed when outdated.

    Blocking: milliseconds when it is there, seconds when it has to be built. Raises `SandboxUnavailable`.
    """
    is_system = _SYSTEM in PurePosixPath(Path(sys.base_prefix).resolve()).parents or sys.base_prefix == str(_SYSTEM)
    packages = _packages()
    names = [f"{package.name}={package.version}" for package in packages]
    return _describe(built_once(directory, "\n".join(names), partial(_fill, packages, is_system=is_system)))


def built_once(directory: Path, kind: str, fill: Callable[[Path], None]) -> Path:
    """What `fill` makes of an empty directory for the running interpreter, below `directory`, which has no other use.
    As `prepare`."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    target = directory / _digest(kind)
    if not _is_whole(target):
        shutil.rmtree(target, ignore_errors=True)
        _build(target, fill)
    for other in directory.iterdir():
        if other != target:
            shutil.rmtree(other, ignore_errors=True)
    return target


def _is_whole(target: Path) -> bool:
    """A rename may survive a power cut that the files' content does not: they are measured again."""
    try:
        return (target / _STAMP).read_text() == _measure(target)
    except OSError:
        return False


def _measure(root: Path) -> str:
    """How many files there are, and their bytes together."""
    count = size = 0
    pending = [str(root)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif entry.name != _STAMP:
                    count += 1
                    size += entry.stat(follow_symlinks=False).st_size
    return f"{count} files, {size} bytes\n"


def _describe(root: Path) -> Runtime:
    environment = {"PYTHONDONTWRITEBYTECODE": "1"}
    if (root / "shared").is_dir():
        environment["LD_LIBRARY_PATH"] = f"{INSIDE}/shared"
    return Runtime((Bind(root, INSIDE),), (f"{INSIDE}/bin",), environment)


def _packages() -> list[importlib.metadata.Distribution]:
    names = _DISTRIBUTIONS + (_OLD_PYTHON_DISTRIBUTIONS if sys.version_info < (3, 11) else ())
    try:
        return [importlib.metadata.distribution(name) for name in names]
    except importlib.metadata.PackageNotFoundError as error:
        raise SandboxUnavailable([f"the Python package {error.name} is missing: pip install pytest"]) from None


def _digest(kind: str) -> str:
    facts = Path(sys.executable).resolve().stat()
    parts = [str(_FORMAT), sys.version, sys.base_prefix, str(facts.st_mtime_ns), str(facts.st_size), kind]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]


def _build(target: Path, fill: Callable[[Path], None]) -> None:
    building = Path(tempfile.mkdtemp(prefix=".building-", dir=target.parent))
    try:
        fill(building)
        open_up(building)
        (building / _STAMP).write_text(_measure(building))
        building.rename(target)
    except OSError as error:
        if not target.is_dir():
            raise SandboxUnavailable([f"the Python runtime cannot be built: {error}"]) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _fill(packages: list[importlib.metadata.Distribution], building: Path, *, is_system: bool) -> None:
    site = building / "lib" / VERSION / "site-packages"
    if not is_system:
        copy_interpreter(building)
    for package in packages:
        _copy_package(package, site)
    _write_programs(building, is_system=is_system)
    _compile(building, site)


def copy_interpreter(building: Path) -> None:
    """The running interpreter, its standard library, and its shared libraries that do not come from /usr."""
    prefix = Path(sys.base_prefix).resolve()
    executable = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    (building / "bin").mkdir()
    shutil.copyfile(executable, building / "bin" / VERSION)
    (building / "bin" / VERSION).chmod(0o755)
    library = prefix / sys.platlibdir / VERSION
    if not (library / "os.py").is_file():
        library = prefix / "lib" / VERSION
    _copy_tree(library, building / "lib" / VERSION)
    extensions = sorted((building / "lib" / VERSION / "lib-dynload").glob("*.so"))
    for needed in _foreign_libraries([executable, *extensions]):
        (building / "shared").mkdir(exist_ok=True)
        shutil.copyfile(needed, building / "shared" / needed.name)


def _copy_tree(source: Path, target: Path) -> None:
    """Copies the standard library without what no program under test needs. Times are kept: bytecode stays valid."""
    target.mkdir(parents=True)
    for entry in os.scandir(source):
        if entry.is_dir():
            if entry.name not in _LEFT_OUT and not entry.name.startswith("config-"):
                _copy_tree(Path(entry.path), target / entry.name)
        elif entry.name.endswith(".pyc") and not entry.name.endswith(_CACHE_TAG):
            continue
        elif not _LEFT_OUT_MODULES.match(entry.name):
            shutil.copyfile(entry.path, target / entry.name)
            facts = entry.stat()
            os.utime(target / entry.name, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def _foreign_libraries(programs: list[Path]) -> Iterator[Path]:
    """Shared libraries of the interpreter that do not come from /usr, so are not visible inside."""
    linker = shutil.which("ldd") or "/usr/bin/ldd"
    answer = subprocess.run([linker, *map(str, programs)], capture_output=True, text=True, check=False, timeout=60)
    seen = set()
    for found in re.finditer(r"=> (/\S+)", answer.stdout):
        path = Path(found.group(1))
        if not path.as_posix().startswith(("/usr/", "/lib/", "/lib64/")) and path not in seen:
            seen.add(path)
            yield path


def _copy_package(package: importlib.metadata.Distribution, site: Path) -> None:
    for file in package.files or ():
        if ".." in file.parts or file.is_absolute() or "__pycache__" in file.parts:
            continue
        if not Path(str(package.locate_file(file))).is_file():
            continue  # packages of a distribution list files they do not ship
        target = site / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(package.locate_file(file)), target)


def _write_programs(building: Path, *, is_system: bool) -> None:
    programs = building / "bin"
    programs.mkdir(exist_ok=True)
    python = str(Path(sys.base_prefix, "bin", VERSION)) if is_system else VERSION
    for name in ("python", "python3"):
        (programs / name).symlink_to(python)
    if is_system:
        # A virtual environment of the interpreter below /usr, which is visible inside: no variable can hide it.
        home = Path(sys.base_prefix, "bin")
        (building / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\n")
    (programs / "pytest").write_text(
        f"#!{INSIDE}/bin/python3\nimport sys\n\nfrom pytest import console_main\n\nsys.exit(console_main())\n"
    )
    (programs / "pytest").chmod(0o755)


def _compile(building: Path, site: Path) -> None:
    """Bytecode for what came without: nothing can be written inside, so it would be compiled at every start."""
    libraries = [str(site)]
    standard = building / "lib" / VERSION
    if (standard / "os.py").exists() and not any((standard / "__pycache__").glob("*.pyc")):
        libraries.append(str(standard))
    subprocess.run(
        [sys.executable, "-I", "-m", "compileall", "-q", "-j", "0", *libraries],
        capture_output=True,
        check=False,
        timeout=120,
    )
