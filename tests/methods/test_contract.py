"""The contract as a user's own method meets it, and what is refused or said of images for every method."""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import andon
from andon.core import DataError, DetectorError, FloatArray, ImageArray, Prediction
from andon.data import Images, Transform, load_dataset
from andon.methods import Detector, Fitting, Method, MethodConfig, create_method, method_names
from tests.benchmark.tiny import write_tiny

SIDE = 16
Forward = Callable[[torch.Tensor], Any]


class OwnConfig(MethodConfig):
    transform: Transform = Transform(size=(SIDE, SIDE), normalisation="unit")


class OwnDetector(Detector):
    function: Forward

    def forward(self, batch: torch.Tensor) -> Any:
        return self.function(batch)


class Own(Method[OwnConfig]):
    """A method of a user's."""

    name, title, Config = "own", "Own", OwnConfig

    def learn(self, fitting: Fitting) -> Any:
        raise NotImplementedError


def own(forward: Forward) -> Own:
    def make(method: Own, fitting: Fitting) -> OwnDetector:
        detector = OwnDetector(method.config)
        detector.function = forward
        return detector

    return learning(make)


def learning(make: Callable[[Own, Fitting], Any]) -> Own:
    class Other(Own):
        def learn(self, fitting: Fitting) -> Any:
            return make(self, fitting)

    return Other()


def giving(made: Any) -> Callable[[Own, Fitting], Any]:
    return lambda method, fitting: made


def noise(n: int, seed: int = 0, size: tuple[int, int] = (20, 24)) -> list[ImageArray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(60, 200, (*size, 3), dtype=np.uint8) for _ in range(n)]


def scores(batch: torch.Tensor) -> torch.Tensor:
    return batch.mean((1, 2, 3))


def maps(batch: torch.Tensor) -> torch.Tensor:
    return batch.mean(1)


WRONG: dict[str, tuple[Forward, str]] = {
    "numpy scores": (
        lambda b: (scores(b).numpy(), maps(b)),
        r"image scores are a NumPy array float32 \[1\], not a tens",
    ),
    "numpy maps": (lambda b: (scores(b), maps(b).numpy()), r"anomaly maps are a NumPy array float32 \[1, 16, 16\]"),
    "a float": (lambda b: (float(scores(b)[0]), maps(b)), "image scores are a float, not a tensor"),
    "a list": (lambda b: (scores(b).tolist(), maps(b)), "image scores are a list of 1, not a tensor"),
    "float64": (lambda b: (scores(b).double(), maps(b)), r"image scores are a float64 tensor \[1\]"),
    "float16 maps": (lambda b: (scores(b), maps(b).half()), r"anomaly maps are a float16 tensor \[1, 16, 16\]"),
    "integers": (lambda b: (scores(b).long(), maps(b)), r"image scores are a int64 tensor \[1\]"),
    "column": (lambda b: (scores(b)[:, None], maps(b)), r"image scores are a float32 tensor \[1, 1\]"),
    "squeezed": (lambda b: (scores(b).squeeze(), maps(b)), r"image scores are a float32 tensor \[\]"),
    "no batch": (lambda b: (scores(b), maps(b)[0]), r"anomaly maps are a float32 tensor \[16, 16\]"),
    "channel": (lambda b: (scores(b), maps(b)[:, None]), r"anomaly maps are a float32 tensor \[1, 1, 16, 16\]"),
    "empty maps": (lambda b: (scores(b), maps(b)[:, :0]), r"anomaly maps are a float32 tensor \[1, 0, 16\]"),
    "scores alone": (scores, r"forward gave a float32 tensor \[1\], not a pair"),
    "three": (lambda b: (scores(b), maps(b), None), "forward gave a tuple of 3, not a pair"),
    "a mapping": (lambda b: {"score": scores(b)}, "forward gave a dict, not a pair"),
    "nothing": (lambda b: None, "forward gave None, not a pair"),
    "attribute": (lambda b: operator.attrgetter("nonsense")(b), "cannot score an image: AttributeError: .*nonsense"),
    "shapes": (lambda b: (b @ torch.zeros(3, 3), None), "cannot score an image: RuntimeError"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_broken_forward_is_told_in_the_contracts_words_when_fit_ends(what: str) -> None:
    forward, message = WRONG[what]
    with pytest.raises(DetectorError, match=rf"^own: .*{message}"):
        own(forward).fit(noise(3))
    if not message.startswith("cannot"):
        with pytest.raises(DetectorError, match=r"a float32 tensor \[B\], .* a float32 tensor \[B, h, w\] or None"):
            own(forward).fit(noise(3))


def test_tensors_that_require_a_gradient() -> None:
    weight = torch.ones(1, requires_grad=True)

    def forward(batch: torch.Tensor) -> Any:
        with torch.inference_mode(False), torch.enable_grad():
            return torch.zeros(len(batch)) * weight, None

    with pytest.raises(DetectorError, match=r"own: the image scores require a gradient: .*torch\.no_grad"):
        own(forward).fit(noise(2))

    def make(method: Own, fitting: Fitting) -> OwnDetector:
        detector = OwnDetector(method.config)
        detector.register_buffer("mean", torch.zeros(3) * weight)
        detector.function = lambda batch: (scores(batch), None)
        return detector

    with pytest.raises(DetectorError, match=r"own: .*the buffer mean, requires a gradient: .*torch\.no_grad"):
        learning(make).fit(noise(2))


def test_what_learn_gives_must_be_a_detector_that_was_set_up() -> None:
    class Bare(Detector):
        def __init__(self) -> None:
            pass

    class Unconfigured(Detector):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

    for made, message in (
        (None, "learn must give a Detector, not None"),
        (np.zeros(3), "learn must give a Detector, not a NumPy array"),
        (torch.nn.Linear(1, 1), "learn must give a Detector, not a Linear"),
        (Bare(), r"Bare must call super\(\).__init__\(config\)"),
        (Unconfigured(), r"Unconfigured must call super\(\).__init__\(config\)"),
    ):
        with pytest.raises(DetectorError, match=f"^own: {message}"):
            learning(giving(made)).fit(noise(2))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "gave nothing"),
        ([0.5], "gave a float"),
        ([Prediction(np.zeros(2, np.float32), None)], "not one Prediction of 1"),
        (
            [Prediction(np.zeros(1), None)],  # type: ignore[arg-type]
            r"must be a float32 array, not a NumPy array float64 \[1\]",
        ),
    ],
)
def test_an_iterate_predictions_of_ones_own_is_tried_too(parts: list[Any], message: str) -> None:
    class Iterating(OwnDetector):
        def iterate_predictions(self, images: Any, **options: Any) -> Any:
            return iter(parts)

    with pytest.raises(DetectorError, match=f"^own: .*{message}"):
        learning(lambda method, fitting: Iterating(method.config)).fit(noise(2))


