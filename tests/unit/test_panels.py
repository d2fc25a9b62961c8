"""Each panel says of a drawing what the notebook it belongs to would compute."""

import base64
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_drawing import CLASSIFIER, DATA, IMAGES, MODEL

from vae_utils.inference import decode, encode
from vae_utils.panels import KNOWN, NOISE, STEP, Panels, arc

X = IMAGES[:1]


@pytest.fixture(scope="module")
def panels():
    return Panels(MODEL, DATA, classifier=CLASSIFIER)


def test_an_answer_is_json_with_images_of_784_bytes(panels):
    answer = panels.answer(X, [*Panels.NAMES, "no such panel"], {"digit": 2})
    assert set(answer) == set(Panels.NAMES) and json.loads(json.dumps(answer)) == answer
    image = np.frombuffer(base64.b64decode(answer["look"]["image"][0]), np.uint8)
    assert len(image) == 784 and np.abs(image / 255 - X.numpy().ravel()).max() < 0.5 / 255 + 1e-6


def test_code_and_bytes(panels):
    mu = encode(MODEL, X)[0]
    code, coded = panels.code(X), panels.bytes(X)
    assert code["mu"] == mu[0].tolist() and torch.equal(code["reconstruction"], decode(MODEL, mu))
    assert code["recon"] == pytest.approx(
        F.binary_cross_entropy(code["reconstruction"], X, reduction="sum").item(), rel=1e-5
    )
    assert (np.array(coded["whole"]) * STEP == pytest.approx(mu[0].numpy(), abs=STEP / 2 + 1e-6)) and coded["bits"] > 0


def test_a_walk_begins_at_the_drawing_ends_at_the_digit_asked_for_and_keeps_its_distance(panels):
    shown = panels.morph(X, digit=2)
    mu = encode(MODEL, X)[0]
    torch.testing.assert_close(shown["path"][[0]], decode(MODEL, mu), rtol=0, atol=1e-4)
    torch.testing.assert_close(shown["path"][[-1]], decode(MODEL, panels.target_codes[2:3]), rtol=0, atol=1e-4)
    assert shown["distances"][0] == pytest.approx(0, abs=1e-3) and shown["labels"][0] == 0  # X is a training image here
    ends = 3 * F.normalize(torch.randn(2, 10, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(arc(*ends, 5).norm(dim=1), torch.full((5,), 3.0))
    assert arc(ends[0], ends[0], 3).isfinite().all()


def test_noise_replaces_a_quarter_and_strangeness_has_the_stated_rate(panels):
    shown, judged = panels.denoise(X), panels.strange(X)
    assert (shown["noisy"] != X).float().mean().item() == pytest.approx(NOISE, abs=0.01)
    assert judged["score"] == pytest.approx(panels.error(X).item())
    assert (panels.error(DATA.val_images) >= panels.limit).sum() == int(0.05 * 41)
    assert sum(judged["counts"]) <= len(panels.scores) <= KNOWN + 500


def test_a_completion_keeps_what_is_seen_and_the_reader_may_bring_functions(panels):
    shown = panels.complete(X)
    observed = panels.observed.expand(len(shown["ways"]), -1, -1, -1)
    assert torch.equal(shown["ways"][observed], X.expand_as(shown["ways"])[observed])
    assert len(shown["ways"].flatten(1).unique(dim=0)) == len(shown["ways"]) == 4
    own = Panels(
        MODEL,
        DATA,
        classifier=CLASSIFIER,
        score=lambda images: images.flatten(1).sum(1),
        denoise=lambda images: 0 * images,
        complete=lambda seen, observed: seen.expand(4, -1, -1, -1),
    )
    assert own.denoise(X)["denoised"].sum() == 0 and own.strange(X)["score"] == pytest.approx(X.sum().item())
    assert torch.equal(own.complete(X)["ways"][2:3], own.complete(X)["seen"])
