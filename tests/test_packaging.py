"""What is installed is what was written: the checkout's map, or the wheel's contents."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path, PurePosixPath

import pytest

import nthsim

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
# The Makefile tests the wheel from a folder that lacks the sources, so they tell the two apart.
IN_CHECKOUT = (ROOT / "nthsim").is_dir()

in_checkout = pytest.mark.skipif(not IN_CHECKOUT, reason="needs the checkout")
in_wheel = pytest.mark.skipif(IN_CHECKOUT, reason="needs the wheel; run `make test-wheel`")


def package_file(name: str) -> Path:
    assert nthsim.__file__ is not None
    return Path(nthsim.__file__).parent / name


def folders_without_cache(folder: Path) -> set[str]:
    inside = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    return {path.name for path in inside} - {"__pycache__"}


def folder_of(package: str) -> Path:
    """Where a package is written: as pyproject.toml maps it, or inside of another."""
    mapped = SETUPTOOLS["package-dir"].get(package)
    return ROOT / (package.replace(".", "/") if mapped is None else mapped)


@in_checkout
def test_checkout_tests_its_own_package():
    assert package_file("__init__.py").resolve() == ROOT / "nthsim" / "__init__.py"


@in_checkout
@pytest.mark.parametrize("package", SETUPTOOLS["packages"])
def test_every_folder_in_a_listed_package_is_listed(package):
    folder = folder_of(package)
    assert (folder / "__init__.py").is_file()
    # setuptools leaves out, without a word, any folder that pyproject.toml does not list.
    inside = {f"{package}.{name}" for name in folders_without_cache(folder)}
    assert inside <= set(SETUPTOOLS["packages"])


@in_checkout
def test_every_link_in_the_package_is_a_listed_package():
    links = {path.name: path.resolve() for path in (ROOT / "nthsim").iterdir() if path.is_symlink()}
    listed = {
        package.removeprefix("nthsim."): ROOT / folder
        for package, folder in SETUPTOOLS["package-dir"].items()
        if package != "nthsim"
    }
    assert links == listed


@in_checkout
@pytest.mark.parametrize("package", SETUPTOOLS["packages"])
def test_every_data_file_is_listed(package):
    files = [p for p in folder_of(package).iterdir() if p.is_file()]
    data = {path.name for path in files if path.suffix != ".py"}
    assert data == set(SETUPTOOLS["package-data"].get(package, []))


@in_wheel
def test_wheel_holds_the_package_and_nothing_else():
    files = importlib.metadata.files("nthsim")
    assert files is not None
    folders = {str(PurePosixPath(file).parent) for file in files if file.suffix != ".pyc"}
    info = f"nthsim-{importlib.metadata.version('nthsim')}.dist-info"
    packages = {package.replace(".", "/") for package in SETUPTOOLS["packages"]}
    assert {folder for folder in folders if not folder.startswith((info, ".."))} == packages
    # Of what pip puts elsewhere there is one: the command.
    assert [file.stem for file in files if file.parts[0] == ".."] == ["nthsim"]


@in_wheel
def test_wheel_holds_every_listed_data_file():
    listed = {
        f"{package.replace('.', '/')}/{name}"
        for package, names in SETUPTOOLS["package-data"].items()
        for name in names
    }
    files = importlib.metadata.files("nthsim")
    assert files is not None
    inside = {str(PurePosixPath(file)) for file in files if file.parts[0] == "nthsim"}
    assert {name for name in inside if not name.endswith((".py", ".pyc"))} == listed


@in_wheel
def test_wheel_is_what_is_imported():
    [distribution] = importlib.metadata.distributions(name="nthsim")
    located = Path(str(distribution.locate_file("nthsim/__init__.py")))
    assert package_file("__init__.py").resolve() == located.resolve()


def test_every_import_is_a_declared_dependency():
    # Through the links in a checkout, which `rglob` does not follow.
    folders = [package_file(name) for name in ("", "models", "solvers")]
    sources = {path for folder in folders for path in folder.rglob("*.py")}
    imported = set()
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                imported.add(node.module.partition(".")[0])

    owners = importlib.metadata.packages_distributions()
    outside = imported - set(sys.stdlib_module_names) - {"nthsim"}
    needed = {normal(owner) for module in outside for owner in owners.get(module, [module])}

    extras = PROJECT["project"]["optional-dependencies"].values()
    lines = [*PROJECT["project"]["dependencies"], *(line for extra in extras for line in extra)]
    declared = {normal(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in lines}
    assert needed <= declared


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_public_functions_are_not_hidden_by_modules_of_the_same_name():
    stub = ast.parse(package_file("__init__.pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom) and node.module]
    modules = sorted({f"nthsim.{node.module}" for node in imports})
    names = sorted({alias.name for node in imports for alias in node.names})
    # `import nthsim.compare` binds the module to the very name of the public function.
    code = f"""
import importlib, types, nthsim
for module in {modules}:
    importlib.import_module(module)
print([name for name in {names} if isinstance(getattr(nthsim, name), types.ModuleType)])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert names
    assert done.stdout.strip() == "[]"


def test_command_is_callable():
    [command] = importlib.metadata.entry_points(group="console_scripts", name="nthsim")
    assert callable(command.load())
