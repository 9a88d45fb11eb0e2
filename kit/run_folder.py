"""What a run writes, and how it goes on after a kill. Nothing here knows the method."""

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import time
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from kit import gpu
from kit.adapters import load_own_state, merged, own_state, save_adapter
from kit.alarms import Alarms
from kit.clock import Clock, spoken
from kit.errors import DeadEnd, UserError
from kit.files import (
    read_json,
    read_results,
    replace_file,
    save_checkpoint,
    write_json,
)
from kit.journal import Batches
from kit.low_bits import put_halves, take_halves
from kit.ownership import MARKER, Ownership, code_now, differ, refuse_study
from kit.ranks import gather, rank
from kit.shards import drop_other_halves, on_first_rank, own, stepped_here
from kit.trackers import Tracker, require

try:
    import fcntl
except ImportError:  # Windows: two processes in one folder are not noticed there
    fcntl = None

# options of a command, not of a run
NOW = ("fresh", "plan", "shard", "tokens_per_second", "save_minutes", "track", "show_every")
TOTALS = ("samples", "tokens", "trained", "timeouts")  # what a run counts as it goes
# of a line: the clock's, the machine's
MEASURED = ("seconds", "tokens_per_second", "memory", "left")


class RunFolder:
    """All that a run writes, so that it can be killed at any moment and go on to the same end.

    No randomness depends on what ran before it (derived_seed) and nothing but the weights and the
    optimiser is carried from step to step, so a run that repeats some steps from a saved state
    repeats them exactly on a CPU (a GPU's kernels need not). state/ holds the last two saved states
    and a journal of every batch of rollouts; one rank writes, all read.

    options: {name: value}, and content: {what: a hash or the like}, are what the run is. Raises
    UserError where the folder is somebody else's, or holds a run that differs in either.
    """

    def __init__(self, path: str, options: dict, content: dict, save_every: int, fresh=False):
        self.path, self.save_every = Path(path), save_every
        self.writes, self.stop, self.bar = rank() == 0, False, None
        self.totals, self.finished, self.saved = dict.fromkeys(TOTALS, 0), False, {}
        self.journal = Batches(self.path / "state" / "rollouts.jsonl")
        self.clock, self.alarms, self.tracker = Clock(), Alarms(), None
        self.save_minutes, self.saved_at = 20.0, time.time()
        gather(None)  # all ranks have looked at the folder as it was (check_options)
        if self.writes:
            self.open(options, content, fresh)
        gather(None)  # the other ranks wait until the folder is in order
        self.results = read_results(self.path)
        self.finished = bool(read_json(self.path / MARKER).get("finished"))
        if self.finished and not self.results:
            raise UserError(f"{path} is a finished run without its results.json: give --fresh")
        if not self.finished:
            self.go_on()

    def open(self, options: dict, content: dict, fresh: bool) -> None:
        """Take the folder over: a new run's, or this run's as it was left."""
        self.ownership = Ownership(self.path)
        refuse_study(self.ownership, options)
        going_on = self.ownership.begun() and not fresh
        if going_on:
            differ(self.path, self.ownership.marker, options, content)
            self.ownership.tell_of_changed_code()
            if self.ownership.marker.get("finished"):
                print(f"{self.path} is finished: nothing is done again (--fresh does it anew)")
                self.drop_state()  # what a kill has left of it; nothing else of the run changes
                return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.ownership.claim("state/lock")
            self.lock()
            if fresh:
                files = [f for f in self.ownership.marker["files"] if f != "state/lock"]
                for file in files:  # of a checkpoint that a kill cut off this one is listed alone
                    if file.endswith(".tmp/config.json"):
                        shutil.rmtree((self.path / file).parent, ignore_errors=True)
                self.ownership.remove(*files)
                if left := [f for f in files if os.path.lexists(self.path / f)]:
                    raise UserError(
                        f"{self.path / left[0]} lies behind a link, which a run does not follow to "
                        "remove anything: remove the link, or give another --out"
                    )
                self.ownership.forget(*files)
            self.ownership.marker |= {"options": options, "content": content, "finished": False}
            if not going_on:
                self.ownership.marker["code"] = code_now()
            self.ownership.write_marker()
            names = ("config.json", "metrics.jsonl", "state/rollouts.jsonl", "results.json")
            self.ownership.claim(*names)
            write_json(self.path / "config.json", options)
            for name in names[1:3]:
                (self.path / name).touch()
        except OSError as e:
            raise UserError(f"--out {self.path} cannot be written: {e.strerror}") from e

    def lock(self) -> None:
        """Two processes in one folder would spoil both runs: the first holds state/lock until it
        ends. Raises UserError, OSError."""
        (self.path / "state").mkdir(exist_ok=True)
        self.locked = (self.path / "state" / "lock").open("a")
        if fcntl is None:
            return
        try:
            fcntl.lockf(self.locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise UserError(
                f"another process is at work in {self.path}: wait for it, stop it, or give another "
                "--out"
            ) from None
        except OSError:
            pass  # a file system without locks

    def go_on(self) -> None:
        """Read the newest saved state and the journal; cut the log back to that state."""
        self.saved = self.load_state()
        self.totals |= self.saved.get("totals", {})
        self.start = time.time() - self.saved.get("seconds", 0.0)
        self.read_journal()
        metrics = self.path / "metrics.jsonl"
        if self.writes:
            os.truncate(metrics, min(self.saved.get("metrics", 0), metrics.stat().st_size))

    def still_to_do(self, stages: list) -> list:
        """The stages of a run, from the one whose state was saved last on."""
        saved = self.saved.get("phase", "").split(" ")[0]
        phases = [stage.phase for stage in stages]
        first = phases.index(saved) if saved else 0
        for phase in phases[:first]:
            self.clock.skips(phase)
        return stages[first:]

    def claim(self, *names: str) -> None:
        """Enter what is about to be written into the marker (Ownership.claim)."""
        if self.writes:
            self.ownership.claim(*names)

    def finish_with(self, figure) -> None:
        """The run is complete: its figure is drawn, its state and journal go, and nothing of it
        changes any more. figure(folder, results) draws RUN/figure.png."""
        if self.totals["timeouts"]:
            print(f"{self.totals['timeouts']} answers took too long to grade and counted as wrong")
        if self.writes:
            if self.tracker:
                self.tracker.close()
            self.claim("figure.png")
            figure(self.path, self.results)
            self.ownership.marker["finished"] = True  # before what it would go on from goes
            self.ownership.write_marker()
            self.locked.close()
            self.drop_state()

    def drop_state(self) -> None:
        """Remove what a finished run need not go on from."""
        if state := self.ownership.inside("state"):
            self.ownership.remove(*state)
            self.ownership.forget(*state)
            self.ownership.write_marker()

    def keep_ids(self, ids: dict[str, list[str]]) -> None:
        """RUN/questions.json: which rows of a data set are in which set (kit.questions.ids_of)."""
        if self.writes and ids and not self.finished:
            self.claim("questions.json")
            write_json(self.path / "questions.json", ids)

    # the journal of rollouts ----------------------------------------------------------------------
    def read_journal(self) -> None:
        self.journal.read(self.writes)

    def recall(self, key: str):
        """The batch of rollouts journalled under `key`, or None."""
        batch = self.journal.recall(key)
        if batch is None:
            self.clock.asks()
        else:
            self.clock.uncounted += len(batch)
        return batch

    def remember(self, key: str, batch: list[list[int]]) -> None:
        if self.writes:
            self.journal.remember(key, batch)
        self.clock.generated(batch)
        self.tell_time()

    # time left, and --track -----------------------------------------------------------------------
    def belongs_to(self, cfg) -> None:
        """The whole run is cfg's: what is left of it is told, states are saved by time too, and
        what is logged goes to its tracker. Raises UserError."""
        self.save_minutes = cfg.save_minutes
        self.clock.expect(cfg)
        if not self.finished:
            self.alarms.look_at_options(cfg)
            if cfg.track and self.writes:
                self.tracker = Tracker(self, cfg.track, options_of(cfg))

    def tell_time(self, phase: str = "") -> None:
        if self.clock.is_due(phase):
            print(self.clock.sentence(self.totals["samples"], len(self.results)), flush=True)

    # saved states ---------------------------------------------------------------------------------
    def save_state(self, phase: str, step: int, model, optimizer=None, teacher=None) -> None:
        """Keep everything that later steps depend on. The state before this one is kept too."""
        optimized = optimizer and own(optimizer).state
        states = [optimized.get(p) for p in model.parameters()] if optimizer else []
        states, low_bits = on_first_rank(states), on_first_rank(take_halves(model))
        if not self.writes:
            return
        state = {
            "phase": phase,
            "step": step,
            "model": own_state(model, model),
            "low_bits": low_bits,
            "optimizer": [state or {} for state in states],
            "teacher": teacher and own_state(teacher, model),
            "totals": self.totals,
            "seconds": time.time() - self.start,
            "metrics": (self.path / "metrics.jsonl").stat().st_size,
        }
        latest = self.path / "state" / "latest.pt"
        self.claim("state/latest.pt", "state/latest.pt.tmp", "state/previous.pt")
        if latest.exists():
            latest.replace(latest.with_name("previous.pt"))
        replace_file(latest, lambda p: torch.save(state, p))
        self.saved_at = time.time()

    def load_state(self) -> dict:
        """The newest saved state that can be read; empty where there is none."""
        for name in ("latest.pt", "previous.pt"):
            file = self.path / "state" / name
            if file.is_file():
                try:
                    return read_state(file)
                except Exception as e:
                    print(
                        f"{file} is damaged ({type(e).__name__}); going back to the state before it"
                    )
        return {}

    def restore(self, model, optimizer, teacher=None) -> int:
        """Put the saved state into model, optimiser and teacher; returns the step to go on with."""
        load_own_state(model, self.saved["model"])
        offload = optimizer.param_groups[0].get("offload", False)
        put_halves(model, self.saved["low_bits"], stay=offload)  # copies: the file is let go
        # not optimizer.load_state_dict: it would round SplitAdamW's fp32 moments to bfloat16
        here = stepped_here(optimizer)
        for p, state in zip(model.parameters(), self.saved["optimizer"] or ()):
            if p in here:
                place = "cpu" if offload else p.device
                own(optimizer).state[p] = {
                    k: v.to(place, copy=True) if torch.is_tensor(v) and v.dim() else v
                    for k, v in state.items()
                }
        drop_other_halves(model.parameters(), optimizer)
        if self.saved["teacher"]:
            load_own_state(teacher, self.saved["teacher"])
        # the rest is as large as model, teacher and optimiser together
        self.saved = {name: self.saved[name] for name in ("phase", "step")}
        return self.saved["step"]

    def steps(self, phase: str, n: int, model, optimizer, teacher=None):
        """The steps of a phase that are still to be done, with a progress bar: 0 .. n - 1, or from
        the saved state on. States are saved on the way, and at the end."""
        start = 0
        if self.saved.get("phase") == phase and "model" in self.saved:
            start = self.restore(model, optimizer, teacher)
        quiet = {"disable": not self.writes, "mininterval": 1.0}
        self.bar = tqdm(range(start, n), phase, n, initial=start, unit="step", **quiet)
        self.clock.begins(phase, start, n)
        self.saved_at = time.time()
        for step in self.bar:
            stopping = self.stopping()
            due = step and step % self.save_every == 0
            if stopping or due or self.saved_long_ago():
                self.save_state(phase, step, model, optimizer, teacher)
            if stopping:
                raise KeyboardInterrupt
            began, sampling = time.time(), self.clock.seconds
            yield step
            self.clock.stepped(phase, time.time() - began - (self.clock.seconds - sampling))
            self.tell_time(phase)
        self.bar = None
        self.save_state(phase, n, model)

    @contextlib.contextmanager
    def keeps_bad_batch(self, phase: str, step: int, batch: list):
        """Around an optimiser's step: where it meets a NaN or an infinity, save the batch and stop.
        The weights are still those of the step before."""
        try:
            yield
        except FloatingPointError as e:
            file = self.path / "bad_batch.json"
            if self.writes:
                self.claim(file.name)
                write_json(file, [plain(item) for item in batch])
            raise DeadEnd(
                f"{phase} step {step}: {e}. The weights were not touched; the batch is in {file}. "
                "Try a lower learning rate"
            ) from e

    # results --------------------------------------------------------------------------------------
    def keep_result(self, name: str, result: dict, seconds: float) -> None:
        """Enter an evaluation into results.json; its seconds do not count as training's."""
        self.results[name] = result
        self.alarms.look_at_result(name, result)
        self.start += seconds
        self.clock.uncounted = 0
        if self.writes:
            write_json(self.path / "results.json", self.results)
        if self.tracker:
            self.tracker.result(name, result)

    def write_rows(self, name: str, rows: list[dict]) -> None:
        """A file of one JSON object a line."""
        if self.writes:
            self.claim(name)
            text = "".join(json.dumps(row) + "\n" for row in rows)
            replace_file(self.path / name, lambda p: p.write_text(text))

    def read_rows(self, name: str) -> list[dict]:
        return [json.loads(line) for line in (self.path / name).read_text().splitlines()]

    def checkpoint(self, name: str, tokenizer, model) -> None:
        """Save the model in the folder RUN/name, whole or not at all."""
        if not self.writes:
            return
        temporary, target = self.path / f"{name}.tmp", self.path / name
        leftover = self.ownership.inside(temporary.name)  # of a kill
        if temporary.exists() and not leftover:
            raise UserError(f"{temporary} was not made by this run: move it away")
        shutil.rmtree(temporary, ignore_errors=True)
        self.claim(f"{name}.tmp/config.json")
        save_checkpoint(tokenizer, merged(model), temporary)
        save_adapter(model, temporary / "adapter")
        old, files = self.ownership.inside(name), files_in(temporary)
        self.ownership.remove(*old)
        self.ownership.forget(*old)
        self.claim(*(f"{name}/{file}" for file in files))
        if not target.exists():
            temporary.replace(target)
        else:  # somebody else's files are there too, with other names
            for file in files:
                (target / file).parent.mkdir(exist_ok=True)
                (temporary / file).replace(target / file)
            shutil.rmtree(temporary)
        self.ownership.forget(f"{name}.tmp/config.json")
        self.ownership.write_marker()

    # counting and logging -------------------------------------------------------------------------
    def count(self, samples: list[dict]) -> dict:
        """Mean reward, mean length and truncated share of new samples, which are added to the run's
        totals."""
        self.totals["samples"] += len(samples)
        self.totals["tokens"] += sum(len(s["ids"]) for s in samples)
        self.clock.uncounted = 0
        self.alarms.look_at_answers(samples)
        shown = [[s["reward"], len(s["ids"]), not s["finished"]] for s in samples]
        reward, length, truncated = np.mean(shown, axis=0).tolist()
        return {"reward": reward, "length": length, "truncated": truncated}

    def count_trained(self, tokens: int) -> int:
        """Add the target tokens of a step to the run's total; returns their number."""
        self.totals["trained"] += tokens
        return tokens

    def log(self, phase: str, step: int, **values) -> None:
        """One line of metrics.jsonl, with the run's totals so far: samples and their tokens, tokens
        trained on (each time a loss scored one), grading time-outs; and what no two runs have
        alike (MEASURED): seconds (without evaluation, and without those of steps that were lost to
        a kill), speed of rollouts, peak memory, seconds left. docs/metrics.md explains each."""
        line = {"phase": phase, "step": step, **values, **self.totals}
        sampling, training = self.clock.left(self.totals["samples"], len(self.results))
        measured = time.time() - self.start, self.clock.speed(), gpu.peak_memory()
        measured = [*measured, sampling + (training or 0.0)]
        line |= {name: round(value, 3) for name, value in zip(MEASURED, measured)}
        self.alarms.look_at(line)
        if self.writes:
            with (self.path / "metrics.jsonl").open("a") as f:
                f.write(json.dumps(line) + "\n")
        if self.tracker:
            self.tracker.line(line)
        if self.bar is not None:
            shown = {k: f"{values[k]:.3g}" for k in ("loss", "reward", "length") if k in values}
            shown["left"] = spoken(line["left"])
            self.bar.set_postfix(shown, refresh=False)

    def stopping(self) -> bool:
        """Whether any rank was asked to stop (Ctrl-C)."""
        return any(gather(self.stop))

    def saved_long_ago(self) -> bool:
        """Whether the last state is older than --save-minutes; all ranks find the same."""
        return gather(time.time() - self.saved_at > 60 * self.save_minutes)[0]


def files_in(folder: Path) -> list[str]:
    """The names of all files in a folder, those of folders in it among them."""
    files = [p for p in folder.rglob("*") if not p.is_dir()]
    return sorted(p.relative_to(folder).as_posix() for p in files)


@contextlib.contextmanager
def stops_when_asked(folder: RunFolder):
    """Within it Ctrl-C stops the run at the next step, saved; the second one stops it at once."""

    def ask_to_stop(*_):
        folder.stop = True
        print(
            "\nstopping as soon as the step at hand is saved; Ctrl-C again stops at once",
            file=sys.stderr,
        )
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, ask_to_stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)  # None: not set from Python


def plain(item):
    """What of a batch's item can be written as JSON: not the tensors beside it."""
    if isinstance(item, dict):
        return {k: v for k, v in item.items() if not torch.is_tensor(v)}
    return item


def options_of(cfg) -> dict:
    """The options that say what a run is: all but those that only say what to do now, or where
    (NOW)."""
    return {name: v for name, v in asdict(cfg).items() if name not in NOW}


def check_options(cfg, options: dict) -> None:
    """What RunFolder refuses, said before questions and model are loaded. Raises UserError."""
    require(cfg.track)
    ownership = Ownership(Path(cfg.out))
    refuse_study(ownership, options)
    if ownership.begun() and not cfg.fresh:
        differ(ownership.path, ownership.marker, options, ownership.marker["content"])


def read_state(file: Path) -> dict:
    """A saved state, whose tensors stay in the file until they are copied: it is as large as model,
    moments and teacher together. Raises where the file is damaged."""
    mapped = sys.platform != "win32"  # where a file that is mapped cannot be replaced
    if mapped:
        with zipfile.ZipFile(file) as whole:
            if damaged := whole.testzip():  # a map is read without looking at check sums
                raise ValueError(f"{damaged} in it")
    return torch.load(file, map_location="cpu", mmap=mapped)
