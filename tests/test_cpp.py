"""C++ answers: compiled and run inside the sandbox, and what they cannot do there."""

import pytest

import verify
from grading.programs import cpp
from grading.programs.response import last_program
from grading.workers import Pool

TESTS = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"], "language": "cpp"}
SUM = """#include <cstdio>
int main() { int a, b; scanf("%d %d", &a, &b); printf("%d\\n", a + b); }
"""
READS = """#include <cstdio>
int main() { printf("%d\\n", fopen("/etc/passwd", "r") ? 3 : 4); }
"""
WRITES = """#include <cstdio>
int main() { printf("%d\\n", fopen("/usr/lib/x", "w") ? 3 : 4); }
"""
FORKS = """#include <cstdio>
#include <unistd.h>
int main() { fork(); printf("3\\n"); }
"""
SOCKET = """#include <cstdio>
#include <sys/socket.h>
int main() { printf("%d\\n", socket(AF_INET, SOCK_STREAM, 0) < 0 ? 4 : 3); }
"""

needs_a_compiler = pytest.mark.skipif(not verify.cpp_compiler(), reason="neither g++ nor clang++")


def fenced(program, mark="cpp") -> str:
    return f"Here it is:\n\n```{mark}\n{program}```\n"


def judged(grader, *programs) -> list:
    return grader.explain([fenced(p) for p in programs], [TESTS] * len(programs))


@needs_a_compiler
def test_programs_are_compiled_and_judged(code_grader):
    wrong, broken = SUM.replace("a + b", "a - b"), SUM.replace("int main", "int man")
    right, minus, unlinked, syntax = judged(code_grader, SUM, wrong, broken, "int main( {")
    assert right == (1.0, "passed 2 tests")
    assert minus[0] == 0.0 and "printed '-1', expected '3'" in minus[1]
    assert unlinked[0] == syntax[0] == 0.0
    assert "does not compile" in unlinked[1] and "error" in syntax[1]


@needs_a_compiler
def test_neither_program_nor_compiler_can_look_around(code_grader):
    includes = '#include "/etc/passwd"\nint main() {}\n'
    embeds = 'asm(".incbin \\"/proc/self/environ\\"");\nint main() {}\n'
    programs = READS, WRITES, FORKS, SOCKET, includes, embeds
    reads, writes, forks, opens, included, embedded = judged(code_grader, *programs)
    for reward, why in (reads, writes, opens):
        assert reward == 0.0 and "printed '4'" in why
    assert forks[0] == 0.0 and "exit status" in forks[1] or "signal" in forks[1]
    for reward, why in (included, embedded):
        assert reward == 0.0 and "does not compile" in why and "root:" not in why


@needs_a_compiler
def test_under_landlock_too(isolated):
    grader = verify.Grader("code", workers=1)
    grader.close()
    grader.pool = Pool("code", ("landlock",), 1, 60, 5)
    with grader:
        if grader.pool.ask([]) is None:
            pytest.skip("no Landlock here")
        (right, said), (reads, why) = judged(grader, SUM, READS)
        if "could not be started" in said:
            pytest.skip("no Landlock here")
        assert right == 1.0 and reads == 0.0 and "printed '4'" in why


def test_the_block_is_that_of_the_language():
    text = fenced(SUM, "c++") + fenced("print(3)\n", "python")
    assert last_program(text) == "print(3)\n" and last_program(text, "cpp") == SUM
    for mark in ("cpp", "C++", "cc"):
        assert last_program(fenced(SUM, mark), "cpp") == SUM
    assert last_program(fenced(SUM, "c"), "cpp") is None
    assert last_program(fenced(SUM)[:-5], "cpp") is None  # cut off
    assert verify.PREPARE["code"](fenced(SUM, "python"), TESTS) == (
        (0.0, "no complete ```cpp block"),
        None,
    )


def test_forms_of_a_row():
    assert verify.load_tests({**TESTS, "language": "C++"})["language"] == "cpp"
    for language in ("python", "en", "", None):
        assert "language" not in verify.load_tests({**TESTS, "language": language})
    with pytest.raises(ValueError, match="input and output alone"):
        verify.load_tests({"test_list": ["assert f(1) == 2"], "language": "cpp"})


def test_without_a_compiler_it_says_so(monkeypatch):
    monkeypatch.setattr(cpp, "cpp_compiler", lambda: None)
    assert cpp.compiled(None, SUM) == (
        None,
        "no C++ compiler (g++ or clang++) is found on this host",
    )
