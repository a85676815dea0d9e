"""Scaling factors: what goes in comes out to the bit, and what is wrong is refused before anything happens."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import os
import pickle
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.bezier import curve_factors
from ropewalk.errors import DataError, FactorsError
from ropewalk.factors import SCHEMA, ScalingFactors

MODEL = {"name": "tiny", "num_layers": 4, "fingerprint": "abc"}
BASE = {"rope_type": "longrope", "rope_theta": 10000.0, "long_factor": [1.0, 2.5]}
FOUND = {"task": "kv", "seed": 0, "scores": {"U": [0.25, None]}}
VALUES = [1.1, None, 0.9, 1 / 3]
POSITIVE = st.floats(min_value=0, exclude_min=True, allow_infinity=False, allow_nan=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
OBJECT = st.dictionaries(st.text(), JSON, max_size=4)


def full() -> ScalingFactors:
    return ScalingFactors(VALUES, model=MODEL, base=BASE, found=FOUND)


def test_made_from_a_list_an_array_or_a_generator() -> None:
    expected = (1.0, 2.0, 0.5)
    for given_values in ([1, 2.0, 0.5], np.array(expected), (v for v in expected), np.float32(expected).tolist()):
        factors = ScalingFactors(given_values)
        assert factors.values == expected
        assert all(type(value) is float for value in factors)


def test_reads_like_a_sequence() -> None:
    factors = full()
    assert (len(factors), factors.num_layers, factors[2], list(factors)) == (4, 4, 0.9, VALUES)
    assert factors.rotary_layers == (0, 2, 3)
    np.testing.assert_array_equal(factors.to_array(), np.array([1.1, math.nan, 0.9, 1 / 3]))
    assert factors.to_array().dtype == np.float64


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([1.0, math.nan], "layer 1 is nan"),
        ([math.inf], "layer 0 is inf"),
        ([-math.inf], "layer 0 is -inf"),
        ([1.0, 0.0], "layer 1 is 0.0"),
        ([1.0, -0.0], "layer 1 is -0.0"),
        ([-1.0], "layer 0 is -1.0"),
        ([10**400], "expected a finite number > 0"),
        ([True], "layer 0 is True"),
        ([np.True_], "True"),
        (["1.0"], "layer 0 is '1.0'"),
        ([1j], "expected a number > 0"),
        ([Decimal(1)], "expected a number > 0"),
        ([[1.0, 2.0]], "layer 0 is [1.0, 2.0]"),
        (np.ones((2, 2)), "expected a number > 0"),
        ("1.0", "list with one number"),
        (b"1", "list with one number"),
        ({0: 1.0}, "list with one number"),
        (1.0, "list with one number"),
        (None, "list with one number"),
        ([], "at least one layer"),
        ([None, None], "at least one layer"),
    ],
)
def test_bad_values_are_refused(values: Any, says: str) -> None:
    with pytest.raises(FactorsError) as caught:
        ScalingFactors(values)
    assert says in str(caught.value)


@pytest.mark.parametrize("name", ["model", "base", "found"])
@pytest.mark.parametrize("content", [[1], "text", 1, {"a": math.nan}, {"a": object()}, {"a": {1, 2}}, {(1, 2): 3}])
def test_provenance_that_is_not_a_json_object_is_refused(name: str, content: Any) -> None:
    with pytest.raises(FactorsError, match=f"^{name}: "):
        ScalingFactors([1.0], **{name: content})


def test_frozen_outside_and_inside() -> None:
    model = copy.deepcopy(MODEL)
    factors = ScalingFactors(VALUES, model=model, base=BASE, found=FOUND)
    digest = factors.digest
    for name in ("values", "model", "base", "found", "_provenance", "digest", "anything"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(factors, name, {})
    with pytest.raises(dataclasses.FrozenInstanceError):
        del factors.values
    with pytest.raises(TypeError):
        factors.values[0] = 2.0  # type: ignore[index]
    model["name"] = "another"
    factors.model["name"] = "another"
    factors.base["long_factor"].append(3.0)
    factors.found["scores"]["U"][0] = 1.0
    factors.to_dict()["values"][0] = 9.0
    factors.to_array()[0] = 9.0
    assert factors.digest == digest
    assert (factors.model, factors.base, factors.found) == (MODEL, BASE, FOUND)


def test_equality_and_hash_follow_the_content() -> None:
    assert full() == full()
    assert len({full(), full(), ScalingFactors(VALUES)}) == 2
    assert full() != ScalingFactors(VALUES)
    assert full() != VALUES
    # 1 and 1.0 are equal in Python but not in the file: such objects must differ, or equal ones have unequal hashes
    assert ScalingFactors([1.0], found={"n": 1}) != ScalingFactors([1.0], found={"n": 1.0})
    assert pickle.loads(pickle.dumps(full())) == copy.deepcopy(full()) == full()  # noqa: S301 our own bytes


@given(st.lists(st.none() | POSITIVE, min_size=1).filter(any), OBJECT, OBJECT, OBJECT)
def test_dictionary_round_trip_is_exact(values: list, model: dict, base: dict, found: dict) -> None:
    factors = ScalingFactors(values, model=model, base=base, found=found)
    again = ScalingFactors.from_dict(json.loads(json.dumps(factors.to_dict())))
    assert again == factors
    assert again.values == tuple(values)
    assert (again.model, again.base, again.found) == (model, base, found)


def test_file_round_trip_is_exact_and_readable(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "factors.json"
    awkward = [0.1, 5e-324, np.nextafter(1, 2), 1.7976931348623157e308, None]
    factors = ScalingFactors(awkward, model=MODEL, base=BASE, found=FOUND)
    factors.save(path)
    assert ScalingFactors.load(path).values == tuple(awkward)
    assert ScalingFactors.load(str(path)) == factors
    document = json.loads(path.read_text())
    assert list(document) == ["schema", "values", "model", "base", "found", "digest"]
    content = {name: value for name, value in document.items() if name != "digest"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert document["digest"] == "sha256:" + hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("name", ["schema", "values", "model", "base", "found", "digest"])
def test_a_missing_field_is_refused(name: str) -> None:
    document = full().to_dict()
    del document[name]
    with pytest.raises(FactorsError, match="schema is None" if name == "schema" else f"missing: .*{name}"):
        ScalingFactors.from_dict(document)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("schema", "ropewalk.factors/2", "reads 'ropewalk.factors/1'"),
        ("schema", None, "reads 'ropewalk.factors/1'"),
        ("values", [1.1, None, 0.9, np.nextafter(1 / 3, 1)], "digest does not match"),
        ("values", [1.1, None, 0.9], "digest does not match"),
        ("values", [1.1, 1.0, 0.9, 1 / 3], "digest does not match"),
        ("values", {"0": 1.0}, "expected a list"),
        ("values", [math.nan], "layer 0 is nan"),
        ("model", MODEL | {"fingerprint": "abd"}, "digest does not match"),
        ("model", {}, "digest does not match"),
        ("model", None, "model: expected a JSON object"),
        ("base", BASE | {"rope_theta": 5e5}, "digest does not match"),
        ("base", [], "base: expected a JSON object"),
        ("found", {}, "digest does not match"),
        ("found", "by hand", "found: expected a JSON object"),
        ("digest", "sha256:" + "0" * 64, "digest does not match"),
        ("digest", None, "digest does not match"),
        ("comment", "extra", "unknown: ['comment']"),
    ],
)
def test_a_tampered_file_is_refused_and_named(tmp_path: Path, name: str, value: Any, says: str) -> None:
    path = tmp_path / "factors.json"
    path.write_text(json.dumps(full().to_dict() | {name: value}))
    with pytest.raises(FactorsError) as caught:
        ScalingFactors.load(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [("", "not JSON"), ("[1.0, 2.0]", SCHEMA), ("null", SCHEMA), ("{}", "schema is None"), (None, "no such file")],
)
def test_other_files_are_refused_by_name(tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "other.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(FactorsError) as caught:
        ScalingFactors.load(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "factors.json"
    full().save(path)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(DataError, match="No space left"):
        ScalingFactors.uniform(1.2, 4).save(path)
    assert ScalingFactors.load(path) == full()
    assert [entry.name for entry in tmp_path.iterdir()] == ["factors.json"]


def test_uniform() -> None:
    assert ScalingFactors.uniform(1.05, 3).values == (1.05,) * 3
    assert ScalingFactors.uniform(2, 4, rotary_layers=[1, 3]).values == (None, 2.0, None, 2.0)
    assert ScalingFactors.uniform(1, 3).is_identity
    assert not ScalingFactors.uniform(np.nextafter(1, 2), 3).is_identity
    assert ScalingFactors([None, 1.0]).is_identity


@pytest.mark.parametrize("factor", ["1.5", True, None, math.nan, 0, -1, [1.0]])
def test_uniform_refuses_what_is_no_factor(factor: Any) -> None:
    with pytest.raises(FactorsError):
        ScalingFactors.uniform(factor, 2)


@pytest.mark.parametrize(
    ("num_layers", "rotary_layers"), [(0, None), (-1, None), (4, []), (4, [1, 1]), (4, [2, 1]), (4, [4]), (4, [-1, 0])]
)
def test_bad_layer_indices_are_refused(num_layers: int, rotary_layers: list[int] | None) -> None:
    with pytest.raises(FactorsError, match=r"num_layers|rotary_layers"):
        ScalingFactors.uniform(1.0, num_layers, rotary_layers=rotary_layers)


POINTS = [(0.0, 0.8), (0.3, 1.3), (0.6, 1.2), (1.0, 0.9)]


@pytest.mark.parametrize("mode", ["depth", "uniform"])
def test_from_bezier_runs_from_the_first_scaled_rotary_layer_to_the_last(mode: Any) -> None:
    whole = ScalingFactors.from_bezier(POINTS, 24, mode=mode)
    assert whole.values == tuple(curve_factors(POINTS, 24, mode))
    assert (whole[0], whole[23]) == (0.8, 0.9)
    some = ScalingFactors.from_bezier(POINTS, 8, mode=mode, rotary_layers=[0, 1, 2, 4, 5, 6], skip_first=2)
    curve = curve_factors(POINTS, 4, mode)
    assert some.values == (1.0, 1.0, curve[0], None, curve[1], curve[2], curve[3], None)


def test_from_bezier_default_is_mode_depth() -> None:
    assert ScalingFactors.from_bezier(POINTS, 9).values == tuple(curve_factors(POINTS, 9, "depth"))


@pytest.mark.parametrize("skip_first", [-1, 4, 5])
def test_skip_first_must_leave_a_layer(skip_first: int) -> None:
    with pytest.raises(FactorsError, match="expected 0 to 3"):
        ScalingFactors.from_bezier(POINTS, 4, skip_first=skip_first)


def test_from_bezier_refuses_bad_points() -> None:
    with pytest.raises(FactorsError, match="y > 0"):
        ScalingFactors.from_bezier([(0, 1), (1, -1)], 4)


def test_matched_uniform_has_the_mean_of_the_rotary_layers() -> None:
    control = full().matched_uniform()
    assert control.rotary_layers == full().rotary_layers
    assert control[0] == pytest.approx(math.fsum([1.1, 0.9, 1 / 3]) / 3, rel=1e-15)
    assert len({value for value in control if value is not None}) == 1
    assert (control.model, control.base, control.found) == (MODEL, BASE, {})


def test_with_provenance_keeps_the_values() -> None:
    assert ScalingFactors(VALUES).with_provenance(model=MODEL, base=BASE, found=FOUND) == full()


def test_its_own_model_is_accepted_however_the_base_is_written() -> None:
    full().check_model(MODEL, BASE)
    full().check_model(MODEL, BASE | {"rope_theta": 10000, "long_factor": (1.0, 2.5)})
    ScalingFactors(VALUES).check_model(MODEL, BASE)  # made for any model


@pytest.mark.parametrize(
    ("model", "base", "says"),
    [
        (MODEL | {"fingerprint": "abd", "name": "other"}, BASE, "made for 'tiny', this model is 'other'"),
        (MODEL, BASE | {"rope_theta": 5e5}, "multiply the rope parameters"),
        (MODEL, {}, "multiply the rope parameters"),
    ],
)
def test_another_model_is_refused_unless_overridden(model: dict, base: dict, says: str) -> None:
    with pytest.raises(FactorsError) as caught:
        full().check_model(model, base)
    assert says in str(caught.value)
    assert "--any-model" in str(caught.value)
    full().check_model(model, base, any_model=True)


@pytest.mark.parametrize("any_model", [False, True])
def test_a_wrong_number_of_layers_is_refused_always(any_model: bool) -> None:
    with pytest.raises(FactorsError, match="4 factors for a model of 5 layers"):
        full().check_model(MODEL | {"num_layers": 5}, BASE, any_model=any_model)
