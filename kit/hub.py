"""Is the hub there? Its own retries take minutes; here a person waits seconds for an answer."""

import functools
import os
import threading

from kit.errors import UserError


@functools.cache  # a run asks for its model's tokenizer, configuration and weights: once is enough
def require_hub(name: str, kind: str, advice: str) -> None:
    """Raise UserError within seconds where `name` (a "model" or "dataset", `kind` says which) is
    neither cached nor to be had from the hub."""
    import huggingface_hub

    problem = ["no answer within 10 s"]

    def ask():
        try:
            huggingface_hub.HfApi().repo_info(name, repo_type=kind, timeout=5)
            problem[0] = None
        except Exception as e:
            problem[0] = type(e).__name__

    # a name server that never answers ignores every time-out but this one
    asker = threading.Thread(target=ask, daemon=True)
    asker.start()
    asker.join(10)
    if not problem[0]:
        return
    try:
        huggingface_hub.snapshot_download(name, repo_type=kind, local_files_only=True)
    except Exception:
        raise UserError(
            f"the {kind} {name!r} is not a local path, not in the cache, and the hub does not "
            f"serve it ({problem[0]}). {advice}"
        ) from None
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
