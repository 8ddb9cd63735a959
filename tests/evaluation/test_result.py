"""FPR limits are numbers, in JSON too as far as it can."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from andon.evaluation import DefectTypeMetrics, Evaluation, ImageMetrics, LocalisationMetrics

LIMIT = st.floats(0, 1, exclude_min=True)


def evaluation(values):
    return Evaluation(
        image=ImageMetrics(n_good=1, n_defective=1),
        localisation=LocalisationMetrics(n_channels=1, auspro=values, aupro=values),
        defect_types={"dent": DefectTypeMetrics(n=1, auspro=values)},
    )


@given(st.dictionaries(LIMIT, st.floats(0, 1)))
def test_json_gives_the_same_limits_back(values):
    written = evaluation(values)
    assert written.localisation.auspro == values
    assert Evaluation.model_validate_json(written.model_dump_json()) == written
    through_json = json.loads(json.dumps(written.model_dump(mode="json")))
    assert Evaluation.model_validate(through_json) == written
    assert Evaluation.model_validate(written.model_dump()) == written
    assert list(through_json["localisation"]["auspro"]) == [repr(limit) for limit in values]


def test_records_written_before_are_read():
    """Their keys have 12 digits; the limits that were asked for are known to who reads a record."""
    old = {"0.05": 0.5, "1": 0.75, "0.333333333333": 0.625}
    read = evaluation(old)
    assert read.localisation.auspro == {0.05: 0.5, 1.0: 0.75, 0.333333333333: 0.625}
    whole = read.with_limits([1 / 3, 0.05, 1.0])
    for values in (whole.localisation.auspro, whole.localisation.aupro, whole.defect_types["dent"].auspro):
        assert values == {0.05: 0.5, 1.0: 0.75, 1 / 3: 0.625}
    assert whole.with_limits([1 / 3, 0.05, 1.0]) is whole


@given(st.lists(LIMIT, unique_by=lambda limit: f"{limit:.12g}", min_size=1))
def test_any_old_record_gets_its_limits_back(limits):
    old = evaluation({f"{limit:.12g}": k / len(limits) for k, limit in enumerate(limits)})
    assert list(old.with_limits(limits).localisation.auspro) == limits


@pytest.mark.parametrize("limit", ["a", "", "nan", "0", "1.5", "inf", -0.5, None])
def test_what_is_no_limit_is_refused(limit):
    with pytest.raises(ValidationError):
        evaluation({limit: 0.5})
