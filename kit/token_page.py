"""A self-contained page of answers, each token coloured by its reward; no scripts."""

import html
from pathlib import Path
from string import Template

import numpy as np

from kit import shades
from kit.questions import question_in


def token_page(title: str, kinds: dict[str, list[dict]]) -> str:
    """A self-contained HTML page of answers, without scripts.

    kinds: {heading: answers}. An answer has tokens, token_reward, question, reward and kl;
    first_wrong where known.
    """
    full = full_colour(kinds)
    body, underlined = [], False
    for kind, answers in kinds.items():
        if answers:
            body.append(f"<h2>{html.escape(kind)}</h2>")
        for answer in answers:
            body.append(answer_section(answer, full))
            underlined = underlined or underlines(answer)

    template = Path(__file__).with_name("token_page.html").read_text(encoding="utf-8")
    first = ', an <span class="first">underline</span> its first wrong token'
    return Template(template).substitute(
        title=html.escape(title),
        body="\n".join(body),
        scale=f"Full colour is {full:.2f} nats or more.",
        first=first if underlined else "",
    )


def full_colour(kinds: dict[str, list[dict]]) -> float:
    """The reward, in nats, from which on a token has its full colour."""
    rewards = []
    for answers in kinds.values():
        for answer in answers:
            rewards += answer["token_reward"]
    return shades.full_colour(rewards)


def answer_section(answer: dict, full: float) -> str:
    """The question, the coloured answer, and a line about it."""
    question, gold = question_in(answer["question"]["prompt"]), answer["question"]["answer"]
    right = f"; right: {html.escape(gold)}" if isinstance(gold, str) else ""
    peak = int(np.argmax(answer["token_reward"]))
    return (
        f"<section><div>{html.escape(question)}</div>"
        f'<div class="answer">{"".join(token_spans(answer, peak, full))}</div>'
        f"<small>{'right' if answer['reward'] else 'wrong'}{right}; highest token reward "
        f"{answer['token_reward'][peak]:+.2f}, KL of the answer {sum(answer['kl']):.2f} nats"
        "</small></section>"
    )


def token_spans(answer: dict, peak: int, full: float) -> list[str]:
    """Every token in its colour; the one at `peak` framed, the first wrong one underlined."""
    spans = []
    for place, (token, reward) in enumerate(zip(answer["tokens"], answer["token_reward"])):
        names = ["peak"] * (place == peak) + ["first"] * (place == answer.get("first_wrong"))
        of_class = f' class="{" ".join(names)}"' if names else ""
        spans.append(
            f'<span{of_class} style="background:{shades.css(reward, full)}" '
            f'title="{reward:+.3f}">{html.escape(token)}</span>'
        )
    return spans


def underlines(answer: dict) -> bool:
    """Whether the first wrong token of an answer is known, and so underlined."""
    return answer.get("first_wrong") in range(len(answer["tokens"]))
