from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from andon.benchmark.expansion import expand
from andon.benchmark.plan import MethodEntry, load_plan, packaged_plans
from andon.benchmark.study import SHOTS, SMALL, StudyPlan, few_shot_entries, study_plans
from andon.core import ConfigError
from andon.data import Augmentation
from andon.methods import create_method
from andon.synthetic import TASKS
from tests.benchmark.tiny import write_tiny

SIX = {"cflow", "draem", "dsr", "efficientad", "padim", "patchcore"}
PARTS = ["study", "table11", "table12", "table13", "figure5"]


def configs(name: str) -> dict[str, dict[str, Any]]:
    return {
        e.method: create_method(e.method, e.config, preset=e.preset).config.model_dump(mode="json")
        for e in load_plan(name).content.methods
    }


SHEET: dict[str, dict[str, Any]] = {
    # facts/autovi-study.md, "The six methods as run" with its corrections: what the released code ran.
    "patchcore": {
        "transform": {"size": [256, 256], "crop": [224, 224], "normalisation": "imagenet", "antialias": False},
        "backbone": "wide_resnet50_2", "layers": ["layer2", "layer3"], "weights": "imagenet", "patch_size": 3,
        "embedding": "concatenate", "coreset": "greedy", "coreset_ratio": 0.1, "coreset_size": None,
        "projection_eps": 0.9, "image_score": "reweighted", "n_neighbours": 9, "sigma": 4.0, "batch_size": 32,
    },
    "padim": {
        "transform": {"size": [256, 256], "crop": None, "normalisation": "imagenet", "antialias": False},
        "backbone": "resnet18", "layers": ["layer1", "layer2", "layer3"], "weights": "imagenet", "sigma": 4.0,
        "n_channels": None,  # 100 of resnet18's 448
        "batch_size": 32,
    },
    "cflow": {
        "transform": {"size": [256, 256], "crop": None, "normalisation": "imagenet", "antialias": False},
        "backbone": "wide_resnet50_2", "layers": ["layer2", "layer3", "layer4"], "train_batch_size": 32,
        "meta_epochs": 100, "sub_epochs": 1, "learning_rate": 1e-4, "schedule": "constant", "coupling_blocks": 8,
        "condition": 128, "clamp": 1.9, "fibres": 64, "permutation": "hard", "budget": 1.0,
    },
    "draem": {
        "transform": {"size": [256, 256], "crop": None, "normalisation": "unit", "antialias": False},
        "train_batch_size": 8, "batch_size": 32, "epochs": 700, "learning_rate": 1e-4, "decay": 0.1,
        "decay_at": [400 / 700, 600 / 700], "beta": [0.1, 1.0], "anomaly_probability": 0.5, "textures": "noise",
        "rotation_probability": 0.0, "perlin_exponents": [0, 6], "score_window": 1, "initialisation": "torch",
        "budget": 1.0,
    },
    "dsr": {
        "transform": {"size": [256, 256], "crop": None, "normalisation": "unit", "antialias": False},
        "train_batch_size": 8, "batch_size": 16, "epochs": 350, "upsampling_epochs": 150, "epoch_samples": None,
        "learning_rate": 2e-4, "decay_at": [], "upsampling_decay_at": [], "latent_strength": 0.2, "score_window": 21,
        "softmax_twice": True, "rotation_probability": 0.0, "upsampling_rotation_probability": 0.0, "budget": 1.0,
    },
    "efficientad": {
        "transform": {"size": [256, 256], "crop": None, "normalisation": "imagenet", "antialias": False},
        "size": "small", "teacher": "pdn", "train_batch_size": 1, "epochs": 250, "learning_rate": 1e-4,
        "weight_decay": 1e-5, "decay_at": 237 / 250, "decay": 0.1, "quantiles": [0.9, 0.995], "map_padding": "zeros",
        "budget": 1.0,
    },
}  # fmt: skip
PAPER: dict[str, dict[str, Any]] = {
    # The same table, the paper's word where it differs from the code.
    "patchcore": {
        **SHEET["patchcore"],
        "transform": {"size": [256, 256], "crop": [224, 224], "normalisation": "imagenet"},
    },
    "padim": {**SHEET["padim"], "transform": {"size": [256, 256], "crop": None, "normalisation": "imagenet"}},
    "cflow": {
        **{k: v for k, v in SHEET["cflow"].items() if k not in ("schedule", "permutation")},
        "transform": {"size": [256, 256], "crop": None, "normalisation": "imagenet"},
    },
    "draem": {
        **{k: v for k, v in SHEET["draem"].items() if k not in ("perlin_exponents", "score_window", "initialisation")},
        "transform": {"size": [256, 256], "crop": None, "normalisation": "unit"},
    },
    "dsr": {
        **SHEET["dsr"],
        "transform": {"size": [256, 256], "crop": None, "normalisation": "unit"},
        "decay_at": [280 / 350],
        "softmax_twice": False,
    },
    "efficientad": {
        **SHEET["efficientad"],
        "transform": {"size": [256, 256], "crop": None, "normalisation": "imagenet"},
        "size": "medium",
        "decay_at": 0.95,
        "validation_share": 0.05,
        "extra_normalisation": False,
    },
}


