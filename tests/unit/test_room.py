"""A bound on what requests hold together."""

import asyncio

from helmd.web.http.memory_budget import Room


async def settled() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_who_does_not_fit_waits_in_order() -> None:
    room = Room(10)
    let_in: list[str] = []

    async def come(name: str, amount: int) -> None:
        await room.enter(amount)
        let_in.append(name)

    await room.enter(8)
    tasks = [asyncio.create_task(come(name, amount)) for name, amount in (("a", 5), ("b", 1), ("c", 4))]
    await settled()
    assert let_in == [], "b would fit, but a was first"
    room.leave(8)
    await settled()
    assert let_in == ["a", "b", "c"]
    await asyncio.gather(*tasks)


async def test_what_is_larger_than_all_takes_all() -> None:
    room = Room(10)
    await room.enter(25)
    other = asyncio.create_task(room.enter(1))
    await settled()
    assert not other.done()
    room.leave(25)
    await asyncio.wait_for(other, 1)


async def test_what_was_spread_others_wait_for() -> None:
    room = Room(10)
    await room.enter(5)
    room.spread(20)
    other = asyncio.create_task(room.enter(1))
    await settled()
    assert not other.done()
    room.leave(5, 20)
    await asyncio.wait_for(other, 1)


async def test_who_goes_away_leaves_the_place_to_the_next() -> None:
    room = Room(10)
    await room.enter(10)
    gone, next_one = asyncio.create_task(room.enter(10)), asyncio.create_task(room.enter(4))
    await settled()
    gone.cancel()
    await settled()
    room.leave(10)
    await asyncio.wait_for(next_one, 1)
    late = asyncio.create_task(room.enter(10))
    await settled()
    room.leave(4)
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)
    await asyncio.wait_for(room.enter(10), 1)
