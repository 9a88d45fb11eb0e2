"""--track: what metrics.jsonl and results.json say goes to a tracker too, under the same names.

metrics.jsonl stays the truth. A tracker's run outlives the process that writes to it: RUN/
tracker.json keeps its id and how much it has, so that a run that goes on does so in the same one
and gives it no step twice.
"""

import importlib.util
import os
import uuid
from typing import NamedTuple

from kit.errors import UserError
from kit.files import read_json, write_json

FILE = "tracker.json"
PROJECT = "sdzero"


class Sink(NamedTuple):
    """A tracker's run, opened: send({name: number or text}, step), close(), and the last step that
    it has, -1 if none."""

    send: object
    close: object
    has: int


def require(track: str | None) -> None:
    """Raise UserError where the package of --track is missing."""
    spec = importlib.util.find_spec(track) if track else None
    if track and (spec is None or spec.origin is None):  # a folder of that name is no package
        raise UserError(
            f"--track {track} needs the package {track}: pip install {track}. Or leave --track "
            "out: metrics.jsonl has it all"
        )


# --------------------------------------------------------------------------------------------------
# The three trackers
# --------------------------------------------------------------------------------------------------
def tensorboard(folder, record: dict, options: dict) -> Sink:
    """RUN/tensorboard, a file for each process. What a kill cost is hidden (purge_step), and comes
    again."""
    from torch.utils.tensorboard import SummaryWriter

    place = folder.path / "tensorboard"
    before = set(place.glob("*"))
    has = min(record["lines"], len(folder.read_rows("metrics.jsonl")))
    # what older files say of later steps is not shown
    writer = SummaryWriter(str(place), purge_step=has + 1)
    made = sorted(set(place.glob("*")) - before)
    folder.ownership.enter(*(file.relative_to(folder.path).as_posix() for file in made))

    def send(values, step):
        for name, value in values.items():
            add = writer.add_text if isinstance(value, str) else writer.add_scalar
            add(name, value, step)
        writer.flush()

    return Sink(send, writer.close, has)


def wandb(folder, record: dict, options: dict) -> Sink:
    """A run of Weights & Biases, in $WANDB_PROJECT or "sdzero".

    It knows what reached it: the last that a killed process logged may not have. Offline that is
    nothing, so that the folder of each process has the run's whole course, for `wandb sync`.
    """
    import wandb

    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT") or PROJECT,
        name=folder.path.name,
        id=record["id"],
        resume="allow",
        config=options,
        settings=wandb.Settings(console="off"),
    )
    return Sink(lambda values, step: run.log(values, step=step), run.finish, run.step - 1)


def trackio(folder, record: dict, options: dict) -> Sink:
    """A run of trackio, which knows runs by their names."""
    import trackio

    name = f"{folder.path.name}-{record['id']}"
    run = trackio.init(project=PROJECT, name=name, resume="allow", config=options)
    return Sink(lambda values, step: run.log(values, step=step), run.finish, record["lines"])


SINKS = {"tensorboard": tensorboard, "wandb": wandb, "trackio": trackio}


# --------------------------------------------------------------------------------------------------
# A run's course
# --------------------------------------------------------------------------------------------------
def values_of(group: str, values: dict) -> dict:
    """{"GROUP/NAME": number}; an interval as NAME_low and NAME_high. Lists are left out."""
    found, group = {}, group.replace(" ", "_")
    for name, value in values.items():
        if name.endswith("_ci") and value:
            low, high = value
            found |= {f"{group}/{name}_low": low, f"{group}/{name}_high": high}
        elif isinstance(value, (bool, int, float)):
            found[f"{group}/{name}"] = float(value)
    return found


def reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


class Tracker:
    """A run in the tracker that --track names. A line of metrics.jsonl has its number, from 1, as
    its step; an evaluation that of the last line before it.

    Whatever the tracker lacks is sent when it is opened. Raises UserError where it cannot be.
    """

    def __init__(self, folder, track: str, options: dict):
        self.track, self.file = track, folder.path / FILE
        folder.claim(FILE)
        self.known = read_json(self.file) if self.file.is_file() else {}
        new = {"id": uuid.uuid4().hex[:8], "lines": 0, "results": {}}
        self.record = self.known.setdefault(track, new)
        write_json(self.file, self.known)  # with the id, before there is a run of it
        try:
            self.sink = SINKS[track](folder, self.record, options)
        except Exception as e:  # of the package's own kinds
            raise UserError(
                f"--track {track} cannot be opened ({reason(e)}): mend that, or leave it out"
            ) from e
        has, places = self.sink.has, self.record["results"]
        self.note({"lines": has, "results": {name: at for name, at in places.items() if at <= has}})
        self.step = 0
        for line in folder.read_rows("metrics.jsonl"):
            for name, at in places.items():  # where they stood
                if at == self.step and name in folder.results:
                    self.result(name, folder.results[name])
            self.line(line)
        for name, result in folder.results.items():
            self.result(name, result)

    def line(self, line: dict) -> None:
        """The next line of metrics.jsonl, unless the tracker has it."""
        self.step += 1
        if self.step > self.record["lines"]:
            values = {name: value for name, value in line.items() if name != "phase"}
            self.send(values_of(line["phase"], values), self.step, lines=self.step)

    def result(self, name: str, result: dict) -> None:
        """An evaluation, unless the tracker has it."""
        if name not in self.record["results"]:
            # no step back: where lines are repeated, the tracker is ahead
            step = max(self.step, self.record["lines"])
            has = {**self.record["results"], name: step}
            values = {"results/name": name, **values_of("results", result)}
            self.send(values, step, results=has)

    def send(self, values: dict, step: int, **has) -> None:
        """Send values; `has` is what the tracker has then. Where it fails the run goes on without:
        metrics.jsonl has everything."""
        if not self.sink:
            return
        before = dict(self.record)
        self.note(has)  # first: a kill in between may cost a point, but gives none twice
        try:
            self.sink.send(values, step)
        except Exception as e:
            self.note(before)
            self.sink = None
            print(
                f"warning: --track {self.track} failed ({reason(e)}): the run goes on without it, "
                "and sends what is missing when it is started again",
                flush=True,
            )

    def note(self, has: dict) -> None:
        self.record |= has
        write_json(self.file, self.known)

    def close(self) -> None:
        if self.sink:
            self.sink.close()
