from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from andon.benchmark.expansion import expand
from andon.benchmark.plan import PlanContent, load_plan, make_plan, packaged_plans
from andon.core import AndonError
from andon.methods import create_method, method_class
from andon.methods.patchcore import PatchcoreConfig
from tests.benchmark.tiny import write_tiny

FAKE = Path(__file__).with_name("fake_method.py")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture
def write(tmp_path: Path, tiny: Path) -> Callable[..., Path]:
    """Writes a plan's file: the given text, or a good plan with keys replaced."""

    def write(text: str | None = None, **changes: Any) -> Path:
        plan = {"datasets": [os.path.relpath(tiny, tmp_path)], "methods": [f"{FAKE}:FakeMethod"], **changes}
        path = tmp_path / "my-plan.yaml"
        path.write_text(yaml.safe_dump(plan) if text is None else text)
        return path

    return write


def fails(path: Path | str, **options: Any) -> str:
    with pytest.raises(AndonError) as caught:
        expand(load_plan(path, **options))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_plan_is_data_sets_by_categories_by_methods_by_seeds(write: Callable[..., Path]) -> None:
    methods = [
        "thumbnail-nn",
        {"method": f"{FAKE}:FakeMethod", "label": "A", "config": {"noise": 0.5}},
        {"method": f"{FAKE}:FakeMethod", "label": "B", "protocol": {"shots": 2}},
        f"{FAKE}:Unseeded",
        {"method": f"{FAKE}:Unseeded", "label": "C", "protocol": {"shots": 2}},
    ]
    expanded = expand(load_plan(write(methods=methods, seeds=3, protocol={"calibration_folds": 2})))
    assert expanded.plan.name == "my-plan"
    found = [(s.category, s.label, s.seed) for s in expanded.specs]
    assert found[:9] == [
        ("bolt", method_class("thumbnail-nn").title, 0),
        *[("bolt", "A", i) for i in range(3)],
        *[("bolt", "B", i) for i in range(3)],
        ("bolt", "Unseeded", 0),
        ("bolt", "C", 0),
    ]
    assert len(found) == 2 * (1 + 3 + 3 + 1 + 3)
    assert len({s.id for s in expanded.specs}) == len(found)
    a = next(s for s in expanded.specs if s.label == "A")
    assert a.config["noise"] == 0.5
    assert a.config["batch_size"] == 3, "defaults are part of what identifies an experiment"
    assert a.protocol.calibration_folds == 2
    b = next(s for s in expanded.specs if s.label == "B")
    assert (b.protocol.shots, b.protocol.calibration_folds) == (2, 2)
    labels = {s.label for s in expanded.specs if s.id in expanded.unseeded}
    assert "Unseeded" in labels
    assert not labels & {"A", "B", "C"}
    assert expanded.category(a).name == "bolt"


def test_methods_that_share_features_come_together(write: Callable[..., Path]) -> None:
    methods = [
        "patchcore",
        "padim",
        {"method": "patchcore", "label": "P2", "config": {"coreset_ratio": 0.2}},
        f"{FAKE}:FakeMethod",
    ]
    specs = expand(load_plan(write(methods=methods))).specs
    assert [s.label for s in specs[:4]] == [method_class("patchcore").title, "P2", method_class("padim").title, "Fake"]


def test_include_and_exclude(write: Callable[..., Path]) -> None:
    methods = [f"{FAKE}:FakeMethod", f"{FAKE}:Unseeded"]
    specs = expand(load_plan(write(methods=methods, exclude=[{"category": "bolt", "method": "Fake"}]))).specs
    assert {(s.category, s.label) for s in specs} == {("bolt", "Unseeded"), ("nut", "Unseeded"), ("nut", "Fake")}
    include = [{"method": f"{FAKE}:Unseeded"}, {"category": "nut"}]
    specs = expand(load_plan(write(methods=methods, include=include))).specs
    assert {(s.category, s.label) for s in specs} == {("bolt", "Unseeded"), ("nut", "Unseeded"), ("nut", "Fake")}
    assert "no experiment is left" in fails(write(methods=methods, exclude=[{"dataset": "tiny"}]))
    message = fails(write(methods=methods, exclude=[{"category": "blot"}]))
    assert "exclude[0]: matches no experiment" in message


