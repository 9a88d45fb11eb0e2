"""Time left: what a run still has to sample and to train, at the speed that it has measured."""

import time

from kit import budget, hours

FIRST_STEPS = 3  # of a phase, after which its steps count as measured
REPEAT = 1800.0  # seconds between two lines


class Clock:
    """Counts responses and steps; seconds of sampling are kept apart from those of steps."""

    def __init__(self):
        self.expected = self.of_evaluation = 0  # responses of the whole run, of an evaluation
        self.steps, self.cost = {}, {}  # of each phase: steps, and what one costs beside another's
        self.done, self.took = {}, {}  # of each phase: steps done, seconds of those measured
        self.rows = self.tokens = self.uncounted = 0
        self.seconds, self.asked_at, self.said = 0.0, None, None

    def expect(self, cfg) -> None:
        """What the whole run will be; a baseline's steps are known when they begin."""
        self.of_evaluation = hours.evaluated_responses(cfg)
        self.expected = hours.evaluations(cfg) * self.of_evaluation
        if cfg.method not in ("sdzero", "srt"):
            questions = cfg.srt_questions + cfg.distil_questions
            self.expected += budget.responses_of_baseline(cfg, questions)
            return
        responses = budget.responses_of(cfg, cfg.srt_questions, cfg.distil_questions)
        self.expected += sum(responses.values())
        if kept := budget.kept_at_most(cfg, responses["revisions"]):
            self.steps["srt"] = cfg.srt_epochs * -(-kept // cfg.srt_batch)
        if responses["rollouts"]:
            self.steps["distil"] = -(-responses["rollouts"] // cfg.distil_batch)
        # a pass back costs two forward; phase 1's rows hold two responses, as the teacher's do
        self.cost = {"srt": cfg.srt_batch * 2 * 3, "distil": cfg.distil_batch * (3 + 2)}

    # what happens ---------------------------------------------------------------------------------
    def asks(self) -> None:
        """Sampling begins."""
        self.asked_at = time.time()

    def generated(self, batch: list[list[int]]) -> None:
        """A batch was sampled."""
        if self.asked_at is not None:  # other ranks' batches come in the same time
            self.seconds += time.time() - self.asked_at
            self.asked_at = None
        self.rows += len(batch)
        self.tokens += sum(map(len, batch))
        self.uncounted += len(batch)

    def skips(self, phase: str) -> None:
        """A resumed run has this phase behind it."""
        self.steps.pop(phase, None)

    def begins(self, phase: str, start: int, steps: int) -> None:
        self.steps[phase], self.done[phase], self.took[phase] = steps, start, []

    def stepped(self, phase: str, seconds: float) -> None:
        """A step was done, in so many seconds without sampling."""
        self.done[phase] += 1
        self.took[phase].append(seconds)

    # what is left ---------------------------------------------------------------------------------
    def responses_left(self, samples: int, evaluations: int) -> int:
        """Responses to come, where the run has counted so many samples and evaluations."""
        counted = samples + evaluations * self.of_evaluation + self.uncounted
        return max(0, self.expected - counted)

    def seconds_of_step(self, phase: str) -> float | None:
        """Of one that was measured, or by what it costs beside another phase's; None: neither."""
        if took := self.took.get(phase):
            return sum(took) / len(took)
        for other, took in self.took.items():
            if took and other in self.cost and phase in self.cost:
                return sum(took) / len(took) * self.cost[phase] / self.cost[other]
        return None

    def left(self, samples: int, evaluations: int) -> tuple[float, float | None]:
        """(seconds of sampling, seconds of steps or None where none was measured) to come."""
        sampling = self.responses_left(samples, evaluations) * self.seconds / max(1, self.rows)
        training = 0.0
        for phase, steps in self.steps.items():
            if to_do := steps - self.done.get(phase, 0):
                each = self.seconds_of_step(phase)
                if each is None:
                    return sampling, None
                training += to_do * each
        return sampling, training

    def speed(self) -> float:
        """Tokens that were sampled in a second, of all rows and ranks together."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def sentence(self, samples: int, evaluations: int) -> str:
        sampling, training = self.left(samples, evaluations)
        to_come = self.responses_left(samples, evaluations) * self.tokens / max(1, self.rows)
        steps = "not measured yet" if training is None else spoken(training)
        return (
            f"time left: about {spoken(sampling + (training or 0))}: rollouts {spoken(sampling)} "
            f"({self.tokens:,} tokens so far, about {to_come:,.0f} to come, "
            f"{self.speed():,.0f} a second); training steps {steps}"
        )

    def is_due(self, phase: str = "") -> bool:
        """Whether the sentence is to be said: after the first batch, after the first steps of a
        phase, and then from time to time."""
        if not self.expected or not self.rows:
            return False
        first_steps = phase and len(self.took[phase]) == FIRST_STEPS
        now = time.time()
        if self.said is None or first_steps or now - self.said >= REPEAT:
            self.said = now
            return True
        return False


def spoken(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"
