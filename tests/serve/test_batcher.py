"""Micro-batching: together, in order, bounded, and each error to its own request."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ClassVar

import pytest

from fastrec.serve import ServeSettings
from fastrec.serve.batcher import PLACE, Batcher, Cost, Place
from fastrec.serve.calls import Call, answer
from fastrec.serve.engine import in_thread
from fastrec.serve.metrics import Metrics
from fastrec.serve.model import Model
from fastrec.serve.problems import Problem


def run(scenario):
    """scenario(batcher maker) in a loop with a thread of its own."""

    async def inside():
        with ThreadPoolExecutor(1) as pool:
            await asyncio.wait_for(
                scenario(lambda work, **s: Batcher(partial(in_thread, pool, work), ServeSettings(**s), Metrics())), 30
            )

    asyncio.run(inside())


def test_what_gathers_while_the_model_works_goes_together():
    sizes, go = [], threading.Event()

    def work(asks):
        sizes.append(len(asks))
        go.wait(10)
        return [a * 2 for a in asks]

    async def scenario(make):
        batcher = make(work, target=10.0)
        asked = [asyncio.ensure_future(batcher.ask(1, i)) for i in range(20)]
        await asyncio.sleep(0.05)
        go.set()
        assert [result for result, _, _ in await asyncio.gather(*asked)] == [2 * i for i in range(20)]
        assert sizes == [1, 19]  # the first waits for nobody

    run(scenario)


def test_who_was_let_in_counts_until_he_stands_in_the_queue():
    go = threading.Event()

    def work(asks):
        go.wait(10)
        return [None] * len(asks)

    async def scenario(make):
        batcher = make(work, max_batch=4)
        first = asyncio.ensure_future(batcher.ask(1, 0))
        await asyncio.sleep(0.02)
        batcher.cost.fixed = 1.0  # a second call would come too late
        places = []
        for _ in range(4):
            batcher.check_door()
            places.append(Place(batcher))
        with pytest.raises(Problem):
            batcher.check_door()
        assert not batcher._waiting

        async def asks(place):
            PLACE.set(place)
            return await batcher.ask(1, 1)

        taken = [asyncio.ensure_future(asks(place)) for place in places[:3]]
        await asyncio.sleep(0.02)
        assert (batcher.coming, len(batcher._waiting)) == (1, 3)
        assert places[3].leave() and not places[3].leave() and batcher.coming == 0
        go.set()
        await asyncio.gather(first, *taken)

    run(scenario)


def test_in_a_crowd_the_door_opens_late_in_a_call():
    go = threading.Event()

    def work(asks):
        go.wait(10)
        return [None] * len(asks)

    async def scenario(make):
        batcher = make(work, max_batch=20, target=0.1)
        running = asyncio.ensure_future(batcher.ask(1, 0))
        await asyncio.sleep(0.02)

        def may_enter(since):
            """Whether the door is open so many seconds after the call has begun."""
            batcher.cost.fixed, batcher.cost.each = 0.02, 0.001
            batcher._running_users, batcher._running_since = 20, time.perf_counter() - since
            try:
                batcher.check_door()
            except Problem:
                return False
            return True

        assert may_enter(0.0) and batcher.tight == 1  # there is room in the next call
        for _ in range(40):  # slow answers while nobody is refused: the model is slow, and waiting less helps nobody
            batcher._took = [0.2] * 50
            batcher._steer()
        assert batcher.tight == 1
        batcher._took, batcher._refused = [0.2] * 50, 50  # not more than were taken: no place shall stay empty
        batcher._steer()
        assert batcher.tight == 1
        for _ in range(40):
            batcher._took, batcher._refused = [0.2] * 50, 99
            batcher._steer()
        assert 0.05 < batcher.tight < 0.2
        assert not may_enter(0.0) and may_enter(0.02)
        for _ in range(20):
            batcher._took, batcher._refused = [0.01] * 50, 99
            batcher._steer()
        assert 0.2 < batcher.tight < 1
        go.set()
        await running
        for _ in range(40):  # calls that could have had more
            await batcher.ask(1, 0)
        assert batcher.tight == 1

    run(scenario)


def test_no_batching_is_one_at_a_time():
    sizes = []

    def work(asks):
        sizes.append(len(asks))
        return [None] * len(asks)

    async def scenario(make):
        batcher = make(work, batching=False, target=10.0)
        await asyncio.gather(*[batcher.ask(1, i) for i in range(5)])
        assert sizes == [1] * 5

    run(scenario)


def test_a_full_queue_refuses_with_the_seconds_to_wait():
    go = threading.Event()

    def work(asks):
        go.wait(10)
        return [None] * len(asks)

    async def scenario(make):
        batcher = make(work, max_queue=3, target=10.0)
        asked = [asyncio.ensure_future(batcher.ask(1, i)) for i in range(4)]
        await asyncio.sleep(0.02)
        with pytest.raises(Problem) as refused:
            await batcher.ask(1, 4)
        assert refused.value.status_code == 503 and int(refused.value.headers["Retry-After"]) >= 1
        go.set()
        await asyncio.gather(*asked)
        await batcher.ask(1, 5)  # and takes again

    run(scenario)


def test_the_door_closes_where_the_answer_would_come_too_late():
    def work(asks):
        time.sleep(0.03)
        return [None] * len(asks)

    async def scenario(make):
        batcher = make(work, target=0.1, max_batch=1)
        for i in range(5):
            await batcher.ask(1, i)
        asked = [asyncio.ensure_future(batcher.ask(1, i)) for i in range(50)]
        done = await asyncio.gather(*asked, return_exceptions=True)
        refused = sum(isinstance(d, Problem) for d in done)
        assert 25 <= refused <= 49  # about three of fifty fit into the target

    run(scenario)


def test_a_call_that_does_not_end_holds_nobody_beyond_the_deadline():
    go = threading.Event()

    def work(asks):
        go.wait(20)
        return [None] * len(asks)

    async def scenario(make):
        batcher = make(work, timeout=0.1, target=10.0)
        first = asyncio.ensure_future(batcher.ask(1, 0))
        await asyncio.sleep(0.02)
        batcher.check_door()
        waits = asyncio.ensure_future(batcher.ask(1, 1))
        with pytest.raises(Problem, match="deadline"):
            await asyncio.wait_for(waits, 5)
        with pytest.raises(Problem) as refused:  # and so says /health/ready
            batcher.check_door()
        assert refused.value.status_code == 503
        go.set()
        await asyncio.wait_for(first, 5)
        batcher.check_door()
        await asyncio.wait_for(batcher.ask(1, 2), 5)
        assert batcher.idle and batcher._users == 0

    run(scenario)


def test_the_deadline():
    def work(asks):
        time.sleep(0.2)
        return [None] * len(asks)

    async def scenario(make):
        batcher = make(work, timeout=0.05, target=10.0)
        first, late = (asyncio.ensure_future(batcher.ask(1, i)) for i in range(2))
        await first
        with pytest.raises(Problem, match="deadline"):
            await late

    run(scenario)


def test_a_request_whose_client_has_gone_is_not_computed():
    seen, go = [], threading.Event()

    def work(asks):
        seen.extend(asks)
        go.wait(10)
        return [None] * len(asks)

    async def scenario(make):
        batcher = make(work, target=10.0)
        asked = [asyncio.ensure_future(batcher.ask(1, i)) for i in range(3)]
        await asyncio.sleep(0.02)
        asked[1].cancel()
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(asked[0], asked[2])
        assert seen == [0, 2]
        assert batcher.idle

    run(scenario)


def test_a_failed_call_fails_its_requests_and_the_next_one_runs():
    def work(asks):
        if asks[0] == 0:
            raise MemoryError("no room")
        return list(asks)

    async def scenario(make):
        batcher = make(work)
        with pytest.raises(MemoryError):
            await batcher.ask(1, 0)
        assert (await batcher.ask(1, 7))[0] == 7

    run(scenario)


def test_the_cost_of_a_call_is_learned():
    cost = Cost()
    for users in (1, 8, 2, 32, 4, 16) * 5:
        cost.learn(users, 0.02 + 0.001 * users)
    assert cost.fixed == pytest.approx(0.02, rel=0.01) and cost.each == pytest.approx(0.001, rel=0.01)
    assert cost.most(0.0505) == 30 and cost.most(0.001) == 1
    same = Cost()
    for _ in range(10):
        same.learn(4, 0.04)
    assert same.of(4) == pytest.approx(0.04) and same.of(8) > 0.04


@pytest.fixture(scope="module")
def answers(rec):
    """calls -> what each of them gave, as one batch."""
    model = Model.of(rec)
    return lambda calls: answer(model, calls).results


PLAIN = {"filter_seen": True, "allow": None, "deny": None, "where": None, "boost": None, "diversity": 0.0}
PLAIN |= {"at": None, "explain": False, "on_unknown": "fallback"}


def test_batched_answers_are_those_of_calls_alone(answers):
    kinds = [
        Call("recommend", ["u1"], 3, PLAIN),
        Call("recommend", ["u2", "nobody"], 12, PLAIN),
        Call("recommend", ["u3"], 3, {**PLAIN, "diversity": 0.5}),
        Call("recommend", ["u3"], 4, {**PLAIN, "diversity": 0.5}),
        Call("recommend", ["u4"], 3, {**PLAIN, "where": {"category": "food"}}),
        Call("recommend", ["u5"], 3, {**PLAIN, "where": {"category": "food"}}),
        Call("recommend", ["u6"], 3, {**PLAIN, "explain": True}),
        Call("recommend", ["u7", "nobody"], 3, {**PLAIN, "on_unknown": "skip"}),
        Call("recommend_for_history", [["i1"]], 3, PLAIN),
        Call("recommend_for_history", [["i2", "i4"], ["i3"]], 3, PLAIN),
        Call("recommend_for_text", ["red apple"], 3, PLAIN),
        Call("recommend_for_text", ["steel hammer"], 15, PLAIN),
        Call("similar_items", ["i1"], 3, {"by": None, "where": None}),
        Call("similar_items", ["i2"], 30, {"by": None, "where": None}),
        Call("rank", ["u1"], 3, {}, candidates=["i1", "i2", "i3"]),
        Call("rank", ["u2"], 2, {}, candidates=["i5", "i6"]),
        Call("rank", ["u1"], 4, {}, candidates=["i9", "i8", "i7", "i6"]),
        Call("recommend", ["u8"], 3, PLAIN, arrow=True),
    ]
    alone = [answers([call])[0] for call in kinds]
    for order in (kinds, kinds[::-1]):
        together = answers(order)
        assert together == [alone[kinds.index(call)] for call in order]
    assert all(isinstance(a, tuple) for a in alone)


def test_an_error_is_told_to_its_own_request_only(answers):
    calls = [
        Call("similar_items", ["i1"], 3, {"by": None, "where": None}),
        Call("similar_items", ["nothing"], 3, {"by": None, "where": None}),
        Call("recommend", ["u1"], 3, {**PLAIN, "where": {"no column": 1}}),
        Call("recommend", ["u1"], 3, PLAIN),
    ]
    got = answers(calls)
    assert [type(g).__name__ for g in got] == ["tuple", "UnknownIdError", "ConfigError", "tuple"]


def test_calls_of_one_window_are_one_call_of_the_recommender(rec):
    class Counting:
        user_ids, item_ids = rec.user_ids, rec.item_ids
        asked: ClassVar = []

        def recommend(self, users, k, **keywords):
            self.asked.append((list(users), k))
            return rec.recommend(users, k, **keywords)

    found = answer(Model.of(Counting()), [Call("recommend", [f"u{i}"], 3 + i, PLAIN) for i in range(5)])
    assert (len(found.results), found.groups) == (5, 1)
    assert Counting.asked == [(["u0", "u1", "u2", "u3", "u4"], 10)]
