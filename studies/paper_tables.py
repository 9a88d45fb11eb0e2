"""The paper's result tables as plain data, in per cent; each by its number.

Tables 8, 10, 11 and 12 share rows with Table 1; where the paper contradicts itself (SDFT's HMMT25
in Tables 1 and 8, GRPO's first accuracy in Tables 1 and 9) both stand as printed.
"""

BENCHMARKS = ("AIME24", "AIME25", "HMMT25", "AMOBench", "OpenR1", "MATH", "Codeforces", "LCB")
MATH = BENCHMARKS[:6]
METHODS = ("base", "SFT", "RFT", "GRPO", "SDFT", "SRT", "SD-Zero")
FAMILIES = {"qwen": "Qwen3-4B-Instruct", "olmo": "Olmo-3-7B-Instruct"}

# Table 1, avg@8: {family: {method: eight benchmarks, then their average}}
TABLE_1 = {
    "qwen": {
        "base": (59.6, 45.8, 26.7, 9.8, 55.8, 91.0, 48.0, 61.8, 49.8),
        "SFT": (61.7, 46.3, 31.3, 7.3, 56.1, 91.3, 49.1, 57.2, 50.0),
        "RFT": (64.2, 52.1, 37.1, 11.3, 59.3, 91.9, 50.9, 68.0, 54.3),
        "GRPO": (62.5, 50.0, 30.4, 11.0, 62.9, 93.5, 52.2, 62.6, 53.1),
        "SDFT": (63.3, 47.9, 32.9, 9.0, 57.0, 91.1, 49.3, 59.2, 51.2),
        "SRT": (66.7, 59.2, 40.0, 16.0, 59.8, 92.4, 52.7, 74.4, 57.6),
        "SD-Zero": (68.3, 60.0, 45.4, 16.0, 60.4, 93.6, 56.1, 82.6, 60.3),
    },
    "olmo": {
        "base": (56.7, 42.1, 25.0, 1.3, 48.9, 91.1, 31.7, 32.4, 41.1),
        "SFT": (51.3, 43.8, 30.4, 1.3, 48.5, 91.4, 31.7, 41.0, 42.4),
        "RFT": (56.7, 48.3, 35.8, 2.3, 50.9, 91.4, 39.2, 49.4, 46.7),
        "GRPO": (54.6, 43.8, 25.8, 4.8, 56.9, 91.8, 37.1, 43.6, 44.8),
        "SDFT": (52.9, 45.0, 32.1, 1.3, 49.0, 91.2, 33.5, 42.3, 43.4),
        "SRT": (59.2, 52.9, 39.6, 3.5, 52.4, 92.3, 42.8, 59.6, 50.3),
        "SD-Zero": (61.7, 53.8, 40.4, 5.5, 55.3, 94.0, 43.5, 57.8, 51.5),
    },
}

# Table 3: (samples, epochs); the first phase and the second apart. SFT has no row
TABLE_3 = {
    "RFT": (60_000, 1),
    "GRPO": (60_000, 1),
    "SDFT": (60_000, 1),
    "SRT": (40_000, 1),
    "phase 2": (9_000, 1),
    "SD-Zero": (49_000, 1),
}

# Table 7, pass@8 (mathematics), then the average
TABLE_7 = {
    "qwen": {
        "base": (76.7, 76.7, 50.0, 30.0, 69.2, 97.6, 66.7),
        "SFT": (83.3, 73.3, 46.7, 18.0, 69.2, 97.0, 64.6),
        "RFT": (86.7, 80.0, 53.3, 30.0, 70.2, 98.4, 69.8),
        "GRPO": (80.0, 70.0, 46.7, 28.0, 70.0, 98.0, 65.4),
        "SDFT": (80.0, 70.0, 50.0, 26.0, 70.0, 97.0, 65.5),
        "SRT": (86.7, 80.0, 60.0, 28.0, 70.2, 97.6, 70.4),
        "SD-Zero": (86.7, 80.0, 63.3, 36.0, 72.0, 97.0, 72.5),
    },
    "olmo": {
        "base": (80.0, 73.3, 46.7, 16.0, 60.0, 98.0, 62.3),
        "SFT": (83.3, 66.7, 46.7, 18.0, 55.0, 96.0, 60.9),
        "RFT": (80.0, 73.3, 60.0, 22.0, 62.0, 97.0, 65.7),
        "GRPO": (80.0, 66.7, 46.7, 18.0, 70.0, 97.0, 63.1),
        "SDFT": (80.0, 73.3, 56.7, 20.0, 58.0, 97.0, 64.2),
        "SRT": (83.3, 76.7, 66.7, 20.0, 66.0, 98.0, 68.4),
        "SD-Zero": (83.3, 80.0, 66.7, 30.0, 68.0, 97.0, 70.8),
    },
}

# Tables 8 and 10, avg@8 (mathematics), Qwen
BASE_MATH = (59.6, 45.8, 26.7, 9.8, 55.8, 91.0, 48.1)
OURS_MATH = (68.3, 60.0, 45.4, 16.0, 60.4, 93.6, 57.3)
TABLE_8 = {
    "base": BASE_MATH,
    "SDFT": (63.3, 47.9, 29.9, 9.0, 57.0, 91.1, 49.7),
    "SDFT, final answers only": (62.5, 47.1, 29.9, 9.3, 57.0, 91.0, 49.5),
    "SD-Zero": OURS_MATH,
}
TABLE_10 = {
    "base": BASE_MATH,
    "GRPO, 4 samples, 1 epoch": (62.5, 50.0, 30.4, 11.0, 62.9, 93.5, 51.7),
    "GRPO, 8 samples, 0.5 epoch": (58.8, 50.0, 30.4, 9.8, 61.5, 93.0, 50.6),
    "GRPO, 8 samples, 1 epoch": (61.7, 52.1, 31.3, 12.0, 63.4, 93.1, 52.3),
    "SD-Zero": OURS_MATH,
}

# Tables 9, 11 and 12, Qwen: generate, then revise on AIME24. (average of the eight benchmarks,
# first tokens, revised tokens, first accuracy, revised accuracy, net correction rate); None: not
# printed
REVISED = {
    "base": (49.8, 3708, 5098, 59.6, 60.7, 2.7),
    "GRPO": (None, 4432, 5499, 65.2, 66.9, 4.9),
    "SDFT": (None, 3630, 5099, 63.3, 64.7, 3.8),
    "SRT": (57.6, 8458, 8137, 66.7, 71.7, 15.0),
    "SD-Zero": (60.3, 3518, 3314, 68.3, 73.6, 16.7),
    "SRT, L_generation only": (56.4, None, None, 65.4, 67.9, 7.2),
    "SRT, L_revision only": (52.2, None, None, 62.1, 66.7, 12.1),
    "phase 2 only": (51.4, None, None, 61.2, 62.2, 2.6),
}
TABLE_9 = ("base", "GRPO", "SDFT", "SRT", "SD-Zero")
TABLE_11 = ("base", "SRT, L_generation only", "SRT, L_revision only", "SRT")
TABLE_12 = ("base", "phase 2 only", "SRT", "SD-Zero")

# Table 13, Qwen: {(N1, N2): averages of the SRT model and of SD-Zero}
TABLE_13 = {(6000, 9000): (57.6, 60.3), (7500, 7500): (57.8, 59.8), (9000, 6000): (57.8, 59.1)}
