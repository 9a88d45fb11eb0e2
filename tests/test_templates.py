"""Chat templates: what one refuses, or cannot do, is said in one line; plain keeps what texts begin
with."""

import pytest
from tokenizers import processors
from toys import message_of, random_model, small, write_lines

import kit
import sdzero
from kit.errors import UserError
from kit.files import save_checkpoint
from kit.loading import PLAIN_TEMPLATE, load_tokenizer
from kit.questions import file_questions, load_questions, template_of

# as Gemma's
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}{{ m['role'] + m['content'] }}"
    "{% endfor %}"
)
USER, SYSTEM = {"role": "user", "content": "2+2?"}, {"role": "system", "content": "Be brief."}


@pytest.fixture
def gemma(own_tokenizer, tmp_path):
    """A checkpoint whose template refuses a system message."""
    own_tokenizer.chat_template = NO_SYSTEM
    save_checkpoint(own_tokenizer, random_model(), tmp_path / "gemma")
    return str(tmp_path / "gemma")


def test_questions_that_the_template_refuses_are_bad_rows(gemma, checkpoint, tmp_path, capsys):
    prompts = [[SYSTEM, USER], [USER], "3+3?", [USER, USER], [{**USER, "content": "4+4?"}], "5+5?"]
    file = write_lines(tmp_path / "q.jsonl", [{"prompt": p, "answer": "4"} for p in prompts])
    cfg = small(gemma, data=file, task="math")
    assert sum(map(len, load_questions(cfg).values())) == 4
    out = capsys.readouterr().out
    assert "2 of 6 rows left out" in out
    assert "line 1: the chat template refuses it: System role not supported" in out
    assert "line 4: the chat template refuses it: Roles must alternate" in out
    # another model's template takes them; of a model that is not there the run will tell
    for model in (checkpoint, "no/such"):
        assert len(file_questions(file, "math", template_of(small(model)))) == 6


def test_where_all_are_refused_the_run_says_so_in_one_line(gemma, tmp_path, capsys):
    write_lines(tmp_path / "q.jsonl", [{"prompt": [SYSTEM, USER], "answer": "4"}] * 5)
    options = "--data", tmp_path / "q.jsonl", "--model", gemma, "--out", tmp_path / "run"
    message = message_of(capsys, sdzero.main, *options)
    assert "no usable row" in message and "line 1" in message and "System role" in message


def test_a_system_message_that_the_template_refuses_is_said_in_one_line(gemma, tmp_path, capsys):
    words = "--model", gemma, "--system", "Be brief.", "--out", tmp_path / "run", "--digits", "2"
    message = message_of(capsys, sdzero.main, *words, "--samples", "40")
    assert f"of {gemma} refuses the question" in message and "System role" in message
    assert not (tmp_path / "run").exists()


def test_another_checkpoint_that_refuses_a_question_is_named(gemma):
    tokenizer = load_tokenizer(small(gemma))
    kit.loading.check_prompts(tokenizer, [{"prompt": "a?"}, {"prompt": [USER]}], "m")
    with pytest.raises(UserError, match="of m refuses the question '2.2.': System role"):
        kit.loading.check_prompts(tokenizer, [{"prompt": [SYSTEM, USER]}], "m")


def test_the_tokenizer_is_loaded_for_chat_messages_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(kit.loading, "load_tokenizer", lambda cfg: pytest.fail("loaded"))
    write_lines(tmp_path / "q.jsonl", [{"prompt": "a?", "answer": "4"}])
    cfg = small(data=str(tmp_path / "q.jsonl"), task="math")
    assert len(file_questions(cfg.data, "math", template_of(cfg))) == 1


@pytest.mark.parametrize(
    "template, words",
    [
        ("{% for m in messages %}", r"line 1"),
        ("{{ messages | nosuchfilter }}", "nosuchfilter"),
        ("{{ nosuchfunction(messages) }}", "undefined"),
        ("{{ messages[7]['content'] + 'x' }}", "no element 7"),
        ("{{ 1 / 0 }}", "division"),
        ("{{ raise_exception('never') }}", "never"),
        ("no question", "leaves the question out"),
        ("{% for m in messages %}{{ m.text }}{% endfor %}", "leaves the question out"),
        (b"\xff\xfe\x00", "no text"),
    ],
)
def test_a_broken_template_is_said_in_one_line(tmp_path, capsys, checkpoint, template, words):
    file = tmp_path / "t.jinja"
    file.write_bytes(template if isinstance(template, bytes) else template.encode())
    options = "--chat-template", file, "--model", checkpoint, "--out", tmp_path / "run"
    message = message_of(capsys, sdzero.main, *options)
    assert words in message and str(file) in message
    assert not (tmp_path / "run").exists()


def test_a_broken_template_of_the_model_itself_names_the_model(own_tokenizer, tmp_path):
    own_tokenizer.chat_template = "{% if %}"
    save_checkpoint(own_tokenizer, random_model(), tmp_path / "m")
    with pytest.raises(UserError, match="chat template of .*/m cannot be used"):
        load_tokenizer(small(str(tmp_path / "m")))


@pytest.mark.parametrize("adds", [True, False])
def test_the_plain_template_keeps_the_token_that_texts_begin_with(own_tokenizer, tmp_path, adds):
    """Llama's tokenizer puts <s> before every text; GPT-2's has such a token, and does not."""
    own_tokenizer.bos_token, own_tokenizer.chat_template = "<|endoftext|>", None
    if adds:
        token = ("<|endoftext|>", own_tokenizer.bos_token_id)
        own_tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{token[0]} $A", special_tokens=[token]
        )
    save_checkpoint(own_tokenizer, random_model(), tmp_path / "m")
    tokenizer = load_tokenizer(small(str(tmp_path / "m"), chat_template="plain"))
    bos = [tokenizer.bos_token_id] * adds
    assert tokenizer.encode("a")[:1] == (bos or tokenizer.encode("a", add_special_tokens=False)[:1])
    text = tokenizer.encode("Question: 1+1?\n\nAnswer:", add_special_tokens=False)
    assert sdzero.chat_ids(tokenizer, "1+1?") == bos + text
    shots = [USER, {"role": "assistant", "content": "4"}, USER]
    assert sdzero.chat_ids(tokenizer, shots).count(tokenizer.bos_token_id) == adds
    # and so does the checkpoint that is trained
    tokenizer.save_pretrained(tmp_path / "trained")
    save_checkpoint(tokenizer, random_model(), tmp_path / "trained")
    again = load_tokenizer(small(str(tmp_path / "trained")))
    assert again.chat_template == "{{ bos_token }}" * adds + PLAIN_TEMPLATE
    assert sdzero.chat_ids(again, "1+1?") == bos + text
