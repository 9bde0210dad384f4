"""A bound on what requests hold together."""

import asyncio

from helmd.web.http.memory_budget import MemoryBudget
from tests.waiting import WITHIN


async def settled() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_who_does_not_fit_waits_in_order() -> None:
    budget = MemoryBudget(10)
    let_in: list[str] = []

    async def come(name: str, amount: int) -> None:
        await budget.acquire(amount)
        let_in.append(name)

    await budget.acquire(8)
    tasks = [asyncio.create_task(come(name, amount)) for name, amount in (("a", 5), ("b", 1), ("c", 4))]
    await settled()
    assert let_in == [], "b would fit, but a was first"
    budget.release(8)
    await settled()
    assert let_in == ["a", "b", "c"]
    await asyncio.gather(*tasks)


async def test_what_is_larger_than_all_takes_all() -> None:
    budget = MemoryBudget(10)
    await budget.acquire(25)
    other = asyncio.create_task(budget.acquire(1))
    await settled()
    assert not other.done()
    budget.release(25)
    await asyncio.wait_for(other, WITHIN)


async def test_what_was_spread_others_wait_for() -> None:
    budget = MemoryBudget(10)
    await budget.acquire(5)
    budget.overdraw(20)
    other = asyncio.create_task(budget.acquire(1))
    await settled()
    assert not other.done()
    budget.release(5, 20)
    await asyncio.wait_for(other, WITHIN)


async def test_who_goes_away_leaves_the_place_to_the_next() -> None:
    budget = MemoryBudget(10)
    await budget.acquire(10)
    gone, next_one = asyncio.create_task(budget.acquire(10)), asyncio.create_task(budget.acquire(4))
    await settled()
    gone.cancel()
    await settled()
    budget.release(10)
    await asyncio.wait_for(next_one, WITHIN)
    late = asyncio.create_task(budget.acquire(10))
    await settled()
    budget.release(4)
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)
    await asyncio.wait_for(budget.acquire(10), WITHIN)
