"""The baselines against their published formulas.   pytest -q test_baselines.py"""
import pytest
import torch
import torch.nn.functional as F

import modeling
import sdzero
from test_sdzero import END_IDS, addition, as_samples, gradients, random_model, relative, rows_of_ids, small, tokenizer  # noqa: F401


def test_advantages_of_a_worked_example():
    got = sdzero.advantages(torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1]]))
    assert torch.allclose(got[0], torch.tensor([0.75, -0.25, -0.25, -0.25]) / (0.5 + 1e-4)) and not got[1].any()


def test_grpo_loss_clips_and_adds_the_divergence():
    log_prob, old = torch.tensor([1.5, 0.5, 1.5, 0.5]).log(), torch.zeros(4)
    advantage = torch.tensor([1.0, 1.0, -1.0, -1.0])
    assert torch.allclose(sdzero.grpo_loss(log_prob, old, advantage, 0.2), -torch.tensor([1.2, 0.5, -1.5, -0.8]))
    with_kl = sdzero.grpo_loss(log_prob, old, advantage, 0.2, torch.zeros(4), 0.1)
    ratio = 1 / log_prob.exp()
    assert torch.allclose(with_kl - sdzero.grpo_loss(log_prob, old, advantage, 0.2), 0.1 * (ratio - ratio.log() - 1), atol=1e-6)


def test_grpo_gradient_is_that_of_the_published_formula():
    """1/G sum_i 1/|y_i| sum_t A_i grad log pi(y_t), by whole logits and autograd, one row at a time."""
    samples = as_samples(rows_of_ids(8))
    for budget in (60, 4000):
        model, cfg = random_model(), small(group=4, micro_tokens=budget)
        sdzero.grpo_on(model, None, samples, cfg)
        brute = random_model()
        rewards = torch.tensor([s["reward"] for s in samples]).view(2, 4)
        A = ((rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)).flatten()
        for s, a in zip(samples, A):
            logits = brute(input_ids=torch.tensor([s["context"] + s["ids"]])).logits[0, len(s["context"]) - 1:-1]
            (a / 8 * F.cross_entropy(logits, torch.tensor(s["ids"]))).backward()
        assert gradients(brute).norm() > 0 and relative(gradients(model), gradients(brute)) < 1e-4


def test_sdft_teacher_reads_the_demonstration_or_else_the_answer(tokenizer):  # noqa: F811
    question = addition(12, 34)
    assert "The final answer is 46." in sdzero.sdft_prompt(question)[-1]["content"]
    prompt = sdzero.sdft_prompt(question | {"demonstration": "2+4=6;1+3=4;"})
    assert "2+4=6;1+3=4;" in prompt[-1]["content"] and prompt[-1]["content"].startswith(question["prompt"])
    assert "2+4=6;" in tokenizer.decode(sdzero.chat_ids(tokenizer, prompt))


@pytest.mark.parametrize("low_precision", [False, True])
def test_weights_are_put_back_exactly(low_precision):
    """What iterated RFT starts each round from."""
    model = random_model()
    if low_precision:
        modeling.split_weights(model)
    before, saved = [modeling.exact(p).clone() for p in model.parameters()], modeling.copy_weights(model)
    for _ in range(2):
        optimizer = sdzero.adamw(model, 1e-2, 0.0, small())
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        sdzero.update(model, optimizer, 1e-2, 1.0)
        assert not any(torch.equal(modeling.exact(p), w) for p, w in zip(model.parameters(), before))
        modeling.put_weights(model, saved)
        assert all(torch.equal(modeling.exact(p), w) for p, w in zip(model.parameters(), before))


def test_control_trains_on_verified_revisions_as_answers():
    record = {"prompt_ids": [3, 4], "revised_context": [3, 4, 5, 6], "revised_ids": [7, 2], "init_reward": 0.0}
    assert sdzero.srt_examples(record, small(method="rft", on_revisions=True), END_IDS) == [([3, 4], [7, 2])]
    with pytest.raises(sdzero.UserError, match="none of 1 revisions was verified"):
        sdzero.srt(random_model(), [record | {"kept": False}], small(method="rft", on_revisions=True), END_IDS, None)