@pytest.mark.parametrize("method", sorted(SIX))
@pytest.mark.parametrize(("plan", "sheet"), [("autovi-study-released", SHEET), ("autovi-study", PAPER)])
def test_the_settings_are_those_of_the_sheet(plan: str, sheet: dict[str, dict[str, Any]], method: str) -> None:
    found = configs(plan)[method]
    for option, expected in sheet[method].items():
        if option in ("decay_at", "decay") and isinstance(expected, float | list):
            assert found[option] == pytest.approx(expected), option
        else:
            assert found[option] == expected, option


def test_efficientad_s_rate_falls_where_the_released_code_s_does() -> None:
    # StepLR(int(0.95 · 250)) that is stepped once an epoch.
    assert int(0.95 * 250) == 237
    assert configs("autovi-study-released")["efficientad"]["decay_at"] * 250 == pytest.approx(237)


@pytest.mark.parametrize("name", ["autovi-study", "autovi-study-released"])
def test_the_main_plans_are_eight_runs_of_the_six_methods(name: str) -> None:
    content = load_plan(name).content
    assert content.seeds == tuple(range(8))
    assert {e.method for e in content.methods} - {"thumbnail-nn"} == SIX
    assert content.protocol.fpr_limits[0] == 0.05


def test_table_11_is_every_method_with_and_without_the_study_s_augmentation() -> None:
    content = load_plan("autovi-table11").content
    with_it = {e.method for e in content.methods if e.protocol.get("augmentation") == "study"}
    without = {e.method for e in content.methods if "augmentation" not in e.protocol}
    assert with_it == without == SIX
    assert len(content.methods) == 12


def test_table_12_has_the_published_windows() -> None:
    rows = {
        (category, entry.name)
        for entry in load_plan("autovi-table12").content.datasets
        for category in entry.categories or ()
    }
    wiring = {("engine_wiring", f"autovi wiring {w}") for w in ("400×400", "400×480", "640×480")}
    pipes = {(c, f"autovi {w}×{w}") for c in ("pipe_clip", "pipe_staple") for w in (200, 400, 600)}
    assert rows == wiring | pipes
    for entry in load_plan("autovi-table12").content.datasets:
        assert entry.name is not None
        if entry.window is None:
            assert entry.name == "autovi wiring 640×480"  # the uncropped image itself
        else:
            assert entry.name.endswith(f" {entry.window.title}")
            assert entry.window.place == "template"


def test_table_13_differs_in_the_normalisation_alone() -> None:
    plain, extra = load_plan("autovi-table13").content.methods
    one, other = (create_method(e.method, e.config, preset=e.preset).config.model_dump() for e in (plain, extra))
    assert {k for k in one if one[k] != other[k]} == {"extra_normalisation"}
    assert other["extra_normalisation"] is True


def test_figure_5_has_eight_draws_of_every_size() -> None:
    content = load_plan("autovi-figure5").content
    assert tuple(e.protocol.get("shots") for e in content.methods) == SHOTS
    assert {e.method for e in content.methods} == {"patchcore"}
    assert content.seeds == tuple(range(8))
    assert all(e.seeds is None for e in content.methods)


