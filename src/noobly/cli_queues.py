"""``noobly queues``: look at queues, hold them back, empty them, and move messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from noobly.cli_reach import DEFAULT, Json, Place, reach, run
from noobly.cli_show import bar, show, show_json, write

if TYPE_CHECKING:
    from noobly.queueing import Queues

Queue = Annotated[str, Parameter(help="The queue.")]
Max = Annotated[int, Parameter(name="--max", help="How many at most.")]
Rate = Annotated[float | None, Parameter(help="Messages per second at most.")]
Yes = Annotated[bool, Parameter(help="Do it without asking.")]

_STEP = 1000
_SPARE = 10.0

queues_app = App(name="queues", help="Look at queues, hold them back, empty them, and move messages.")


@queues_app.command(name="list")
def list_queues(*, place: Place = DEFAULT, json: Json = False) -> None:
    """List the queues with what is in them."""

    async def work(queues: Queues) -> None:
        names = await queues.queues()
        with bar("asking", len(names)) as advance:
            found = []
            for name in names:
                found.append(await queues.stats(name))
                advance()
        show(found, json=json)

    run("queueing", reach("queueing", place), work)


@queues_app.command
def size(queue: Queue, /, *, place: Place = DEFAULT, json: Json = False) -> None:
    """Print how many messages wait in a queue."""

    async def work(queues: Queues) -> None:
        if json:
            show_json(await queues.stats(queue))
        else:
            write(str(await queues.size(queue)))

    run("queueing", reach("queueing", place), work)


@queues_app.command
def peek(
    queue: Queue,
    /,
    *,
    max: Max = 10,
    dead: Annotated[bool, Parameter(help="Show the queue's dead letters.")] = False,
    place: Place = DEFAULT,
    json: Json = False,
) -> None:
    """Show messages without delivering them."""

    async def work(queues: Queues) -> None:
        if dead:
            show(await queues.dead_letters(queue, max=max), json=json)
        else:
            show(await queues.peek(queue, max=max), json=json)

    run("queueing", reach("queueing", place), work)


@queues_app.command
def purge(
    queue: Queue,
    /,
    *,
    yes: Yes = False,
    place: Place = DEFAULT,
) -> None:
    """Delete all messages of a queue that nobody works on."""

    async def work(queues: Queues) -> None:
        waiting = await queues.size(queue)
        if not yes and not _sure(f"Delete {waiting} messages of queue {queue!r}?"):
            return
        write(f"Deleted {await queues.purge(queue)} messages of queue {queue!r}.")

    run("queueing", reach("queueing", place), work)


@queues_app.command
def pause(queue: Queue, /, *, place: Place = DEFAULT) -> None:
    """Deliver no more messages of a queue to anybody."""

    async def work(queues: Queues) -> None:
        await queues.pause(queue)
        write(f"Queue {queue!r} is held back; `noobly queues resume` lets it go on.")

    run("queueing", reach("queueing", place), work)


@queues_app.command
def resume(queue: Queue, /, *, place: Place = DEFAULT) -> None:
    """Deliver messages of a queue again."""

    async def work(queues: Queues) -> None:
        await queues.resume(queue)
        write(f"Queue {queue!r} goes on.")

    run("queueing", reach("queueing", place), work)


@queues_app.command
def redrive(
    queue: Annotated[str, Parameter(help="The queue that the dead letters came from.")],
    /,
    *,
    error: Annotated[str, Parameter(help="Only those whose error holds this text.")] = "",
    to: Annotated[str | None, Parameter(help="Where to send them; by default where they came from.")] = None,
    max: Max = 1000,
    rate: Rate = None,
    place: Place = DEFAULT,
    json: Json = False,
) -> None:
    """Send dead letters once more."""

    async def work(queues: Queues) -> None:
        done = await queues.redrive(queue, error=error, to=to, max=max, rate=rate)
        show_json(done) if json else write(f"Looked at {done.seen} dead letters and sent {done.moved} of them.")

    patience = None if rate is None or rate <= 0 else max / rate + _SPARE
    run("queueing", reach("queueing", place, patience=patience), work)


@queues_app.command
def move(
    queue: Queue,
    to: Annotated[str, Parameter(help="Where to send them.")],
    /,
    *,
    max: Max = 1_000_000,
    rate: Rate = None,
    place: Place = DEFAULT,
) -> None:
    """Send the messages of one queue to another instead."""

    async def work(queues: Queues) -> None:
        moved, left = 0, max
        step = _STEP if rate is None else min(_STEP, int(rate) + 1)  # About a second each, which a server may take.
        with bar(f"moving {queue}", min(max, await queues.size(queue))) as advance:
            while left > 0:
                done = await queues.move(queue, to, max=min(left, step), rate=rate)
                advance(done.seen)
                moved, left = moved + done.moved, left - done.seen
                if done.moved < step:
                    break
        write(f"Moved {moved} messages from queue {queue!r} to {to!r}.")

    patience = None if rate is None or rate <= 0 else 1 / rate + _SPARE
    run("queueing", reach("queueing", place, patience=patience), work)


@queues_app.command
def migrate(
    list: Annotated[str, Parameter(help="The key of the list that nooblyjs-core pushes to.")],
    queue: Annotated[str | None, Parameter(help="The queue to send to; by default it is named as the list.")] = None,
    /,
    *,
    source: Annotated[str, Parameter(name="--from", help="The Redis server with the list.")] = "redis://localhost:6379",
    place: Place = DEFAULT,
) -> None:
    """Move the messages of a nooblyjs-core Redis list to a queue; after an interruption, run it again."""
    target = list if queue is None else queue

    async def work(queues: Queues) -> None:
        from noobly.core.scope import Environment
        from noobly.queueing import migrating

        async with migrating.connected(source, Environment()) as client:
            with bar(f"moving {list}", await migrating.waiting(client, list)) as advance:
                moved = await migrating.migrate(client, list, queues, target, advance=advance)
        write(f"Moved {moved} messages from the list {list!r} to queue {target!r}.")

    run("queueing", reach("queueing", place), work)


def _sure(question: str) -> bool:
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
