"""TRL's part of studies/peer_trl.py, in TRL's environment: python peer_trl_side.py JOB.json

It imports nothing of this repository, whose requirements that environment lacks. SDFTTrainer is run
as it is, by its own train(), with three methods filled in: prompts are token ids already; a
response is as long as the job says; the teacher reads what SD-Zero's reviser reads. The last line
that it prints is the result as JSON.
"""

import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

os.environ["TRL_EXPERIMENTAL_SILENCE"] = os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback
from trl.experimental.sdft import SDFTConfig, SDFTTrainer
from trl.experimental.sdft.sdft_trainer import DemonstrationTeacherContextBuilder

WARM_UP = 8  # tokens of a response in the first step, which is not timed


def resident(key: str) -> float:
    """MB of this process in memory now (VmRSS), or at most (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(key + ":")[1].split()[0]) / 1e6


def clocks() -> tuple[float, float]:
    """Seconds on the wall, and seconds of all this process's threads."""
    return time.perf_counter(), time.process_time()


def per_device_batch(rows: list[dict], batch: int, tokens: int, budget: int) -> int:
    """The most rows of a pass: a divisor of the step's rows that leaves a pass within `budget`
    tokens. Rows are padded to the longest prompt and the longest response of the step."""
    width = max(len(row["context"]) for row in rows)
    width += max(len(row.get("response", [])) for row in rows) or tokens
    fitting = [n for n in range(1, batch + 1) if batch % n == 0 and n * width <= budget]
    return max(fitting, default=1)


def configuration(job: dict, output: str) -> SDFTConfig:
    """SD-Zero's loss and sampling, and nothing beside the step: no logs, no saved states."""
    rows = job["rows"]
    each = per_device_batch(rows, job["batch"], job["tokens"], job["micro_tokens"])
    return SDFTConfig(
        output_dir=output,
        model_init_kwargs={"dtype": "float32"},
        use_cpu=True,
        bf16=False,  # TRL's default is mixed precision
        gradient_checkpointing=False,  # TRL's default is True
        # exact reverse KL over the whole vocabulary, without importance sampling, which would do
        # nothing here: rollouts are used once
        distillation_mode="full_logits",
        distillation_alpha=1.0,
        distillation_is_clip=None,
        teacher_model_kind="base",  # a frozen copy
        num_generations=1,
        max_prompt_length=None,
        max_completion_length=job["tokens"],
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        per_device_train_batch_size=each,
        gradient_accumulation_steps=job["batch"] // each,
        num_train_epochs=1,
        shuffle_dataset=False,
        optim="adamw_torch_fused",
        learning_rate=job["lr"],
        adam_beta1=0.9,
        adam_beta2=0.95,
        weight_decay=0.01,
        max_grad_norm=1.0,
        lr_scheduler_type="constant",
        dataloader_pin_memory=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def reward_of(text: str, answer: str) -> float:
    """The smallest reward: SDFT has none of its own, SD-Zero cannot do without."""
    boxed = re.findall(r"\\boxed\{([^{}]*)\}", text)
    return float(bool(boxed) and boxed[-1].strip() == answer)


class TeacherContexts(DemonstrationTeacherContextBuilder):
    """Given teacher contexts, or SD-Zero's: question, answer, and the phrase of its reward."""

    def _compose_teacher_prompt(self, prompt, privileged_context):
        return privileged_context

    def build(self, prompts, privileged_contexts, completion_ids, completion_mask):
        start = time.perf_counter()
        job, responses = self.trainer.job, completion_ids.tolist()
        if job["part"] == "round":
            contexts = []
            texts = self.trainer._tokenizer.batch_decode(responses, skip_special_tokens=True)
            for prompt, response, text, answer in zip(
                prompts, responses, texts, privileged_contexts
            ):
                phrase = job["phrases"][int(reward_of(text, answer))]
                contexts.append(prompt + response[:-1] + phrase)
            privileged_contexts = contexts
        self.trainer.times["reward"] += time.perf_counter() - start
        return super().build(prompts, privileged_contexts, completion_ids, completion_mask)


class Trainer(SDFTTrainer):
    """SDFTTrainer on the job's rows, with a clock."""

    def begin(self, job: dict) -> None:
        self.job, self.steps, self.began = job, [], clocks()
        self.teacher_context_builder = TeacherContexts(self)
        self.clear()

    def clear(self) -> None:
        self.times, self.loss, self.norm = {"rollout": 0.0, "reward": 0.0}, 0.0, 0.0

    def _tokenize_prompts(self, prompts):
        return prompts

    def _generate(self, prompt_ids):
        done, batch = self.state.global_step, self.job["batch"]
        if self.job["part"] != "round":
            rows = self.job["rows"][done * batch : (done + 1) * batch]
            return prompt_ids, [row["response"] for row in rows]
        start = time.perf_counter()
        tokens = self.job["tokens"] if done else WARM_UP
        self.generation_config.max_new_tokens = self.generation_config.min_new_tokens = tokens
        prompt_ids, responses = super()._generate(prompt_ids)
        assert all(len(y) == tokens for y in responses), "responses ended early"
        responses = [y[:-1] + self.job["end_ids"][:1] for y in responses]
        self.times["rollout"] += time.perf_counter() - start
        return prompt_ids, responses

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        self.loss += float(loss.detach())
        return loss

    def _clip_grad_norm(self, model):
        self.times["update"] = -time.perf_counter()
        norm = super()._clip_grad_norm(model)
        self.norm = float(norm)
        return norm


class Clock(TrainerCallback):
    """A step ends where the gradients have been cleared; the next begins there."""

    def __init__(self, trainer):
        self.trainer = trainer

    def on_step_end(self, *_, **__):
        trainer = self.trainer
        (began, cpu_began), (now, cpu) = trainer.began, clocks()
        step = {"seconds": now - began, "cpu": cpu - cpu_began, **trainer.times}
        step |= {"update": now + step["update"], "loss": trainer.loss, "norm": trainer.norm}
        trainer.steps.append(step)
        trainer.clear()
        trainer.began = clocks()


def dataset_of(rows: list[dict], part: str) -> Dataset:
    second = "answer" if part == "round" else "teacher"
    columns = {"prompt": [r["context"] for r in rows]}
    return Dataset.from_dict(columns | {"privileged_context": [r[second] for r in rows]})


def their_side(job: dict) -> dict:
    """The job's steps; the first is warm-up, unless the loss is to be checked."""
    torch.set_num_threads(job["threads"])
    base = resident("VmRSS")
    with tempfile.TemporaryDirectory() as output:
        args = configuration(job, output)
        trainer = Trainer(
            model=job["folder"],
            args=args,
            train_dataset=dataset_of(job["rows"], job["part"]),
            processing_class=AutoTokenizer.from_pretrained(job["folder"], padding_side="left"),
        )
        trainer.add_callback(Clock(trainer))
        loaded = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts from now
        trainer.begin(job)
        trainer.train()
    assert next(trainer.model.parameters()).dtype == torch.float32
    return {
        "steps": trainer.steps,
        "base_mb": base,
        "loaded_mb": loaded,
        "peak_mb": resident("VmHWM"),
        "rows_of_a_pass": args.per_device_train_batch_size,
    }


if __name__ == "__main__":
    print(json.dumps(their_side(json.loads(Path(sys.argv[1]).read_text()))))
