"""What a run writes, how it goes on after a kill, and how several processes share it. Nothing here knows the method."""
import contextlib
import fcntl
import json
import os
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from questions import UserError


# ----------------------------------------------------------------------------------------------------------------------------
# Several processes (torchrun): each has the whole model and does its share; sums over ranks make one process of them
# ----------------------------------------------------------------------------------------------------------------------------
def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def gather(item) -> list:
    """`item` of every rank, in the order of ranks."""
    items = [item]
    if world() > 1:
        items = [None] * world()
        dist.all_gather_object(items, item)
    return items


def leave_together() -> None:
    """End the process group once every rank is here: one that leaves while another still talks to it can take it down."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def sum_gradients(model) -> None:
    """Add up the ranks' gradients. Every loss is divided by the tokens of the whole batch, so the sum is its gradient."""
    for p in model.parameters() if world() > 1 else ():
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        dist.all_reduce(p.grad)


# ----------------------------------------------------------------------------------------------------------------------------
# The run folder
# ----------------------------------------------------------------------------------------------------------------------------
def read_json(path: Path):
    try:
        return json.loads(path.read_text())
    except ValueError as e:
        raise UserError(f"{path} is damaged ({e}). Restore it, or start anew with --fresh") from e


def replace_file(path: Path, write) -> None:
    """write(temporary path), then put it in place: a reader, or a kill, meets the old file or the new one, never half of one."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        write(temporary)
        with temporary.open("rb") as f:
            os.fsync(f.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as e:  # torch.save turns a full disk into a RuntimeError
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written ({str(e).splitlines()[0]}). What was saved before is still good: mend that and start the "
                        "same command again") from e


def write_json(path: Path, data) -> None:
    replace_file(path, lambda p: p.write_text(json.dumps(data, indent=1) + "\n"))


def save_checkpoint(tokenizer, model, folder: Path) -> None:
    """A folder that AutoModelForCausalLM.from_pretrained and --model load."""
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)


class RunFolder:
    """All that a run writes, so that it can be killed at any moment and go on to the same end.

    No randomness depends on what ran before it (derived_seed) and nothing but the weights and the optimiser is carried from step
    to step, so a run that repeats some steps from a saved state repeats them exactly. state/ holds the last two saved states and
    a journal of every batch of rollouts; one rank writes, all read. Raises UserError where the folder holds another run.
    """
    OWN = ("config.json", "metrics.jsonl", "revisions.jsonl", "results.json", "figure.png", "bad_batch.json", "state", "srt", "sdzero", "rft",
           "grpo", "sdft", "sft")

    def __init__(self, cfg):
        self.path, self.writes, self.stop, self.save_every = Path(cfg.out), rank() == 0, False, cfg.save_every
        self.journal = {}
        config = {k: v for k, v in asdict(cfg).items() if k != "fresh"}
        if self.writes:
            try:
                self.lock()
                for file in [self.path / name for name in self.OWN] if cfg.fresh else ():
                    shutil.rmtree(file, ignore_errors=True) if file.is_dir() else file.unlink(missing_ok=True)
                self.lock()
                (self.path / "state" / "rollouts.jsonl").touch()
            except OSError as e:
                raise UserError(f"--out {self.path} cannot be written: {e.strerror}") from e
            begun = (self.path / "results.json").is_file() or (self.path / "state" / "rollouts.jsonl").stat().st_size
            if begun and (self.path / "config.json").is_file():
                saved = read_json(self.path / "config.json")
                differing = [f"{k} {saved.get(k)!r} (now {v!r})" for k, v in config.items() if saved.get(k) != v]
                if differing:
                    raise UserError(f"{self.path} holds a run with other options: {', '.join(differing)}. Give those, another --out, "
                                    "or --fresh to discard it")
            write_json(self.path / "config.json", config)
            (self.path / "metrics.jsonl").touch()
        gather(None)  # the other ranks wait until the folder is in order
        self.results = read_json(self.path / "results.json") if (self.path / "results.json").is_file() else {}
        self.saved = self.load_state()
        self.samples, self.tokens, self.trained, self.timeouts, seconds = self.saved.get("totals", (0, 0, 0, 0, 0.0))
        self.start = time.time() - seconds
        with (self.path / "state" / "rollouts.jsonl").open("rb+" if self.writes else "rb") as f:
            position = 0
            for line in f:
                try:
                    self.journal[json.loads(line)["key"]] = position
                except (ValueError, KeyError, TypeError):
                    pass  # a kill, or a full disk, cut this line off: its batch is sampled again
                position += len(line)
            if self.writes and position and not line.endswith(b"\n"):
                f.write(b"\n")
        if self.writes:
            os.truncate(self.path / "metrics.jsonl", min(self.saved.get("metrics", 0), (self.path / "metrics.jsonl").stat().st_size))

    def lock(self) -> None:
        """Two processes in one folder would spoil both runs: the first holds state/lock until it ends. Raises UserError, OSError."""
        (self.path / "state").mkdir(parents=True, exist_ok=True)
        self.locked = (self.path / "state" / "lock").open("a")
        try:
            fcntl.lockf(self.locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise UserError(f"another process is at work in {self.path}: wait for it, stop it, or give another --out") from None
        except OSError:
            pass  # a file system without locks

    def recall(self, key: str):
        """The batch of rollouts journalled under `key`, or None."""
        if key not in self.journal:
            return None
        with (self.path / "state" / "rollouts.jsonl").open("rb") as f:
            f.seek(self.journal[key])
            return json.loads(f.readline())["batch"]

    def remember(self, key: str, batch: list[list[int]]) -> None:
        if self.writes:
            with (self.path / "state" / "rollouts.jsonl").open("a") as f:
                f.write(json.dumps({"key": key, "batch": batch}) + "\n")

    def save_state(self, phase: str, step: int, model, optimizer=None, teacher=None) -> None:
        """What load_state gives back: everything that later steps depend on. The state before this one is kept too."""
        if not self.writes:
            return
        state = {"phase": phase, "step": step, "model": model.state_dict(),
                 "low_bits": [getattr(p, "low_bits", None) for p in model.parameters()],
                 "optimizer": optimizer and [optimizer.state.get(p, {}) for p in model.parameters()],
                 "teacher": teacher and teacher.state_dict(),
                 "totals": (self.samples, self.tokens, self.trained, self.timeouts, time.time() - self.start), "metrics": (self.path / "metrics.jsonl").stat().st_size}
        latest = self.path / "state" / "latest.pt"
        if latest.exists():
            latest.replace(latest.with_name("previous.pt"))
        replace_file(latest, lambda p: torch.save(state, p))

    def load_state(self) -> dict:
        """The newest saved state that can be read; empty where there is none."""
        for name in ("latest.pt", "previous.pt"):
            file = self.path / "state" / name
            if file.is_file():
                try:
                    return torch.load(file, map_location="cpu")
                except Exception as e:
                    print(f"{file} is damaged ({type(e).__name__}); going back to the state before it")
        return {}

    def restore(self, model, optimizer, teacher=None) -> int:
        """Put the saved state into model, optimiser and teacher; returns the step to go on with."""
        model.load_state_dict(self.saved["model"])
        for p, low_bits in zip(model.parameters(), self.saved["low_bits"]):
            if low_bits is not None:
                p.low_bits = low_bits.to(p.device)
        # not optimizer.load_state_dict, which would round SplitAdamW's fp32 moments to the weights' bfloat16
        offload = optimizer.param_groups[0].get("offload")
        for p, state in zip(model.parameters(), self.saved["optimizer"] or ()):
            optimizer.state[p] = {k: v.to(p.device) if torch.is_tensor(v) and v.dim() and not offload else v for k, v in state.items()}
        if self.saved["teacher"]:
            teacher.load_state_dict(self.saved["teacher"])
        return self.saved["step"]

    def checkpoint(self, phase: str, step: int, model, optimizer, teacher=None) -> None:
        """Before each optimiser step: save the state where it is due, and when asked to stop do both."""
        stopping = self.stopping()
        if stopping or (step and step % self.save_every == 0):
            self.save_state(phase, step, model, optimizer, teacher)
        if stopping:
            raise KeyboardInterrupt

    def broken_step(self, phase: str, step: int, batch, error: FloatingPointError):
        """Save the batch that gave a NaN or an infinity, and stop: the weights are still those of the step before."""
        write_json(self.path / "bad_batch.json", batch)
        raise UserError(f"{phase} step {step}: {error}. The weights were not touched; the batch is in {self.path / 'bad_batch.json'}. "
                        "Try a lower learning rate") from error

    def count(self, samples: list[dict]) -> dict:
        """Mean reward, mean length and truncated share of new samples, which are added to the run's totals."""
        self.samples += len(samples)
        self.tokens += sum(len(s["ids"]) for s in samples)
        reward, length, truncated = np.mean([[s["reward"], len(s["ids"]), not s["finished"]] for s in samples], axis=0).tolist()
        return {"reward": reward, "length": length, "truncated": truncated}

    def count_trained(self, lengths) -> int:
        """Add the target tokens of a step to the run's total; returns their number."""
        tokens = sum(lengths)
        self.trained += tokens
        return tokens

    def log(self, phase: str, step: int, **values) -> None:
        """One line of metrics.jsonl, with the run's totals so far: samples and their tokens, tokens trained on (each time a loss
        scored one), grading time-outs, seconds (without evaluation, and without those of steps that were lost to a kill)."""
        totals = {"samples": self.samples, "tokens": self.tokens, "trained": self.trained, "timeouts": self.timeouts,
                  "seconds": round(time.time() - self.start, 3)}
        if self.writes:
            with (self.path / "metrics.jsonl").open("a") as f:
                f.write(json.dumps({"phase": phase, "step": step, **values, **totals}) + "\n")

    def stopping(self) -> bool:
        """Whether any rank was asked to stop (Ctrl-C)."""
        return any(gather(self.stop))
