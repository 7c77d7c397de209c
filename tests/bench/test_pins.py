"""What a source needs of optax beyond AlgoPerf's pin."""

import json
from importlib import metadata, resources

import optax
import pytest

from metaopt.bench.pins import list_names, optax_needs, required_optax

OURS = {  # as their docstrings and optax's change log have it
    "external_tuning/adamw": set(),
    "external_tuning/schedule_free_adamw": {"0.2.3", "0.2.4"},
    "external_tuning/muon": {"0.2.5", "0.2.6", "0.2.7"},
    "self_tuning/dog": {"0.2.3"},
}


@pytest.mark.parametrize(("folder", "versions"), OURS.items(), ids=OURS)
def test_what_our_submissions_need_is_what_they_say(root, folder, versions):
    source = (root / "submissions" / folder / "submission.py").read_text("utf-8")

    needs = optax_needs(source)

    assert {need.since for need in needs} == versions
    for need in needs:
        assert need.name.split("(")[0].split(".")[-1] in source.splitlines()[need.line - 1]
    if versions:
        assert f"Needs optax {max(versions)}." in source
        assert required_optax(needs) == f"optax>={max(versions)}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import optax as o\no.contrib.dog()", [("optax.contrib.dog", "0.2.3")]),
        ("from optax import contrib as c\nc.muon()", [("optax.contrib.muon", "0.2.5")]),
        ("from optax.contrib import muon", [("optax.contrib.muon", "0.2.5")]),
        ("import optax.contrib as c\nc.dog", [("optax.contrib.dog", "0.2.3")]),
        ("import optax\noptax.tree.norm(x)", [("optax.tree.norm", "0.2.5")]),
        ("import optax\noptax.radam(1.0, nesterov=True)", [("optax.radam(nesterov)", "0.2.3")]),
        ("import optax\noptax.from_the_future()", [("optax.from_the_future", None)]),
        ("import optax\noptax.adam(1.0).init(x, b9=1)", []),
        ("import optax\noptax.nadamw(1.0, mask=None); optax.adam.__doc__", []),
        ("import optax\nx: optax.OptState = f(optax.chain(optax.sgd(0.1)))", []),
        ("import other\nother.optax.contrib.dog()", []),
        ("from .optax import contrib", []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_names_are_followed_through_imports_and_keywords(source, expected):
    assert [(need.name, need.since) for need in optax_needs(source)] == expected


def test_what_is_later_than_every_list_is_later_than_the_last_version():
    assert required_optax(optax_needs("import optax\noptax.new; optax.tree")) == "optax>0.2.8"


def test_the_lists_are_those_of_the_optax_that_is_installed():
    text = resources.files("metaopt.bench").joinpath("optax_names.json").read_text("utf-8")
    versions = json.loads(text)["versions"]
    installed = metadata.version("optax")
    if installed not in versions:
        pytest.skip(f"optax {installed} is not listed")
    listed: dict[str, set[str]] = {}
    for version in [*versions][: [*versions].index(installed) + 1]:
        for name, parameters in versions[version].items():
            listed.setdefault(name, set()).update((parameters or "").split())

    names = list_names(optax)

    missing = {n for n in names if n not in listed}
    missing |= {n for n, p in names.items() if not set((p or "").split()) <= listed.get(n, set())}
    assert not missing
