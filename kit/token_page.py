"""A self-contained page of answers, each token coloured by its reward; no scripts."""

import html

import numpy as np

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 50rem; color: #111; background: #fff; }}
.answer {{ font: 15px/1.9 ui-monospace, monospace; overflow-wrap: anywhere; white-space: pre-wrap; margin: .3rem 0; }}
.answer span {{ border-radius: 2px; padding: 1px 0; }}
.peak {{ outline: 2px solid #111; }}
.first {{ text-decoration: underline 2px; text-underline-offset: 4px; }}
section {{ border-top: 1px solid #bbb; padding: .6rem 0; }}
small {{ color: #444; }}
</style></head><body>
<h1>{title}</h1>
<p>Each token of an answer is coloured by its reward, log student(token) - log reviser(token), where the reviser has read the whole
answer and its verdict: <span style="background:rgba(214,69,0,.8)">orange</span> where the reviser finds it less likely than the generator did
(phase 2 pushes it down), <span style="background:rgba(0,110,200,.6)">blue</span> where more. {scale} A <span class="peak">frame</span> marks the
highest reward of an answer{first}.</p>
{body}
</body></html>
"""


def token_page(title: str, kinds: dict[str, list[dict]]) -> str:
    """A self-contained HTML page of answers (tokens, token_reward, question, reward; first_wrong where known), without scripts."""
    rewards = [abs(r) for group in kinds.values() for s in group for r in s["token_reward"]]
    full, marks, body = float(np.quantile(rewards, 0.99)) or 1.0 if rewards else 1.0, False, []
    for kind, group in kinds.items():
        if not group:
            continue
        body.append(f"<h2>{html.escape(kind)}</h2>")
        for s in group:
            spans, peak = [], int(np.argmax(s["token_reward"]))
            for t, (token, reward) in enumerate(zip(s["tokens"], s["token_reward"])):
                alpha, rgb = min(1.0, abs(reward) / full) * 0.85, "214,69,0" if reward > 0 else "0,110,200"
                names = ["peak"] * (t == peak) + ["first"] * (t == s.get("first_wrong"))
                marks |= "first" in names
                of_class = f' class="{" ".join(names)}"' if names else ""
                spans.append(f'<span{of_class} style="background:rgba({rgb},{alpha:.2f})" title="{reward:+.3f}">{html.escape(token)}</span>')
            prompt, gold = s["question"]["prompt"], s["question"]["answer"]
            prompt = prompt if isinstance(prompt, str) else prompt[-1]["content"]
            right = f"; right: {html.escape(gold)}" if isinstance(gold, str) else ""
            body.append(f'<section><div>{html.escape(prompt)}</div><div class="answer">{"".join(spans)}</div>'
                        f'<small>{"right" if s["reward"] else "wrong"}{right}; highest token reward {s["token_reward"][peak]:+.2f}, KL of the answer {sum(s["kl"]):.2f} nats</small></section>')
    return PAGE.format(title=html.escape(title), body="\n".join(body), scale=f"Full colour is {full:.2f} nats or more.",
                       first=', an <span class="first">underline</span> its first wrong token' if marks else "")
