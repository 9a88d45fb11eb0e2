"""A model and its tokenizer: loading them, what ends a response, and what identifies them."""

import contextlib
import copy
import functools
import hashlib
import json
import os
import re
from pathlib import Path

import torch

from kit import gguf_files, gpu
from kit.adapters import add_adapters
from kit.errors import UserError
from kit.hub import require_hub
from kit.losses import head_of, logits_of, trim_heap
from kit.low_bits import split_weights
from kit.presets import ALIASES, is_tiny
from kit.tokens import template_values

PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ {'user': 'Question: ', 'assistant': 'Answer: ', 'system': ''}"
    "[m['role']] + m['content'] + (eos_token if m['role'] == 'assistant' else '') + '\n\n' }}"
    "{% endfor %}{% if add_generation_prompt %}Answer:{% endif %}"
)


def source_of(model: str) -> tuple[str, dict]:
    """(name, keywords) for transformers' from_pretrained: a folder, a GGUF file or a hub id.

    Raises UserError where there is none.
    """
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    name = ALIASES.get(model, model)
    if name.endswith(".gguf"):
        if not Path(name).is_file():
            raise UserError(f"--model {name}: no such file")
        try:
            import accelerate  # noqa: F401  (transformers imports both when it reads the file)
            import gguf  # noqa: F401
        except ImportError:
            raise UserError(
                "a .gguf file needs two packages more: pip install gguf accelerate"
            ) from None
        return str(Path(name).parent), {"gguf_file": Path(name).name}
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise UserError(
                f"--model {name}: the folder has no config.json, so it is not a Hugging Face "
                "checkpoint"
            )
        return name, {}
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise UserError(f"--model {name}: no such folder or file")
    require_hub(
        name,
        "model",
        "Use the embedded default (--model tiny), a local checkpoint folder or a .gguf file.",
    )
    return name, {}


def load_tokenizer(cfg):
    """The tokenizer of cfg.model, with cfg.chat_template. Raises UserError where it has none."""
    tokenizer = read_by("AutoTokenizer", cfg.model)
    whose = f"--chat-template {cfg.chat_template}" if cfg.chat_template else f"of {cfg.model}"
    if cfg.chat_template == "plain":
        tokenizer.chat_template = plain_template(tokenizer)
    elif cfg.chat_template:
        if not Path(cfg.chat_template).is_file():
            raise UserError(f"{whose}: no such file (nor the word plain)")
        try:
            tokenizer.chat_template = Path(cfg.chat_template).read_text(encoding="utf-8")
        except UnicodeDecodeError as e:
            raise UserError(f"{whose}: no text ({e})") from e
    if not tokenizer.chat_template:
        raise UserError(
            f"the tokenizer of {cfg.model} has no chat template (a base model?). Use the instruct "
            "version, or give --chat-template plain (Question: ... Answer:), or --chat-template "
            "FILE with a Jinja template."
        )
    trial = [{"role": "user", "content": "1+1?"}]
    why = refusal(tokenizer, trial)
    how = {"tokenize": False, **template_values(tokenizer)}
    if not why and trial[0]["content"] not in tokenizer.apply_chat_template(trial, **how):
        why = "it leaves the question out"
    if why:
        raise UserError(f"the chat template {whose} cannot be used: {why}")
    return tokenizer


def read_by(auto: str, model: str):
    """What one of transformers' Auto classes reads of a model; the caller may change it. Raises
    UserError."""
    import transformers

    name, source = source_of(model)
    try:
        if source:
            file = Path(name) / source["gguf_file"]
            changed = file.stat().st_mtime_ns
            return copy.deepcopy(read_gguf(auto, name, source["gguf_file"], changed))
        return getattr(transformers, auto).from_pretrained(name)
    except (OSError, ValueError, IndexError) as e:  # IndexError: a .gguf file that was cut off
        raise cannot_load(model, e) from e


@functools.lru_cache(maxsize=4)
def read_gguf(auto: str, folder: str, file: str, changed: int):
    """As read_by(), once of each file."""
    import transformers

    with gguf_files.looked_through_once():
        return getattr(transformers, auto).from_pretrained(folder, gguf_file=file)


def plain_template(tokenizer) -> str:
    """PLAIN_TEMPLATE, below the token that this tokenizer begins every text with, if it has one:
    a chat template has to bring it."""
    bos = tokenizer.bos_token_id
    begins = bos is not None and tokenizer.encode("a")[:1] == [bos]
    return "{{ bos_token }}" * begins + PLAIN_TEMPLATE


def refusal(tokenizer, messages: list[dict]) -> str | None:
    """Why the chat template cannot write these messages down, in one line; None if it can."""
    how = {"tokenize": False, "add_generation_prompt": True, **template_values(tokenizer)}
    try:
        tokenizer.apply_chat_template(messages, **how)
        return None
    except Exception as e:  # jinja2's, and whatever a template's code raises
        line = f" (line {e.lineno})" if getattr(e, "lineno", None) else ""
        return f"{(str(e).splitlines() or [type(e).__name__])[0]}{line}"


def check_prompts(tokenizer, questions: list[dict], model: str) -> None:
    """Raise UserError where a model's chat template refuses one of the questions, for its roles: a
    system message, two turns of the user. Another model's may have let them pass when their file
    was read."""
    first_with = {}  # {roles: a question}
    for q in questions:
        if isinstance(q["prompt"], list):
            first_with.setdefault(tuple(turn["role"] for turn in q["prompt"]), q)
    for q in first_with.values():
        if why := refusal(tokenizer, q["prompt"]):
            asked = q["prompt"][-1]["content"][:60]
            raise UserError(f"the chat template of {model} refuses the question {asked!r}: {why}")