def test_a_batch_of_several_is_checked_as_well() -> None:
    detector = own(lambda b: (scores(b)[:1], None)).fit(noise(2))
    with pytest.raises(DetectorError, match=r"own: the image scores are a float32 tensor \[1\]; .* B = 2"):
        detector.predict(noise(2))


def test_out_of_memory_stays_what_it_is() -> None:
    def forward(batch: torch.Tensor) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(RuntimeError, match="allocate memory"):
        own(forward).fit(noise(1))


def test_trying_takes_one_image_and_leaves_random_numbers_alone() -> None:
    seen: list[int] = []

    def forward(batch: torch.Tensor) -> Any:
        seen.append(len(batch))
        return scores(batch) + torch.rand(len(batch)), None

    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    own(forward).fit(noise(5))
    assert seen == [1]
    assert torch.equal(torch.rand(2), expected)


# What can be handed in


def test_fit_takes_a_category_and_predict_any_image(tmp_path: Path) -> None:
    category = load_dataset(write_tiny(tmp_path))["bolt"]
    method = create_method("thumbnail-nn")
    detector = method.fit(category)
    assert detector.report.n_train == len(category.train)
    assert torch.equal(detector.thumbnails, method.fit(category.train).thumbnails)  # type: ignore[arg-type]
    sample = category.test[0]
    expected = detector.predict(sample).image_scores
    picture = Image.open(sample.path)
    for given in (sample.path, str(sample.path), picture, sample.image(), [picture], iter([picture]), Images([sample])):
        np.testing.assert_array_equal(detector.predict(given).image_scores, expected)
    several = detector.predict([picture, sample.path, sample.image(), sample]).image_scores
    np.testing.assert_array_equal(several, np.repeat(expected, 4))
    np.testing.assert_array_equal(detector.predict(np.stack([sample.image()] * 2)).image_scores, np.repeat(expected, 2))
    for wrong in (None, 3, b"x", category, torch.zeros(3, 8, 8)):
        for call in (detector.predict, method.fit) if wrong is not category else (detector.predict,):
            with pytest.raises(DataError, match="images must be a sample, a path, a PIL image or an RGB uint8 array"):
                call(wrong)  # type: ignore[arg-type]


# Pixels that are none


