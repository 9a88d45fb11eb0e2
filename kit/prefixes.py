"""What many rows begin with is computed once: a few-shot prompt, a system message, a prompt that is
sampled k times. Nothing else of a row changes, and no sampled id does.
"""

import inspect

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

SAVED = 0.5  # of a batch's tokens, at least: less is not worth a pass of its own
ALIKE = 32  # tokens that a training pass's rows must begin with
AHEAD = 64  # tokens that a cache has room for behind those it holds


def shared_length(rows: list) -> int:
    """How many tokens all rows begin with; one of each row is always left to compute."""
    first, most = rows[0], min(map(len, rows)) - 1
    return next((t for t in range(most) if any(row[t] != first[t] for row in rows)), most)


def can_share(model) -> bool:
    """Whether rows may have their padding behind what they share, and be read in two passes. A
    sliding window counts padding, a recurrent layer reads it, and a bias by distance that is not
    told of positions takes it for distance."""
    told = "position_ids" in inspect.signature(model.base_model.forward).parameters
    if not (told and model._supports_default_dynamic_cache()):
        return False
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or ["full_attention"]
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    return set(kinds) == {"full_attention"} and not window


def prefilled(model, prompts: list[list[int]], pad: int):
    """A batch for generate(): (ids (B, T), mask (B, T), {"past_key_values": what is read of them}).
    Where too little would be saved, padded on the left, and the cache is empty; where the model
    can't share, there is none.

    First what all prompts begin with is read, once. Where prompts stand there several times, then
    what each different one has behind it, but for its last token, of which rows of the same prompt
    get copies. generate() reads the rest. Call it where no gradient is taken.
    """
    unique = list(dict.fromkeys(map(tuple, prompts)))
    start, device, longest = shared_length(unique), model.device, max(map(len, unique))
    width = longest - start  # of what is read behind it
    cost = start + len(unique) * width + len(prompts)
    if not can_share(model):
        return *padded_behind(prompts, 0, pad, device), {}
    cache = roomy_cache(model)
    if cost > (1 - SAVED) * len(prompts) * longest:
        return *padded_behind(prompts, 0, pad, device), {"past_key_values": cache}

    ids, mask = padded_behind(prompts, start, pad, device)  # (B, T), (B, T)
    if start:
        read(model, ids[:1, :start], mask[:1, :start], cache)
        repeat_row(cache, len(unique))
    if len(prompts) > len(unique):
        if width > 1:
            some, seen = padded_behind([list(row) for row in unique], start, pad, device)
            read(model, some[:, start:-1], seen[:, :-1], cache)
        place = {row: i for i, row in enumerate(unique)}
        places = torch.tensor([place[tuple(prompt)] for prompt in prompts], device=device)  # (B,)
        cache.batch_select_indices(places)
    return ids, mask, {"past_key_values": cache}


def padded_behind(prompts: list, start: int, pad: int, device):
    """Prompts as one batch that ends together: (ids, mask), both (B, T). The padding stands behind
    the first `start` tokens, which all of them share."""
    length = max(map(len, prompts))
    ids, mask = [], []
    for p in prompts:
        gap = length - len(p)
        ids.append([*p[:start], *[pad] * gap, *p[start:]])
        mask.append([1] * start + [0] * gap + [1] * (len(p) - start))
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def read(model, ids, mask, cache) -> None:
    """Add ids (U, n), behind what the cache holds, to it; mask (U, all so far)."""
    positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]  # (U, n)
    how = {"attention_mask": mask, "position_ids": positions, "use_cache": True}
    model.base_model(input_ids=ids, past_key_values=cache, **how)


def repeat_row(cache, n: int) -> None:
    """Its one row becomes n, which share their memory until more is added to them."""
    for layer in cache.layers:
        layer.keys = layer.keys.expand(n, -1, -1, -1)
        layer.values = layer.values.expand(n, -1, -1, -1)


def roomy_cache(model) -> DynamicCache:
    """An empty cache, whose layers that attend to everything have room for the next tokens."""
    cache = DynamicCache(config=model.config)
    cache.layers = [RoomyLayer() if type(one) is DynamicLayer else one for one in cache.layers]
    return cache


class RoomyLayer(DynamicLayer):
    """Its keys and values (B, heads, T, D) are the beginnings of longer tensors, and a new token is
    written behind them. DynamicLayer copies all it holds, for every token."""

    long_keys = long_values = None

    def update(self, key_states, value_states, *args, **kwargs):
        """Add (B, heads, n, D) of each; returns all keys, all values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length = self.get_seq_length()
        end = length + key_states.shape[-2]
        if not self.has_room_for(end):
            self.long_keys = with_room(key_states, end)
            self.long_values = with_room(value_states, end)
            if length:
                self.long_keys[:, :, :length] = self.keys
                self.long_values[:, :, :length] = self.values
        self.long_keys[:, :, length:end] = key_states
        self.long_values[:, :, length:end] = value_states
        self.keys, self.values = self.long_keys[:, :, :end], self.long_values[:, :, :end]
        return self.keys, self.values

    def has_room_for(self, end: int) -> bool:
        """Whether the longer tensors reach to end, and still begin with this layer's keys: rows may
        have been copied or dropped since."""
        long = self.long_keys
        if long is None or len(long) != len(self.keys) or long.shape[-2] < end:
            return False
        return long.data_ptr() == self.keys.data_ptr()


def with_room(new, end: int):
    """An empty tensor like new (B, heads, n, D), for the tokens up to end and AHEAD more."""
    return new.new_empty(*new.shape[:2], end + AHEAD, new.shape[-1])


# --------------------------------------------------------------------------------------------------
# Passes of the losses
# --------------------------------------------------------------------------------------------------
def last_hidden(model, input_ids, rows: list[list[int]]):
    """The last layer's hidden states of rows, which input_ids (B, T) has padded on the right:
    (B, T, H). Attention is causal, so the states of what all rows begin with are the same in each;
    the gradient of theirs is the sum of the rows'. Gradient checkpointing allows no cache."""
    start = shared_length(rows)
    checkpointed = model.training and getattr(model, "is_activation_checkpointing", False)
    if len(input_ids) < 2 or start < ALIKE or checkpointed or not can_share(model):
        return model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state

    cache = DynamicCache(config=model.config)
    once = model.base_model(input_ids=input_ids[:1, :start], past_key_values=cache, use_cache=True)
    repeat_row(cache, len(input_ids))
    rest = model.base_model(input_ids=input_ids[:, start:], past_key_values=cache, use_cache=True)
    shared = once.last_hidden_state.expand(len(input_ids), -1, -1)  # (B, start, H)
    return torch.cat([shared, rest.last_hidden_state], 1)
