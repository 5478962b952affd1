"""The loop that takes every step of a session, one after the other.

One thing leads to another: what was put lets others be put, and the end of a push that of its parts. These steps lie on
one stack, which `run` empties, depth first and in the order of the plan; none takes the next by itself, so that a
plan may be as deep as it likes. A machine is moved by a step, and once where it is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import attrs

from regproto._engine.push_state import Key, Node
from regproto._machines.base import Machine, Verdict

Step: TypeAlias = tuple[Callable[..., object], tuple[Any, ...]]


@attrs.define(kw_only=True, eq=False, repr=False)
class Loop:
    """The stack of steps; the graph, which is made of it, knows what each of them is."""

    nodes: dict[Key, Node] = attrs.field(factory=dict)
    """What is not there yet."""
    stack: list[Step] = attrs.field(factory=list)
    """What is to be done next, the first of it last. Empty between two calls from outside."""

    def run(self, step: Callable[..., object], *args: Any) -> None:
        """Take a step from outside, and all that follow from it."""
        try:
            step(*args)
            if self.stack:
                self._drain()
        except BaseException:
            self.stack.clear()
            raise

    def _drain(self) -> None:
        stack, height = self.stack, 0
        while stack:
            if len(stack) - height > 1:
                stack[height:] = stack[: height - 1 if height else None : -1]  # what was asked for first comes first
            step, args = stack.pop()
            height = len(stack)
            step(*args)

    def then(self, step: Callable[..., object], *args: Any) -> None:
        """Have a step taken after the present one, and after those asked for before with all that follows from them."""
        self.stack.append((step, args))

    # --- what the graph does, for the parts that ask it to ---

    def move(self, machine: Machine, verdict: Verdict) -> None:
        """Take an outcome to a machine, and what follows from the state it comes to rest in to everyone concerned."""
        raise NotImplementedError

    def enter_state(self, machine: Machine) -> None:
        """Do what the state a machine rests in asks for."""
        raise NotImplementedError

    def release(self, node: Node) -> None:
        """A node has no user any more: nobody waits for it."""
        raise NotImplementedError

    def release_followers(self, node: Node) -> None:
        """Nothing of a node is waited for any more: it is there, or will not be."""
        raise NotImplementedError

    def inherit(self, node: Node, looked: bool) -> None:
        """The pushes that are left go on with what they have themselves."""
        raise NotImplementedError
