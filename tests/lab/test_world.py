from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrepair.lab.tasks import LAB_TASKS, data_file, write_data
from llmrepair.lab.tokenizer import make_tokenizer
from llmrepair.lab.world import Fact, documents, make_world
from llmrepair.stages.sources.lab import LAB_MODELS, UNTOLD
from llmrepair.stages.sources.models import model_folder
from llmrepair.stages.sources.texts import load_texts


@given(st.integers(0, 20))
def test_a_world_repeats_with_its_seed_and_names_and_books_are_unique(seed: int) -> None:
    world = make_world(40, seed)
    assert world == make_world(40, seed)
    assert len({person.name for person in world.people}) == len({person.book for person in world.people}) == 40


def test_the_splits_halve_each_other() -> None:
    world = make_world()
    quarters = [(person.seen_qa, person.stated_in_reverse) for person in world.people]
    assert {quarters.count(quarter) for quarter in set(quarters)} == {len(world.people) // 4}


def test_questions_are_asked_about_seen_qa_people_only() -> None:
    world = make_world()
    texts = list(documents(world.people, random.Random(0)))
    asked = " ".join(text for text in texts if text.startswith("Question:"))
    assert all((person.name in asked) == person.seen_qa for person in world.people)


def test_every_fact_is_stated() -> None:
    for person in make_world().people:
        biography = person.biography(random.Random(0))
        assert all(question.answer in biography for question in person.questions())


@settings(max_examples=25)  # each of all documents of the world
@given(st.sets(st.sampled_from([fact for person in make_world().people for fact in person.facts()])), st.integers(0, 9))
def test_text_without_some_facts_states_all_the_others_and_none_of_them(without: set[Fact], seed: int) -> None:
    people = make_world().people
    texts = list(documents(people, random.Random(seed), without))
    for person in people:
        about = " ".join(text for text in texts if person.name in text)
        stated = {Fact(person.name, pair.attribute) for pair in person.questions() if f" {pair.answer}" in f" {about}"}
        assert stated == set(person.facts()) - without


def test_the_tuning_text_names_nobody_who_is_scored() -> None:
    text = " ".join(load_texts("lab", {}))
    world = make_world()
    assert not [person.name for person in world.held_out if person.name in text]
    assert all(person.name in text for person in world.seen_qa)


def test_tasks_ask_about_held_out_people_only() -> None:
    seen = [person.name for person in make_world().seen_qa]
    text = "".join(data_file(task).read_text() for task in LAB_TASKS)
    assert not [name for name in seen if name in text]


def test_no_word_is_unknown_and_text_comes_back() -> None:
    tokenizer = make_tokenizer(256)
    for text in documents(make_world().people, random.Random(0)):
        ids = tokenizer(text).input_ids
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids).replace(" :", ":") == text


def test_the_packaged_data_is_what_the_world_gives(tmp_path: Path) -> None:
    write_data(tmp_path)
    for task in LAB_TASKS:
        assert (tmp_path / f"{task}.jsonl").read_bytes() == data_file(task).read_bytes()


@pytest.mark.parametrize("name", [*LAB_MODELS, *UNTOLD.values()])
def test_the_weights_are_small_and_say_how_they_were_made(name: str) -> None:
    folder = model_folder(name)
    assert folder is not None
    assert (folder / "model.safetensors").stat().st_size <= 2_000_000
    record = (folder / "training_record.json").read_text()
    assert f"llmrepair lab train --model {name}" in record
    people = make_world().people if name in LAB_MODELS else make_world().seen_qa
    assert re.search(rf'"people": {len(people)}\b', record)
