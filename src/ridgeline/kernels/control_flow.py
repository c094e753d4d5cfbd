"""Control flow of machine code: where it may branch, and which of it is a loop."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Instruction:
    """One instruction, with the address it may branch to. Addresses only need to be in order."""

    address: int
    opcode: str
    target: int | None = None
    operands: str = ""
    """As the listing has them."""
    falls_through: bool = True
    """Whether the next instruction may follow: not after an unconditional branch or the end of the program."""


def loops(instructions: Sequence[Instruction]) -> list[list[Instruction]]:
    """The natural loops, one for each header, each in the order of addresses.

    A branch backwards is no loop by itself: compilers move blocks that are seldom run to the end of the code and jump
    back from there. A loop is what can come round to its header: a depth-first search finds the branches to a block on
    the way to themselves, and the loop is all that reaches them without passing the header (Aho, Lam, Sethi, Ullman,
    Compilers, section 9.6).

    Args:
        instructions: in the order of addresses.
    """
    if not instructions:
        return []
    blocks, follows = _blocks(instructions)
    preceded: dict[int, list[int]] = {first: [] for first in blocks}
    for first, nexts in follows.items():
        for following in nexts:
            preceded[following].append(first)
    bodies: dict[int, set[int]] = {}
    for last, header in _back_edges(instructions[0].address, follows):
        body = bodies.setdefault(header, {header})
        waiting = [last]
        while waiting:
            block = waiting.pop()
            if block not in body:
                body.add(block)
                waiting += preceded[block]
    return [[i for first in sorted(body) for i in blocks[first]] for _, body in sorted(bodies.items())]


def branches(loop: Sequence[Instruction]) -> list[list[Instruction]]:
    """What of a loop's body stands behind a condition, so that not all warps need to execute it: an entry per branch.

    Of a conditional branch, all that is reached from the next instruction without passing the branch's goal, where that
    does not lead round the loop.
    """
    if not loop:
        return []
    blocks, follows = _blocks(loop)
    header = loop[0].address
    found = []
    for first in blocks:
        if len(follows[first]) != 2:
            continue
        goal, beside = follows[first]
        inside: set[int] = set()
        waiting = [beside]
        while waiting:
            reached = waiting.pop()
            if reached not in inside and reached != goal:
                inside.add(reached)
                waiting += follows[reached]
        if not inside & {header, first}:
            found.append([i for some in sorted(inside) for i in blocks[some]])
    return found


def _blocks(instructions: Sequence[Instruction]) -> tuple[dict[int, list[Instruction]], dict[int, list[int]]]:
    """Basic blocks by their first address, and the blocks that may follow each."""
    addresses = [i.address for i in instructions]

    def goal(branch: Instruction) -> int | None:
        """Address of the first instruction at or after what a branch names: a label has an address of its own."""
        place = len(addresses) if branch.target is None else bisect.bisect_left(addresses, branch.target)
        return addresses[place] if place < len(addresses) else None

    leaders = {instructions[0].address} | {address for i in instructions if (address := goal(i)) is not None}
    after = {a.address: b.address for a, b in itertools.pairwise(instructions)}
    leaders |= {after[i.address] for i in instructions if _ends_block(i) and i.address in after}
    blocks: dict[int, list[Instruction]] = {}
    first = instructions[0].address
    for i in instructions:
        if i.address in leaders:
            first = i.address
        blocks.setdefault(first, []).append(i)
    follows: dict[int, list[int]] = {}
    for first, block in blocks.items():
        last = block[-1]
        nexts = [address] if (address := goal(last)) is not None else []
        if last.falls_through and last.address in after:
            nexts.append(after[last.address])
        follows[first] = nexts
    return blocks, follows


def _ends_block(instruction: Instruction) -> bool:
    return instruction.target is not None or not instruction.falls_through


def _back_edges(entry: int, follows: dict[int, list[int]]) -> list[tuple[int, int]]:
    """Edges to a block that the search is still inside of: (from, to)."""
    edges: list[tuple[int, int]] = []
    done: set[int] = set()
    path = [entry]
    on_path = {entry}
    left = {entry: iter(follows[entry])}
    while path:
        following = next(left[path[-1]], None)
        if following is None:
            finished = path.pop()
            on_path.discard(finished)
            done.add(finished)
        elif following in on_path:
            edges.append((path[-1], following))
        elif following not in done:
            path.append(following)
            on_path.add(following)
            left[following] = iter(follows[following])
    return edges
