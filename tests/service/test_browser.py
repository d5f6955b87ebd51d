"""The pages in a real browser: their scripts run under their own policy, show what is so, and never run a text.

By hand, since it brings a browser's driver of 50 MB: `pip install 'sparsebert[browser]'` and a Chromium, as Debian's
package `chromium`; then `pytest -m browser`.
"""

import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

api = pytest.importorskip("playwright.sync_api", reason="run by hand: pip install 'sparsebert[browser]'")

from benchmarks.service_process import started  # noqa: E402
from service.keys import Key, Scope, make_key, write_line  # noqa: E402
from watching import wait_until  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="run by hand: install a Chromium (Debian: apt-get install chromium)"),
]
KEY, LATER = (make_key(name, Scope.USER, None, lambda size, name=name: name * size) for name in ("page", "later"))
GONE = "The service does not answer. Is it running?"
REFUSED = re.compile(r"Failed to load resource: (the server responded with a status of \d+|net::ERR_)")


@pytest.fixture(scope="module")
def browser() -> Iterator["api.Browser"]:
    # Chromium's sandbox is not for root; a proxy of the environment is not for this machine.
    flags = ["--no-proxy-server", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with api.sync_playwright() as driver, driver.chromium.launch(executable_path=CHROMIUM, args=flags) as running:
        yield running


class Page:
    """A tab, and what a reader sees of the page in it."""

    def __init__(self, tab: "api.Page") -> None:
        self.tab = tab
        self.complaints: list[str] = []
        tab.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))

    def rows(self, table: str) -> list[list[str]]:
        rows = self.tab.locator(f"#{table} tr").all()
        return [[cell.inner_text() for cell in row.locator("th, td").all()] for row in rows]

    def text(self, place: str) -> str:
        return self.tab.locator(f"#{place}").inner_text()

    def wait_for(self, place: str, text: str | re.Pattern[str]) -> None:
        shown = self.tab.locator(f"#{place}:visible")  # what is hidden may hold what was there before
        api.expect(shown).to_have_text(text)

    def sees(self, place: str) -> bool:
        return self.tab.locator(f"#{place}").is_visible()

    def ask(self, *texts: str) -> None:
        self.tab.fill("#texts", "\n".join(texts))
        self.tab.click("#go")

    def use_key(self, plain: str) -> None:
        self.tab.fill("#key", plain)
        self.tab.click("#key-form button")


@pytest.fixture
def open_page(browser: "api.Browser") -> Iterator[Callable[[str], Page]]:
    """Opens an address in a tab of its own; whatever the browser complains of there fails the test."""
    opened: list[Page] = []

    def open_one(url: str) -> Page:
        opened.append(Page(context.new_page()))
        opened[-1].tab.goto(url)
        return opened[-1]

    with browser.new_context() as context:
        context.set_default_timeout(30_000)
        yield open_one
        assert [told for page in opened for told in page.complaints if not REFUSED.match(told)] == []


@pytest.fixture
def page(open_page: Callable[[str], Page], service_url: str) -> Page:
    """That of a service of `reviews` with dense and sparse, and the pairs of `questions`, all loaded."""
    opened = open_page(service_url)
    opened.wait_for("asking", "Compare")
    return opened


def test_the_table_of_variants(page: Page) -> None:
    head, *rows = page.rows("variants")
    assert head[:4] == ["Variant", "State", "Precision", "Quality"]
    assert [row[:3] for row in rows] == [
        ["questions / dense", "ready", "fp32"],
        ["reviews / dense", "ready", "fp32"],
        ["reviews / sparse", "ready", "fp32"],
    ]
    assert page.tab.locator("#model").input_value() == "reviews"
    assert not page.sees("key-box")
    assert not page.sees("variants-problem")


def test_several_texts_are_compared(page: Page) -> None:
    page.ask("the good film", "  ", "an awful plot", "a film")
    page.wait_for("agreement", "All variants agree on 2 of 3 texts")
    head, *rows = page.rows("answers")
    assert head == ["Text", "dense", "sparse"]
    assert [row[0] for row in rows] == ["the good film", "an awful plot", "a film"]
    cards = page.tab.locator("#cards .card").all_inner_texts()
    assert re.fullmatch(r"dense\s+[\d.]+ ms\s+median of 5, baseline", cards[0])
    assert re.fullmatch(r"sparse\s+[\d.]+ ms\s+median of 5, [\d.]+× as fast as dense, agrees on 2 of 3 texts", cards[1])
    for cell in page.tab.locator("#answers td.answer").all():
        scores = [float(score) for score in re.findall(r"([\d.]+) %", cell.inner_text())]
        assert len(scores) == 2
        assert sum(scores) == pytest.approx(100, abs=0.2)
        assert cell.locator(".score.best").inner_text().split()[0] in ("positive", "negative")
        widths = [bar.evaluate("bar => bar.style.width") for bar in cell.locator("i").all()]
        assert [float(width.removesuffix("%")) for width in widths] == pytest.approx(scores, abs=0.06)


