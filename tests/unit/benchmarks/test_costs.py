"""The least cost of a step, against cases counted by hand."""

import pytest

from harness.costs import Cost, Shapes, layer_flops, share_of_limits, stage1_cost, stage2_cost

# x of 3 (2 of it embeddings), 2 tasks, experts 3-4-5, towers 5-6-1, query network 3-7-5.
SHAPES = Shapes(inputs=3, embedded=2, tasks=2, expert_units=(4, 5), tower_units=(6,), query_units=7)


def test_layer_counts_forward_and_both_gradients():
    assert layer_flops(3, 5) == 2 * 3 * 5 * 3
    assert layer_flops(3, 5, input_gradient=False) == 2 * 3 * 5 * 2


def test_stage1_by_hand():
    # Expert: 3x4 forward and to the kernel, 2x4 to the embeddings; 4x5 three times.
    expert = 2 * 12 * 2 + 2 * 8 + 2 * 20 * 3
    # Gate: 3x2 twice, 2x2 to the embeddings.
    gate = 2 * 6 * 2 + 2 * 4
    # Tower: 5x6 and 6x1 three times each.
    tower = 2 * 30 * 3 + 2 * 6 * 3
    classifier = 2 * 10 * 3
    cost = stage1_cost(SHAPES, batch=10)
    assert cost.flops == 3 * expert + 2 * gate + 2 * 2 * tower + classifier
    weights = 3 * (16 + 25) + 2 * (36 + 7) + 2 * (5 + 6)
    assert cost.bytes == pytest.approx(7 * 4 * weights / 10)


def test_stage1_without_generic_predictions_passes_the_towers_once():
    cost = stage1_cost(SHAPES, batch=10)
    once = stage1_cost(Shapes(3, 2, 2, (4, 5), (6,), 7, generic=False), batch=10)
    assert cost.flops - once.flops == 2 * (2 * 30 * 3 + 2 * 6 * 3)


def test_stage2_by_hand():
    query = 2 * 21 * 2 + 2 * 35 * 3
    attention = 2 * 10 * 2
    gate = 2 * 6 * 2
    tower = 2 * 30 * 3 + 2 * 6 * 3
    weights = 21 + 35 + 36 + 7 + 15 + 6
    cached = stage2_cost(SHAPES, batch=10, cached=True)
    assert cached.flops == query + attention + gate + tower
    assert cached.bytes == pytest.approx(7 * 4 * weights / 10 + 4 * (3 + 3 * 5))
    backbone = 3 * (2 * 12 + 2 * 20)
    computed = stage2_cost(SHAPES, batch=10, cached=False)
    assert computed.flops - cached.flops == backbone


def test_shares_of_the_limits():
    shares = share_of_limits(Cost(100.0, 10.0), {"flops": 1000.0, "bandwidth": 1000.0}, 5.0)
    assert shares == {"flops": 0.5, "bandwidth": 0.05, "limit": 10.0}