def cannot_load(model: str, error: Exception) -> UserError:
    return UserError(f"--model {model} cannot be loaded: {str(error).splitlines()[0]}")


def load_model(cfg):
    """The model of cfg.model, in cfg.dtype on cfg.device, dropout off.

    Raises UserError for a model that cannot be had, or whose logits are not its output embedding of
    the last hidden states (the losses project those themselves, see TokenLoss).
    """
    import transformers

    name, source = source_of(cfg.model)
    config = {"config": read_by("AutoConfig", cfg.model)} if source else {}
    once = gguf_files.looked_through_once() if source else contextlib.nullcontext()
    try:
        # fp32 first: bfloat16 training needs the bits below bfloat16 (split_weights)
        with once:
            model = transformers.AutoModelForCausalLM.from_pretrained(
                name, dtype=torch.float32, **source, **config
            )
    except (OSError, ValueError, IndexError) as e:
        raise cannot_load(cfg.model, e) from e
    if source:  # plain fp32 now; save_pretrained refuses what still calls itself quantised
        gguf_files.forget()
        model.hf_quantizer, model.is_quantized = None, False
        del model.config.quantization_config

    device = device_of(cfg)
    switch_dropout_off(model)
    check_head(model)
    low = gpu.weights_are_low(cfg, device)
    if low and device == "cpu" and not gpu.cpu_has_bfloat16():
        print("warning: this CPU emulates bfloat16, about four times slower than --dtype float32")
    if cfg.lora:
        add_adapters(model, cfg.lora, cfg.seed, torch.bfloat16 if low else torch.float32)
    elif low:
        split_weights(model)
    model.to(device)
    if is_tiny(cfg.model):
        torch.set_num_threads(1)  # two take three times as long beside another busy process
    if device == "cpu" and not cfg.lora:
        # a pass touches few rows of it; a dense gradient would be cleared and added in full for
        # each pass (in_passes)
        model.get_input_embeddings().sparse = True
    trim_heap(model.get_output_embeddings().weight)
    return model


def device_of(cfg) -> str:
    """cfg.device, "auto" and "cuda" being this process's own GPU; Apple's ("mps") is used where it
    is asked for. Raises UserError."""
    device = gpu.card(cfg.device)
    try:
        torch.device(device)
    except RuntimeError:
        raise UserError(f"--device {device}: no such device; use auto, cpu, cuda or mps") from None
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU here; use --device cpu")
    if device.startswith("mps") and not torch.backends.mps.is_available():
        raise UserError(
            "--device mps: torch sees no GPU of Apple's here (macOS on Apple silicon has one); use "
            "--device cpu"
        )
    return device


def switch_dropout_off(model) -> None:
    """Student and teacher are compared token by token: no noise in either."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            # attention takes its rate as a number, without a Dropout module
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)


@torch.no_grad()
def check_head(model) -> None:
    """Raise UserError unless this model's logits are what head_of makes of its hidden states."""
    kind = type(model).__name__
    if model.get_output_embeddings() is None:
        raise UserError(
            f"{kind} has no output embedding, so its token distributions cannot be computed"
        )
    model.eval()
    ids = torch.arange(8)[None] % model.config.get_text_config().vocab_size  # (1, 8)
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]  # (8, H)
    ours, theirs = logits_of(hidden, head_of(model)), model(input_ids=ids).logits[0]  # (8, V)
    if not torch.allclose(ours, theirs.float(), rtol=1e-3, atol=1e-3):
        raise UserError(
            f"{kind} changes its logits after the output embedding in a way this program does not "
            "know"
        )


def end_token_ids(tokenizer, model) -> list[int]:
    """Every token that ends a response: the generation config's, and the tokenizer's."""
    ends = model.generation_config.eos_token_id
    ends = [ends] if isinstance(ends, int) else list(ends or [])
    ends += [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    # ChatML models that name only <|endoftext|> still end their turn with <|im_end|>
    turn_ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|eot_id|>"])
    ends += [i for i in turn_ends if i not in (None, tokenizer.unk_token_id)]
    if not ends:
        raise UserError(
            "neither the model's generation config nor its tokenizer names an end token, so no "
            "response could end"
        )
    return sorted(set(ends))


def model_type(model: str) -> str:
    """The architecture that a model's config.json names. Raises UserError."""
    return read_by("AutoConfig", model).model_type


def digest(data) -> str:
    """A hash of plain data."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def weights_fingerprint(model: str) -> dict[str, str]:
    """{the weights in a file: its size and a hash of its head and tail}: another model in the same
    place shows, and a file of 8 GB need not be read for it. Beside them the files of settings,
    which name the end tokens. Of a hub model, its commit."""
    from transformers.utils import cached_file

    name, source = source_of(model)
    if source:
        files = [Path(name) / source["gguf_file"]]
    elif Path(name).is_dir():
        files = sorted([*Path(name).glob("*.safetensors"), *Path(name).glob("*.bin")])
    else:
        return {f"the weights of {name}": Path(cached_file(name, "config.json")).parent.name}
    weights = {f"the weights in {file.name}": size_and_hash(file) for file in files}
    settings = [Path(name) / file for file in ("config.json", "generation_config.json")]
    return weights | {file.name: size_and_hash(file) for file in settings if file.is_file()}


def size_and_hash(file: Path, part: int = 2**20) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as f:
        size = f.seek(0, os.SEEK_END)
        for place in (0, max(0, size - part)):
            f.seek(place)
            digest.update(f.read(part))
    return f"{size} bytes, {digest.hexdigest()[:16]}"
