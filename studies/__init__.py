"""What is measured about training, beside training itself. `eval.py` is the way in.

    compare      methods and ablations at equal budgets of samples (python eval.py compare)
    localise     where in an answer the reviser disagrees (python eval.py localise RUN)
    copied       does the reviser know what it writes? (python eval.py copied RUN ...)
    evolve       a run as it went (python eval.py evolve RUN)
    watch        a run so far, as a table (python eval.py watch RUN)
    run_page     a run on one HTML page (python eval.py page RUN)
    compare_page a comparison on one HTML page (python eval.py page OUT)
    page         what both pages are made of
    card         the README.md of a run's checkpoint (python eval.py card RUN)
    tune         one search of settings for every method (python eval.py tune)
    variants     SD-Zero with another phase 2 (python studies/variants.py)
    programs     the three programs that train, as rows of a table
    benchmarks   the paper's benchmarks, whole (python eval.py bench)
    paper        the paper's tables, our rows beside them (python eval.py paper RUN ...)
    runs         what a run's folder says: its options, results and log
    statistics   pass@k, paired tests, means over runs, parts of an answer
    bench        how fast, how exact and how large the parts are (python studies/bench.py kl)
    make_tiny    makes the embedded model from nothing (python studies/make_tiny.py)

Imports go down from here: studies -> baselines -> sdzero -> kit. Nothing below knows the studies.
"""
