"""Whether a program passes its tests.

Three processes: the caller (training), a warm code worker that has locked itself away and forks
one judge per item, and the candidate: a fresh interpreter, locked away further, that knows the
program but none of the tests. For stdin/stdout tests the judge runs the candidate once per test and
compares what it printed. For function tests the judge evaluates the assertions itself, or compares
the results of calls, and where the candidate's functions are called, it sends the arguments down a
pipe and gets plain data back. So the candidate can lie about a value, but never about whether a
value is right.

In the caller:

    fields      what a column holds: whether it is filled, lists written as text, limits
    functional  tests that call a function, their arguments and results as data
    formats     the tests of a row in one form
    response    the program in a response
    cpp         the C++ compiler of this host (in the worker: a program made by it)

In the code worker, from the bottom up (Linux only):

    linux       names, numbers, libc functions that raise OSError
    visible     what a program may see of the file system
    filters     seccomp and Landlock
    namespaces  a world of its own for the worker
    sandbox     starts a program locked away
    process     a running candidate: its time, its memory, its end
    compare     when what was printed, or returned, is what was expected
    imports     the names that judges of functions import for a program
    stdin       judges programs that read standard input and print
    remote      a program's functions and objects, as a test sees them from outside
    assertions  judges programs by assertions
    calls       judges programs by calls of one function
    judge       one judge per item, in a process of its own
    worker      the process that reads items and forks judges
"""
