"""Launches of a kernel on buffers that belong to the harness, whose values and addresses change from call to call.

Cold: as many prepared states, inputs and outputs as it takes to pass through more than three times the last-level
cache before one is used again. Warm: two sets of buffers, taken by turns from block to block. In both, one set gets
new input values before each block and a poisoned output that is checked after it, so a kernel that stores its output,
or stops working once it has been checked, is found out. So is one that writes to its inputs: copies are kept of them.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ridgeline.analytical.problem import NO_STRUCTURE, Problem, Structure
from ridgeline.bench.checks import Checker, IncorrectError, poison
from ridgeline.bench.devices.unit import Session
from ridgeline.bench.memory import affordable_slots, refuse_beyond_memory
from ridgeline.kernels.registry import (
    Context,
    Implementation,
    Operator,
    RegistryError,
    Run,
    Tensors,
    Unsupported,
)

COLD_FACTOR = 3.0
"""Times the last-level cache that a rotation passes through (energy-measurement and L2-flush practice of the field)."""
EVICT_FACTOR = 2.0
"""Times the last-level cache that passes before a launch whose buffers were touched to renew or check them: by the launches
before it, or written before a block whose copies do not pass through the cache."""
MOST_SLOTS = 4096
"""Prepared states at most. Where so many, or so many as memory holds, do not pass through the last-level cache (480 MiB on
some servers), each block begins with an emptied cache and comes to no buffer twice."""
CHECK_SHARE = 0.5
"""Checks between blocks take at most this share of the time spent in blocks; the first and the last always happen."""


@dataclass
class Slot:
    """One prepared state with its own inputs and output."""

    run: Run
    inputs: Tensors
    out: torch.Tensor
    hidden: Tensors = field(default_factory=dict)
    """Inputs of other ranks, which only the reference reads."""


class RotatingLaunches:
    """Launches over slots, checked between blocks."""

    def __init__(
        self,
        slots: list[Slot],
        checker: Checker,
        session: Session,
        *,
        cold: bool,
        cache_bytes: float,
        slot_bytes: float,
        structure: Structure = NO_STRUCTURE,
    ) -> None:
        self.structure = structure
        """What the inputs of every slot realise of the problem's data-dependent part."""
        self._slots = slots
        self._session = session
        self._checker = checker
        self._cold = cold
        self._slot_bytes = slot_bytes
        self._cache_bytes = cache_bytes
        self._evict = (
            session.place({"evict": torch.ones(int(EVICT_FACTOR * cache_bytes) // 4)})["evict"]
            if cold and not self.stays_cold
            else None
        )
        self._next = 0
        self._cycle = itertools.cycle(slots)
        self._watched = slots[0]
        self._given: dict[str, torch.Tensor] = {}
        self._block_s = self._check_s = 0.0
        self._block_began = 0.0
        self._due: int | None = None
        """Number of the launch that is checked next; ``None`` for none."""

    @property
    def stays_cold(self) -> bool:
        """Whether launches stay cold however many follow each other."""
        return self._cold and passes_through_caches(len(self._slots), self._slot_bytes, self._cache_bytes)

    def must_stay_cold(self) -> None:
        """Raise Unsupported for cold launches of which not as many as one likes may follow each other."""
        if self._evict is not None:
            raise Unsupported(
                f"{len(self._slots)} copies of {self._slot_bytes:.0f} bytes, as many as there may be, stay in a cache of "
                f"{self._cache_bytes:.0f}: compare it warm"
            )

    @property
    def rotation(self) -> int:
        """Launches after which the same buffers come again."""
        return len(self._slots) if self._cold else 1

    def launch(self, count: int) -> None:
        for slot in itertools.islice(self._cycle, count):
            slot.run(slot.inputs, slot.out)
        if self._cold:
            self._next += count

    def affords_check(self) -> bool:
        """Whether the next block can be checked within the share of time that checks may take."""
        return self._check_s <= CHECK_SHARE * self._block_s

    def before_block(self, count: int, check: bool | None = None) -> None:
        """Get ready for a block; ``check`` says whether it is checked where this process does not decide that.

        Raises:
            Unsupported: where the block would come back to buffers that are still in the cache.
        """
        check = self.affords_check() if check is None else check
        if self._evict is not None:
            if count > len(self._slots):
                raise Unsupported(
                    f"a cold block of {count} launches comes twice to its {len(self._slots)} copies of "
                    f"{self._slot_bytes:.0f} bytes, which stay in a cache of {self._cache_bytes:.0f}: measure it warm"
                )
            if check:
                self._await_check(self._next + count - 1)
            # Written, so that dirty lines of the buffers are pushed out too.
            self._evict.add_(1.0)
        elif self._cold:
            if check and self._due is None:
                # Its buffers lie in the cache now; when its turn comes the launches before it have pushed them out.
                # Emptying the cache here instead made a matrix-vector product of 10 MB 6 to 11 % slower.
                self._await_check(self._next + math.ceil(EVICT_FACTOR * self._cache_bytes / self._slot_bytes))
        else:
            # A block stays on one slot; the next block moves on, so that addresses change.
            self._next = (self._next + 1) % len(self._slots)
            self._watched = self._slots[self._next]
            self._cycle = itertools.cycle([self._watched])
            if check:
                self._await_check(self._next)
            self._watched.run(self._watched.inputs, self._watched.out)
            if check:
                poison(self._watched.out)
        self._session.settle()
        self._block_began = time.monotonic()

    def after_block(self) -> None:
        self._block_s += time.monotonic() - self._block_began
        if self._due is not None and (not self._cold or self._due < self._next):
            self._due = None
            self._check("while timing")

    def _await_check(self, due: int) -> None:
        began = time.monotonic()
        self._due = due
        self._watched = self._slots[due % len(self._slots)]
        self._renew(self._watched)
        self._check_s += time.monotonic() - began

    def check_all_ways(self, when: str) -> None:
        """Renew, poison, launch and check two slots; before timing and after it."""
        self._due = None
        for slot in self._slots[:2]:
            self._renew(slot)
            slot.run(slot.inputs, slot.out)
            self._watched = slot
            self._check(when)

    def _renew(self, slot: Slot) -> None:
        """New input values: each tensor that may be is rolled by a random offset, which keeps its distribution."""
        # In the order of their names: ranks draw the same offsets, although each holds back other inputs.
        for name, tensor in sorted({**slot.inputs, **slot.hidden}.items()):
            # Kept from block to block: the pages of a new copy of 64 MB take longer to get than to fill.
            given = self._given.get(name)
            if given is None or given.shape != tensor.shape:
                given = self._given[name] = torch.empty_like(tensor)
            if tensor.numel() > 1 and name not in self._checker.operator.fixed_inputs:
                offset = int(torch.randint(1, tensor.numel(), (1,), generator=self._checker.generator))
                roll_into(given, tensor, offset)
                tensor.copy_(given)
            else:
                given.copy_(tensor)
        poison(slot.out)

    def _check(self, when: str) -> None:
        began = time.monotonic()
        for name, tensor in self._watched.inputs.items():
            if not torch.equal(bits_of(tensor), bits_of(self._given[name])):
                raise IncorrectError(f"{when}: the kernel wrote to its input {name!r}")
        self._checker.check(self._given, self._watched.out, when)
        self._check_s += time.monotonic() - began


def passes_through_caches(slots: int, slot_bytes: float, cache_bytes: float) -> bool:
    """Whether so many sets of buffers pass through the last-level cache often enough before the first comes again."""
    return (slots - 1) * slot_bytes >= COLD_FACTOR * cache_bytes


def slot_count(problem: Problem, cold: bool, cache_bytes: float) -> int:
    """Sets of buffers that a case rotates through."""
    if not cold:
        return 2
    return min(MOST_SLOTS, max(2, math.ceil(COLD_FACTOR * cache_bytes / problem.footprint_bytes()) + 1))


def make_launches(
    operator: Operator,
    problem: Problem,
    implementation: Implementation,
    session: Session,
    *,
    threads: int,
    cold: bool,
    cache_bytes: float,
    seed: int,
    rank: int = 0,
    ranks: int = 1,
    config: Mapping[str, Any] | None = None,
    memory_limit_bytes: float | None = None,
) -> tuple[RotatingLaunches, Checker, float]:
    """Make inputs, prepare the implementation once per slot, and bind both.

    Returns:
        The launches, their checker, and the seconds the first ``prepare`` took.

    Raises:
        TooLargeError: where it does not fit in memory; nothing has been allocated.
        Unsupported: from ``prepare``.
    """
    generator = torch.Generator().manual_seed(seed)
    slot_bytes = problem.footprint_bytes()
    count = slot_count(problem, cold, cache_bytes)
    seen = operator.of_rank(rank)

    def fit(slots: int, emptying_bytes: float) -> None:
        refuse_beyond_memory(
            seen, problem, session, slots=slots, eviction_bytes=emptying_bytes, limit_bytes=memory_limit_bytes
        )

    count = affordable_slots(fit, count, EVICT_FACTOR * cache_bytes if cold else 0.0)
    constants = operator.make_constants(problem, generator)
    operator = seen
    hides = operator.hidden_inputs(problem)
    context = Context(session.torch_device, threads, config or {}, rank, ranks)
    slots: list[Slot] = []
    structure = NO_STRUCTURE
    prepare_s = 0.0
    for index in range(count):
        if index == 0 or constants:
            own = session.place({name: tensor.clone() for name, tensor in constants.items()})
            began = time.monotonic()
            run = session.bind(implementation.prepare(problem, own, context))
            session.synchronize()
            prepare_s = prepare_s or time.monotonic() - began
        if index < 2:
            made = operator.make_inputs(problem, generator)
            found = operator.structure(problem, constants, made)
            if index and found != structure:
                raise RegistryError(
                    f"operator {operator.name}: two sets of inputs of one problem differ in structure: "
                    f"draw it with the problem's seed, not with the generator of the inputs"
                )
            structure = found
            inputs = session.place({name: tensor for name, tensor in made.items() if name not in hides})
            hidden: Tensors = {name: tensor for name, tensor in made.items() if name in hides}
        else:
            inputs = _shifted(operator, slots[index % 2].inputs, index)
            hidden = _shifted(operator, slots[index % 2].hidden, index)
        slots.append(Slot(run, inputs, session.place({"out": operator.make_output(problem)})["out"], hidden))
    checker = Checker(operator, problem, constants, generator, tolerance_of(operator, implementation, problem))
    launches = RotatingLaunches(
        slots, checker, session, cold=cold, cache_bytes=cache_bytes, slot_bytes=slot_bytes, structure=structure
    )
    return launches, checker, prepare_s


def tolerance_of(operator: Operator, implementation: Implementation, problem: Problem) -> float:
    """Accepted relative error; that of TF32 (10 bits of significand) where the implementation computes in it."""
    relative = operator.tolerance(problem).relative
    return max(relative, 2e-3) if implementation.tf32 else relative


def _shifted(operator: Operator, inputs: Tensors, by: int) -> Tensors:
    """Copies of ``inputs`` whose elements are rolled by ``by``: other values at another address, cheaper than new."""
    return {
        name: tensor.clone() if name in operator.fixed_inputs else rolled(tensor, by) for name, tensor in inputs.items()
    }


def rolled(tensor: torch.Tensor, by: int) -> torch.Tensor:
    return bits_of(tensor).reshape(-1).roll(by).view(tensor.dtype).reshape(tensor.shape)


def roll_into(target: torch.Tensor, source: torch.Tensor, by: int) -> None:
    """:func:`rolled` into a tensor of the same shape and dtype that is there already."""
    if target.is_contiguous() and source.is_contiguous():
        to, of = bits_of(target).view(-1), bits_of(source).view(-1)
        to[:by].copy_(of[of.numel() - by :])
        to[by:].copy_(of[: of.numel() - by])
    else:
        target.copy_(rolled(source, by))


def bits_of(tensor: torch.Tensor) -> torch.Tensor:
    """Elements of one byte as integers: torch 2.11 can neither roll nor compare float8 on CUDA."""
    return tensor.view(torch.uint8) if tensor.element_size() == 1 else tensor
