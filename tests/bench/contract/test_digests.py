"""A digest differs where something that runs does, and names the file."""

import subprocess
import sys
from pathlib import Path

import pytest

from metaopt.bench.contract.digests import (
    digest_file,
    digest_folder,
    digest_imports,
    digest_modules,
)
from metaopt.bench.records.identity import differences, digest_of, listed, parse_identity

CODE = '''"""What it does."""
import math

RATE = 0.1


class Rule:
    """A rule."""

    kind = "plain"


def step(x, *, rate=RATE):
    """Take a step."""
    return x - rate * math.cos(x) if x else None
'''


def written(folder: Path, text: str) -> str:
    path = folder / "module.py"
    path.write_text(text)
    return digest_file(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("RATE = 0.1", "RATE = 0.1  # found by hand"),
        ("What it does.", "Another word for it."),
        ('    """Take a step."""\n', ""),
        ('    """A rule."""\n\n', ""),
        ("return x - rate * math.cos(x) if x else None",
         "return (\n        (x - rate * math.cos(x)) if x\n        else None)"),
    ],
    ids=["comment", "docstring", "no docstring", "no docstring of a class", "layout"],
)  # fmt: skip
def test_words_and_layout_change_no_digest(tmp_path, old, new):
    assert old in CODE

    assert written(tmp_path, CODE.replace(old, new)) == written(tmp_path, CODE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.1", "0.2"),
        ("0.1", '"0.1"'),
        ("else None", "else 0"),
        ("cos", "sin"),
        ("*, rate", "rate"),
        ('"plain"', '"other"'),
        ("import math", "import cmath as math"),
        ("x - rate", "x + rate"),
        ("class Rule:", "class Rule(dict):"),
    ],
)
def test_what_runs_otherwise_has_another_digest(tmp_path, old, new):
    assert old in CODE

    assert written(tmp_path, CODE.replace(old, new, 1)) != written(tmp_path, CODE)


def test_a_file_that_is_no_python_counts_by_its_bytes(tmp_path):
    assert written(tmp_path, "print 1") != written(tmp_path, "print 1  # a comment")


def test_every_kind_of_file_counts_and_caches_do_not(tmp_path):
    folder, elsewhere = tmp_path / "mine", tmp_path / "elsewhere"
    counted = ["submission.py", "weights.npy", "spaces/paper.json", "data/deep/er.bin", ".hidden"]
    left_out = ["__pycache__/submission.cpython-311.pyc", ".git/HEAD", ".submission.py.swp", "a~"]
    for name in [*counted, *left_out]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    elsewhere.mkdir()
    (elsewhere / "table.csv").write_text("1,2")
    (folder / "linked").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder)  # which must end

    found = digest_folder(folder)

    assert sorted(name for name in found if not name.startswith("linked/back")) == sorted(
        [*counted, "linked/table.csv"]
    )
    for name in found:
        (folder / name).write_bytes(b"other")
        assert differences({"": found}, {"": digest_folder(folder)}) == [name]
        found = digest_folder(folder)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of somebody's own: what a package hands on, imports inside functions, relatives."""
    files = {
        "helpers_of_a_test/__init__.py": "from .used import use\nfrom .other import other",
        "helpers_of_a_test/used.py": "def use():\n    from . import deep\n",
        "helpers_of_a_test/deep.py": "import numpy, json\nfrom metaopt.xla.precision import narrow",
        "helpers_of_a_test/other.py": "other = 1",
        "single_of_a_test.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_imports_are_followed_to_where_they_lead_and_no_further(package):
    file = package / "submission.py"
    file.write_text("import optax\nfrom . import beside\nfrom helpers_of_a_test import use\n")

    found = digest_imports([file])

    assert list(found) == [
        "helpers_of_a_test/__init__.py",
        "helpers_of_a_test/deep.py",
        "helpers_of_a_test/used.py",
        "metaopt/xla/precision.py",
    ]
    file.write_text("import helpers_of_a_test, single_of_a_test")
    assert {"helpers_of_a_test/other.py", "single_of_a_test.py"} <= set(digest_imports([file]))


def test_an_import_of_nothing_and_a_module_that_is_not_there_are_left_out(package):
    file = package / "submission.py"
    file.write_text("import not_there.at_all\nfrom metaopt.not_there import x\nimport os.path")

    assert digest_imports([file]) == {}


def test_a_submission_has_the_modules_of_ours_that_it_uses_and_not_the_others(root):
    def modules(name):
        return set(digest_imports((root / "submissions" / name).glob("*.py")))

    assert "metaopt/recipes.py" in modules("self_tuning/metaopt_averages")
    assert "metaopt/hypergradient.py" not in modules("self_tuning/metaopt_averages")
    more = modules("external_tuning/hgd") - modules("external_tuning/adamw")
    assert {"metaopt/__init__.py", "metaopt/hypergradient.py", "metaopt/xla/precision.py"} <= more
    assert not more & {"metaopt/recipes.py", "metaopt/optimizer.py", "metaopt/guards.py"}
    # through a lazy name, and then through relative imports
    learned = {"metaopt/online.py", "metaopt/controllers/base.py", "metaopt/xla/rings.py"}
    assert learned <= modules("self_tuning/metaopt")


def test_what_a_submission_loads_is_found_without_loading_it(root):
    """Python's own import is the independent implementation."""
    code = (
        "import sys; from pathlib import Path; from metaopt.bench.contract import loading\n"
        "before = set(sys.modules); loading.import_submission(Path(sys.argv[1]))\n"
        "print(*(m for m in set(sys.modules) - before if m.startswith('metaopt.')\n"
        "        and not hasattr(sys.modules[m], '__path__')))"
    )
    folder = root / "submissions" / "self_tuning" / "metaopt_averages"
    loaded = subprocess.run(
        [sys.executable, "-c", code, folder], cwd=root, capture_output=True, text=True, check=True
    ).stdout.split()

    found = digest_imports(folder.glob("*.py"))

    assert len(loaded) > 5
    assert {f"{name.replace('.', '/')}.py" for name in loaded} <= set(found)


def test_a_workloads_modules_are_those_of_its_data_model_and_loss():
    found = digest_modules(["metaopt.workloads.digits_transformer"])

    assert {
        f"metaopt/workloads/{name}.py"
        for name in ("digits_transformer", "models/transformer", "supervised", "losses")
    } <= set(found)
    assert "metaopt/workloads/mnist.py" not in found


def test_an_identity_is_read_back_and_one_digest_stands_for_it():
    identity = {"data": {"a": "1"}, "modules": {}}

    assert parse_identity('{"modules": {}, "data": {"a": "1"}}') == identity
    assert digest_of({"modules": {}, "data": {"a": "1"}}) == digest_of(identity)
    assert digest_of({"data": {"a": "2"}, "modules": {}}) != digest_of(identity)
    assert digest_of(identity, ["modules"]) == digest_of({"modules": {}, "data": {}}, ["modules"])
    with pytest.raises(ValueError, match="data: Input should be"):
        parse_identity('{"data": 1}')
    assert listed(["a", "b"]) == "a, b"
