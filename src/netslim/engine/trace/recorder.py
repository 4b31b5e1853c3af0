"""The recorder: a network is run, and what it does is written onto a tape.

The model is run on the example input under a dispatch mode (dispatch.py). Nothing has to be traced symbolically, so
whatever runs in eager mode can be recorded. It is run once; again in the other mode, with gradients, or with another
answer to whether a tensor is true, where its code asks for these, because then it may do something else. What is lost:
a Python integer that the code computed from a shape looks the same as one written in it, so the slim network is
recorded again afterwards, in the same runs, and compared (replay.py).
"""

from __future__ import annotations

import dis
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from netslim.engine.trace import meta_kernels
from netslim.engine.trace.branches import untaken
from netslim.engine.trace.dispatch import Kernels, Rescue, Writer
from netslim.engine.trace.modes import ONE_AT_A_TIME, no_numbers, note_questions, note_running, tracing_modes
from netslim.engine.trace.outside import Answers
from netslim.engine.trace.random_state import kept_generators
from netslim.engine.trace.survivors import computed, held_elsewhere, outliving, unexpected, withdraw
from netslim.engine.trace.tape import Run, Tape
from netslim.modules import Network, call, tensors_in

RUNS = 24  # at most, because of answers


def record(
    network: Network,
    example_input: Any,
    *,
    modes: tuple[bool, ...] = (False,),
    passes: list[Run] | None = None,
    kernels: Kernels | None = None,
    rescue: Rescue | None = None,
    made_up: bool = False,
) -> tuple[Tape, str]:
    """Run the model and write down what it did.

    network: a copy that nobody else uses; the run may change it. modes: do its containers train? Where it asks, it is
    run in each of these modes, and what the later runs do beside the first is written behind it. passes: instead,
    those of another recording. kernels: the model's parameters and floating-point buffers are on the meta device; the
    input is put there, and operations that have a shortcut take it. rescue: what to go on with where an operation
    fails, if anything; what it was is on the tape as a failure. made_up: an operation that needs numbers and has
    none gets made-up ones.

    Returns the tape and an error message, empty if all runs came to their end. The random state is restored; the tape
    of a run that failed holds the operations up to the failure.
    """
    tape = Tape(on_meta=kernels is not None, made_up=made_up)
    with ONE_AT_A_TIME:
        recording = _Recording(network, example_input, Writer(tape, network, kernels, rescue))
        try:
            if passes is None:
                recording.explore(modes)
                recording.hold_branches()
            for run in passes or ():
                recording.run(run)
        except Exception as error:  # the caller decides: a bad example input, or a size written in the code
            return tape, f"{type(error).__name__}: {error}"
        finally:
            recording.clear_up()
    return tape, ""


class _Recording:
    def __init__(self, network: Network, example_input: Any, writer: Writer) -> None:
        self.network, self.example_input, self.writer, self.tape = network, example_input, writer, writer.tape
        self.ran = set[str | None]()  # modules that were run
        self.unsettled = set[str]()  # modules that asked for more truths than were tried

    def explore(self, modes: tuple[bool, ...]) -> None:
        """All runs in which the network may do something else."""
        for training in modes:
            asked, answers = self.run(first := Run(training))
            both = [(first, answers)]
            if asked.gradients:
                more, answers = self.run(second := Run(training, gradients=True))
                asked.mode |= more.mode
                both.append((second, answers))
            for run, answers in both:
                self.answer_otherwise(run, answers)
            if not asked.mode:
                break

    def answer_otherwise(self, run: Run, answers: Answers) -> None:
        """Run again for every place that asked whether a tensor is true, and let it hear the opposite, once."""
        ahead, seen = [answers], set[Any]()
        while ahead:
            given = ahead.pop(0)
            for i, (place, module, answer) in enumerate(given.heard):
                if i < len(given.forced) or place in seen:
                    continue
                seen.add(place)
                if len(self.tape.passes) >= RUNS:
                    self.unsettled.add(module or "")
                    continue
                forced = (*(truth for _, _, truth in given.heard[:i]), not answer)
                other = self.attempt(Run(run.training, run.gradients, forced), module or "")
                ahead += [] if other is None else [other]

    def attempt(self, run: Run, module: str) -> Answers | None:
        """A run that may fail: because the code refuses what it was told, or because that is not so."""
        before = len(self.tape.nodes)
        try:
            return self.run(run)[1]
        except Exception as error:
            del self.tape.nodes[before:], self.tape.runs[-1]
            if not _deliberate(error):
                self.unsettled.add(module)
            return None

    def run(self, run: Run) -> Any:
        """One forward pass: what it has asked for, and the answers that it was given."""
        tape, modules = self.tape, self.network.modules
        own = partial(torch.empty_like, device=meta_kernels.META) if tape.on_meta else torch.clone
        given = tree_map_only(Tensor, own, self.example_input)  # some networks overwrite their input
        inputs = [t for t in tree_leaves(given) if isinstance(t, Tensor)]
        tape.runs.append(len(tape.nodes))
        self.writer.start(inputs)
        answers = Answers(run.answers)
        with (
            kept_generators(lambda: self.writer.drew),
            tracing_modes(modules, run.training),
            torch.set_grad_enabled(run.gradients),
            note_questions(modules) as asked,
            note_running(modules, self.writer.running, self.ran),
            no_numbers() if tape.on_meta else nullcontext(),
            self.writer.overhear(answers) if self.writer.has_numbers else nullcontext(),
            self.writer,
        ):
            result = computed(call(self.network.model, given))
        self.write_outputs(result, inputs)
        tape.passes.append(Run(run.training, run.gradients, tuple(answer for _, _, answer in answers.heard)))
        return asked, answers

    def write_outputs(self, result: Any, inputs: list[Tensor]) -> None:
        """What outlives the run: the result, and all that somebody else holds or that was written into."""
        number, tape = self.writer.number, self.tape
        for tensor in [*tensors_in(result), *self.network.state.values()]:
            if id(tensor) in number:
                self.writer.look_at(tensor)
        returned = [number[id(t)] for t in tensors_in(result) if id(t) in number]
        known = {id(t) for t in [*tensors_in(result), *inputs, *self.network.state.values()]}
        attributes = map(vars, self.network.modules.values())
        held = {number[id(tensor)] for tensor in outliving(self.writer.memory.values(), known, attributes)}
        gradients = {number[id(t.grad)] for t in self.network.state.values() if id(t.grad) in number}
        others = (held | gradients) - self.writer.given - {*returned, *tape.outputs}
        tape.outputs += [*returned, *sorted(others)]

    def clear_up(self) -> None:
        """No tensor of the recording stays with others than the copy that was recorded."""
        number, given = self.writer.number, self.writer.given
        held = held_elsewhere(self.writer.memory.values())
        known = {id(tensor) for tensor in held if number[id(tensor)] in given}
        self.writer.memory.clear()
        left = unexpected(held, known, map(vars, self.network.modules.values()))
        del held
        if left:
            withdraw(left)

    def hold_branches(self) -> None:
        """What code reads that was not run this time."""
        for why, numbers in untaken(self.tape, self.network, self.ran, sorted(self.unsettled)).values():
            self.tape.held += [(why, number) for number in sorted(numbers)]


def _deliberate(error: Exception) -> bool:
    """Was it raised by a `raise` or an `assert` in Python?"""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return at is not None and dis.opname[at.tb_frame.f_code.co_code[at.tb_lasti]] == "RAISE_VARARGS"