FAST: dict[str, dict[str, Any]] = {
    "thumbnail-nn": {},
    "padim": {"backbone": "resnet18", "weights": "random", "transform": {"size": (64, 64)}},
    "patchcore": {"backbone": "resnet18", "weights": "random", "transform": {"size": (64, 64)}},
    "cflow": {
        "backbone": "resnet18",
        "weights": "random",
        "transform": {"size": (64, 64)},
        "budget": 0.01,
        "coupling_blocks": 2,
        "meta_epochs": 1,
    },
    "efficientad": {
        "preset": "paper",
        "weights": "random",
        "steps": 5,
        "student_width": 0.125,
        "autoencoder_width": 8,
        "transform": {"size": (96, 96)},
    },
    "csflow": {
        "backbone": "resnet18",
        "weights": "random",
        "layers": ("layer2",),
        "transform": {"size": (64, 64)},
        "budget": 0.1,
        "hidden": 8,
    },
    "uninformed-students": {
        "transform": {"size": (64, 64)},
        "budget": 0.05,
        "student_width": 0.06,
    },
    "gcad": {"transform": {"size": (64, 64)}, "budget": 0.05, "regression_width": 4, "encoder_width": 6},
    "positional-gaussians": {"transform": {"size": (64, 64)}},
    "f-anogan": {"width": 4, "budget": 0.01},
    "ganomaly": {"width": 4, "budget": 0.2},
    "riad": {"width": 4, "budget": 0.1},
    "draem": {"preset": "embedded", "budget": 0.005},
    "dsr": {"preset": "embedded", "budget": 0.01},
}
BLACK, GREY, WHITE = (np.full((40, 48, 3), value, np.uint8) for value in (0, 127, 255))
GREEN = np.broadcast_to(np.array([0, 135, 0], np.uint8), (40, 48, 3))


@pytest.fixture(scope="module", params=FAST)
def trained(request: pytest.FixtureRequest) -> Detector:
    options = dict(FAST[request.param])
    return create_method(request.param, **options).fit(parts(6, 0))


