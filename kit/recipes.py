"""The paper's settings and the authors' code's, to be held beside their tables: option -> (value,
where it stands).

"Table 4" and the like are the paper's. Where the paper contradicts itself, the comment says which
place is followed and why; the other value is one option away. docs/differences.md has what neither
recipe can say.
"""

# "Self-Distillation Zero", arXiv 2604.12002v1
PAPER = {
    # Data (App. C.1). Sec. 3.1 and Table 3 say 15K questions in all, C.1 10K and a further 9K: C.1
    # is followed, the only place that says what each phase has.
    "srt_questions": (10_000, "App. C.1"),
    "distil_questions": (9_000, "App. C.1"),
    "eval_questions": (500, "App. C.1"),
    # Phase 1, samples. "Multiple" first answers in Sec. 2.1, one in C.1. Right first answers are
    # revised too (Sec. 2.1, Alg. 1), which the caption of Fig. 2 does not say: --revise wrong.
    "first_answers": (1, "App. C.1"),
    "revisions": (3, "App. C.1"),
    "revise": ("all", "Sec. 2.1, Alg. 1"),
    "srt_records": (6_000, "App. C.1, Table 3"),
    "phrase_if_right": ("Let me rephrase the above solution.", "Sec. 2.1, Alg. 1"),
    # Sec. 4.2 has "Wait, this is wrong. Let me start over.": the algorithm's own wording is taken.
    "phrase_if_wrong": (
        "Wait, this response is not correct, let me start over.",
        "Sec. 2.1, Alg. 1",
    ),
    # 0.7 for all methods in Sec. 3.1; phase 2 has 1.0 in Table 6, which is more particular.
    "temperature": (0.7, "Sec. 3.1"),
    "distil_temperature": (1.0, "Table 6"),
    "eval_temperature": (0.7, "Sec. 3.1"),
    "top_p": (1.0, "Tables 5, 6; not stated for phase 1"),
    "distil_top_p": (1.0, "Table 6"),
    # 16K while training (Sec. 3.1) against 8192 in phase 2 (Table 6) and a training sequence of
    # 32768 (Table 4): each where it is particular.
    "max_tokens": (16_384, "Sec. 3.1"),
    "distil_max_tokens": (8_192, "Table 6"),
    "eval_max_tokens": (32_768, "Sec. 3.1"),
    "srt_sequence": (32_768, "Table 4"),
    # Phase 1, training. Epochs: 3 in Table 4, 1 in Table 3, which counts samples.
    "srt_epochs": (3, "Table 4"),
    "srt_batch": (4, "Table 4"),
    "srt_lr": (5e-6, "Table 4"),
    "srt_weight_decay": (1e-4, "Table 4"),
    "srt_beta2": (0.95, "Table 4"),
    "l_revision": (True, "Eq. 1"),
    "l_generation": ("all", "Eq. 2, 3"),
    "srt_in_turn": (False, "Eq. 3"),
    "reduction": ("sum", "Eq. 1, 2, 4"),
    # Phase 2. One epoch (Tables 3, 6) is 70 steps; Sec. 3.4 shows step 400.
    "divergence": ("reverse", "Eq. 4"),
    "top_k": (0, "Eq. 4"),  # Table 6: the teacher's top 64. The equation is followed.
    "distil_epochs": (1, "Table 3"),
    "distil_steps": (0, "Table 3"),
    "distil_batch": (128, "Table 6"),
    "distil_lr": (5e-6, "Table 6"),
    "warmup_steps": (20, "Table 6"),
    "distil_weight_decay": (0.01, "Table 6"),
    "distil_beta2": (0.95, "not stated; Table 4's"),
    "sync_every": (0, "Sec. 2.2: frozen"),
    "grad_clip": (1.0, "Table 6"),
    # Evaluation: avg@8 (App. D.1 says avg@16 once)
    "eval_samples": (8, "Sec. 3.1"),
    # neither is in the paper
    "trim": (False, "not mentioned"),
    "system": ("", "not stated"),
    "instruction": ("", "not stated; that of the task"),
    "shots": (0, "none"),
}

# princeton-pli/Self-Distillation-Zero. What it has no value for is the paper's.
AUTHORS = {
    **PAPER,
    "first_answers": (3, "run_srt_data.sh"),
    "revisions": (3, "run_srt_data.sh"),
    "revise": ("wrong", "run_srt_data.sh: REVISE_CORRECT=0"),
    "temperature": (1.0, "run_srt_data.sh"),
    "top_p": (0.9, "run_srt_data.sh"),
    "phrase_if_wrong": ("", "self_critique_pipeline.py: by model family"),
    "trim": (True, "prepare_data.py"),
    # L_generation on tuples with a wrong first answer, then L_revision on 1000 others, right ones
    # first (the README: 4000 + 2000)
    "l_generation": ("wrong", "sft.py, stage 1"),
    "srt_in_turn": (True, "sft.sh"),
    "revision_records": (1_000, "sft.py, stage 2"),
    "reduction": ("mean", "loss_functions.py"),
    "divergence": ("mixed", "distillation_math.yaml, distill.sh: 0.5"),
    "top_k": (64, "distillation_math.yaml"),
    "distil_epochs": (5, "distill.sh; the yaml has 10"),
    "distil_steps": (1_000, "distillation_math.yaml"),
    "distil_beta2": (0.999, "distillation_math.yaml"),
    # One prompt for all phases, that of the collection: the authors' code puts a question in three
    # ways, which is one of its defects.
    "system": (
        "You are a helpful assistant that solves math problems step by step.",
        "self_critique_pipeline.py",
    ),
    "instruction": (
        "\n\nPlease reason step by step, and put your final answer within \\boxed{}.",
        "self_critique_pipeline.py",
    ),
}
AUTHORS_CODE = {  # where it differs for --task code
    "system": (
        "You are a helpful assistant that solves coding problems step by step.",
        "self_critique_pipeline.py",
    ),
    "instruction": ("", "the question as it is, and our line on the answer's form"),
}

# What --scale multiplies; rates, ratios and numbers per question stay.
COUNTS = (
    "srt_questions",
    "srt_records",
    "revision_records",
    "distil_questions",
    "distil_steps",
    "eval_questions",
)
# A phase's own setting follows the general one where that alone is given by hand.
FOLLOWS = {
    "temperature": ("distil_temperature", "eval_temperature"),
    "top_p": ("distil_top_p", "eval_top_p"),
    "max_tokens": ("distil_max_tokens", "eval_max_tokens"),
}


def recipe(name: str, task: str = "math") -> dict:
    """{option: value} of "paper" or "authors"."""
    table = {"paper": PAPER, "authors": AUTHORS}[name]
    if name == "authors" and task == "code":
        table = {**AUTHORS, **AUTHORS_CODE}
    return {option: value for option, (value, _) in table.items()}


def following(given: dict) -> dict:
    """0 ("as the general one") for the settings of phases whose general one is given alone."""
    return {
        own: 0
        for general, owns in FOLLOWS.items()
        if general in given
        for own in owns
        if own not in given
    }


def scaled(cfg) -> dict:
    """{option: value} of the counts, each times --scale, none below 1; 0, which means all or none,
    stays 0. Says what changed."""
    counts = {name: getattr(cfg, name) for name in COUNTS}
    fewer = {name: max(1, round(cfg.scale * n)) if n else 0 for name, n in counts.items()}
    changes = [f"{name} {n} -> {fewer[name]}" for name, n in counts.items() if n != fewer[name]]
    print(f"--scale {cfg.scale:g}: {', '.join(changes)}; every rate stays")
    return fewer