def test_a_few_shot_curve_of_any_method_is_figure_5_s_of_patchcore() -> None:
    made = few_shot_entries(MethodEntry(method="patchcore", preset="study"))
    packaged = load_plan("autovi-figure5").content.methods
    assert [e.model_copy(update={"seeds": None}) for e in made] == list(packaged)
    other = few_shot_entries(MethodEntry(method="padim", label="Mine"), [2, None], 3)
    assert [(e.label, e.seeds) for e in other] == [("Mine, 2 images", (0, 1, 2)), ("Mine, all images", (0, 1, 2))]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in the categories of AutoVI; their content does not matter here."""
    return write_tiny(tmp_path_factory.mktemp("data") / "line", categories=tuple(TASKS), train=10)


def on(part: StudyPlan, line: Path) -> Any:
    plan = part.on(line, line)
    datasets = [d.model_copy(update={"layout": None}) for d in plan.content.datasets]
    return expand(
        type(plan)(plan.name, plan.content.model_copy(update={"datasets": tuple(datasets)}), "", "", plan.base)
    )


@pytest.mark.parametrize("options", [{"small": True, "synthetic": True}, {"synthetic": True}, {"small": True}])
def test_what_parts_have_in_common_is_the_same_experiment(line: Path, options: dict[str, Any]) -> None:
    parts = {p.part: p for p in study_plans(**options)}
    assert list(parts) == PARTS
    shown = {name: on(p, line).specs for name, p in parts.items() if name != "figure5" or options.get("small")}
    main = {s.id for s in shown["study"]}
    for name, specs in shown.items():
        if name in ("table11", "table13"):
            plain = [s for s in specs if s.protocol.augmentation is None and not s.config.get("extra_normalisation")]
            assert plain
            assert {s.id for s in plain} <= main
            assert not {s.id for s in specs if s not in plain} & main
        if name == "figure5":
            whole = [s for s in specs if s.protocol.shots is None]
            assert whole
            assert {s.id for s in whole} <= main
    assert not {s.id for s in shown["table12"]} & main


def test_the_small_synthetic_study_keeps_what_each_part_varies(line: Path) -> None:
    parts = {p.part: on(p, line) for p in study_plans(small=True, synthetic=True)}
    for name, expanded in parts.items():
        assert {s.seed for s in expanded.specs} <= set(range(SMALL.draws)), name
        for spec in expanded.specs:
            budget = SMALL.budgets.get(spec.method, 1.0)
            assert spec.config.get("budget", 1.0) == budget
            preset = "default" if spec.method != "thumbnail-nn" else None
            default = create_method(spec.method, preset=preset).config.model_dump(mode="json")
            for option in ("weights", "backbone", "teacher"):
                assert spec.config.get(option) == default.get(option)
    augmented = [s.protocol.augmentation for s in parts["table11"].specs if s.protocol.augmentation is not None]
    assert set(augmented) == {Augmentation(versions=SMALL.versions)}
    sizes = {e.window.size for e in study_plans(small=True, synthetic=True)[2].plan.content.datasets if e.window}
    assert sizes == {(200, 200), (400, 400), (600, 600), (480, 400)}
    assert {s.config["extra_normalisation"] for s in parts["table13"].specs} == {True, False}
    assert {s.protocol.shots for s in parts["figure5"].specs} == set(SMALL.shots)
    assert {s.category for s in parts["study"].specs} == set(TASKS)


def test_the_released_code_s_settings_hold_in_every_part() -> None:
    settings = configs("autovi-study-released")
    for part in study_plans("released-code"):
        assert "released" in part.name
        for entry in part.plan.content.methods:
            config = create_method(entry.method, entry.config, preset=entry.preset).config.model_dump(mode="json")
            config.pop("extra_normalisation", None)
            expected = {k: v for k, v in settings[entry.method].items() if k != "extra_normalisation"}
            assert config == expected


def test_without_uncropped_images_table_12_is_of_windows_within_the_given_ones() -> None:
    part = study_plans(raw=False)[2]
    assert (part.part, part.raw, part.name) == ("table12", False, "autovi-table12-given")
    assert [e.window and e.window.place for e in part.plan.content.datasets] == ["fixed", None]
    with pytest.raises(ConfigError, match="uncropped images; name their folder"):
        study_plans()[2].on("somewhere")


def test_names_differ_and_a_stored_text_is_the_plan(tmp_path: Path) -> None:
    everything = [
        p for options in ({}, {"small": True}, {"synthetic": True}, {"synthetic": True, "small": True})
        for p in study_plans(**options)  # type: ignore[arg-type]
    ] + list(study_plans("released-code", small=True))  # fmt: skip
    assert len({p.name for p in everything}) == len(everything)
    for part in everything:
        path = tmp_path / "plan.yaml"
        path.write_text(part.plan.source, encoding="utf-8")
        assert load_plan(path).content.model_copy(update={"name": None}) == part.plan.content.model_copy(
            update={"name": None}
        )


def test_packaged_plans_have_titles() -> None:
    assert {"autovi-study", "autovi-study-released", "autovi-table11", "autovi-table12", "autovi-table12-given",
            "autovi-table13", "autovi-figure5", "demo"} <= set(packaged_plans())  # fmt: skip
    assert all(packaged_plans().values())


@pytest.mark.parametrize("options", [{"protocol": "code"}, {"protocol": "released-code", "synthetic": True}])
def test_what_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="released-code"):
        study_plans(**options)
