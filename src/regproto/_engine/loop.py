"""The loop that takes every step of a session, one after the other.

One step leads to others: a blob that is there lets a manifest be put, and the end of a push ends its machines. These
steps lie on one stack, which `run` empties, depth first and in the order of the plan; no step calls the next, so a plan
may be of any depth. A machine is moved by a step, and once where it is made.
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
    """The stack of steps; the graph, its subclass, has the steps themselves."""

    nodes: dict[Key, Node] = attrs.field(factory=dict)
    """The nodes that are not there yet."""
    stack: list[Step] = attrs.field(factory=list)
    """The steps to be taken, the next one last. Empty between two calls from outside."""

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
                stack[height:] = stack[: height - 1 if height else None : -1]  # the steps added first come first
            step, args = stack.pop()
            height = len(stack)
            step(*args)

    def then(self, step: Callable[..., object], *args: Any) -> None:
        """Have a step taken after the present one, and after those added before with all that follows from them."""
        self.stack.append((step, args))

    # --- steps that the graph has, for the parts that need them ---

    def move(self, machine: Machine, verdict: Verdict) -> None:
        """Give a machine an outcome, and take the steps that follow from the state it comes to rest in."""
        raise NotImplementedError

    def enter_state(self, machine: Machine) -> None:
        """Take the step that the state of a machine asks for."""
        raise NotImplementedError

    def release(self, node: Node) -> None:
        """Let the manifests go on that wait for a node without users."""
        raise NotImplementedError

    def release_followers(self, node: Node) -> None:
        """Let the blobs go on that follow a node: it is there, or will not be."""
        raise NotImplementedError

    def inherit(self, node: Node, looked: bool) -> None:
        """Start a node anew with the content of the pushes that still need it."""
        raise NotImplementedError
