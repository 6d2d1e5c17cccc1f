import sys

import pytest

from cohort.errors import ConfigError
from segmenters.command_config import CommandConfig
from segmenters.command_template import Template

PREDICT = f"'{sys.executable}' -m tool {{images}} {{output}}"


def test_is_named_after_its_program():
    assert CommandConfig(predict="/bin/sh -c x {images} {output}").architecture == "sh"


def test_yields_no_uncertainty():
    assert CommandConfig(predict=PREDICT).measures == frozenset()


def test_says_whether_it_runs_once_per_case():
    assert CommandConfig(predict="true -i {image} -o {output}").one_by_one
    assert not CommandConfig(predict=PREDICT).one_by_one


@pytest.mark.parametrize(
    ("predict", "message"),
    [
        ("", r"predict is empty, expected a command line such as 'program \{images\} \{output\}'"),
        ("true 'a {images} {output}", r"predict is .* which cannot be split into words: No closing"),
        ("true {output}", r"predict has no \{images\}; expected it among its arguments: true"),
        ("true {images}", r"predict has no \{output\}"),
        ("true {image} {images} {output}", r"predict has \{images\} and \{image\}; expected one"),
        ("true {images} {output} {wieghts}", r"predict has \{wieghts\}, .* known: \{images\}, \{output\}"),
        ("true {images} {output} {weights}", r"predict has \{weights\}, which means nothing there"),
        ("no-such-program {images} {output}", r"'no-such-program', which is not found on the PATH"),
    ],
)
def test_a_command_line_that_cannot_work_is_refused(predict, message):
    with pytest.raises(ConfigError, match=message):
        CommandConfig(predict=predict)


@pytest.mark.parametrize(
    ("fit", "predict", "message"),
    [
        ("true {images} {labels}", "true {images} {output} {weights}", r"fit has no \{weights\}"),
        ("true {images} {labels} {weights}", "true {images} {output}", r"predict has no \{weights\}"),
        (
            "true {images} {labels} {weights} {output}",
            "true {images} {output} {weights}",
            r"fit has \{output\}",
        ),
    ],
)
def test_a_training_whose_weights_go_nowhere_is_refused(fit, predict, message):
    with pytest.raises(ConfigError, match=message):
        CommandConfig(predict=predict, fit=fit)


@pytest.mark.parametrize(
    ("masks", "source", "message"),
    [
        ("label_map", "liver", r"labels.liver has 'liver', but masks is 'label_map': expected whole numbers"),
        ("label_map", 256, r"labels.liver has 256, .*from 1 to 255"),
        ("label_map", (3, 0), r"labels.liver has 0"),
        ("label_map", True, r"labels.liver has True"),
        ("per_structure", 3, r"labels.liver has 3, but masks is 'per_structure': expected names"),
        ("folders", 3, r"masks is 'folders', expected one of label_map, per_structure"),
    ],
)
def test_sources_of_another_kind_are_refused(masks, source, message):
    with pytest.raises(ConfigError, match=message):
        CommandConfig(predict=PREDICT, masks=masks, labels={"liver": source})


def test_sources_are_one_many_or_none():
    config = CommandConfig(predict=PREDICT, labels={"liver": 3, "lung": (4, 5), "tumour": ()})

    assert [config.sources(name) for name in ("liver", "lung", "tumour", "spleen")] == [
        (3,),
        (4, 5),
        (),
        None,
    ]


def test_words_are_not_given_to_a_shell():
    template = Template.parse("predict", "tool '$(rm x)' \"{images}\" --to={output}; ls")

    assert template.filled({"images": "/a b", "output": "/c"}) == (
        "tool",
        "$(rm x)",
        "/a b",
        "--to=/c;",
        "ls",
    )
