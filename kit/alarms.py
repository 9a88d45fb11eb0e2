"""Warnings that save a day: one line each, with what to do, at most once a process."""

import re

from kit.options import flag_of
from kit.presets import RATES, recipe_of_run
from kit.tokens import template_values

WINDOW = 20  # steps
ONE_SIDED = 0.02  # of rewards: at most so many right, or wrong
CUT_OFF = 0.05  # share of responses without an end token
FAR = 5.0  # times the recipe's learning rate, either way
BLOCK = 5  # steps whose mean length counts as one
SHRUNK = 0.8  # of the length that it was, which is more than noise
CERTAIN = 0.001  # nats a token; the embedded model, which is sure of its columns, has 0.002 to 0.01
THINKING = 0.1  # share of answers with a <think>
# names of models that think before they answer, as their makers call them
THINKERS = r"thinking|[-_]think\b|reason|qwq|magistral|[-_]r1\b|gpt-oss|deepscaler|openthinker"
ADVICE = (
    "thinking models lost accuracy in the paper (Table 14), so take the instruct version if there "
    "is one"
)


class Alarms:
    """Looks at what a run logs and measures; prints what a person would want to know now."""

    def __init__(self):
        self.said, self.steps = set(), {}

    def say(self, what: str, line: str) -> None:
        """Print the line, unless there was one about `what`."""
        if what not in self.said:
            self.said.add(what)
            print(f"warning: {line}", flush=True)

    def look_at(self, line: dict) -> None:
        """A line of metrics.jsonl. A phase that samples once is judged at once, one that samples at
        every step by its last WINDOW steps."""
        if "reward" not in line:
            return
        phase = line["phase"]
        steps = self.steps.setdefault(phase, [])
        steps.append(line)
        del steps[:-WINDOW]
        if "loss" in line and len(steps) < WINDOW:
            return
        self.rewards(phase, steps)
        self.lengths(phase, steps)
        self.entropy(phase, [step for step in steps if "entropy" in step])

    def rewards(self, phase: str, steps: list[dict]) -> None:
        right = mean_of(steps, "reward")
        if right <= ONE_SIDED:
            self.say(
                f"rewards of {phase}",
                f"{phase}: {100 * right:.1f} % of the answers are right, so that hardly one can be "
                "learnt from: easier questions, a stronger model, or look whether the answers are "
                "in the form that the verifier reads (python verify.py --help)",
            )
        elif right >= 1 - ONE_SIDED:
            self.say(
                f"rewards of {phase}",
                f"{phase}: {100 * right:.1f} % of the answers are right, so that there is hardly a "
                "mistake to learn from: harder questions",
            )

    def lengths(self, phase: str, steps: list[dict]) -> None:
        cut_off = mean_of(steps, "truncated")
        if cut_off > CUT_OFF:
            self.say(
                "truncated",
                f"{phase}: {100 * cut_off:.1f} % of the answers are cut off, which makes them "
                "wrong: raise --max-tokens (or the phase's own)",
            )
        blocks = [mean_of(steps[i : i + BLOCK], "length") for i in range(0, len(steps), BLOCK)]
        falls = all(later < earlier for earlier, later in zip(blocks, blocks[1:]))
        if len(steps) == WINDOW and falls and blocks[-1] < SHRUNK * blocks[0]:
            self.say(
                "length",
                f"{phase}: answers have become shorter for {WINDOW} steps ({blocks[0]:.0f} -> "
                f"{blocks[-1]:.0f} tokens): if the reward falls too, lower --distil-lr",
            )

    def entropy(self, phase: str, steps: list[dict]) -> None:
        if len(steps) == WINDOW and mean_of(steps, "entropy") < CERTAIN:
            self.say(
                "entropy",
                f"{phase}: the entropy is {mean_of(steps, 'entropy'):.1e} nats a token, so that "
                "every sample of a question says the same and little more can be learnt: stop "
                "here, raise --distil-temperature, or lower --distil-lr in another run",
            )

    def look_at_answers(self, samples: list[dict]) -> None:
        """Answers that were sampled for training: do they think first?"""
        # a prompt may have opened it already
        share = sum("think>" in s.get("text", "") for s in samples) / len(samples)
        if share > THINKING:
            self.say(
                "thinking",
                f"{100 * share:.0f} % of the sampled answers have a <think> or </think>: {ADVICE}, "
                "or give a --chat-template FILE that switches it off",
            )

    def look_at_result(self, name: str, result: dict) -> None:
        """An evaluation. Of the base: does it revise at all?"""
        if name == "base" and result.get("correction_rate") == 0:
            self.say(
                "revising",
                "the base mends none of its wrong answers when it is told that they are wrong: "
                "phase 1 will keep few revisions or none, so ask easier questions, give more "
                "--revisions, or take a stronger model",
            )

    def look_at_options(self, cfg) -> None:
        """The model's name, and learning rates beside the recipe's."""
        if re.search(THINKERS, cfg.model.rsplit("/", 1)[-1].lower()):
            self.say("thinking", f"--model {cfg.model} thinks, by its name: {ADVICE}")
        of_recipe = recipe_of_run(cfg)
        for name in RATES if cfg.method in ("sdzero", "srt") else ():
            factor = getattr(cfg, name) / of_recipe[name]
            if not 1 / FAR <= factor <= FAR:
                self.say(
                    name,
                    f"{flag_of(name)} {getattr(cfg, name):g} is {factor:.2g} times the recipe's "
                    f"{of_recipe[name]:g}: watch loss and length over the first steps",
                )

    def look_at_template(self, tokenizer, cfg) -> None:
        """Does a chat template drop --system, or have the model think?"""
        how = {"tokenize": False, "add_generation_prompt": True, **template_values(tokenizer)}
        messages = [{"role": "user", "content": "1+1?"}]
        if cfg.system:
            messages.insert(0, {"role": "system", "content": cfg.system})
            if cfg.system.strip() not in tokenizer.apply_chat_template(messages, **how):
                self.say(
                    "system",
                    "the chat template drops the system message, so --system does nothing: put it "
                    "into --instruction, or give --chat-template FILE",
                )
        behind = tokenizer.apply_chat_template(messages, **how).rpartition("1+1?")[2]
        if "<think>" in behind:
            what = "an empty <think></think>" if "</think>" in behind else "an open <think>"
            self.say(
                "thinking",
                f"the chat template puts {what} before every answer: {ADVICE}, or give "
                "--chat-template FILE",
            )


def mean_of(steps: list[dict], key: str) -> float:
    return sum(step[key] for step in steps) / len(steps)
