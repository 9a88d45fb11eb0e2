"""Every bound of the rewards in one place. Seconds are wall-clock unless they say CPU."""

# Mathematics. A usual comparison takes 1 to 30 milliseconds.
MATH_SECONDS = 30  # one comparison; then the worker is killed
MATH_CPU_SECONDS = 3  # one comparison; what hangs runs into this first, however busy the machine is
MATH_MEMORY = 1 << 30  # bytes of address space of one math worker
MAX_ANSWER = 1000  # characters; a longer answer counts only if it is the gold answer to the letter
MAX_DEPTH = 30  # nested brackets

# Programs
CODE_SECONDS = 60  # one item, all its tests
TEST_SECONDS = 5  # CPU seconds of one stdin test, or of all calls of a function item; a row may set
# another (time_limit); by the wall clock it is twice that, and 2 seconds
PROGRAM_MEMORY = 1024  # MiB resident; a row may set another (memory_limit)
MAX_MEMORY = 4096  # MiB: no row may ask for more
COMPILE_SECONDS = 20  # CPU seconds of a C++ compiler; by the wall clock twice that
COMPILE_MEMORY = 2048  # MiB of address space of each of its parts
MAX_PROGRAM = 100_000  # bytes of source
MAX_OUTPUT = 1 << 20  # bytes of output beyond twice the expected output
MAX_REPLY = 16 << 20  # bytes of one value from the candidate
MAX_DIGITS = 100_000  # of an integer that a test turns into text
SCRATCH = 64  # MiB in the candidate's /tmp

# Both
WAIT_SECONDS = 10  # for an idle worker; then another one is started
START_SECONDS = 120  # for a worker to be ready: imports take about a second