def parts(n: int, seed: int) -> list[ImageArray]:
    """A bright disc on a dark ground, with noise: what a station sees."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:40, :48]
    disc = 40 + 120 * (np.hypot(y - 20, x - 24) < 14)
    return [(disc[..., None] + rng.normal(0, 4, (40, 48, 3))).clip(0, 255).astype(np.uint8) for _ in range(n)]


def test_every_method_is_tried() -> None:
    assert set(FAST) == set(method_names())


def test_pixels_that_are_not_finite_are_refused(trained: Detector) -> None:
    batch = trained.transform.normalise(np.stack([trained.transform.resize(i) for i in parts(3, 1)]))
    trained.predict_batch(batch)
    for value in (torch.nan, torch.inf, -torch.inf):
        bad = batch.clone()
        bad[1, 2, 3, 4] = value
        with pytest.raises(DataError, match=f"^{trained.name}: image 1 of the batch has pixels that are not finite"):
            trained.predict_batch(bad)
    both = batch.clone()
    both[2, 0, 0, 0], both[2, 1, 1, 1] = torch.inf, -torch.inf
    with pytest.raises(DataError, match="image 2 of the batch"):
        trained.predict_batch(both)


def test_a_batch_that_the_transform_does_not_give_is_refused(trained: Detector) -> None:
    height, width = trained.transform.output_size
    for wrong in (
        torch.zeros(1, 3, height, width, dtype=torch.float64),
        torch.zeros(1, 3, height, width, dtype=torch.uint8),
        torch.zeros(3, height, width),
        torch.zeros(1, height, width, 3),
        torch.zeros(0, 3, height, width),
        torch.zeros(1, 3, height + 32, width),
        np.zeros((1, 3, height, width), np.float32),
    ):
        with pytest.raises(DataError, match=rf"float32 \[B, 3, {height}, {width}\], .*not"):
            trained.predict_batch(wrong)  # type: ignore[arg-type]


# Images of one colour


def test_a_dead_camera_never_scores_lowest(trained: Detector) -> None:
    usual = trained.predict(parts(4, 2)).image_scores
    dead = [BLACK, GREY, WHITE, GREEN, *(np.full((40, 48, 3), v, np.uint8) for v in (1, 40, 70, 160))]
    found = trained.predict(dead).image_scores
    assert found.min() > usual.max()
    batch = trained.transform.normalise(np.stack([trained.transform.resize(i) for i in dead]))
    np.testing.assert_allclose(trained.predict_batch(batch).image_scores, found, rtol=1e-4)
    mixed = trained.predict([*parts(4, 2), *dead]).image_scores
    np.testing.assert_allclose(mixed[:4], usual, rtol=1e-5)  # what stands beside them is not touched
    np.testing.assert_allclose(mixed[4:], found, rtol=1e-4)


def test_a_saved_detector_knows_it_too(tmp_path: Path) -> None:
    for train in (parts(3, 0), [WHITE] * 3, [*parts(3, 0), WHITE]):
        detector = create_method("padim", **FAST["padim"]).fit(train)
        detector.save(tmp_path / "d")
        again = andon.load(tmp_path / "d")
        assert again.report.n_constant == detector.report.n_constant == sum(i is WHITE for i in train)
        np.testing.assert_array_equal(again.predict(BLACK).image_scores, detector.predict(BLACK).image_scores)


@pytest.mark.parametrize("name", FAST)
def test_a_fit_on_images_of_one_colour_says_so(name: str, tmp_path: Path) -> None:
    method = create_method(name, **dict(FAST[name]))

    def notes(images: Any) -> list[str]:
        detector = method.fit(images)
        return [n for n in detector.report.notes if "one colour" in n or "alike" in n]

    assert notes(parts(3, 0)) == []
    one, alike = notes([GREY] * 3)
    assert one.startswith("all 3 training images are of one colour")
    assert alike.startswith("all 3 training images are alike")
    if name != "efficientad":  # it refuses them: what it normalises its maps by are quantiles of good images
        assert [n.split(" training")[0] for n in notes([GREY, *parts(5, 0)])] == ["1 of 6"]
    assert [n.split(":")[0] for n in notes(parts(1, 0) * 3)] == ["all 3 training images are alike"]


def test_the_notes_are_there_when_features_come_from_the_cache(tmp_path: Path) -> None:
    from andon.data import ArrayCache

    method = create_method("padim", **FAST["padim"])
    found = [method.fit(Images([GREY, BLACK, *parts(2, 0)], ArrayCache(tmp_path))).report.notes for _ in range(2)]
    assert found[0] == found[1]
    assert any(n.startswith("2 of 4 training images are of one colour") for n in found[0])


def test_thumbnails_of_blank_parts() -> None:
    """2·√(Σ (a − b)²) over pixels in 0..1 between two images of one colour, by hand."""

    def expected(a: FloatArray | tuple[int, ...], b: FloatArray | tuple[int, ...]) -> float:
        return float(2 * np.sqrt(48 * 48 * np.square((np.array(a, float) - np.array(b, float)) / 255).sum()))

    detector = create_method("thumbnail-nn").fit([np.full((48, 48, 3), 200, np.uint8)])
    found = detector.predict([BLACK, GREY, WHITE, np.full((9, 9, 3), 200, np.uint8), GREEN])
    grey = (200, 200, 200)
    by_hand = [expected(c, grey) for c in ((0, 0, 0), (127, 127, 127), (255, 255, 255), grey, (0, 135, 0))]
    np.testing.assert_allclose(found.image_scores, by_hand, rtol=1e-6)
    assert found.image_scores[3] == 0
    assert found.anomaly_maps is not None
    np.testing.assert_allclose(np.sqrt(np.square(found.anomaly_maps).sum((1, 2))), found.image_scores, rtol=1e-5)
    two = create_method("thumbnail-nn").fit([*parts(2, 0), np.full((48, 48, 3), 200, np.uint8)])
    np.testing.assert_array_equal(two.predict([BLACK, GREY]).image_scores, found.image_scores[:2])


def test_thumbnails_as_they_are_compared_know_their_farthest() -> None:
    noise_images = [np.random.default_rng(i).integers(0, 256, (48, 48, 3), dtype=np.uint8) for i in range(6)]
    for standardise in (True, False):
        detector = create_method("thumbnail-nn", standardise=standardise).fit(noise_images[:3])
        usual, dead = detector.predict(noise_images[3:]).image_scores, detector.predict([GREY, BLACK]).image_scores
        assert dead.min() > usual.max(), "the mean of noise is nearer to noise than noise is"
        np.testing.assert_allclose(dead, (2 if standardise else 1) * np.sqrt(48 * 48 * 3), rtol=1e-6)


# Options


@pytest.mark.parametrize("name", ["draem", "dsr"])
def test_focal_gamma(name: str) -> None:
    from andon.core import ConfigError
    from andon.training.losses import focal_loss

    for gamma in (1e-9, 0.5, 0.999):
        with pytest.raises(ConfigError, match=f"{name}: option 'focal_gamma'.*must be 0 or at least 1"):
            create_method(name, focal_gamma=gamma)
    for gamma in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match=f"{name}: option 'focal_gamma'"):
            create_method(name, focal_gamma=gamma)
    for gamma in (0.0, 1.0, 1.5, 2.0):
        create_method(name, focal_gamma=gamma)
        # A certain pixel, right and wrong.
        logits = torch.tensor([[[[0.0, 100.0]], [[100.0, 0.0]]]], requires_grad=True)
        for target in (0, 1):
            focal_loss(logits.softmax(1), torch.full((1, 1, 2), target), gamma).backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        assert bool(logits.grad.isfinite().all())
