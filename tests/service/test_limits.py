"""Whatever is done to the keys file, who is in it when it is read is let in, and a reading fills nobody's bucket."""

from dataclasses import dataclass, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from service.errors import ForbiddenError, NotEnabledError, RateLimitedError, UnauthenticatedError
from service.gate import Gate
from service.keys import Key, KeyRing, Scope, make_key
from service.limits import InForce, changes, renew
from service.rates import Bucket, Rate

GENERAL = Rate(number=2, period_s=3600)


def made(name: str, rate: str | None = None, scope: Scope = Scope.USER, secret: str = "s") -> tuple[str, Key]:
    return make_key(name, scope, rate, lambda size: f"{name}{secret}" * size)


def ring(*keys: tuple[str, Key]) -> KeyRing:
    return KeyRing(keys=tuple(key for _, key in keys))


def new_bucket(rate: Rate) -> Bucket:
    return Bucket(rate, lambda: 0.0)


def after(before: KeyRing, now: KeyRing, general: Rate | None = GENERAL) -> tuple[InForce, InForce]:
    first = renew(InForce(), before, general, new_bucket)
    return first, renew(first, now, general, new_bucket)


def test_a_key_that_is_the_same_keeps_its_bucket_wherever_it_stands_and_whatever_it_may_do() -> None:
    first, second = after(ring(made("a", "3/hour"), made("b")), ring(made("b", None, Scope.ADMIN), made("a", "3/hour")))
    assert second.buckets["a"] is first.buckets["a"]
    assert second.buckets["b"] is first.buckets["b"]
    assert second.ring.has_admin


def test_another_rate_hash_or_name_begins_anew() -> None:
    for now in (made("a", "4/hour"), made("a", None), made("a", "3/hour", secret="other"), made("b", "3/hour")):
        first, second = after(ring(made("a", "3/hour")), ring(now))
        assert first.buckets["a"] not in second.buckets.values()
        assert len(second.buckets) == 1


def test_the_same_rate_in_other_words_is_the_same() -> None:
    first, second = after(ring(made("a")), ring(made("a", "2/hour")))
    assert second.buckets["a"] is first.buckets["a"]


def test_keys_without_a_limit_have_no_bucket() -> None:
    first, second = after(ring(made("a", "3/hour")), ring(made("a"), made("b")), general=None)
    assert (first.buckets.keys(), second.buckets.keys()) == ({"a"}, set())


def test_who_is_asked_for_no_key_shares_one_bucket() -> None:
    assert renew(InForce(), KeyRing(), GENERAL, new_bucket).buckets[""].rate == GENERAL
    assert renew(InForce(), KeyRing(), None, new_bucket) == InForce()


def test_changes_in_words() -> None:
    before = ring(made("same"), made("rated", "3/hour"), made("gone"), made("rotated"))
    now = ring(made("new"), made("rotated", secret="other"), made("rated", "4/hour"), made("same"))
    assert str(changes(before, now)) == "new: new; gone: gone; changed: rotated, rated"
    assert str(changes(before, before)) == "none changed"


def test_of_many_changes_a_few_are_named() -> None:
    five, seven = (ring(*(made(f"k{number}") for number in range(size))) for size in (5, 7))
    assert str(changes(ring(), five)) == "new: k0, k1, k2, k3, k4"
    assert str(changes(seven, ring())) == "gone: k0, k1, k2, k3, k4 and 2 more"


@dataclass(frozen=True, kw_only=True)
class Line:
    """Of the keys file."""

    secret: str
    scope: Scope
    rate: int | None


NAMES, SECRETS, RATES = ("a", "b", "c"), ("s", "t"), (None, 1, 3)
LINES = st.builds(Line, secret=st.sampled_from(SECRETS), scope=st.sampled_from(Scope), rate=st.sampled_from(RATES))


class Gates(RuleBasedStateMachine):
    """A gate beside what it must have left for each key; time stands still, so nothing flows in."""

    @initialize(line=LINES)
    def begin(self, line: Line) -> None:
        self.file = {"a": line}
        self.lines: dict[str, Line] = {}
        self.left: dict[str, int] = {}
        self.gate = Gate(ring=self.ring(), rate=GENERAL, clock_s=lambda: 0.0)
        self.expect()

    def ring(self) -> KeyRing:
        lines = self.file.items()
        return ring(*(made(name, line.rate and f"{line.rate}/hour", line.scope, line.secret) for name, line in lines))

    def expect(self) -> None:
        def left(name: str, line: Line) -> int:
            former = self.lines.get(name)
            same = former is not None and replace(former, scope=line.scope) == line
            return self.left[name] if same else line.rate or GENERAL.number

        self.left = {name: left(name, line) for name, line in self.file.items()}
        self.lines = dict(self.file)

    @rule(name=st.sampled_from(NAMES), line=LINES)
    def write(self, name: str, line: Line) -> None:
        self.file[name] = line

    @precondition(lambda self: len(self.file) > 1)
    @rule(name=st.sampled_from(NAMES))
    def take_out(self, name: str) -> None:
        if len(self.file) > 1:
            self.file.pop(name, None)

    @rule()
    def read_again(self) -> None:
        self.gate.renew(self.ring())
        self.expect()

    @rule(name=st.sampled_from(NAMES), secret=st.sampled_from(SECRETS), path=st.sampled_from(("/v1/admin/x", "/v1/x")))
    def ask(self, name: str, secret: str, path: str) -> None:
        plain, _ = made(name, secret=secret)
        assert self.answer(plain, path) is self.expected(name, secret, is_admin=path == "/v1/admin/x")

    def answer(self, plain: str, path: str) -> type[Exception] | None:
        try:
            self.gate.admit(path, [(b"x-api-key", plain.encode())], "1")
        except (ForbiddenError, NotEnabledError, RateLimitedError, UnauthenticatedError) as error:
            return type(error)
        return None

    def expected(self, name: str, secret: str, *, is_admin: bool) -> type[Exception] | None:
        line = self.lines.get(name)
        if is_admin and not any(one.scope is Scope.ADMIN for one in self.lines.values()):
            return NotEnabledError
        if line is None or line.secret != secret:
            return UnauthenticatedError
        if is_admin and line.scope is not Scope.ADMIN:
            return ForbiddenError
        if not self.left[name]:
            return RateLimitedError
        self.left[name] -= 1
        return None


Gates.TestCase.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
TestGates = Gates.TestCase
