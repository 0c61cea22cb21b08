"""One score decided alone, beside the curve of the bundle."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serving.curve import OneScore
from ssad.bundle import REGIONS
from ssad.bundle.intervals import ConfidenceCurve, Floats, Thresholds

scores = st.floats(-1e300, 1e300)


@st.composite
def curves(draw: st.DrawFn) -> ConfidenceCurve:
    """Any curve: knots in ascending order, confidence that never rises."""
    normal, abnormal = sorted(draw(st.tuples(scores, scores)))

    def knots() -> tuple[Floats, Floats]:
        at = sorted(draw(st.lists(scores, max_size=5)))
        value = sorted((draw(st.floats(-1, 1)) for _ in at), reverse=True)
        return np.array(at), np.array(value)

    return ConfidenceCurve(Thresholds(normal, abnormal), {region: knots() for region in REGIONS})


@given(curves(), st.data())
def test_one_score_is_decided_as_it_is_among_others(curve: ConfidenceCurve, data: st.DataObject) -> None:
    edges = [curve.thresholds.normal, curve.thresholds.abnormal, *(x for at, _ in curve.knots.values() for x in at)]
    score = data.draw(scores | st.sampled_from(edges))
    code, confidence = OneScore(curve)(float(score))
    assert code == curve.thresholds.codes(np.array([score]))[0]
    assert confidence == curve(np.array([score]))[0]