def test_relative_paths_start_from_the_plan(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(FAKE.read_text())
    path = write(methods=["mine.py:FakeMethod"])
    monkeypatch.chdir("/")
    expanded = expand(load_plan(path))
    spec = expanded.specs[0]
    assert spec.method == "mine.py:FakeMethod"
    assert expanded.references[spec.id] == f"{tmp_path / 'mine.py'}:FakeMethod"


def test_changed_data_and_changed_code_are_new_experiments(tmp_path: Path, write: Callable[..., Path]) -> None:
    data = write_tiny(tmp_path / "data", categories=("bolt",))
    code = tmp_path / "mine.py"
    code.write_text(FAKE.read_text())
    path = write(datasets=["data"], methods=["mine.py:FakeMethod"])

    def the_id() -> str:
        (spec,) = expand(load_plan(path)).specs
        return spec.id

    first = the_id()
    assert the_id() == first
    code.write_text(FAKE.read_text() + "\n# changed\n")
    second = the_id()
    (data / "bolt/test/good/000.png").rename(data / "bolt/test/good/0005.png")
    assert len({first, second, the_id()}) == 3
    path.write_text(path.read_text() + "title: other words\n")
    renamed = write(datasets=["data"], methods=[{"method": "mine.py:FakeMethod", "label": "Other name"}])
    assert expand(load_plan(renamed)).specs[0].id == the_id(), "a label changes nothing"


def test_overrides(write: Callable[..., Path], tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(datasets=[{"name": "images", "path": "/nowhere"}])
    monkeypatch.chdir(tiny.parent)
    plan = load_plan(path, data=["tiny"], seeds=[4, 2], categories=["nut"])
    assert [(s.dataset, s.category, s.seed) for s in expand(plan).specs] == [
        ("images", "nut", 4),
        ("images", "nut", 2),
    ]
    assert [s.seed for s in expand(load_plan(path, data=[tiny], seeds=2)).specs] == [0, 1, 0, 1]
    assert "2 folders were given" in fails(path, data=[tiny, tiny])
    assert "seeds" in fails(path, seeds=0)


GOOD_METHOD = "methods: [thumbnail-nn]\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is not a plan"),
        ("- a\n- b\n", "is not a plan"),
        ("datasets: [x\nmethods: y\n", "my-plan.yaml:2: is not valid YAML"),
        ("datasets: [x]\n\tmethods: y\n", "is not valid YAML"),
        ("datasets: [x]\n", "methods: is missing"),
        (GOOD_METHOD, "datasets: is missing"),
        ("datasets: []\n" + GOOD_METHOD, "my-plan.yaml:1: datasets: "),
        ("datasets: tiny\n" + GOOD_METHOD, "my-plan.yaml:1: datasets: "),
        ("datasets: [tiny]\nmethodz: [a]\n" + GOOD_METHOD, "my-plan.yaml:2: methodz: unknown key; known: name, title"),
        (
            "datasets:\n  - path: x\n    layoutt: y\n" + GOOD_METHOD,
            "my-plan.yaml:3: datasets[0].layoutt: unknown key; known: path, name",
        ),
        ("datasets: [x]\nseeds: -1\n" + GOOD_METHOD, "my-plan.yaml:2: seeds: a number of seeds must be 1 to 10000"),
        ("datasets: [x]\nseeds: [1, 1]\n" + GOOD_METHOD, "my-plan.yaml:2: seeds: must be different"),
        ("datasets: [x]\nseeds: many\n" + GOOD_METHOD, "my-plan.yaml:2: seeds: "),
        (
            "datasets: [x]\nprotocol:\n  shot: 1\n" + GOOD_METHOD,
            "my-plan.yaml:3: protocol.shot: unknown key; known: shots, fpr_limits, calibration_folds",
        ),
        ("datasets: [x]\nprotocol: {calibration_folds: 1}\n" + GOOD_METHOD, "must be 0 or at least 2"),
        ("datasets: [x]\nprotocol: {fpr_limits: [2]}\n" + GOOD_METHOD, "protocol.fpr_limits[0]: "),
        ("datasets: [x]\nseeds: 1\nseeds: 2\n" + GOOD_METHOD, "my-plan.yaml:3: seeds is given twice"),
        ("datasets: [x]\nkeep_maps: some\n" + GOOD_METHOD, "my-plan.yaml:2: keep_maps: "),
        ("datasets: [x]\nmethods:\n  - patchcor\n", "my-plan.yaml:3: methods[0]: unknown method 'patchcor'; known: "),
        (
            "datasets: [x]\nmethods:\n  - method: thumbnail-nn\n    config:\n      sise: 3\n",
            "my-plan.yaml:4: methods[0].config: method thumbnail-nn: unknown option 'sise'",
        ),
        ("datasets: [x]\nmethods: [{method: thumbnail-nn, protocol: {shots: 0}}]\n", "methods[0].protocol.shots: "),
        ("datasets: [x]\nmethods: [thumbnail-nn, thumbnail-nn]\n", "give it a label of its own"),
        ("datasets: [x]\nmethods: [nowhere.py:Method]\n", "there is no file"),
        ("datasets: [missing-folder]\n" + GOOD_METHOD, "my-plan.yaml:1: datasets[0]: "),
        ("datasets: [{name: x}]\n" + GOOD_METHOD, "data set x has no path: give its folder (--data DIR)"),
        ("a: &a [*a]\n", "nested too deeply"),
        ("a: 2026-99-99\n", "is not valid YAML"),
        ("a: !!python/object/apply:os.system [echo]\n", "is not valid YAML"),
        ("[" * 1000, "is n"),
    ],
)
def test_what_is_wrong_with_a_plan_is_said_in_one_line(write: Callable[..., Path], text: str, expected: str) -> None:
    path = write(text)
    message = fails(path)
    assert message.startswith(str(path))
    assert expected in message


