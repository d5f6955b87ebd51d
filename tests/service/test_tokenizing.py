"""Long texts are tokenised beside the event loop, within bounds."""

import asyncio
import threading
from collections.abc import Callable

import pytest
from tokenizers import Tokenizer

from service.errors import DrainingError, QueueFullError, RequestTimeoutError
from service.tokenizer import TextInput, TextTokenizer
from service.tokenizing import TokenizingThreads

TEXTS = [TextInput(text="good film"), TextInput(text="bad")]


class Held(TextTokenizer):
    """Waits until it is let go."""

    go: threading.Event

    def encode(self, inputs, max_tokens):
        assert self.go.wait(timeout=30)
        return super().encode(inputs, max_tokens)


@pytest.fixture
def held(make_tokenizer: Callable[[], Tokenizer]) -> Held:
    tokenizer = Held(make_tokenizer())
    tokenizer.go = threading.Event()
    return tokenizer


def test_more_than_may_wait_is_refused_and_room_comes_back(held: Held) -> None:
    async def run() -> None:
        threads, ends_s = TokenizingThreads(max_items=3), asyncio.get_running_loop().time() + 30
        first = asyncio.ensure_future(threads.encode(held, TEXTS, 16, ends_s))
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError, match=r"2 texts wait to be tokenised \(limit 3\); try again later"):
            await threads.encode(held, TEXTS, 16, ends_s)
        held.go.set()
        assert [encoding.num_tokens for encoding in await first] == [4, 3]
        assert len(await threads.encode(held, [*TEXTS, TEXTS[0]], 16, ends_s)) == 3
        threads.close()

    asyncio.run(run())


def test_a_late_one_and_one_after_the_end_are_told(held: Held) -> None:
    async def run() -> None:
        threads, now_s = TokenizingThreads(max_items=2), asyncio.get_running_loop().time()
        with pytest.raises(RequestTimeoutError):
            await threads.encode(held, TEXTS, 16, now_s)
        held.go.set()
        threads.close()
        with pytest.raises(DrainingError):
            await threads.encode(held, TEXTS, 16, now_s + 30)

    asyncio.run(run())