def test_one_text_of_many_that_splits_the_variants_is_not_rounded_away(page: Page) -> None:
    page.ask(*["awful plot"] * 220, "the good film")
    page.wait_for("agreement", "All variants agree on 220 of 221 texts")
    assert page.tab.locator("#answers tr.split").count() == 1
    assert "agrees on 220 of 221 texts" in page.text("cards")


def test_one_text_that_is_too_long_is_cut_and_that_is_told(page: Page) -> None:
    page.ask("good " * 40)
    page.wait_for("agreement", re.compile("All variants agree on [01] of 1 text$"))
    assert page.rows("answers")[1][1].endswith("cut to 16 tokens")


def test_repeats_are_those_that_are_asked_for(page: Page) -> None:
    page.tab.fill("#repeats", "3")
    page.ask("good")
    page.wait_for("agreement", re.compile("All variants agree"))
    assert "median of 3, baseline" in page.text("cards")


@pytest.mark.parametrize(
    "text",
    [
        "<script>document.title = 'run'</script>",
        "<img src=x onerror=\"document.title = 'run'\">",
        "</td></table><b>bold</b> & &lt;i&gt;",
        "\"'`${document.title = 'run'}",
    ],
)
def test_a_text_is_shown_as_it_is_and_never_run(page: Page, text: str) -> None:
    page.ask(text)
    page.wait_for("agreement", re.compile("All variants agree"))
    assert page.tab.locator("#answers td.text").all_inner_texts() == [text]
    assert page.tab.locator("#answers :is(script, img, b)").count() == 0
    assert page.tab.title() == "SparseBERT"


def test_a_refusal_is_told_in_the_service_s_words_and_the_next_request_answered(page: Page) -> None:
    page.ask("the good film")
    page.wait_for("agreement", re.compile("All variants agree"))
    page.ask("   ")
    page.wait_for("problem", re.compile(r"inputs is an empty list; .* \(status 400, request [\w.-]+\)"))
    assert not page.sees("result")
    page.ask("good\0film")
    page.wait_for("problem", re.compile(r"inputs\[0\] .*NUL.* \(status 400, request [\w.-]+\)"))
    page.ask("good")
    page.wait_for("agreement", re.compile("All variants agree"))
    assert not page.sees("problem")


def test_pairs_are_asked_line_by_line(page: Page) -> None:
    page.tab.select_option("#model", "questions")
    page.wait_for("asking", "Label")
    assert page.sees("pairs-box")
    assert not page.sees("repeats-box")
    page.tab.fill("#pairs", "a bad film\nthe plot")
    page.ask("the good film", "fine")
    page.wait_for("agreement", "dense on 2 texts")
    assert [row[0].split() for row in page.rows("answers")[1:]] == [
        ["the", "good", "film", "a", "bad", "film"], ["fine", "the", "plot"],
    ]  # fmt: skip


def test_the_description_is_read_under_its_policy(open_page: Callable[[str], Page], service_url: str) -> None:
    docs = open_page(f"{service_url}/docs")
    docs.tab.locator("#operations-inference-predict_v1_predict_post, .opblock").first.wait_for()
    assert docs.tab.locator(".opblock").count() >= 20


def write_keys(path: Path, *keys: tuple[str, Key]) -> None:
    path.write_text("".join(write_line(key) + "\n" for _, key in keys))
    path.chmod(0o600)


def test_a_service_with_keys_and_one_variant_to_its_end(
    open_page: Callable[[str], Page], tmp_path: Path, write_bundle: Callable[..., Path]
) -> None:
    write_bundle(tmp_path / "models", variant="dense")
    write_bundle(tmp_path / "models", variant="odd", golden_off_by=1.0)
    keys = tmp_path / "keys"
    write_keys(keys, KEY)
    with started(tmp_path / "models", "--threads", "1", "--api-keys", str(keys)) as service:
        page = open_page(service.url)
        page.wait_for("variants-problem", re.compile(r"a key is needed; .* \(status 401, request [\w.-]+\)"))
        assert page.sees("key-box")
        page.use_key("müll")
        page.wait_for("key-problem", "That is no key.")
        page.use_key("wrong")
        page.wait_for("variants-problem", re.compile("the key is none of this service"))
        page.use_key(KEY[0])
        page.wait_for("asking", "Label")
        assert not page.sees("key-box")
        assert not page.sees("variants-problem")
        dense, odd, reason = page.rows("variants")[1:]
        assert (dense[:2], odd[:2]) == (["reviews / dense", "ready"], ["reviews / odd", "failed"])
        assert "computes something else" in reason[0]
        page.ask("the good film")
        page.wait_for("agreement", "dense on 1 text")
        page.tab.reload()
        page.wait_for("asking", "Label")  # the key is kept
        write_keys(keys, LATER)
        service.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "gone: page" in service.log)
        page.ask("the good film")
        page.wait_for("problem", re.compile("the key is none of this service"))
        page.use_key(LATER[0])
        page.tab.locator("#key-box").wait_for(state="hidden")
        page.ask("the good film")
        page.wait_for("agreement", "dense on 1 text")
        service.process.terminate()
        assert service.ending()[0] == 0
        page.ask("the good film")
        page.wait_for("problem", GONE)
        assert not page.sees("result")
        assert page.tab.locator("#go").is_enabled()