def test_wrong_data_is_said_in_one_line(write: Callable[..., Path], tiny: Path, tmp_path: Path) -> None:
    assert "bolts" in fails(write(datasets=[{"path": str(tiny), "categories": ["bolts"]}]))
    assert "a second data set called 'tiny'" in fails(write(datasets=[str(tiny), str(tiny)]))
    two = expand(load_plan(write(datasets=[str(tiny), {"path": str(tiny), "name": "again"}]))).specs
    assert [s.dataset for s in two] == ["tiny", "tiny", "again", "again"]
    same = [
        {"method": f"{FAKE}:FakeMethod", "label": "A"},
        {"method": f"{FAKE}:FakeMethod", "label": "B", "config": {"noise": 0.01}},
    ]
    assert "'B' is the same experiment as another" in fails(write(methods=same))
    no_test = write_tiny(tmp_path / "no-test", categories=("bolt",))
    (no_test / "bolt/test").rename(tmp_path / "elsewhere")
    assert "bolt" in fails(write(datasets=[str(no_test)]))


def test_a_plan_without_a_file(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny.parent)
    fake = f"{FAKE}:FakeMethod"
    options = [f"{fake}.noise=0.5", f"{fake}.transform.size=[32, 48]", f"{fake}.trouble_seeds=[]"]
    plan = make_plan(["tiny"], [fake, f"{FAKE}:Unseeded"], options=options, seeds=2, categories=["nut"])
    specs = expand(plan).specs
    assert [(s.label, s.seed) for s in specs] == [
        ("Fake noise=0.5, transform.size=[32, 48], trouble_seeds=[]", 0),
        ("Fake noise=0.5, transform.size=[32, 48], trouble_seeds=[]", 1),
        ("Unseeded", 0),
    ]
    assert specs[0].config["transform"]["size"] == [32, 48]
    assert specs[0].config["noise"] == 0.5
    (tmp_path / "again.yaml").write_text(plan.source)
    assert expand(load_plan(tmp_path / "again.yaml")).specs == specs, "its text is a plan"
    for wrong in (
        "noise=1",
        f"{fake}.noise",
        f"{fake}.=1",
        f"{fake}..a=1",
        "padim.x=1",
        f"{fake}.noise=[",
        f"{fake}.a.b=1",
    ):
        with pytest.raises(AndonError, match="option"):
            expand(make_plan([tiny], [fake], options=[wrong]))
    with pytest.raises(AndonError, match="was given a value before"):
        make_plan([tiny], [fake], options=[f"{fake}.transform=1", f"{fake}.transform.size=2"])


def test_files_that_are_no_plans(tmp_path: Path) -> None:
    assert f"there is no such plan; give a YAML file or one of: {', '.join(packaged_plans())}" in fails("nothing")
    assert "a folder, not a plan" in fails(tmp_path)
    binary = tmp_path / "p.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in fails(binary)
    binary.write_bytes(b"#" * 1_000_001)
    assert "too many for a plan" in fails(binary)


