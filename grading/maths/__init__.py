"""Whether two mathematical answers are the same.

From the bottom up; each room imports only from those above it in this list:

    glance      equal texts and plain numbers, decided at once by the caller
    brackets    where brackets close, what stands outside them
    characters  signs of Unicode, as LaTeX
    latex       one spelling for what LaTeX spells in many ways
    literals    numbers that are written out, as exact fractions
    unfinished  what a finished answer does not hold
    words       choices, words, other bases, percentages
    units       km, $, degrees, what is counted
    names       what may stand on the left of =
    parameters  k in k\\pi
    symbols     expressions, by math-verify and sympy
    values      whether two single values are the same
    reals       intervals and their unions
    relations   equations and inequalities
    parse       an answer as nested tuples
    same        whether two answers are the same
    worker      the process that compares, under limits
"""
