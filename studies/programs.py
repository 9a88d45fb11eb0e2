"""The three programs that train: a row of a table is a dict of options of one of them."""

import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args

import baselines
import sdzero
from kit.options import as_flags
from studies import variants

ROOT = Path(sdzero.__file__).resolve().parent


def field_types(cls) -> dict:
    return {f.name: f.type for f in fields(cls)}


def is_baseline(options: dict) -> bool:
    """With a "method" of baselines.py a row is that program's."""
    return options.get("method") in baselines.DEFAULTS


def is_variant(options: dict) -> bool:
    """With an option or a divergence that only variants.py has a row is that program's."""
    if is_baseline(options):
        return False
    usual = field_types(sdzero.Config)
    own = set(field_types(variants.VariantConfig)) - set(usual)
    known = get_args(usual["divergence"])
    return bool(own & set(options)) or options.get("divergence", known[0]) not in known


def program_has(name: str, options: dict) -> bool:
    """Whether the program that a row's options are for has an option of this name."""
    if is_baseline(options):
        return not baselines.lacks(name, options)
    return name in field_types(variants.VariantConfig if is_variant(options) else sdzero.Config)


def of_program(given: dict, options: dict) -> dict:
    """The given options that a row's program has."""
    return {name: value for name, value in given.items() if program_has(name, options)}


def maker_of(options: dict):
    """The function that makes a configuration of the program that these options are for."""
    if is_baseline(options):
        return baselines.make_baseline_config
    return variants.make_variant_config if is_variant(options) else sdzero.make_config


def config_of(options: dict) -> sdzero.Config:
    """What the program makes of its options. Raises UserError as it would."""
    return maker_of(options)(**options)


def stages_of(cfg: sdzero.Config) -> list:
    """The stages of the program whose configuration this is."""
    if isinstance(cfg, baselines.BaselineConfig):
        return baselines.stages_of(cfg)
    if isinstance(cfg, variants.VariantConfig):
        return variants.stages_of(cfg)
    return sdzero.stages_of(cfg)


def last_stage_of(cfg: sdzero.Config) -> str:
    """The stage whose results are the method's."""
    return stages_of(cfg)[-1].name


def command_of(options: dict) -> list[str]:
    """The command line of a run."""
    if is_variant(options):
        return [sys.executable, str(ROOT / "studies" / "variants.py"), *as_flags(options)]
    if not is_baseline(options):
        return [sys.executable, str(ROOT / "sdzero.py"), *as_flags(options)]
    others = {name: value for name, value in options.items() if name != "method"}
    return [sys.executable, str(ROOT / "baselines.py"), options["method"], *as_flags(others)]
