"""Packing measurements into passes."""

from hypothesis import given
from hypothesis import strategies as st

from lightning_inf.sweep.measurements import DerivativeAt, GradientNormAt, LossAt, OutputsAt
from lightning_inf.sweep.plan import plan
from tests.checkpoint_stub import stub


class Direction:
    def __init__(self, key):
        self.key = key


def everything(checkpoints, directions):
    asked = []
    for c in range(checkpoints):
        checkpoint = stub(f"c{c}", c)
        asked += [OutputsAt(checkpoint), LossAt(checkpoint), GradientNormAt(checkpoint)]
        for d in range(directions):
            direction = Direction(f"c{c}d{d}")
            asked += [LossAt(checkpoint, direction), DerivativeAt(checkpoint, direction)]
    return asked


@given(st.integers(1, 5), st.integers(0, 7), st.integers(1, 30))
def test_every_measurement_once_and_memory_kept(checkpoints, directions, room):
    asked = everything(checkpoints, directions)
    passes = plan(asked * 2, parameter_bytes=10, memory=10 * room)
    made = [m.key for work in passes for m in work.measurements]
    assert sorted(made) == sorted({m.key for m in asked})
    for work in passes:
        assert len(work.checkpoints) + len(work.directions) <= max(room, 2)
        for point in work.points:
            assert all(m.moved is point.moved or m.moved.key == point.moved.key for m in point.measurements)


def test_one_pass_where_memory_allows():
    assert len(plan(everything(5, 6), parameter_bytes=10, memory=10_000)) == 1


def test_the_same_question_has_the_same_name_and_another_has_not():
    first, again = (plan(everything(2, 2), 10)[0].key for _ in range(2))
    assert first == again
    assert plan(everything(2, 3), 10)[0].key != first


def test_displaced_losses_are_points_of_their_own():
    (work,) = plan(everything(1, 2), 10)
    assert sorted(len(point.measurements) for point in work.points) == [1, 1, 5]
