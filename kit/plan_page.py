"""What --plan prints: what each phase needs, what fits which card, and how long it takes there."""

from dataclasses import replace

import torch

from kit import budget, hours, memory_plan
from kit.memory_plan import PASS_TOKENS, RESERVE, ROLLOUTS, Sizes, flags, memory, peak
from kit.sizes import read_config, sizes
from kit.tables import table


def plan(cfg) -> str:
    """The page."""
    responses = budget.responses_of(cfg, cfg.srt_questions, cfg.distil_questions)
    s = sizes(read_config(cfg.model))
    here = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0
    on_gpu = replace(cfg, dtype="bfloat16") if cfg.dtype == "auto" else cfg
    of_card, shortened = {}, {}
    for card in memory_plan.CARDS:
        if found := memory_plan.fastest(s, on_gpu, card * 1e9):
            of_card[card] = found
        elif found := memory_plan.shorter(s, on_gpu, card * 1e9):
            shortened[card] = found
    # the first table is of this card's settings, else of those for 80 GB, or for the smallest card
    shown = memory_plan.fastest(s, on_gpu, here) if here else None
    shown = shown or of_card.get(80) or next(iter(of_card.values()), memory_plan.smallest(on_gpu))

    about = (
        f"{cfg.model}: {s.parameters / 1e9:.3g}e9 parameters; responses of up to {cfg.max_tokens} "
        f"tokens\nwith {flags(shown)}\nAll of it is computed, and nothing measured on a GPU."
    )
    on_this = gpu_line(s, shown, here) if here else cpu_line(s, cfg)
    disk = memory_plan.disk_line(s, shown)
    return "\n\n".join(
        [about, parts_table(s, shown), on_this, disk, *cards_text(s, of_card, shortened, responses)]
    )


def parts_table(s: Sizes, cfg) -> str:
    """The GB of every part in every phase."""
    phases, every_part = memory(s, cfg), {}
    for of_phase in phases.values():
        every_part |= of_phase
    rows = [["GB on one GPU", *phases]]
    for part in every_part:
        rows.append([part, *(gigabytes(of_phase.get(part, 0)) for of_phase in phases.values())])
    totals = (sum(of_phase.values()) for of_phase in phases.values())
    rows.append(["together", *(gigabytes(total) for total in totals)])
    return table(rows)


def gpu_line(s: Sizes, cfg, card: float) -> str:
    """Whether the settings fit this machine's GPU."""
    fits = peak(s, cfg) <= card * (1 - RESERVE)
    return (
        f"{torch.cuda.get_device_name()}, {card / 1e9:.0f} GB free: this "
        f"{'fits' if fits else 'does not fit'}; {memory_plan.cache_line(s, cfg, card)}"
    )


def cpu_line(s: Sizes, cfg) -> str:
    """What the settings need on this machine's CPU, and whether they fit."""
    cfg = replace(
        cfg,
        offload=False,
        micro_tokens=cfg.micro_tokens or PASS_TOKENS,
        rollout_batch=cfg.rollout_batch or ROLLOUTS,
    )
    ram, needs = memory_plan.ram_bytes(), peak(s, cfg, gpu=False)
    needed = f"{needs / 1e9:.1f} GB, libraries included"
    if ram is None:
        return f"no GPU here; on this CPU, whose RAM is not known: {needed}, with {flags(cfg)}"
    verdict = "fit" if needs <= ram * 0.9 else "do not fit"
    return (
        f"no GPU here; on this CPU with {ram / 1e9:.0f} GB: {needed}, {verdict}, with {flags(cfg)}"
    )


def cards_text(s: Sizes, of_card: dict, shortened: dict, responses: dict[str, int]) -> list[str]:
    """The settings for each usual card, what they need there, and the smallest card; `shortened`
    are those that fit with shorter responses alone."""
    if not of_card and not shortened:
        return [
            f"No single GPU of up to {memory_plan.CARDS[-1]} GB holds this model's states. "
            "Adapters (--lora) need least; --shard shares moments and low halves over cards, but "
            "weights, teacher and gradients would have to be sharded too, which this program does "
            "not do."
        ]
    rows = [["card", "needs GB", "host GB", "tokens/s", "rollouts h", "training h", "settings"]]
    for card, cfg in {**shortened, **of_card}.items():
        took = hours.hours(s, cfg, card * 1e9, responses)
        limit = f"--max-tokens {cfg.max_tokens} " if card in shortened else ""
        row = [f"{card} GB", gigabytes(peak(s, cfg)), gigabytes(memory_plan.host_bytes(s, cfg))]
        row += [f"{took[key]:.0f}" for key in ("tokens a second", "rollouts", "training")]
        rows.append([*row, limit + flags(cfg)])
    source = "tokens a second as given"
    if not cfg.tokens_per_second:
        source = (
            f"tokens a second: {hours.OF_BANDWIDTH:.0%} of what the memory bandwidth of a usual "
            "card of that size allows (docs/memory_and_speed.md)"
        )
    lengths = ", ".join(f"{kind} {n:,}" for kind, n in hours.tokens_of(cfg).items())
    return [
        "the fastest settings that fit, computed:\n" + table(rows),
        f"The hours are of {took['tokens'] / 1e6:,.0f} million sampled tokens, with "
        f"{hours.evaluations(cfg)} evaluations of {hours.evaluated_responses(cfg):,} responses "
        f"(tokens of a response on average: {lengths}); {source}; training at "
        f"{hours.OF_ARITHMETIC:.0%} of the card's arithmetic{kept_clause(cfg, responses)}.",
        *offload_lines(s, of_card, responses),
        f"smallest card: {min(of_card)} GB" if of_card else "no card without a lower --max-tokens",
    ]


def kept_clause(cfg, responses: dict[str, int]) -> str:
    """How many revisions are taken to be trained on."""
    revisions = responses.get("revisions", 0)
    return f", {budget.kept_at_most(cfg, revisions):,} revisions kept" if revisions else ""


def offload_lines(s: Sizes, of_card: dict, responses: dict[str, int]) -> list[str]:
    """Where moments on the card leave so little room to sample that --offload saves time."""
    saved = []
    for card, cfg in of_card.items():
        other = memory_plan.fitted(s, cfg, card * 1e9, offload=True, moments="float32")
        if other and not cfg.offload:
            kept, moved = (
                took["rollouts"] + took["training"]
                for took in (hours.hours(s, way, card * 1e9, responses) for way in (cfg, other))
            )
            if moved < 0.9 * kept:
                saved.append(f"{moved:.0f} h instead of {kept:.0f} on {card} GB")
    more = "with --offload, which leaves more room to sample, in all: "
    return [more + ", ".join(saved)] if saved else []


def gigabytes(n: float) -> str:
    return f"{n / 1e9:.1f}" if n else "-"
