"""Plans: which frames become sources, their order in the stream, and budgets that are kept."""

import numpy as np
import pytest

from circling import COUNT, PICTURES, SURVEY
from iwcodec.codec.file import source_plan as plans
from iwcodec.codec.file.source_plan import (
    ATTEMPTS,
    BEST_CRF,
    CRF,
    FINE_CRF,
    SMALLER_CRF,
    SPENT,
    WORST_CRF,
    Plan,
    before,
    closer_crf,
    code,
    dense_plan,
    finer_crf,
    fitted,
    sparse_plan,
    wanted,
    worst_crf,
)
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.sources.av1 import SourceDecoder
from stub_runtime import SIZE


def test_wanted_pictures_come_in_the_order_asked_for():
    frames = (40, 3, 17)
    found = list(wanted(frames, lambda: PICTURES, hold=True))
    assert [number for number, _ in found] == [40, 3, 17]
    assert all(picture is PICTURES[number] for number, picture in found)
    assert [n for n, _ in wanted((3, 17, 40), lambda: iter(PICTURES), hold=False)] == [3, 17, 40]


def test_sources_precede_the_motion_that_uses_them():
    plan = dense_plan(30, 10)
    packets = code(plan, ((n, PICTURES[n]) for n in plan.frames), SIZE).packets
    assert [packet.frame for packet in packets] == [0, 10, 20]
    assert before(packets, plan, 5) == 2  # frame 0, and 10 for those between
    assert before(packets, plan, 11) == 3
    assert before(packets, plan, 30) == 3
    assert before(packets, sparse_plan(SURVEY, 2), 1) == 3  # upfront means all


def test_what_sources_look_like_is_known():
    plan = sparse_plan(SURVEY, 3, crf=30)
    coded = code(plan, wanted(plan.frames, lambda: PICTURES, hold=True), SIZE)
    decoder = SourceDecoder(SIZE)
    seen = [psnr(decoder.add(packet.payload), PICTURES[packet.frame or 0]) for packet in coded.packets]
    assert coded.shown_db == pytest.approx(np.mean(seen))


def test_quality_falls_as_the_budget_does():
    crfs = [finer_crf({CRF: 1000}, budget, 256) for budget in (4000.0, 1000.0, 500.0, 1.0)]
    assert crfs == sorted(crfs)
    assert crfs[1] == CRF + FINE_CRF  # under the budget, not just at it
    assert crfs[-1] == worst_crf(256)


def test_below_the_worst_quality_pictures_get_smaller():
    size = 128
    grown = [np.kron(picture, np.ones((2, 2, 1), np.uint8)) for picture in PICTURES]
    plan = Plan((0, 30), WORST_CRF, True)
    sizes = [
        code(Plan(plan.frames, crf, True), wanted(plan.frames, lambda: grown, hold=True), size).size
        for crf in (WORST_CRF, WORST_CRF + SMALLER_CRF)
    ]
    assert sizes[1] < sizes[0]
    assert worst_crf(size) == WORST_CRF + SMALLER_CRF
    assert worst_crf(SIZE) == WORST_CRF  # nothing smaller can be coded


@pytest.mark.parametrize("budget", [3000, 9000])
def test_the_budget_is_kept(budget: int):
    coded = fitted(dense_plan(COUNT, 3), lambda: PICTURES, SIZE, budget)
    assert budget * 0.95 < coded.size <= budget


def test_quality_that_spends_the_budget_is_found_in_few_steps():
    """Bytes fall by 7 % for each step of crf here, not by the 5.5 % that are thought of first."""
    tried: dict[float, int] = {}
    crf = 30.0
    for _ in range(4):
        tried[crf] = round(10_000 * np.exp(-0.07 * (crf - 40)))
        crf = finer_crf(tried, 10_000, 256)
    assert any(SPENT * 10_000 <= size <= 10_000 for size in tried.values())
    assert all(crf % FINE_CRF == 0 for crf in tried)
    assert finer_crf({40.0: 10_000}, 1e9, 256) == BEST_CRF
    assert finer_crf({40.0: 10_000}, 1.0, 256) == worst_crf(256)


@pytest.mark.parametrize("budget", [4200, 5000, 5340, 5666, 6100, 6300, 7000])
@pytest.mark.parametrize("begin", [58.0, 62.0, 63.0, 64.0, 69.0])
def test_quality_is_found_where_pictures_get_smaller(begin: float, budget: int):
    """A clip's 32 sources take 5569 bytes at crf 63, and smaller ones 6711 at the next step."""
    crfs = [58, 60, 61, 62, 62.5, 63, 63.25, 64, 65, 66, 67, 68, 69]
    takes = [8471, 7479, 6947, 6252, 6139, 5569, 6711, 6355, 6096, 5585, 5278, 4827, 4082]
    tried: dict[float, float] = {}
    crf = begin
    while len(tried) < ATTEMPTS and crf not in tried:
        tried[crf] = float(np.interp(crf, crfs, takes))
        if SPENT * budget <= tried[crf] <= budget:
            break
        crf = closer_crf(tried, budget, 256)
    assert max(size for size in tried.values() if size <= budget) >= 0.95 * budget


def test_slots_begin_anew_where_they_end(monkeypatch: pytest.MonkeyPatch):
    """After 65,536 sources: twenty minutes of a stream of them."""
    monkeypatch.setattr(plans, "MAX_SLOT", 2)
    coded = code(dense_plan(5, 1), ((n, PICTURES[n]) for n in range(5)), SIZE)
    assert [packet.slot for packet in coded.packets] == [0, 1, 2, 0, 1]
