"""The rewards, room by room. verify.py is the front door; nothing here imports anything outside.

    bounds      every limit in one place
    answers     where an answer stands in a response, and in a gold field
    maths/      whether two answers are the same: cleaning, parsing, numbers, units, expressions
    programs/   whether a program passes its tests: forms of tests, the sandbox, the judges
    candidate/  what runs inside the sandbox, beside the program
    countdown   whether an expression joins given numbers to a target
    own         a reward of your own, a function of a file; own_worker asks it
    gym         the scorers of reasoning-gym, as such a function
    limits      what a worker may use
    workers     the processes in which the hard part happens, kept warm
    golds       gold answers as data sets have them, and those that no answer could equal
    rows        rows to grade, for the command line
    levels      how well programs can be isolated on this host

Imports go down only: workers know nothing of what they do, maths/ and programs/ nothing of each
other, candidate/ nothing but the standard library.
"""