def test_a_small_file_that_unfolds_to_a_billion_nodes_is_quick(write: Callable[..., Path]) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    assert "unknown key" in fails(write("\n".join(lines)))


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60) | st.from_regex(r"(datasets|methods|seeds|a): [\[\]{}:,\-&*a-z0-9 \n]{0,30}"))
def test_any_text_is_a_plan_or_an_error_in_one_line(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("plan") / "p.yaml"
    path.write_text(text, encoding="utf-8")
    message = ""
    try:
        load_plan(path)
    except AndonError as error:
        message = str(error)
    assert "\n" not in message


@pytest.mark.parametrize("name", ["demo", "autovi-study"])
def test_packaged_plans(name: str) -> None:
    assert packaged_plans()[name]
    plan = load_plan(name)
    assert plan.name == name
    assert isinstance(plan.content, PlanContent)
    assert f"plan {name}:" in fails(name)
    assert "has no path" in fails(name)


def test_the_study_plan_is_the_study(tiny: Path) -> None:
    plan = load_plan("autovi-study", data=[tiny])
    assert plan.content.seeds == tuple(range(8))
    content = plan.content.model_copy(
        update={"datasets": (plan.content.datasets[0].model_copy(update={"layout": None}),)}
    )
    specs = expand(type(plan)(plan.name, content, "", "", plan.base)).specs
    configs = {s.method: s.config for s in specs}
    assert set(configs) == {"thumbnail-nn", "cflow", "draem", "dsr", "efficientad", "padim", "patchcore"}
    assert configs["patchcore"]["transform"]["crop"] == [224, 224]
    assert configs["patchcore"]["backbone"] == "wide_resnet50_2"
    assert configs["patchcore"]["coreset_ratio"] == 0.1
    assert configs["padim"]["backbone"] == "resnet18"
    assert all(c["transform"]["size"] == [256, 256] for m, c in configs.items() if m != "thumbnail-nn")
    # Section 5: "CFlow was trained for 100 epochs, DRAEM for 700 epochs, DSR for 500 epochs, and EfficientAD for 250."
    assert configs["cflow"]["meta_epochs"] * configs["cflow"]["sub_epochs"] == 100
    assert configs["draem"]["epochs"] == 700
    assert configs["dsr"]["epochs"] + configs["dsr"]["upsampling_epochs"] == 500
    assert (configs["efficientad"]["epochs"], configs["efficientad"]["size"]) == (250, "medium")
    assert all(c.get("budget", 1) == 1 for c in configs.values())
    counts = {m: sum(s.method == m for s in specs) for m in configs}
    assert counts == {m: 2 if m == "thumbnail-nn" else 8 * 2 for m in configs}


def test_a_folder_with_a_packaged_plans_name_does_not_hide_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_plan("demo").where == "plan demo"


def test_a_method_may_have_seeds_of_its_own_and_the_command_line_wins(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "datasets: [d]\nmethods: [padim, {method: patchcore, seeds: 1}, {method: patchcore, label: P, seeds: [5, 7]}]\n"
        "seeds: 3\n"
    )
    methods = load_plan(tmp_path / "p.yaml").content.methods
    assert [m.seeds for m in methods] == [None, (0,), (5, 7)]
    overridden = load_plan(tmp_path / "p.yaml", seeds=2).content
    assert overridden.seeds == (0, 1)
    assert [m.seeds for m in overridden.methods] == [None, None, None]
    (tmp_path / "p.yaml").write_text("datasets: [d]\nmethods:\n  - {method: padim, seeds: [1, 1]}\n")
    with pytest.raises(AndonError, match=r"p.yaml:3: methods\[0\].seeds: must be different whole numbers"):
        load_plan(tmp_path / "p.yaml")


def test_a_preset_and_options_on_top_of_it(tmp_path: Path) -> None:
    plan = make_plan([tmp_path], ["thumbnail-nn", "patchcore"], options=["patchcore.top_k=7"], preset="embedded")
    floor, patchcore = plan.content.methods
    assert (floor.preset, floor.config) == (None, {})
    assert (patchcore.preset, patchcore.config) == ("embedded", {"top_k": 7})
    assert patchcore.label == "Patchcore embedded, top_k=7"
    with pytest.raises(
        AndonError, match="'absent': no method of the plan has it; presets: default, study, designed, embedded"
    ):
        make_plan([tmp_path], ["thumbnail-nn", "patchcore"], preset="absent")


@pytest.mark.parametrize(
    "method", [".x:Class", "..:X", ":X", "x:", "a b:C", "file.py:", "loop.py:X", "", "file.py:X:Y"]
)
def test_a_method_that_is_no_reference_is_named(write: Callable[..., Path], method: str) -> None:
    path = write(methods=[method])
    (path.parent / "file.py").write_text("")
    (path.parent / "loop.py").symlink_to("loop.py")
    assert "methods[0]: " in fails(path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=5) | st.sampled_from([":", ".py", ".", "/", " ", "os"]), max_size=5).map("".join))
def test_any_word_for_a_method_is_a_plan_or_a_configuration_error(write: Callable[..., Path], method: str) -> None:
    fails(write(methods=[method]))


def test_the_papers_own_values_are_a_preset_of_every_method(tmp_path: Path) -> None:
    floor, patchcore = make_plan([tmp_path], ["thumbnail-nn", "patchcore"], preset="paper").content.methods
    assert (floor.preset, patchcore.preset) == ("paper", "paper")
    made = create_method(patchcore.method, patchcore.config, preset=patchcore.preset)
    assert made.config == PatchcoreConfig()
